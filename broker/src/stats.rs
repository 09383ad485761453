//! Counters of messages in and out, and their averages over the last seconds and minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

/// Averages cover at most this many samples, one a second.
const SAMPLES_MAX: usize = 601;
/// Topics and groups counted one by one; beyond it only the totals go on.
const NAMES_MAX: usize = 20_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A group and a topic it takes from.
type GroupTopic = (Arc<str>, Arc<str>);
type Counters<K> = RwLock<HashMap<K, Arc<AtomicU64>>>;

/// All counters of a member.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    put: AtomicU64,
    put_bytes: AtomicU64,
    put_failed: AtomicU64,
    found: AtomicU64,
    missed: AtomicU64,
    transferred: AtomicU64,
    topics: Counters<Arc<str>>,
    groups: Counters<GroupTopic>,
    samples: Mutex<Samples>,
    day: Mutex<Day>,
}

#[derive(Debug, Default)]
struct Samples {
    totals: VecDeque<(Instant, Totals)>,
    /// Per name: the total a minute or less ago, and when that was.
    topics: HashMap<Arc<str>, Marks>,
    groups: HashMap<GroupTopic, Marks>,
}

/// Two marks a minute apart: rates are taken against the older one.
#[derive(Debug, Clone, Copy)]
struct Marks {
    older: (Instant, u64),
    newer: (Instant, u64),
}

/// Totals since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Messages stored.
    pub(crate) put: u64,
    /// Bytes of their records.
    pub(crate) put_bytes: u64,
    /// Sends refused for other reasons than flow control.
    pub(crate) put_failed: u64,
    /// Pulls that found messages.
    pub(crate) found: u64,
    /// Pulls that found none.
    pub(crate) missed: u64,
    /// Messages handed to consumers.
    pub(crate) transferred: u64,
}

/// Totals at the last two midnights (UTC).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Day {
    number: i64,
    /// Messages stored and handed out until yesterday's midnight.
    pub(crate) yesterday: (u64, u64),
    /// Until today's.
    pub(crate) today: (u64, u64),
}

/// Over how long the three averages of the runtime information reach.
const WINDOWS: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

impl Stats {
    /// Counts stored messages.
    pub(crate) fn put(&self, topic: &Arc<str>, count: u32, bytes: usize) {
        self.put.fetch_add(count.into(), Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(counter) = counter(&self.topics, topic, Arc::clone) {
            counter.fetch_add(count.into(), Ordering::Relaxed);
        }
    }

    /// Counts a refused send.
    pub(crate) fn put_failed(&self) {
        self.put_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a pull that found `count` messages.
    pub(crate) fn found(&self, group: &Arc<str>, topic: &Arc<str>, count: usize) {
        self.found.fetch_add(1, Ordering::Relaxed);
        self.transferred.fetch_add(count as u64, Ordering::Relaxed);
        let name = (Arc::clone(group), Arc::clone(topic));
        if let Some(counter) = counter(&self.groups, &name, Clone::clone) {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Counts a pull that found nothing.
    pub(crate) fn missed(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// The totals so far.
    pub(crate) fn totals(&self) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            put: of(&self.put),
            put_bytes: of(&self.put_bytes),
            put_failed: of(&self.put_failed),
            found: of(&self.found),
            missed: of(&self.missed),
            transferred: of(&self.transferred),
        }
    }

    /// Takes a sample; to be called once a second.
    pub(crate) fn sample(&self, now: Instant, now_ms: i64) {
        let totals = self.totals();
        {
            let mut samples = self.samples.lock();
            if samples.totals.len() >= SAMPLES_MAX {
                samples.totals.pop_front();
            }
            samples.totals.push_back((now, totals));
            mark(&mut samples.topics, &self.topics.read(), now);
            mark(&mut samples.groups, &self.groups.read(), now);
        }
        let mut day = self.day.lock();
        let number = now_ms.div_euclid(DAY_MS);
        if day.number != number {
            day.number = number;
            day.yesterday = day.today;
            day.today = (totals.put, totals.transferred);
        }
    }

    /// Totals at the last two midnights.
    pub(crate) fn day(&self) -> Day {
        *self.day.lock()
    }

    /// Averages per second over 10 s, 1 min and 10 min, as far as samples reach.
    pub(crate) fn averages(&self, now: Instant, of: impl Fn(&Totals) -> u64) -> [f64; 3] {
        let totals = self.totals();
        let samples = self.samples.lock();
        WINDOWS.map(|window| {
            let start = samples
                .totals
                .iter()
                .find(|(at, _)| now.saturating_duration_since(*at) <= window);
            start.map_or(0.0, |(at, then)| {
                rate(of(&totals) - of(then), now.saturating_duration_since(*at))
            })
        })
    }

    /// Messages stored per second in a topic over the last minute or two.
    pub(crate) fn topic_put_tps(&self, topic: &str, now: Instant) -> f64 {
        let total = self
            .topics
            .read()
            .get(topic)
            .map_or(0, |counter| counter.load(Ordering::Relaxed));
        let samples = self.samples.lock();
        samples
            .topics
            .get(topic)
            .map_or(0.0, |marks| marks.rate(total, now))
    }

    /// Messages per second that a group took from a topic over the last minute or two.
    pub(crate) fn group_get_tps(&self, group: &str, topic: &str, now: Instant) -> f64 {
        let name = (Arc::from(group), Arc::from(topic));
        let total = self
            .groups
            .read()
            .get(&name)
            .map_or(0, |counter| counter.load(Ordering::Relaxed));
        let samples = self.samples.lock();
        samples
            .groups
            .get(&name)
            .map_or(0.0, |marks| marks.rate(total, now))
    }

    /// Forgets topics that are gone.
    pub(crate) fn keep_topics(&self, exists: impl Fn(&str) -> bool) {
        self.topics.write().retain(|topic, _| exists(topic));
        self.groups.write().retain(|(_, topic), _| exists(topic));
        let mut samples = self.samples.lock();
        samples.topics.retain(|topic, _| exists(topic));
        samples.groups.retain(|(_, topic), _| exists(topic));
    }
}

impl Marks {
    fn rate(&self, total: u64, now: Instant) -> f64 {
        rate(
            total.saturating_sub(self.older.1),
            now.saturating_duration_since(self.older.0),
        )
    }
}

fn mark<K: Clone + Eq + std::hash::Hash>(
    marks: &mut HashMap<K, Marks>,
    counters: &HashMap<K, Arc<AtomicU64>>,
    now: Instant,
) {
    for (name, counter) in counters {
        let total = counter.load(Ordering::Relaxed);
        let marks = marks.entry(name.clone()).or_insert(Marks {
            older: (now, 0),
            newer: (now, total),
        });
        if now.saturating_duration_since(marks.newer.0) >= WINDOWS[1] {
            marks.older = marks.newer;
            marks.newer = (now, total);
        }
    }
}

fn counter<K: Eq + std::hash::Hash>(
    counters: &Counters<K>,
    name: &K,
    own: impl Fn(&K) -> K,
) -> Option<Arc<AtomicU64>> {
    if let Some(counter) = counters.read().get(name) {
        return Some(Arc::clone(counter));
    }
    let mut counters = counters.write();
    if counters.len() >= NAMES_MAX && !counters.contains_key(name) {
        return None;
    }
    Some(Arc::clone(counters.entry(own(name)).or_default()))
}

fn rate(count: u64, over: Duration) -> f64 {
    if over.is_zero() {
        0.0
    } else {
        count as f64 / over.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_cover_their_windows() {
        let stats = Stats::default();
        let topic: Arc<str> = "T".into();
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        stats.sample(start, 0);
        for n in 1..=100 {
            stats.put(&topic, 10, 100);
            stats.sample(second(n), 0);
        }
        let [ten, minute, all] = stats.averages(second(100), |totals| totals.put);
        assert!(
            (ten - 10.0).abs() < 0.01 && (minute - 10.0).abs() < 0.01,
            "{ten} {minute}"
        );
        assert!((all - 10.0).abs() < 0.2, "{all}");
        assert!((stats.topic_put_tps("T", second(100)) - 10.0).abs() < 1.0);
        assert_eq!(stats.averages(second(1000), |totals| totals.put)[0], 0.0);
        assert_eq!(stats.totals().put_bytes, 10_000);
    }

    #[test]
    fn midnight_moves_today_to_yesterday() {
        let stats = Stats::default();
        let topic: Arc<str> = "T".into();
        let now = Instant::now();
        stats.sample(now, DAY_MS);
        stats.put(&topic, 5, 1);
        stats.sample(now, 2 * DAY_MS - 1);
        assert_eq!((stats.day().yesterday, stats.day().today), ((0, 0), (0, 0)));
        stats.sample(now, 2 * DAY_MS);
        stats.put(&topic, 1, 1);
        stats.sample(now, 3 * DAY_MS);
        assert_eq!((stats.day().yesterday, stats.day().today), ((5, 0), (6, 0)));
        stats.keep_topics(|_| false);
        assert!(stats.topics.read().is_empty());
    }
}

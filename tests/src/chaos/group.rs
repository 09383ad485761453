//! A consumer group that saves how far it has come, one consumer for each queue, and looks again and again what is saved.
//!
//! An acknowledged offset has been applied: none may be lost, whoever leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::calls;
use crate::clock::Nanos;
use crate::leadership::Addresses;
use crate::wait::pause;
use crate::wire::Connection;

/// The group.
pub const GROUP: &str = "ChaosGroup";
/// Pulls between two looks at what is saved.
const PULLS: usize = 16;

/// Consumers under way.
#[derive(Debug)]
pub struct GroupProgress {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Progress>>,
}

/// What one consumer found.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Acknowledged saves that still count.
    acked: Vec<Save>,
    /// The largest offset that was tried to be saved.
    tried: i64,
    /// Saves acknowledged.
    pub saves: usize,
    /// Times that acknowledged saves were lost.
    pub losses: usize,
    /// The longest time for which acknowledged saves were lost.
    pub lost: Duration,
    /// What may not happen.
    pub complaints: Vec<String>,
}

/// An acknowledged save.
#[derive(Debug, Clone, Copy)]
struct Save {
    called: Nanos,
    answered: Nanos,
    offset: i64,
}

impl Progress {
    /// The offset that was acknowledged last.
    pub fn last(&self) -> Option<i64> {
        self.acked.last().map(|save| save.offset)
    }

    fn saved(&mut self, save: Save) {
        self.saves += 1;
        self.acked.push(save);
    }

    /// Judges an answer to what is saved.
    fn found(&mut self, found: i64, place: &str) {
        if found > self.tried {
            let tried = self.tried;
            self.complaints.push(format!(
                "{place}: offset {found} is saved, {tried} is the largest that was tried"
            ));
        }
        let Some(last) = self.acked.last().copied() else {
            return;
        };
        if found >= last.offset {
            return;
        }
        let kept = self.acked.partition_point(|save| save.offset <= found);
        // Whoever was frozen may answer late; when it was asked counts.
        let lost = last.called.since(self.acked[kept].answered);
        self.lost = self.lost.max(lost);
        self.losses += 1;
        // What is gone is gone: from here on this is what may not be undercut.
        self.acked.truncate(kept);
    }
}

impl GroupProgress {
    /// Starts one consumer for each queue.
    pub fn start(members: &Addresses, topic: &str, queues: i32) -> GroupProgress {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..queues)
            .map(|queue| {
                let mut consumer = Consumer {
                    members: Arc::clone(members),
                    topic: topic.to_owned(),
                    queue,
                    stop: Arc::clone(&stop),
                    progress: Progress::default(),
                };
                std::thread::spawn(move || {
                    consumer.run();
                    consumer.progress
                })
            })
            .collect();
        GroupProgress { stop, threads }
    }

    /// Ends all consumers, each after a save that was acknowledged, and returns what they found, by queue.
    pub fn stop(mut self) -> Vec<Progress> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_panic| Progress {
            complaints: vec!["a consumer's thread panicked".to_owned()],
            ..Progress::default()
        };
        let threads = std::mem::take(&mut self.threads);
        let joined = threads.into_iter().map(JoinHandle::join);
        joined.map(|ended| ended.unwrap_or_else(panicked)).collect()
    }
}

impl Drop for GroupProgress {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok(); // as above
        }
    }
}

struct Consumer {
    members: Addresses,
    topic: String,
    queue: i32,
    stop: Arc<AtomicBool>,
    progress: Progress,
}

impl Consumer {
    fn run(&mut self) {
        let start = self.queue.unsigned_abs() as usize;
        let mut failures = 0;
        for turn in start.. {
            let stopping = self.stop.load(Ordering::Relaxed);
            let members = (self.members)();
            let address = members.get(turn % members.len().max(1));
            let consumed = address
                .context("no member is known")
                .and_then(|address| self.consume(address));
            match consumed {
                Ok(()) if stopping => return,
                Ok(()) => failures = 0,
                // A group in which nothing can be saved any more is for others to find.
                Err(_) if stopping && failures > 200 => return,
                Err(_) => {
                    failures += usize::from(stopping);
                    pause(Duration::from_millis(50));
                }
            }
        }
    }

    /// Goes on from where the group is, through one member.
    fn consume(&mut self, address: &str) -> Result<()> {
        let mut connection = Connection::open(address)?;
        let place = format!("{address}, queue {}", self.queue);
        let mut at = match calls::query_offset(&mut connection, GROUP, &self.topic, self.queue)? {
            Some(found) => {
                self.progress.found(found, &place);
                found
            }
            None => {
                self.progress.found(0, &place);
                0
            }
        };
        for _ in 0..PULLS {
            let hold = Duration::from_millis(100);
            let pulled = calls::pull(&mut connection, GROUP, &self.topic, self.queue, at, hold)?;
            if pulled.code == calls::response::PULL_OFFSET_MOVED {
                self.complain(format!("{place}: sent from {at} to {}", pulled.next));
            }
            let records = pulled.records()?;
            at = records.last().map_or(at, |last| last.queue_offset + 1);
            self.progress.tried = self.progress.tried.max(at);
            let called = Nanos::now();
            calls::update_offset(&mut connection, GROUP, &self.topic, self.queue, at)?;
            self.progress.saved(Save {
                called,
                answered: Nanos::now(),
                offset: at,
            });
        }
        Ok(())
    }

    fn complain(&mut self, what: String) {
        self.progress.complaints.push(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn progress() -> Progress {
        let mut progress = Progress {
            tried: 50,
            ..Progress::default()
        };
        for step in 1..=4 {
            progress.saved(Save {
                called: Nanos((step * 100 - 1) * MS),
                answered: Nanos(step * 100 * MS),
                offset: i64::try_from(step * 10).unwrap(),
            });
        }
        progress
    }

    #[test]
    fn what_is_saved_may_be_what_was_acknowledged_or_tried() {
        for found in [40, 45, 50] {
            let mut progress = progress();
            progress.found(found, "");
            assert_eq!((progress.losses, progress.complaints.len()), (0, 0));
        }
        let mut progress = progress();
        progress.found(51, "");
        assert_eq!(progress.complaints.len(), 1);
    }

    #[test]
    fn a_loss_is_as_long_as_what_was_acknowledged_meanwhile() {
        let mut progress = progress();
        progress.found(25, "");
        assert_eq!(progress.lost, Duration::from_millis(99)); // 30 and 40
        assert_eq!(progress.last(), Some(20));
        progress.found(25, "");
        assert_eq!(progress.losses, 1);
        progress.found(5, "");
        assert_eq!((progress.losses, progress.last()), (2, None));
    }
}

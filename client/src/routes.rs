//! The routes that a client instance uses, kept fresh in the background and at once when a broker
//! fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use raftmq_proto::body::TopicRouteData;
use raftmq_proto::message::name::AUTO_CREATE_TOPIC;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::nameservers::NameServers;
use crate::route::Route;

/// Wait for one question about a route, hedging included.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pace at which nameservers are asked while a failover is watched: at first a new leader is due any
/// moment, later it may take as long as an operator needs.
const WATCH_PACE: Duration = Duration::from_millis(50);
const WATCH_PACE_LATER: Duration = Duration::from_millis(250);
const WATCH_FAST_FOR: Duration = Duration::from_secs(5);
const WATCH_FOR: Duration = Duration::from_secs(15);
/// Most topics one instance keeps routes of.
const TOPICS_MAX: usize = 10_000;

/// What is known about one topic.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// Not asked yet, or no nameserver has ever known it.
    Nothing,
    /// The topic does not exist yet; this route was made from the default topic's.
    Provisional(Arc<Route>),
    /// The topic's own route.
    Route(Arc<Route>),
}

impl Known {
    pub(crate) fn route(&self, provisional_too: bool) -> Option<&Arc<Route>> {
        match self {
            Known::Route(route) => Some(route),
            Known::Provisional(route) if provisional_too => Some(route),
            Known::Provisional(_) | Known::Nothing => None,
        }
    }
}

/// Cheap to clone; all clones share the routes.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name_servers: NameServers,
    default_queues: i32,
    topics: Mutex<HashMap<String, Arc<Topic>>>,
    /// Counts changes of any route: heartbeats and rebalancing wait for it.
    changes: watch::Sender<u64>,
    /// Moves through the nameservers while failovers are watched.
    rotation: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Topic {
    name: String,
    known: watch::Sender<Known>,
    /// Held while nameservers are asked, so that many callers ask once; the time of the last question.
    asking: tokio::sync::Mutex<Option<Instant>>,
    /// Whether a failover of this topic's groups is being watched.
    watched: AtomicBool,
}

impl Topic {
    pub(crate) fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }
}

impl Routes {
    pub(crate) fn new(name_servers: NameServers, default_queues: i32) -> Routes {
        Routes {
            shared: Arc::new(Shared {
                name_servers,
                default_queues,
                topics: Mutex::new(HashMap::new()),
                changes: watch::Sender::new(0),
                rotation: AtomicUsize::new(0),
            }),
        }
    }

    /// Follows changes of any route.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// The entry of `name`, from now on refreshed in the background.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        let mut topics = self.shared.topics.lock();
        if let Some(topic) = topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        if topics.len() >= TOPICS_MAX {
            return Err(Error::Invalid(format!(
                "this client already uses {TOPICS_MAX} topics, its limit"
            )));
        }
        let topic = Arc::new(Topic {
            name: name.to_owned(),
            known: watch::Sender::new(Known::Nothing),
            asking: tokio::sync::Mutex::new(None),
            watched: AtomicBool::new(false),
        });
        topics.insert(name.to_owned(), Arc::clone(&topic));
        Ok(topic)
    }

    /// The topic's route, asked for if it is not known yet. With `provisional_too` a topic that does
    /// not exist gets the route of the default topic, to be created by the first send.
    pub(crate) async fn get(&self, name: &str, provisional_too: bool) -> Result<Arc<Route>> {
        let topic = self.topic(name)?;
        if let Some(route) = topic.known().route(provisional_too) {
            return Ok(Arc::clone(route));
        }
        self.refresh(&topic, provisional_too).await?;
        let known = topic.known();
        match known.route(provisional_too) {
            Some(route) => Ok(Arc::clone(route)),
            None => Err(Error::NoRoute {
                topic: name.to_owned(),
            }),
        }
    }

    /// Asks the nameservers now, unless a question begun after this call has been answered already.
    pub(crate) async fn refresh(&self, topic: &Topic, provisional_too: bool) -> Result<()> {
        let called = Instant::now();
        let mut last_asked = topic.asking.lock().await;
        if last_asked.is_some_and(|asked| asked >= called) {
            return Ok(());
        }
        let asked = Instant::now();
        let servers = &self.shared.name_servers;
        let answer = servers.route(&topic.name, ROUTE_TIMEOUT).await;
        // Also after a failure: who waited meanwhile must not repeat it one after the other.
        *last_asked = Some(asked);
        let answer = answer?;
        let missing = answer.is_none();
        self.apply(topic, answer);
        if missing
            && provisional_too
            && topic.known().route(true).is_none()
            && let Some(data) = servers.route(AUTO_CREATE_TOPIC, ROUTE_TIMEOUT).await?
        {
            let queues = self.shared.default_queues;
            let route = Arc::new(Route::of_new_topic(&topic.name, &data, queues));
            self.replace(topic, Known::Provisional(route));
        }
        Ok(())
    }

    /// Takes over a nameserver's answer. A topic that has vanished keeps its last route, as in
    /// RocketMQ: while a whole cluster restarts its nameservers know nothing for a moment.
    fn apply(&self, topic: &Topic, answer: Option<TopicRouteData>) {
        if let Some(data) = answer {
            let route = Route::new(&topic.name, &data);
            if !route.groups.is_empty() {
                self.replace(topic, Known::Route(Arc::new(route)));
            }
        }
    }

    fn replace(&self, topic: &Topic, known: Known) {
        let changed = topic.known.send_if_modified(|current| {
            let same = match (&*current, &known) {
                (Known::Route(old), Known::Route(new)) => old == new,
                (Known::Provisional(old), Known::Provisional(new)) => old == new,
                _ => false,
            };
            if !same {
                *current = known;
            }
            !same
        });
        if changed {
            self.shared
                .changes
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Refreshes every topic in use, or only those that have no route of their own yet; failures are
    /// left to the next round.
    pub(crate) async fn refresh_known(&self, all: bool) {
        let topics: Vec<Arc<Topic>> = {
            let topics = self.shared.topics.lock();
            let due = |topic: &&Arc<Topic>| all || !matches!(topic.known(), Known::Route(_));
            topics.values().filter(due).cloned().collect()
        };
        for topic in topics {
            if let Err(error) = self.refresh(&topic, false).await {
                tracing::debug!(topic = topic.name, %error, "route refresh failed");
            }
        }
    }

    /// All routes known now.
    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        self.shared
            .topics
            .lock()
            .values()
            .filter_map(|topic| topic.known().route(true).cloned())
            .collect()
    }

    /// Looks for a leader of `broker_name` other than `failed`, by asking nameservers in turn until one
    /// knows it or the watch has lasted long enough. Returns at once; one watch per topic.
    pub(crate) fn watch_failover(&self, topic: &Arc<Topic>, broker_name: &str, failed: &str) {
        if topic.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, topic) = (self.clone(), Arc::clone(topic));
        let (broker_name, failed) = (broker_name.to_owned(), failed.to_owned());
        tokio::spawn(async move {
            this.follow_failover(&topic, &broker_name, &failed).await;
            topic.watched.store(false, Ordering::Release);
        });
    }

    async fn follow_failover(&self, topic: &Topic, broker_name: &str, failed: &str) {
        let begun = Instant::now();
        while begun.elapsed() < WATCH_FOR {
            let first = self.shared.rotation.fetch_add(1, Ordering::Relaxed);
            let servers = &self.shared.name_servers;
            if let Ok(answer) = servers.route_from(first, &topic.name, ROUTE_TIMEOUT).await {
                self.apply(topic, answer);
            }
            let leader = topic
                .known()
                .route(true)
                .and_then(|route| route.group(broker_name)?.leader().map(ToOwned::to_owned));
            if leader.is_some_and(|leader| leader != failed) {
                return;
            }
            let fast = begun.elapsed() < WATCH_FAST_FOR;
            tokio::time::sleep(if fast { WATCH_PACE } else { WATCH_PACE_LATER }).await;
        }
    }
}

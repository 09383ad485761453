//! The state in memory: everything but the bulk of the consume queues, which is in the database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use raftmq_proto::body::{DataVersion, SubscriptionGroupConfig, TopicConfig};

use crate::entry::LogId;

use super::queue::{BLOCK_UNITS, Queue, QueueBounds};
use super::rows::TermEnd;

pub(crate) type Offsets = BTreeMap<i32, i64>;
pub(crate) type Namespace = BTreeMap<Arc<str>, Arc<[u8]>>;

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) applied: Option<LogId>,
    /// Position after the applied entry.
    pub(crate) applied_end: u64,
    /// Beginning of the log as far as readers may know: what is below it was given up.
    pub(crate) log_start: u64,
    /// All queues' minima are right for this beginning of the log. `≤ log_start`.
    pub(crate) swept: u64,
    pub(crate) membership: Option<(LogId, Vec<u8>)>,
    pub(crate) topic_version: DataVersion,
    pub(crate) group_version: DataVersion,
    pub(crate) topics: HashMap<Arc<str>, Arc<TopicConfig>>,
    pub(crate) groups: HashMap<Arc<str>, Arc<SubscriptionGroupConfig>>,
    /// By group, then topic.
    pub(crate) offsets: HashMap<Arc<str>, HashMap<Arc<str>, Offsets>>,
    /// By namespace, then key.
    pub(crate) kv: HashMap<Arc<str>, Namespace>,
    pub(crate) queues: HashMap<Arc<str>, TopicQueues>,
    /// Number of the next new queue.
    pub(crate) next_queue: u32,
    /// See [`State::term_ends`](super::State::term_ends).
    pub(crate) term_ends: Vec<TermEnd>,
    /// Units in memory that the database does not have.
    pub(crate) unpersisted_units: u64,
    pub(crate) dirty: Dirty,
}

impl Tables {
    /// Notes where the term before ended, if an entry of another one comes next.
    pub(crate) fn note_term(&mut self, next: u64) {
        let end = self.applied_end;
        if let Some(last) = self.applied
            && last.term < next
        {
            self.term_ends.push(TermEnd { last, end });
        }
    }

    /// Gives up what is below a position of the log.
    pub(crate) fn trim_to(&mut self, position: u64) {
        self.log_start = self.log_start.max(position);
        let ends = &mut self.term_ends;
        let gone = ends.partition_point(|term| term.end <= self.log_start);
        ends.drain(..gone);
    }
}

/// The queues of a topic.
pub(crate) struct TopicQueues {
    pub(crate) topic: Arc<str>,
    /// By queue id; ids are mostly 0, 1, 2, …
    queues: Vec<(i32, Queue)>,
}

impl TopicQueues {
    pub(crate) fn new(topic: Arc<str>) -> Self {
        TopicQueues {
            topic,
            queues: Vec::new(),
        }
    }

    fn find(&self, queue_id: i32) -> Result<usize, usize> {
        let guess = usize::try_from(queue_id).unwrap_or(usize::MAX);
        if self
            .queues
            .get(guess)
            .is_some_and(|(id, _)| *id == queue_id)
        {
            return Ok(guess);
        }
        self.queues.binary_search_by_key(&queue_id, |(id, _)| *id)
    }

    pub(crate) fn get(&self, queue_id: i32) -> Option<&Queue> {
        self.find(queue_id)
            .ok()
            .and_then(|nth| self.queues.get(nth))
            .map(|(_, queue)| queue)
    }

    pub(crate) fn get_mut(&mut self, queue_id: i32) -> Option<&mut Queue> {
        self.find(queue_id)
            .ok()
            .and_then(|nth| self.queues.get_mut(nth))
            .map(|(_, queue)| queue)
    }

    /// A queue, and the topic's name.
    pub(crate) fn named(&mut self, queue_id: i32) -> Option<(&Arc<str>, &mut Queue)> {
        let nth = self.find(queue_id).ok()?;
        let (_, queue) = self.queues.get_mut(nth)?;
        Some((&self.topic, queue))
    }

    /// Adds a queue that is not there yet.
    pub(crate) fn insert(&mut self, queue_id: i32, queue: Queue) {
        if let Err(nth) = self.find(queue_id) {
            self.queues.insert(nth, (queue_id, queue));
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.iter_mut().map(|(_, queue)| queue)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, &Queue)> {
        self.queues.iter().map(|(id, queue)| (*id, queue))
    }
}

/// What changed since the last cut. Rows are looked up when the cut is made: a name without a row
/// was deleted.
#[derive(Default)]
pub(crate) struct Dirty {
    /// Anything changed at all.
    pub(crate) any: bool,
    pub(crate) topics: HashSet<Arc<str>>,
    pub(crate) groups: HashSet<Arc<str>>,
    /// Group, topic.
    pub(crate) offsets: HashSet<(Arc<str>, Arc<str>)>,
    pub(crate) kv: HashSet<(Arc<str>, Arc<str>)>,
    /// Queues with their `dirty` mark set.
    pub(crate) queues: Vec<(Arc<str>, i32)>,
    /// Deleted queues: topic, queue id, number.
    pub(crate) dropped: Vec<(Arc<str>, i32, u32)>,
    /// Blocks that are below their queue's minimum now: number of the queue, blocks.
    pub(crate) trimmed: Vec<(u32, Range<u64>)>,
}

impl Tables {
    pub(crate) fn queue(&self, topic: &str, queue_id: i32) -> Option<&Queue> {
        self.queues.get(topic)?.get(queue_id)
    }

    pub(crate) fn queue_mut(&mut self, topic: &str, queue_id: i32) -> Option<&mut Queue> {
        self.queues.get_mut(topic)?.get_mut(queue_id)
    }

    /// A queue's place, made if missing: a new one has no message and begins at `first`.
    pub(crate) fn queue_or_new(&mut self, topic: &str, queue_id: i32, first: u64) -> &mut Queue {
        if !self.queues.contains_key(topic) {
            let topic: Arc<str> = match self.topics.get_key_value(topic) {
                Some((topic, _)) => topic.clone(),
                None => Arc::from(topic),
            };
            self.queues.insert(topic.clone(), TopicQueues::new(topic));
        }
        let queues = self.queues.get_mut(topic).expect("just inserted");
        if queues.get(queue_id).is_none() {
            let (min, max) = (first, first);
            let queue = Queue::new(self.next_queue, QueueBounds { min, max }, self.log_start);
            queues.insert(queue_id, queue);
            self.next_queue += 1;
        }
        queues.get_mut(queue_id).expect("just inserted")
    }

    /// Lets a queue without messages begin at an offset, and makes it if it is missing; false when
    /// it ever had a message.
    pub(crate) fn start_queue(&mut self, topic: &str, queue_id: i32, offset: u64) -> bool {
        let number = self.next_queue;
        let queue = self.queue_or_new(topic, queue_id, offset);
        if queue.id != number && !queue.unused {
            return false;
        }
        queue.begin(offset);
        if !std::mem::replace(&mut queue.dirty, true)
            && let Some((topic, _)) = self.queues.get_key_value(topic)
        {
            self.dirty.queues.push((topic.clone(), queue_id));
        }
        true
    }

    /// Lets a queue begin at a higher offset, found for a beginning of the log. Does nothing when
    /// the queue is not the one of this number any more.
    pub(crate) fn set_min(
        &mut self,
        topic: &Arc<str>,
        queue_id: i32,
        number: u32,
        min: u64,
        log_start: u64,
    ) {
        let Some(queue) = self.queues.get_mut(topic).and_then(|q| q.get_mut(queue_id)) else {
            return;
        };
        if queue.id != number || queue.trimmed >= log_start {
            return;
        }
        queue.trimmed = log_start;
        if min <= queue.bounds.min {
            return;
        }
        let blocks = queue.bounds.min / BLOCK_UNITS..min / BLOCK_UNITS;
        queue.bounds.min = min;
        self.dirty.any = true;
        if !blocks.is_empty() {
            self.dirty.trimmed.push((number, blocks));
        }
        if !queue.dirty {
            queue.dirty = true;
            self.dirty.queues.push((topic.clone(), queue_id));
        }
    }

    /// Whether offsets of the topic make sense.
    pub(crate) fn knows_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic) || self.queues.contains_key(topic)
    }

    /// Drops a topic's queues and all offsets saved for it.
    pub(crate) fn drop_messages(&mut self, topic: &str) {
        if let Some(queues) = self.queues.remove(topic) {
            for (queue_id, queue) in queues.queues {
                self.dirty
                    .dropped
                    .push((queues.topic.clone(), queue_id, queue.id));
                self.unpersisted_units -= queue.uncut();
            }
        }
        for (group, topics) in &mut self.offsets {
            if let Some((topic, _)) = topics.remove_entry(topic) {
                self.dirty.offsets.insert((group.clone(), topic));
            }
        }
        self.offsets.retain(|_, topics| !topics.is_empty());
    }

    /// Drops all offsets of a group.
    pub(crate) fn drop_offsets(&mut self, group: &str) {
        if let Some((group, topics)) = self.offsets.remove_entry(group) {
            self.dirty
                .offsets
                .extend(topics.into_keys().map(|topic| (group.clone(), topic)));
        }
    }

    /// Saves an offset. It never goes back, unless it is `reset`.
    pub(crate) fn save_offset(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: i32,
        offset: i64,
        reset: bool,
    ) {
        let topics = entry(&mut self.offsets, group);
        let rows = entry(topics, topic);
        let saved = rows.entry(queue_id).or_insert(offset);
        *saved = if reset { offset } else { offset.max(*saved) };
        let (group, topics) = self.offsets.get_key_value(group).expect("just inserted");
        let (topic, _) = topics.get_key_value(topic).expect("just inserted");
        if !self.dirty.offsets.contains(&(group.clone(), topic.clone())) {
            self.dirty.offsets.insert((group.clone(), topic.clone()));
        }
    }
}

/// The value of a name, made if missing; allocates only then.
pub(crate) fn entry<'a, V: Default>(map: &'a mut HashMap<Arc<str>, V>, name: &str) -> &'a mut V {
    if !map.contains_key(name) {
        map.insert(Arc::from(name), V::default());
    }
    map.get_mut(name).expect("just inserted")
}

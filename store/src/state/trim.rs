//! The beginning of the log: a trim moves it at once, the queues' minima follow.
//!
//! Applying a trim sets one number. A queue's minimum is looked up when somebody asks for it, and
//! a sweep in the background asks for all; blocks below it leave the database with the next cut.
//! A minimum is the offset of the first unit at or above the log's beginning, so it is the same on
//! every member, whenever it was looked up.
//!
//! RocketMQ: `ConsumeQueue.correctMinOffset`, `CleanConsumeQueueService`.

use std::sync::Arc;

use crate::error::Result;

use super::queue::{BLOCK_UNITS, Found, QueueBounds};
use super::tables::Tables;
use super::{Inner, State, block};

/// Where a sweep is.
#[derive(Default)]
pub(super) struct Sweep {
    /// The beginning of the log when it began.
    log_start: u64,
    /// What is left.
    topics: Vec<Arc<str>>,
}

/// A queue whose minimum has to be looked up.
struct Stale {
    topic: Arc<str>,
    number: u32,
    bounds: QueueBounds,
    trimmed: u64,
    log_start: u64,
    found: Found,
}

impl State {
    /// Position below which nothing is read any more: what is there was given up.
    pub fn log_start(&self) -> u64 {
        self.tables().log_start
    }

    /// Looks up the minima of at most `queues` queues that a trim has left behind; true when none
    /// is left. Also done in the background.
    ///
    /// # Errors
    /// As [`units`](Self::units).
    pub fn sweep(&self, queues: usize) -> Result<bool> {
        self.inner.sweep(queues)
    }
}

/// A queue's bounds as far as memory knows them.
enum Known {
    Missing,
    Bounds(QueueBounds),
    Stale(Stale),
}

impl Tables {
    fn known_bounds(&self, topic: &str, queue_id: i32) -> Known {
        let queues = self.queues.get(topic);
        let queue = queues.and_then(|queues| Some((queues, queues.get(queue_id)?)));
        match queue {
            None => Known::Missing,
            Some((_, queue)) if queue.trimmed >= self.log_start => Known::Bounds(queue.bounds),
            Some((queues, queue)) => Known::Stale(Stale {
                topic: queues.topic.clone(),
                number: queue.id,
                bounds: queue.bounds,
                trimmed: queue.trimmed,
                log_start: self.log_start,
                found: queue.find_in_memory(self.log_start),
            }),
        }
    }
}

impl Inner {
    /// A queue's bounds for the log's beginning as it is now; `None` when there is no such queue.
    pub(super) fn bounds(&self, topic: &str, queue_id: i32) -> Result<Option<QueueBounds>> {
        loop {
            let stale = match self.tables.read().known_bounds(topic, queue_id) {
                Known::Missing => return Ok(None),
                Known::Bounds(bounds) => return Ok(Some(bounds)),
                Known::Stale(stale) => stale,
            };
            let min = match stale.found {
                Found::At(min) => min,
                Found::Below(end) => match self.find_stored(&stale, end)? {
                    Some(min) => min,
                    None if self.has_changed(&stale, queue_id) => continue,
                    None => {
                        let what = format!("units of {topic}, queue {queue_id} are missing");
                        return Err(self.damaged(what));
                    }
                },
            };
            let Stale {
                topic,
                number,
                log_start,
                ..
            } = stale;
            let mut tables = self.tables.write();
            tables.set_min(&topic, queue_id, number, min, log_start);
        }
    }

    fn has_changed(&self, stale: &Stale, queue_id: i32) -> bool {
        let tables = self.tables.read();
        let queue = tables.queue(&stale.topic, queue_id);
        queue.is_none_or(|queue| queue.id != stale.number || queue.trimmed != stale.trimmed)
    }

    /// The first unit at or above the log's beginning, from the minimum so far to `end`, among
    /// the units in the database; `None` when a block is missing.
    fn find_stored(&self, stale: &Stale, end: u64) -> Result<Option<u64>> {
        let QueueBounds { min, .. } = stale.bounds;
        if min >= end {
            return Ok(Some(min));
        }
        let (mut low, mut high) = (min / BLOCK_UNITS, (end - 1) / BLOCK_UNITS + 1);
        let mut found = end;
        while low < high {
            // The first block first: most often it is the one.
            let middle = match low == min / BLOCK_UNITS {
                true => low,
                false => low + (high - low) / 2,
            };
            let Some(row) = self.block(stale.number, middle)? else {
                return Ok(None);
            };
            let Some((first, mut units)) = block::units(middle, &row) else {
                return Ok(None);
            };
            match units.position(|unit| unit.physical_offset >= stale.log_start) {
                Some(nth) => {
                    found = first + nth as u64;
                    high = middle;
                }
                None => low = middle + 1,
            }
        }
        Ok(Some(found.clamp(min, end)))
    }

    pub(super) fn sweep(&self, queues: usize) -> Result<bool> {
        let mut sweep = self.sweep.lock();
        let mut left = queues;
        loop {
            let Some(topic) = sweep.topics.last().cloned() else {
                if self.begin_sweep(&mut sweep) {
                    continue;
                }
                return Ok(true);
            };
            let stale: Vec<i32> = {
                let tables = self.tables.read();
                let queues = tables.queues.get(&topic).into_iter();
                let queues = queues.flat_map(|queues| queues.iter());
                let stale = queues.filter(|(_, queue)| queue.trimmed < sweep.log_start);
                stale.map(|(queue_id, _)| queue_id).take(left).collect()
            };
            for queue_id in &stale {
                self.bounds(&topic, *queue_id)?;
            }
            left -= stale.len();
            if left == 0 {
                return Ok(false);
            }
            sweep.topics.pop();
        }
    }

    /// Ends a sweep that has nothing left, and begins the next one if there was a trim; false
    /// when there was none, or there is no queue.
    fn begin_sweep(&self, sweep: &mut Sweep) -> bool {
        let mut tables = self.tables.write();
        if tables.swept < sweep.log_start {
            tables.swept = sweep.log_start;
            tables.dirty.any = true;
        }
        if tables.swept == tables.log_start {
            return false;
        }
        sweep.log_start = tables.log_start;
        sweep.topics = tables.queues.keys().cloned().collect();
        true
    }
}

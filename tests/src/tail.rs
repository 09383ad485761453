//! Consumers that follow the end of every queue while faults happen, and remember what they saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::calls;
use crate::history::FoundKey;
use crate::leadership::{Addresses, fixed};
use crate::readback::Message;
use crate::wait::pause;
use crate::wire::Connection;

/// A message that a consumer was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Queue.
    pub queue: i32,
    /// Offset that the record names.
    pub offset: i64,
    /// Key, or the text found in its place.
    pub key: FoundKey,
}

#[derive(Debug, Default)]
struct Seen {
    observations: Vec<Observation>,
    /// Messages that were trimmed before their consumer came to them.
    skipped: usize,
    /// What no consumer may meet: offsets that jump, or a queue that became shorter than what was read from it.
    complaints: Vec<String>,
}

/// Consumers under way; one thread per queue.
#[derive(Debug)]
pub struct Tail {
    stop: Arc<AtomicBool>,
    trims: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Tail {
    /// Follows all queues of `topic` from offset 0. Each consumer starts at another of the `addresses` and goes to the next
    /// when one fails it, so that followers are read through as well.
    pub fn start(addresses: &[String], topic: &str, queues: i32) -> Tail {
        Tail::start_from(
            addresses,
            topic,
            &vec![0; usize::try_from(queues).unwrap_or(0)],
        )
    }

    /// As [`Tail::start`], from the given offset in each queue.
    pub fn start_from(addresses: &[String], topic: &str, offsets: &[i64]) -> Tail {
        Tail::start_through(&fixed(addresses.to_vec()), topic, offsets)
    }

    /// As [`Tail::start_from`], through members that are asked for again and again.
    pub fn start_through(members: &Addresses, topic: &str, offsets: &[i64]) -> Tail {
        let stop = Arc::new(AtomicBool::new(false));
        let trims = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let threads = (0_i32..)
            .zip(offsets)
            .map(|(queue, offset)| {
                let mut follower = Follower {
                    members: Arc::clone(members),
                    topic: topic.to_owned(),
                    queue,
                    at: *offset,
                    stop: Arc::clone(&stop),
                    trims: Arc::clone(&trims),
                    seen: Arc::clone(&seen),
                };
                std::thread::spawn(move || follower.run())
            })
            .collect();
        Tail {
            stop,
            trims,
            seen,
            threads,
        }
    }

    /// From now on a consumer may be sent on from an offset that was trimmed.
    pub fn allow_trims(&self) {
        self.trims.store(true, Ordering::Relaxed);
    }

    /// How many messages have been seen so far, or were trimmed before that.
    pub fn seen(&self) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.observations.len() + seen.skipped
    }

    /// How many messages were trimmed before they were seen.
    pub fn skipped(&self) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.skipped
    }

    /// Stops and returns what was seen; an error when a consumer met something that no consumer may meet.
    pub fn stop(self) -> Result<Vec<Observation>> {
        let (observations, complaints) = self.stop_with_complaints();
        anyhow::ensure!(
            complaints.is_empty(),
            "consumers that read meanwhile complain:\n    {}",
            complaints.join("\n    ")
        );
        Ok(observations)
    }

    /// Stops and returns what was seen, and what no consumer may meet.
    pub fn stop_with_complaints(mut self) -> (Vec<Observation>, Vec<String>) {
        self.halt();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        (seen.observations, seen.complaints)
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there is a failed assertion of the harness itself, already printed.
            thread.join().ok();
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Follower {
    members: Addresses,
    topic: String,
    queue: i32,
    at: i64,
    stop: Arc<AtomicBool>,
    trims: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl Follower {
    fn run(&mut self) {
        let start = usize::try_from(self.queue).unwrap_or(0);
        for turn in start.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let members = (self.members)();
            let Some(address) = members.get(turn % members.len().max(1)) else {
                pause(Duration::from_millis(50));
                continue;
            };
            // Any failure is a reason to try the next member; that a member can be read again is for others to check.
            self.follow(address).ok();
            pause(Duration::from_millis(50));
        }
    }

    fn follow(&mut self, address: &str) -> Result<()> {
        let mut connection = Connection::open(address)?;
        while !self.stop.load(Ordering::Relaxed) {
            let hold = Duration::from_millis(500);
            let pulled = calls::pull(
                &mut connection,
                "HARNESS_TAIL",
                &self.topic,
                self.queue,
                self.at,
                hold,
            )?;
            if pulled.code == calls::response::PULL_OFFSET_MOVED {
                self.moved(address, pulled.next, pulled.min);
            }
            for record in pulled.records()? {
                if record.queue_offset != self.at || record.queue != self.queue {
                    let (got, at) = (record.queue_offset, self.at);
                    self.complain(format!(
                        "{address}: asked for offset {at}, got {got} of queue {}",
                        record.queue
                    ));
                }
                self.at = record.queue_offset + 1;
                let message = Message::of(&record);
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.observations.push(Observation {
                    queue: self.queue,
                    offset: message.offset,
                    key: message.key,
                });
            }
        }
        Ok(())
    }

    fn moved(&mut self, address: &str, next: i64, min: i64) {
        let at = std::mem::replace(&mut self.at, next);
        let trimmed = self.trims.load(Ordering::Relaxed) && next == min;
        match usize::try_from(next - at) {
            Ok(count) if trimmed => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.skipped += count;
            }
            _ => self.complain(format!(
                "{address}: moved from offset {at} to {next}, the minimum being {min}"
            )),
        }
    }

    fn complain(&self, what: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.complaints
            .push(format!("queue {}: {what}", self.queue));
    }
}

//! Producers in order: one for each queue, which sends a message again until it is acknowledged, and only then the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::calls;
use crate::clock::Nanos;
use crate::history::{History, Key, Outcome, Send};
use crate::readback::Contents;
use crate::wait::pause;
use crate::wire::Connection;
use crate::workload::plain_outcome;

/// The producer of queue 0; those of the others follow.
pub const ORDERED_FIRST: u32 = 4_000;
/// Bytes of a body.
const BODY: usize = 200;

/// Producers under way.
#[derive(Debug)]
pub struct Ordered {
    stop: Arc<AtomicBool>,
    history: History,
    threads: Vec<JoinHandle<()>>,
}

impl Ordered {
    /// Starts one producer for each queue of the topic.
    pub fn start(addresses: &[String], topic: &str, queues: i32, pace: Duration) -> Ordered {
        let (stop, history) = (Arc::new(AtomicBool::new(false)), History::default());
        let threads = (0..queues)
            .map(|queue| {
                let mut sender = Sender {
                    addresses: addresses.to_vec(),
                    topic: topic.to_owned(),
                    queue,
                    pace,
                    turn: queue.unsigned_abs() as usize,
                    connection: None,
                };
                let (history, stop) = (history.clone(), Arc::clone(&stop));
                std::thread::spawn(move || sender.run(&history, &stop))
            })
            .collect();
        Ordered {
            stop,
            history,
            threads,
        }
    }

    /// Ends all producers and returns what they did.
    pub fn stop(mut self) -> History {
        self.halt();
        self.history.clone()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there is a failed assertion of the harness itself, already printed.
            thread.join().ok();
        }
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.halt();
    }
}

struct Sender {
    addresses: Vec<String>,
    topic: String,
    queue: i32,
    pace: Duration,
    turn: usize,
    connection: Option<Connection>,
}

impl Sender {
    fn run(&mut self, history: &History, stop: &AtomicBool) {
        for seq in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let producer = ORDERED_FIRST + self.queue.unsigned_abs();
            history.add(self.send(Key { producer, seq }, stop));
            pause(self.pace);
        }
    }

    /// Until it is acknowledged, or everything ends.
    fn send(&mut self, key: Key, stop: &AtomicBool) -> Send {
        let properties = calls::keys_property(&key.to_string());
        let request = calls::send_request(&self.topic, self.queue, &properties, &key.body(BODY));
        let (started, mut attempts_max) = (Nanos::now(), 0);
        let outcome = loop {
            let outcome = match self.connect() {
                Some(mut open) => {
                    attempts_max += 1;
                    let (outcome, usable) = plain_outcome(calls::send(&mut open, &request));
                    self.connection = usable.then_some(open);
                    outcome
                }
                None => Outcome::Unknown("not connected".to_owned()),
            };
            if matches!(outcome, Outcome::Acked(_)) {
                break outcome;
            }
            if stop.load(Ordering::Relaxed) {
                // What was refused last may have been taken before.
                break Outcome::Unknown("given up".to_owned());
            }
            (self.connection, self.turn) = (None, self.turn + 1);
            pause(Duration::from_millis(20));
        };
        Send {
            key,
            queue: self.queue,
            started,
            finished: Nanos::now(),
            attempts_max,
            outcome,
        }
    }

    fn connect(&mut self) -> Option<Connection> {
        let address = &self.addresses[self.turn % self.addresses.len()];
        self.connection
            .take()
            .or_else(|| Connection::open(address).ok())
    }
}

/// What is not in order: each queue holds its producer's messages 0, 1, 2 …; in between, only copies of earlier ones, where an
/// attempt came late.
pub fn check_order(contents: &Contents) -> Vec<String> {
    let mut findings = Vec::new();
    for (queue, held) in &contents.queues {
        let mut due = 0;
        for message in &held.messages {
            let Ok(key) = &message.key else { continue }; // a phantom, which others find
            if key.seq == due {
                due += 1;
            } else if key.seq > due {
                let offset = message.offset;
                findings.push(format!(
                    "queue {queue}: {key} stands at offset {offset}, where message {due} is due"
                ));
                due = key.seq + 1;
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readback::{Message, QueueContents};

    fn queue(seqs: &[u32]) -> Contents {
        let message = |(offset, seq): (i64, &u32)| Message {
            offset,
            physical_offset: offset,
            key: Ok(Key {
                producer: ORDERED_FIRST,
                seq: *seq,
            }),
            intact: true,
        };
        let held = QueueContents {
            messages: (0..).zip(seqs).map(message).collect(),
            ..QueueContents::default()
        };
        Contents {
            queues: [(0, held)].into(),
        }
    }

    #[test]
    fn copies_may_come_late_and_nothing_may_come_early() {
        assert_eq!(
            check_order(&queue(&[0, 1, 1, 2, 0, 3])),
            Vec::<String>::new()
        );
        assert_eq!(check_order(&queue(&[0, 2, 1, 3])).len(), 1);
        assert_eq!(check_order(&queue(&[1])).len(), 1);
    }
}

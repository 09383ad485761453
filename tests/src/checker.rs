//! Judges a history against what consumers could read.
//!
//! All messages of a queue are in one total order, so no search is needed: every check is a walk over the sends and the
//! contents with a hash table beside it; only the acknowledgements are sorted by time.
//!
//! What was below a queue's minimum has been trimmed. Of that, what consumers read before stands for what was stored.
//!
//! | anomaly | promise broken |
//! |---|---|
//! | lost | an acknowledged message can be read |
//! | moved | it stands at the offset of its acknowledgement |
//! | reused | no two acknowledgements name the same offset |
//! | phantom | nothing is read that was not sent |
//! | resurrected | what was refused is not stored |
//! | duplicated | no more copies than the client made attempts |
//! | misplaced | a message is in the queue it was sent to |
//! | reordered | what was sent after an acknowledgement stands behind it |
//! | gap | offsets go from min to max without a hole |
//! | unstable | what a consumer has read stays where it was (nothing uncommitted is read) |
//! | corrupt | body and CRC are the sent ones |
//! | wrong id | the acknowledged message id is the record's |

use std::collections::HashMap;
use std::collections::btree_map::BTreeMap;
use std::fmt;

use crate::clock::Nanos;
use crate::history::{FoundKey, Key, Send};
use crate::readback::{Contents, Message};
use crate::tail::Observation;

/// What went wrong, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// Acknowledged and nowhere to be read.
    Lost,
    /// Acknowledged at an offset that holds something else.
    Moved,
    /// Two acknowledgements for one offset.
    Reused,
    /// Read and never sent.
    Phantom,
    /// Refused and yet stored.
    Resurrected,
    /// More copies than attempts.
    Duplicated,
    /// In another queue than the one it was sent to.
    Misplaced,
    /// In front of a message whose acknowledgement came before this one was sent.
    Reordered,
    /// An offset that is missing, or out of turn.
    Gap,
    /// Read once and not there, or not the same, later.
    Unstable,
    /// The bytes are not those that were sent.
    Corrupt,
    /// The acknowledged message id is not the record's.
    WrongId,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Kind.
    pub anomaly: Anomaly,
    /// Which message, where, and what was expected.
    pub detail: String,
}

/// What to judge.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Every send.
    pub sends: &'a [Send],
    /// What the topic holds at the end.
    pub contents: &'a Contents,
    /// What consumers read meanwhile.
    pub observed: &'a [Observation],
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Sends acknowledged.
    pub acked: usize,
    /// Sends with unknown outcome.
    pub unknown: usize,
    /// Of those, how many turned out to be stored.
    pub unknown_stored: usize,
    /// Sends refused.
    pub refused: usize,
    /// Messages read back.
    pub stored: usize,
    /// Messages read meanwhile by consumers.
    pub observed: usize,
    /// Acknowledged sends that were trimmed.
    pub trimmed: usize,
    /// Of those, how many no consumer had read before: nothing vouches for them.
    pub trimmed_unread: usize,
}

impl Verdict {
    /// How many findings of a kind.
    pub fn count(&self, anomaly: Anomaly) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.anomaly == anomaly)
            .count()
    }

    /// An error that lists the findings, unless there are none.
    pub fn require_clean(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.findings.is_empty(), "{self}");
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} unknown ({} of them stored), {} refused; {} read back, {} read meanwhile",
            self.acked, self.unknown, self.unknown_stored, self.refused, self.stored, self.observed
        )?;
        if self.trimmed > 0 {
            let (trimmed, unread) = (self.trimmed, self.trimmed_unread);
            write!(f, ", {trimmed} trimmed ({unread} of them unread)")?;
        }
        let mut by_kind: BTreeMap<Anomaly, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            by_kind.entry(finding.anomaly).or_default().push(finding);
        }
        if by_kind.is_empty() {
            return write!(f, "; no anomaly");
        }
        for (anomaly, findings) in by_kind {
            write!(f, "\n{anomaly:?}: {}", findings.len())?;
            for finding in findings.iter().take(10) {
                write!(f, "\n    {}", finding.detail)?;
            }
            if findings.len() > 10 {
                write!(f, "\n    …")?;
            }
        }
        Ok(())
    }
}

/// Judges.
pub fn check(evidence: Evidence<'_>) -> Verdict {
    let mut judge = Judge::new(evidence);
    judge.offsets_are_dense();
    judge.what_was_trimmed_was_sent();
    judge.every_stored_message_was_sent();
    judge.every_ack_stands();
    judge.order_follows_acks();
    judge.observations_stand();
    judge.verdict
}

/// Whether `later` still begins with everything that `earlier` held.
pub fn check_unchanged(earlier: &Contents, later: &Contents) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (queue, before) in &earlier.queues {
        let after = later
            .queues
            .get(queue)
            .map_or(&[][..], |queue| &queue.messages);
        for (index, message) in before.messages.iter().enumerate() {
            if after.get(index) != Some(message) {
                let found = after.get(index);
                findings.push(Finding {
                    anomaly: Anomaly::Unstable,
                    detail: format!("queue {queue}: was {message:?}, is {found:?}"),
                });
            }
        }
    }
    findings
}

/// Whether a place is below the minimum of its queue.
fn is_trimmed(contents: &Contents, queue: i32, offset: i64) -> bool {
    let queue = contents.queues.get(&queue);
    queue.is_some_and(|queue| offset < queue.min)
}

struct Judge<'a> {
    sends: &'a [Send],
    contents: &'a Contents,
    observed: &'a [Observation],
    /// Key → index into `sends`.
    index: HashMap<Key, usize>,
    /// What consumers read before it was trimmed, by queue and offset.
    trimmed: HashMap<(i32, i64), &'a FoundKey>,
    /// Copies found of each send.
    copies: Vec<u32>,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    fn new(evidence: Evidence<'a>) -> Judge<'a> {
        let sends = evidence.sends;
        let mut index = HashMap::with_capacity(sends.len());
        for (at, send) in sends.iter().enumerate() {
            let twin = index.insert(send.key, at);
            assert!(
                twin.is_none(),
                "the test itself used the key {} twice",
                send.key
            );
        }
        let verdict = Verdict {
            acked: sends.iter().filter(|send| send.ack().is_some()).count(),
            stored: evidence.contents.len(),
            observed: evidence.observed.len(),
            ..Verdict::default()
        };
        let below = |seen: &&Observation| is_trimmed(evidence.contents, seen.queue, seen.offset);
        let trimmed = evidence.observed.iter().filter(below);
        let trimmed = trimmed.map(|seen| ((seen.queue, seen.offset), &seen.key));
        Judge {
            trimmed: trimmed.collect(),
            sends,
            contents: evidence.contents,
            observed: evidence.observed,
            index,
            copies: vec![0; sends.len()],
            verdict,
        }
    }

    fn find(&mut self, anomaly: Anomaly, detail: String) {
        self.verdict.findings.push(Finding { anomaly, detail });
    }

    fn at(&self, queue: i32, offset: i64) -> Option<&'a Message> {
        let queue = self.contents.queues.get(&queue)?;
        let index = usize::try_from(offset.checked_sub(queue.min)?).ok()?;
        let message = queue.messages.get(index)?;
        if message.offset == offset {
            return Some(message);
        }
        // Behind a gap the positions are shifted; that is found elsewhere, and here only costs a search.
        queue
            .messages
            .iter()
            .find(|message| message.offset == offset)
    }

    fn offsets_are_dense(&mut self) {
        for (id, queue) in &self.contents.queues {
            let mut expected = queue.min;
            for message in &queue.messages {
                if message.offset != expected {
                    let detail = format!(
                        "queue {id}: offset {} follows where {expected} is due ({:?})",
                        message.offset, message.key
                    );
                    self.verdict.findings.push(Finding {
                        anomaly: Anomaly::Gap,
                        detail,
                    });
                }
                expected = message.offset + 1;
            }
            if expected != queue.max {
                let detail = format!(
                    "queue {id}: max is {} but reading ends at {expected}",
                    queue.max
                );
                self.verdict.findings.push(Finding {
                    anomaly: Anomaly::Gap,
                    detail,
                });
            }
        }
    }

    fn what_was_trimmed_was_sent(&mut self) {
        let trimmed: Vec<_> = self.trimmed.iter().map(|(at, key)| (*at, *key)).collect();
        for ((queue, offset), key) in trimmed {
            let place = format!("queue {queue} offset {offset}, trimmed meanwhile,");
            let known = key.as_ref().ok().and_then(|key| self.index.get(key));
            let Some(index) = known.copied() else {
                self.find(Anomaly::Phantom, format!("{place} held {key:?}"));
                continue;
            };
            let send = &self.sends[index];
            self.copies[index] += 1;
            if send.queue >= 0 && send.queue != queue {
                let detail = format!(
                    "{} was sent to queue {}, {place} held it",
                    send.key, send.queue
                );
                self.find(Anomaly::Misplaced, detail);
            }
        }
    }

    fn every_stored_message_was_sent(&mut self) {
        let contents = self.contents;
        for (queue, message) in contents
            .queues
            .iter()
            .flat_map(|(id, queue)| queue.messages.iter().map(move |message| (*id, message)))
        {
            let place = format!("queue {queue} offset {}", message.offset);
            let known = match &message.key {
                Ok(key) => self.index.get(key).copied(),
                Err(_) => None,
            };
            let Some(index) = known else {
                self.find(Anomaly::Phantom, format!("{place} holds {:?}", message.key));
                continue;
            };
            let send = &self.sends[index];
            self.copies[index] += 1;
            if !message.intact {
                self.find(
                    Anomaly::Corrupt,
                    format!("{place}: the body of {} is damaged", send.key),
                );
            }
            if send.queue >= 0 && send.queue != queue {
                let detail = format!(
                    "{} was sent to queue {} and is at {place}",
                    send.key, send.queue
                );
                self.find(Anomaly::Misplaced, detail);
            }
        }
        let sends = self.sends;
        for (index, send) in sends.iter().enumerate() {
            let copies = self.copies[index];
            if copies > send.attempts_max {
                let detail = format!(
                    "{} stands {copies} times after {} attempts",
                    send.key, send.attempts_max
                );
                self.find(Anomaly::Duplicated, detail);
            }
            match &send.outcome {
                crate::history::Outcome::Acked(_) => {
                    let ack = send.ack();
                    if ack.is_some_and(|ack| is_trimmed(self.contents, ack.queue, ack.offset)) {
                        self.verdict.trimmed += 1;
                        self.verdict.trimmed_unread += usize::from(copies == 0);
                    } else if copies == 0 {
                        self.find(Anomaly::Lost, format!("{} {:?}", send.key, send.ack()));
                    }
                }
                crate::history::Outcome::Unknown(_) => {
                    self.verdict.unknown += 1;
                    self.verdict.unknown_stored += usize::from(copies > 0);
                }
                crate::history::Outcome::Refused(words) => {
                    self.verdict.refused += 1;
                    if copies > 0 {
                        let detail = format!("{} is stored, the answer was: {words}", send.key);
                        self.find(Anomaly::Resurrected, detail);
                    }
                }
            }
        }
    }

    fn every_ack_stands(&mut self) {
        let mut taken: HashMap<(i32, i64), Key> = HashMap::with_capacity(self.sends.len());
        let sends = self.sends;
        for (index, send) in sends.iter().enumerate() {
            let Some(ack) = send.ack() else { continue };
            if let Some(other) = taken.insert((ack.queue, ack.offset), send.key) {
                let detail = format!(
                    "queue {} offset {} was given to {other} and to {}",
                    ack.queue, ack.offset, send.key
                );
                self.find(Anomaly::Reused, detail);
            }
            if self.copies[index] == 0 {
                continue; // lost, said already; or trimmed
            }
            if is_trimmed(self.contents, ack.queue, ack.offset) {
                let found = self.trimmed.get(&(ack.queue, ack.offset));
                if found.is_some_and(|found| **found != Ok(send.key)) {
                    let detail = format!(
                        "{} was acknowledged at queue {} offset {}, where {found:?} was read",
                        send.key, ack.queue, ack.offset
                    );
                    self.find(Anomaly::Moved, detail);
                }
                continue;
            }
            let found = self.at(ack.queue, ack.offset);
            if found.is_none_or(|message| message.key != Ok(send.key)) {
                let found = found.map(|message| &message.key);
                let detail = format!(
                    "{} was acknowledged at queue {} offset {}, where {found:?} is",
                    send.key, ack.queue, ack.offset
                );
                self.find(Anomaly::Moved, detail);
            } else if let (Some(id), Some(message)) = (ack.id, found)
                && id.physical_offset != message.physical_offset
            {
                let detail = format!(
                    "{}: the id names commit log offset {}, the record {}",
                    send.key, id.physical_offset, message.physical_offset
                );
                self.find(Anomaly::WrongId, detail);
            }
        }
    }

    /// If an acknowledgement came before a send began, the send's copies stand behind it. Stronger than the order of each
    /// producer's own messages, which it implies, because a producer sends one message after the other.
    fn order_follows_acks(&mut self) {
        // Per queue: (time of the acknowledgement, largest offset acknowledged up to then, whose it is), by time.
        let mut acked: HashMap<i32, Vec<(Nanos, i64, Key)>> = HashMap::new();
        for send in self.sends {
            if let Some(ack) = send.ack() {
                acked
                    .entry(ack.queue)
                    .or_default()
                    .push((send.finished, ack.offset, send.key));
            }
        }
        for acks in acked.values_mut() {
            acks.sort_unstable_by_key(|(time, ..)| *time);
            let mut largest: Option<(i64, Key)> = None;
            for (_, offset, key) in acks.iter_mut() {
                match largest {
                    Some((most, whose)) if most > *offset => (*offset, *key) = (most, whose),
                    _ => largest = Some((*offset, *key)),
                }
            }
        }
        let contents = self.contents;
        for (id, queue) in &contents.queues {
            let Some(acks) = acked.get(id) else { continue };
            for message in &queue.messages {
                let Some(send) = message
                    .key
                    .as_ref()
                    .ok()
                    .and_then(|key| self.index.get(key))
                    .map(|at| &self.sends[*at])
                else {
                    continue;
                };
                let before = acks.partition_point(|(time, ..)| *time < send.started);
                let Some((_, most, whose)) = before.checked_sub(1).map(|last| acks[last]) else {
                    continue;
                };
                if message.offset <= most {
                    let detail = format!(
                        "queue {id}: {} stands at {}, yet {whose} was acknowledged at {most} before it was sent",
                        send.key, message.offset
                    );
                    self.find(Anomaly::Reordered, detail);
                }
            }
        }
    }

    fn observations_stand(&mut self) {
        for observation in self.observed {
            if is_trimmed(self.contents, observation.queue, observation.offset) {
                continue;
            }
            let found = self.at(observation.queue, observation.offset);
            if found.map(|message| &message.key) != Some(&observation.key) {
                let detail = format!(
                    "queue {} offset {}: a consumer read {:?}, at the end there is {:?}",
                    observation.queue,
                    observation.offset,
                    observation.key,
                    found.map(|message| &message.key)
                );
                self.find(Anomaly::Unstable, detail);
            }
        }
    }
}

#[cfg(test)]
mod tests;

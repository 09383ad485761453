//! The checker is fed one good history, and then one bad history for each anomaly: a checker that finds nothing proves
//! nothing.

use super::*;
use crate::calls::MessageId;
use crate::history::{Ack, Outcome};
use crate::readback::QueueContents;

const STEP: u64 = 1_000;

/// Two producers, two queues, three acknowledged messages each, sent one after the other and stored in order.
struct Story {
    sends: Vec<Send>,
    contents: Contents,
    observed: Vec<Observation>,
}

fn key(producer: u32, seq: u32) -> Key {
    Key { producer, seq }
}

fn message(offset: i64, key: Key) -> Message {
    Message {
        offset,
        physical_offset: physical(key),
        key: Ok(key),
        intact: true,
    }
}

fn physical(key: Key) -> i64 {
    i64::from(key.producer) * 1_000_000 + i64::from(key.seq) * 1_000
}

fn acked(key: Key, queue: i32, offset: i64) -> Outcome {
    let id = MessageId {
        port: 1,
        physical_offset: physical(key),
    };
    Outcome::Acked(Ack {
        queue,
        offset,
        id: Some(id),
    })
}

impl Story {
    fn good() -> Story {
        let (mut sends, mut observed) = (Vec::new(), Vec::new());
        let mut contents = Contents::default();
        for (producer, queue) in [(0, 0), (1, 1)] {
            let mut messages = Vec::new();
            for seq in 0..3 {
                let (key, offset) = (key(producer, seq), i64::from(seq));
                let started = Nanos(u64::from(seq) * 2 * STEP);
                sends.push(Send {
                    key,
                    queue,
                    started,
                    finished: Nanos(started.0 + STEP),
                    attempts_max: 1,
                    outcome: acked(key, queue, offset),
                });
                messages.push(message(offset, key));
                observed.push(Observation {
                    queue,
                    offset,
                    key: Ok(key),
                });
            }
            contents.queues.insert(
                queue,
                QueueContents {
                    min: 0,
                    max: 3,
                    messages,
                },
            );
        }
        Story {
            sends,
            contents,
            observed,
        }
    }

    fn queue(&mut self, queue: i32) -> &mut QueueContents {
        self.contents
            .queues
            .get_mut(&queue)
            .expect("the story has it")
    }

    fn check(&self) -> Verdict {
        check(Evidence {
            sends: &self.sends,
            contents: &self.contents,
            observed: &self.observed,
        })
    }

    /// The kinds found, each once.
    fn kinds(&self) -> Vec<Anomaly> {
        let mut kinds: Vec<Anomaly> = self
            .check()
            .findings
            .iter()
            .map(|finding| finding.anomaly)
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[test]
fn a_good_history_is_clean() {
    let verdict = Story::good().check();
    assert_eq!(verdict.findings, []);
    assert_eq!((verdict.acked, verdict.stored, verdict.observed), (6, 6, 6));
    verdict.require_clean().expect("clean");
}

#[test]
fn an_unknown_send_may_be_stored_or_not() {
    let mut story = Story::good();
    story.sends[2].outcome = Outcome::Unknown("timed out".into());
    assert_eq!(story.kinds(), []);
    assert_eq!(story.check().unknown_stored, 1);
    story.queue(0).messages.pop();
    story.queue(0).max = 2;
    story.observed.retain(|seen| seen.key != Ok(key(0, 2)));
    assert_eq!(story.kinds(), []);
    assert_eq!(story.check().unknown_stored, 0);
}

#[test]
fn a_missing_acknowledged_message_is_lost() {
    let mut story = Story::good();
    story.queue(0).messages.pop();
    story.queue(0).max = 2;
    story.observed.retain(|seen| seen.key != Ok(key(0, 2)));
    assert_eq!(story.kinds(), [Anomaly::Lost]);
    assert!(
        story.check().to_string().contains("p0-2"),
        "names the message"
    );
    assert!(story.check().require_clean().is_err());
}

#[test]
fn a_whole_missing_queue_is_lost() {
    let mut story = Story::good();
    story.contents.queues.remove(&1);
    story.observed.clear();
    assert_eq!(story.kinds(), [Anomaly::Lost]);
    assert_eq!(story.check().count(Anomaly::Lost), 3);
}

#[test]
fn an_ack_at_another_offset_is_moved() {
    let mut story = Story::good();
    // Both sends under way at once, so the order between them is free.
    story.sends[2].started = story.sends[1].started;
    let [one, two] = [key(0, 1), key(0, 2)];
    story.queue(0).messages[1] = message(1, two);
    story.queue(0).messages[2] = message(2, one);
    story.observed.clear();
    assert_eq!(story.kinds(), [Anomaly::Moved]);
}

#[test]
fn two_acks_for_one_offset_are_reuse() {
    let mut story = Story::good();
    story.sends[2].outcome = acked(key(0, 2), 0, 1);
    assert!(story.kinds().contains(&Anomaly::Reused));
}

#[test]
fn a_message_nobody_sent_is_a_phantom() {
    let mut story = Story::good();
    story.queue(0).messages.push(message(3, key(0, 3)));
    story.queue(0).max = 4;
    assert_eq!(story.kinds(), [Anomaly::Phantom]);
    let mut foreign = message(3, key(0, 3));
    foreign.key = Err("not a key".into());
    story.queue(0).messages[3] = foreign;
    assert_eq!(story.kinds(), [Anomaly::Phantom]);
}

#[test]
fn a_refused_message_that_is_stored_is_found() {
    let mut story = Story::good();
    story.sends[2].outcome = Outcome::Refused("code 13".into());
    assert_eq!(story.kinds(), [Anomaly::Resurrected]);
}

#[test]
fn a_second_copy_needs_a_second_attempt() {
    let mut story = Story::good();
    story.queue(0).messages.push(message(3, key(0, 2)));
    story.queue(0).max = 4;
    assert_eq!(story.kinds(), [Anomaly::Duplicated]);
    story.sends[2].attempts_max = 2;
    assert_eq!(story.kinds(), []);
}

#[test]
fn a_message_in_another_queue_is_misplaced() {
    let mut story = Story::good();
    story.sends[2].queue = 1;
    assert_eq!(story.kinds(), [Anomaly::Misplaced]);
    story.sends[2].queue = -1; // any queue would do
    assert_eq!(story.kinds(), []);
}

#[test]
fn a_later_send_in_front_of_an_earlier_ack_is_reordered() {
    let mut story = Story::good();
    // The broker says so itself: it acknowledged p0-1 at 2 and then p0-2 at 1.
    let [one, two] = [key(0, 1), key(0, 2)];
    story.sends[1].outcome = acked(one, 0, 2);
    story.sends[2].outcome = acked(two, 0, 1);
    story.queue(0).messages[1] = message(1, two);
    story.queue(0).messages[2] = message(2, one);
    story.observed.clear();
    assert_eq!(story.kinds(), [Anomaly::Reordered]);
}

#[test]
fn order_holds_between_producers_of_a_queue_too() {
    let mut story = Story::good();
    // p2-0 starts when everything of queue 0 is acknowledged, and lands at its front.
    let late = key(2, 0);
    let mut send = story.sends[0].clone();
    (send.key, send.started, send.finished) = (late, Nanos(90 * STEP), Nanos(91 * STEP));
    send.outcome = Outcome::Unknown("timed out".into());
    story.sends.push(send);
    story.queue(0).messages.push(message(3, late));
    story.queue(0).max = 4;
    assert_eq!(story.kinds(), []);
    let messages = &mut story.queue(0).messages;
    messages.rotate_right(1);
    for (offset, message) in messages.iter_mut().enumerate() {
        message.offset = i64::try_from(offset).unwrap();
    }
    assert!(story.kinds().contains(&Anomaly::Reordered));
}

#[test]
fn a_missing_offset_is_a_gap() {
    let mut story = Story::good();
    for (offset, message) in [(0, 0), (1, 2), (2, 3)] {
        story.queue(0).messages[offset].offset = message;
    }
    story.queue(0).max = 4;
    assert!(story.kinds().contains(&Anomaly::Gap));
}

#[test]
fn an_offset_twice_is_a_gap() {
    let mut story = Story::good();
    story.queue(0).messages[2].offset = 1;
    assert!(story.kinds().contains(&Anomaly::Gap));
}

#[test]
fn a_max_beyond_the_last_message_is_a_gap() {
    let mut story = Story::good();
    story.queue(0).max = 5;
    assert_eq!(story.kinds(), [Anomaly::Gap]);
}

#[test]
fn a_read_that_does_not_stand_is_unstable() {
    let mut story = Story::good();
    let phantom = Observation {
        queue: 0,
        offset: 3,
        key: Ok(key(0, 3)),
    };
    story.observed.push(phantom);
    assert_eq!(story.kinds(), [Anomaly::Unstable]);
    story.observed.pop();
    story.observed[1].key = Ok(key(0, 0));
    assert_eq!(story.kinds(), [Anomaly::Unstable]);
}

#[test]
fn a_damaged_body_is_corrupt() {
    let mut story = Story::good();
    story.queue(1).messages[1].intact = false;
    assert_eq!(story.kinds(), [Anomaly::Corrupt]);
}

#[test]
fn an_id_of_another_record_is_found() {
    let mut story = Story::good();
    story.queue(1).messages[1].physical_offset += 1;
    assert_eq!(story.kinds(), [Anomaly::WrongId]);
}

#[test]
fn a_second_reading_must_begin_with_the_first() {
    let first = Story::good().contents;
    let mut second = Story::good();
    second.queue(0).messages.push(message(3, key(0, 3)));
    assert_eq!(check_unchanged(&first, &second.contents), []);
    second.queue(0).messages[1].physical_offset += 1;
    assert_eq!(check_unchanged(&first, &second.contents).len(), 1);
    second.queue(1).messages.clear();
    assert_eq!(check_unchanged(&first, &second.contents).len(), 4);
}

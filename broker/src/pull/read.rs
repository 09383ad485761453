//! Which messages of a queue answer a pull, and what the answer says when there are none.
//!
//! Pure up to [`Queue`], which is the applied state or, in tests, a list.

use bytes::Bytes;
use raftmq_proto::code::response;
use raftmq_proto::filter::TagFilter;
use raftmq_proto::header::PullMessageRequestHeader;
use raftmq_store::state::Unit;

/// Units looked at in one go.
const CHUNK: usize = 256;

/// A consume queue with the records behind it.
pub(crate) trait Queue {
    /// The first offset that is there, and the one after the last.
    fn bounds(&self) -> (u64, u64);
    /// Up to `max` units from `from` on; an error when the store cannot read them back.
    fn units(&self, from: u64, max: usize) -> Result<Vec<Unit>, String>;
    /// The record of a unit; none when it is gone, an error when it cannot be read.
    fn record(&self, unit: &Unit) -> Result<Option<Bytes>, String>;
}

/// What a pull asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) offset: i64,
    pub(crate) filter: &'a TagFilter,
    /// Most messages, at least 1.
    pub(crate) messages_max: usize,
    /// Most bytes; the first message always passes.
    pub(crate) bytes_max: usize,
    /// Most units to examine, at least 1.
    pub(crate) examine_max: usize,
}

/// What happened (RocketMQ: `GetMessageStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Found,
    NoMatchedMessage,
    MessageWasRemoving,
    OffsetFoundNull,
    OffsetOverflowBadly,
    OffsetOverflowOne,
    OffsetTooSmall,
    NoMessageInQueue,
}

impl Status {
    /// The remark of an answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Found => "FOUND",
            Status::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Status::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
            Status::OffsetFoundNull => "OFFSET_FOUND_NULL",
            Status::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Status::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Status::OffsetTooSmall => "OFFSET_TOO_SMALL",
            Status::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
        }
    }

    /// The code of an answer to a pull from `offset`.
    pub(crate) fn code(self, offset: i64) -> i32 {
        match self {
            Status::Found => response::SUCCESS,
            Status::NoMatchedMessage | Status::MessageWasRemoving => {
                response::PULL_RETRY_IMMEDIATELY
            }
            Status::OffsetFoundNull | Status::OffsetOverflowOne => response::PULL_NOT_FOUND,
            Status::NoMessageInQueue if offset == 0 => response::PULL_NOT_FOUND,
            Status::NoMessageInQueue | Status::OffsetOverflowBadly | Status::OffsetTooSmall => {
                response::PULL_OFFSET_MOVED
            }
        }
    }

    /// Whether there is nothing to be had before something is added.
    pub(crate) fn is_at_end(self) -> bool {
        match self {
            Status::OffsetFoundNull
            | Status::OffsetOverflowOne
            | Status::OffsetOverflowBadly
            | Status::NoMessageInQueue => true,
            Status::Found
            | Status::NoMatchedMessage
            | Status::MessageWasRemoving
            | Status::OffsetTooSmall => false,
        }
    }

    /// Whether it lies beyond the end of the queue: a follower may not have come as far yet.
    pub(crate) fn is_behind(self) -> bool {
        matches!(self, Status::NoMessageInQueue | Status::OffsetOverflowBadly)
    }

    /// Whether the leader can do better than a follower that found this.
    pub(crate) fn is_unsure(self) -> bool {
        match self {
            Status::Found | Status::NoMatchedMessage | Status::OffsetOverflowOne => false,
            Status::MessageWasRemoving
            | Status::OffsetFoundNull
            | Status::OffsetOverflowBadly
            | Status::OffsetTooSmall
            | Status::NoMessageInQueue => true,
        }
    }

    /// Code and next offset of a follower's answer. Its queue may be shorter than the leader's, and begin earlier, but
    /// never the other way round: it may send a client forward, and not back.
    pub(crate) fn answer_of_follower(
        self,
        reading: &Reading,
        header: &PullMessageRequestHeader,
    ) -> (i32, u64) {
        let same = u64::try_from(header.queue_offset).unwrap_or(0);
        match self {
            Status::Found => (response::SUCCESS, reading.next),
            Status::NoMatchedMessage | Status::OffsetTooSmall => {
                (response::PULL_RETRY_IMMEDIATELY, reading.next)
            }
            Status::MessageWasRemoving => (response::PULL_RETRY_IMMEDIATELY, same),
            Status::OffsetFoundNull
            | Status::OffsetOverflowOne
            | Status::OffsetOverflowBadly
            | Status::NoMessageInQueue => (response::PULL_NOT_FOUND, same),
        }
    }
}

/// The answer to a pull.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) status: Status,
    /// Where the next pull begins.
    pub(crate) next: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    /// Records, in order: slices of the log.
    pub(crate) records: Vec<Bytes>,
    /// Physical offset after the last message looked at.
    pub(crate) end: u64,
}

/// Reads a queue.
///
/// # Errors
/// What the store says when it cannot read the queue back.
pub(crate) fn read(queue: &impl Queue, wish: Wish<'_>) -> Result<Reading, String> {
    let (min, max) = queue.bounds();
    let nothing = |status, next| Reading {
        status,
        next,
        min,
        max,
        records: Vec::new(),
        end: 0,
    };
    if max == 0 {
        return Ok(nothing(Status::NoMessageInQueue, 0));
    }
    let from = match u64::try_from(wish.offset) {
        Ok(from) if from >= min => from,
        _ => return Ok(nothing(Status::OffsetTooSmall, min)),
    };
    if from == max {
        return Ok(nothing(Status::OffsetOverflowOne, from));
    }
    if from > max {
        return Ok(nothing(Status::OffsetOverflowBadly, max));
    }
    let Taken {
        units,
        examined,
        end,
        ..
    } = take(queue, wish, from)?;
    let next = from + examined;
    if examined == 0 {
        return Ok(nothing(Status::OffsetFoundNull, from));
    }
    let status = match units.is_empty() {
        true => Status::NoMatchedMessage,
        false => Status::Found,
    };
    let mut records = Vec::with_capacity(units.len());
    for unit in &units {
        match queue.record(unit)? {
            Some(record) => records.push(record),
            // The queue begins later now: the next pull is told where.
            None => return Ok(nothing(Status::MessageWasRemoving, from)),
        }
    }
    Ok(Reading {
        status,
        next,
        min,
        max,
        records,
        end,
    })
}

struct Taken {
    units: Vec<Unit>,
    bytes: usize,
    /// Units passed, taken or filtered out.
    examined: u64,
    /// Physical offset after the last of them.
    end: u64,
}

fn take(queue: &impl Queue, wish: Wish<'_>, from: u64) -> Result<Taken, String> {
    let mut taken = Taken {
        units: Vec::new(),
        bytes: 0,
        examined: 0,
        end: 0,
    };
    let mut budget = wish.examine_max.max(1);
    while budget > 0 && taken.units.len() < wish.messages_max {
        // Without a filter no unit is looked at that cannot be taken.
        let is_unfiltered = *wish.filter == TagFilter::All;
        let chunk = if is_unfiltered {
            wish.messages_max - taken.units.len()
        } else {
            CHUNK
        };
        let units = queue.units(from + taken.examined, chunk.min(budget))?;
        if units.is_empty() {
            break;
        }
        budget -= units.len().min(budget);
        for unit in units {
            let end = unit.physical_offset + u64::from(unit.size);
            if wish.filter.matches_code(unit.tags_code) {
                let size = unit.size as usize;
                let is_full =
                    taken.units.len() >= wish.messages_max || taken.bytes + size > wish.bytes_max;
                if is_full && !taken.units.is_empty() {
                    return Ok(taken);
                }
                taken.bytes += size;
                taken.units.push(unit);
            }
            taken.examined += 1;
            taken.end = end;
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use raftmq_proto::message::tags_code;

    use super::*;

    /// Records of 10 bytes each.
    struct List {
        first: u64,
        tags: Vec<&'static str>,
        removed: bool,
    }

    impl Queue for List {
        fn bounds(&self) -> (u64, u64) {
            (self.first, self.first + self.tags.len() as u64)
        }

        fn units(&self, from: u64, max: usize) -> Result<Vec<Unit>, String> {
            let at = (from - self.first) as usize;
            let unit = |(n, tag): (usize, &&str)| Unit {
                physical_offset: n as u64 * 10,
                size: 10,
                tags_code: tags_code(tag),
            };
            Ok(self
                .tags
                .iter()
                .enumerate()
                .skip(at)
                .take(max)
                .map(unit)
                .collect())
        }

        fn record(&self, unit: &Unit) -> Result<Option<Bytes>, String> {
            Ok((!self.removed).then(|| Bytes::from(vec![0; unit.size as usize])))
        }
    }

    fn read(queue: &List, wish: Wish<'_>) -> Reading {
        super::read(queue, wish).unwrap()
    }

    fn list(first: u64, tags: &[&'static str]) -> List {
        List {
            first,
            tags: tags.to_vec(),
            removed: false,
        }
    }

    fn wish(offset: i64, filter: &TagFilter) -> Wish<'_> {
        Wish {
            offset,
            filter,
            messages_max: 32,
            bytes_max: 1000,
            examine_max: 800,
        }
    }

    #[test]
    fn every_row_of_the_result_table() {
        let all = TagFilter::All;
        let five = list(10, &["a"; 5]);
        for (queue, offset, status, next, code) in [
            (&list(0, &[]), 0, Status::NoMessageInQueue, 0, 19),
            (&list(0, &[]), 7, Status::NoMessageInQueue, 0, 21),
            (&five, 9, Status::OffsetTooSmall, 10, 21),
            (&five, -1, Status::OffsetTooSmall, 10, 21),
            (&five, i64::MIN, Status::OffsetTooSmall, 10, 21),
            (&five, 15, Status::OffsetOverflowOne, 15, 19),
            (&five, 16, Status::OffsetOverflowBadly, 15, 21),
            (&five, i64::MAX, Status::OffsetOverflowBadly, 15, 21),
            (&five, 12, Status::Found, 15, 0),
        ] {
            let reading = read(queue, wish(offset, &all));
            assert_eq!(
                (reading.status, reading.next, status.code(offset)),
                (status, next, code),
                "{offset}"
            );
        }
        let removed = List {
            removed: true,
            ..list(10, &["a"; 5])
        };
        let reading = read(&removed, wish(10, &all));
        assert_eq!(
            (reading.status, reading.next, reading.records.len()),
            (Status::MessageWasRemoving, 10, 0)
        );
    }

    #[test]
    fn a_follower_never_sends_a_client_back() {
        let all = TagFilter::All;
        let b = TagFilter::parse("b").unwrap();
        let (five, empty) = (list(10, &["a"; 5]), list(0, &[]));
        let removed = List {
            removed: true,
            ..list(10, &["a"; 5])
        };
        for (queue, filter, offset, code, next) in [
            (&empty, &all, 0, 19, 0),
            (&empty, &all, 7, 19, 7),
            (&five, &all, 9, 20, 10),
            (&five, &all, -1, 20, 10),
            (&five, &all, 12, 0, 15),
            (&five, &b, 12, 20, 15),
            (&five, &all, 15, 19, 15),
            (&five, &all, 16, 19, 16),
            (&five, &all, i64::MAX, 19, i64::MAX as u64),
            (&removed, &all, 12, 20, 12),
        ] {
            let reading = read(queue, wish(offset, filter));
            let header = PullMessageRequestHeader {
                queue_offset: offset,
                ..PullMessageRequestHeader::default()
            };
            let answer = reading.status.answer_of_follower(&reading, &header);
            assert_eq!(answer, (code, next), "{offset}");
        }
    }

    #[test]
    fn limits_of_count_and_bytes_hold_and_one_message_always_passes() {
        let all = TagFilter::All;
        let many = list(0, &["a"; 100]);
        let counted = read(
            &many,
            Wish {
                messages_max: 7,
                ..wish(0, &all)
            },
        );
        assert_eq!((counted.records.len(), counted.next), (7, 7));
        let weighed = read(
            &many,
            Wish {
                bytes_max: 25,
                ..wish(0, &all)
            },
        );
        assert_eq!((weighed.records.len(), weighed.next), (2, 2));
        let heavy = read(
            &many,
            Wish {
                bytes_max: 1,
                ..wish(0, &all)
            },
        );
        assert_eq!((heavy.records.len(), heavy.next), (1, 1));
    }

    #[test]
    fn filtered_messages_are_passed_and_the_examined_stretch_is_bounded() {
        let b = TagFilter::parse("b").unwrap();
        let mut tags = vec!["a"; 1000];
        tags[600] = "b";
        let queue = list(0, &tags);
        let found = read(&queue, wish(0, &b));
        assert_eq!(
            (found.status, found.records.len(), found.next),
            (Status::Found, 1, 800)
        );
        let none = read(&queue, wish(700, &b));
        assert_eq!((none.status, none.next), (Status::NoMatchedMessage, 1000));
        let bounded = read(
            &queue,
            Wish {
                examine_max: 500,
                ..wish(0, &b)
            },
        );
        assert_eq!(
            (bounded.status, bounded.next),
            (Status::NoMatchedMessage, 500)
        );
        let untagged = list(0, &[""]);
        assert_eq!(
            read(&untagged, wish(0, &b)).status,
            Status::NoMatchedMessage
        );
    }
}

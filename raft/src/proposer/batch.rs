//! From submissions to the body of one entry, and from its outcome back to the submissions.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use raftmq_proto::body::{SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::command::{Command, Op};
use raftmq_proto::message::{record, sys_flag};
use raftmq_store::entry::HEADER;

use super::admission::Admitted;
use super::submission::{PhysicalOffsets, ProposeError, Stored, Waiter};
use crate::types::{EntryApplied, Proposal};

/// Something that waits to be proposed.
pub(super) enum Item {
    Messages(Messages),
    Ops(Ops),
}

pub(super) struct Messages {
    pub(super) topic: Arc<str>,
    pub(super) queue_id: i32,
    pub(super) records: BytesMut,
    pub(super) count: u32,
    pub(super) waiter: Waiter,
    pub(super) admitted: Admitted,
}

/// Metadata operations, already encoded.
pub(super) struct Ops {
    /// A [`Command`] without a time. Protobuf messages merge by concatenation, so those of several
    /// submissions and the time make one command.
    pub(super) encoded: Vec<u8>,
    /// They change which queue offset comes next: no records in the same entry, and the counters
    /// are loaded again after it.
    pub(super) renumbers: bool,
    pub(super) waiter: Waiter,
    pub(super) admitted: Admitted,
}

impl Item {
    pub(super) fn len(&self) -> usize {
        match self {
            Item::Messages(m) => m.records.len(),
            Item::Ops(o) => o.encoded.len(),
        }
    }

    pub(super) fn renumbers(&self) -> bool {
        matches!(
            self,
            Item::Ops(Ops {
                renumbers: true,
                ..
            })
        )
    }

    pub(super) fn refuse(self, error: ProposeError) {
        match self {
            Item::Messages(m) => m.waiter.complete(Err(error)),
            Item::Ops(o) => o.waiter.complete(Err(error)),
        }
    }
}

/// Checks that the bytes are what the submission says. Apply could not skip an unreadable record:
/// it would stop every member of the group.
pub(super) fn check_records(
    records: &[u8],
    topic: &str,
    queue_id: i32,
    count: u32,
) -> Result<(), ProposeError> {
    let malformed = |what: String| Err(ProposeError::Malformed { what });
    let mut found = 0u32;
    for record in record::records(records) {
        match record {
            Err(error) => return malformed(error.to_string()),
            Ok(record) if record.topic() != topic || record.queue_id() != queue_id => {
                return malformed(format!(
                    "a record of queue {}/{} in a submission for {topic}/{queue_id}",
                    record.topic(),
                    record.queue_id()
                ));
            }
            Ok(_) => found += 1,
        }
    }
    if found == 0 || found != count {
        return malformed(format!("{found} records in a submission of {count}"));
    }
    Ok(())
}

/// Checks operations for what apply could not read.
pub(super) fn check_ops(ops: &[Op]) -> Result<(), ProposeError> {
    for op in ops {
        let readable = match op {
            Op::PutTopic(put) => TopicConfig::from_json(&put.config_json).map(drop),
            Op::PutGroup(put) => SubscriptionGroupConfig::from_json(&put.config_json).map(drop),
            Op::DeleteTopic(_)
            | Op::DeleteGroup(_)
            | Op::SaveOffsets(_)
            | Op::PutKv(_)
            | Op::DeleteKv(_)
            | Op::TrimLog(_)
            | Op::StartQueue(_) => Ok(()),
        };
        readable.map_err(|error| ProposeError::Malformed {
            what: error.to_string(),
        })?;
    }
    Ok(())
}

/// Half messages and rollbacks are stored but stand in no consume queue.
fn is_queued(record: &[u8]) -> bool {
    let flag = record
        .get(record::SYS_FLAG_AT..)
        .and_then(|rest| rest.first_chunk::<4>());
    let kind = sys_flag::transaction_type(flag.map_or(0, |flag| i32::from_be_bytes(*flag)));
    kind == sys_flag::TRANSACTION_NOT_TYPE || kind == sys_flag::TRANSACTION_COMMIT_TYPE
}

/// The next queue offset of every queue that this leader has assigned one in.
#[derive(Default)]
pub(super) struct Counters {
    topics: HashMap<Arc<str>, HashMap<i32, u64>>,
    queues: usize,
}

impl Counters {
    /// Number of queues counted.
    pub(super) fn queues(&self) -> usize {
        self.queues
    }

    /// Takes `count` offsets of a queue and returns the first. `load` knows the next offset of a
    /// queue none was taken of so far.
    fn take(
        &mut self,
        topic: &Arc<str>,
        queue_id: i32,
        count: u64,
        load: impl FnOnce() -> u64,
    ) -> u64 {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.clone(), HashMap::new());
        }
        let queues = self.topics.get_mut(topic).expect("inserted above");
        let next = queues.entry(queue_id).or_insert_with(|| {
            self.queues += 1;
            load()
        });
        let first = *next;
        *next += count;
        first
    }
}

/// A submission on its way through the log.
pub(super) struct UnderWay {
    waiter: Waiter,
    queue_offset: u64,
    /// Offsets of the records from the beginning of the entry; none for operations.
    records: PhysicalOffsets,
}

/// Makes the body of one entry: the operations as one command, then the records, stamped with
/// their queue offsets and the time.
///
/// `next_offset` answers for queues that `counters` does not know yet.
pub(super) fn assemble(
    items: Vec<Item>,
    time_ms: i64,
    counters: &mut Counters,
    next_offset: impl Fn(&str, i32) -> u64,
) -> (Proposal, Vec<UnderWay>) {
    let command = encode_command(&items, time_ms);
    let single = matches!(items.as_slice(), [Item::Messages(_)]);
    let len = command.len() + items.iter().map(Item::len).sum::<usize>();
    let mut body = if single {
        BytesMut::new()
    } else {
        BytesMut::with_capacity(len)
    };
    body.put_slice(&command);

    let mut under_way = Vec::with_capacity(items.len());
    for item in items {
        let (mut waiter, queue_offset, records) = match item {
            Item::Ops(ops) => {
                drop(ops.admitted);
                (ops.waiter, 0, PhysicalOffsets::with_capacity(0))
            }
            Item::Messages(mut m) => {
                let queued = record::records_mut(&mut m.records)
                    .filter(|r| is_queued(r))
                    .count();
                let first = match queued as u64 {
                    0 => 0,
                    queued => counters.take(&m.topic, m.queue_id, queued, || {
                        next_offset(&m.topic, m.queue_id)
                    }),
                };
                let mut next = first;
                let mut at = (HEADER + body.len()) as u64;
                let mut records = PhysicalOffsets::with_capacity(m.count as usize);
                for bytes in record::records_mut(&mut m.records) {
                    if is_queued(bytes) {
                        record::stamp_queue_offset(bytes, next);
                        next += 1;
                    } else {
                        record::stamp_queue_offset(bytes, 0);
                    }
                    record::stamp_store_timestamp(bytes, time_ms);
                    records.push(at);
                    at += bytes.len() as u64;
                }
                drop(m.admitted);
                if single {
                    body = m.records;
                } else {
                    body.put_slice(&m.records);
                }
                (m.waiter, first, records)
            }
        };
        waiter.proposed();
        under_way.push(UnderWay {
            waiter,
            queue_offset,
            records,
        });
    }
    let command_len = u32::try_from(command.len()).expect("bounded by the size of an entry");
    (Proposal { command_len, body }, under_way)
}

fn encode_command(items: &[Item], time_ms: i64) -> Vec<u8> {
    let mut ops = items.iter().filter_map(|item| match item {
        Item::Ops(ops) => Some(&ops.encoded),
        Item::Messages(_) => None,
    });
    let Some(first) = ops.next() else {
        return Vec::new();
    };
    let mut command = Command {
        time_ms,
        ops: Vec::new(),
    }
    .encode();
    command.extend_from_slice(first);
    for more in ops {
        command.extend_from_slice(more);
    }
    command
}

impl UnderWay {
    /// The entry is applied.
    pub(super) fn applied(mut self, entry: &EntryApplied) {
        self.records.add(entry.position);
        let refused = if entry.refused.is_empty() {
            0
        } else {
            self.records
                .iter()
                .filter(|at| entry.refused.contains(at))
                .count()
        };
        let outcome = match refused {
            0 => Ok(Stored {
                queue_offset: self.queue_offset,
                physical_offsets: self.records,
            }),
            n if n == self.records.len() => Err(ProposeError::Renumber),
            // Some of a batch: it must not be submitted again as a whole.
            _ => Err(ProposeError::Unknown),
        };
        self.waiter.complete(outcome);
    }

    /// The entry is not applied, now or ever, or nobody knows.
    pub(super) fn failed(self, error: ProposeError) {
        self.waiter.complete(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proposer::admission::Admission;
    use parking_lot::Mutex;
    use raftmq_proto::command::PutKv;
    use raftmq_proto::message::record::{NewRecord, RecordRef};

    type Outcome = Arc<Mutex<Option<Result<Stored, ProposeError>>>>;

    fn record(queue_id: i32, sys_flag: i32, body: &[u8], out: &mut BytesMut) {
        NewRecord {
            queue_id,
            flag: 0,
            sys_flag,
            born_timestamp: 1,
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host: "[::1]:2".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            topic: "t",
            properties: "",
        }
        .encode(out)
        .unwrap();
    }

    fn waiter() -> (Waiter, Outcome) {
        let outcome = Outcome::default();
        let told = outcome.clone();
        let done = move |result| assert!(told.lock().replace(result).is_none(), "called twice");
        (Waiter::new(Box::new(done)), outcome)
    }

    fn messages(queue_id: i32, flags: &[i32]) -> (Item, Outcome) {
        let mut records = BytesMut::new();
        for flag in flags {
            record(queue_id, *flag, b"body", &mut records);
        }
        let (waiter, outcome) = waiter();
        let item = Item::Messages(Messages {
            topic: "t".into(),
            queue_id,
            records,
            count: flags.len() as u32,
            waiter,
            admitted: Admission::new(9, 9).admit(0).unwrap(),
        });
        (item, outcome)
    }

    fn ops(key: &str) -> (Item, Outcome) {
        let op = Op::PutKv(PutKv {
            namespace: "n".into(),
            key: key.into(),
            value: vec![1],
        });
        let (waiter, outcome) = waiter();
        let item = Item::Ops(Ops {
            encoded: Command {
                time_ms: 0,
                ops: vec![op],
            }
            .encode(),
            renumbers: false,
            waiter,
            admitted: Admission::new(9, 9).admit(0).unwrap(),
        });
        (item, outcome)
    }

    fn stamped(proposal: &Proposal) -> Vec<(i32, u64, i64)> {
        let records = &proposal.body[proposal.command_len as usize..];
        let records = record::records(records).map(Result::unwrap);
        records
            .map(|r| (r.queue_id(), r.queue_offset(), r.store_timestamp()))
            .collect()
    }

    /// Offsets go on from what is applied, per queue; half messages take none; operations of
    /// several submissions become one command in front; outcomes name the records' places.
    #[test]
    fn an_entry_of_everything() {
        let half = sys_flag::TRANSACTION_PREPARED_TYPE;
        let (a, a_outcome) = messages(0, &[0, 0]);
        let (b, b_outcome) = ops("one");
        let (c, c_outcome) = messages(1, &[0, half, 0]);
        let (d, _d_outcome) = ops("two");
        let (e, e_outcome) = messages(0, &[0]);
        let mut counters = Counters::default();
        let load = |_: &str, queue: i32| 10 * (queue as u64 + 1);
        let (proposal, under_way) = assemble(vec![a, b, c, d, e], 77, &mut counters, load);

        let command = Command::decode(&proposal.body[..proposal.command_len as usize]).unwrap();
        assert_eq!((command.time_ms, command.ops.len()), (77, 2));
        assert_eq!(
            stamped(&proposal),
            [
                (0, 10, 77),
                (0, 11, 77),
                (1, 20, 77),
                (1, 0, 77),
                (1, 21, 77),
                (0, 12, 77)
            ]
        );
        assert_eq!(counters.queues(), 2);

        let mut positions = Vec::new();
        let mut at = 1000 + HEADER as u64 + u64::from(proposal.command_len);
        let mut rest = &proposal.body[proposal.command_len as usize..];
        while !rest.is_empty() {
            let len = RecordRef::parse(rest).unwrap().total_size();
            positions.push(at);
            at += u64::from(len);
            rest = &rest[len as usize..];
        }
        // The last submission and part of the third are refused.
        let refused = vec![positions[2], positions[5]];
        let applied = EntryApplied {
            position: 1000,
            refused,
        };
        for submission in under_way {
            submission.applied(&applied);
        }
        let stored = a_outcome.lock().take().unwrap().unwrap();
        assert_eq!(
            (stored.queue_offset, &*stored.physical_offsets),
            (10, &positions[..2])
        );
        assert!(b_outcome.lock().take().unwrap().is_ok());
        assert_eq!(c_outcome.lock().take(), Some(Err(ProposeError::Unknown)));
        assert_eq!(e_outcome.lock().take(), Some(Err(ProposeError::Renumber)));
    }

    /// A submission alone becomes the body as it is, and later entries count on.
    #[test]
    fn a_submission_alone_is_not_copied() {
        let (item, outcome) = messages(3, &[0]);
        let Item::Messages(m) = &item else { panic!() };
        let bytes = m.records.as_ptr();
        let mut counters = Counters::default();
        let (proposal, under_way) = assemble(vec![item], 5, &mut counters, |_, _| 0);
        assert_eq!((proposal.command_len, proposal.body.as_ptr()), (0, bytes));
        let (second, _second_outcome) = messages(3, &[0]);
        let (proposal, _second) = assemble(vec![second], 6, &mut counters, |_, _| panic!("known"));
        assert_eq!(stamped(&proposal), [(3, 1, 6)]);
        // The core went away: whatever was proposed may have been stored.
        drop(under_way);
        assert_eq!(outcome.lock().take(), Some(Err(ProposeError::Unknown)));
    }

    /// What apply could not read never gets into the log.
    #[test]
    fn unreadable_submissions_are_refused() {
        let mut records = BytesMut::new();
        record(2, 0, b"body", &mut records);
        assert_eq!(check_records(&records, "t", 2, 1), Ok(()));
        let refused = |bytes: &[u8], topic: &str, queue: i32, count: u32| {
            check_records(bytes, topic, queue, count)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&records, "t", 2, 2).contains("1 records in a submission of 2"));
        assert!(refused(&records, "t", 1, 1).contains("t/2 in a submission for t/1"));
        assert!(refused(&records, "u", 2, 1).contains("submission for u/2"));
        assert!(refused(&[], "t", 2, 0).contains("0 records"));
        for cut in 1..records.len() {
            assert!(check_records(&records[..cut], "t", 2, 1).is_err());
        }
        let bad = Op::PutTopic(raftmq_proto::command::PutTopic {
            config_json: b"{".to_vec(),
        });
        assert!(matches!(
            check_ops(&[bad]),
            Err(ProposeError::Malformed { .. })
        ));
    }
}

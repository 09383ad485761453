//! Applying committed entries. Deterministic: equal entries give equal state on every member, so
//! nothing here reads a clock, a configuration or anything local.
//!
//! RocketMQ: `DefaultMessageStore.ReputMessageService`, `CommitLogDispatcherBuildConsumeQueue`.

use std::sync::Arc;

use raftmq_proto::body::{self, SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::command::{Command, OffsetRow, Op};
use raftmq_proto::message::record::{RECORD_MIN, RecordRef};
use raftmq_proto::message::{properties, sys_flag, tags_code};

use crate::entry::{EntryKind, LogId, StoredEntry, u32_at};
use crate::error::{Error, Result};

use super::queue::{ArrivalMark, Unit};
use super::tables::Tables;

/// Longest topic, group, namespace or key: their rows hold lengths of 16 bits.
const NAME_MAX: usize = i16::MAX as usize;

/// Highest offset a queue may begin at: clients know offsets as an `i64`, and more must follow.
const OFFSET_MAX: u64 = i64::MAX as u64 / 2;

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Term and index of the entry.
    pub id: LogId,
    /// Physical offsets of the records that were refused, ascending: their queue offset was not
    /// the next of their queue, or they are malformed. They are in the log, but in no queue.
    pub refused: Vec<u64>,
    /// Numbers (from 0) of the operations that could not be applied, ascending.
    pub refused_ops: Vec<usize>,
}

/// New messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Topic.
    pub topic: Arc<str>,
    /// Queue within the topic.
    pub queue_id: i32,
    /// Queue offset of the first new message.
    pub first: u64,
    /// The queue's new maximum offset.
    pub queue_offset_end: u64,
    /// Tags code of each new message, in order.
    pub tags_codes: Vec<i64>,
}

/// Is told about changes after they have become visible. Called on the task that applies: must
/// be quick and must not block.
pub trait ApplyObserver: Send + Sync + 'static {
    /// Messages arrived.
    fn arrived(&self, arrivals: &[Arrival]);
    /// Topics were created, changed or deleted.
    fn topics_changed(&self) {}
    /// Subscription groups were created, changed or deleted.
    fn groups_changed(&self) {}
}

/// An entry's content, taken apart before any lock is taken.
pub(super) struct Parsed<'a> {
    time_ms: i64,
    ops: Vec<Option<ParsedOp>>,
    records: std::ops::Range<usize>,
    refused: Vec<u64>,
    entry: &'a StoredEntry,
}

enum ParsedOp {
    PutTopic(TopicConfig),
    DeleteTopic(String),
    PutGroup(SubscriptionGroupConfig),
    DeleteGroup {
        group: String,
        clean_offset: bool,
    },
    SaveOffsets(Vec<OffsetRow>),
    PutKv {
        namespace: String,
        key: String,
        value: Vec<u8>,
    },
    DeleteKv {
        namespace: String,
        key: String,
    },
    TrimLog(u64),
    StartQueue {
        topic: String,
        queue_id: i32,
        offset: u64,
    },
}

pub(super) struct ParsedRecord<'a> {
    topic: &'a str,
    queue_id: i32,
    queue_offset: u64,
    unit: Unit,
}

/// Takes an entry apart; its records go to the end of `records`.
pub(super) fn parse<'a>(
    entry: &'a StoredEntry,
    records: &mut Vec<ParsedRecord<'a>>,
) -> Result<Parsed<'a>> {
    let mut parsed = Parsed {
        time_ms: 0,
        ops: Vec::new(),
        records: records.len()..records.len(),
        refused: Vec::new(),
        entry,
    };
    match entry.kind {
        EntryKind::Blank | EntryKind::Membership => return Ok(parsed),
        EntryKind::Data => {}
    }
    if entry.command_len > 0 {
        let command = Command::decode(entry.command()).map_err(|error| Error::Malformed {
            what: format!("entry {}: {error}", entry.id),
        })?;
        parsed.time_ms = command.time_ms;
        parsed.ops = command.ops.into_iter().map(parse_op).collect();
    }
    let mut rest = entry.records_slice();
    let mut position = entry.records_position();
    while !rest.is_empty() {
        let total = u32_at(rest, 0).map_or(0, |total| total as usize);
        let Some((bytes, after)) = rest.split_at_checked(total).filter(|_| total >= RECORD_MIN)
        else {
            tracing::error!(entry = %entry.id, position, "record with a wrong size is refused");
            parsed.refused.push(position);
            break;
        };
        rest = after;
        match RecordRef::parse(bytes) {
            Err(error) => {
                tracing::error!(entry = %entry.id, position, %error, "malformed record is refused");
                parsed.refused.push(position);
            }
            // A half message or a rolled back one is in the log for others to find, and in no queue.
            Ok(record) if !is_queued(record.sys_flag()) => {}
            Ok(record) => records.push(ParsedRecord {
                topic: record.topic(),
                queue_id: record.queue_id(),
                queue_offset: record.queue_offset(),
                unit: Unit {
                    physical_offset: position,
                    size: total as u32,
                    tags_code: record.property(properties::TAGS).map_or(0, tags_code),
                },
            }),
        }
        position += total as u64;
    }
    parsed.records.end = records.len();
    Ok(parsed)
}

/// Whether a record with these flags gets into its queue.
pub(super) fn is_queued(flags: i32) -> bool {
    matches!(
        sys_flag::transaction_type(flags),
        sys_flag::TRANSACTION_NOT_TYPE | sys_flag::TRANSACTION_COMMIT_TYPE
    )
}

/// `None` for an operation that no member can apply.
fn parse_op(op: Op) -> Option<ParsedOp> {
    let named = |name: &str| !name.is_empty() && name.len() <= NAME_MAX;
    match op {
        Op::PutTopic(put) => body::from_json::<TopicConfig>(&put.config_json)
            .ok()
            .filter(|config| named(&config.topic_name))
            .map(ParsedOp::PutTopic),
        Op::PutGroup(put) => body::from_json::<SubscriptionGroupConfig>(&put.config_json)
            .ok()
            .filter(|config| named(&config.group_name))
            .map(ParsedOp::PutGroup),
        Op::DeleteTopic(delete) => Some(ParsedOp::DeleteTopic(delete.topic)),
        Op::DeleteGroup(delete) => Some(ParsedOp::DeleteGroup {
            group: delete.group,
            clean_offset: delete.clean_offset,
        }),
        Op::SaveOffsets(save) => {
            let fine = save
                .rows
                .iter()
                .all(|row| named(&row.group) && named(&row.topic));
            fine.then_some(ParsedOp::SaveOffsets(save.rows))
        }
        Op::PutKv(put) => (put.namespace.len() <= NAME_MAX && put.key.len() <= NAME_MAX).then_some(
            ParsedOp::PutKv {
                namespace: put.namespace,
                key: put.key,
                value: put.value,
            },
        ),
        Op::DeleteKv(delete) => Some(ParsedOp::DeleteKv {
            namespace: delete.namespace,
            key: delete.key,
        }),
        Op::TrimLog(trim) => Some(ParsedOp::TrimLog(trim.position)),
        Op::StartQueue(start) => {
            let fine = named(&start.topic) && start.offset <= OFFSET_MAX;
            fine.then_some(ParsedOp::StartQueue {
                topic: start.topic,
                queue_id: start.queue_id,
                offset: start.offset,
            })
        }
    }
}

/// What a call of apply changed beside queues.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) arrivals: Vec<Arrival>,
    pub(super) topics: bool,
    pub(super) groups: bool,
}

/// One call of apply, with the tables locked.
pub(super) struct Call<'t> {
    pub(super) tables: &'t mut Tables,
    /// Number of the call.
    pub(super) call: u64,
    /// Whether anybody wants to know of arrivals.
    pub(super) observed: bool,
    pub(super) changes: Changes,
}

impl Call<'_> {
    pub(super) fn entry(&mut self, parsed: Parsed<'_>, records: &[ParsedRecord<'_>]) -> Applied {
        let entry = parsed.entry;
        let mut applied = Applied {
            id: entry.id,
            refused: parsed.refused,
            refused_ops: Vec::new(),
        };
        for (nth, op) in parsed.ops.into_iter().enumerate() {
            let is_applied = op.is_some_and(|op| self.op(op, entry, parsed.time_ms));
            if !is_applied {
                applied.refused_ops.push(nth);
            }
        }
        let malformed = applied.refused.len();
        for record in records.get(parsed.records).unwrap_or_default() {
            if !self.record(record) {
                applied.refused.push(record.unit.physical_offset);
            }
        }
        if malformed > 0 {
            applied.refused.sort_unstable();
        }
        if entry.kind == EntryKind::Membership {
            self.tables.membership = Some((entry.id, entry.body().to_vec()));
        }
        self.tables.note_term(entry.id.term);
        self.tables.applied = Some(entry.id);
        self.tables.applied_end = entry.end();
        self.tables.dirty.any = true;
        applied
    }

    /// Adds the record's unit to its queue; false when its offset is not the next.
    fn record(&mut self, record: &ParsedRecord<'_>) -> bool {
        let tables = &mut *self.tables;
        if record.queue_offset == 0 {
            tables.queue_or_new(record.topic, record.queue_id, 0);
        }
        let queues = tables.queues.get_mut(record.topic);
        let Some((topic, queue)) = queues.and_then(|queues| queues.named(record.queue_id)) else {
            return false;
        };
        if queue.bounds.max != record.queue_offset {
            return false;
        }
        queue.push(record.unit);
        tables.unpersisted_units += 1;
        if !queue.dirty {
            queue.dirty = true;
            tables.dirty.queues.push((topic.clone(), record.queue_id));
        }
        if self.observed {
            let arrivals = &mut self.changes.arrivals;
            if queue.arrival.call != self.call {
                queue.arrival = ArrivalMark {
                    call: self.call,
                    nth: arrivals.len(),
                };
                arrivals.push(Arrival {
                    topic: topic.clone(),
                    queue_id: record.queue_id,
                    first: record.queue_offset,
                    queue_offset_end: record.queue_offset,
                    tags_codes: Vec::new(),
                });
            }
            if let Some(arrival) = arrivals.get_mut(queue.arrival.nth) {
                arrival.queue_offset_end = queue.bounds.max;
                arrival.tags_codes.push(record.unit.tags_code);
            }
        }
        true
    }

    /// Applies an operation; false when it is refused.
    fn op(&mut self, op: ParsedOp, entry: &StoredEntry, time_ms: i64) -> bool {
        let term = entry.id.term.cast_signed();
        let tables = &mut *self.tables;
        match op {
            ParsedOp::PutTopic(config) => {
                let name: Arc<str> = match tables.topics.get_key_value(&*config.topic_name) {
                    Some((name, _)) => name.clone(),
                    None => {
                        // Messages that were under way when the topic was last deleted.
                        tables.drop_messages(&config.topic_name);
                        Arc::from(&*config.topic_name)
                    }
                };
                tables.dirty.topics.insert(name.clone());
                tables.topics.insert(name, Arc::new(config));
                tables.topic_version.advance(term, time_ms);
                self.changes.topics = true;
            }
            ParsedOp::DeleteTopic(topic) => {
                tables.drop_messages(&topic);
                if let Some((name, _)) = tables.topics.remove_entry(&*topic) {
                    tables.dirty.topics.insert(name);
                    tables.topic_version.advance(term, time_ms);
                    self.changes.topics = true;
                }
            }
            ParsedOp::PutGroup(config) => {
                let name: Arc<str> = match tables.groups.get_key_value(&*config.group_name) {
                    Some((name, _)) => name.clone(),
                    None => Arc::from(&*config.group_name),
                };
                tables.dirty.groups.insert(name.clone());
                tables.groups.insert(name, Arc::new(config));
                tables.group_version.advance(term, time_ms);
                self.changes.groups = true;
            }
            ParsedOp::DeleteGroup {
                group,
                clean_offset,
            } => {
                if let Some((name, _)) = tables.groups.remove_entry(&*group) {
                    tables.dirty.groups.insert(name);
                    tables.group_version.advance(term, time_ms);
                    self.changes.groups = true;
                }
                if clean_offset {
                    tables.drop_offsets(&group);
                }
            }
            ParsedOp::SaveOffsets(rows) => {
                for row in rows {
                    // Saved late for a topic that is deleted by now: it would begin a new topic
                    // of the same name in the middle.
                    if tables.knows_topic(&row.topic) {
                        let OffsetRow {
                            group,
                            topic,
                            queue_id,
                            offset,
                            reset,
                        } = &row;
                        tables.save_offset(group, topic, *queue_id, *offset, *reset);
                    }
                }
            }
            ParsedOp::PutKv {
                namespace,
                key,
                value,
            } => {
                let (namespace, key): (Arc<str>, Arc<str>) = (namespace.into(), key.into());
                let rows = tables.kv.entry(namespace.clone()).or_default();
                rows.insert(key.clone(), value.into());
                tables.dirty.kv.insert((namespace, key));
            }
            ParsedOp::DeleteKv { namespace, key } => {
                if let Some(rows) = tables.kv.get_mut(&*namespace)
                    && rows.remove(&*key).is_some()
                {
                    if rows.is_empty() {
                        tables.kv.remove(&*namespace);
                    }
                    tables.dirty.kv.insert((namespace.into(), key.into()));
                }
            }
            // A leader knows no position behind the entry it proposes in.
            ParsedOp::TrimLog(position) if position > entry.position => return false,
            ParsedOp::TrimLog(position) => tables.trim_to(position),
            ParsedOp::StartQueue {
                topic,
                queue_id,
                offset,
            } => return tables.start_queue(&topic, queue_id, offset),
        }
        true
    }
}

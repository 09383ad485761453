//! Second pass: the new store's log, in the order in which a group would have written it.

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use raftmq_proto::command::{
    Command, OffsetRow, Op, PutGroup, PutKv, PutTopic, SaveOffsets, StartQueue,
};
use raftmq_proto::message::record::stamp_queue_offset;
use raftmq_raft::Peer;
use raftmq_raft::offline::{Ballot, first_membership};
use raftmq_store::entry::HEADER;
use raftmq_store::{EntryKind, FlushMode, LogId, NewEntry, NewStore, StoreOptions};

use crate::time::now_ms;

use super::plan::Plan;
use super::tables::Tables;

/// Term of all entries. A group that forms itself begins with term 0, so its first entry is
/// another one and members of both refuse each other: the other members cannot form a group of
/// their own beside an imported one unnoticed.
const TERM: u64 = 1;
/// Bytes of records in one entry, one larger record excepted.
const ENTRY_BYTES: usize = 1 << 20;
/// Operations in one entry.
const OPS: usize = 200;
/// Offsets in one operation.
const ROWS: usize = 1000;
/// Namespace that keeps how far each delay level was delivered.
const DELAY_NAMESPACE: &str = "delayOffset";

pub(super) struct Writer {
    store: NewStore,
    self_id: u64,
    next: u64,
    /// Records of the entry to come.
    records: BytesMut,
}

impl Writer {
    /// Begins the store with the members of its group.
    pub(super) fn begin(options: &StoreOptions, peers: &[Peer]) -> anyhow::Result<Writer> {
        let options = StoreOptions {
            // One flush at the end is enough: until then the store does not count.
            flush: FlushMode::Async {
                interval: std::time::Duration::from_millis(500),
            },
            ..options.clone()
        };
        let members = first_membership(peers).map_err(anyhow::Error::msg)?;
        let mut writer = Writer {
            store: NewStore::begin(&options)?,
            self_id: options.self_id,
            next: 0,
            records: BytesMut::new(),
        };
        let command_len = u32::try_from(members.len())?;
        writer.entry(
            EntryKind::Membership,
            command_len,
            BytesMut::from(&members[..]),
        )?;
        // As a leader does. Members take a log of one entry for that of a group which has only
        // just been formed.
        writer.entry(EntryKind::Blank, 0, BytesMut::new())?;
        Ok(writer)
    }

    /// Topics, groups, and the queues that do not begin at 0.
    pub(super) fn tables(&mut self, tables: &Tables, plan: &Plan) -> anyhow::Result<()> {
        let topics = tables.topics.values().map(|topic| {
            let config_json = topic.to_json();
            Op::PutTopic(PutTopic { config_json })
        });
        let groups = tables.groups.values().map(|group| {
            let config_json = group.to_json();
            Op::PutGroup(PutGroup { config_json })
        });
        let starts = plan.queues().filter(|(_, _, queue)| queue.start() > 0);
        let starts = starts.map(|(topic, queue_id, queue)| {
            Op::StartQueue(StartQueue {
                topic: topic.to_owned(),
                queue_id,
                offset: queue.start(),
            })
        });
        self.ops(topics.chain(groups).chain(starts).collect())
    }

    /// One message, with its new queue offset; its physical offset is stamped where it gets its
    /// place.
    pub(super) fn record(&mut self, bytes: &[u8], queue_offset: u64) -> anyhow::Result<()> {
        let max = usize::try_from(self.store.log.entry_bytes_max())?;
        ensure!(
            HEADER + bytes.len() <= max,
            "a message has {} bytes, an entry of a log with mappedFileSizeCommitLog = {} has room \
             for {}",
            bytes.len(),
            self.store.log.options().segment_bytes,
            max - HEADER
        );
        if !self.records.is_empty()
            && self.records.len() + bytes.len() > ENTRY_BYTES.min(max) - HEADER
        {
            self.flush()?;
        }
        let begin = self.records.len();
        self.records.extend_from_slice(bytes);
        let record = self.records.get_mut(begin..).unwrap_or_default();
        stamp_queue_offset(record, queue_offset);
        Ok(())
    }

    /// Writes the entry that is being filled.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.records);
        self.entry(EntryKind::Data, 0, records)
    }

    /// What consumers and delay levels have done so far. Returns how many offsets of consumers.
    pub(super) fn progress(&mut self, tables: &Tables, plan: &Plan) -> anyhow::Result<u64> {
        let mut rows = Vec::new();
        for ((topic, group), queues) in &tables.offsets {
            for (queue_id, offset) in queues {
                let queue = plan.topics.get(topic).and_then(|all| all.get(queue_id));
                rows.push(OffsetRow {
                    group: group.clone(),
                    topic: topic.clone(),
                    queue_id: *queue_id,
                    offset: queue.map_or(*offset, |queue| queue.moved(*offset)),
                    reset: false,
                });
            }
        }
        for rows in rows.chunks(ROWS) {
            let rows = rows.to_vec();
            self.ops(vec![Op::SaveOffsets(SaveOffsets { rows })])?;
        }
        let delays = tables.delays.iter().map(|(level, offset)| {
            Op::PutKv(PutKv {
                namespace: DELAY_NAMESPACE.to_owned(),
                key: level.to_string(),
                value: offset.to_string().into_bytes(),
            })
        });
        self.ops(delays.collect())?;
        Ok(rows.len() as u64)
    }

    fn ops(&mut self, ops: Vec<Op>) -> anyhow::Result<()> {
        self.flush()?;
        for ops in ops.chunks(OPS) {
            let command = Command {
                time_ms: now_ms(),
                ops: ops.to_vec(),
            };
            let command = command.encode();
            let command_len = u32::try_from(command.len())?;
            self.entry(EntryKind::Data, command_len, BytesMut::from(&command[..]))?;
        }
        Ok(())
    }

    /// Appends and applies one entry; nothing in it may be refused.
    fn entry(&mut self, kind: EntryKind, command_len: u32, body: BytesMut) -> anyhow::Result<()> {
        let entry = NewEntry::Fresh {
            id: LogId::new(TERM, self.next),
            kind,
            command_len,
            body,
        };
        self.store.log.append([entry], Box::new(drop))?;
        let entries = self.store.log.read(self.next, self.next + 1, None)?;
        for applied in self.store.state.apply(&entries)? {
            ensure!(
                applied.refused_ops.is_empty(),
                "entry {}: operations {:?} are refused",
                applied.id,
                applied.refused_ops
            );
            ensure!(
                applied.refused.is_empty(),
                "entry {}: the messages at {:?} are refused",
                applied.id,
                applied.refused
            );
        }
        self.next += 1;
        Ok(())
    }

    /// Makes it a store that a member may be started over. Returns the last entry and the position
    /// after it.
    pub(super) fn finish(mut self) -> anyhow::Result<(LogId, u64)> {
        self.flush()?;
        let last = self.store.log.last().context("nothing was written")?;
        let end = self.store.log.end_position();
        let ballot = Ballot {
            vote: Some((TERM, self.self_id, true)),
            recovering: false,
        };
        self.store.vote.save(&ballot.encode())?;
        self.store.log.sync()?;
        self.store.committed.save(last)?;
        self.store.finish()?;
        Ok((last, end))
    }
}

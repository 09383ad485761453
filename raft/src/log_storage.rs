//! openraft's log storage over the commit log.
//!
//! All writes come from the Raft core, one at a time: append, truncate, vote. Appends complete
//! later, on the store's flush thread. openraft takes a saved vote or a truncation as proof that
//! everything written before is durable too, so these two wait for the flushes still under way.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use futures::stream;
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use parking_lot::{Mutex, RwLock};
use raftmq_store::{CommitLog, CommittedMark, EntryKind, NewEntry, State, StoredEntry, VoteFile};
use tokio::sync::Notify;

use crate::encoding::{SavedVote, decode_vote, encode_membership, encode_vote};
use crate::types::{Entry, IOFlushed, LogId, LogState, Payload, Types, Vote, log_id, store_log_id};

/// Most bytes of entries read at once for a follower or for the apply task. One request to a
/// follower holds this much (one larger entry excepted), so it also bounds what is on the wire.
pub(crate) const READ_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The writing side; owned by the Raft core.
pub(crate) struct LogStorage {
    log: CommitLog,
    state: Arc<State>,
    committed: Arc<CommittedMark>,
    vote: Arc<VoteKeeper>,
    unflushed: Arc<Unflushed>,
}

impl LogStorage {
    pub(crate) fn new(
        log: CommitLog,
        state: Arc<State>,
        committed: Arc<CommittedMark>,
        vote: Arc<VoteKeeper>,
    ) -> Self {
        LogStorage {
            log,
            state,
            committed,
            vote,
            unflushed: Arc::default(),
        }
    }
}

/// The vote and what is saved with it.
pub(crate) struct VoteKeeper {
    file: Arc<VoteFile>,
    saved: RwLock<SavedVote>,
    /// Held while the file is written, so that readers of `saved` do not wait for the disk.
    writing: Mutex<()>,
}

impl VoteKeeper {
    /// Loads the vote; fails when the file holds something that is not a vote.
    pub(crate) fn open(file: Arc<VoteFile>) -> io::Result<Self> {
        let saved = match file.load().map_err(io::Error::other)? {
            None => SavedVote::default(),
            Some(bytes) => decode_vote(&bytes).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "the vote file holds no vote")
            })?,
        };
        Ok(VoteKeeper {
            file,
            saved: RwLock::new(saved),
            writing: Mutex::new(()),
        })
    }

    /// [`open`](Self::open), but a member whose vote is damaged goes on without it: it does not vote
    /// until it has caught up with a living leader, whose term is no older than any vote it gave
    /// that still counts.
    pub(crate) fn open_or_distrust(file: Arc<VoteFile>) -> io::Result<Self> {
        let error = match Self::open(file.clone()) {
            Ok(keeper) => return Ok(keeper),
            Err(error) => error,
        };
        let damaged = error.kind() == io::ErrorKind::InvalidData
            || error
                .get_ref()
                .and_then(|source| source.downcast_ref())
                .is_some_and(|source| matches!(source, raftmq_store::Error::Corrupt { .. }));
        if !damaged {
            return Err(error);
        }
        tracing::error!(%error, "the vote is lost: this member does not vote until it has caught up");
        let keeper = VoteKeeper {
            file,
            saved: RwLock::new(SavedVote::default()),
            writing: Mutex::new(()),
        };
        keeper.set_recovering(true).map_err(io::Error::other)?;
        Ok(keeper)
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.saved.read().vote
    }

    pub(crate) fn recovering(&self) -> bool {
        self.saved.read().recovering
    }

    /// Durable on return.
    pub(crate) fn set_recovering(&self, recovering: bool) -> raftmq_store::Result<()> {
        self.change(|saved| saved.recovering = recovering)
    }

    fn change(&self, change: impl FnOnce(&mut SavedVote)) -> raftmq_store::Result<()> {
        let _one = self.writing.lock();
        let mut next = *self.saved.read();
        change(&mut next);
        self.file.save(&encode_vote(&next))?;
        *self.saved.write() = next;
        Ok(())
    }
}

/// Counts appends whose flush has not been reported.
#[derive(Default)]
struct Unflushed {
    count: AtomicUsize,
    none: Notify,
}

impl Unflushed {
    fn begin(self: &Arc<Self>) -> UnflushedAppend {
        self.count.fetch_add(1, Ordering::AcqRel);
        UnflushedAppend(self.clone())
    }

    async fn wait_none(&self) {
        loop {
            let notified = self.none.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One append under way; ends when dropped, also when the store forgets its callback.
struct UnflushedAppend(Arc<Unflushed>);

impl Drop for UnflushedAppend {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

/// The bytes of an entry as the commit log wants them.
fn new_entry(id: LogId, payload: Payload) -> NewEntry {
    let id = store_log_id(&id);
    match payload {
        Payload::Stored(stored) => NewEntry::Stored {
            raw: stored.entry.raw,
        },
        Payload::Proposal(p) => NewEntry::Fresh {
            id,
            kind: EntryKind::Data,
            command_len: p.command_len,
            body: p.body,
        },
        Payload::Blank => NewEntry::Fresh {
            id,
            kind: EntryKind::Blank,
            command_len: 0,
            body: BytesMut::new(),
        },
        Payload::Membership(m) => {
            let body = BytesMut::from(encode_membership(&m).as_slice());
            let command_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
            NewEntry::Fresh {
                id,
                kind: EntryKind::Membership,
                command_len,
                body,
            }
        }
    }
}

impl RaftLogStorage<Types> for LogStorage {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        let last_purged_log_id = self.log.purged().map(log_id);
        let last_log_id = self.log.last().map(log_id).or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader {
            log: self.log.clone(),
            state: self.state.clone(),
            vote: self.vote.clone(),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.unflushed.wait_none().await;
        let (keeper, vote) = (self.vote.clone(), *vote);
        blocking(move || keeper.change(|saved| saved.vote = Some(vote))).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => {
                self.log.set_committed(id.index);
                self.committed
                    .save(store_log_id(&id))
                    .map_err(io::Error::other)
            }
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // The mark is not flushed with the log: after a power cut it may name an entry the log
        // lost. It only saves waiting for the leader, so it counts only where it fits.
        let Some(mark) = self.committed.load().map_err(io::Error::other)? else {
            return Ok(None);
        };
        let (start, end) = clip(&self.log, &(mark.index..=mark.index));
        let there = read(&self.log, start, end, None)?;
        if there
            .first()
            .is_none_or(|e| RaftEntry::log_id(e) != log_id(mark))
        {
            return Ok(None);
        }
        self.log.set_committed(mark.index);
        Ok(Some(log_id(mark)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let under_way = self.unflushed.begin();
        let flushed = Box::new(move |result: io::Result<()>| {
            callback.io_completed(result);
            drop(under_way);
        });
        let entries = entries.into_iter().map(|entry| {
            let id = RaftEntry::log_id(&entry);
            new_entry(id, entry.payload)
        });
        self.log.append(entries, flushed).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.unflushed.wait_none().await;
        let log = self.log.clone();
        blocking(move || log.truncate_after(last.map(|id| id.index))).await
    }

    /// Removes the segments that hold nothing else. The entries that stay, as they share a segment
    /// with later ones, do no harm: openraft does not ask for them any more.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let log = self.log.clone();
        blocking(move || log.purge(upto.index)).await.map(drop)
    }
}

/// Runs something that waits for the disk on a thread of its own: the Raft runtime's few workers
/// also carry heartbeats.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> raftmq_store::Result<T> + Send + 'static,
) -> io::Result<T> {
    match crate::blocking::spawn_blocking(work).await {
        Ok(result) => result.map_err(io::Error::other),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The reading side; one for the apply task and one for each follower.
pub(crate) struct LogReader {
    log: CommitLog,
    state: Arc<State>,
    vote: Arc<VoteKeeper>,
}

/// Clips a range to what the log holds.
fn clip(log: &CommitLog, range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    (start.max(log.first_index()), end.min(log.next_index()))
}

fn read(log: &CommitLog, start: u64, end: u64, bytes_max: Option<u64>) -> io::Result<Vec<Entry>> {
    if start >= end {
        return Ok(Vec::new());
    }
    let stored = log.read(start, end, bytes_max).map_err(io::Error::other)?;
    stored.into_iter().map(entry).collect()
}

fn entry(stored: StoredEntry) -> io::Result<Entry> {
    Entry::stored(stored).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Appends the last id of each term of a range to `found`, given both ends of the range, by
/// bisection.
fn term_ends(
    first: LogId,
    last: LogId,
    found: &mut Vec<LogId>,
    id_at: &impl Fn(u64) -> io::Result<LogId>,
) -> io::Result<()> {
    let mut from = first;
    while from.leader_id != last.leader_id {
        // The last one of its term lies in `low..high`.
        let (mut low, mut high) = (from, last);
        while low.index + 1 < high.index {
            let middle = id_at(low.index + (high.index - low.index) / 2)?;
            if middle.leader_id == from.leader_id {
                low = middle;
            } else {
                high = middle;
            }
        }
        found.push(low);
        from = high;
    }
    found.push(last);
    Ok(())
}

impl RaftLogReader<Types> for LogReader {
    /// The state has noted them for what is applied. To find them in the log would cost a read of
    /// whole segments: the start of a member must not depend on how long its log is.
    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        let (mut first, last) = range.into_inner();
        let mut found = Vec::new();
        if let Some(applied) = self.state.applied()
            && (first.index..=last.index).contains(&applied.index)
        {
            let ends = self.state.term_ends().into_iter().map(log_id);
            found.extend(ends.filter(|end| end.index >= first.index));
            first = log_id(applied);
        }
        let id_at = |index| self.log.log_id(index).map(log_id).map_err(io::Error::other);
        term_ends(first, last, &mut found, &id_at)?;
        Ok(found)
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = clip(&self.log, &range);
        read(&self.log, start, end, None)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        match read(&self.log, start, end, Some(READ_BYTES_MAX)) {
            // A replication task goes on with what it had begun before the log was purged beyond it,
            // for a follower that was away. An error would end this member; nothing to send makes
            // it ask the follower, and find that it has to be seeded.
            Err(_) if start < self.log.first_index() => Ok(Vec::new()),
            read => read,
        }
    }

    /// Reads piece by piece: after a restart the range may be gigabytes.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl futures::Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (next, end) = clip(&self.log, &range);
        let state = (self.log.clone(), next, end, Vec::new().into_iter());
        stream::unfold(state, |(log, mut next, mut end, mut piece)| async move {
            loop {
                if let Some(entry) = piece.next() {
                    return Some((Ok(entry), (log, next, end, piece)));
                }
                match read(&log, next, end, Some(READ_BYTES_MAX)) {
                    Ok(entries) if entries.is_empty() => return None,
                    Ok(entries) => {
                        next += entries.len() as u64;
                        piece = entries.into_iter();
                    }
                    Err(error) => {
                        end = next;
                        return Some((Err(error), (log, next, end, piece)));
                    }
                }
            }
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote.vote())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CommittedLeaderId, Membership, Node, Proposal};
    use futures::StreamExt;
    use openraft::async_runtime::Oneshot;
    use raftmq_store::disk::{Disk, MemoryDisk};
    use raftmq_store::{LogOptions, Poison, StateOptions};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn open(disk: &MemoryDisk) -> LogStorage {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        shared.create_dir_all(Path::new("/store")).unwrap();
        let options = LogOptions {
            segment_bytes: 8 << 20,
            ..LogOptions::new("/store/commitlog")
        };
        let log = CommitLog::open(shared.clone(), options).unwrap();
        let vote = VoteFile::new(shared.clone(), "/store/vote", Poison::default());
        let committed = CommittedMark::open(&*shared, "/store/committed").unwrap();
        let vote = Arc::new(VoteKeeper::open(Arc::new(vote)).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), log.clone(), StateOptions::default()).unwrap();
        LogStorage::new(log, Arc::new(state), Arc::new(committed), vote)
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term), index)
    }

    fn command(len: usize) -> Payload {
        let body = BytesMut::zeroed(len);
        Payload::Proposal(Proposal {
            command_len: len as u32,
            body,
        })
    }

    async fn append(storage: &mut LogStorage, entries: Vec<(LogId, Payload)>) {
        let (done, flushed) = openraft_rt_tokio::TokioOneshot::channel();
        let entries = entries
            .into_iter()
            .map(|(id, payload)| Entry::new(id, payload));
        let flush = IOFlushed::signal(done);
        storage.append(entries, flush).await.unwrap();
        flushed.await.unwrap().unwrap();
    }

    /// As a plain look at each entry says, whether the state knows some of them, all or none.
    #[tokio::test]
    async fn last_entry_of_each_term() {
        for applied in [0, 1, 7, 12, 20] {
            let disk = MemoryDisk::new();
            let mut storage = open(&disk);
            let terms = [1, 1, 1, 2, 3, 3, 3, 3, 5, 5, 9, 9, 9, 9, 9, 9, 9, 9, 9, 10];
            let ids: Vec<_> = (0..)
                .zip(terms)
                .map(|(index, term)| id(term, index))
                .collect();
            append(
                &mut storage,
                ids.iter().map(|id| (*id, Payload::Blank)).collect(),
            )
            .await;
            if applied > 0 {
                let entries = storage.log.read(0, applied, None).unwrap();
                storage.state.apply(&entries).unwrap();
            }
            let mut reader = storage.get_log_reader().await;
            for first in 0..ids.len() {
                for last in first..ids.len() {
                    let range = &ids[first..=last];
                    let is_last = |nth: &usize| {
                        range
                            .get(nth + 1)
                            .is_none_or(|next| next.leader_id != range[*nth].leader_id)
                    };
                    let expected: Vec<_> = (0..range.len())
                        .filter(is_last)
                        .map(|nth| range[nth])
                        .collect();
                    let found = reader
                        .get_key_log_ids(ids[first]..=ids[last])
                        .await
                        .unwrap();
                    assert_eq!(found, expected, "{first}..={last}, {applied} applied");
                }
            }
        }
    }

    /// Every kind of entry comes back with its id and content, also after another start; the
    /// vote and the committed mark too.
    #[tokio::test]
    async fn everything_comes_back() {
        let disk = MemoryDisk::new();
        let node = Node::new("[::1]:40911");
        let membership = Membership::new(vec![[4].into()], BTreeMap::from([(4, node)])).unwrap();
        let mut storage = open(&disk);
        assert_eq!(storage.get_log_state().await.unwrap().last_log_id, None);
        let first = Payload::Membership(membership.clone());
        append(
            &mut storage,
            vec![(id(0, 0), first), (id(2, 1), Payload::Blank)],
        )
        .await;
        append(&mut storage, vec![(id(2, 2), command(100))]).await;
        storage.save_vote(&Vote::new_committed(2, 4)).await.unwrap();
        storage.vote.set_recovering(true).unwrap();
        storage.save_committed(Some(id(2, 1))).await.unwrap();
        drop(storage);

        let mut storage = open(&disk);
        assert_eq!(
            storage.get_log_state().await.unwrap().last_log_id,
            Some(id(2, 2))
        );
        assert_eq!(storage.read_committed().await.unwrap(), Some(id(2, 1)));
        assert!(storage.vote.recovering());
        let mut reader = storage.get_log_reader().await;
        assert_eq!(
            reader.read_vote().await.unwrap(),
            Some(Vote::new_committed(2, 4))
        );
        let entries = reader.try_get_log_entries(0..10).await.unwrap();
        let ids: Vec<LogId> = entries.iter().map(RaftEntry::log_id).collect();
        assert_eq!(ids, [id(0, 0), id(2, 1), id(2, 2)]);
        assert_eq!(entries[0].get_membership(), Some(membership));
        assert_eq!(entries[1].get_membership(), None);
        // Clearing the flag does not touch the vote.
        storage.vote.set_recovering(false).unwrap();
        assert_eq!(open(&disk).vote.vote(), Some(Vote::new_committed(2, 4)));
    }

    /// A tail that is cut off is gone, and a committed mark in it does not count any more.
    #[tokio::test]
    async fn truncation_and_a_mark_that_does_not_fit() {
        let disk = MemoryDisk::new();
        let mut storage = open(&disk);
        let entries = (0..5).map(|index| (id(1, index), Payload::Blank)).collect();
        append(&mut storage, entries).await;
        storage.truncate_after(Some(id(1, 1))).await.unwrap();
        assert_eq!(
            storage.get_log_state().await.unwrap().last_log_id,
            Some(id(1, 1))
        );
        append(&mut storage, vec![(id(3, 2), Payload::Blank)]).await;
        // As if written before a power cut that took the entry it names.
        storage.committed.save(store_log_id(&id(1, 2))).unwrap();
        assert_eq!(storage.read_committed().await.unwrap(), None);
        storage.committed.save(store_log_id(&id(3, 2))).unwrap();
        assert_eq!(storage.read_committed().await.unwrap(), Some(id(3, 2)));
        assert!(
            storage.truncate_after(Some(id(1, 0))).await.is_err(),
            "it is committed"
        );
        // All of it is in the segment that is written: nothing can go.
        storage.purge(id(1, 0)).await.unwrap();
        assert_eq!(
            storage.get_log_state().await.unwrap().last_purged_log_id,
            None
        );
    }

    /// Followers get bounded pieces, the apply task everything piece by piece.
    #[tokio::test]
    async fn reads_are_bounded() {
        let disk = MemoryDisk::new();
        let mut storage = open(&disk);
        let entries = (0..12)
            .map(|index| (id(1, index), command(1 << 20)))
            .collect();
        append(&mut storage, entries).await;
        let mut reader = storage.get_log_reader().await;
        assert_eq!(
            reader.limited_get_log_entries(0, 12).await.unwrap().len(),
            3
        );
        assert_eq!(
            reader.limited_get_log_entries(11, 12).await.unwrap().len(),
            1
        );
        let streamed: Vec<_> = reader.entries_stream(2..11).await.collect().await;
        let indexes: Vec<u64> = streamed
            .iter()
            .map(|entry| entry.as_ref().unwrap().log_id().index)
            .collect();
        assert_eq!(indexes, (2..11).collect::<Vec<u64>>());
    }
}

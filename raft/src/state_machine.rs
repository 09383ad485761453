//! openraft's state machine over the store's state.
//!
//! Applying touches memory only, in pieces small enough that the worker it runs on is free again
//! within a millisecond or so.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, RaftSnapshotBuilder, RaftStateMachine};
use raftmq_store::{State, StoredEntry};
use tokio::sync::watch;

use crate::encoding::decode_membership;
use crate::types::{
    EntryApplied, EntryResponder, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types,
    log_id,
};

/// Entries taken from the stream at once.
const PIECE_ENTRIES_MAX: usize = 64;
/// Bytes of entries applied before other tasks get their turn.
const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// Owned by openraft's apply task.
pub(crate) struct StateMachine {
    state: Arc<State>,
    /// Term of the last applied entry. A leader serves once this is its own term. The receivers
    /// also learn from it that the apply task has ended.
    applied_term: watch::Sender<u64>,
}

impl StateMachine {
    pub(crate) fn new(state: Arc<State>, applied_term: watch::Sender<u64>) -> Self {
        if let Some(applied) = state.applied() {
            applied_term.send_replace(applied.term);
        }
        StateMachine {
            state,
            applied_term,
        }
    }

    fn apply_piece(
        &self,
        entries: &[StoredEntry],
        responders: &mut Vec<Option<ApplyResponder<Types>>>,
    ) -> io::Result<()> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        let applied = self.state.apply(entries).map_err(io::Error::other)?;
        // The role task must see the new term no later than the proposer sees its entry applied.
        self.applied_term.send_if_modified(|term| {
            let changed = *term != last.id.term;
            *term = last.id.term;
            changed
        });
        for ((entry, applied), responder) in entries.iter().zip(applied).zip(responders.drain(..)) {
            if let Some(responder) = responder {
                responder.send(EntryApplied {
                    position: entry.position,
                    refused: applied.refused,
                });
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = ();
    type SnapshotBuilder = SnapshotName;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.state.applied().map(log_id);
        let membership = match self.state.membership() {
            None => StoredMembership::default(),
            Some((id, body)) => StoredMembership::new(
                Some(log_id(id)),
                decode_membership(&body)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
            ),
        };
        Ok((applied, membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder>> + Unpin + OptionalSend,
    {
        let mut pieces = entries.ready_chunks(PIECE_ENTRIES_MAX);
        let mut stored = Vec::with_capacity(PIECE_ENTRIES_MAX);
        let mut responders = Vec::with_capacity(PIECE_ENTRIES_MAX);
        while let Some(piece) = pieces.next().await {
            let mut bytes = 0;
            for item in piece {
                let (entry, responder) = item?;
                let Payload::Stored(payload) = entry.payload else {
                    return Err(io::Error::other(
                        "an entry to apply was not read from the log",
                    ));
                };
                bytes += payload.entry.raw.len();
                stored.push(payload.entry);
                responders.push(responder);
                if bytes >= PIECE_BYTES_MAX {
                    self.apply_piece(&stored, &mut responders)?;
                    stored.clear();
                    bytes = 0;
                    tokio::task::yield_now().await;
                }
            }
            self.apply_piece(&stored, &mut responders)?;
            stored.clear();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotName> {
        Some(SnapshotName(self.state.clone()))
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotName {
        SnapshotName(self.state.clone())
    }

    /// Never called: no member sends a snapshot, see [`crate::seed`].
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _snapshot: ()) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("snapshot {meta:?} came over the wire, members are seeded before they start"),
        ))
    }

    /// Asked for at a start, and by a leader with a member that needs what was removed from the log:
    /// to have none then would end it.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if let Some(named) = name_snapshot(&self.state)? {
            return Ok(Some(named));
        }
        // Members have changed since the state was made durable last; unless there never was one.
        if self.state.persisted().is_none() {
            return Ok(None);
        }
        SnapshotName(self.state.clone())
            .build_snapshot()
            .await
            .map(Some)
    }
}

/// "Builds" a snapshot: the state in the database is one at any time, so all there is to do is to
/// bring it up to date and to name its last entry.
pub(crate) struct SnapshotName(Arc<State>);

impl RaftSnapshotBuilder<Types> for SnapshotName {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let state = self.0.clone();
        let persisted = crate::blocking::spawn_blocking(move || match state.persist() {
            // What is durable already will do.
            Err(error) if error.is_no_space() => Ok(()),
            outcome => outcome,
        });
        persisted
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        match name_snapshot(&self.0)? {
            Some(named) => Ok(named),
            // With a full disk. What is sent is the request to be seeded, which has no members in it.
            None => snapshot_at(self.0.persisted().zip(self.0.membership()))?
                .ok_or_else(|| io::Error::other("nothing is applied yet")),
        }
    }
}

/// The snapshot that the database holds; `None` as long as nothing is in it.
fn name_snapshot(state: &State) -> io::Result<Option<Snapshot>> {
    // The membership is read first: one that is newer than the durable state would not belong to it.
    let membership = state.membership();
    let persisted = state.persisted();
    let both = persisted.zip(membership);
    snapshot_at(both.filter(|(last, (id, _))| id <= last))
}

fn snapshot_at(
    durable: Option<(raftmq_store::LogId, (raftmq_store::LogId, Vec<u8>))>,
) -> io::Result<Option<Snapshot>> {
    let Some((last, (id, body))) = durable else {
        return Ok(None);
    };
    let membership = decode_membership(&body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(Snapshot {
        meta: SnapshotMeta {
            last_log_id: Some(log_id(last)),
            last_membership: StoredMembership::new(Some(log_id(id)), membership),
        },
        snapshot: (),
    }))
}

//! Mending damage in the log with what other members have.
//!
//! An entry is proven by its neighbours: it carries the CRC of the one before and the one behind
//! carries its own. So any member's copy will do, also one that is not committed yet and also one
//! of a member that waits with damage of its own; nothing that does not fit between the sound
//! entries here is taken.
//!
//! Damage found at the start is mended before the Raft core runs, because openraft may need any
//! entry; damage found later is mended in the background, while reads of it are refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftmq_store::{Hole, Store};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::network::Network;
use crate::options::GroupOptions;
use crate::pb;

/// Pause between two rounds of questions.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a member that waits says so.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for one member's entries.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of entries taken for one hole.
const HOLE_BYTES_MAX: usize = 4 << 30;

/// Mends holes of one member's log.
pub(crate) struct Mender {
    pub(crate) options: GroupOptions,
    pub(crate) store: Store,
    pub(crate) network: Network,
}

/// What the others had for one hole.
enum Outcome {
    Mended { from: u64 },
    Missing(Missing),
}

/// How many of the other voters answered that they do not have what belongs into a hole either.
#[derive(Default)]
struct Missing {
    /// They never had it.
    lacking: usize,
    /// Their own copy is damaged there, and nothing says that it was ever flushed.
    unflushed: usize,
}

/// What a member has.
#[derive(Default)]
struct Fetched {
    entries: Vec<Bytes>,
    recovering: bool,
    /// Its own copy is damaged behind these entries.
    damaged: bool,
    /// None of what is damaged there is known to have been flushed.
    unflushed: bool,
}

impl Mender {
    /// Returns once the log has no holes. `before_start`: nothing was promised by this process
    /// yet, so an end that no quorum can have may be cut off.
    ///
    /// # Errors
    /// Why the store takes no writes any more, so that nothing can be mended.
    pub(crate) async fn run(&self, before_start: bool) -> Result<(), Arc<str>> {
        let mut told: Option<Instant> = None;
        loop {
            let holes = self.store.log.holes();
            if holes.is_empty() {
                return Ok(());
            }
            if let Some(reason) = self.store.poisoned() {
                return Err(reason);
            }
            for hole in &holes {
                match self.mend(hole).await {
                    Outcome::Mended { from } => {
                        tracing::warn!(group = %self.options.group, member = self.options.self_id,
                            file = %hole.path.display(), offset = hole.offset, from,
                            "damage in the log is mended");
                    }
                    Outcome::Missing(missing) => {
                        if before_start
                            && self.cannot_be_committed(hole, &missing)
                            && self.cut(hole)
                        {
                            break;
                        }
                        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                            told = Some(Instant::now());
                            tracing::error!(group = %self.options.group,
                                member = self.options.self_id, file = %hole.path.display(),
                                offset = hole.offset, flushed = hole.flushed, lacking = missing.lacking,
                                unflushed = missing.unflushed,
                                "damage in the log, and no other member has what belongs there (with \
                                raftVoteDespiteLoss=true the log is cut off there): {}",
                                hole.what);
                        }
                    }
                }
            }
            if !self.store.log.holes().is_empty() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn mend(&self, hole: &Hole) -> Outcome {
        let others = self.network.links.others();
        let voters = self.network.links.voters();
        let mut missing = Missing::default();
        for &peer in &others {
            let Some(fetched) = self.fetch(peer, hole.first_index, hole).await else {
                continue;
            };
            if self.repair(hole, fetched.entries).await {
                return Outcome::Mended { from: peer };
            }
            if voters.contains(&peer) && !fetched.recovering {
                missing.lacking += usize::from(!fetched.damaged);
                missing.unflushed += usize::from(fetched.damaged && fetched.unflushed);
            }
        }
        // None has all of it; together they may.
        let mut pieces = Vec::new();
        for &peer in &others {
            let next = hole.first_index + pieces.len() as u64;
            if let Some(fetched) = self.fetch(peer, next, hole).await {
                pieces.extend(fetched.entries);
            }
        }
        match others.last() {
            Some(&last) if self.repair(hole, pieces).await => Outcome::Mended { from: last },
            _ => Outcome::Missing(missing),
        }
    }

    /// Writes the entries, if they are all that is missing and fit.
    async fn repair(&self, hole: &Hole, entries: Vec<Bytes>) -> bool {
        if entries.len() as u64 != hole.next_index - hole.first_index {
            return false;
        }
        let (store, hole) = (self.store.clone(), hole.clone());
        let repaired = crate::blocking::spawn_blocking(move || store.log.repair(&hole, &entries));
        match repaired.await {
            Ok(Ok(left)) => left.is_none(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "these entries do not fit");
                false
            }
            Err(error) => {
                tracing::error!(%error, "mending failed");
                false
            }
        }
    }

    /// What a member has of a hole from the entry `first` on; `None` when it does not answer.
    async fn fetch(&self, member: u64, first: u64, hole: &Hole) -> Option<Fetched> {
        let link = self.network.bulk(member);
        let request = pb::FetchRequest {
            hello: Some(self.network.identity.hello(member)),
            first,
            next: hole.next_index,
        };
        let mut client = link.client().ok()?;
        let mut fetched = Fetched::default();
        let fetching = async {
            let mut replies = client.fetch_entries(request).await?.into_inner();
            let mut bytes = 0;
            while let Some(reply) = replies.message().await? {
                bytes += reply.entries.iter().map(Bytes::len).sum::<usize>();
                if bytes > HOLE_BYTES_MAX {
                    return Err(Status::out_of_range("too much at once"));
                }
                fetched.entries.extend(reply.entries);
                fetched.recovering = reply.recovering;
                fetched.unflushed |= reply.unflushed;
            }
            Ok(())
        };
        match tokio::time::timeout(FETCH_TIMEOUT, fetching).await {
            Ok(Ok(())) => Some(fetched),
            Ok(Err(status)) if status.code() == Code::DataLoss => {
                fetched.damaged = true;
                Some(fetched)
            }
            Ok(Err(_)) | Err(_) => {
                link.failed();
                None
            }
        }
    }

    /// Whether so many voters never had the entry that no quorum can, this one included; or all voters say that they do not
    /// have it and none that it was flushed, as after a power cut of all in the middle of a write, which leaves it on none and
    /// what follows it on some; or whether an operator gives up what was lost.
    fn cannot_be_committed(&self, hole: &Hole, missing: &Missing) -> bool {
        if self.options.vote_despite_loss {
            return true;
        }
        let voters = self.network.links.voters();
        let others = voters.iter().filter(|id| **id != self.options.self_id);
        let nobody_flushed = !hole.flushed && missing.lacking + missing.unflushed == others.count();
        nobody_flushed || voters.len().saturating_sub(missing.lacking) < voters.len() / 2 + 1
    }

    fn cut(&self, hole: &Hole) -> bool {
        match self.store.log.truncate_hole(hole) {
            Ok(()) => {
                tracing::warn!(group = %self.options.group, member = self.options.self_id,
                    file = %hole.path.display(), offset = hole.offset,
                    "the log is cut off at its damage: no quorum has what follows");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the log cannot be cut off at its damage");
                false
            }
        }
    }
}

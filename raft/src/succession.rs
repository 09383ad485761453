//! Standing for election as soon as the leader's process is known to be gone.
//!
//! A follower that hears nothing waits for the leader's lease and a random time more: nobody tells it
//! whether the leader is dead or slow. A process that ends is different, its connections end with it.
//! Whoever sees that stands for election when the lease is over, without the random time. It asks
//! first (pre-vote), so a connection that broke for another reason disturbs nobody: a leader that is
//! alive is heard of within the lease, by this member or by those it asks.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::network::Supply;
use crate::standing::Standing;
use crate::types::Raft;

/// Pause between two rounds of pre-votes: the lease of those that are asked may be younger.
const AGAIN: Duration = Duration::from_millis(20);
/// Each member waits this part of a lease for every one before it, so that they do not share the votes.
const TURNS: u32 = 6;

/// Held by whoever takes entries from a member; says when no more can come.
pub(crate) struct EndOfStream {
    pub(crate) from: u64,
    pub(crate) raft: Raft,
    pub(crate) tell: Arc<Notify>,
}

impl Drop for EndOfStream {
    fn drop(&mut self) {
        if leader(&self.raft) == Some(self.from) {
            self.tell.notify_one();
        }
    }
}

fn leader(raft: &Raft) -> Option<u64> {
    raft.server_metrics().borrow_watched().current_leader
}

/// What [`run`](Succession::run) works with.
pub(crate) struct Succession {
    pub(crate) self_id: u64,
    pub(crate) raft: Raft,
    /// The leader's lease.
    pub(crate) lease: Duration,
    /// When a leader was last heard.
    pub(crate) heard: Arc<Mutex<Instant>>,
    /// The leader's stream of entries has ended.
    pub(crate) stream_ended: Arc<Notify>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) removed: watch::Receiver<bool>,
    pub(crate) supply: Arc<Supply>,
}

impl Succession {
    /// Runs as long as the Raft core.
    pub(crate) async fn run(self) {
        loop {
            self.stream_ended.notified().await;
            let Some(gone) = leader(&self.raft).filter(|leader| *leader != self.self_id) else {
                continue;
            };
            let ended = Instant::now();
            while leader(&self.raft) == Some(gone) && self.may_stand() {
                let (heard, now) = (*self.heard.lock(), Instant::now());
                let due = heard + self.lease + self.turn(gone);
                // What it sent before it ended may come after that. Later than that it is alive; and
                // after another lease the ordinary time-out is due.
                if heard > ended + self.lease / 2 || now > due + self.lease {
                    break;
                }
                if now < due {
                    sleep_until(due).await;
                } else if self.raft.trigger().elect(true).await.is_ok() {
                    sleep(AGAIN).await;
                } else {
                    return;
                }
            }
        }
    }

    /// How long this member leaves it to others.
    fn turn(&self, gone: u64) -> Duration {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let before = metrics.membership_config.voter_ids();
        let before = before
            .filter(|id| *id != gone && *id < self.self_id)
            .count();
        self.lease / TURNS * u32::try_from(before).unwrap_or(TURNS)
    }

    /// An election that is asked for asks nobody whether this member may stand.
    fn may_stand(&self) -> bool {
        *self.standing.borrow() == Standing::Full
            && !*self.removed.borrow()
            && !self.supply.leaving()
            && !self.supply.in_trouble()
    }
}

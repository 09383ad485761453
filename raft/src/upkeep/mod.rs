//! What a member does for its own store beside serving: it gives up trimmed segments, looks for
//! damage, and watches its disk.

mod disk;
mod purge;
mod scrub;

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use raftmq_store::Store;
use tokio::sync::{Notify, watch};

use crate::mend::Mender;
use crate::network::Supply;
use crate::transfer::Transfer;
use crate::types::Raft;

pub use disk::DiskTrouble;
pub use scrub::ScrubStats;
pub(crate) use scrub::Scrubber;

/// What the tasks work with.
pub(crate) struct Upkeep {
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) supply: Arc<Supply>,
    pub(crate) mender: Mender,
    pub(crate) transfer: Arc<Transfer>,
    pub(crate) flush_stall_max: Duration,
}

impl Upkeep {
    /// Runs until the Raft core ends. `damaged` is notified when the log has a new hole.
    pub(crate) async fn run(self, damaged: Arc<Notify>, disk: watch::Sender<Option<DiskTrouble>>) {
        let mend = async {
            loop {
                damaged.notified().await;
                // A store that takes no writes ends the member, by other ways.
                let _poisoned = self.mender.run(false).await;
            }
        };
        tokio::select! {
            () = mend => {}
            () = async { tokio::join!(purge::run(&self), disk::watch(&self, disk)); } => {}
        }
    }

    fn stopped(&self) -> bool {
        self.raft.metrics().borrow_watched().running_state.is_err()
    }
}

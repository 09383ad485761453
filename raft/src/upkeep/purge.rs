//! Giving back the room of what was trimmed.
//!
//! A `TrimLog` in the log moves the state's `log_start`. Once the state is durable beyond it,
//! openraft is told of a snapshot that covers it (a name for the state as it is: nothing is copied)
//! and asked to purge; its purge removes the segments.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use raftmq_store::{Error, LogId};
use tokio::time::Instant;

use super::Upkeep;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long openraft may take to note a snapshot, and to purge.
const DONE_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks at that.
const POLL: Duration = Duration::from_millis(20);

/// Runs as long as the Raft core.
pub(super) async fn run(upkeep: &Upkeep) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if upkeep.stopped() {
            return;
        }
        match due(upkeep).await {
            Ok(Some(upto)) => purge(upkeep, upto).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the log's beginning is not removed yet"),
        }
    }
}

/// The entry to purge up to, once the state that does not need it is durable.
async fn due(upkeep: &Upkeep) -> Result<Option<LogId>, Error> {
    let store = upkeep.store.clone();
    if store.state.log_start() <= store.log.min_position() || upkeep.supply.holds_log() {
        return Ok(None);
    }
    let look = move || {
        let start = store.state.log_start();
        match store.state.persist() {
            // Room is what this is about to make.
            Err(error) if error.is_no_space() => {}
            outcome => outcome?,
        }
        let upto = store.log.last_before(start)?;
        Ok(upto.filter(|upto| store.state.persisted() >= Some(*upto)))
    };
    match crate::blocking::spawn_blocking(look).await {
        Ok(upto) => upto,
        Err(error) => {
            tracing::error!(%error, "a task failed");
            Ok(None)
        }
    }
}

async fn purge(upkeep: &Upkeep, upto: LogId) {
    let raft = &upkeep.raft;
    let metrics = raft.data_metrics();
    let noted = || {
        let metrics = metrics.borrow_watched();
        metrics.snapshot.is_some_and(|id| id.index >= upto.index)
    };
    if !noted() && (raft.trigger().snapshot().await.is_err() || !until(noted).await) {
        tracing::warn!(%upto, "no snapshot was noted: the log's beginning stays");
        return;
    }
    let before = upkeep.store.log.min_position();
    // openraft waits with it while a follower is being sent these entries.
    let purged = || upkeep.store.log.purged() >= Some(upto);
    if raft.trigger().purge_log(upto.index).await.is_ok() && until(purged).await {
        let now = upkeep.store.log.min_position();
        tracing::info!(group = %upkeep.mender.options.group, %upto, bytes = now - before,
            log_start = now, "removed the log's beginning");
    }
}

async fn until(done: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while !done() {
        if begin.elapsed() >= DONE_WITHIN {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

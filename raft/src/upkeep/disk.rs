//! Watching this member's disk: a leader without room, or whose flushes hang, hands over.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Upkeep;
use crate::transfer::TransferError;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time between two attempts to hand over.
const AGAIN: Duration = Duration::from_secs(5);

/// What is wrong with a member's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskTrouble {
    /// The commit log's file system has no room for more messages.
    Full,
    /// A flush has been under way for longer than `flushStallMax`.
    Stalled(Duration),
}

impl std::fmt::Display for DiskTrouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskTrouble::Full => f.write_str("its disk is full"),
            DiskTrouble::Stalled(time) => {
                write!(
                    f,
                    "its disk has not finished a flush for {} ms",
                    time.as_millis()
                )
            }
        }
    }
}

/// Runs as long as the Raft core.
pub(super) async fn watch(upkeep: &Upkeep, tell: watch::Sender<Option<DiskTrouble>>) {
    let mut tried: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if upkeep.stopped() {
            return;
        }
        let trouble = look(upkeep);
        upkeep.supply.set_disk_trouble(trouble.is_some());
        let kind = |trouble: &Option<DiskTrouble>| trouble.as_ref().map(std::mem::discriminant);
        tell.send_if_modified(|known| {
            let changed = kind(known) != kind(&trouble);
            *known = trouble;
            changed
        });
        match trouble {
            None => tried = None,
            Some(trouble)
                if tried.is_none_or(|at| at.elapsed() >= AGAIN)
                    && upkeep.transfer.role.borrow().serving =>
            {
                tried = Some(Instant::now());
                hand_over(upkeep, trouble).await;
            }
            Some(_) => {}
        }
    }
}

/// The flush that hangs need not end for this: the others commit without it.
async fn hand_over(upkeep: &Upkeep, trouble: DiskTrouble) {
    let group = &upkeep.mender.options.group;
    match upkeep.transfer.run(None).await {
        Ok(to) => tracing::warn!(%group, to, "handed over leadership: {trouble}"),
        Err(TransferError::NotLeader(_)) => {}
        Err(error) => {
            tracing::warn!(%group, %error, "leadership stays here, although {trouble}");
        }
    }
}

fn look(upkeep: &Upkeep) -> Option<DiskTrouble> {
    let log = &upkeep.store.log;
    if let Some(time) = log
        .flushing_for()
        .filter(|time| *time >= upkeep.flush_stall_max)
    {
        return Some(DiskTrouble::Stalled(time));
    }
    log.full().map(|_| DiskTrouble::Full)
}

//! Gives room back: looks at the disks and the age of the log now and then, and has the beginning
//! of the log given up.
//!
//! Each member watches its own disks. Only the leader proposes, so that all members give up the
//! same; a follower that wants room asks the leader for it. What may go is decided in
//! [`raftmq_store::retention`]; the files go once a member has applied and persisted the decision.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use raftmq_raft::Group;
use raftmq_store::disk::DiskSpace;
use raftmq_store::retention::{self, Disks, RetentionOptions, Round, SegmentAge, Trim};
use raftmq_store::{CommitLog, SegmentInfo, Store};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::retention::RetentionConfig;
use crate::time::{local_hour, now_ms};

/// Rounds that an operator's request lasts (RocketMQ: `MAX_MANUAL_DELETE_FILE_TIMES`).
const MANUAL_ROUNDS: u32 = 20;
/// No hour of the day: a follower asks for room only.
const NO_HOUR: u8 = u8::MAX;

/// Watches the disks of a member, and trims the log.
pub(crate) struct Retention {
    group: Group,
    config: RetentionConfig,
    manual_rounds: AtomicU32,
    last: Mutex<Option<LastTrim>>,
    /// Whether there was room to be won and nothing to win it from, which is told once.
    helpless: Mutex<bool>,
    /// Why nothing may be sent.
    full: Mutex<Option<Arc<str>>>,
}

/// The last time this member had the log trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastTrim {
    pub(crate) at_ms: i64,
    pub(crate) trim: Trim,
}

impl Retention {
    pub(crate) fn new(group: Group, config: RetentionConfig) -> Retention {
        Retention {
            group,
            config,
            manual_rounds: AtomicU32::new(0),
            last: Mutex::new(None),
            helpless: Mutex::new(false),
            full: Mutex::new(None),
        }
    }

    /// An operator wants expired segments to go at once, whatever the hour.
    pub(crate) fn start_manually(&self) {
        self.manual_rounds.store(MANUAL_ROUNDS, Ordering::Relaxed);
    }

    /// Rounds that are left of an operator's request, the one under way among them.
    pub(crate) fn manual_rounds(&self) -> u32 {
        self.manual_rounds.load(Ordering::Relaxed)
    }

    /// The last trim that this member brought about.
    pub(crate) fn last(&self) -> Option<LastTrim> {
        self.last.lock().clone()
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut ticks = interval(self.config.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let looking = Arc::clone(&self);
            // Asking the file system may take its time.
            match crate::runtime::spawn_blocking(move || looking.look()).await {
                Ok(Ok(look)) => {
                    let manual = look.manual;
                    self.act(look).await;
                    if manual {
                        take_one(&self.manual_rounds);
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "retention cannot look at the log"),
                Err(error) => tracing::warn!(%error, "retention cannot look at the log"),
            }
        }
    }

    /// What this member would give up now.
    fn look(&self) -> raftmq_store::Result<Look> {
        let store = self.group.store();
        let leads = self.group.role().borrow().serving;
        let now_ms = now_ms();
        let manual = leads && self.manual_rounds() > 0;
        let round = Round {
            now_ms,
            hour: if leads { local_hour(now_ms) } else { NO_HOUR },
            is_manual: manual,
            log_start: store.state.log_start(),
            keep_from: u64::MAX,
        };
        let disks = Disks {
            log: store.log.space().ok(),
            state: store.space().ok(),
        };
        self.tell_whether_full(full_text(store, &disks, &self.config.options));
        let segments = ages(&store.log)?;
        Ok(Look {
            leads,
            manual,
            trim: retention::plan(&segments, &round, &disks, &self.config.options),
            wants_room: retention::wants_room(&disks, &self.config.options),
        })
    }

    async fn act(&self, look: Look) {
        self.say_if_helpless(look.wants_room && look.trim.is_none());
        let Some(trim) = look.trim else {
            return;
        };
        tracing::info!(
            cause = ?trim.cause,
            position = trim.position(),
            segments = trim.ends.len(),
            bytes = trim.bytes,
            leads = look.leads,
            "the beginning of the log is to go"
        );
        // One by one: a file system that removes many large files at once makes everybody wait.
        for end in &trim.ends {
            // A follower's disk may be smaller, or hold more, than the leader's: the leader is asked.
            if let Err(error) = self.group.trim(*end).await {
                // The next round starts from what has been applied.
                tracing::info!(%error, position = end, "log not trimmed yet");
                return;
            }
            sleep(self.config.pause).await;
        }
        let at_ms = now_ms();
        *self.last.lock() = Some(LastTrim { at_ms, trim });
    }

    fn tell_whether_full(&self, why: Option<Arc<str>>) {
        let mut known = self.full.lock();
        match (&*known, &why) {
            (None, Some(why)) => tracing::error!("sends are refused: {why}"),
            (Some(_), None) => tracing::info!("the disk has room again, sends are accepted"),
            _ => {}
        }
        *known = why.clone();
        self.group.store().log.set_full(why);
    }

    fn say_if_helpless(&self, is_helpless: bool) {
        let before = std::mem::replace(&mut *self.helpless.lock(), is_helpless);
        if is_helpless && !before {
            tracing::warn!(
                "disk space will be full soon, and no segment of the log may go \
                 (fileReservedTime, diskMaxUsedSpaceRatio, cleanFileForciblyEnable)"
            );
        }
    }
}

struct Look {
    leads: bool,
    /// It is a round of an operator's request.
    manual: bool,
    trim: Option<Trim>,
    wants_room: bool,
}

/// The segments as the decision wants them.
fn ages(log: &CommitLog) -> raftmq_store::Result<Vec<SegmentAge>> {
    let age = |segment: SegmentInfo| SegmentAge {
        start: segment.position,
        bytes: segment.bytes,
        first_ms: segment.time_ms,
    };
    Ok(log.segments()?.into_iter().map(age).collect())
}

/// Why nothing may be sent, if a disk is fuller than `diskSpaceWarningLevelRatio`.
fn full_text(store: &Store, disks: &Disks, options: &RetentionOptions) -> Option<Arc<str>> {
    let log = (disks.log, "commit log", &*store.log.options().dir);
    let state = (disks.state, "store", store.root());
    let full = |(disk, what, folder): (Option<DiskSpace>, &str, &Path)| {
        let used = disk?.used_ratio();
        (used > options.warning).then(|| {
            format!(
                "the disk of the {what} {} is {:.1} % used, limit {:.0} % (diskSpaceWarningLevelRatio)",
                folder.display(),
                used * 100.0,
                options.warning * 100.0
            )
        })
    };
    full(log).or_else(|| full(state)).map(Arc::from)
}

/// Counts down to 0.
fn take_one(left: &AtomicU32) {
    let (order, load) = (Ordering::Relaxed, Ordering::Relaxed);
    // At 0 there is nothing to take.
    let _before = left.fetch_update(order, load, |left| left.checked_sub(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_lasts_its_rounds() {
        let left = AtomicU32::new(2);
        let counts = [(); 3].map(|()| {
            take_one(&left);
            left.load(Ordering::Relaxed)
        });
        assert_eq!(counts, [1, 0, 0]);
    }
}

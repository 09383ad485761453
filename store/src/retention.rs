//! Which segments of the commit log may go: RocketMQ's rules as a pure function. RocketMQ:
//! `DefaultMessageStore.CleanCommitLogService` and `MappedFileQueue.deleteExpiredFileByTime`.
//!
//! | when | what goes |
//! |---|---|
//! | the hour is one of `deleteWhen`, or an operator asks | expired segments |
//! | a disk is fuller than `diskMaxUsedSpaceRatio`, or its use is unknown | expired segments, at any hour |
//! | a disk is fuller than `diskSpaceCleanForciblyRatio` (or the warning ratio), and `cleanFileForciblyEnable` | the oldest segments, expired or not |
//! | a disk is fuller than `diskSpaceWarningLevelRatio` | and sends are refused: [`is_full`] |
//!
//! Segments go whole, oldest first without a gap, at most `deleteFileBatchMax` a round, and never
//! the last one. A young segment protects those behind it.
//!
//! Two things differ from the original. It takes a file's modification time as its age; a file that
//! was copied, or filled again from another member, would look young by that. Here the age is the
//! store time of the first record after the segment, which all members agree on: a segment stays at
//! most a record longer. And where the original removes a whole round of segments however little
//! room is missing, this stops as soon as the use is back at the ratio.

use std::time::Duration;

use crate::disk::DiskSpace;

/// When segments may go.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionOptions {
    /// `fileReservedTime`: how long a segment is kept after its last record.
    pub reserved: Duration,
    /// `deleteWhen`: hours of the local day, 0 to 23, in which expired segments go.
    pub hours: Vec<u8>,
    /// `diskMaxUsedSpaceRatio`, 0.10 to 0.95: above it expired segments go at any hour.
    pub used_max: f64,
    /// `diskSpaceCleanForciblyRatio`, 0.30 to 0.85: above it segments go before they expire.
    pub forcibly_above: f64,
    /// `diskSpaceWarningLevelRatio`, 0.35 to 0.90: above it nothing may be sent.
    pub warning: f64,
    /// `cleanFileForciblyEnable`: whether segments may go before they expire.
    pub may_force: bool,
    /// `deleteFileBatchMax`: most segments of one round.
    pub batch_max: usize,
}

impl Default for RetentionOptions {
    /// RocketMQ's defaults.
    fn default() -> Self {
        RetentionOptions {
            reserved: Duration::from_secs(72 * 3600),
            hours: vec![4],
            used_max: 0.75,
            forcibly_above: 0.85,
            warning: 0.90,
            may_force: true,
            batch_max: 10,
        }
    }
}

/// What has to be known of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentAge {
    /// Physical offset it starts at.
    pub start: u64,
    /// Bytes that its removal gives back.
    pub bytes: u64,
    /// Store time of its first record in ms since 1970; `None` while it has no record.
    pub first_ms: Option<i64>,
}

/// The file systems of a store; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disks {
    /// That of the commit log.
    pub log: Option<DiskSpace>,
    /// That of the state database; often the same.
    pub state: Option<DiskSpace>,
}

impl Disks {
    fn any(&self, is: impl Fn(Option<DiskSpace>) -> bool) -> bool {
        is(self.log) || is(self.state)
    }
}

/// The circumstances of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Ms since 1970.
    pub now_ms: i64,
    /// Hour of the local day, 0 to 23.
    pub hour: u8,
    /// An operator asks for expired segments to go now.
    pub is_manual: bool,
    /// Where the log begins by what is applied: segments below are given up already, and their room
    /// is counted as given back, even while their files are still there.
    pub log_start: u64,
    /// Physical offset of the first byte that something still needs; `u64::MAX` if nothing does.
    pub keep_from: u64,
}

/// Why segments go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `deleteWhen`.
    Hour,
    /// An operator.
    Manual,
    /// `diskMaxUsedSpaceRatio`.
    Space,
    /// `diskSpaceCleanForciblyRatio`: some of them have not expired.
    Forced,
}

/// What goes in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trim {
    /// Ends of the segments that go, oldest first, so that they can go one at a time; not empty.
    pub ends: Vec<u64>,
    /// Bytes that come back.
    pub bytes: u64,
    /// Why.
    pub cause: Cause,
}

impl Trim {
    /// Where the log is to begin.
    pub fn position(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// Decides what goes. `segments` are all that have a file, oldest first.
pub fn plan(
    segments: &[SegmentAge],
    round: &Round,
    disks: &Disks,
    options: &RetentionOptions,
) -> Option<Trim> {
    let ends = segments.iter().skip(1).map(|next| next.start);
    // The last segment has no end yet, so it is never among these.
    let (given_up, kept): (Vec<_>, Vec<_>) = segments
        .iter()
        .zip(ends)
        .partition(|(_, end)| *end <= round.log_start);
    let free: Vec<(&SegmentAge, u64)> = kept
        .into_iter()
        .take_while(|(_, end)| *end <= round.keep_from)
        .take(options.batch_max)
        .collect();
    let pending: u64 = given_up.iter().map(|(segment, _)| segment.bytes).sum();

    let cause = cause(round, disks, options);
    let expired = match cause {
        Some(_) => count_expired(segments, &free, round.now_ms, options.reserved),
        None => 0,
    };
    let forced = count_forced(&free, pending, disks, options);
    let cause = if forced > expired {
        Cause::Forced
    } else {
        cause?
    };
    let going = free.get(..forced.max(expired))?;
    if going.is_empty() {
        return None;
    }
    Some(Trim {
        ends: going.iter().map(|(_, end)| *end).collect(),
        bytes: going.iter().map(|(segment, _)| segment.bytes).sum(),
        cause,
    })
}

/// Whether sends must be refused for want of room.
pub fn is_full(disks: &Disks, options: &RetentionOptions) -> bool {
    disks.any(|disk| is_above(disk, options.warning))
}

/// Whether a disk is so full that segments ought to go whatever the hour.
pub fn wants_room(disks: &Disks, options: &RetentionOptions) -> bool {
    let limit = options.used_max.min(forced_limit(options));
    disks.any(|disk| disk.is_none() || is_above(disk, limit))
}

/// Why expired segments go in this round, if they do.
fn cause(round: &Round, disks: &Disks, options: &RetentionOptions) -> Option<Cause> {
    if wants_room(disks, options) {
        Some(Cause::Space)
    } else if round.is_manual {
        Some(Cause::Manual)
    } else {
        options.hours.contains(&round.hour).then_some(Cause::Hour)
    }
}

/// How many of the `free` segments have expired, without a gap from the oldest.
fn count_expired(
    segments: &[SegmentAge],
    free: &[(&SegmentAge, u64)],
    now_ms: i64,
    reserved: Duration,
) -> usize {
    let reserved_ms = i64::try_from(reserved.as_millis()).unwrap_or(i64::MAX);
    let is_expired = |(segment, end): &&(&SegmentAge, u64)| {
        // A segment between may have no record; without any record behind, the age is not known.
        let later = segments.iter().filter(|later| later.start >= *end);
        let next_ms = later.filter_map(|later| later.first_ms).next();
        // Leaders' clocks differ: whichever is later counts.
        next_ms.is_some_and(|next_ms| {
            let last_ms = next_ms.max(segment.first_ms.unwrap_or(i64::MIN));
            now_ms >= last_ms.saturating_add(reserved_ms)
        })
    };
    free.iter().take_while(is_expired).count()
}

/// How many of the `free` segments must go, expired or not, for the use to come down to the limit.
fn count_forced(
    free: &[(&SegmentAge, u64)],
    pending: u64,
    disks: &Disks,
    options: &RetentionOptions,
) -> usize {
    if !options.may_force {
        return 0;
    }
    let limit = forced_limit(options);
    if let Some(log) = disks.log.filter(|log| log.used_ratio() > limit) {
        let after = |freed: u64| DiskSpace {
            available: log.available.saturating_add(freed),
            ..log
        };
        let mut freed = pending;
        let still_full = |(segment, _): &&(&SegmentAge, u64)| {
            let still = after(freed).used_ratio() > limit;
            freed = freed.saturating_add(segment.bytes);
            still
        };
        return free.iter().take_while(still_full).count();
    }
    // What a segment's going frees in the state database shows afterwards only: one at a time.
    usize::from(pending == 0 && is_above(disks.state, limit)).min(free.len())
}

/// The warning ratio forces as well, should it be the lower one.
fn forced_limit(options: &RetentionOptions) -> f64 {
    options.forcibly_above.min(options.warning)
}

fn is_above(disk: Option<DiskSpace>, limit: f64) -> bool {
    disk.is_some_and(|disk| disk.used_ratio() > limit)
}

#[cfg(test)]
mod tests;

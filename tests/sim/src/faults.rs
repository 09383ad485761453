//! What goes wrong in a run. Each seed has its own mix: with everything at once, nothing would get
//! far enough to go wrong in an interesting way.

use crate::MEMBERS;
use crate::os::{MS, Nanos, SECOND};
use crate::random::Random;
use crate::run::Flaw;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kill,
    PowerCut,
    /// All members lose power at once.
    Blackout,
    /// Power is cut in the middle of a disk operation.
    StopInWrite,
    IoError,
    Stop,
    Transfer,
    /// One member is cut off from all others.
    Isolate,
    /// One direction between two members.
    OneWay,
    /// Both directions between two members.
    CutPair,
    SlowLink,
    SlowDisk,
    Pause,
    Clock,
}

const ALL: [Kind; 14] = [
    Kind::Kill,
    Kind::PowerCut,
    Kind::Blackout,
    Kind::StopInWrite,
    Kind::IoError,
    Kind::Stop,
    Kind::Transfer,
    Kind::Isolate,
    Kind::OneWay,
    Kind::CutPair,
    Kind::SlowLink,
    Kind::SlowDisk,
    Kind::Pause,
    Kind::Clock,
];

/// What a seed is made of.
#[derive(Debug)]
pub struct Plan {
    /// Faults happen in this time.
    pub trouble: Nanos,
    /// Mean time between two.
    pub every: Nanos,
    pub kinds: Vec<Kind>,
    /// Longest time until one is mended.
    pub mended: Nanos,
    pub latency: (Nanos, Nanos),
    pub loss_percent: u64,
    pub disk: (Nanos, Nanos),
    /// Faults are aimed at the leader so many times in a hundred.
    pub at_leader_percent: u64,
    /// Mean time between two cuts of the state.
    pub persist_every: Nanos,
    pub segment_bytes: u64,
    pub async_flush: bool,
    /// With one, more may be lost than is promised.
    pub flaw: Option<Flaw>,
    pub appends_in_flight: usize,
    pub entry_bytes_max: usize,
    /// Submissions that each client has under way.
    pub width: usize,
    pub think: Nanos,
    pub padding: u64,
}

impl Plan {
    pub fn new(random: &mut Random, flaw: Option<Flaw>) -> Plan {
        let mut kinds: Vec<Kind> = ALL.into_iter().filter(|_| random.percent(35)).collect();
        if kinds.is_empty() {
            kinds.push(*random.pick(&ALL));
        }
        let async_flush = random.percent(20) || flaw == Some(Flaw::Forgetful);
        if flaw.is_some_and(Flaw::is_in_members) {
            kinds.extend([Kind::PowerCut, Kind::Blackout]);
        } else if async_flush {
            // More than one member may then have forgotten what it acknowledged.
            kinds
                .retain(|kind| !matches!(kind, Kind::StopInWrite | Kind::IoError | Kind::Blackout));
            kinds.push(Kind::PowerCut);
        }
        let latency = *random.pick(&[
            (100_000, 400_000),
            (100_000, 3 * MS),
            (MS, 10 * MS),
            (5 * MS, 40 * MS),
        ]);
        let disk = *random.pick(&[(20_000, 200_000), (100_000, 2 * MS), (MS, 20 * MS)]);
        Plan {
            trouble: random.range(2, 8) * SECOND,
            every: random.range(100, 1500) * MS,
            kinds,
            mended: random.range(200, 3000) * MS,
            latency,
            loss_percent: *random.pick(&[0, 0, 1, 5]),
            disk,
            at_leader_percent: *random.pick(&[33, 60, 90]),
            persist_every: random.range(300, 3000) * MS,
            segment_bytes: *random.pick(&[16 << 10, 64 << 10, 256 << 10]),
            async_flush,
            flaw,
            appends_in_flight: random.range(1, 3) as usize,
            entry_bytes_max: *random.pick(&[2 << 10, 8 << 10, 1 << 20]),
            width: random.range(1, 6) as usize,
            think: random.range(2, 60) * MS,
            padding: *random.pick(&[50, 500, 4000]),
        }
    }
}

/// One of the other members.
pub fn other(random: &mut Random, not: usize) -> usize {
    (not + 1 + random.below(MEMBERS as u64 - 1) as usize) % MEMBERS
}

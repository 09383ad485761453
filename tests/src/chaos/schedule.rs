//! Which faults happen when, all of it from a seed: the same seed and wishes make the same schedule.
//!
//! A schedule says what is to happen to "the leader" and for how long; who that is shows when it happens. So a seed replays
//! what is done to a group, not what the group makes of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::subject::Replacement;

/// Kinds of faults, as the command line names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `kill -9` of one member.
    Kill,
    /// `kill -9` of two members at once: nobody can be acknowledged meanwhile.
    KillTwo,
    /// `kill -9` of all members at once.
    KillAll,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// One member is cut off from the others; clients still reach it.
    Partition,
    /// One member cannot hear the others, or they cannot hear it.
    OneWay,
    /// Two members do not see each other, and the third sees both: everybody sees a majority, no two the same.
    Ring,
    /// What a member and the others send each other arrives late.
    Slow,
    /// The connections between a member and the others are reset again and again.
    Reset,
    /// The connections between a member and the others stand and carry nothing.
    HalfOpen,
    /// A member's wall clock jumps, and later back.
    Clock,
    /// A member's disk, or everybody's, has no room.
    DiskFull,
    /// A member's flushes, or everybody's, take long.
    SlowFlush,
    /// A member leaves the group and another one comes in.
    Members,
    /// Leadership is handed over in order.
    Transfer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 15] = [
        Kind::Kill,
        Kind::KillTwo,
        Kind::KillAll,
        Kind::Pause,
        Kind::Partition,
        Kind::OneWay,
        Kind::Ring,
        Kind::Slow,
        Kind::Reset,
        Kind::HalfOpen,
        Kind::Clock,
        Kind::DiskFull,
        Kind::SlowFlush,
        Kind::Members,
        Kind::Transfer,
    ];

    /// As the command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::KillTwo => "kill-two",
            Kind::KillAll => "kill-all",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::OneWay => "one-way",
            Kind::Ring => "ring",
            Kind::Slow => "slow",
            Kind::Reset => "reset",
            Kind::HalfOpen => "half-open",
            Kind::Clock => "clock",
            Kind::DiskFull => "disk-full",
            Kind::SlowFlush => "slow-flush",
            Kind::Members => "members",
            Kind::Transfer => "transfer",
        }
    }

    /// Whether it needs the proxy on the links between members.
    pub fn needs_links(self) -> bool {
        matches!(self, Kind::Slow | Kind::Reset | Kind::HalfOpen)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Kind> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        let Some(kind) = found else {
            bail!(
                "'{text}' is no fault; allowed are {}",
                Kind::ALL.map(Kind::name).join(",")
            );
        };
        Ok(kind)
    }
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The one that leads when the fault begins.
    Leader,
    /// The first or second after the leader.
    Follower(usize),
    /// This one.
    Member(usize),
}

/// A fault with its choices made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// See [`Kind::Kill`].
    Kill(Who),
    /// See [`Kind::KillTwo`]: all but this one.
    KillTwo(Who),
    /// See [`Kind::KillAll`].
    KillAll,
    /// See [`Kind::Pause`].
    Pause(Who),
    /// See [`Kind::Partition`].
    Partition(Who),
    /// See [`Kind::OneWay`].
    OneWay {
        /// Whose network fails.
        who: Who,
        /// It does not hear; otherwise it is not heard.
        deaf: bool,
    },
    /// See [`Kind::Ring`]: the link between the leader and its first or second follower, or between the followers.
    Ring(usize),
    /// See [`Kind::Slow`].
    Slow {
        /// Whose links.
        who: Who,
        /// In each direction.
        delay: Duration,
    },
    /// See [`Kind::Reset`].
    Reset {
        /// Whose links.
        who: Who,
        /// Time between two resets.
        every: Duration,
    },
    /// See [`Kind::HalfOpen`].
    HalfOpen(Who),
    /// See [`Kind::Clock`].
    Clock {
        /// Whose.
        who: Who,
        /// Milliseconds; below zero it jumps back.
        ahead_ms: i64,
    },
    /// See [`Kind::DiskFull`]: one member's disk, or all.
    DiskFull(Option<Who>),
    /// See [`Kind::SlowFlush`].
    SlowFlush {
        /// Whose: one member's, or everybody's.
        who: Option<Who>,
        /// Each flush.
        takes: Duration,
    },
    /// See [`Kind::Members`].
    Members {
        /// Who leaves.
        who: Who,
        /// How.
        how: Replacement,
    },
    /// See [`Kind::Transfer`]: to the first or second after the leader.
    Transfer(usize),
}

impl Fault {
    /// Its kind.
    pub fn kind(self) -> Kind {
        match self {
            Fault::Kill(_) => Kind::Kill,
            Fault::KillTwo(_) => Kind::KillTwo,
            Fault::KillAll => Kind::KillAll,
            Fault::Pause(_) => Kind::Pause,
            Fault::Partition(_) => Kind::Partition,
            Fault::OneWay { .. } => Kind::OneWay,
            Fault::Ring(_) => Kind::Ring,
            Fault::Slow { .. } => Kind::Slow,
            Fault::Reset { .. } => Kind::Reset,
            Fault::HalfOpen(_) => Kind::HalfOpen,
            Fault::Clock { .. } => Kind::Clock,
            Fault::DiskFull(_) => Kind::DiskFull,
            Fault::SlowFlush { .. } => Kind::SlowFlush,
            Fault::Members { .. } => Kind::Members,
            Fault::Transfer(_) => Kind::Transfer,
        }
    }
}

/// A fault of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// After the beginning of the round.
    pub after: Duration,
    /// How long it lasts.
    pub lasting: Duration,
    /// What.
    pub fault: Fault,
}

/// Faults that overlap; before and after a round everything is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Nothing happens before.
    pub quiet: Duration,
    /// In the order in which they begin.
    pub faults: Vec<Planned>,
}

impl Round {
    /// Until the last fault has ended.
    pub fn length(&self) -> Duration {
        let ends = self.faults.iter().map(|one| one.after + one.lasting);
        self.quiet + ends.max().unwrap_or_default()
    }
}

/// What a schedule is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// All random choices follow from it.
    pub seed: u64,
    /// Which faults.
    pub kinds: Vec<Kind>,
    /// Two or three at a time; otherwise one at a time, and the kinds take turns.
    pub mixed: bool,
    /// Members of the group.
    pub members: usize,
}

/// Rounds without end; whoever runs it stops when the time is over.
#[derive(Debug, Clone)]
pub struct Schedule {
    wishes: Wishes,
    random: Random,
    /// The kinds whose turn is still to come.
    turns: Vec<Kind>,
}

impl Schedule {
    /// The schedule that follows from the wishes, of which at least one kind is expected.
    pub fn new(wishes: Wishes) -> Schedule {
        let random = Random(wishes.seed);
        Schedule {
            wishes,
            random,
            turns: Vec::new(),
        }
    }

    fn round(&mut self) -> Round {
        let quiet = self.random.ms(500, 1_500);
        let count = if self.wishes.mixed {
            2 + self.random.below(2)
        } else {
            1
        };
        let mut faults: Vec<Planned> = (0..count)
            .map(|_| {
                let kind = self.next_kind();
                let after = if self.wishes.mixed {
                    self.random.ms(0, 2_000)
                } else {
                    Duration::ZERO
                };
                let (fault, lasting) = self.fault(kind);
                Planned {
                    after,
                    lasting,
                    fault,
                }
            })
            .collect();
        faults.sort_by_key(|planned| planned.after);
        Round { quiet, faults }
    }

    /// Each kind has its turn before one has another.
    fn next_kind(&mut self) -> Kind {
        if self.turns.is_empty() {
            self.turns.clone_from(&self.wishes.kinds);
        }
        let at = self.random.below(self.turns.len());
        self.turns.swap_remove(at)
    }

    fn fault(&mut self, kind: Kind) -> (Fault, Duration) {
        let who = self.who();
        let random = &mut self.random;
        match kind {
            Kind::Kill => (Fault::Kill(who), random.ms(0, 3_000)),
            Kind::KillTwo => (Fault::KillTwo(who), random.ms(500, 2_500)),
            Kind::KillAll => (Fault::KillAll, random.ms(0, 1_000)),
            Kind::Pause => (Fault::Pause(who), random.ms(100, 4_000)),
            Kind::Partition => (Fault::Partition(who), random.ms(500, 4_000)),
            Kind::OneWay => {
                let deaf = random.below(2) == 0;
                (Fault::OneWay { who, deaf }, random.ms(500, 4_000))
            }
            Kind::Ring => (Fault::Ring(random.below(3)), random.ms(1_000, 4_000)),
            Kind::Slow => {
                let delay = random.ms(20, 400);
                (Fault::Slow { who, delay }, random.ms(1_000, 4_000))
            }
            Kind::Reset => {
                let every = random.ms(50, 800);
                (Fault::Reset { who, every }, random.ms(1_000, 3_000))
            }
            Kind::HalfOpen => (Fault::HalfOpen(who), random.ms(500, 4_000)),
            Kind::Clock => {
                let far = [300, 5_000, 90_000, 3_600_000, 36_000_000];
                let sign = if random.below(2) == 0 { 1 } else { -1 };
                let ahead_ms = sign * far[random.below(far.len())];
                (Fault::Clock { who, ahead_ms }, random.ms(500, 3_000))
            }
            Kind::DiskFull => {
                let one = random.below(3) > 0;
                let fault = Fault::DiskFull(one.then_some(who));
                (fault, random.ms(1_000, 4_000))
            }
            Kind::SlowFlush => {
                let takes = random.ms(20, 2_500);
                let who = (random.below(3) > 0).then_some(who);
                (Fault::SlowFlush { who, takes }, random.ms(1_000, 4_000))
            }
            Kind::Members => {
                let how = [Replacement::OneAfterTheOther, Replacement::InOneStep];
                let how = how[random.below(2)];
                (Fault::Members { who, how }, Duration::ZERO)
            }
            Kind::Transfer => {
                let to = 1 + random.below(self.wishes.members - 1);
                (Fault::Transfer(to), Duration::ZERO)
            }
        }
    }

    /// The leader in half of all cases.
    fn who(&mut self) -> Who {
        let others = self.wishes.members - 1;
        match self.random.below(4) {
            0 | 1 => Who::Leader,
            2 => Who::Follower(1 + self.random.below(others)),
            _ => Who::Member(self.random.below(self.wishes.members)),
        }
    }
}

impl Iterator for Schedule {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        Some(self.round())
    }
}

/// SplitMix64: every seed is a good one, also 0 and its neighbours.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let drawn = self.next() % end as u64;
        usize::try_from(drawn).expect("below a usize")
    }

    fn ms(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn wishes(seed: u64, mixed: bool) -> Wishes {
        Wishes {
            seed,
            kinds: Kind::ALL.to_vec(),
            mixed,
            members: 3,
        }
    }

    fn first(wishes: &Wishes, rounds: usize) -> Vec<Round> {
        Schedule::new(wishes.clone()).take(rounds).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule_and_another_one_another() {
        for mixed in [false, true] {
            let rounds = first(&wishes(7, mixed), 50);
            assert_eq!(rounds, first(&wishes(7, mixed), 50));
            assert_ne!(rounds, first(&wishes(8, mixed), 50));
        }
    }

    #[test]
    fn each_kind_has_its_turn() {
        let count = Kind::ALL.len();
        for rounds in first(&wishes(1, false), 4 * count).chunks(count) {
            let mut kinds: Vec<Kind> = rounds
                .iter()
                .flat_map(|round| round.faults.iter().map(|planned| planned.fault.kind()))
                .collect();
            kinds.sort_unstable();
            assert_eq!(kinds, Kind::ALL);
        }
    }

    #[test]
    fn mixed_rounds_have_several_faults_in_the_order_in_which_they_begin() {
        let mut counts = BTreeMap::new();
        for round in first(&wishes(1, true), 200) {
            *counts.entry(round.faults.len()).or_insert(0) += 1;
            let begins: Vec<_> = round.faults.iter().map(|planned| planned.after).collect();
            assert!(begins.is_sorted(), "{round:?}");
            assert!(round.length() < Duration::from_secs(10), "{round:?}");
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn kinds_are_found_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().expect("its own name"), kind);
        }
        let error = "flood".parse::<Kind>().expect_err("no fault").to_string();
        assert!(
            error.contains("'flood' is no fault; allowed are kill,"),
            "{error}"
        );
    }
}

//! A run: the group and its clients are started, rounds of faults go by, and everything is judged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::faults::{Ground, Lasting};
use super::group::{GROUP, GroupProgress};
use super::judge::{Findings, Stream, Work, judge};
use super::ordered::Ordered;
use super::schedule::{Kind, Planned, Round, Schedule, Wishes};
use super::topics::Topics;
use crate::calls;
use crate::clock::Nanos;
use crate::cluster::{Cluster, Options};
use crate::figures::{Series, ms, say};
use crate::history::{History, Outcome};
use crate::leadership::{Leadership, fixed};
use crate::linearizability;
use crate::link::Links;
use crate::network::Network;
use crate::original::Original;
use crate::registers::{self, Registers};
use crate::routes::{LATE, by_route};
use crate::subject::Subject;
use crate::tail::Tail;
use crate::wait::{pause, wait_ok};
use crate::wire::Connection;
use crate::workload::{Plan, Workload};

const MEMBERS: usize = 3;
/// The topic of the many producers, and of the consumer group.
const TOPIC: &str = "Chaos";
const QUEUES: i32 = 4;
/// The topic of the producers in order.
const ORDERED: &str = "ChaosOrdered";
const ORDERED_QUEUES: i32 = 2;
/// Time between a producer's acknowledgement and its next send.
const PACE: Duration = Duration::from_millis(15);

/// When everything is well again, all members take part and every producer goes on by then.
pub const RECOVERED_WITHIN: Duration = Duration::from_secs(30);
/// A group that needs longer than that is not waited for any more: all members are killed and started.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(90);

/// How much of a schedule is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// No round begins after so long.
    Time(Duration),
    /// So many rounds, whatever time they take.
    Rounds(usize),
}

impl Length {
    /// Most of the time of a round is the fault's.
    const ROUND: Duration = Duration::from_secs(8);

    /// About how long that is.
    fn time(self) -> Duration {
        match self {
            Length::Time(time) => time,
            Length::Rounds(count) => Length::ROUND * u32::try_from(count).unwrap_or(u32::MAX),
        }
    }

    fn is_over(self, rounds: usize, begin: Nanos) -> bool {
        match self {
            Length::Time(time) => begin.elapsed() >= time,
            Length::Rounds(count) => rounds >= count,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Length::Time(time) => write!(f, "--minutes {}", time.as_secs_f64() / 60.0),
            Length::Rounds(count) => write!(f, "--rounds {count}"),
        }
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The original's DLedger cluster instead of ours. It knows no change of members, and flushes past the library of faults.
    pub original: bool,
    /// What the schedule is made from.
    pub wishes: Wishes,
    /// For how long.
    pub length: Length,
}

impl fmt::Display for Wanted {
    /// The arguments that run it again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.wishes.kinds.iter().map(|kind| kind.name()).collect();
        let mixed = if self.wishes.mixed {
            "--mixed"
        } else {
            "--alone"
        };
        let (seed, names) = (self.wishes.seed, names.join(","));
        if self.original {
            f.write_str("--original ")?;
        }
        write!(f, "--seed {seed} {} {mixed} --faults {names}", self.length)
    }
}

/// What rounds with a kind of fault cost.
#[derive(Debug, Clone, Default)]
struct Cost {
    /// Longest time without an acknowledged send.
    silent: Series,
    /// From the end of the faults until every member takes part.
    members: Series,
    /// From there until every producer was acknowledged.
    producers: Series,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    rounds: usize,
    acked: usize,
    unknown: usize,
    refused: usize,
    /// The longest time without an acknowledged send.
    silent: Duration,
    costs: BTreeMap<Kind, Cost>,
    /// What is wrong.
    pub findings: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rounds; sends: {} acknowledged, {} unknown, {} refused; {} without an acknowledged send at most",
            self.rounds,
            self.acked,
            self.unknown,
            self.refused,
            ms(self.silent)
        )?;
        writeln!(
            f,
            "p50 / p99 / max in ms\n| fault | rounds | no acknowledged send | all members back | all producers on |\n|---|---|---|---|---|"
        )?;
        for (kind, cost) in &self.costs {
            let count = cost.silent.len();
            let [silent, members, producers] =
                [&cost.silent, &cost.members, &cost.producers].map(cell);
            writeln!(
                f,
                "| {kind} | {count} | {silent} | {members} | {producers} |"
            )?;
        }
        for finding in &self.findings {
            writeln!(f, "FINDING {finding}")?;
        }
        Ok(())
    }
}

fn cell(series: &Series) -> String {
    let of = |percent| {
        series
            .percentile(percent)
            .map_or(0, |time| time.as_millis())
    };
    format!("{} / {} / {}", of(50), of(99), of(100))
}

/// Runs it all. An error when it could not be judged; what is wrong otherwise is in the report.
pub fn run(wanted: &Wanted) -> Result<Report> {
    let mut wishes = wanted.wishes.clone();
    if wanted.original {
        let unknown = [Kind::Members, Kind::Transfer, Kind::SlowFlush];
        wishes.kinds.retain(|kind| !unknown.contains(kind));
    }
    ensure!(!wishes.kinds.is_empty(), "no fault is wanted");
    let mut run = Run::begin(wanted)?;
    let (schedule, begin) = (Schedule::new(wishes), Nanos::now());
    for round in schedule {
        if wanted.length.is_over(run.report.rounds, begin) {
            break;
        }
        if let Err(error) = run.round(&round, begin) {
            say(&run.report); // what is known so far
            return Err(error);
        }
    }
    run.finish(begin)
}

fn start(original: bool, options: Options) -> Result<Box<dyn Subject>> {
    if !original {
        return Ok(Box::new(Cluster::start(options)?));
    }
    let root = std::env::temp_dir().join(format!("raftmq-original-{}", std::process::id()));
    Ok(Box::new(Original::start(root, &options)?))
}

struct Run {
    ground: Ground,
    workload: Workload,
    history: History,
    tails: [Tail; 2],
    ordered: Ordered,
    group: GroupProgress,
    topics: Topics,
    registers: Registers,
    leadership: Leadership,
    findings: Findings,
    report: Report,
}

impl Run {
    fn begin(wanted: &Wanted) -> Result<Run> {
        let network = Network::new(MEMBERS)?;
        let kinds = &wanted.wishes.kinds;
        let minutes = wanted.length.time().as_secs() / 60 + 1;
        let disk_bytes = (512 << 20) + minutes * (256 << 20);
        let disk_bytes = kinds.contains(&Kind::DiskFull).then_some(disk_bytes);
        let options = Options {
            disk_bytes,
            faulty: true,
            log_bytes_max: 64 << 20,
            ..network.options()
        };
        // Nothing is trimmed, whatever clocks and disks do.
        let options = options
            .with("fileReservedTime", "720")
            .with("cleanFileForciblyEnable", "false")
            .with("diskMaxUsedSpaceRatio", "95");
        // Ours answer pulls from what they have applied, whoever leads; the original's followers are not asked.
        let own_reads = (!wanted.original).to_string();
        let options = options.with("slaveReadEnable", &own_reads);
        let mut subject = start(wanted.original, options)?;
        say(subject.name());
        subject.create_topic(TOPIC, QUEUES)?;
        subject.create_topic(ORDERED, ORDERED_QUEUES)?;
        let needs_links = kinds.iter().any(|kind| kind.needs_links());
        let links = needs_links.then(Links::new).transpose()?;
        let mut ground = Ground::new(subject, network, links, disk_bytes)?;

        let (addresses, history) = (ground.subject.addresses(), History::default());
        let plan = Plan {
            nameservers: ground.subject.nameserver_addresses(),
            addresses: addresses.clone(),
            topic: TOPIC.to_owned(),
            queues: QUEUES,
            client_producers: 4,
            plain_producers: 4,
            pace: PACE,
        };
        registers::prepare(&addresses[ground.subject.leader()?])?;
        let nameservers = plan.nameservers.split(';').map(str::to_owned).collect();
        let members = if wanted.original {
            by_route(nameservers) // those that do not lead neither forward nor know
        } else {
            fixed(addresses.clone())
        };
        let leadership = Leadership::watch(fixed(addresses.clone()));
        let plan_of_registers = registers::Plan {
            keys: 1,
            rivals: !wanted.original,
            ..registers::Plan::new(Arc::clone(&members))
        };
        let store = ground.subject.store(0);
        let folder = store.parent().context("a store in no folder")?;
        let registers = Registers::start(&plan_of_registers, &folder.join("registers.jsonl"))?;
        // The first pull of a group creates it; offsets of unknown groups are refused.
        let leader = ground.subject.leader()?;
        let mut connection = Connection::open(&addresses[leader])?;
        calls::pull(&mut connection, GROUP, TOPIC, 0, 0, Duration::ZERO)?;
        Ok(Run {
            workload: Workload::start(&plan, &history)?,
            tails: [
                Tail::start_through(&members, TOPIC, &[0; QUEUES as usize]),
                Tail::start_through(&members, ORDERED, &[0; ORDERED_QUEUES as usize]),
            ],
            ordered: Ordered::start(&addresses, ORDERED, ORDERED_QUEUES, PACE),
            group: GroupProgress::start(&members, TOPIC, QUEUES),
            topics: Topics::start(&members),
            registers,
            leadership,
            history,
            ground,
            findings: Findings::default(),
            report: Report::default(),
        })
    }

    fn round(&mut self, round: &Round, begin: Nanos) -> Result<()> {
        self.report.rounds += 1;
        let number = self.report.rounds;
        pause(round.quiet);
        let (started, sends) = (Nanos::now(), self.history.len());
        self.inflict(&round.faults, |planned| {
            say(format!(
                "{:7.1} s  round {number}: {:?} for {}",
                begin.elapsed().as_secs_f64(),
                planned.fault,
                ms(planned.lasting)
            ));
        })?;
        self.start_ended(number);
        self.ground.heal().context("heal")?;
        let healed = Nanos::now();
        let waited = self.wait_members(number);
        let members = match self.findings.note(&format!("round {number}"), waited) {
            Some(took) => took,
            None => {
                self.ground.restart_all()?;
                healed.elapsed()
            }
        };
        let waited = self.workload.wait_acked(healed, 0, GIVEN_UP_AFTER);
        let (_, last) = waited.context("wait for the producers")?;
        let producers = last.since(healed);
        if producers > RECOVERED_WITHIN {
            let late = anyhow::anyhow!("went on {} after the faults", ms(producers));
            self.findings
                .note(&format!("round {number}, producers"), Err::<(), _>(late));
        }
        let silent = self.longest_silence(sends, started);
        say(format!(
            "{:7.1} s  round {number}: {} without an acknowledged send; members back after {}, producers after {}",
            begin.elapsed().as_secs_f64(),
            ms(silent),
            ms(members),
            ms(producers)
        ));
        self.report.silent = self.report.silent.max(silent);
        let mut kinds: Vec<Kind> = round.faults.iter().map(|one| one.fault.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let cost = self.report.costs.entry(kind).or_default();
            cost.silent.add(silent);
            cost.members.add(members);
            cost.producers.add(producers);
        }
        Ok(())
    }

    /// Has the faults begin and end when they are due.
    fn inflict(&mut self, faults: &[Planned], mut tell: impl FnMut(&Planned)) -> Result<()> {
        let mut events: Vec<(Duration, bool, usize)> = Vec::new();
        for (index, planned) in faults.iter().enumerate() {
            events.push((planned.after, false, index));
            events.push((planned.after + planned.lasting, true, index));
        }
        events.sort_unstable();
        let begin = Nanos::now();
        let mut lasting: BTreeMap<usize, Lasting> = BTreeMap::new();
        for (due, ends, index) in events {
            let left = due.saturating_sub(begin.elapsed());
            self.ground.let_pass(left, lasting.values())?;
            let planned = &faults[index];
            if !ends {
                tell(planned);
                let begun = self.ground.begin(planned.fault);
                let begun = begun.with_context(|| format!("begin {:?}", planned.fault))?;
                lasting.insert(index, begun);
            } else if let Some(over) = lasting.remove(&index) {
                let ended = self.ground.end(&over);
                ended.with_context(|| format!("end {:?}", planned.fault))?;
            }
        }
        Ok(())
    }

    /// Starts members that ended by themselves.
    fn start_ended(&mut self, round: usize) {
        for member in 0..self.ground.subject.members() {
            if !self.ground.has_ended(member) {
                continue;
            }
            let again = self.ground.start_again(member);
            self.findings
                .note(&format!("round {round}, n{member}"), again);
        }
    }

    /// Waits until every member takes part again; how long that took.
    fn wait_members(&mut self, round: usize) -> Result<Duration> {
        let healed = Nanos::now();
        let step = Duration::from_millis(10);
        for member in 0..self.ground.subject.members() {
            let what = format!("n{member} to take part");
            wait_ok(&what, GIVEN_UP_AFTER, step, || {
                self.start_ended(round);
                self.ground.subject.require_taking_part(member)
            })?;
        }
        self.ground.forget_excuses();
        let took = healed.elapsed();
        if took > RECOVERED_WITHIN {
            let late = anyhow::anyhow!("took part {} after the faults", ms(took));
            self.findings
                .note(&format!("round {round}, members"), Err::<(), _>(late));
        }
        Ok(took)
    }

    /// The longest time without an acknowledgement since `started`, when there were so many `sends`.
    fn longest_silence(&self, sends: usize, started: Nanos) -> Duration {
        self.history.with(|all| {
            let recent = all.get(sends..).unwrap_or_default();
            let acked = recent.iter().filter(|send| send.ack().is_some());
            let mut times: Vec<Nanos> = acked.map(|send| send.finished).collect();
            times.push(started);
            times.sort_unstable();
            let gaps = times.windows(2).map(|pair| pair[1].since(pair[0]));
            gaps.max().unwrap_or_default()
        })
    }

    fn finish(mut self, begin: Nanos) -> Result<Report> {
        say(format!(
            "{:7.1} s  the faults are over, judging",
            begin.elapsed().as_secs_f64()
        ));
        self.workload.stop();
        let (ordered, topics, progress) =
            (self.ordered.stop(), self.topics.stop(), self.group.stop());
        say(format!("  {}", self.registers));
        let history = self.registers.stop()?;
        let routes = self.ground.routes.stop(self.leadership.reigns(), LATE);
        say(format!("  {routes}"));
        for complaint in routes.complaints {
            self.findings
                .note("routes", Err::<(), _>(anyhow::anyhow!("{complaint}")));
        }
        let judged = linearizability::check(&history);
        if let Some(Some(judged)) = self.findings.note("registers", judged) {
            say(format!("  registers are linearizable: {judged}"));
        }
        let subject = self.ground.subject.as_mut();
        subject.wait_serving()?;
        self.history.with(|sends| {
            for send in sends {
                match send.outcome {
                    Outcome::Acked(_) => self.report.acked += 1,
                    Outcome::Unknown(_) => self.report.unknown += 1,
                    Outcome::Refused(_) => self.report.refused += 1,
                }
            }
        });
        let [tail, ordered_tail] = self.tails;
        let work = Work {
            streams: vec![
                Stream {
                    topic: TOPIC.to_owned(),
                    queues: QUEUES,
                    history: self.history,
                    tail: Some(tail),
                    ordered: false,
                },
                Stream {
                    topic: ORDERED.to_owned(),
                    queues: ORDERED_QUEUES,
                    history: ordered,
                    tail: Some(ordered_tail),
                    ordered: true,
                },
            ],
            topics,
            progress,
        };
        judge(subject, work, &mut self.findings)?;
        self.report.findings = self.findings.list;
        if self.report.findings.is_empty() {
            subject.passed()?;
        }
        Ok(self.report)
    }
}

//! The loop: whoever has something to do runs until it waits; then time jumps to the next event.

mod life;
mod process;
mod traffic;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use raftmq_raft::{ProposeError, Stored};
use raftmq_store::CommitLog;
use raftmq_store::disk::{Disk, MemoryDisk, Open};

use process::Time;
pub use process::run;

use crate::MEMBERS;
use crate::faults::Plan;
use crate::history::{Check, EntryMark, History, QUEUES, Violation};
use crate::invariants::{
    dense_offsets, identical_segments, liveness, log_matching, no_acknowledged_loss,
};
use crate::member::{Member, Settings};
use crate::net::{DiskLatency, Link, Network};
use crate::os::{self, MS, Nanos, SECOND};
use crate::random::Random;
use crate::replay::{mark, replay};
use crate::run::Flaw;
use crate::workload::{CLIENTS, Client};

/// What happens at a time.
#[derive(Debug)]
enum Due {
    Flush {
        member: usize,
        life: u64,
    },
    Persist(usize),
    Start(usize),
    Send(usize),
    Retry {
        client: usize,
        number: u64,
    },
    Timeout {
        client: usize,
        number: u64,
        attempt: u64,
    },
    Offsets,
    Read,
    Fault,
    Mend(Mend),
    Heal,
}

#[derive(Debug)]
enum Mend {
    Link(usize, usize),
    Disk(usize),
    Resume(usize),
}

/// What members answer.
enum Said {
    Attempt(u64, Result<Stored, ProposeError>),
    Offsets([i64; QUEUES], Result<(), ProposeError>),
    Read(usize, [Option<u64>; QUEUES], [u64; QUEUES]),
    Stopped(usize, u64),
}

struct Simulation {
    trace: bool,
    digest: u64,
    plan: Plan,
    random: Random,
    network: Network,
    members: Vec<Member>,
    clients: Vec<Client>,
    agenda: BTreeMap<(Nanos, u64), Due>,
    sequence: u64,
    history: History,
    said: Arc<Mutex<Vec<Said>>>,
    healed: Option<Nanos>,
    /// Clients want nothing new stored.
    closing: bool,
    proof: Vec<u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl Simulation {
    fn new(random: &mut Random, trace: bool, flaw: Option<Flaw>) -> Simulation {
        let plan = Plan::new(&mut random.fork(), flaw);
        let link = Link {
            cut: false,
            latency: plan.latency,
            extra: 0,
            loss_percent: plan.loss_percent,
        };
        let disk = DiskLatency(plan.disk.0, plan.disk.1);
        let network = Network::new(random.fork(), link, disk);
        raftmq_raft::sim::install(network.clone());
        let settings = Settings {
            segment_bytes: plan.segment_bytes,
            async_flush: plan.async_flush,
            appends_in_flight: plan.appends_in_flight,
            entry_bytes_max: plan.entry_bytes_max,
            flaw,
        };
        let clients = (0..CLIENTS).map(|id| Client::new(id, random.fork()));
        Simulation {
            trace,
            digest: 0xCBF2_9CE4_8422_2325,
            clients: clients.collect(),
            plan,
            network,
            members: (0..MEMBERS).map(|id| Member::new(id, settings)).collect(),
            random: random.fork(),
            agenda: BTreeMap::new(),
            sequence: 0,
            history: History::default(),
            said: Arc::default(),
            healed: None,
            closing: false,
            proof: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Says what happens: the trace, and the fingerprint of the run.
    fn note(&mut self, what: fmt::Arguments<'_>) {
        let line = format!("{} {what}", Time(os::now()));
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        if self.trace {
            println!("{line}");
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn after(&mut self, delay: Nanos, due: Due) {
        self.sequence += 1;
        self.agenda.insert((os::now() + delay, self.sequence), due);
    }

    /// A time around a mean.
    fn around(&mut self, mean: Nanos) -> Nanos {
        self.random.range(mean / 4, mean * 7 / 4)
    }

    fn go(&mut self) -> Check {
        for member in 0..MEMBERS {
            let delay = self.random.below(200 * MS);
            self.after(delay, Due::Start(member));
            let delay = self.around(self.plan.persist_every);
            self.after(delay, Due::Persist(member));
        }
        for client in 0..CLIENTS {
            let delay = self.random.below(500 * MS);
            self.after(delay, Due::Send(client));
        }
        self.after(500 * MS, Due::Offsets);
        self.after(500 * MS, Due::Read);
        self.after(SECOND, Due::Fault);
        self.after(self.plan.trouble + SECOND, Due::Heal);
        loop {
            self.run_members()?;
            if self.is_done()? {
                return self.check_end();
            }
            let wakes = self.members.iter().filter(|member| !member.paused);
            let wakes = wakes.filter_map(|member| member.wakes);
            let agenda = self.agenda.keys().next().map(|(time, _)| *time);
            let next = wakes.chain(agenda).chain(self.network.next()).min();
            let next = next.expect("consumers always come back");
            os::set_now(next.max(os::now()));
            self.network.deliver();
            while let Some(((time, _), _)) = self.agenda.first_key_value()
                && *time <= os::now()
            {
                if let Some((_, due)) = self.agenda.pop_first() {
                    self.happen(due)?;
                }
            }
        }
    }

    /// Runs all members that have something to do, until none has.
    fn run_members(&mut self) -> Check {
        loop {
            let mut ready: BTreeSet<usize> = self.network.reached();
            let due = |member: &&Member| member.wakes.is_some_and(|wakes| wakes <= os::now());
            ready.extend(self.members.iter().filter(due).map(|member| member.id));
            let mut any = false;
            for id in ready {
                let member = &mut self.members[id];
                if member.paused {
                    // It looks when it goes on.
                    member.wakes = Some(os::now());
                    continue;
                }
                let Some(life) = &member.life else { continue };
                any = true;
                os::enter(id, member.skew);
                let idle = os::run_until_idle(&life.runtime);
                member.wakes = idle.map(|idle| os::now() + idle);
                self.look_at(id)?;
            }
            if !any {
                return Ok(());
            }
        }
    }

    /// `all`: from the first entry, not the newest ones only.
    fn check_logs(&self, all: bool) -> Check {
        let log = |member: &Member| Some((member.id, member.life.as_ref()?.store.log.clone()));
        let logs: Vec<_> = self.members.iter().filter_map(log).collect();
        log_matching::check(&logs, all, |member, log, index| {
            let forged = self.plan.flaw == Some(Flaw::Forged) && member == 0;
            let mark = mark(log, index)?;
            Ok(mark.map(|mark| EntryMark {
                crc: if forged { !mark.crc } else { mark.crc },
                ..mark
            }))
        })
    }

    fn happen(&mut self, due: Due) -> Check {
        match due {
            Due::Flush { member, life } => self.flush(member, life),
            Due::Persist(member) => self.persist(member),
            Due::Start(member) => self.start(member),
            Due::Send(client) => self.send_next(client),
            Due::Retry { client, number } => self.retry(client, number),
            Due::Timeout {
                client,
                number,
                attempt,
            } => self.time_out(client, number, attempt),
            Due::Offsets => {
                self.after(150 * MS, Due::Offsets);
                self.save_offsets()
            }
            Due::Read => {
                let delay = self.around(120 * MS);
                self.after(delay, Due::Read);
                self.read()
            }
            Due::Fault => {
                if self.healed.is_some() {
                    return Ok(());
                }
                let delay = self.around(self.plan.every);
                self.after(delay, Due::Fault);
                self.fault()
            }
            Due::Mend(mend) => {
                if self.healed.is_none() {
                    return self.mend(mend);
                }
                Ok(())
            }
            Due::Heal => self.heal(),
        }
    }

    /// True once everything got through and all members have caught up.
    fn is_done(&mut self) -> Result<bool, Violation> {
        let Some(healed) = self.healed else {
            return Ok(false);
        };
        if os::now() > healed + liveness::WITHIN {
            let members: Vec<String> = self
                .members
                .iter()
                .map(|member| match member.group() {
                    Some(group) => format!(
                        "n{}: {:?} {:?} recovering {}",
                        member.id,
                        *group.role().borrow(),
                        group.watermarks(),
                        group.recovering()
                    ),
                    None => format!("n{}: does not run", member.id),
                })
                .collect();
            let clients: Vec<String> = self
                .clients
                .iter()
                .zip(&self.proof)
                .map(|(it, proof)| format!("{}/{proof} open {:?}", it.acknowledged, it.open))
                .collect();
            liveness::broken(format!(
                "not in time: {}; clients {}",
                members.join("; "),
                clients.join("; ")
            ))?;
        }
        if !self.closing {
            let proven = |(it, proof): (&Client, &u64)| it.acknowledged >= *proof;
            self.closing = self.clients.iter().zip(&self.proof).all(proven);
        }
        let settled = |member: &Member| {
            let group = member.group()?;
            let marks = group.watermarks();
            let still = !group.recovering() && marks.applied == marks.last;
            still.then_some(marks.last)
        };
        let marks: Option<Vec<_>> = self.members.iter().map(settled).collect();
        let equal = marks.is_some_and(|marks| marks.windows(2).all(|two| two[0] == two[1]));
        Ok(self.closing && equal && self.clients.iter().all(|it| it.open.is_empty()))
    }

    fn check_end(&mut self) -> Check {
        self.note(format_args!("all is quiet"));
        self.check_logs(true)?;
        let mut equal = Vec::new();
        for member in &self.members {
            let Some(life) = &member.life else { continue };
            let (log, state) = (&life.store.log, &*life.store.state);
            let mut replay = replay(log)?;
            match self.plan.flaw {
                Some(Flaw::Gap) => drop(replay.queues[0].pop()),
                Some(Flaw::Lost) => drop(replay.places.pop_first()),
                Some(Flaw::Scribbled) if equal.is_empty() => scribble(&member.disk, log),
                _ => {}
            }
            dense_offsets::check(member.id, &replay, state)?;
            no_acknowledged_loss::check(&self.history, member.id, &replay, state)?;
            equal.push((member.id, &member.disk, log, state));
        }
        identical_segments::check(&equal)
    }
}

/// Writes into the blank end of a log's last segment.
fn scribble(disk: &MemoryDisk, log: &CommitLog) {
    let segment = log.options().segment_bytes;
    let start = log.end_position() / segment * segment;
    let path = log.options().dir.join(format!("{start:020}"));
    let file = disk.open(&path, Open::Existing).expect("the last segment");
    file.write_at(&[b"x"], segment - 1).expect("its last byte");
}

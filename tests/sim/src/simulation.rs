//! The loop: whoever has something to do runs until it waits; then time jumps to the next event.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use raftmq_proto::command::{OffsetRow, Op, SaveOffsets};
use raftmq_raft::{MessageSubmission, ProposeError, RoleState, Stored};
use raftmq_store::CommitLog;

use crate::MEMBERS;
use crate::faults::{Kind, Plan, other};
use crate::history::{Attempt, Check, GROUP, History, Outcome, QUEUES, TOPIC, Violation};
use crate::invariants::{
    dense_offsets, election_safety, identical_segments, leader_completeness, liveness,
    log_matching, no_acknowledged_loss, state_machine_order,
};
use crate::member::{DiskFault, Member, Settings};
use crate::net::{DiskLatency, Link, Network};
use crate::os::{self, MS, Nanos, SECOND};
use crate::random::Random;
use crate::replay::replay;
use crate::run::{Command, Flaw};
use crate::violation;
use crate::workload::{CLIENTS, Client, PATIENCE, is_refusal, records};

/// Acknowledgements that each client must get after everything is healed.
const PROOF: u64 = 3;
/// Time between two looks whether that is so.
const LOOK_EVERY: Nanos = 20 * MS;
/// Longest disk operation count until a disk fault happens.
const OPERATIONS_MAX: u64 = 60;

/// A task panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

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
    Look,
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

/// Runs a seed. Prints what is to be said about it.
pub fn run(command: &Command) -> ExitCode {
    let (seed, trace, flaw) = (command.seeds.start, command.trace, command.flaw);
    let base = ["/dev/shm", "/tmp"].into_iter().find(|dir| {
        let dir = std::path::Path::new(dir);
        tempfile::tempdir_in(dir).is_ok()
    });
    let folder = tempfile::tempdir_in(base.unwrap_or(".")).expect("a temporary folder");
    std::env::set_current_dir(folder.path()).expect("the temporary folder");
    std::panic::set_hook(Box::new(|info| {
        PANICKED.store(true, Ordering::Relaxed);
        println!("n{}: {info}", os::node() as i64);
    }));
    if trace {
        trace_members();
    }
    // A thread of its own: this one's hash maps have their keys already.
    let simulation = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || simulate(seed, trace, flaw));
    let failed = simulation.map(|thread| thread.join().unwrap_or(true));
    drop(std::io::stdout().flush());
    drop(folder);
    // Nothing of the members is needed any more; taking them down in order takes time.
    // SAFETY: ends the process.
    unsafe { libc::_exit(i32::from(failed.unwrap_or(true))) }
}

/// True when an invariant is broken.
fn simulate(seed: u64, trace: bool, flaw: Option<Flaw>) -> bool {
    let mut random = Random::new(seed);
    os::simulate(random.next());
    let mut simulation = Simulation::new(&mut random, trace, flaw);
    let outcome = simulation.go();
    let (delivered_digest, delivered) = simulation.network.digest();
    let failed = outcome.is_err();
    if let Err(Violation { invariant, what }) = outcome {
        println!("{:#?}", simulation.plan);
        println!(
            "seed {seed}: VIOLATION of {invariant} at {}: {what}",
            Time(os::now())
        );
    }
    let history = &simulation.history;
    simulation.counts.extend([
        ("entries", history.committed.len() as u64),
        ("terms", history.leaders.len() as u64),
        ("acknowledged", history.stored),
        ("refused", history.refused),
        ("unknown", history.unknown),
        ("reads", history.reads),
        ("virtual-ms", os::now() / MS),
        ("delivered", delivered),
    ]);
    let counts: Vec<String> = simulation
        .counts
        .iter()
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    println!(
        "seed {seed} {} {:016x}",
        counts.join(" "),
        simulation.digest ^ delivered_digest
    );
    // Its runtimes cannot be taken down when the thread-local parts of this thread are gone.
    std::mem::forget(simulation);
    failed
}

/// Has the members' own log printed, with virtual time.
fn trace_members() {
    struct Clock;
    impl tracing_subscriber::fmt::time::FormatTime for Clock {
        fn format_time(
            &self,
            out: &mut tracing_subscriber::fmt::format::Writer<'_>,
        ) -> fmt::Result {
            write!(out, "{} n{}", Time(os::now()), os::node() as i64)
        }
    }
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = format!("{},{filter}", raftmq_raft::LOG_FILTER);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Clock)
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stdout)
        .init();
}

/// Seconds.
struct Time(Nanos);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.6}", self.0 as f64 / SECOND as f64)
    }
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
            let Some(next) = next else {
                return liveness::broken("nothing is ever going to happen".to_owned());
            };
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

    /// After a member has run, or something was done to it.
    fn look_at(&mut self, id: usize) -> Check {
        if PANICKED.load(Ordering::Relaxed) {
            return liveness::broken(format!("n{id} panicked"));
        }
        let fault = self.members[id].fault.lock().take();
        match fault {
            Some(DiskFault::Stop) => {
                self.note(format_args!("n{id}: power is cut in the middle of a write"));
                self.count("torn-writes");
                return self.crash(id, true);
            }
            Some(DiskFault::Error) => {
                self.note(format_args!("n{id}: a disk operation fails"));
                self.count("io-errors");
                if let Some(life) = &mut self.members[id].life {
                    life.failing = true;
                }
            }
            None => {}
        }
        self.hear()?;
        let member = &mut self.members[id];
        let Some(life) = &mut member.life else {
            return Ok(());
        };
        if life.group.is_none() {
            let started = life.started.lock().take();
            match started {
                None => {}
                Some(Ok(group)) => life.group = Some(group),
                Some(Err(_)) if life.failing => {
                    return self.crash(id, false);
                }
                Some(Err(error)) => {
                    return liveness::broken(format!("n{id} does not start: {error}"));
                }
            }
        }
        let written = life.written.swap(false, Ordering::Relaxed);
        if written && !life.flush_due {
            life.flush_due = true;
            let due = Due::Flush {
                member: id,
                life: life.number,
            };
            let delay = if self.plan.async_flush {
                500 * MS
            } else {
                self.network.disk_latency(id)
            };
            self.after(delay, due);
        }
        self.look_at_group(id)
    }

    fn look_at_group(&mut self, id: usize) -> Check {
        let member = &mut self.members[id];
        let Some(life) = &mut member.life else {
            return Ok(());
        };
        let Some(group) = &life.group else {
            return Ok(());
        };
        let fatal = group.fatal().borrow().clone();
        if let Some(reason) = fatal {
            if life.failing {
                self.note(format_args!("n{id} ends: {reason}"));
                return self.crash(id, false);
            }
            if !life.stopping {
                return liveness::broken(format!("n{id} ended by itself: {reason}"));
            }
        }
        if let Some(reason) = group.restart_wanted().borrow().clone() {
            return liveness::broken(format!("n{id} wants to be started again: {reason}"));
        }
        let marks = group.watermarks();
        let log = &life.store.log;
        let role = *group.role().borrow();
        let applied = &mut life.applied;
        state_machine_order::check(&mut self.history, id, applied, log, &marks, role.term)?;
        election_safety::check(&mut self.history, id, &role)?;
        if life.role != Some((role.term, role.state)) {
            life.role = Some((role.term, role.state));
            let begins = role.state == RoleState::Leader;
            if begins {
                leader_completeness::check(&self.history, id, role.term, log)?;
            }
            self.note(format_args!(
                "n{id} is {:?} of term {} with {:?}, applied {:?}",
                role.state, role.term, marks.last, marks.applied
            ));
            if begins {
                log_matching::check(&self.logs(), false)?;
            }
        }
        Ok(())
    }

    fn logs(&self) -> Vec<(usize, CommitLog)> {
        let log = |member: &Member| Some((member.id, member.life.as_ref()?.store.log.clone()));
        self.members.iter().filter_map(log).collect()
    }

    /// Takes what the members have said.
    fn hear(&mut self) -> Check {
        let said = std::mem::take(&mut *self.said.lock());
        for said in said {
            match said {
                Said::Attempt(attempt, result) => self.answered(attempt, result)?,
                Said::Offsets(sent, result) => {
                    if result.is_ok() {
                        for (saved, sent) in self.history.saved_offset.iter_mut().zip(sent) {
                            *saved = (*saved).max(sent);
                        }
                    }
                }
                Said::Read(member, floor, next) => {
                    self.history.reads += 1;
                    no_acknowledged_loss::read(member, &floor, &next)?;
                }
                Said::Stopped(member, life) => {
                    let now = self.members[member].life.as_ref().map(|life| life.number);
                    if now == Some(life) {
                        self.note(format_args!("n{member} has stopped"));
                        self.crash(member, false)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, id: u64, result: Result<Stored, ProposeError>) -> Check {
        let attempt = &mut self.history.attempts[id as usize];
        if attempt.outcome.is_some() {
            return violation!(
                "no_acknowledged_loss",
                "attempt {id} was answered twice: {:?} and {result:?}",
                attempt.outcome
            );
        }
        let (client, number) = (attempt.client, attempt.number);
        let outcome = match result {
            Ok(stored) => Outcome::Stored(stored),
            Err(error) if is_refusal(&error) => Outcome::Refused(error),
            Err(_) => Outcome::Unknown,
        };
        attempt.outcome = Some(outcome.clone());
        match &outcome {
            Outcome::Stored(stored) => {
                self.history.stored += 1;
                no_acknowledged_loss::acknowledged(&mut self.history, id, stored)?;
            }
            Outcome::Refused(error) => {
                self.history.refused += 1;
                if let ProposeError::NotLeader {
                    leader: Some(leader),
                } = error
                {
                    self.clients[client].leader = *leader as usize;
                } else {
                    self.clients[client].leader =
                        self.clients[client].random.below(MEMBERS as u64) as usize;
                }
            }
            Outcome::Unknown => self.history.unknown += 1,
        }
        if matches!(outcome, Outcome::Stored(_)) {
            let it = &mut self.clients[client];
            it.acknowledged += 1;
            it.open.remove(&number);
        } else if self.clients[client].open.get(&number) == Some(&Some(id)) {
            self.clients[client].open.insert(number, None);
            let delay = self.clients[client].random.range(5 * MS, 100 * MS);
            self.after(delay, Due::Retry { client, number });
        }
        Ok(())
    }

    fn happen(&mut self, due: Due) -> Check {
        match due {
            Due::Flush { member, life } => self.flush(member, life),
            Due::Persist(member) => self.persist(member),
            Due::Start(member) => self.start(member),
            Due::Send(client) => {
                if self.closing {
                    return Ok(());
                }
                let delay = self.around(self.plan.think);
                self.after(delay, Due::Send(client));
                if self.clients[client].open.len() >= self.plan.width {
                    return Ok(());
                }
                let number = self.clients[client].next;
                self.clients[client].next += 1;
                self.send(client, number)
            }
            Due::Retry { client, number } => {
                if self.clients[client].open.get(&number) == Some(&None) {
                    return self.send(client, number);
                }
                Ok(())
            }
            Due::Timeout {
                client,
                number,
                attempt,
            } => {
                if self.clients[client].open.get(&number) == Some(&Some(attempt)) {
                    self.clients[client].leader =
                        self.clients[client].random.below(MEMBERS as u64) as usize;
                    return self.send(client, number);
                }
                Ok(())
            }
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
                    self.mend(mend);
                }
                Ok(())
            }
            Due::Heal => self.heal(),
            Due::Look => Ok(()),
        }
    }

    fn start(&mut self, id: usize) -> Check {
        if self.members[id].life.is_some() {
            return Ok(());
        }
        self.network.power_on(id);
        let started = self.members[id].start();
        self.note(format_args!(
            "n{id} starts: {:?}",
            started
                .as_ref()
                .map(|()| self.members[id].life.as_ref().map(|life| {
                    (
                        life.store.last_stop(),
                        life.store.log.last(),
                        life.store.state.applied(),
                    )
                }))
        ));
        if let Err(error) = started {
            let fault = self.members[id].fault.lock().take();
            match fault {
                Some(fault) => return self.crash(id, fault == DiskFault::Stop),
                None => return liveness::broken(format!("n{id} does not open: {error}")),
            }
        }
        self.look_at(id)
    }

    /// The process, or with `power` the machine, of a member ends; it comes back later.
    fn crash(&mut self, id: usize, power: bool) -> Check {
        self.network.crash(id, power);
        let mut random = self.random.fork();
        self.members[id].crash(power, &mut random);
        let delay = if self.healed.is_some() {
            100 * MS
        } else {
            self.random.range(20 * MS, self.plan.mended)
        };
        self.after(delay, Due::Start(id));
        self.hear()
    }

    fn flush(&mut self, id: usize, number: u64) -> Check {
        let member = &mut self.members[id];
        let Some(life) = member.life.as_mut().filter(|life| life.number == number) else {
            return Ok(());
        };
        life.flush_due = false;
        if member.paused {
            // The kernel goes on, but nobody is there to be told.
            life.flush_due = true;
            self.after(
                10 * MS,
                Due::Flush {
                    member: id,
                    life: number,
                },
            );
            return Ok(());
        }
        os::enter(id, member.skew);
        life.written.store(false, Ordering::Relaxed);
        drop(life.store.log.flush());
        member.wakes = Some(os::now());
        self.look_at(id)
    }

    fn persist(&mut self, id: usize) -> Check {
        let delay = self.around(self.plan.persist_every);
        self.after(delay, Due::Persist(id));
        let member = &mut self.members[id];
        let Some(life) = member.life.as_mut().filter(|_| !member.paused) else {
            return Ok(());
        };
        os::enter(id, member.skew);
        drop(life.store.state.persist());
        member.wakes = Some(os::now());
        self.look_at(id)
    }

    fn send(&mut self, client: usize, number: u64) -> Check {
        let id = self.history.attempts.len() as u64;
        let it = &mut self.clients[client];
        let (queue, count) = (it.queue, Client::count(number));
        let padding = it.random.below(self.plan.padding) as usize;
        it.open.insert(number, Some(id));
        if !self.members[it.leader].leads() {
            let leads = |member: &&Member| member.leads();
            let leaders: Vec<usize> = self.members.iter().filter(leads).map(|m| m.id).collect();
            it.leader = match leaders.as_slice() {
                [] => it.random.below(MEMBERS as u64) as usize,
                leaders => *it.random.pick(leaders),
            };
        }
        let target = it.leader;
        self.history.attempts.push(Attempt {
            client,
            number,
            queue,
            count,
            member: target,
            above: self.history.acknowledged[queue],
            outcome: None,
        });
        self.after(
            PATIENCE,
            Due::Timeout {
                client,
                number,
                attempt: id,
            },
        );
        let member = &mut self.members[target];
        let (Some(life), Some(group)) = (&member.life, member.group()) else {
            return Ok(());
        };
        os::enter(target, member.skew);
        let (alive, said) = (life.alive.clone(), self.said.clone());
        group.submit(MessageSubmission {
            topic: TOPIC.into(),
            queue_id: queue as i32,
            records: records(id, queue, count, padding),
            count,
            done: Box::new(move |result| {
                if alive.load(Ordering::Relaxed) {
                    said.lock().push(Said::Attempt(id, result));
                }
            }),
        });
        member.wakes = Some(os::now());
        self.hear()
    }

    fn save_offsets(&mut self) -> Check {
        let Some(leader) = self.members.iter().find(|member| member.leads()) else {
            return Ok(());
        };
        let id = leader.id;
        let mut rows = Vec::new();
        let mut sent = [0; QUEUES];
        for (queue, sent) in sent.iter_mut().enumerate() {
            let Some(acknowledged) = self.history.acknowledged[queue] else {
                continue;
            };
            *sent = acknowledged as i64 + 1;
            rows.push(OffsetRow {
                group: GROUP.to_owned(),
                topic: TOPIC.to_owned(),
                queue_id: queue as i32,
                offset: *sent,
                reset: false,
            });
            let highest = &mut self.history.sent_offset[queue];
            *highest = (*highest).max(*sent);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let said = self.said.clone();
        self.ask(id, move |group, alive| async move {
            let ops = vec![Op::SaveOffsets(SaveOffsets { rows })];
            let result = group.propose(ops).await;
            if alive.load(Ordering::Relaxed) {
                said.lock().push(Said::Offsets(sent, result));
            }
        });
        Ok(())
    }

    /// Somebody who believes to lead is asked to make sure and then to show what it has.
    fn read(&mut self) -> Check {
        let floor = self.history.acknowledged;
        let leaders: Vec<usize> = self
            .members
            .iter()
            .filter(|member| member.leads())
            .map(|member| member.id)
            .collect();
        for id in leaders {
            let said = self.said.clone();
            self.ask(id, move |group, alive| async move {
                if group.confirm_leadership().await.is_ok() && alive.load(Ordering::Relaxed) {
                    let state = &group.store().state;
                    let next = std::array::from_fn(|queue| state.next_offset(TOPIC, queue as i32));
                    said.lock().push(Said::Read(id, floor, next));
                }
            });
        }
        Ok(())
    }

    /// Has a member do something.
    fn ask<F>(&mut self, id: usize, what: impl FnOnce(raftmq_raft::Group, Arc<AtomicBool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let member = &mut self.members[id];
        let Some(life) = &member.life else { return };
        let Some(group) = &life.group else { return };
        life.runtime.spawn(what(group.clone(), life.alive.clone()));
        member.wakes = Some(os::now());
    }

    fn victim(&mut self) -> usize {
        let leader = self.members.iter().find(|member| member.leads());
        match leader.map(|member| member.id) {
            Some(leader) if self.random.percent(self.plan.at_leader_percent) => leader,
            _ => self.random.below(MEMBERS as u64) as usize,
        }
    }

    /// Whether a member may lose what it has not flushed, without more being lost than is promised:
    /// the others have all that they acknowledged.
    fn may_forget(&self, id: usize) -> bool {
        if !self.plan.async_flush || self.plan.careless {
            return true;
        }
        let is_sound = |member: &Member| {
            member
                .group()
                .is_some_and(|group| !group.recovering() && group.role().borrow().leader.is_some())
        };
        self.members.iter().all(is_sound) && self.members[id].life.is_some()
    }

    fn fault(&mut self) -> Check {
        let kind = *self.random.pick(&self.plan.kinds);
        let id = self.victim();
        let other = other(&mut self.random, id);
        let until = self.random.range(20 * MS, self.plan.mended);
        let is_up = self.members[id].life.is_some();
        match kind {
            Kind::Kill if is_up => {
                self.note(format_args!("n{id} is killed"));
                self.count("kills");
                self.crash(id, false)?;
            }
            Kind::PowerCut if is_up && self.may_forget(id) => {
                self.note(format_args!("n{id} loses power"));
                self.count("power-cuts");
                self.crash(id, true)?;
            }
            Kind::Blackout => {
                self.note(format_args!("all members lose power"));
                self.count("blackouts");
                for id in 0..MEMBERS {
                    if self.members[id].life.is_some() {
                        self.crash(id, true)?;
                    }
                }
            }
            Kind::StopInWrite | Kind::IoError => {
                let fault = match kind {
                    Kind::StopInWrite => DiskFault::Stop,
                    _ => DiskFault::Error,
                };
                let operations = self.random.below(OPERATIONS_MAX);
                *self.members[id].disk_fault.lock() = Some((operations, fault));
            }
            Kind::Stop if is_up => {
                let said = self.said.clone();
                let Some(life) = &mut self.members[id].life else {
                    return Ok(());
                };
                if life.group.is_none() || std::mem::replace(&mut life.stopping, true) {
                    return Ok(());
                }
                let number = life.number;
                self.note(format_args!("n{id} is asked to stop"));
                self.count("stops");
                self.ask(id, move |group, _| async move {
                    group.shutdown().await;
                    said.lock().push(Said::Stopped(id, number));
                });
            }
            Kind::Transfer => {
                self.count("transfers");
                self.ask(id, move |group, _| async move {
                    let outcome = group.transfer_leader(None).await;
                    tracing::info!(?outcome, "leadership was to be handed over");
                });
            }
            Kind::Isolate => {
                self.note(format_args!("n{id} is isolated"));
                self.count("partitions");
                for other in (0..MEMBERS).filter(|other| *other != id) {
                    self.cut(id, other, until);
                    self.cut(other, id, until);
                }
            }
            Kind::OneWay => {
                self.note(format_args!("n{id} does not reach n{other}"));
                self.count("partitions");
                self.cut(id, other, until);
            }
            Kind::CutPair => {
                self.note(format_args!("n{id} and n{other} do not reach each other"));
                self.count("partitions");
                self.cut(id, other, until);
                self.cut(other, id, until);
            }
            Kind::SlowLink => {
                let extra = self.random.range(10 * MS, 600 * MS);
                self.network.set_link(id, other, |link| link.extra = extra);
                self.after(until, Due::Mend(Mend::Link(id, other)));
            }
            Kind::SlowDisk => {
                let slow = self.random.range(20 * MS, 1500 * MS);
                self.network.set_disk(id, DiskLatency(slow / 4, slow));
                self.after(until, Due::Mend(Mend::Disk(id)));
            }
            Kind::Pause if is_up && !self.members[id].paused => {
                self.note(format_args!("n{id} is stopped for a while"));
                self.count("pauses");
                self.members[id].paused = true;
                self.after(until, Due::Mend(Mend::Resume(id)));
            }
            Kind::Clock => {
                let jump = self.random.below(60 * SECOND) as i64 - 30 * SECOND as i64;
                self.note(format_args!("n{id}: its clock is off by {jump} ns"));
                self.members[id].skew = jump;
            }
            _ => {}
        }
        log_matching::check(&self.logs(), false)
    }

    fn cut(&mut self, from: usize, to: usize, until: Nanos) {
        self.network.set_link(from, to, |link| link.cut = true);
        self.after(until, Due::Mend(Mend::Link(from, to)));
    }

    fn mend(&mut self, mend: Mend) {
        self.note(format_args!("mended: {mend:?}"));
        match mend {
            Mend::Link(from, to) => self.network.set_link(from, to, |link| {
                link.cut = false;
                link.extra = 0;
            }),
            Mend::Disk(id) => {
                let (low, high) = self.plan.disk;
                self.network.set_disk(id, DiskLatency(low, high));
            }
            Mend::Resume(id) => {
                let member = &mut self.members[id];
                if std::mem::replace(&mut member.paused, false) {
                    member.wakes = member.life.is_some().then(os::now);
                }
            }
        }
    }

    fn heal(&mut self) -> Check {
        self.note(format_args!("everything is healed"));
        for from in 0..MEMBERS {
            for to in (0..MEMBERS).filter(|to| *to != from) {
                self.mend(Mend::Link(from, to));
            }
            self.mend(Mend::Disk(from));
            self.mend(Mend::Resume(from));
            self.members[from].disk_fault.lock().take();
            if self.members[from].life.is_none() {
                let delay = self.random.below(300 * MS);
                self.after(delay, Due::Start(from));
            }
        }
        self.healed = Some(os::now());
        let proof = self.clients.iter().map(|it| it.acknowledged + PROOF);
        self.proof = proof.collect();
        self.after(LOOK_EVERY, Due::Look);
        Ok(())
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
        log_matching::check(&self.logs(), true)?;
        let mut equal = Vec::new();
        for member in &self.members {
            let Some(life) = &member.life else { continue };
            let (log, state) = (&life.store.log, &*life.store.state);
            let replay = replay(log)?;
            dense_offsets::check(member.id, &replay, state)?;
            no_acknowledged_loss::check(&self.history, member.id, &replay, state)?;
            equal.push((member.id, &member.disk, log, state));
        }
        identical_segments::check(&equal)
    }
}

//! The frame of every fault test: producers and consumers at work on a group, faults in between, then the judgement.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::calls;
use crate::checker::{self, Evidence};
use crate::clock::Nanos;
use crate::cluster::{Cluster, Options, leader_of};
use crate::figures::{Failover, ms, say};
use crate::foreign::{Foreign, Task};
use crate::golang;
use crate::group::consume_all;
use crate::history::{History, Send, since};
use crate::java;
use crate::network::Network;
use crate::preload::preload;
use crate::readback::{Contents, read_topic, read_topic_of};
use crate::segments::require_identical;
use crate::tail::Tail;
use crate::wait::{pause, wait_for, wait_ok};
use crate::wire::Connection;
use crate::workload::{
    GO_FIRST, JAVA_FIRST, PRELOAD_FIRST, Plan, Workload, acked_elsewhere, kind_of,
};

/// The topic of every trial.
pub const TOPIC: &str = "Trial";
/// Its queues.
pub const QUEUES: i32 = 4;

/// What needs a moment has come by then: a follower's last messages, and offsets that a consumer saves without waiting for an
/// answer, as clients mostly do.
const SOON: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Our client's producers.
    pub client_producers: u32,
    /// Plain producers, one attempt per message.
    pub plain_producers: u32,
    /// Whether a producer of the published Java client runs beside, where there is a JDK.
    pub java: bool,
    /// Whether a producer of the published Go client runs beside, where there is Go.
    pub go: bool,
    /// A fault of the leader lasts until the Java producer has gone on without it.
    pub stay_down: bool,
    /// How often it asks for the route; 30 s unless somebody sets it.
    pub java_poll: Duration,
    /// Small messages put into the store before anything else.
    pub preloaded: u32,
    /// Time between a producer's acknowledgement and its next send.
    pub pace: Duration,
}

impl Default for Load {
    fn default() -> Load {
        // More producers than queues, so that each queue has several.
        Load {
            client_producers: 4,
            plain_producers: 4,
            java: false,
            go: false,
            stay_down: false,
            java_poll: Duration::from_secs(30),
            preloaded: 0,
            pace: Duration::from_millis(2),
        }
    }
}

/// How the others lose their leader.
#[derive(Debug, Clone, Copy)]
pub enum Fault<'a> {
    /// `kill -9`; it is started again.
    Kill,
    /// SIGSTOP; it is woken again.
    Stop,
    /// Packets between it and the other members vanish, and clients reach everyone; the network is healed again.
    Cut(&'a Network),
}

/// The longest that a send took, for each kind of producer.
pub type Stall = BTreeMap<&'static str, Duration>;

/// A group under load.
#[derive(Debug)]
pub struct Trial {
    /// How many producers send, of all kinds.
    producers: usize,
    workload: Option<Workload>,
    java: Option<Foreign>,
    go: Option<Foreign>,
    tail: Option<Tail>,
    trims: bool,
    stay_down: bool,
    history: History,
    /// The group; faults are up to the test.
    pub cluster: Cluster,
}

impl Trial {
    /// Starts the group, the consumers that read along, and the producers.
    pub fn begin(options: Options, load: Load) -> Result<Trial> {
        // Consumers that read meanwhile, and the judgement, get what followers have themselves.
        let options = options.with("slaveReadEnable", "true");
        let mut cluster = Cluster::start(options)?;
        cluster.create_topic(TOPIC, QUEUES)?;
        cluster.wait_topic(TOPIC)?;
        let history = History::default();
        if load.preloaded > 0 {
            let started = Nanos::now();
            let leader = cluster.wait_leader()?;
            let address = cluster.members[leader].address();
            preload(&address, TOPIC, QUEUES, load.preloaded, &history)?;
            let time = started.elapsed().as_secs_f64();
            say(format!(
                "{} messages preloaded in {time:.1} s",
                history.acked()
            ));
        }
        let tail = Tail::start(&cluster.addresses(), TOPIC, QUEUES);
        let plan = Plan {
            nameservers: cluster.nameserver_addresses(),
            addresses: cluster.addresses(),
            topic: TOPIC.to_owned(),
            queues: QUEUES,
            client_producers: load.client_producers,
            plain_producers: load.plain_producers,
            pace: load.pace,
        };
        let task = |producer| Task {
            root: cluster.root(),
            nameservers: &plan.nameservers,
            topic: TOPIC,
            queue: QUEUES - 1,
            producer,
        };
        let java = match load.java {
            true => java::start(task(JAVA_FIRST), load.java_poll, &history)?,
            false => None,
        };
        let go = match load.go {
            true => golang::start(task(GO_FIRST), &history)?,
            false => None,
        };
        let workload = Workload::start(&plan, &history)?;
        let own = load.client_producers + load.plain_producers;
        let trial = Trial {
            producers: own as usize + usize::from(java.is_some()) + usize::from(go.is_some()),
            workload: Some(workload),
            java,
            go,
            tail: Some(tail),
            trims: false,
            stay_down: load.stay_down,
            history,
            cluster,
        };
        if trial.java.is_some() {
            let started = Nanos::now();
            trial.wait_java(started, None)?;
        }
        Ok(trial)
    }

    fn workload(&self) -> &Workload {
        self.workload
            .as_ref()
            .expect("the producers have not been stopped")
    }

    /// From now on the log may be trimmed; before, a queue that does not begin with 0 is an error.
    pub fn allow_trims(&mut self) {
        self.trims = true;
        if let Some(tail) = &self.tail {
            tail.allow_trims();
        }
    }

    /// What the producers did so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Lets everyone work for a while.
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        pause(time);
        self.cluster.require_running()
    }

    /// Waits until each of our client's producers has had a send acknowledged that ended after now.
    pub fn wait_progress(&mut self) -> Result<()> {
        // No member listens on port 0, so acknowledgements of all members count.
        self.workload()
            .wait_acked(Nanos::now(), 0, Duration::from_secs(30))
            .map(|_| ())
    }

    /// Waits until each producer, whoever's, has had a send acknowledged that ended after now, so that what was under way is
    /// in the history.
    pub fn wait_everybody(&self) -> Result<()> {
        let now = Nanos::now();
        wait_for(
            "an acknowledged send of every producer",
            Duration::from_secs(60),
            Duration::from_millis(10),
            || (self.history.acked_since(now).len() == self.producers).then_some(()),
        )
    }

    /// Reads everything through a member while everyone works: no message may be other than it was sent.
    pub fn require_intact(&self, member: usize) -> Result<()> {
        let contents = self.read(member)?;
        for (queue, held) in &contents.queues {
            let bad = held.messages.iter().find(|message| !message.intact);
            ensure!(bad.is_none(), "n{member} serves in queue {queue} {bad:?}");
        }
        Ok(())
    }

    /// `kill -9` of the leader, see [`Trial::lose_leader`].
    pub fn kill_leader(&mut self) -> Result<(usize, Failover)> {
        self.lose_leader(Fault::Kill)
    }

    /// A fault of the leader while everyone sends. Waits until another member leads and every producer goes on, takes the
    /// fault back and waits until everybody takes part again; returns who it was and what it cost.
    pub fn lose_leader(&mut self, fault: Fault<'_>) -> Result<(usize, Failover)> {
        let victim = self.cluster.wait_leader()?;
        self.cluster.wait_registered(victim)?;
        let port = self.cluster.members[victim].port;
        let gone = self.begin_fault(fault, victim)?;
        let mut failover = self.measure(gone, victim)?;
        if self.stay_down {
            failover.java_ack = self.java_ack(gone, port)?;
        }
        self.end_fault(fault, victim)?;
        if !self.stay_down {
            failover.java_ack = self.java_ack(gone, port)?;
        }
        Ok((victim, failover))
    }

    fn begin_fault(&mut self, fault: Fault<'_>, victim: usize) -> Result<Nanos> {
        let now = Nanos::now();
        match fault {
            Fault::Kill => return self.cluster.kill(victim),
            Fault::Stop => self.cluster.signal(victim, libc::SIGSTOP)?,
            Fault::Cut(network) => network.cut_off(victim)?,
        }
        Ok(now)
    }

    fn end_fault(&mut self, fault: Fault<'_>, victim: usize) -> Result<()> {
        match fault {
            Fault::Kill => self.cluster.start_member(victim)?,
            Fault::Stop => self.cluster.signal(victim, libc::SIGCONT)?,
            Fault::Cut(network) => network.heal()?,
        }
        self.cluster.wait_serving()
    }

    /// Makes a member the leader, by command.
    pub fn transfer_leader(&mut self, to: usize) -> Result<()> {
        self.cluster.transfer_leader(to)?;
        let leader = self.cluster.wait_leader()?;
        ensure!(
            leader == to,
            "n{to} was made the leader, and n{leader} leads"
        );
        Ok(())
    }

    /// Makes each member in turn the leader, has it end in order and starts it again.
    pub fn rolling_restart(&mut self) -> Result<()> {
        for member in 0..self.cluster.members.len() {
            self.transfer_leader(member)?;
            self.run_for(Duration::from_millis(500))?;
            self.cluster.terminate(member, Duration::from_secs(60))?;
            self.cluster.start_member(member)?;
            self.cluster.wait_serving()?;
        }
        Ok(())
    }

    /// The longest that sends took which were under way while something `planned` was done. An error if one failed.
    pub fn stall(&mut self, planned: impl FnOnce(&mut Trial) -> Result<()>) -> Result<Stall> {
        self.wait_everybody()?;
        let begun = Nanos::now();
        planned(self)?;
        let ended = Nanos::now();
        self.wait_everybody()?;
        self.history.with(|sends| {
            let meanwhile = since(sends, begun).filter(|send| send.started <= ended);
            require_acked(meanwhile.clone())?;
            let mut stall = Stall::new();
            for send in meanwhile {
                let longest = stall.entry(kind_of(send.key.producer)).or_default();
                *longest = send.finished.since(send.started).max(*longest);
            }
            Ok(stall)
        })
    }

    /// Measures how the group goes on without `victim`, which went at `gone`.
    pub fn measure(&self, gone: Nanos, victim: usize) -> Result<Failover> {
        let address = self.cluster.members[victim].address();
        // An address that follows leadership goes from the route with the one leader and comes back with the next.
        let mut gone_from_route = self.cluster.endpoint.is_none();
        let registered = wait_for(
            "a nameserver to name another leader",
            Duration::from_secs(30),
            Duration::from_millis(2),
            || {
                let members = self.cluster.registered(0).ok()?;
                let leader = leader_of(&members);
                gone_from_route |=
                    leader.is_none_or(|leader| Some(leader) != self.cluster.endpoint.as_deref());
                (gone_from_route && leader? != address).then(Nanos::now)
            },
        )?;
        let port = self.cluster.members[victim].port;
        let (first, last) = self
            .workload()
            .wait_acked(gone, port, Duration::from_secs(30))?;
        Ok(Failover {
            registered: registered.since(gone),
            first_ack: first.since(gone),
            all_acked: last.since(gone),
            java_ack: None,
        })
    }

    fn java_ack(&self, gone: Nanos, port: u16) -> Result<Option<Duration>> {
        match &self.java {
            Some(_) => Ok(Some(self.wait_java(gone, Some(port))?.since(gone))),
            None => Ok(None),
        }
    }

    /// When the Java producer was first acknowledged after `time` by another member than the one on port `not_from`.
    fn wait_java(&self, time: Nanos, not_from: Option<u16>) -> Result<Nanos> {
        // An unmodified client polls routes every 30 s.
        wait_for(
            "an acknowledged send of the Java producer",
            Duration::from_secs(60),
            Duration::from_millis(10),
            || {
                self.history.with(|sends| {
                    let acked = since(sends, time).filter(|send| {
                        (JAVA_FIRST..PRELOAD_FIRST).contains(&send.key.producer)
                            && acked_elsewhere(send, not_from)
                    });
                    acked.map(|send| send.finished).min()
                })
            },
        )
    }

    /// Stops the producers, but neither the consumers nor the members.
    fn stop_sending(&mut self) -> Result<()> {
        if let Some(workload) = self.workload.take() {
            workload.stop();
        }
        for foreign in [self.java.take(), self.go.take()].into_iter().flatten() {
            foreign.stop()?;
        }
        Ok(())
    }

    /// Requires that every send so far was acknowledged, whoever made it, and returns the longest that one took.
    pub fn require_all_acked(&self) -> Result<Duration> {
        self.history.with(|sends| {
            require_acked(sends.iter())?;
            // The first send of a Java producer is the first that its machine sees of much of its code.
            let mut times: Vec<_> = sends
                .iter()
                .filter(|send| send.key.seq > 0)
                .map(|send| (send.finished.since(send.started), send.key))
                .collect();
            times.sort_unstable_by(|one, other| other.cmp(one));
            let slowest = times.first().context("nothing was sent")?.0;
            let words = times.iter().take(5);
            let words: Vec<_> = words
                .map(|(time, key)| format!("{key} {}", ms(*time)))
                .collect();
            say(format!("the slowest sends: {}", words.join(", ")));
            Ok(slowest)
        })
    }

    /// Ends the producers, reads everything back through consumers, and judges; then once more after all members were
    /// killed and started again.
    pub fn finish(mut self) -> Result<()> {
        self.stop_sending()?;
        self.cluster.start_all()?;
        self.cluster.wait_serving()?;
        let contents = self.read_and_judge()?;
        let group = "HARNESS_PUSH";
        let (nameservers, count) = (self.cluster.nameserver_addresses(), contents.len());
        let within = Duration::from_secs(30) + Duration::from_micros(100) * u32::try_from(count)?;
        let started = Nanos::now();
        consume_all(&nameservers, group, TOPIC, &contents, within)?;
        say(format!(
            "a push group consumed {count} messages in {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        say(format!("{}", require_identical(&mut self.cluster)?));

        let kept = || self.require_progress_kept(group, &contents);
        wait_ok("the push group's offsets", SOON, STEP, kept)?;
        self.cluster.kill_all();
        self.cluster.start_all()?;
        self.cluster.wait_serving()?;
        let leader = self.cluster.wait_leader()?;
        let again = self.read(leader)?;
        ensure!(
            again == contents,
            "after a restart of all members the topic reads differently"
        );
        self.require_progress_kept(group, &contents)?;
        say(format!("{}", require_identical(&mut self.cluster)?));
        self.cluster.require_running()?;
        self.cluster.passed()
    }

    fn read(&self, member: usize) -> Result<Contents> {
        read_topic(&self.cluster.members[member].address(), TOPIC, QUEUES)
    }

    fn read_and_judge(&mut self) -> Result<Contents> {
        let leader = self.cluster.wait_leader()?;
        let there = ever_stored(&self.read(leader)?);
        let tail = self.tail.take().context("judged twice")?;
        let seen = wait_for(
            "the consumers that read along to reach the end",
            Duration::from_secs(60),
            Duration::from_millis(20),
            || (tail.seen() >= there).then_some(()),
        );
        let skipped = tail.skipped();
        let observed = tail.stop()?;
        // Read after the consumers ended, so that all they saw has to be there: a late attempt may have been stored meanwhile.
        let leader = self.cluster.wait_leader()?;
        let contents = self.read(leader)?;
        let verdict = self.history.with(|sends| {
            checker::check(Evidence {
                sends,
                contents: &contents,
                observed: &observed,
            })
        });
        verdict.require_clean()?;
        say(format!("{verdict}"));
        for (queue, held) in &contents.queues {
            let min = held.min;
            ensure!(self.trims || min == 0, "queue {queue} begins with {min}");
        }
        ensure!(
            verdict.trimmed_unread <= skipped,
            "{} acknowledged messages were trimmed unread, consumers were sent past {skipped}",
            verdict.trimmed_unread
        );
        seen?;
        let follower = (leader + 1) % self.cluster.members.len();
        let address = self.cluster.members[follower].address();
        let same = || {
            let read = read_topic_of(&address, TOPIC, QUEUES)?;
            ensure!(
                read == contents,
                "the topic reads differently through n{leader} (leader) and n{follower}"
            );
            Ok(())
        };
        // It may need a moment to have what the leader has.
        wait_ok("a follower to have the same", SOON, STEP, same)?;
        Ok(contents)
    }

    /// The push group has consumed everything and ended, so its saved offsets are at the end of every queue.
    fn require_progress_kept(&self, group: &str, contents: &Contents) -> Result<()> {
        // Whoever is asked has the leader answer.
        let mut connection = Connection::open(&self.cluster.members[0].address())?;
        for (queue, held) in &contents.queues {
            let saved = calls::query_offset(&mut connection, group, TOPIC, *queue)?;
            ensure!(
                saved == Some(held.max),
                "group {group} had consumed queue {queue} up to {}, and {saved:?} is saved",
                held.max
            );
        }
        Ok(())
    }
}

fn require_acked<'a>(sends: impl Iterator<Item = &'a Send> + Clone) -> Result<()> {
    let failed: Vec<_> = sends.clone().filter(|send| send.ack().is_none()).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} sends failed: {:?}",
        failed.len(),
        sends.count(),
        &failed[..failed.len().min(5)]
    );
    Ok(())
}

/// How many messages the queues have had, trimmed ones included.
fn ever_stored(contents: &Contents) -> usize {
    let each = contents
        .queues
        .values()
        .map(|queue| usize::try_from(queue.max).unwrap_or(0));
    each.sum()
}

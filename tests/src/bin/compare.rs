//! The same faults for our group and for the original's, with what clients got out of it: two columns of one table.
//!
//! ```text
//! compare ours --kills 5          kill -9 of the leader, then its wires cut (root), and the judgement
//! compare original --kills 5      the same for RocketMQ in DLedger mode
//! ```
//!
//! Nothing here fails because of what is found: it is told. Only what keeps the comparison from being made is an error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command, value_parser};
use raftmq_tests::checker::{self, Evidence};
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::figures::{Series, ms, say};
use raftmq_tests::history::History;
use raftmq_tests::leadership::{Leadership, fixed};
use raftmq_tests::linearizability;
use raftmq_tests::network::{self, Network};
use raftmq_tests::original::Original;
use raftmq_tests::readback::read_topic;
use raftmq_tests::registers::{self, Registers};
use raftmq_tests::routes::{LATE, RouteWatch, by_route};
use raftmq_tests::serial::turn;
use raftmq_tests::subject::Subject;
use raftmq_tests::tail::Tail;
use raftmq_tests::trial::{QUEUES, TOPIC};
use raftmq_tests::wait::{pause, wait_ok};
use raftmq_tests::workload::{Plan, Workload};

/// The original's election takes some ten seconds, and its members start as slowly.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the leader is cut off.
const CUT: Duration = Duration::from_secs(15);

fn main() -> Result<()> {
    let matches = command().get_matches();
    let _turn = turn()?;
    let kills = matches.get_one::<usize>("kills").copied().unwrap_or(5);
    let cut = !matches.get_flag("no-cut");
    linearizability::fetch();
    let network = if cut {
        network::enter().context("to cut networks one has to be root; --no-cut goes without")?;
        Some(Network::new(3)?)
    } else {
        None
    };
    let options = Options {
        // The workload of registers makes a member say much.
        log_bytes_max: 256 << 20,
        ..network
            .as_ref()
            .map_or_else(Options::default, Network::options)
    };
    let (name, _) = matches.subcommand().context("which one?")?;
    if name == "ours" {
        let mut cluster = Cluster::start(options)?;
        return Comparison::new(&mut cluster, true)?.run(kills, network.as_ref());
    }
    let root = std::env::temp_dir().join(format!("original-{}", std::process::id()));
    let mut original = Original::start(root, &options)?;
    Comparison::new(&mut original, false)?.run(kills, network.as_ref())
}

fn command() -> Command {
    Command::new("compare")
        .about("The same faults for our group and for the original's")
        .subcommand_required(true)
        .subcommand(Command::new("ours").about("Our group"))
        .subcommand(
            Command::new("original").about("RocketMQ in DLedger mode, from the published jars"),
        )
        .arg(
            Arg::new("kills")
                .long("kills")
                .global(true)
                .value_name("N")
                .value_parser(value_parser!(usize))
                .default_value("5")
                .help("How often to kill the leader"),
        )
        .arg(
            Arg::new("no-cut")
                .long("no-cut")
                .global(true)
                .action(ArgAction::SetTrue)
                .help("Cuts no network, so needs no root"),
        )
}

struct Comparison<'a> {
    subject: &'a mut dyn Subject,
    history: History,
    workload: Workload,
    tail: Tail,
    leadership: Leadership,
    routes: RouteWatch,
    registers: Registers,
}

impl<'a> Comparison<'a> {
    fn new(subject: &'a mut dyn Subject, ours: bool) -> Result<Comparison<'a>> {
        say(format!(
            "{} with {} members",
            subject.name(),
            subject.members()
        ));
        subject.create_topic(TOPIC, QUEUES)?;
        subject.create_topic(registers::TOPIC, 1)?;
        let addresses = subject.addresses();
        let leader = wait_leader(subject)?;
        registers::prepare(&addresses[leader])?;
        for member in 0..subject.members() {
            wait_ok(
                "every member to know the topic",
                PATIENCE,
                Duration::from_millis(100),
                || {
                    anyhow::ensure!(subject.has_topic(member, TOPIC)?, "n{member} does not");
                    Ok(())
                },
            )?;
        }
        let nameservers: Vec<String> = subject
            .nameserver_addresses()
            .split(';')
            .map(str::to_owned)
            .collect();
        let members = fixed(addresses.clone());
        let routes = RouteWatch::start(&nameservers, None);
        let leadership = Leadership::watch(members.clone());
        let plan = if ours {
            registers::Plan::new(members)
        } else {
            registers::Plan {
                rivals: false,
                ..registers::Plan::new(by_route(nameservers))
            }
        };
        let registers = Registers::start(&plan, &registers_file(ours))?;
        let history = History::default();
        let tail = Tail::start(&addresses, TOPIC, QUEUES);
        let plan = Plan {
            nameservers: subject.nameserver_addresses(),
            addresses,
            topic: TOPIC.to_owned(),
            queues: QUEUES,
            client_producers: 4,
            plain_producers: 4,
            pace: Duration::from_millis(5),
        };
        let workload = Workload::start(&plan, &history)?;
        Ok(Comparison {
            subject,
            history,
            workload,
            tail,
            leadership,
            routes,
            registers,
        })
    }

    fn run(mut self, kills: usize, network: Option<&Network>) -> Result<()> {
        let begun = Nanos::now();
        let mut first = Series::default();
        for number in 1..=kills {
            pause(Duration::from_secs(3));
            let (victim, acked) = self.kill_leader()?;
            say(format!(
                "kill {number}: leader n{victim}, first acknowledged send {}",
                ms(acked)
            ));
            first.add(acked);
        }
        say(format!(
            "kill -9 of the leader to the first acknowledged send: {first}"
        ));
        if let Some(network) = network {
            pause(Duration::from_secs(3));
            self.cut_leader(network)?;
        }
        pause(Duration::from_secs(3));
        self.judge(begun)
    }

    fn kill_leader(&mut self) -> Result<(usize, Duration)> {
        let victim = wait_leader(self.subject)?;
        let address = self.subject.addresses()[victim].clone();
        let port = port_of(&address)?;
        let killed = self.subject.kill(&[victim])?;
        self.routes.died(&address, killed);
        let (acked, _) = self.workload.wait_acked(killed, port, PATIENCE)?;
        self.routes.started(&address);
        self.subject.start_member(victim)?;
        self.subject.wait_serving()?;
        Ok((victim, acked.since(killed)))
    }

    /// The leader loses sight of both others for a while; clients reach everybody.
    fn cut_leader(&mut self, network: &Network) -> Result<()> {
        let leader = wait_leader(self.subject)?;
        let port = port_of(&self.subject.addresses()[leader])?;
        network.cut_off(leader)?;
        let cut = Nanos::now();
        let (acked, _) = self.workload.wait_acked(cut, port, PATIENCE)?;
        say(format!(
            "leader n{leader} cut off: first acknowledged send of another one {}",
            ms(acked.since(cut))
        ));
        pause(CUT.saturating_sub(cut.elapsed()));
        network.heal()?;
        let healed = Nanos::now();
        self.subject.wait_serving()?;
        say(format!(
            "everybody is back {} after the network",
            ms(healed.elapsed())
        ));
        Ok(())
    }

    fn judge(self, begun: Nanos) -> Result<()> {
        let Comparison {
            subject,
            history,
            workload,
            tail,
            leadership,
            routes,
            registers,
        } = self;
        say(&registers);
        let registers = registers.stop()?;
        workload.stop();
        let ended = Nanos::now();
        say(format!(
            "without an acknowledged send, of any producer: {}",
            silence(&history, begun, ended)
        ));
        subject.wait_serving()?;
        pause(Duration::from_secs(1)); // for the consumers that read along
        let (observed, complaints) = tail.stop_with_complaints();
        for complaint in complaints.iter().take(10) {
            say(format!("a consumer that read along complains: {complaint}"));
        }
        let leader = wait_leader(subject)?;
        for (member, address) in subject.addresses().iter().enumerate() {
            let part = if member == leader { " (leader)" } else { "" };
            let judged = read_topic(address, TOPIC, QUEUES).map(|contents| {
                history.with(|sends| {
                    checker::check(Evidence {
                        sends,
                        contents: &contents,
                        observed: &observed,
                    })
                })
            });
            match judged {
                Ok(verdict) => say(format!("messages through n{member}{part}: {verdict}")),
                Err(error) => say(format!(
                    "messages through n{member}{part}: not read: {error:#}"
                )),
            }
        }
        say(routes.stop(leadership.reigns(), LATE));
        tell_registers(&registers)?;
        say(format!(
            "the history of registers is {}",
            registers.display()
        ));
        subject.require_running()?;
        subject.passed()
    }
}

/// Kept when all else is removed.
fn registers_file(ours: bool) -> PathBuf {
    let name = if ours { "ours" } else { "original" };
    std::env::temp_dir().join(format!("registers-{name}.jsonl"))
}

fn tell_registers(history: &Path) -> Result<()> {
    match linearizability::check(history) {
        Ok(Some(judged)) => say(format!("registers are linearizable: {judged}")),
        Ok(None) => {}
        Err(error) => say(format!("registers: {error:#}")),
    }
    Ok(())
}

fn wait_leader(subject: &mut dyn Subject) -> Result<usize> {
    wait_ok(
        "a leader that stores",
        PATIENCE,
        Duration::from_millis(20),
        || subject.leader(),
    )
}

fn port_of(address: &str) -> Result<u16> {
    let (_, port) = address
        .rsplit_once(':')
        .context("an address without port")?;
    port.parse().context("the port of an address")
}

/// The times between one acknowledgement and the next that are longer than half a second, longest first, and their sum.
fn silence(history: &History, begun: Nanos, ended: Nanos) -> String {
    let mut acked: Vec<Nanos> = history.with(|sends| {
        let acked = sends.iter().filter(|send| send.ack().is_some());
        acked
            .map(|send| send.finished)
            .filter(|at| *at >= begun)
            .collect()
    });
    acked.push(ended);
    acked.sort_unstable();
    let mut last = begun;
    let mut gaps = Vec::new();
    for at in acked {
        gaps.push(at.since(last));
        last = at;
    }
    gaps.retain(|gap| *gap > Duration::from_millis(500));
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    let total: Duration = gaps.iter().sum();
    let each: Vec<String> = gaps.iter().take(12).map(|gap| ms(*gap)).collect();
    format!(
        "{} of {} in {} gaps: {}",
        ms(total),
        ms(ended.since(begun)),
        gaps.len(),
        each.join(", ")
    )
}

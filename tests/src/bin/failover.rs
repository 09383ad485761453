//! Figures of a group of three on this machine: failover, planned switches, cold start, memory.
//!
//! ```text
//! failover --kills 100 --load    kill -9 of the leader, again and again; a table of percentiles
//! failover --fault stop          the same with SIGSTOP, until another leads; `cut`: its wires to the others are cut (root)
//! failover --java --stay-down --leader-endpoint
//!                                the same, with the published Java client, over one address that follows leadership
//! failover --transfers 100       leadership is handed over by command; the slowest send of each time, none may fail
//! failover --rolling 10 --java --go
//!                                rolling restarts of all members; the slowest send of each, none may fail
//! failover coldstart             start of three members and a nameserver until they serve; idle memory
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options, conf_argument};
use raftmq_tests::figures::{Failovers, Series, Stalls, ms, say};
use raftmq_tests::network::{self, Network};
use raftmq_tests::process::Process;
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Fault, Load, Trial};
use raftmq_tests::wait::pause;
use raftmq_tests::{golang, java};

fn main() -> Result<()> {
    let matches = command().get_matches();
    if let Some(("coldstart", matches)) = matches.subcommand() {
        let _turn = turn()?;
        return cold_start(count(matches, "rounds"), matches.get_flag("async-flush"));
    }
    let fault = matches
        .get_one::<String>("fault")
        .map_or("", String::as_str);
    let endpoint = matches.get_flag("leader-endpoint");
    ensure!(
        !endpoint || fault == "kill",
        "--fault {fault} --leader-endpoint: a member that is frozen or cut off stays registered with the address that \
         the next leader has, too, so nobody can tell since when that one is"
    );
    if fault == "cut" {
        if matches.get_flag("java") {
            java::fetch();
        }
        if matches.get_flag("go") {
            golang::fetch();
        }
        // Before there is any thread.
        network::enter().context("enter a network namespace (this needs root)")?;
    }
    let _turn = turn()?;
    let load = load(&matches);
    let begin = |options: Options| {
        let options = Options {
            leader_endpoint: endpoint,
            ..with_large_segments(options, matches.get_flag("async-flush"))
        };
        Trial::begin(options.with_arguments(&matches)?, load)
    };
    let (transfers, rolling) = (count(&matches, "transfers"), count(&matches, "rolling"));
    if transfers + rolling > 0 {
        // Members that stop forward a second longer than routes may be old, which is so by default, too.
        let oldest = match (load.go, load.java) {
            (true, _) => Duration::from_secs(30),
            (false, true) => load.java_poll,
            (false, false) => Duration::from_secs(1), // ours ask when something fails
        };
        let forward = oldest + Duration::from_secs(1);
        let forward = forward.as_millis().to_string();
        let options = Options::default().with("shutdownForwardMs", &forward);
        return switch(begin(options)?, transfers, rolling);
    }
    let kills = count(&matches, "kills");
    if fault == "cut" {
        let network = Network::new(3)?;
        return fail_over(begin(network.options())?, kills, Fault::Cut(&network));
    }
    let fault = match fault {
        "stop" => Fault::Stop,
        _ => Fault::Kill,
    };
    fail_over(begin(Options::default())?, kills, fault)
}

fn count(matches: &ArgMatches, name: &str) -> usize {
    matches.get_one(name).copied().unwrap_or_default()
}

fn load(matches: &ArgMatches) -> Load {
    let load = if matches.get_flag("load") {
        Load {
            client_producers: 16,
            plain_producers: 8,
            pace: Duration::ZERO,
            ..Load::default()
        }
    } else {
        Load::default()
    };
    let poll = matches.get_one::<u64>("java-poll").copied();
    Load {
        java: matches.get_flag("java"),
        java_poll: poll.map_or(load.java_poll, Duration::from_secs),
        go: matches.get_flag("go"),
        stay_down: matches.get_flag("stay-down"),
        ..load
    }
}

fn command() -> Command {
    let count = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(value_parser!(usize))
            .help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let flush = flag("async-flush", "flushDiskType=ASYNC_FLUSH");
    let unplanned = ["kills", "fault", "stay-down"];
    Command::new("failover")
        .about("Takes the leader from a group of three and measures how clients go on")
        .args_conflicts_with_subcommands(true)
        .arg(count("kills", "How often the leader is lost").default_value("10"))
        .arg(
            Arg::new("fault")
                .long("fault")
                .value_parser(["kill", "stop", "cut"])
                .default_value("kill")
                .help("kill -9, SIGSTOP, or its wires to the others cut (root)"),
        )
        .arg(
            count(
                "transfers",
                "Hands leadership over so often instead, by transferLeader",
            )
            .conflicts_with_all(unplanned),
        )
        .arg(
            count(
                "rolling",
                "Restarts each member so often instead, one after the other",
            )
            .conflicts_with_all(unplanned),
        )
        .arg(flag(
            "load",
            "As much load as the machine takes, instead of a light one",
        ))
        .arg(flag(
            "java",
            "A producer of the published Java client beside ours",
        ))
        .arg(
            Arg::new("java-poll")
                .long("java-poll")
                .value_name("SECONDS")
                .value_parser(value_parser!(u64).range(1..))
                .requires("java")
                .help("How often it asks for the route (default: 30)"),
        )
        .arg(flag(
            "go",
            "A producer of the published Go client beside ours",
        ))
        .arg(flag(
            "stay-down",
            "The fault lasts until the Java producer goes on",
        ))
        .arg(flag(
            "leader-endpoint",
            "Whoever leads is reached over one address",
        ))
        .arg(flush.clone())
        .arg(conf_argument())
        .subcommand(
            Command::new("coldstart")
                .about(
                    "Measures the time from nothing to serving, and the memory of an idle member",
                )
                .arg(count("rounds", "How often to start").default_value("5"))
                .arg(flush),
        )
}

fn with_large_segments(options: Options, async_flush: bool) -> Options {
    let options = Options {
        segment_bytes: 256 << 20,
        log_bytes_max: 64 << 20, // there may be hundreds of rounds
        ..options
    };
    if async_flush {
        options.with("flushDiskType", "ASYNC_FLUSH")
    } else {
        options
    }
}

fn fail_over(mut trial: Trial, rounds: usize, fault: Fault<'_>) -> Result<()> {
    let mut figures = Failovers::default();
    let (started, before) = (Nanos::now(), trial.history().acked());
    for number in 1..=rounds {
        trial.run_for(Duration::from_secs(1))?;
        let (victim, failover) = trial.lose_leader(fault)?;
        figures.add(number, victim, failover);
    }
    let acked = trial.history().acked() - before;
    let seconds = started.elapsed().as_secs_f64();
    say(format!(
        "{acked} sends acknowledged in {seconds:.0} s, faults included"
    ));
    trial.finish()?;
    say(figures);
    Ok(())
}

/// Planned switches: no send may fail.
fn switch(mut trial: Trial, transfers: usize, rolling: usize) -> Result<()> {
    let (mut handed_over, mut restarted) = (Stalls::default(), Stalls::default());
    for number in 1..=transfers {
        let to = (trial.cluster.wait_leader()? + 1) % trial.cluster.members.len();
        let stall = trial.stall(|trial| {
            trial.transfer_leader(to)?;
            // Those who send to the former leader go on there.
            trial.run_for(Duration::from_secs(1))
        })?;
        handed_over.add(format!("transfer {number} to n{to}"), &stall);
    }
    for number in 1..=rolling {
        let stall = trial.stall(Trial::rolling_restart)?;
        restarted.add(format!("rolling restart {number}"), &stall);
    }
    trial.require_all_acked()?;
    say(format!("{} sends, none failed", trial.history().len()));
    trial.finish()?;
    for (what, stalls) in [("transfers", handed_over), ("rolling restarts", restarted)] {
        if !stalls.is_empty() {
            say(format!("{what}:\n{stalls}"));
        }
    }
    Ok(())
}

fn cold_start(rounds: usize, async_flush: bool) -> Result<()> {
    let (mut serving, mut memory) = (Series::default(), Vec::new());
    for _ in 0..rounds {
        let mut cluster = Cluster::prepare(with_large_segments(Options::default(), async_flush))?;
        let started = Nanos::now();
        cluster.launch()?;
        serving.add(started.elapsed());
        // Time for everything that a member does in the first moments.
        pause(Duration::from_secs(3));
        for member in &cluster.members {
            let process: &Process = member.process.as_ref().context("it runs")?;
            memory.push(process.resident_bytes()?);
        }
        cluster.passed()?;
    }
    memory.sort_unstable();
    say(format!(
        "start to serving through all three members: {serving}"
    ));
    let mib = |bytes: Option<&u64>| bytes.map_or(0, |bytes| bytes >> 20);
    say(format!(
        "idle resident memory of a member: {} to {} MiB",
        mib(memory.first()),
        mib(memory.last())
    ));
    say(format!(
        "slowest start {}",
        ms(serving.percentile(100).unwrap_or_default())
    ));
    Ok(())
}

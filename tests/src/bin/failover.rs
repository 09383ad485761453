//! Figures of a group of three on this machine: failover, cold start, memory.
//!
//! ```text
//! failover --kills 100 --load    kill -9 of the leader, again and again; a table of percentiles
//! failover --java --stay-down --leader-endpoint
//!                                the same, with the published Java client, over one address that follows leadership
//! failover coldstart             start of three members and a nameserver until they serve; idle memory
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command, value_parser};
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, Options, conf_argument};
use raftmq_tests::figures::{Failovers, Series, ms, say};
use raftmq_tests::process::Process;
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::pause;

fn main() -> Result<()> {
    let matches = command().get_matches();
    let _turn = turn()?;
    if let Some(("coldstart", matches)) = matches.subcommand() {
        let rounds = matches.get_one::<usize>("rounds").copied().unwrap_or(1);
        return cold_start(rounds, matches.get_flag("async-flush"));
    }
    let kills = matches.get_one::<usize>("kills").copied().unwrap_or(10);
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
    let load = Load {
        java: matches.get_flag("java"),
        stay_down: matches.get_flag("stay-down"),
        ..load
    };
    let options = Options {
        leader_endpoint: matches.get_flag("leader-endpoint"),
        ..options(matches.get_flag("async-flush"))
    };
    let options = options.with_arguments(&matches)?;
    fail_over(kills, load, options)
}

fn command() -> Command {
    let count = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(value_parser!(usize))
            .default_value(default)
            .help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let flush = flag("async-flush", "flushDiskType=ASYNC_FLUSH");
    Command::new("failover")
        .about("Kills the leader of a group of three and measures how clients go on")
        .args_conflicts_with_subcommands(true)
        .arg(count("kills", "10", "How often to kill the leader"))
        .arg(flag(
            "load",
            "As much load as the machine takes, instead of a light one",
        ))
        .arg(flag(
            "java",
            "A producer of the published Java client beside ours",
        ))
        .arg(flag(
            "stay-down",
            "A killed member is started again only once the Java producer goes on",
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
                .arg(count("rounds", "5", "How often to start"))
                .arg(flush),
        )
}

fn options(async_flush: bool) -> Options {
    let options = Options {
        segment_bytes: 256 << 20,
        ..Options::default()
    };
    if async_flush {
        options.with("flushDiskType", "ASYNC_FLUSH")
    } else {
        options
    }
}

fn fail_over(kills: usize, load: Load, options: Options) -> Result<()> {
    let mut trial = Trial::begin(options, load)?;
    let mut figures = Failovers::default();
    let (started, before) = (Nanos::now(), trial.history().acked());
    for number in 1..=kills {
        trial.run_for(Duration::from_secs(1))?;
        let (victim, failover) = trial.kill_leader()?;
        figures.add(number, victim, failover);
    }
    let acked = trial.history().acked() - before;
    let seconds = started.elapsed().as_secs_f64();
    say(format!(
        "{acked} sends acknowledged in {seconds:.0} s, kills included"
    ));
    trial.finish()?;
    say(figures);
    Ok(())
}

fn cold_start(rounds: usize, async_flush: bool) -> Result<()> {
    let (mut serving, mut memory) = (Series::default(), Vec::new());
    for _ in 0..rounds {
        let mut cluster = Cluster::prepare(options(async_flush))?;
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

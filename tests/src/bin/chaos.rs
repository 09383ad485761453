//! Chaos, as long as wanted; see [`raftmq_tests::chaos`].
//!
//! ```text
//! chaos --minutes 10                     all faults, two or three at a time, from a seed of this moment
//! chaos --minutes 20 --alone             one at a time, so that what each costs shows
//! chaos --minutes 10 --original          the same for RocketMQ in DLedger mode, from its published jars
//! chaos --seed 7 --faults kill,pause     the faults that follow from seed 7
//! ```

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command, value_parser};
use raftmq_tests::chaos::run::{Length, Wanted, run};
use raftmq_tests::chaos::schedule::{Kind, Wishes};
use raftmq_tests::clock::Nanos;
use raftmq_tests::disk::enter_private_mounts;
use raftmq_tests::figures::say;
use raftmq_tests::linearizability;
use raftmq_tests::network;
use raftmq_tests::serial::turn;

fn main() -> Result<ExitCode> {
    let matches = command().get_matches();
    let kinds = match matches.get_one::<String>("faults") {
        Some(names) => names.split(',').map(str::parse).collect::<Result<_>>()?,
        None => Kind::ALL.to_vec(),
    };
    let seed = matches.get_one::<u64>("seed").copied();
    let length = match matches.get_one::<usize>("rounds") {
        Some(count) => Length::Rounds(*count),
        None => {
            let minutes = matches.get_one::<f64>("minutes").copied().unwrap_or(1.0);
            Length::Time(Duration::try_from_secs_f64(minutes * 60.0).context("minutes")?)
        }
    };
    let original = matches.get_flag("original");
    let wanted = Wanted {
        original,
        wishes: Wishes {
            seed: seed.unwrap_or_else(|| Nanos::now().0 % 1_000_000),
            kinds,
            mixed: !matches.get_flag("alone"),
            members: 3,
        },
        length,
    };
    linearizability::fetch();
    // Before there is any thread.
    network::enter().context("enter a network namespace (this needs root)")?;
    enter_private_mounts()?;
    let _turn = turn()?;
    let again = format!("chaos {wanted}");
    say(&again);
    let report = run(&wanted).with_context(|| format!("to run it again: {again}"))?;
    say(&report);
    if original {
        return Ok(ExitCode::SUCCESS); // it is for others to mend
    }
    if report.findings.is_empty() {
        say("nothing wrong was found");
        return Ok(ExitCode::SUCCESS);
    }
    say(format!(
        "{} findings; to run it again: {again}",
        report.findings.len()
    ));
    Ok(ExitCode::FAILURE)
}

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    Command::new("chaos")
        .about("Has faults happen to a group of three under load, and judges what came of it")
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .value_parser(value_parser!(u64))
                .help("What the schedule of faults follows from (default: another one each time)"),
        )
        .arg(
            Arg::new("minutes")
                .long("minutes")
                .value_name("M")
                .value_parser(value_parser!(f64))
                .default_value("1")
                .help("For how long faults begin"),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .conflicts_with("minutes")
                .help("How many rounds of faults, instead of for how long"),
        )
        .arg(
            Arg::new("faults")
                .long("faults")
                .value_name("A,B,…")
                .help(format!(
                    "Which faults (default: all): {}",
                    Kind::ALL.map(Kind::name).join(",")
                )),
        )
        .arg(flag("alone", "One fault at a time, the kinds in turn").conflicts_with("mixed"))
        .arg(flag(
            "original",
            "RocketMQ in DLedger mode, from its published jars, instead of ours",
        ))
        .arg(flag("mixed", "Two or three at a time (default)"))
}

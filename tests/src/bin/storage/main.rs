//! Figures of the store, with groups on this machine.
//!
//! ```text
//! storage-figures queues     what 100,000 queues cost: sends, memory, restart
//! storage-figures restart    kill -9 under load with a long log: time until it serves again
//! storage-figures seed       what sends lose while a wiped member is brought up
//! storage-figures backlog    reading a long backlog of small messages, oldest and newest
//! ```

mod backlog;
mod queues;
mod restart;
mod seed;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command, value_parser};
use raftmq_tests::cluster::Cluster;
use raftmq_tests::figures::say;
use raftmq_tests::process::Process;
use raftmq_tests::serial::turn;

fn main() -> Result<()> {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(value_parser!(usize))
            .default_value(default)
            .help(help)
    };
    let mib = |default| number("mib", default, "MiB of log to begin with");
    let matches = Command::new("storage-figures")
        .about("Measures what a store costs and how fast it comes back")
        .subcommand_required(true)
        .subcommand(
            Command::new("queues")
                .about("Very many queues: sends against a topic of four, memory, restart")
                .arg(number("topics", "25000", "Topics of four queues"))
                .arg(number("messages", "200000", "Messages of each measurement")),
        )
        .subcommand(
            Command::new("restart")
                .about("kill -9 under load of a member with a long log")
                .arg(mib("20480"))
                .arg(number("rounds", "3", "How often")),
        )
        .subcommand(
            Command::new("seed")
                .about("Sends before, while and after a wiped member is brought up")
                .arg(mib("2048"))
                .arg(number("rate", "100", "seedRateMax, in MiB a second"))
                .arg(
                    Arg::new("whole-log")
                        .long("whole-log")
                        .action(ArgAction::SetTrue)
                        .help("Nothing is trimmed before"),
                ),
        )
        .subcommand(
            Command::new("backlog")
                .about("Reading small messages, the oldest and the newest")
                .arg(number("messages", "10000000", "Messages of 100 bytes")),
        )
        .get_matches();
    let _turn = turn()?;
    let (name, matches) = matches.subcommand().context("no subcommand")?;
    let value = |name: &str| matches.get_one::<usize>(name).copied().unwrap_or(1).max(1);
    match name {
        "queues" => queues::measure(value("topics"), value("messages")),
        "restart" => restart::measure(value("mib"), value("rounds")),
        "seed" => seed::measure(value("mib"), value("rate"), matches.get_flag("whole-log")),
        _ => backlog::measure(value("messages")),
    }
}

/// Says what memory the members use.
fn memory(cluster: &Cluster, when: &str) -> Result<()> {
    let mut figures = Vec::new();
    for member in &cluster.members {
        let process: &Process = member.process.as_ref().context("it runs")?;
        let all = process.resident_bytes()? >> 20;
        let own = process.private_bytes()? >> 20;
        figures.push(format!("{all} ({own})"));
    }
    say(format!(
        "resident memory of the members, MiB (and without mapped files): {} {when}",
        figures.join(", ")
    ));
    Ok(())
}

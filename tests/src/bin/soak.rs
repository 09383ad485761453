//! As much load as the machine takes, and no election; see [`raftmq_tests::soak`].
//!
//! ```text
//! soak --minutes 60
//! soak --minutes 5 --conf raftElectionTimeoutMaxMs=200    with a line more in each member's conf
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Arg, Command, value_parser};
use raftmq_tests::cluster::{Options, conf_argument};
use raftmq_tests::serial::turn;
use raftmq_tests::soak::soak;

fn main() -> Result<()> {
    let matches = Command::new("soak")
        .about("Floods a group of three, and wants its leader to stay")
        .arg(
            Arg::new("minutes")
                .long("minutes")
                .value_name("M")
                .value_parser(value_parser!(f64))
                .default_value("60")
                .help("For how long"),
        )
        .arg(conf_argument())
        .get_matches();
    let minutes = matches.get_one::<f64>("minutes").copied().unwrap_or(60.0);
    let time = Duration::try_from_secs_f64(minutes * 60.0).context("minutes")?;
    let _turn = turn()?;
    soak(Options::default().with_arguments(&matches)?, time)
}

//! Planned switches: leadership is handed over and members are restarted one by one, and no client notices.

use std::time::Duration;

use anyhow::{Result, ensure};
use raftmq_tests::cluster::Options;
use raftmq_tests::figures::{ms, say};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};

/// Each member is made the leader by command, stopped and started again, while our producers, plain ones that try once,
/// and a Java producer send, the Java one by a route that may be a second old. With `RAFTMQ_STOCK_INTERVALS` set it is up
/// to 30 s old, as stock clients have it, members that stop forward as long, a Go producer sends too (it knows no other
/// interval), and the test takes two minutes.
#[test]
fn a_rolling_restart_costs_no_send() -> Result<()> {
    if std::env::var_os("RAFTMQ_STOCK_INTERVALS").is_some() {
        return rolling_restart(Duration::from_secs(30), true, "31000");
    }
    rolling_restart(Duration::from_secs(1), false, "2500")
}

fn rolling_restart(java_poll: Duration, go: bool, forward_ms: &str) -> Result<()> {
    let _turn = turn()?;
    let options = Options::default().with("shutdownForwardMs", forward_ms);
    let load = Load {
        java: true,
        java_poll,
        go,
        ..Load::default()
    };
    let mut trial = Trial::begin(options, load)?;
    trial.rolling_restart()?;
    trial.wait_everybody()?;
    let slowest = trial.require_all_acked()?;
    say(format!(
        "{} sends, none failed, the slowest took {}",
        trial.history().len(),
        ms(slowest)
    ));
    // Not the figure to reach (that is measured on a quiet machine).
    ensure!(slowest < Duration::from_secs(3), "a send took {slowest:?}");
    trial.finish()
}

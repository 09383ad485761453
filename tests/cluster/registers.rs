//! Consumer offsets, topics and subscription groups as registers, while the leader is killed.

use std::time::Duration;

use anyhow::{Result, ensure};
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::figures::say;
use raftmq_tests::leadership::{Leadership, fixed};
use raftmq_tests::linearizability;
use raftmq_tests::registers::{self, Plan, Registers};
use raftmq_tests::routes::{LATE, RouteWatch};
use raftmq_tests::serial::turn;
use raftmq_tests::wait::pause;

/// Three times `kill -9` of whoever leads. What was read and written in the meantime must have an order that explains it, and
/// the nameserver must not name a dead or deposed member for long.
#[test]
fn registers_are_linearizable_while_the_leader_is_killed() -> Result<()> {
    const KILLS: usize = 3;
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    let leader = cluster.wait_leader()?;
    registers::prepare(&cluster.members[leader].address())?;
    let members = fixed(cluster.addresses());
    let leadership = Leadership::watch(members.clone());
    let nameservers: Vec<String> = cluster
        .nameserver_addresses()
        .split(';')
        .map(str::to_owned)
        .collect();
    let routes = RouteWatch::start(&nameservers, None);
    let registers = Registers::start(&Plan::new(members), &cluster.root().join("registers.jsonl"))?;
    for _ in 0..KILLS {
        pause(Duration::from_millis(1_500));
        let before = registers.answered();
        let victim = cluster.wait_leader()?;
        let address = cluster.members[victim].address();
        let killed = cluster.kill(victim)?;
        routes.died(&address, killed);
        cluster.wait_leader()?;
        routes.started(&address);
        cluster.start_member(victim)?;
        cluster.wait_member(victim)?;
        ensure!(before > 0, "nothing was answered before the kill");
    }
    pause(Duration::from_millis(1_500));
    say(&registers);
    let history = registers.stop()?;
    let report = routes.stop(leadership.reigns(), LATE);
    say(&report);
    ensure!(report.complaints.is_empty(), "{report}");
    if let Some(judged) = linearizability::check(&history)? {
        say(format!("registers are linearizable: {judged}"));
    }
    cluster.require_running()?;
    cluster.passed()
}

//! One address that follows leadership (`leaderEndpoint`): clients connect again, and that is all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::cluster::{Cluster, Options, leader_of};
use raftmq_tests::figures::{Failovers, say};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::{wait_for, wait_ok};
use raftmq_tests::wire::Connection;

fn with_endpoint() -> Options {
    Options {
        leader_endpoint: true,
        ..Options::default()
    }
}

/// `kill -9` of whoever leads, who stays dead until the producer of the published Java client, which polls its route
/// every 30 s, goes on.
#[test]
fn a_java_producer_rides_through_kills_of_the_leader() -> Result<()> {
    const KILLS: usize = 4;
    let _turn = turn()?;
    let mut trial = Trial::begin(
        with_endpoint(),
        Load {
            java: true,
            stay_down: true,
            ..Load::default()
        },
    )?;
    let mut figures = Failovers::default();
    for number in 1..=KILLS {
        trial.run_for(Duration::from_millis(700))?;
        let (victim, failover) = trial.kill_leader()?;
        // Not the figure to reach, but far below what the route would cost.
        ensure!(
            failover
                .java_ack
                .is_none_or(|time| time < Duration::from_secs(8)),
            "{failover:?}"
        );
        figures.add(number, victim, failover);
    }
    say(&figures);
    trial.finish()
}

fn send_over(address: &str) -> Result<u16> {
    let request = calls::send_request("Followed", 0, "", b"message");
    let sent = calls::send(&mut Connection::open(address)?, &request)?;
    Ok(sent.ids.first().context("a send without an id")?.port)
}

/// A leader told to stop closes the address, connections included, and the next one is there at once. One that is frozen
/// keeps its port: the next leader is known by its own address until the frozen one wakes and gives the port up.
#[test]
fn the_address_has_one_owner_at_a_time() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(with_endpoint())?;
    let endpoint = cluster.endpoint.clone().context("there is one")?;
    cluster.create_topic("Followed", 1)?;
    let first = cluster.wait_leader()?;
    ensure!(send_over(&endpoint)? == cluster.members[first].port);

    let mut open = Connection::open(&endpoint)?;
    cluster.terminate(first, Duration::from_secs(10))?;
    ensure!(
        open.is_closed(Duration::from_secs(2)),
        "a deposed leader's connection is still open"
    );
    let next_is_there = |dead: u16| {
        wait_ok(
            "the next leader to listen",
            Duration::from_secs(10),
            Duration::from_millis(10),
            || {
                let port = send_over(&endpoint)?;
                ensure!(port != dead, "{port} has gone");
                Ok(port)
            },
        )
    };
    let second = next_is_there(cluster.members[first].port)?;
    let second = cluster.member_on(second).context("a member")?;
    cluster.start_member(first)?;
    cluster.wait_member(first)?;

    let named = |cluster: &Cluster| -> Option<String> {
        leader_of(&cluster.registered(0).ok()?).map(str::to_owned)
    };
    let within = Duration::from_secs(10);
    cluster.signal(second, libc::SIGSTOP)?;
    let own = wait_for(
        "the next leader to be known by its own address",
        within,
        Duration::from_millis(10),
        || named(&cluster).filter(|address| *address != endpoint),
    )?;
    ensure!(own != cluster.members[second].address(), "{own} is frozen");
    ensure!(cluster.addresses().contains(&own), "who is {own}?");
    ensure!(send_over(&own).is_ok());
    cluster.signal(second, libc::SIGCONT)?;
    wait_for(
        "the address to be told again",
        within,
        Duration::from_millis(10),
        || named(&cluster).filter(|address| *address == endpoint),
    )?;
    let third = next_is_there(cluster.members[second].port)?;
    ensure!(format!("127.0.0.1:{third}") == own);
    // Each member keeps an address of its own, under an id of its own.
    let members = cluster.registered(0)?;
    for (number, address) in cluster.addresses().into_iter().enumerate() {
        let id = i64::try_from(number)? + 1;
        ensure!(members.contains(&(id, address)), "{members:?}");
    }
    cluster.passed()
}

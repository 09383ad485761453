//! One address that follows leadership (`leaderEndpoint`): clients connect again, and that is all.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::cluster::{Cluster, Options, SERVING_WITHIN, leader_of};
use raftmq_tests::figures::{Failovers, say};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::{pause, wait_for, wait_ok};
use raftmq_tests::wire::Connection;

const STEP: Duration = Duration::from_millis(10);

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

/// A leader told to stop closes its connections, and the next one is there at once. One that is frozen keeps what it has
/// accepted, and whoever connects is with the next leader.
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

    cluster.signal(second, libc::SIGSTOP)?;
    let third = next_is_there(cluster.members[second].port)?;
    ensure!(third != cluster.members[second].port, "{third} is frozen");
    cluster.signal(second, libc::SIGCONT)?;
    cluster.wait_member(second)?;
    for _ in 0..20 {
        ensure!(send_over(&endpoint)? == third, "the frozen member is back");
    }
    let within = Duration::from_secs(10);
    wait_for("the address to be told", within, STEP, || {
        let members = cluster.registered(0).ok()?;
        (leader_of(&members)? == endpoint).then_some(())
    })?;
    // Each member keeps an address of its own, under an id of its own.
    let members = cluster.registered(0)?;
    for (number, address) in cluster.addresses().into_iter().enumerate() {
        let id = i64::try_from(number)? + 1;
        ensure!(members.contains(&(id, address)), "{members:?}");
    }
    cluster.passed()
}

/// Members of one machine share the socket: while there is no leader, who connects waits for the next one. Only where nobody
/// can lead any more connections are refused, so that clients know at once.
#[test]
fn nobody_is_refused_while_a_leader_can_come() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(with_endpoint())?;
    let endpoint = cluster.endpoint.clone().context("there is one")?;
    cluster.create_topic("Followed", 1)?;
    let (stop, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                TcpStream::connect(&endpoint).context("connect to the endpoint")?;
                connected.fetch_add(1, Ordering::Relaxed);
                pause(Duration::from_millis(1));
            }
            anyhow::Ok(())
        });
        let mut outcome = Ok(());
        for _ in 0..3 {
            outcome = outcome.and_then(|()| kill_the_leader(&mut cluster, &endpoint));
        }
        stop.store(true, Ordering::Relaxed);
        connecting
            .join()
            .map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
        outcome
    })?;
    say(format!(
        "{} connections, none refused, while the leader was killed three times",
        connected.into_inner()
    ));
    // A follower is left, or the leader.
    for killed in [[0, 1], [1, 2]] {
        let leader = cluster.wait_leader()?;
        for after in killed {
            cluster.kill((leader + after) % 3)?;
        }
        wait_for("connections to be refused", SERVING_WITHIN, STEP, || {
            TcpStream::connect(&endpoint).is_err().then_some(())
        })?;
        cluster.start_all()?;
        wait_ok("a send over the endpoint", SERVING_WITHIN, STEP, || {
            send_over(&endpoint)
        })?;
    }
    cluster.passed()
}

/// And one send over the endpoint, begun while nobody leads, is answered by the next leader.
fn kill_the_leader(cluster: &mut Cluster, endpoint: &str) -> Result<()> {
    let leader = cluster.wait_leader()?;
    // Each follower has asked the leader for its socket by then.
    pause(Duration::from_millis(500));
    cluster.kill(leader)?;
    let stored_by = send_over(endpoint).context("a send begun while nobody leads")?;
    ensure!(
        stored_by != cluster.members[leader].port,
        "{stored_by} is dead"
    );
    cluster.start_member(leader)?;
    cluster.wait_member(leader)
}

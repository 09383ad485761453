//! Nameservers die, hang and hear old news; routes stay right and nobody waits for them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use raftmq_client::{Message, Producer, ProducerOptions};
use raftmq_tests::calls::{self, request};
use raftmq_tests::cluster::{Cluster, GROUP, Options, leader_of};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::serial::turn;
use raftmq_tests::wait::wait_for;
use raftmq_tests::wire::{Connection, Request};

const TOPIC: &str = "Routed";

/// What a new client's first send may take when the first nameserver of its list does not answer.
const FIRST_SEND: Duration = Duration::from_secs(3);
/// What a failover may take on a loaded machine.
const FAILOVER: Duration = Duration::from_secs(8);

fn two_nameservers() -> Result<Cluster> {
    let options = Options {
        nameservers: 2,
        ..Options::default()
    };
    let mut cluster = Cluster::start(options.with("registerNameServerPeriod", "10000"))?;
    cluster.create_topic(TOPIC, 1)?;
    cluster.wait_topic(TOPIC)?;
    Ok(cluster)
}

/// One of two nameservers is killed, or hangs with its port open, which is worse: new clients find their way, and a
/// failover is as quick as ever.
#[test]
fn a_dead_or_hanging_nameserver_slows_nobody() -> Result<()> {
    let _turn = turn()?;
    for (fault, signal) in [("killed", libc::SIGKILL), ("hanging", libc::SIGSTOP)] {
        let mut cluster = two_nameservers()?;
        let process = cluster.nameservers[0].process.as_ref().context("it runs")?;
        process.signal(signal);
        let first = new_client_sends(&cluster.nameserver_addresses())?;
        say(format!(
            "nameserver {fault}: a new client's first send took {}",
            ms(first)
        ));
        ensure!(
            first < FIRST_SEND,
            "nameserver {fault}: a first send took {first:?}"
        );

        let leader = cluster.wait_leader()?;
        let old = cluster.members[leader].address();
        cluster.kill(leader)?;
        let started = Instant::now();
        wait_for(
            "the other nameserver to name a new leader",
            FAILOVER,
            Duration::from_millis(5),
            || {
                let members = cluster.registered(1).ok()?;
                (leader_of(&members)? != old).then_some(())
            },
        )?;
        say(format!(
            "nameserver {fault}: new leader registered after {}",
            ms(started.elapsed())
        ));
        let after = new_client_sends(&cluster.nameserver_addresses())?;
        ensure!(
            after < FAILOVER,
            "nameserver {fault}: a send after the failover took {after:?}"
        );
        cluster.passed()?;
    }
    Ok(())
}

fn new_client_sends(nameservers: &str) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start a runtime")?;
    let started = Instant::now();
    let took = runtime.block_on(async {
        let options = ProducerOptions::new("RoutedProducer");
        let producer = Producer::start(nameservers, options).context("start a producer")?;
        // An application tries again as well; what counts is the time in all.
        loop {
            match producer.send(Message::new(TOPIC, &b"first"[..])).await {
                Ok(_) => break,
                Err(error) if started.elapsed() > Duration::from_secs(20) => {
                    bail!("no send succeeds: {error}")
                }
                Err(_) => {}
            }
        }
        let took = started.elapsed();
        producer.shutdown().await;
        Ok(took)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    took
}

/// A nameserver that was away knows everything again soon after its return, and hears of leaders that changed meanwhile.
#[test]
fn a_restarted_nameserver_learns_the_routes() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = two_nameservers()?;
    let process = cluster.nameservers[0].process.as_mut().context("it runs")?;
    process.kill_9();
    let leader = cluster.wait_leader()?;
    cluster.kill(leader)?;
    let next = cluster.wait_leader()?;
    cluster.start_nameserver(0)?;
    let started = Instant::now();
    cluster.wait_registered(next)?;
    cluster.wait_topic(TOPIC)?;
    let took = started.elapsed();
    say(format!(
        "a restarted nameserver knew the group after {}",
        ms(took)
    ));
    ensure!(
        took < Duration::from_secs(15),
        "the period is 10 s, it took {took:?}"
    );
    cluster.passed()
}

/// Old news: unregistrations that were sent before the last registration, and a registration by a leader of an earlier
/// term, arrive late. The route does not move.
#[test]
fn stale_messages_do_not_move_the_route() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    cluster.create_topic(TOPIC, 1)?;
    let old = cluster.wait_leader()?;
    cluster.kill(old)?;
    let leader = cluster.wait_leader()?;
    cluster.start_member(old)?;
    cluster.wait_member(old)?;
    cluster.wait_registered(leader)?;
    let [old_address, leader_address] =
        [old, leader].map(|member| cluster.members[member].address());
    // The restarted member registers as a follower.
    let right = wait_for(
        "all members to be registered",
        FAILOVER,
        Duration::from_millis(20),
        || {
            let members = cluster.registered(0).ok()?;
            (members.len() == 3).then_some(members)
        },
    )?;

    let nameserver = cluster.nameserver_addresses();
    let mut connection = Connection::open(&nameserver)?;
    let unregister = |address: &str, id: usize| {
        Request::new(request::UNREGISTER_BROKER)
            .field("brokerName", GROUP)
            .field("brokerAddr", address)
            .field("clusterName", "RaftCluster")
            .field("brokerId", id)
    };
    let register = Request::new(request::REGISTER_BROKER)
        .field("brokerName", GROUP)
        .field("brokerAddr", &old_address)
        .field("clusterName", "RaftCluster")
        .field("haServerAddr", &old_address)
        .field("brokerId", 0)
        .field("bodyCrc32", 0)
        .body(
            r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"topicConfigTable":{}}}"#,
        );
    let news = [
        (
            "the leader, from when it was a follower",
            unregister(&leader_address, leader + 1),
        ),
        (
            "the old leader, from when it led",
            unregister(&old_address, 0),
        ),
        ("a registration of an earlier term", register),
    ];
    for (what, request) in news {
        // Whether it is refused or ignored is the nameserver's choice.
        connection.call(&request, calls::PATIENCE)?;
        // Unregistrations are carried out in batches a moment later, so look for a while.
        let moved = wait_for(
            what,
            Duration::from_millis(700),
            Duration::from_millis(20),
            || {
                let members = cluster.registered(0).ok()?;
                let route = calls::route_addresses(&mut connection, TOPIC).ok();
                (members != right || route.as_ref() != Some(&right)).then_some((members, route))
            },
        );
        if let Ok(moved) = moved {
            bail!("{what}: the route was {right:?} and is {moved:?}");
        }
    }
    cluster.passed()
}

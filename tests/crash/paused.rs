//! Members that stop for a while and go on as if nothing had been: the process was frozen, the others were not.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use raftmq_tests::calls::{self, Refusal, request, response};
use raftmq_tests::cluster::Options;
use raftmq_tests::figures::{ms, say};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, QUEUES, TOPIC, Trial};
use raftmq_tests::wire::{Connection, Request};

/// Questions of each kind for each queue: which one meets the woken process in which state is chance.
const ASKED: usize = 16;

/// The leader is frozen until another leads, and woken with questions waiting in its sockets. It may refuse them or pass
/// them on; what it must not do is answer from before the freeze.
#[test]
fn a_frozen_leader_wakes_and_answers_nothing_stale() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    for round in 1..=4 {
        trial.run_for(Duration::from_millis(500))?;
        let leader = trial.cluster.wait_leader()?;
        trial.cluster.wait_registered(leader)?;
        let address = trial.cluster.members[leader].address();
        let mut questions = Vec::new();
        for queue in 0..QUEUES {
            let mut asked = Vec::new();
            for _ in 0..ASKED {
                asked.push(Connection::open(&address)?);
            }
            questions.push((queue, asked, Connection::open(&address)?));
        }

        let frozen = raftmq_tests::clock::Nanos::now();
        trial.cluster.signal(leader, libc::SIGSTOP)?;
        let failover = trial.measure(frozen, leader)?;
        trial.run_for(Duration::from_millis(300))?;
        let mut known = Vec::new();
        for (queue, maxima, pull) in &mut questions {
            let last = trial.history().largest_acked(*queue).unwrap_or(-1);
            let ask = Request::new(request::GET_MAX_OFFSET)
                .field("topic", TOPIC)
                .field("queueId", *queue);
            for max in maxima {
                max.write(&ask)?;
            }
            pull.write(&calls::pull_request(
                "STALE",
                TOPIC,
                *queue,
                last,
                Duration::ZERO,
            ))?;
            known.push(last);
        }
        trial.cluster.signal(leader, libc::SIGCONT)?;
        for ((queue, maxima, pull), last) in questions.into_iter().zip(known) {
            for max in maxima {
                require_fresh_max(max, queue, last)?;
            }
            require_fresh_pull(pull, queue, last)?;
        }
        say(format!(
            "round {round}: n{leader} frozen; new leader {}, first acknowledged send {}",
            ms(failover.registered),
            ms(failover.first_ack)
        ));
        trial.cluster.wait_member(leader)?;
    }
    trial.finish()
}

fn require_fresh_max(mut connection: Connection, queue: i32, last: i64) -> Result<()> {
    // A connection that is closed instead is a refusal as well.
    let Ok(reply) = connection.read(Duration::from_secs(10)) else {
        return Ok(());
    };
    if reply.code == response::SUCCESS {
        let max = reply.number("offset")?;
        ensure!(
            max > last,
            "queue {queue}: offset {last} had been acknowledged, the woken leader says max {max}"
        );
    }
    Ok(())
}

fn require_fresh_pull(mut connection: Connection, queue: i32, last: i64) -> Result<()> {
    let Ok(reply) = connection.read(Duration::from_secs(10)) else {
        return Ok(());
    };
    match calls::pulled(reply) {
        Ok(pulled) => match pulled.code {
            response::SUCCESS => {
                let first = pulled.records()?.first().map(|record| record.queue_offset);
                ensure!(
                    first == Some(last),
                    "queue {queue}: asked for {last}, got {first:?}"
                );
                Ok(())
            }
            response::PULL_RETRY_IMMEDIATELY => Ok(()),
            response::PULL_NOT_FOUND if pulled.next == last => Ok(()),
            code => bail!(
                "queue {queue}: offset {last} had been acknowledged, the woken leader says code {code}, next {}",
                pulled.next
            ),
        },
        Err(error) if error.is::<Refusal>() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A follower is frozen, and then everyone is: nobody may lose anything or fall out of the group.
#[test]
fn frozen_followers_and_a_frozen_group_go_on() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    for _ in 0..2 {
        let leader = trial.cluster.wait_leader()?;
        let follower = (leader + 1) % 3;
        trial.cluster.signal(follower, libc::SIGSTOP)?;
        trial.wait_progress()?;
        trial.run_for(Duration::from_millis(1_500))?;
        trial.cluster.signal(follower, libc::SIGCONT)?;
        trial.cluster.wait_member(follower)?;
    }
    for _ in 0..2 {
        for member in 0..3 {
            trial.cluster.signal(member, libc::SIGSTOP)?;
        }
        trial.run_for(Duration::from_millis(2_500))?;
        for member in 0..3 {
            trial.cluster.signal(member, libc::SIGCONT)?;
        }
        trial.cluster.wait_serving()?;
        trial.wait_progress()?;
        // What was tried again while everyone was frozen may be stored once more.
        trial.run_for(Duration::from_secs(1))?;
    }
    trial.finish()
}

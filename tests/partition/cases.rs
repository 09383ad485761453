//! The partitions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls::{self, Refusal, response};
use raftmq_tests::clock::Nanos;
use raftmq_tests::cluster::{Cluster, GROUP};
use raftmq_tests::figures::{ms, say};
use raftmq_tests::history::History;
use raftmq_tests::network::Network;
use raftmq_tests::preload::preload;
use raftmq_tests::serial::turn;
use raftmq_tests::suite::Case;
use raftmq_tests::trial::{Load, QUEUES, TOPIC, Trial};
use raftmq_tests::wait::{pause, wait_ok};
use raftmq_tests::wire::Connection;

/// Every case with its name.
pub(crate) const ALL: &[(&str, Case)] = &[
    ("a_leader_cut_off_from_the_others", leader_cut_off),
    ("a_leader_that_cannot_hear", || leader_half_cut_off(Deaf)),
    ("a_leader_that_cannot_speak", || leader_half_cut_off(Mute)),
    ("a_follower_cut_off_does_not_disturb", follower_cut_off),
    ("a_member_between_two_that_do_not_see_each_other", chain),
    ("a_member_alone_serves_reads_and_refuses_the_rest", alone),
    ("one_cut_after_another", storm),
];

/// After the network is whole again everybody must be back by then.
const BACK_WITHIN: Duration = Duration::from_secs(20);

fn begin() -> Result<(Network, Trial)> {
    let network = Network::new(3)?;
    let trial = Trial::begin(network.options(), Load::default())?;
    Ok((network, trial))
}

/// Mends the network and waits until every member takes sends again.
fn heal(network: &Network, trial: &mut Trial) -> Result<()> {
    network.heal()?;
    let healed = Nanos::now();
    for member in 0..3 {
        trial.cluster.wait_member(member)?;
    }
    let took = healed.elapsed();
    say(format!("everybody is back {} after the network", ms(took)));
    ensure!(
        took < BACK_WITHIN,
        "it took {took:?} until everybody was back"
    );
    trial.wait_progress()
}

/// Asks the member at `address` for the end of each queue again and again: an answer must cover everything that had been
/// acknowledged, by whomever, before the question was asked.
fn watch_for_stale_answers(address: &str, history: &History, stop: &AtomicBool) -> Result<usize> {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::open(address) else {
            pause(Duration::from_millis(20));
            continue;
        };
        for queue in (0..QUEUES).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let acked = history.largest_acked(queue).unwrap_or(-1);
            match calls::max_offset(&mut connection, TOPIC, queue) {
                Ok(max) => {
                    answers += 1;
                    ensure!(
                        max > acked,
                        "{address} says that queue {queue} ends at {max}; offset {acked} had been acknowledged"
                    );
                }
                Err(error) if error.is::<calls::Refusal>() => {}
                Err(_) => break, // a new connection
            }
            pause(Duration::from_millis(5));
        }
    }
    Ok(answers)
}

/// Runs `faults` while somebody asks the member at `address` for offsets.
fn while_watched(
    address: &str,
    trial: &mut Trial,
    faults: impl FnOnce(&mut Trial) -> Result<()>,
) -> Result<()> {
    let (history, stop) = (trial.history().clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch_for_stale_answers(address, &history, &stop));
        let outcome = faults(trial);
        stop.store(true, Ordering::Relaxed);
        let watched = watcher
            .join()
            .map_err(|_panic| anyhow::anyhow!("the watching thread panicked"))?;
        outcome?;
        say(format!("{} offset queries answered meanwhile", watched?));
        Ok(())
    })
}

/// The leader loses both others, clients still reach it: it acknowledges nothing any more and answers nothing stale, the
/// others go on, and after the cut everybody agrees.
fn leader_cut_off() -> Result<()> {
    let _turn = turn()?;
    let (network, mut trial) = begin()?;
    for round in 1..=3 {
        trial.run_for(Duration::from_millis(500))?;
        let leader = trial.cluster.wait_leader()?;
        trial.cluster.wait_registered(leader)?;
        let address = trial.cluster.members[leader].address();
        while_watched(&address, &mut trial, |trial| {
            let cut = Nanos::now();
            network.cut_off(leader)?;
            let failover = trial.measure(cut, leader)?;
            say(format!(
                "round {round}: n{leader} cut off; new leader {}, first acknowledged send {}",
                ms(failover.registered),
                ms(failover.first_ack)
            ));
            trial.run_for(Duration::from_millis(2_500))?;
            heal(&network, trial)
        })?;
    }
    trial.finish()
}

use Half::{Deaf, Mute};

/// Which direction is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// It hears nobody; what it says arrives.
    Deaf,
    /// It hears everybody; what it says is lost.
    Mute,
}

/// The leader's network fails in one direction. Whatever it believes, acknowledgements need a quorum in both.
fn leader_half_cut_off(half: Half) -> Result<()> {
    let _turn = turn()?;
    let (network, mut trial) = begin()?;
    for round in 1..=2 {
        trial.run_for(Duration::from_millis(500))?;
        let leader = trial.cluster.wait_leader()?;
        trial.cluster.wait_registered(leader)?;
        let address = trial.cluster.members[leader].address();
        while_watched(&address, &mut trial, |trial| {
            let cut = Nanos::now();
            for other in (0..3).filter(|other| *other != leader) {
                match half {
                    Deaf => network.cut_one_way(other, leader)?,
                    Mute => network.cut_one_way(leader, other)?,
                }
            }
            let failover = trial.measure(cut, leader)?;
            say(format!(
                "round {round}: n{leader} half cut off; new leader {}, first acknowledged send {}",
                ms(failover.registered),
                ms(failover.first_ack)
            ));
            trial.run_for(Duration::from_millis(2_000))?;
            heal(&network, trial)
        })?;
    }
    trial.finish()
}

/// A follower that was alone comes back without an election: it must not have pushed its term up meanwhile.
fn follower_cut_off() -> Result<()> {
    let _turn = turn()?;
    let (network, mut trial) = begin()?;
    for _ in 0..2 {
        let leader = trial.cluster.wait_leader()?;
        let follower = (leader + 1) % 3;
        network.cut_off(follower)?;
        trial.run_for(Duration::from_millis(3_000))?;
        trial.wait_progress()?;
        // The two others may have elected anew, on a machine that is busy.
        let leader = trial.cluster.wait_leader()?;
        heal(&network, &mut trial)?;
        let after = trial.cluster.wait_leader()?;
        ensure!(
            after == leader,
            "n{follower} came back, and n{after} leads instead of n{leader}"
        );
    }
    trial.finish()
}

/// The leader and one follower do not see each other, the third sees both: somebody leads, and sends succeed.
fn chain() -> Result<()> {
    let _turn = turn()?;
    let (network, mut trial) = begin()?;
    for step in 1..=2 {
        let leader = trial.cluster.wait_leader()?;
        network.cut(leader, (leader + step) % 3)?;
        for _ in 0..4 {
            trial.run_for(Duration::from_millis(700))?;
            trial.wait_progress()?;
        }
        heal(&network, &mut trial)?;
    }
    trial.finish()
}

/// What came of one question asked again and again: when the last began that was answered, when it was first refused, and how
/// long the longest refusal took that began a second or more after the cut.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    answered: Option<Nanos>,
    refused: Option<Nanos>,
    slowest: Duration,
}

fn ask(
    address: &str,
    stop: &AtomicBool,
    cut: &std::sync::OnceLock<Nanos>,
    question: impl Fn(&mut Connection) -> Result<()>,
) -> Result<Asked> {
    let mut asked = Asked::default();
    let mut connection = Connection::open(address)?;
    while !stop.load(Ordering::Relaxed) {
        let began = Nanos::now();
        match question(&mut connection) {
            Ok(()) => asked.answered = Some(began),
            Err(error) if error.is::<Refusal>() => {
                let cut = cut
                    .get()
                    .with_context(|| format!("before the cut: {error:#}"))?;
                asked.refused.get_or_insert_with(Nanos::now);
                if began.since(*cut) > Duration::from_secs(1) {
                    asked.slowest = asked.slowest.max(began.elapsed());
                }
            }
            Err(error) => return Err(error),
        }
        pause(Duration::from_millis(5));
    }
    Ok(asked)
}

/// A member that sees neither of the others, once the leader and once a follower: it acknowledges nothing, answers no
/// question for offsets once its lease is over, soon refuses at once, and goes on serving what it has applied. A consumer
/// that was further already is not sent back, and gets the rest when the network is whole again.
fn alone() -> Result<()> {
    let _turn = turn()?;
    let network = Network::new(3)?;
    let mut cluster = Cluster::start(network.options())?;
    cluster.create_topic(TOPIC, 1)?;
    let mut end = 0;
    for leads in [true, false] {
        let leader = cluster.wait_leader()?;
        let member = if leads { leader } else { (leader + 1) % 3 };
        let other = (member + 1) % 3;
        let address = cluster.members[member].address();
        preload(&address, TOPIC, 1, 1_000, &History::default())?;
        end += 1_000;
        let mut reader = Connection::open(&address)?;
        let pull = |reader: &mut Connection, offset| {
            calls::pull(reader, "ALONE", TOPIC, 0, offset, Duration::ZERO)
        };
        pull(&mut reader, 0)?;
        calls::update_offset(&mut reader, "ALONE", TOPIC, 0, end)?;
        pause(Duration::from_millis(300));

        let (stop, cut) = (AtomicBool::new(false), std::sync::OnceLock::new());
        let asked = std::thread::scope(|scope| -> Result<Vec<Asked>> {
            let asking = [
                scope.spawn(|| {
                    ask(&address, &stop, &cut, |c| {
                        calls::send(c, &calls::send_request(GROUP, 0, "", b"x")).map(drop)
                    })
                }),
                scope.spawn(|| {
                    ask(&address, &stop, &cut, |c| {
                        calls::max_offset(c, TOPIC, 0).map(drop)
                    })
                }),
                scope.spawn(|| {
                    ask(&address, &stop, &cut, |c| {
                        calls::query_offset(c, "ALONE", TOPIC, 0).map(drop)
                    })
                }),
                scope.spawn(|| {
                    ask(&address, &stop, &cut, |c| {
                        calls::update_offset(c, "ALONE", TOPIC, 0, end)
                    })
                }),
            ];
            pause(Duration::from_millis(300));
            network.cut_off(member)?;
            cut.get_or_init(Nanos::now);
            pause(Duration::from_millis(3_000));
            stop.store(true, Ordering::Relaxed);
            let mut asked = Vec::new();
            for thread in asking {
                let outcome = thread.join();
                asked.push(
                    outcome.map_err(|_panic| anyhow::anyhow!("an asking thread panicked"))??,
                );
            }
            Ok(asked)
        })?;
        let cut = *cut.get().context("cut")?;
        let after = |time: Option<Nanos>| time.map_or(Duration::ZERO, |time| time.since(cut));
        let what = ["send", "max offset", "consumer offset", "save of an offset"];
        for (what, asked) in what.into_iter().zip(asked) {
            say(format!(
                "{} cut off: the last {what} that was answered began {} after the cut, first refused {}, the slowest refusal after a second {}",
                if leads { "leader" } else { "follower" },
                ms(after(asked.answered)),
                ms(after(asked.refused)),
                ms(asked.slowest)
            ));
            // One lease, and time for a machine that is busy.
            ensure!(
                after(asked.answered) < Duration::from_millis(350 + 250),
                "{what}: {asked:?}"
            );
            ensure!(
                asked.refused.is_some() && after(asked.refused) < Duration::from_millis(2_500),
                "{what}: {asked:?}"
            );
            ensure!(
                asked.slowest < Duration::from_millis(1_500),
                "{what}: {asked:?}"
            );
        }

        // The others go on, and so does a consumer that reads from them.
        cluster.wait_member(other)?;
        preload(
            &cluster.members[other].address(),
            TOPIC,
            1,
            1_000,
            &History::default(),
        )?;
        let begin = pull(&mut reader, 0)?;
        ensure!(
            begin.code == response::SUCCESS && begin.next > 0,
            "{begin:?}"
        );
        for offset in [end, end + 1, end + 1_000] {
            let beyond = pull(&mut reader, offset)?;
            ensure!(
                (beyond.code, beyond.next) == (response::PULL_NOT_FOUND, offset),
                "{beyond:?}"
            );
        }
        let mut held = Connection::open(&address)?;
        held.write(&calls::pull_request(
            "ALONE",
            TOPIC,
            0,
            end + 500,
            Duration::from_secs(20),
        ))?;
        pause(Duration::from_millis(300));
        network.heal()?;
        let pulled = calls::pulled(held.read(Duration::from_secs(20))?)?;
        ensure!(
            pulled.next >= end + 500,
            "sent back from {} to {}",
            end + 500,
            pulled.next
        );
        end += 1_000;
        cluster.wait_member(member)?;
        wait_ok(
            "the rest to be read",
            BACK_WITHIN,
            Duration::from_millis(20),
            || {
                let last = pull(&mut reader, end - 1)?;
                ensure!(
                    (last.code, last.next) == (response::SUCCESS, end),
                    "{last:?}"
                );
                Ok(())
            },
        )?;
    }
    cluster.passed()
}

/// Cuts of every kind, one after another without waiting for order to return, with kills in between. `RAFTMQ_SEED` repeats
/// a sequence.
fn storm() -> Result<()> {
    let _turn = turn()?;
    let given = std::env::var("RAFTMQ_SEED")
        .ok()
        .and_then(|seed| seed.parse::<u32>().ok());
    let seed = given.unwrap_or_else(std::process::id);
    say(format!("RAFTMQ_SEED={seed}"));
    let (network, mut trial) = begin()?;
    let mut state = seed;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for _ in 0..20 {
        let (one, other) = (draw(3) as usize, draw(2) as usize);
        let other = (one + 1 + other) % 3;
        match draw(7) {
            0 => network.cut_one_way(one, other)?,
            1 => network.cut(one, other)?,
            2 => {
                network.cut(one, (one + 1) % 3)?;
                network.cut(one, (one + 2) % 3)?;
            }
            3 => {
                trial.cluster.kill(one)?;
                trial.cluster.start_member(one)?;
            }
            4 => {
                trial.cluster.signal(one, libc::SIGSTOP)?;
                trial.run_for(Duration::from_millis(u64::from(draw(1_500))))?;
                trial.cluster.signal(one, libc::SIGCONT)?;
            }
            _ => network.heal()?,
        }
        trial.run_for(Duration::from_millis(300 + u64::from(draw(1_200))))?;
    }
    heal(&network, &mut trial)?;
    trial.finish()
}

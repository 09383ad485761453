//! What a stop can leave behind in a store: a tail that was being written, and derived files that are gone.

use std::time::Duration;

use anyhow::{Context, Result};
use raftmq_tests::calls;
use raftmq_tests::cluster::Options;
use raftmq_tests::segments::{last_entry, scribble};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, TOPIC, Trial};
use raftmq_tests::wire::Connection;

/// Bytes behind the last entry that are no continuation: noise, the last entry once more, and the beginning of an entry
/// that would fit. None of it is read as a message, none of it keeps a member from starting.
#[test]
fn what_stands_behind_the_last_entry_is_never_replayed() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    for round in 0..3 {
        trial.run_for(Duration::from_millis(600))?;
        trial.cluster.kill_all();
        for (number, member) in trial.cluster.members.iter().enumerate() {
            let folder = member.commit_log();
            let (last, end) = last_entry(&folder)?;
            let junk = match (number + round) % 3 {
                0 => noise(5_000),
                1 => last.clone(),
                _ => half_of_the_next(&last, end),
            };
            scribble(&folder, end, &junk).with_context(|| format!("n{number}"))?;
        }
        trial.cluster.start_all()?;
        trial.cluster.wait_serving()?;
        trial.wait_progress()?;
    }
    trial.finish()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 99_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// The header of an entry that would be the next one, and half of its body: what a torn write leaves.
fn half_of_the_next(last: &[u8], end: u64) -> Vec<u8> {
    let mut next = last.to_vec();
    let index = u64::from_be_bytes(next[8..16].try_into().expect("8 bytes"));
    next[8..16].copy_from_slice(&(index + 1).to_be_bytes());
    next[24..32].copy_from_slice(&end.to_be_bytes());
    next.copy_within(40..44, 36); // its predecessor's checksum
    let body = (next.len() - 48) / 2;
    next.truncate(48 + body);
    next
}

/// The commit log is sufficient by itself: without the state database a member comes back with the same messages at the
/// same offsets, the same topics and the same consumer offsets.
#[test]
fn the_state_is_rebuilt_from_the_log() -> Result<()> {
    const GROUP: &str = "RebuiltGroup";
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    trial.run_for(Duration::from_millis(800))?;
    let leader = trial.cluster.wait_leader()?;
    let mut connection = Connection::open(&trial.cluster.members[leader].address())?;
    // The first pull creates the group.
    calls::pull(&mut connection, GROUP, TOPIC, 0, 0, Duration::ZERO)?;
    calls::update_offset(&mut connection, GROUP, TOPIC, 0, 7)?;
    trial.cluster.kill_all();
    for member in &trial.cluster.members {
        let state = member.store.join("state");
        std::fs::remove_dir_all(&state).with_context(|| format!("remove {}", state.display()))?;
    }
    trial.cluster.start_all()?;
    trial.cluster.wait_serving()?;
    let leader = trial.cluster.wait_leader()?;
    let mut connection = Connection::open(&trial.cluster.members[leader].address())?;
    let saved = calls::query_offset(&mut connection, GROUP, TOPIC, 0)?;
    anyhow::ensure!(
        saved == Some(7),
        "offset 7 was saved, {saved:?} was rebuilt"
    );
    trial.wait_progress()?;
    trial.finish()
}

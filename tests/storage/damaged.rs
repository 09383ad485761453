//! Bytes that rot, and files that are gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::figures::say;
use raftmq_tests::segments::{file, flip, flip_byte, starts};
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::{pause, wait_ok};
use raftmq_tests::wire::Connection;

use crate::trimmed::wait_segments;
use crate::{SEGMENT, options};

const WITHIN: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);

const MENDED: &str = "damage in the log is mended";

/// Two members have damage in closed segments, each at other places. Nobody is ever given it, and each is mended from those
/// that have what belongs there.
pub(crate) fn in_the_log() -> Result<()> {
    let _turn = turn()?;
    let options = options().with("storeScrubRate", "1073741824");
    let mut trial = Trial::begin(options, Load::default())?;
    let leader = trial.cluster.wait_leader()?;
    wait_segments(&trial, leader, 3)?;
    let damage: [(usize, &[u64]); 2] = [
        // In the header of the very first entry, in a body, in the last bytes of a segment, in two entries side by side.
        (leader, &[10, 1_000_000, 1_000_100]),
        (
            (leader + 1) % 3,
            &[2_500_000, SEGMENT - 1, SEGMENT + 40, 6_000_000],
        ),
    ];
    let mut sound = Vec::new();
    for (member, places) in damage {
        let folder = trial.cluster.members[member].commit_log();
        let bytes = std::fs::read(file(&folder, 0))?;
        for place in places {
            flip(&folder, *place)?;
        }
        sound.push((folder, bytes));
    }
    // What a member has written or verified it believes for a moment: these bytes are in its page cache, not on a disk.
    pause(Duration::from_secs(3));
    // Found on reading, by whoever reads, or by the search that each start begins.
    for member in 0..3 {
        trial.require_intact(member)?;
    }
    let mut mended = Vec::new();
    for (member, _) in damage {
        trial.cluster.terminate(member, WITHIN)?;
        mended.push(trial.cluster.said(member, MENDED));
        trial.cluster.start_member(member)?;
        trial.cluster.wait_member(member)?;
        trial.require_intact(member)?;
    }
    for (folder, bytes) in sound {
        let what = format!("{} to be mended", folder.display());
        wait_ok(&what, WITHIN, STEP, || {
            let found = std::fs::read(file(&folder, 0))?;
            let other = found
                .iter()
                .zip(&bytes)
                .position(|(found, sound)| found != sound);
            ensure!(other.is_none(), "it differs at {other:?}");
            Ok(())
        })?;
    }
    for ((member, _), before) in damage.into_iter().zip(mended) {
        let mended = before + trial.cluster.said(member, MENDED);
        ensure!(mended > 0, "n{member} does not say that it mended anything");
        say(format!("n{member} mended {mended} places"));
    }
    trial.wait_progress()?;
    trial.finish()
}

/// Waits until a member has caught up with what it may have lost, so that it votes.
fn wait_voting(trial: &Trial, member: usize) -> Result<()> {
    let name = trial.cluster.members[member].name();
    wait_ok(&format!("{name} to vote"), WITHIN, STEP, || {
        let address = trial.cluster.members[member].address();
        let recovering = calls::runtime_info(&mut Connection::open(&address)?, "raftRecovering")?;
        ensure!(recovering == "false", "raftRecovering is {recovering}");
        Ok(())
    })
}

/// A follower is stopped, loses something, and comes up by itself each time.
pub(crate) fn while_stopped() -> Result<()> {
    let _turn = turn()?;
    let options = options().with("storeScrubRate", "1073741824");
    let mut trial = Trial::begin(options, Load::default())?;
    let leader = trial.cluster.wait_leader()?;
    let victim = (leader + 1) % 3;
    let store = trial.cluster.members[victim].store.clone();
    let log = trial.cluster.members[victim].commit_log();
    wait_segments(&trial, leader, 2)?;
    wait_ok("a file of the state database", WITHIN, STEP, || {
        tables(&store)
    })?;

    let step = |trial: &mut Trial, what: &str, damage: &dyn Fn() -> Result<()>| {
        trial.cluster.kill(victim)?;
        damage().context(what.to_owned())?;
        trial.cluster.start_member(victim)?;
        trial.cluster.wait_member(victim).context(what.to_owned())?;
        say(format!("n{victim} is up again with {what}"));
        trial.wait_progress()
    };
    let rebuilt = "the state database is damaged";
    step(&mut trial, "a flipped byte in its state database", &|| {
        for table in tables(&store)? {
            flip_byte(&table, table.metadata()?.len() / 3)?;
        }
        Ok(())
    })?;
    trial.cluster.wait_said(victim, rebuilt)?;
    trial.cluster.wait_member(victim)?;
    // If its state was fetched anew it catches up before it votes.
    wait_voting(&trial, victim)?;
    step(&mut trial, "a flipped byte in a copy of its vote", &|| {
        flip_byte(&store.join("vote"), 9)
    })?;
    wait_voting(&trial, victim)?;
    ensure!(
        trial.cluster.said(victim, "votes again") == 0,
        "n{victim} gave its vote up although a copy of it is whole"
    );
    step(&mut trial, "both copies of its vote damaged", &|| {
        std::fs::write(store.join("vote"), [0x5a; 8192]).context("spoil the vote")
    })?;
    trial.cluster.wait_said(victim, "votes again")?;
    step(&mut trial, "no state database", &|| {
        std::fs::remove_dir_all(store.join("state")).context("remove the state")
    })?;
    step(&mut trial, "a segment in the middle missing", &|| {
        let second = *starts(&log)?.get(1).context("few segments")?;
        std::fs::remove_file(file(&log, second)).context("remove a segment")
    })?;
    step(&mut trial, "its first segment missing", &|| {
        let first = *starts(&log)?.first().context("no segment")?;
        std::fs::remove_file(file(&log, first)).context("remove a segment")
    })?;
    trial.finish()
}

/// The files of the state database that hold rows; one that a kill left behind may be among them, and is not read any more.
fn tables(store: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(store.join("state"))?.flatten();
    let tables: Vec<_> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "sst"))
        .collect();
    ensure!(!tables.is_empty(), "no table yet");
    Ok(tables)
}

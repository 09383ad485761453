//! Members that cannot go on with what they have: too far behind, wiped, without a state, with
//! damaged bytes. Each is brought up by the others.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use support::{Cluster, SEGMENT, open_store, until};

/// Stores enough to have something to trim, and trims it.
async fn trimmed(name: &str) -> Cluster {
    let cluster = Cluster::started(name, 3).await;
    cluster.fill(3 * SEGMENT).await;
    cluster.settled().await;
    cluster
}

async fn caught_up(cluster: &mut Cluster) {
    let what = "all members are up to date and vote";
    cluster
        .tend(what, |cluster| {
            let marks: Vec<_> = cluster.groups.values().map(|g| g.watermarks()).collect();
            let last = marks.iter().filter_map(|mark| mark.last).max();
            marks
                .iter()
                .all(|mark| mark.applied == last && mark.last == last)
                && !cluster.groups.values().any(|group| group.recovering())
        })
        .await;
    cluster.assert_equal().await;
}

/// A follower that is not the leader.
async fn follower(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await;
    (0..3).find(|id| *id != leader).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_down_past_the_log_is_seeded() {
    let mut cluster = trimmed("down").await;
    let away = follower(&cluster).await;
    cluster.stop(away).await;
    cluster.fill(3 * SEGMENT).await;
    cluster.trim(1).await;
    cluster.start(away).await;
    cluster.store("after", 0, b"one more").await;
    caught_up(&mut cluster).await;
    let log = &cluster.group(away).store().log;
    assert!(log.min_position() > 0, "the old log is gone");
    // It can do without the others' help from here on, also after a restart.
    cluster.kill(away);
    cluster.start(away).await;
    caught_up(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_is_seeded_and_does_not_vote_before() {
    let mut cluster = trimmed("wiped").await;
    let wiped = follower(&cluster).await;
    cluster.trim(2).await;
    cluster.put_down(wiped).await;
    fs::remove_dir_all(cluster.folder(wiped)).unwrap();
    cluster.start(wiped).await;
    assert!(cluster.group(wiped).recovering());
    caught_up(&mut cluster).await;
    // What it has is worth a vote now.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.store("after", 0, b"by the remaining two").await;
    cluster.start(leader).await;
    caught_up(&mut cluster).await;
}

/// With the whole log in the others' hands the leader could send it, as fast as it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_is_seeded_with_a_long_log() {
    let mut cluster = trimmed("whole").await;
    let wiped = follower(&cluster).await;
    cluster.put_down(wiped).await;
    fs::remove_dir_all(cluster.folder(wiped)).unwrap();
    let mut options = cluster.options(wiped);
    // It has less than that.
    options.seed_from = 4 * SEGMENT;
    let store = open_store(&options, cluster.folder(wiped)).await;
    assert_eq!(store.log.last(), None);
    drop(store);
    options.seed_from = 2 * SEGMENT;
    let store = open_store(&options, cluster.folder(wiped)).await;
    assert!(store.log.end_position() > 2 * SEGMENT);
    drop(store);
    cluster.start(wiped).await;
    caught_up(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_fetched_or_built_again() {
    let mut cluster = trimmed("state").await;
    let member = follower(&cluster).await;
    // With the whole log there it is built again,
    cluster.put_down(member).await;
    fs::remove_dir_all(cluster.folder(member).join("state")).unwrap();
    cluster.start(member).await;
    caught_up(&mut cluster).await;
    // without its beginning it is fetched, and the log stays.
    cluster.trim(2).await;
    cluster.put_down(member).await;
    fs::remove_dir_all(cluster.folder(member).join("state")).unwrap();
    cluster.start(member).await;
    caught_up(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_where_it_was_cut() {
    let mut cluster = trimmed("cut").await;
    cluster.trim(3).await;
    let wiped = follower(&cluster).await;
    cluster.put_down(wiped).await;
    fs::remove_dir_all(cluster.folder(wiped)).unwrap();
    cluster.start(wiped).await;
    let group = cluster.group(wiped);
    until("it asks to be seeded", || {
        group.restart_wanted().borrow().clone()
    })
    .await;
    cluster.stop(wiped).await;
    let mut options = cluster.options(wiped);
    options.seed_rate_max = 4 * 1024 * 1024;
    let fetched = cluster.folder(wiped).join("commitlog/seed");
    let mut cuts = 0;
    loop {
        let opening = open_store(&options, cluster.folder(wiped));
        match tokio::time::timeout(Duration::from_millis(700), opening).await {
            Ok(store) => {
                drop(store);
                break;
            }
            Err(_elapsed) => cuts += 1,
        }
        assert!(cuts < 30, "it never gets further");
        // The thread that fetches ends by itself.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(cuts > 0, "it was cut at least once");
    assert!(!fetched.exists());
    cluster.start(wiped).await;
    caught_up(&mut cluster).await;
}

/// Flips a byte in the middle of the nth segment of a member that does not run.
fn flip(folder: &Path, nth: u64, offset: u64) {
    let path = folder.join(format!("commitlog/{:020}", nth * SEGMENT));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_of_two_members_are_mended_by_each_other() {
    let mut cluster = Cluster::new("flips", 3);
    cluster.tune = |options| options.scrub_rate = 1 << 30;
    cluster.start_all().await;
    cluster.fill(3 * SEGMENT).await;
    cluster.settled().await;
    for id in 0..3 {
        cluster.put_down(id).await;
    }
    flip(&cluster.folder(0), 0, SEGMENT / 2);
    flip(&cluster.folder(1), 1, SEGMENT / 3);
    flip(&cluster.folder(1), 2, SEGMENT / 2);
    // The third one stays away: the two have only each other.
    cluster.start(0).await;
    cluster.start(1).await;
    until("damage is found and mended", || {
        let mended = |id: u64| {
            let group = cluster.group(id);
            group.scrub_stats().passes() > 0 && group.store().log.holes().is_empty()
        };
        (mended(0) && mended(1)).then_some(())
    })
    .await;
    cluster.start(2).await;
    caught_up(&mut cluster).await;
    for nth in 0..3 {
        let path = |id| {
            let folder = cluster.folder(id);
            folder.join(format!("commitlog/{:020}", nth * SEGMENT))
        };
        let bytes = |id| fs::read(path(id)).unwrap();
        assert!(
            bytes(0) == bytes(2) && bytes(1) == bytes(2),
            "segment {nth}"
        );
    }
}

/// What is applied again at a start is read before the Raft core runs: damage that is met only then is
/// mended too.
#[tokio::test(flavor = "multi_thread")]
async fn damage_met_while_the_log_is_applied_again_is_mended() {
    let mut cluster = Cluster::started("replay", 3).await;
    cluster.fill(2 * SEGMENT).await;
    cluster.settled().await;
    let member = follower(&cluster).await;
    cluster.put_down(member).await;
    fs::remove_dir_all(cluster.folder(member).join("state")).unwrap();
    flip(&cluster.folder(member), 0, SEGMENT / 2);
    cluster.start(member).await;
    caught_up(&mut cluster).await;
    assert!(cluster.group(member).store().log.holes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_vote_costs_the_vote_until_caught_up() {
    let mut cluster = Cluster::started("vote", 3).await;
    cluster.store("t", 0, b"one").await;
    let member = follower(&cluster).await;
    cluster.put_down(member).await;
    let path = cluster.folder(member).join("vote");
    let mut bytes = fs::read(&path).unwrap();
    bytes[9] ^= 1; // in both copies
    bytes[4096 + 9] ^= 1;
    fs::write(&path, bytes).unwrap();
    cluster.start(member).await;
    assert!(cluster.group(member).recovering());
    caught_up(&mut cluster).await;
}

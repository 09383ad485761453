//! Confs that would make a member unsafe: one line that says what is wrong, and a non-zero exit.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use raftmq_tests::cluster::{Cluster, GROUP, Options};
use raftmq_tests::serial::turn;

use super::stores::require_start_refused;

/// A group that is not running, and the conf of its first member.
fn prepared() -> Result<(Cluster, String)> {
    let cluster = Cluster::prepare(Options::default())?;
    let conf = cluster.conf_of(&cluster.members[0], GROUP);
    Ok((cluster, conf))
}

fn write(cluster: &Cluster, conf: &str) -> Result<std::path::PathBuf> {
    let path = cluster.root().join("changed.conf");
    std::fs::write(&path, conf).context("write a conf")?;
    Ok(path)
}

#[test]
fn confs_that_make_a_member_unsafe_are_refused() -> Result<()> {
    let _turn = turn()?;
    let (mut cluster, conf) = prepared()?;
    let raft_port = cluster.members[0].raft_port;
    let port = cluster.members[0].port;
    let changes: [(String, &[&str]); 9] = [
        ("dLegerSelfId=n7".to_owned(), &["dLegerSelfId", "n7"]),
        (
            "dLegerSelfId=node-1".to_owned(),
            &["dLegerSelfId", "node-1"],
        ),
        (
            format!("dLegerPeers=n0-127.0.0.1:{raft_port};n0-127.0.0.1:{port}"),
            &["dLegerPeers", "n0"],
        ),
        (
            format!("dLegerPeers=n0-127.0.0.1:{raft_port};n1-127.0.0.1:{raft_port}"),
            &["dLegerPeers"],
        ),
        (
            "dLegerPeers=nonsense".to_owned(),
            &["dLegerPeers", "nonsense"],
        ),
        (format!("listenPort={raft_port}"), &["listenPort"]),
        (format!("listenPort={}", raft_port + 2), &["listenPort"]),
        (
            "mappedFileSizeCommitLog=4096".to_owned(),
            &["mappedFileSizeCommitLog"],
        ),
        (
            "flushDiskType=SOMETIMES".to_owned(),
            &["flushDiskType", "SOMETIMES"],
        ),
    ];
    for (change, words) in changes {
        // The last line of a key counts.
        let path = write(&cluster, &format!("{conf}{change}\n"))?;
        require_start_refused(&cluster, &path, words).with_context(|| change.clone())?;
    }
    let missing = Path::new("/nonexistent/broker.conf");
    require_start_refused(&cluster, missing, &["/nonexistent/broker.conf"])?;
    cluster.passed()
}

/// What cannot do harm is warned about by name and does not keep the member from starting.
#[test]
fn odd_but_harmless_confs_start_and_warn() -> Result<()> {
    let _turn = turn()?;
    let odd = [
        ("noSuchKey", "1"),
        ("defaultTopicQueueNums", "many"),
        ("enableControllerMode", "true"),
        ("maxMessageSize", " 4194304 "),
    ];
    let options = odd.iter().fold(Options::single(), |options, (key, value)| {
        options.with(key, value)
    });
    let mut cluster = Cluster::start(options)?;
    let log = std::fs::read_to_string(&cluster.members[0].log).context("read the log")?;
    for name in ["noSuchKey", "defaultTopicQueueNums", "enableControllerMode"] {
        ensure!(log.contains(name), "nothing is said about {name}");
    }
    ensure!(log.contains("boot success"), "the boot line is missing");
    cluster.passed()
}

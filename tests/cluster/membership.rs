//! Members come, go, are replaced and move while everyone sends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::cluster::{Cluster, GROUP, Options};
use raftmq_tests::figures::say;
use raftmq_tests::serial::turn;
use raftmq_tests::trial::{Load, Trial};
use raftmq_tests::wait::wait_for;
use raftmq_tests::wire::Connection;
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);

const REMOVED: &str = "this member was removed from the group";

/// A fourth member joins and gets a vote, a first one leaves, a second one dies and a new one takes its place. At the end
/// one of the three of the beginning is left, and restarting all finds the members that are, not those of the confs.
#[test]
fn members_come_and_go_under_load() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    refusals(&trial.cluster)?;

    let third = trial.cluster.prepare_joining()?;
    let place = trial.cluster.raft_address(third);
    let add = ["addMember", "-g", GROUP, "-i", "n3", "-a", &place];
    refused(&trial.cluster, &add, "n3 does not answer")?;
    trial.cluster.start_member(third)?;
    wait_for("n3 to be added", WITHIN, STEP, || {
        trial.cluster.admin(&add).ok()
    })?;
    ensure!(roles(&trial.cluster)?.contains("n3 learner"));
    promote(&trial.cluster, "n3")?;
    trial.wait_progress()?;

    // A member leaves that leads: leadership is handed over first.
    let transfer = ["transferLeader", "-g", GROUP, "-i", "n1"];
    trial.cluster.admin(&transfer)?;
    let remove = ["removeMember", "-g", GROUP, "-i", "n1", "--json"];
    let after = trial.cluster.admin(&remove)?;
    ensure!(!after.contains("\"id\": 1"), "{after}");
    let leaver = trial.cluster.index_of(1)?;
    trial.cluster.wait_said(leaver, REMOVED)?;
    let address = trial.cluster.members[leaver].address();
    wait_for("n1 to leave the routes", WITHIN, STEP, || {
        let members = trial.cluster.registered(0).ok()?;
        (!members.iter().any(|(_, member)| *member == address)).then_some(())
    })?;
    trial.wait_progress()?;
    trial.cluster.terminate(leaver, WITHIN)?;
    trial.cluster.forget(leaver);

    let dead = trial.cluster.index_of(2)?;
    trial.cluster.kill(dead)?;
    trial.wait_progress()?;
    let remove = ["removeMember", "-g", GROUP, "-i", "n3"];
    wait_for("n2 to be missed", WITHIN, STEP, || {
        let status = members(&trial.cluster).ok()?;
        let mut all = status["members"].as_array()?.iter();
        let dead = all.find(|member| member["id"] == 2)?;
        // An election timeout, or never if another member leads since.
        let contact = dead["lastContactMs"].as_u64();
        contact.is_none_or(|silent| silent > 350).then_some(())
    })?;
    refused(&trial.cluster, &remove, "this would lose the quorum")?;
    let new = trial.cluster.prepare_joining()?;
    trial.cluster.start_member(new)?;
    let place = trial.cluster.raft_address(new);
    wait_for("n4 to listen", WITHIN, STEP, || {
        std::net::TcpStream::connect(&place).ok()
    })?;
    let words = [
        "replaceMember",
        "-g",
        GROUP,
        "-i",
        "n2",
        "-r",
        "n4",
        "-a",
        &place,
        "-t",
        "60",
    ];
    say(trial.cluster.admin(&words)?);
    ensure!(roles(&trial.cluster)? == "n0 voter, n3 voter, n4 voter");
    trial.cluster.forget(dead);
    trial.cluster.wait_serving()?;
    trial.wait_progress()?;

    // Those that came later carry the group without the first.
    let first = trial.cluster.index_of(0)?;
    trial.cluster.kill(first)?;
    trial.cluster.wait_leader()?;
    trial.cluster.start_member(first)?;
    trial.cluster.wait_member(first)?;
    say(trial.cluster.admin(&["memberStatus", "-g", GROUP])?);
    trial.finish()
}

/// A member is stopped and started at another address, which only the group is told.
#[test]
fn a_member_moves_under_load() -> Result<()> {
    let _turn = turn()?;
    let mut trial = Trial::begin(Options::default(), Load::default())?;
    let leader = trial.cluster.wait_leader()?;
    let (mover, other) = ((leader + 1) % 3, (leader + 2) % 3);
    trial.cluster.terminate(mover, WITHIN)?;
    trial.cluster.move_member(mover)?;
    let (id, place) = (format!("n{mover}"), trial.cluster.raft_address(mover));
    let update = ["updateMember", "-g", GROUP, "-i", &id, "-a", &place];
    refused(&trial.cluster, &update, "does not answer")?;
    let taken = trial.cluster.raft_address(other);
    let wrong = ["updateMember", "-g", GROUP, "-i", &id, "-a", &taken];
    refused(&trial.cluster, &wrong, "is in use")?;
    trial.cluster.start_member(mover)?;
    wait_for("the move to be taken", WITHIN, STEP, || {
        trial.cluster.admin(&update).ok()
    })?;
    // Its vote is needed now.
    trial.cluster.kill(other)?;
    trial.wait_progress()?;
    trial.cluster.start_member(other)?;
    trial.cluster.wait_member(other)?;
    // The one whose conf knows nothing of it finds it, and forwards to it.
    let transfer = ["transferLeader", "-g", GROUP, "-i", &id];
    wait_for("the moved member to lead", WITHIN, STEP, || {
        trial.cluster.admin(&transfer).ok()
    })?;
    trial.cluster.wait_serving()?;
    trial.wait_progress()?;
    let status = members(&trial.cluster)?;
    let address = &status["members"][mover]["address"];
    ensure!(*address == place.as_str(), "{status}");
    trial.finish()
}

/// A learner that does not answer, or lacks too much, gets no vote and nothing else changes, until it has caught up.
#[test]
fn a_learner_that_is_behind_gets_no_vote() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    let leader = cluster.wait_leader()?;
    let learner = cluster.prepare_joining()?;
    cluster.start_member(learner)?;
    let place = cluster.raft_address(learner);
    let add = ["addMember", "-g", GROUP, "-i", "n3", "-a", &place];
    wait_for("n3 to be added", WITHIN, STEP, || cluster.admin(&add).ok())?;
    wait_without_lag(&cluster, 3)?;

    cluster.signal(learner, libc::SIGSTOP)?;
    let promote = ["promoteMember", "-g", GROUP, "-i", "n3"];
    refused(
        &cluster,
        &promote,
        "n3 has not caught up: it does not answer",
    )?;
    // 1,000 entries are few enough to be given a vote.
    send_each(&cluster, leader, 1_100)?;
    refused(&cluster, &promote, "n3 has not caught up: it lacks 11")?;
    let output = cluster.run_admin(&[&promote[..], &["--json"]].concat())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(output.stdout.is_empty(), "{output:?}");
    ensure!(complaint.lines().count() == 1, "{complaint}");
    ensure!(
        complaint.contains("n3 has not caught up: it lacks 11")
            && complaint.contains("try again when memberStatus shows less"),
        "{complaint}"
    );
    let before = "n0 voter, n1 voter, n2 voter, n3 learner";
    ensure!(roles(&cluster)? == before);

    cluster.signal(learner, libc::SIGCONT)?;
    wait_without_lag(&cluster, 3)?;
    let after = cluster.admin(&[&promote[..], &["--json"]].concat())?;
    ensure!(after.contains("\"id\": 3"), "{after}");
    ensure!(roles(&cluster)? == "n0 voter, n1 voter, n2 voter, n3 voter");
    cluster.passed()
}

/// A follower is frozen while 1,000 messages are sent. What it lacks is told, as JSON and in the table, how far the others
/// are, and that it lacks nothing once it has woken up.
#[test]
fn the_status_tells_who_lacks_what() -> Result<()> {
    const MESSAGES: u64 = 1_000;
    let _turn = turn()?;
    let mut cluster = Cluster::start(Options::default())?;
    let leader = cluster.wait_leader()?;
    let (frozen, other) = ((leader + 1) % 3, (leader + 2) % 3);
    wait_without_lag(&cluster, frozen)?;
    let before = members(&cluster)?;
    cluster.signal(frozen, libc::SIGSTOP)?;
    send_each(&cluster, leader, MESSAGES)?;
    let status = members(&cluster)?;

    let lag = number(&status, frozen, "lagEntries")?;
    ensure!(lag >= MESSAGES, "{status}");
    ensure!(
        number(&status, frozen, "lagBytes")? > MESSAGES * 48,
        "{status}"
    );
    let end = number(&status, leader, "lastIndex")?;
    ensure!(
        number(&status, frozen, "lastIndex")? + lag == end,
        "{status}"
    );
    let silent = &status["members"][frozen];
    ensure!(silent["answers"] == false, "{status}");
    for key in ["term", "committedIndex", "appliedIndex", "flushedPosition"] {
        ensure!(silent[key].is_null(), "who said the {key}? {status}");
    }
    let later = members(&cluster)?;
    let contact = |status: &Value, member: usize| number(status, member, "lastContactMs");
    let (at_first, then) = (contact(&status, frozen)?, contact(&later, frozen)?);
    ensure!(0 < at_first && at_first < then, "{status}, later {later}");
    ensure!(contact(&later, leader)? == 0, "{later}");
    ensure!(contact(&later, other)? < then, "{later}");

    let term = number(&status, leader, "term")?;
    ensure!(term > 0, "{status}");
    for member in [leader, other] {
        ensure!(number(&status, member, "term")? == term, "{status}");
        let mut above = end;
        for key in ["lastIndex", "committedIndex", "appliedIndex"] {
            let (was, is) = (number(&before, member, key)?, number(&status, member, key)?);
            // That the last ones are committed, a follower hears with what comes next.
            ensure!(
                is + 10 >= was + MESSAGES && is <= above,
                "{key} of n{member}: {was}, then {status}"
            );
            above = is;
        }
        let flushed = "flushedPosition";
        ensure!(
            number(&status, member, flushed)? > number(&before, member, flushed)?,
            "{status}"
        );
    }

    let table = cluster.admin(&["memberStatus", "-g", GROUP])?;
    say(&table);
    ensure!(cell(&table, frozen, "#Role")? == "voter?", "{table}");
    for (column, least) in [("#Lag", MESSAGES), ("#Lag(B)", MESSAGES * 48)] {
        let lacks: u64 = cell(&table, frozen, column)?.parse()?;
        ensure!(lacks >= least, "{table}");
    }
    ensure!(cell(&table, leader, "#Role")? == "leader", "{table}");
    ensure!(cell(&table, leader, "#Lag")? == "0", "{table}");

    cluster.signal(frozen, libc::SIGCONT)?;
    wait_without_lag(&cluster, frozen)?;
    let status = members(&cluster)?;
    ensure!(number(&status, frozen, "lastIndex")? >= end, "{status}");
    cluster.passed()
}

/// A number that the status has of a member.
fn number(status: &Value, member: usize, key: &str) -> Result<u64> {
    let value = status["members"][member][key].as_u64();
    value.with_context(|| format!("{key} of n{member}: {status}"))
}

/// What a table says in a member's row under a heading.
fn cell<'a>(table: &'a str, member: usize, heading: &str) -> Result<&'a str> {
    let mut rows = table.lines().map(str::split_whitespace);
    let mut headings = rows.next().context("an empty table")?;
    let column = headings.position(|word| word == heading);
    let id = format!("n{member}");
    let row = rows.find(|row| row.clone().next() == Some(&id));
    let cell = row.zip(column).and_then(|(mut row, at)| row.nth(at));
    cell.with_context(|| format!("no {heading} of {id} in\n{table}"))
}

/// Sends so many messages, an entry of the log for each: one goes when the one before is acknowledged.
fn send_each(cluster: &Cluster, leader: usize, count: u64) -> Result<()> {
    let mut connection = Connection::open(&cluster.members[leader].address())?;
    let message = calls::send_request(GROUP, 0, "", b"message");
    for _ in 0..count {
        calls::send(&mut connection, &message)?;
    }
    Ok(())
}

/// Waits until a member answers and has all entries there are.
fn wait_without_lag(cluster: &Cluster, id: usize) -> Result<()> {
    let what = format!("n{id} to lack nothing");
    wait_for(&what, WITHIN, STEP, || {
        let status = members(cluster).ok()?;
        let mut all = status["members"].as_array()?.iter();
        let member = all.find(|member| member["id"] == id)?;
        let lacks_nothing = member["lagEntries"] == 0 && member["lagBytes"] == 0;
        (member["answers"] == true && lacks_nothing).then_some(())
    })
}

fn refusals(cluster: &Cluster) -> Result<()> {
    let free = "127.0.0.1:9";
    for (words, part) in [
        (
            ["promoteMember", "-i", "n9", "", ""],
            "no member of the group has the id n9",
        ),
        (
            ["promoteMember", "-i", "n0", "", ""],
            "n0 has a vote already",
        ),
        (
            ["removeMember", "-i", "n9", "", ""],
            "its members are n0, n1, n2",
        ),
        (["addMember", "-i", "n0", "-a", free], "the id n0 is in use"),
        (["addMember", "-i", "n7", "-a", "nowhere"], "is no address"),
        (["addMember", "-i", "n7", "-a", free], "n7 does not answer"),
        (
            ["transferLeader", "-i", "n7", "", ""],
            "member 7 has no vote",
        ),
    ] {
        let mut words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.extend(["-g", GROUP]);
        refused(cluster, &words, part)?;
    }
    Ok(())
}

fn refused(cluster: &Cluster, words: &[&str], part: &str) -> Result<()> {
    match cluster.admin(words) {
        Ok(said) => anyhow::bail!("{words:?} was not refused: {said}"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains(part), "{words:?}: {text}");
            Ok(())
        }
    }
}

fn members(cluster: &Cluster) -> Result<Value> {
    serde_json::from_str(&cluster.admin(&["memberStatus", "-g", GROUP, "--json"])?).context("JSON")
}

/// `n0 leader, n1 voter, …`, leaders called voters.
fn roles(cluster: &Cluster) -> Result<String> {
    let status = members(cluster)?;
    let members = status["members"].as_array().context("no members")?;
    let role = |member: &Value| {
        let role = member["role"].as_str().unwrap_or_default();
        format!("n{} {}", member["id"], role.replace("leader", "voter"))
    };
    Ok(members.iter().map(role).collect::<Vec<_>>().join(", "))
}

fn promote(cluster: &Cluster, id: &str) -> Result<()> {
    let words = ["promoteMember", "-g", GROUP, "-i", id];
    wait_for("a learner to catch up", WITHIN, STEP, || {
        cluster.admin(&words).ok()
    })?;
    ensure!(roles(cluster)?.contains(&format!("{id} voter")));
    Ok(())
}

//! `memberStatus`, `addMember`, `promoteMember`, `removeMember`, `replaceMember`, `updateMember`: who belongs to a broker
//! group. Each prints the members as they are then.

use std::time::{Duration, Instant};

use raftmq_proto::body::{GroupMember, GroupMembers};
use raftmq_proto::header::RaftChangeMembersRequestHeader;
use serde_json::json;

use super::{Call, Command, Running, clusters, member_id};
use crate::options::{Need, Opt};

const ID: Opt = Opt::value("i", "memberId", Need::Required, "the member, such as n3");
const ADDRESS: Opt = Opt::value(
    "a",
    "address",
    Need::Required,
    "where it listens for the other members, such as 192.168.0.4:40911",
);
/// How often a member that catches up is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Entries by which it may be behind when it is given the vote.
const CLOSE: u64 = 500;

const fn command(
    name: &'static str,
    class: &'static str,
    description: &'static str,
    own_options: &'static [Opt],
    run: for<'a> fn(Call<'a>) -> Running<'a>,
) -> Command {
    Command {
        name,
        class,
        description,
        own_options,
        run,
    }
}

/// In the order in which they are used.
pub(crate) const COMMANDS: [Command; 6] = [
    command(
        "memberStatus",
        "MemberStatusCommand",
        "Who belongs to a broker group, and how far each member is.",
        &[clusters::MEMBER, clusters::GROUP],
        |call| Box::pin(status(call)),
    ),
    command(
        "addMember",
        "AddMemberCommand",
        "Add a member, started with raftJoin=true, to a broker group, without a vote.",
        &[clusters::MEMBER, clusters::GROUP, ID, ADDRESS],
        |call| Box::pin(change(call, "add")),
    ),
    command(
        "promoteMember",
        "PromoteMemberCommand",
        "Give a member that has caught up a vote.",
        &[clusters::MEMBER, clusters::GROUP, ID],
        |call| Box::pin(change(call, "promote")),
    ),
    command(
        "removeMember",
        "RemoveMemberCommand",
        "Remove a member from its broker group.",
        &[clusters::MEMBER, clusters::GROUP, ID],
        |call| Box::pin(change(call, "remove")),
    ),
    command(
        "replaceMember",
        "ReplaceMemberCommand",
        "Put a new member, started with raftJoin=true, in the place of a dead one.",
        &[
            clusters::MEMBER,
            clusters::GROUP,
            Opt::value(
                "i",
                "memberId",
                Need::Required,
                "the dead member, such as n1",
            ),
            Opt::value(
                "r",
                "replacement",
                Need::Required,
                "the new member, such as n3",
            ),
            Opt::value(
                "a",
                "address",
                Need::Optional,
                "where the new member listens for the others, unless it was added before",
            ),
            Opt::value(
                "t",
                "timeoutSeconds",
                Need::Optional,
                "how long it may take to catch up (default: 600)",
            ),
        ],
        |call| Box::pin(replace(call)),
    ),
    command(
        "updateMember",
        "UpdateMemberCommand",
        "Tell a broker group that a member is at another address now.",
        &[clusters::MEMBER, clusters::GROUP, ID, ADDRESS],
        |call| Box::pin(change(call, "move")),
    ),
];

async fn status(call: Call<'_>) -> anyhow::Result<()> {
    let address = clusters::any_member(call.admin, call.given).await?;
    let members = call.admin.member_status(&address).await?;
    print(call, &members)
}

async fn change(call: Call<'_>, change: &str) -> anyhow::Result<()> {
    let address = clusters::any_member(call.admin, call.given).await?;
    let header = RaftChangeMembersRequestHeader {
        change: change.to_owned(),
        member_id: id(&call, "i")?,
        address: call.given.value("a").map(ToOwned::to_owned),
        replacement: None,
    };
    let members = call.admin.change_members(&address, &header).await?;
    print(call, &members)
}

/// Adds the new member if need be, waits until it has caught up, and then exchanges the two in one change.
async fn replace(call: Call<'_>) -> anyhow::Result<()> {
    let asked = clusters::any_member(call.admin, call.given).await?;
    let (dead, new) = (id(&call, "i")?, id(&call, "r")?);
    let patience = Duration::from_secs(call.given.number("t", 600)?);
    let mut members = call.admin.member_status(&asked).await?;
    let find = |members: &GroupMembers| {
        let mut all = members.members.iter();
        all.find(|member| i64::try_from(member.id) == Ok(new))
            .cloned()
    };
    if find(&members).is_none() {
        let Some(place) = call.given.value("a") else {
            anyhow::bail!("n{new} is not in the group yet: say with -a where it is");
        };
        let header = RaftChangeMembersRequestHeader {
            change: "add".to_owned(),
            member_id: new,
            address: Some(place.to_owned()),
            replacement: None,
        };
        members = call.admin.change_members(&asked, &header).await?;
    }
    let begin = Instant::now();
    loop {
        let member = find(&members);
        let close = |member: &GroupMember| {
            member.answers
                && !member.recovering
                && member.lag_entries.is_some_and(|lag| lag <= CLOSE)
        };
        if member.as_ref().is_some_and(close) {
            break;
        }
        if begin.elapsed() >= patience {
            let lag = member.and_then(|member| member.lag_entries);
            let lag = lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string());
            anyhow::bail!(
                "n{new} has not caught up within {} s (it lacks {lag} entries); it stays a learner, try again later",
                patience.as_secs()
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        members = call.admin.member_status(&asked).await?;
    }
    let header = RaftChangeMembersRequestHeader {
        change: "replace".to_owned(),
        member_id: dead,
        address: None,
        replacement: Some(new),
    };
    let members = call.admin.change_members(&asked, &header).await?;
    print(call, &members)
}

fn id(call: &Call<'_>, option: &str) -> anyhow::Result<i64> {
    let id = member_id(call.given.value(option).unwrap_or_default())?;
    Ok(i64::try_from(id)?)
}

fn print(mut call: Call<'_>, members: &GroupMembers) -> anyhow::Result<()> {
    if call.json(|| json!(members))? {
        return Ok(());
    }
    writeln!(
        call.out,
        "{:<6} {:<24} {:<10} {:<8} {:>12} {:>12} {:>12} {:>16} {:>10} {:>14} {:>12}",
        "#Id",
        "#Address",
        "#Role",
        "#Term",
        "#Last",
        "#Committed",
        "#Applied",
        "#Flushed(B)",
        "#Lag",
        "#Lag(B)",
        "#Contact(ms)"
    )?;
    for member in &members.members {
        writeln!(call.out, "{}", row(member))?;
    }
    Ok(())
}

fn row(member: &GroupMember) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let role = match (member.answers, member.recovering) {
        (false, _) => format!("{}?", member.role),
        (true, true) => format!("{}*", member.role),
        (true, false) => member.role.clone(),
    };
    format!(
        "{:<6} {:<24} {:<10} {:<8} {:>12} {:>12} {:>12} {:>16} {:>10} {:>14} {:>12}",
        format!("n{}", member.id),
        member.address,
        role,
        number(member.term),
        number(member.last_index),
        number(member.committed_index),
        number(member.applied_index),
        number(member.flushed_position),
        number(member.lag_entries),
        number(member.lag_bytes),
        number(member.last_contact_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_member_has_dashes_and_a_question_mark() {
        let member = GroupMember {
            id: 2,
            address: "h:1".to_owned(),
            role: "voter".to_owned(),
            lag_entries: Some(7),
            ..GroupMember::default()
        };
        let row = row(&member);
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            [
                "n2", "h:1", "voter?", "-", "-", "-", "-", "-", "7", "-", "-"
            ]
        );
    }
}

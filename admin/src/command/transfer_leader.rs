//! `transferLeader`: hands the leadership of a broker group to another member.

use serde_json::json;

use super::{Call, Command, Running, clusters, member_id};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "transferLeader",
    class: "TransferLeaderCommand",
    description: "Hand the leadership of a broker group to another member.",
    own_options: &[
        clusters::MEMBER,
        clusters::GROUP,
        Opt::value(
            "i",
            "memberId",
            Need::Optional,
            "who shall lead, such as n1 (default: the member that is furthest)",
        ),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let to = call.given.value("i").map(member_id).transpose()?;
    let address = clusters::any_member(call.admin, call.given).await?;
    let done = call.admin.transfer_leader(&address, to).await?;
    if !call.json(|| json!(done))? {
        writeln!(
            call.out,
            "{:<32} {:<8} {:<8}",
            "#Broker Name", "#From", "#To"
        )?;
        writeln!(
            call.out,
            "{:<32} {:<8} {:<8}",
            done.broker_name,
            format!("n{}", done.from),
            format!("n{}", done.to)
        )?;
    }
    Ok(())
}

//! `cleanExpiredCQ`: has brokers drop what lies below the beginning of their queues.

use serde_json::json;

use super::{Call, Command, Running, clusters};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "cleanExpiredCQ",
    class: "CleanExpiredCQSubCommand",
    description: "Clean expired ConsumeQueue on broker.",
    own_options: &[
        Opt::value("b", "brokerAddr", Need::Optional, "Broker address"),
        Opt::value("c", "cluster", Need::Optional, "clustername"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let brokers = clusters::brokers(call.admin, call.given).await?;
    for address in &brokers {
        call.admin.clean_expired_queues(address).await?;
    }
    if !call.json(|| json!({"brokers": brokers}))? {
        let done = if brokers.is_empty() {
            "false"
        } else {
            "success"
        };
        writeln!(call.out, "{done}")?;
    }
    Ok(())
}

//! `cleanUnusedTopic`: has brokers drop the queues of topics that do not exist.

use serde_json::json;

use super::{Call, Command, Running, clusters};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "cleanUnusedTopic",
    class: "CleanUnusedTopicCommand",
    description: "Clean unused topic on broker.",
    own_options: &[
        Opt::value("b", "brokerAddr", Need::Optional, "Broker address"),
        Opt::value("c", "cluster", Need::Optional, "cluster name"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let brokers = clusters::brokers(call.admin, call.given).await?;
    for address in &brokers {
        call.admin.clean_unused_topics(address).await?;
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

//! `deleteTopic`: deletes a topic at a cluster's brokers and in the nameservers.

use serde_json::json;

use super::{Call, Command, Running, clusters};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "deleteTopic",
    class: "DeleteTopicSubCommand",
    description: "Delete topic from broker and NameServer.",
    own_options: &[
        Opt::value("t", "topic", Need::Required, "topic name"),
        Opt::value(
            "c",
            "clusterName",
            Need::Required,
            "delete topic from which cluster",
        ),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let topic = call.given.value("t").unwrap_or_default();
    let cluster = call.given.value("c").unwrap_or_default();
    let json = call.given.has("json");
    let leaders = clusters::leaders(call.admin, cluster).await?;
    for address in &leaders {
        call.admin.delete_topic_at(address, topic).await?;
    }
    if !json {
        writeln!(
            call.out,
            "delete topic [{topic}] from cluster [{cluster}] success."
        )?;
    }
    call.admin
        .delete_topic_in_name_servers(cluster, topic)
        .await?;
    if !call.json(|| json!({"topic": topic, "cluster": cluster, "brokers": leaders}))? {
        writeln!(call.out, "delete topic [{topic}] from NameServer success.")?;
    }
    Ok(())
}

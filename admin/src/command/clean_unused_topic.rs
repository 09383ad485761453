//! `cleanUnusedTopic`: has brokers drop the queues of topics that do not exist.

use raftmq_client::Admin;

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

async fn run(call: Call<'_>) -> anyhow::Result<()> {
    clusters::on_brokers(call, Admin::clean_unused_topics).await
}

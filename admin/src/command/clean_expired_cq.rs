//! `cleanExpiredCQ`: has brokers drop what lies below the beginning of their queues.

use raftmq_client::Admin;

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

async fn run(call: Call<'_>) -> anyhow::Result<()> {
    clusters::on_brokers(call, Admin::clean_expired_queues).await
}

//! `deleteExpiredCommitLog`: has brokers delete expired files of the commit log, whatever the hour.

use raftmq_client::Admin;

use super::{Call, Command, Running, clusters};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "deleteExpiredCommitLog",
    class: "DeleteExpiredCommitLogSubCommand",
    description: "Delete expired CommitLog files.",
    own_options: &[
        Opt::value("b", "brokerAddr", Need::Optional, "Broker address"),
        Opt::value("c", "cluster", Need::Optional, "clustername"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(call: Call<'_>) -> anyhow::Result<()> {
    clusters::on_brokers(call, Admin::delete_expired_log).await
}

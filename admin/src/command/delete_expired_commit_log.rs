//! `deleteExpiredCommitLog`: has brokers delete expired files of the commit log, whatever the hour.

use serde_json::json;

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

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let brokers = clusters::brokers(call.admin, call.given).await?;
    for address in &brokers {
        call.admin.delete_expired_log(address).await?;
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

//! What operators have cleaned up before its time (306, 316, 329).

use raftmq_proto::frame::RemotingCommand;

use super::Admin;
use crate::creator::Change;
use crate::exchange::Outcome;

impl Admin {
    /// 306. A queue's units below the beginning of the log are not readable from the moment the log
    /// is trimmed, and go by themselves: there is nothing to wait for.
    pub(crate) fn clean_expired_queues(&self) -> Outcome {
        Ok(RemotingCommand::success())
    }

    /// 316. Queues of topics that do not exist.
    pub(crate) async fn clean_unused_topics(&self) -> Outcome {
        let unused = self.group.store().state.unused_topics();
        let delete = |topic: &std::sync::Arc<str>| {
            tracing::info!(topic = &**topic, "queues of a deleted topic cleaned");
            Change::UnusedTopic(topic.to_string())
        };
        let changes: Vec<Change> = unused.iter().map(delete).collect();
        if !changes.is_empty() {
            self.creator.carry_out(changes).await?;
        }
        Ok(RemotingCommand::success())
    }

    /// 329. Expired segments go in the next rounds, whatever the hour.
    pub(crate) fn delete_expired_log(&self) -> Outcome {
        tracing::info!("an operator asks for expired segments to go");
        self.retention.start_manually();
        Ok(RemotingCommand::success())
    }
}

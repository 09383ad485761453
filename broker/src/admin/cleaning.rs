//! What operators have cleaned up before its time (306, 316, 329).

use raftmq_proto::frame::RemotingCommand;

use super::Admin;
use crate::creator::Change;
use crate::exchange::{Outcome, Refusal};

/// Queues looked at in one go: others wait for the state meanwhile.
const SWEEP_QUEUES: usize = 1000;

impl Admin {
    /// 306. What lies below the beginning of the log goes by itself, soon; here it goes now.
    pub(crate) async fn clean_expired_queues(&self) -> Outcome {
        let store = self.group.store().clone();
        let cleaned = crate::runtime::spawn_blocking(move || -> raftmq_store::Result<()> {
            while !store.state.sweep(SWEEP_QUEUES)? {}
            Ok(())
        });
        match cleaned.await {
            Ok(Ok(())) => Ok(RemotingCommand::success()),
            Ok(Err(error)) => Err(Refusal::error(error.to_string())),
            Err(error) => Err(Refusal::error(error.to_string())),
        }
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

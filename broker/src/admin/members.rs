//! The broker group as a Raft group: who leads it (41002).

use raftmq_proto::body::LeaderTransferred;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::RaftTransferLeaderRequestHeader;

use super::Admin;
use crate::exchange::{Outcome, Refusal, header};

impl Admin {
    /// 41002.
    pub(crate) async fn transfer_leader(&self, request: &RemotingCommand) -> Outcome {
        let header: RaftTransferLeaderRequestHeader = header(request)?;
        let to = header.member_id.map(member_id).transpose()?;
        let from = self.group.self_id();
        // What it has in memory of them would be a batch behind at the next leader.
        drop(tokio::time::timeout(crate::broker::SAVE_WITHIN, self.offsets.save_all()).await);
        let to = self
            .group
            .transfer_leader(to)
            .await
            .map_err(|error| Refusal::error(error.to_string()))?;
        tracing::info!(to, "leadership handed over as an operator asked");
        let done = LeaderTransferred {
            broker_name: self.names.broker.clone(),
            from,
            to,
        };
        Ok(RemotingCommand::success().with_body(done.to_json()))
    }
}

/// A member's id as it came over the wire.
fn member_id(id: i64) -> Result<u64, Refusal> {
    u64::try_from(id).map_err(|_negative| Refusal::invalid(format!("{id} is no member id")))
}

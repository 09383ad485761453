//! The broker group as a Raft group: who belongs to it and who leads it (41001 to 41003).

use raftmq_proto::body::{GroupMember, GroupMembers, LeaderTransferred};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{RaftChangeMembersRequestHeader, RaftTransferLeaderRequestHeader};
use raftmq_raft::{MemberChange, MemberError, MemberRole, MemberStatus};

use super::Admin;
use crate::exchange::{Outcome, Refusal, header};

impl Admin {
    /// 41001.
    pub(crate) async fn member_status(&self) -> Outcome {
        let members = self.group.member_status().await;
        let body = GroupMembers {
            broker_name: self.names.broker.clone(),
            told_by: self.group.self_id(),
            members: members.into_iter().map(body_of).collect(),
        };
        Ok(RemotingCommand::success().with_body(body.to_json()))
    }

    /// 41003; `None` when another member leads and has to be asked.
    pub(crate) async fn change_members(&self, request: &RemotingCommand) -> Option<Outcome> {
        let change = match change_of(request) {
            Ok(change) => change,
            Err(refusal) => return Some(Err(refusal)),
        };
        tracing::info!(?change, "an operator changes the group's members");
        match self.group.change_members(change).await {
            Ok(()) => Some(self.member_status().await),
            Err(MemberError::NotLeader(_)) => None,
            Err(error) => Some(Err(Refusal::error(error.to_string()))),
        }
    }

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

fn change_of(request: &RemotingCommand) -> Result<MemberChange, Refusal> {
    let header: RaftChangeMembersRequestHeader = header(request)?;
    let id = member_id(header.member_id)?;
    let missing = |what| Refusal::invalid(format!("{} needs {what}", header.change));
    let address = || header.address.clone().ok_or_else(|| missing("address"));
    Ok(match header.change.as_str() {
        "add" => {
            let address = address()?;
            MemberChange::Add { id, address }
        }
        "promote" => MemberChange::Promote { id },
        "remove" => MemberChange::Remove { id },
        "replace" => {
            let by = header.replacement.ok_or_else(|| missing("replacement"))?;
            let by = member_id(by)?;
            MemberChange::Replace { id, by }
        }
        "move" => {
            let address = address()?;
            MemberChange::Move { id, address }
        }
        other => {
            return Err(Refusal::invalid(format!(
                "change '{other}' is not allowed: add, promote, remove, replace or move"
            )));
        }
    })
}

fn body_of(member: MemberStatus) -> GroupMember {
    let role = match member.role {
        MemberRole::Leader => "leader",
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
    };
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    GroupMember {
        id: member.id,
        address: member.address,
        role: role.to_owned(),
        answers: member.answers,
        recovering: member.recovering,
        term: member.term,
        last_index: member.last.map(|id| id.index),
        committed_index: member.committed.map(|id| id.index),
        applied_index: member.applied.map(|id| id.index),
        flushed_position: member.flushed_position,
        lag_entries: member.lag_entries,
        lag_bytes: member.lag_bytes,
        last_contact_ms: member.silent.map(ms),
    }
}

/// A member's id as it came over the wire.
fn member_id(id: i64) -> Result<u64, Refusal> {
    u64::try_from(id).map_err(|_negative| Refusal::invalid(format!("{id} is no member id")))
}

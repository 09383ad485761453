//! What tools ask and change: topics, groups, connections, lag, runtime information. RocketMQ: `AdminBrokerProcessor`,
//! one file per subject.

mod cleaning;
pub(crate) mod connections;
pub(crate) mod groups;
pub(crate) mod lag;
mod members;
mod messages;
pub(crate) mod queues;
pub(crate) mod runtime;
mod size;
pub(crate) mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use raftmq_proto::body::{LockBatchRequestBody, LockBatchResponseBody};
use raftmq_proto::frame::RemotingCommand;
use raftmq_raft::Group;

use crate::clients::Clients;
use crate::config::{QueryConfig, TopicConfigs};
use crate::creator::Creator;
use crate::exchange::{Outcome, Refusal};
use crate::locks::{Claim, Locks};
use crate::offsets::Offsets;
use crate::pull::PullProcessor;
use crate::register::Registered;
use crate::retention::Retention;
use crate::stats::Stats;

/// Everything the tools' requests touch.
pub(crate) struct Admin {
    pub(crate) group: Group,
    pub(crate) names: Names,
    pub(crate) topics: TopicConfigs,
    pub(crate) query: QueryConfig,
    pub(crate) creator: Creator,
    pub(crate) registered: Arc<Registered>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) offsets: Arc<Offsets>,
    pub(crate) pulls: Arc<PullProcessor>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) retention: Arc<Retention>,
    /// Every configuration key with its value.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) started_ms: i64,
}

/// What this broker and its cluster are called.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) cluster: String,
    pub(crate) broker: String,
}

impl Admin {
    /// 41. The caller has confirmed that this member still leads.
    pub(crate) async fn lock(&self, request: &RemotingCommand) -> Outcome {
        let held = self.locks.lock(claim(request)?).await?;
        let answer = LockBatchResponseBody {
            lock_ok_mq_set: held.into_iter().collect(),
        };
        Ok(RemotingCommand::success().with_body(answer.to_json()))
    }

    /// 42.
    pub(crate) async fn unlock(&self, request: &RemotingCommand) -> Outcome {
        self.locks.unlock(claim(request)?).await?;
        Ok(RemotingCommand::success())
    }
}

fn claim(request: &RemotingCommand) -> Result<Claim, Refusal> {
    let body = LockBatchRequestBody::from_json(&request.body.to_bytes())
        .map_err(|error| Refusal::error(format!("queues to lock: {error}")))?;
    Ok(Claim {
        group: body.consumer_group,
        client: body.client_id,
        queues: body.mq_set.into_iter().collect(),
    })
}

/// An offset as the wire has it.
pub(crate) fn wire(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

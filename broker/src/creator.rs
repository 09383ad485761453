//! Makes topics and groups that requests need and that do not exist yet, and carries out what operators change.
//!
//! One task proposes all of it, in the order asked, many in one entry: a thousand new consumer groups cost a few
//! entries, and a topic made on demand never overwrites what an operator set a moment before.

use std::collections::HashSet;
use std::time::Duration;

use raftmq_proto::body::{SubscriptionGroupConfig, TopicConfig};
use raftmq_proto::code::response;
use raftmq_proto::command::{DeleteTopic, Op, PutGroup, PutTopic};
use raftmq_raft::{Group, ProposeError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::exchange::Refusal;
use crate::runtime::spawn;

/// Requests that wait for their change: each is a client's request in flight.
const QUEUE_MAX: usize = 8192;
/// Changes in one entry: keeps an entry far below a segment.
const BATCH_MAX: usize = 512;

/// How long a change may take. Without a quorum its outcome may never come.
const OUTCOME_WITHIN: Duration = Duration::from_secs(4);

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Make the topic unless it exists.
    MissingTopic(TopicConfig),
    /// Make the group unless it exists.
    MissingGroup(SubscriptionGroupConfig),
    /// Drop the queues of a topic that does not exist.
    UnusedTopic(String),
    /// An operator's change, carried out as it is.
    Do(Op),
}

struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), ProposeError>>,
}

/// Handle of the task.
#[derive(Clone)]
pub(crate) struct Creator {
    group: Group,
    jobs: mpsc::Sender<Job>,
}

impl Creator {
    /// Starts the task on the current runtime.
    pub(crate) fn start(group: Group) -> (Creator, JoinHandle<()>) {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let task = spawn(run(group.clone(), queue));
        (Creator { group, jobs }, task)
    }

    /// Carries the changes out; on success they are applied on this member.
    pub(crate) async fn carry_out(&self, changes: Vec<Change>) -> Result<(), Refusal> {
        let (done, outcome) = oneshot::channel();
        let job = Job { changes, done };
        if self.jobs.try_send(job).is_err() {
            return Err(Refusal::busy(format!(
                "more than {QUEUE_MAX} changes of topics and groups wait"
            )));
        }
        let outcome = tokio::select! {
            outcome = timeout(OUTCOME_WITHIN, outcome) => outcome,
            loss = self.group.lost() => {
                let name = self.group.name();
                return Err(Refusal::error(format!("outcome unknown: group {name} has {loss}")));
            }
        };
        match outcome {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(refusal_of(&error)),
            Ok(Err(_)) => Err(Refusal::busy("this member is shutting down")),
            Err(_) => Err(Refusal::error(format!(
                "outcome unknown: not acknowledged by a quorum within {} ms",
                OUTCOME_WITHIN.as_millis()
            ))),
        }
    }
}

async fn run(group: Group, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.recv().await {
        let mut count = first.changes.len();
        let mut jobs = vec![first];
        while count < BATCH_MAX
            && let Ok(job) = queue.try_recv()
        {
            count += job.changes.len();
            jobs.push(job);
        }
        let state = &group.store().state;
        let ops = ops_of(
            jobs.iter_mut().flat_map(|job| job.changes.drain(..)),
            |topic| state.topic(topic).is_some(),
            |name| state.group(name).is_some(),
        );
        let outcome = if ops.is_empty() {
            Ok(())
        } else {
            group.propose(ops).await
        };
        for job in jobs {
            // The request may have given up waiting.
            drop(job.done.send(outcome.clone()));
        }
    }
}

/// The operations that are needed: what exists, or was asked for twice in the batch, is left out.
fn ops_of(
    changes: impl Iterator<Item = Change>,
    topic_exists: impl Fn(&str) -> bool,
    group_exists: impl Fn(&str) -> bool,
) -> Vec<Op> {
    let mut topics = HashSet::new();
    let mut groups = HashSet::new();
    let mut unused = Vec::new();
    let mut ops = Vec::new();
    for change in changes {
        match change {
            Change::MissingTopic(config) => {
                if !topic_exists(&config.topic_name) && topics.insert(config.topic_name.clone()) {
                    ops.push(put_topic(&config));
                }
            }
            Change::MissingGroup(config) => {
                if !group_exists(&config.group_name) && groups.insert(config.group_name.clone()) {
                    ops.push(put_group(&config));
                }
            }
            // Comes first: the topic may be made by another change of the batch.
            Change::UnusedTopic(topic) => {
                if !topic_exists(&topic) {
                    unused.push(Op::DeleteTopic(DeleteTopic { topic }));
                }
            }
            Change::Do(op) => ops.push(op),
        }
    }
    unused.append(&mut ops);
    unused
}

/// The operation that stores a topic.
pub(crate) fn put_topic(config: &TopicConfig) -> Op {
    Op::PutTopic(PutTopic {
        config_json: config.to_json(),
    })
}

/// The operation that stores a group.
pub(crate) fn put_group(config: &SubscriptionGroupConfig) -> Op {
    Op::PutGroup(PutGroup {
        config_json: config.to_json(),
    })
}

/// What a failed proposal means to a client.
pub(crate) fn refusal_of(error: &ProposeError) -> Refusal {
    let text = error.to_string();
    match error {
        ProposeError::NotLeader { .. }
        | ProposeError::Busy { .. }
        | ProposeError::Renumber
        | ProposeError::Closed => Refusal::busy(format!("{text}; nothing was stored, try again")),
        ProposeError::Unknown => Refusal::error(format!("outcome unknown: {text}")),
        ProposeError::TooLarge { .. } => Refusal::illegal(text),
        ProposeError::Malformed { .. } => Refusal::error(text),
        ProposeError::DiskFull { .. } | ProposeError::Poisoned(_) => {
            Refusal::new(response::SERVICE_NOT_AVAILABLE, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(topic: &str) -> Op {
        Op::DeleteTopic(DeleteTopic {
            topic: topic.to_owned(),
        })
    }

    #[test]
    fn proposes_only_what_is_missing_and_keeps_the_order() {
        let changes = vec![
            Change::MissingTopic(TopicConfig::new("old", 1, 6)),
            Change::MissingTopic(TopicConfig::new("new", 1, 6)),
            Change::Do(delete("old")),
            Change::MissingTopic(TopicConfig::new("new", 8, 6)),
            Change::MissingGroup(SubscriptionGroupConfig::new("old")),
            Change::MissingGroup(SubscriptionGroupConfig::new("new")),
            Change::UnusedTopic("old".to_owned()),
            Change::UnusedTopic("new".to_owned()),
        ];
        let ops = ops_of(
            changes.into_iter(),
            |name| name == "old",
            |name| name == "old",
        );
        let wanted = [
            delete("new"),
            put_topic(&TopicConfig::new("new", 1, 6)),
            delete("old"),
            put_group(&SubscriptionGroupConfig::new("new")),
        ];
        assert_eq!(ops, wanted);
    }
}

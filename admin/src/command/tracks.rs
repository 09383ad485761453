//! Which groups have consumed a message (RocketMQ: `DefaultMQAdminExtImpl.messageTrackDetail`).

use raftmq_client::{Admin, Error, MessageExt};
use raftmq_proto::body::{ConsumeStats, ConsumeType, ConsumerConnection};
use raftmq_proto::code::response;

/// One group's part, as the original prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    pub(crate) group: String,
    pub(crate) kind: &'static str,
    pub(crate) problem: Option<String>,
}

impl std::fmt::Display for Track {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "MessageTrack [consumerGroup={}, trackType={}, exceptionDesc={}]",
            self.group,
            self.kind,
            self.problem.as_deref().unwrap_or("null")
        )
    }
}

/// A line for every group that consumes the message's topic.
pub(crate) async fn of(admin: &Admin, message: &MessageExt) -> raftmq_client::Result<Vec<Track>> {
    let mut tracks = Vec::new();
    for group in admin.topic_consumers(&message.topic).await?.group_list {
        let (kind, problem) = match of_group(admin, message, &group).await {
            Ok(kind) => (kind, None),
            Err(error) => {
                let kind = match error.code() {
                    Some(response::CONSUMER_NOT_ONLINE) => "NOT_ONLINE",
                    Some(response::BROADCAST_CONSUMPTION) => "CONSUME_BROADCASTING",
                    _ => "UNKNOWN",
                };
                (kind, Some(problem_text(&error)))
            }
        };
        tracks.push(Track {
            group,
            kind,
            problem,
        });
    }
    Ok(tracks)
}

fn problem_text(error: &Error) -> String {
    match error {
        Error::Refused { code, remark, .. } => format!("CODE:{code} DESC:{remark}"),
        other => other.to_string(),
    }
}

async fn of_group(
    admin: &Admin,
    message: &MessageExt,
    group: &str,
) -> raftmq_client::Result<&'static str> {
    let members = admin.consumer_connection(group).await?;
    match members.consume_type {
        ConsumeType::ConsumeActively => Ok("PULL"),
        ConsumeType::ConsumePassively => {
            let stats = admin.consume_stats(None, group, None).await?;
            Ok(of_pushed(message, &members, &stats))
        }
        _ => Ok("UNKNOWN"),
    }
}

/// The original also demands that the leader is still the member that stored the message; a group
/// of members with one log does not need that.
fn of_pushed(
    message: &MessageExt,
    members: &ConsumerConnection,
    stats: &ConsumeStats,
) -> &'static str {
    let is_behind = stats.offset_table.iter().any(|(queue, offsets)| {
        queue.topic == message.topic
            && queue.queue_id == message.queue_id
            && (message.broker_name.is_empty() || queue.broker_name == message.broker_name)
            && offsets.consumer_offset > message.queue_offset
    });
    if !is_behind {
        return "NOT_CONSUME_YET";
    }
    let wanted = members.subscription_table.get(&message.topic);
    let tag = message.tag().unwrap_or_default();
    let passes = wanted.is_none_or(|wanted| {
        let tags = &wanted.tags_set;
        tags.is_empty() || tags.iter().any(|wanted| wanted == tag || wanted == "*")
    });
    if passes {
        "CONSUMED"
    } else {
        "CONSUMED_BUT_FILTERED"
    }
}

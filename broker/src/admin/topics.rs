//! Topics: create, change, delete, list, bounds (17, 18, 21, 202, 215, 305, 351).

use std::collections::BTreeMap;
use std::time::Instant;

use raftmq_proto::body::{
    CreateTopicListRequestBody, MessageQueue, TopicConfig, TopicConfigAndQueueMapping,
    TopicConfigSerializeWrapper, TopicFilterType, TopicList, TopicOffset, TopicStatsTable,
};
use raftmq_proto::code::response;
use raftmq_proto::command::{DeleteTopic, Op};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    CreateTopicRequestHeader, DeleteTopicRequestHeader, GetAllTopicConfigResponseHeader,
    GetTopicConfigRequestHeader, GetTopicStatsInfoRequestHeader,
};
use raftmq_proto::message::name;

use super::{Admin, wire};
use crate::creator::{self, Change};
use crate::exchange::{Exchange, Outcome, Refusal, header};
use crate::system;

/// Most queues of a topic: route answers and tools walk them one by one.
const QUEUES_MAX: i32 = 65_536;

/// Attributes a topic may have, with the values allowed (none listed: any).
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("queue.type", &["SimpleCQ", "BatchCQ"]),
    ("cleanup.policy", &["DELETE", "COMPACTION"]),
    (
        "message.type",
        &[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "MIXED",
        ],
    ),
    ("reserve.time", &[]),
];

/// Attribute values that need what this broker does not have.
const UNSUPPORTED: &[(&str, &str)] = &[("queue.type", "BatchCQ"), ("cleanup.policy", "COMPACTION")];

impl Admin {
    /// 17.
    pub(crate) async fn update_topic(&self, request: &RemotingCommand) -> Outcome {
        let header: CreateTopicRequestHeader = header(request)?;
        let known = self.group.store().state.topic(&header.topic);
        let attributes = known
            .as_ref()
            .map(|topic| topic.attributes.clone())
            .unwrap_or_default();
        let config = TopicConfig {
            attributes: changed_attributes(
                attributes,
                header.attributes.as_deref().unwrap_or_default(),
            )?,
            order: header.order,
            perm: header.perm,
            read_queue_nums: header.read_queue_nums,
            topic_filter_type: TopicFilterType::from_name(&header.topic_filter_type)
                .unwrap_or_default(),
            topic_name: header.topic,
            topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
            write_queue_nums: header.write_queue_nums,
        };
        self.put_topics(vec![config]).await
    }

    /// 18.
    pub(crate) async fn update_topics(&self, request: &RemotingCommand) -> Outcome {
        let body = CreateTopicListRequestBody::from_json(&request.body.to_bytes())
            .map_err(|error| Refusal::error(format!("topics: {error}")))?;
        self.put_topics(body.topic_config_list).await
    }

    async fn put_topics(&self, configs: Vec<TopicConfig>) -> Outcome {
        let mut changes = Vec::new();
        for config in &configs {
            self.check_topic(config)?;
            let known = self.group.store().state.topic(&config.topic_name);
            if known.is_none_or(|known| *known != *config) {
                tracing::info!(topic = config.topic_name, "topic created or changed");
                changes.push(Change::Do(creator::put_topic(config)));
            }
        }
        if !changes.is_empty() {
            self.creator.carry_out(changes).await?;
            // Whoever asks a nameserver next expects to find what was answered here.
            let changed = self.group.store().state.topic_version().counter;
            self.registered.knows_topics(changed).await;
        }
        Ok(RemotingCommand::success())
    }

    fn check_topic(&self, config: &TopicConfig) -> Result<(), Refusal> {
        let topic = &config.topic_name;
        self.check_topic_name(topic)?;
        for (what, queues) in [
            ("readQueueNums", config.read_queue_nums),
            ("writeQueueNums", config.write_queue_nums),
        ] {
            if !(0..=QUEUES_MAX).contains(&queues) {
                return Err(Refusal::invalid(format!(
                    "{what} = {queues} is not allowed: 0 to {QUEUES_MAX}"
                )));
            }
        }
        if !(0..=7).contains(&config.perm) {
            return Err(Refusal::invalid(format!(
                "perm = {} is not allowed: 2, 4 or 6",
                config.perm
            )));
        }
        let mixed = config
            .attributes
            .get("message.type")
            .is_some_and(|kind| kind == "MIXED");
        if mixed && !self.topics.mixed_message_type {
            return Err(Refusal::invalid(
                "MIXED message type is not supported: enableMixedMessageType = false",
            ));
        }
        Ok(())
    }

    fn check_topic_name(&self, topic: &str) -> Result<(), Refusal> {
        name::check_topic(topic).map_err(|error| Refusal::invalid(error.to_string()))?;
        if self.topics.protect_system_topics && system::is_system_topic(&self.names, topic) {
            return Err(Refusal::invalid(format!(
                "The topic[{topic}] is conflict with system topic."
            )));
        }
        Ok(())
    }

    /// 215. The messages stay in the log until it is purged.
    pub(crate) async fn delete_topic(&self, request: &RemotingCommand) -> Outcome {
        let header: DeleteTopicRequestHeader = header(request)?;
        let topic = header.topic;
        if topic.trim().is_empty() {
            return Err(Refusal::invalid("The specified topic is blank."));
        }
        if self.topics.protect_system_topics && system::is_system_topic(&self.names, &topic) {
            return Err(Refusal::invalid(format!(
                "The topic[{topic}] is conflict with system topic."
            )));
        }
        if self.group.store().state.topic(&topic).is_some() {
            tracing::info!(topic, "topic deleted");
            let op = Op::DeleteTopic(DeleteTopic {
                topic: topic.clone(),
            });
            self.creator.carry_out(vec![Change::Do(op)]).await?;
        }
        self.offsets.forget(|key| *key.topic == *topic);
        Ok(RemotingCommand::success())
    }

    /// 21.
    pub(crate) fn all_topics(&self) -> Outcome {
        let state = &self.group.store().state;
        let topics = state.topics();
        let total = i32::try_from(topics.len()).unwrap_or(i32::MAX);
        let table = topics
            .iter()
            .map(|topic| (topic.topic_name.clone(), TopicConfig::clone(topic)))
            .collect();
        let body = TopicConfigSerializeWrapper {
            data_version: state.topic_version(),
            topic_config_table: table,
            ..TopicConfigSerializeWrapper::default()
        };
        let header = GetAllTopicConfigResponseHeader {
            total_topic_num: total,
        };
        Ok(RemotingCommand::success()
            .with_header(&header)
            .with_body(body.to_json()))
    }

    /// 351.
    pub(crate) fn topic(&self, exchange: &Exchange) -> Outcome {
        let header: GetTopicConfigRequestHeader = exchange.header()?;
        let Some(topic) = self.group.store().state.topic(&header.topic) else {
            let text = format!("No topic in this broker. topic: {}", header.topic);
            return Err(Refusal::new(response::TOPIC_NOT_EXIST, text));
        };
        let body = TopicConfigAndQueueMapping {
            topic_config: TopicConfig::clone(&topic),
            mapping_detail: None,
        };
        Ok(RemotingCommand::success().with_body(body.to_json()))
    }

    /// 202.
    pub(crate) fn topic_stats(&self, exchange: &Exchange) -> Outcome {
        let header: GetTopicStatsInfoRequestHeader = exchange.header()?;
        let state = &self.group.store().state;
        let Some(topic) = state.topic(&header.topic) else {
            let text = format!("topic[{}] not exist", header.topic);
            return Err(Refusal::new(response::TOPIC_NOT_EXIST, text));
        };
        let queues = topic.read_queue_nums.max(topic.write_queue_nums);
        let row = |queue_id| {
            let bounds = state.queue_bounds(&header.topic, queue_id);
            let last = bounds.max.checked_sub(1);
            let stored = last.and_then(|last| {
                state
                    .store_time_at(&header.topic, queue_id, last)
                    .ok()
                    .flatten()
            });
            let queue = MessageQueue::new(&header.topic, &self.names.broker, queue_id);
            let offset = TopicOffset {
                last_update_timestamp: stored.unwrap_or(0),
                max_offset: wire(bounds.max),
                min_offset: wire(bounds.min),
            };
            (queue, offset)
        };
        let body = TopicStatsTable {
            offset_table: (0..queues).map(row).collect(),
            topic_put_tps: self.stats.topic_put_tps(&header.topic, Instant::now()),
        };
        Ok(RemotingCommand::success().with_body(body.to_json()))
    }

    /// 305.
    pub(crate) fn system_topics(&self) -> Outcome {
        let topic_list = system::topic_names(&self.names);
        Ok(RemotingCommand::success().with_body(
            TopicList {
                broker_addr: None,
                topic_list,
            }
            .to_json(),
        ))
    }
}

/// Applies a list like `+key=value,-key` to a topic's attributes.
fn changed_attributes(
    mut attributes: BTreeMap<String, String>,
    changes: &str,
) -> Result<BTreeMap<String, String>, Refusal> {
    for change in changes
        .split(',')
        .map(str::trim)
        .filter(|change| !change.is_empty())
    {
        if let Some(key) = change.strip_prefix('-') {
            attributes.remove(key);
            continue;
        }
        let pair = change
            .strip_prefix('+')
            .and_then(|change| change.split_once('='));
        let Some((key, value)) = pair else {
            return Err(Refusal::error(format!(
                "attribute '{change}' is not allowed: write +key=value or -key"
            )));
        };
        let Some((_, values)) = ATTRIBUTES.iter().find(|(known, _)| *known == key) else {
            return Err(Refusal::error(format!("unsupported key: {key}")));
        };
        if !values.is_empty() && !values.contains(&value) {
            let allowed = values.join(", ");
            return Err(Refusal::error(format!(
                "attribute {key} = '{value}' is not allowed: {allowed}"
            )));
        }
        if UNSUPPORTED.contains(&(key, value)) {
            return Err(Refusal::invalid(format!(
                "attribute {key} = {value} is not supported by this broker"
            )));
        }
        attributes.insert(key.to_owned(), value.to_owned());
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_added_changed_removed_and_checked() {
        let start = BTreeMap::from([("reserve.time".to_owned(), "1".to_owned())]);
        let changed = changed_attributes(start, "+message.type=FIFO, -reserve.time").unwrap();
        assert_eq!(
            changed,
            BTreeMap::from([("message.type".to_owned(), "FIFO".to_owned())])
        );
        for bad in [
            "message.type=FIFO",
            "+color=red",
            "+message.type=LOUD",
            "+queue.type=BatchCQ",
            "+x",
        ] {
            assert!(changed_attributes(BTreeMap::new(), bad).is_err(), "{bad}");
        }
        assert_eq!(
            changed_attributes(BTreeMap::new(), "").unwrap(),
            BTreeMap::new()
        );
    }
}

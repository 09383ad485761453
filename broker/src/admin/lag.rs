//! How far a group is behind (208).

use std::collections::BTreeSet;
use std::time::Instant;

use raftmq_proto::body::{ConsumeStats, MessageQueue, OffsetWrapper};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::GetConsumeStatsRequestHeader;

use super::{Admin, wire};
use crate::exchange::{Exchange, Outcome};

impl Admin {
    /// 208, on the leader: it knows offsets that are not applied yet.
    pub(crate) fn consume_stats(&self, exchange: &Exchange) -> Outcome {
        let header: GetConsumeStatsRequestHeader = exchange.header()?;
        let group = &header.consumer_group;
        let state = &self.group.store().state;
        let mut stats = ConsumeStats::default();
        for topic in self.topics_to_show(&header) {
            let Some(config) = state.topic(&topic) else {
                continue;
            };
            for queue_id in 0..config.read_queue_nums {
                let queue = MessageQueue::new(&topic, &self.names.broker, queue_id);
                stats
                    .offset_table
                    .insert(queue, self.lag_of(group, &topic, queue_id));
            }
            stats.consume_tps += self.stats.group_get_tps(group, &topic, Instant::now());
        }
        Ok(RemotingCommand::success().with_body(stats.to_json()))
    }

    fn lag_of(&self, group: &str, topic: &str, queue_id: i32) -> OffsetWrapper {
        let state = &self.group.store().state;
        let consumer_offset = self.offsets.known(group, topic, queue_id).unwrap_or(0);
        let pulled = self.offsets.pulled(group, topic, queue_id).unwrap_or(0);
        let consumed_last = u64::try_from(consumer_offset - 1).ok();
        let stored = consumed_last
            .and_then(|last| state.store_time_at(topic, queue_id, last).ok().flatten());
        OffsetWrapper {
            broker_offset: wire(state.queue_bounds(topic, queue_id).max),
            consumer_offset,
            last_timestamp: stored.unwrap_or(0),
            pull_offset: pulled.max(consumer_offset),
        }
    }

    /// The topics asked for; of a group that is connected only those it subscribes.
    fn topics_to_show(&self, header: &GetConsumeStatsRequestHeader) -> BTreeSet<String> {
        let listed = header.topic_list.as_deref().unwrap_or_default();
        let listed: BTreeSet<String> = listed
            .split(';')
            .filter(|topic| !topic.is_empty())
            .map(str::to_owned)
            .collect();
        if !listed.is_empty() {
            return listed;
        }
        let mut topics: BTreeSet<String> = match header
            .topic
            .as_deref()
            .filter(|topic| !topic.trim().is_empty())
        {
            Some(topic) => BTreeSet::from([topic.to_owned()]),
            None => self.offsets.topics_of(&header.consumer_group),
        };
        let registry = self.clients.registry();
        if let Some(group) = registry.consumer_group(&header.consumer_group)
            && !group.subscriptions().is_empty()
        {
            topics.retain(|topic| group.subscription(topic).is_some());
        }
        topics
    }
}

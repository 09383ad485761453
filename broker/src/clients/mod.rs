//! Heartbeats, leaving, client ids of a group (34, 35, 38, 46) and telling members of changes (40).
//!
//! Every member of the broker group keeps its own registry: clients with consumers send heartbeats to all members, so a
//! new leader knows them already.

pub(crate) mod registry;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use raftmq_proto::body::{
    CheckClientRequestBody, ConsumeType, ConsumerData, ConsumerListBody, HeartbeatData,
    SubscriptionGroupConfig, TopicConfig, perm,
};
use raftmq_proto::code::request;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    GetConsumerListByGroupRequestHeader, NotifyConsumerIdsChangedRequestHeader,
    UnregisterClientRequestHeader,
};
use raftmq_proto::message::name;
use raftmq_raft::Group;
use raftmq_remoting::Connection;

use crate::creator::{Change, Creator};
use crate::exchange::{Exchange, Outcome, Refusal};
use crate::runtime::Runtime;
use registry::{Client, Registry};

/// How often expired clients are looked for.
const SCAN_PERIOD: Duration = Duration::from_secs(10);

/// The clients of this member.
pub(crate) struct Clients {
    pub(crate) group: Group,
    pub(crate) creator: Creator,
    pub(crate) registry: Mutex<Registry<Connection>>,
    /// `notifyConsumerIdsChangedEnable`.
    pub(crate) notify_changes: bool,
    /// `channelExpiredTimeout`.
    pub(crate) expiry: Duration,
    /// `autoCreateSubscriptionGroup`.
    pub(crate) auto_create_group: bool,
    /// `rejectPullConsumerEnable`.
    pub(crate) reject_pull_consumers: bool,
    pub(crate) runtime: Runtime,
}

impl Clients {
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry<Connection>> {
        self.registry.lock()
    }

    /// 34. A leader makes what is missing for the groups before it answers, so that their first pull finds it.
    pub(crate) fn heartbeat(self: &Arc<Self>, exchange: Exchange) {
        let data = match HeartbeatData::from_json(&exchange.request.body.to_bytes()) {
            Ok(data) => data,
            Err(error) => return exchange.refuse(Refusal::error(format!("heartbeat: {error}"))),
        };
        let Some(connection) = exchange.connection() else {
            return exchange.refuse(Refusal::error(
                "a heartbeat belongs to the member it was sent to",
            ));
        };
        let client = Client {
            connection_id: connection.id(),
            connection: connection.clone(),
            client_id: data.client_id.clone(),
            language: exchange.request.language,
            version: exchange.request.version,
            seen: Instant::now(),
        };
        let changes = self
            .registry()
            .heartbeat(&client, &data, |consumer| self.accepts(consumer));
        // A connection that closed meanwhile was cleaned up before it was registered.
        if !client.connection.is_open() {
            self.closed(client.connection_id);
        }
        self.notify(changes);
        // The fingerprints of V2 heartbeats are not kept, so clients are asked to send whole ones.
        let answer = RemotingCommand::success()
            .with_field("IS_SUPPORT_HEART_BEAT_V2", "false")
            .with_field("IS_SUB_CHANGE", "true");
        let missing = self.missing_for(
            data.consumer_data_set
                .iter()
                .map(|data| data.group_name.as_str()),
        );
        if missing.is_empty() || !self.group.serves() {
            return exchange.answer(answer);
        }
        let clients = Arc::clone(self);
        self.runtime.spawn(async move {
            if let Err(refusal) = clients.creator.carry_out(missing).await {
                tracing::info!(
                    remark = refusal.remark,
                    "groups of a heartbeat not made; the next one tries again"
                );
            }
            exchange.answer(answer);
        });
    }

    fn accepts(&self, consumer: &ConsumerData) -> bool {
        if self.reject_pull_consumers && consumer.consume_type == ConsumeType::ConsumeActively {
            return false;
        }
        let group = &consumer.group_name;
        self.group.store().state.group(group).is_some()
            || (self.auto_create_group || name::is_system_group(group))
                && name::check_group(group).is_ok()
    }

    /// What consumers of these groups need and does not exist: the group and its retry topic.
    fn missing_for<'a>(&self, groups: impl Iterator<Item = &'a str>) -> Vec<Change> {
        let state = &self.group.store().state;
        let mut missing = Vec::new();
        for group in groups {
            let config = state.group(group);
            if config.is_none() {
                if !self.may_create(group) {
                    continue;
                }
                missing.push(Change::MissingGroup(SubscriptionGroupConfig::new(group)));
            }
            let queues = config.map_or(1, |config| config.retry_queue_nums);
            let retry_topic = name::retry_topic(group);
            if queues > 0 && state.topic(&retry_topic).is_none() {
                let topic = TopicConfig::new(retry_topic, queues, perm::READ | perm::WRITE);
                missing.push(Change::MissingTopic(topic));
            }
        }
        missing
    }

    /// Whether a request may bring the group into being.
    pub(crate) fn may_create(&self, group: &str) -> bool {
        (self.auto_create_group || name::is_system_group(group)) && name::check_group(group).is_ok()
    }

    /// Makes what is missing for everyone who is connected; for a member that has just become the leader.
    pub(crate) async fn make_missing(&self) {
        let groups = self.registry().consumer_groups();
        let missing = self.missing_for(groups.iter().map(String::as_str));
        if !missing.is_empty()
            && let Err(refusal) = self.creator.carry_out(missing).await
        {
            tracing::info!(
                remark = refusal.remark,
                "groups of connected consumers not made"
            );
        }
    }

    /// 35.
    pub(crate) fn unregister(&self, exchange: &Exchange) -> Outcome {
        let header: UnregisterClientRequestHeader = exchange.header()?;
        if let Some(connection) = exchange.connection() {
            let (producer, consumer) = (
                header.producer_group.as_deref(),
                header.consumer_group.as_deref(),
            );
            let changes = self
                .registry()
                .unregister(connection.id(), producer, consumer);
            self.notify(changes);
        }
        Ok(RemotingCommand::success())
    }

    /// 38.
    pub(crate) fn consumer_ids(&self, exchange: &Exchange) -> Outcome {
        let header: GetConsumerListByGroupRequestHeader = exchange.header()?;
        let consumer_id_list = self.registry().consumer_ids(&header.consumer_group);
        if consumer_id_list.is_empty() {
            return Err(Refusal::error(format!(
                "no consumer for this group, {}",
                header.consumer_group
            )));
        }
        Ok(RemotingCommand::success().with_body(ConsumerListBody { consumer_id_list }.to_json()))
    }

    /// 46.
    pub(crate) fn check_config(&self, exchange: &Exchange) -> Outcome {
        let body = CheckClientRequestBody::from_json(&exchange.request.body.to_bytes())
            .map_err(|error| Refusal::error(format!("client configuration: {error}")))?;
        match body
            .subscription_data
            .filter(|subscription| !subscription.is_tag_type())
        {
            Some(subscription) => Err(Refusal::error(no_such_filter(
                &subscription.expression_type,
            ))),
            None => Ok(RemotingCommand::success()),
        }
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, connection_id: u64) {
        let changes = self.registry().closed(connection_id);
        self.notify(changes);
    }

    /// Drops clients that have gone silent, for as long as the member runs.
    pub(crate) async fn run_expiry(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SCAN_PERIOD);
        loop {
            ticks.tick().await;
            let (changes, closing) = self.registry().expire(Instant::now(), self.expiry);
            for connection in closing {
                tracing::info!(peer = %connection.peer(), "client without heartbeat dropped");
                connection.close();
            }
            self.notify(changes);
        }
    }

    fn notify(&self, changes: Vec<registry::Change<Connection>>) {
        for change in changes {
            let config = self.group.store().state.group(&change.group);
            if !self.notify_changes
                || config.is_some_and(|config| !config.notify_consumer_ids_changed_enable)
            {
                continue;
            }
            let header = NotifyConsumerIdsChangedRequestHeader {
                consumer_group: change.group,
            };
            let mut command =
                RemotingCommand::request(request::NOTIFY_CONSUMER_IDS_CHANGED).with_header(&header);
            command.mark_oneway();
            for member in change.members {
                if let Err(error) = member.send_oneway(command.clone()) {
                    tracing::debug!(peer = %member.peer(), %error, "client not told of a change in its group");
                }
            }
        }
    }
}

/// The text for expressions that cannot be evaluated.
pub(crate) fn no_such_filter(expression_type: &str) -> String {
    format!("The broker does not support consumer to filter message by {expression_type}")
}

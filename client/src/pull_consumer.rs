//! Reading queues at offsets of one's own choosing (RocketMQ: `DefaultMQPullConsumer`).

use std::time::Duration;

use raftmq_proto::body::MessageQueue;
use raftmq_proto::message::name;

use crate::error::{Error, Result};
use crate::instance::{Instance, InstanceOptions};
use crate::pull::{Pull, PullResult};
use crate::subscription::Subscription;

/// Longest hold of [`PullConsumer::pull_block`] at the broker, as in RocketMQ.
const HOLD: Duration = Duration::from_secs(20);
/// Time for a pull over a failover.
const PULL_TIMEOUT: Duration = Duration::from_secs(30);

/// A reader of single queues. Cheap to clone. It takes no part in the sharing of queues among a group's
/// members: who reads what is up to the caller.
#[derive(Clone, Debug)]
pub struct PullConsumer {
    instance: Instance,
    group: String,
}

impl PullConsumer {
    /// Starts a reader with a client instance of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad nameserver list or group name.
    pub fn start(name_servers: &str, group: &str) -> Result<PullConsumer> {
        PullConsumer::within(Instance::start(&InstanceOptions::new(name_servers))?, group)
    }

    /// Starts a reader in a client instance that others use too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad group name.
    pub fn within(instance: Instance, group: &str) -> Result<PullConsumer> {
        name::check_group(group).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(PullConsumer {
            instance,
            group: group.to_owned(),
        })
    }

    /// The client instance it runs in.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The queues of a topic that can be read, sorted.
    ///
    /// # Errors
    /// [`Error::NoRoute`] when the topic does not exist.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        Ok(self
            .instance
            .inner
            .routes
            .get(topic, false)
            .await?
            .subscribe_queues
            .clone())
    }

    /// Reads up to `max_messages` messages at `offset`; answers at once also when there are none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pull(
        &self,
        queue: &MessageQueue,
        subscription: &Subscription,
        offset: i64,
        max_messages: i32,
    ) -> Result<PullResult> {
        self.pull_with(queue, subscription, offset, max_messages, None)
            .await
    }

    /// As [`pull`](PullConsumer::pull), but when there are no messages the broker holds the request up
    /// to 20 s until some arrive.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pull_block(
        &self,
        queue: &MessageQueue,
        subscription: &Subscription,
        offset: i64,
        max_messages: i32,
    ) -> Result<PullResult> {
        self.pull_with(queue, subscription, offset, max_messages, Some(HOLD))
            .await
    }

    async fn pull_with(
        &self,
        queue: &MessageQueue,
        subscription: &Subscription,
        offset: i64,
        max_messages: i32,
        hold: Option<Duration>,
    ) -> Result<PullResult> {
        self.instance.inner.routes.get(&queue.topic, false).await?;
        let pull = Pull {
            group: &self.group,
            queue,
            offset,
            max_messages,
            subscription,
            hold,
            own_filter: true,
            broker_id: 0,
            allowed: PULL_TIMEOUT + hold.unwrap_or_default(),
        };
        self.instance.inner.pull(&pull).await
    }

    /// First offset of the queue that still exists.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64> {
        self.instance.inner.min_offset(queue).await
    }

    /// Offset after the last message of the queue.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64> {
        self.instance.inner.max_offset(queue).await
    }

    /// First offset stored at or after this time, milliseconds since the epoch.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn search_offset(&self, queue: &MessageQueue, timestamp_ms: i64) -> Result<i64> {
        self.instance.inner.search_offset(queue, timestamp_ms).await
    }

    /// The group's saved offset, `None` when it has none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn consumer_offset(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        self.instance.inner.query_offset(&self.group, queue).await
    }

    /// Saves the group's offset and waits until the broker has it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn save_offset(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        self.instance.inner.routes.get(&queue.topic, false).await?;
        self.instance
            .inner
            .save_offset(&self.group, queue, offset)
            .await
    }

    /// Ends the reader and its client instance.
    pub async fn shutdown(&self) {
        self.instance.shutdown().await;
    }
}

//! Sending messages (RocketMQ: `DefaultMQProducer`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raftmq_proto::body::MessageQueue;
use raftmq_proto::code::response;
use raftmq_proto::frame::SerializeType;
use raftmq_proto::message::name;
use tokio::time::Instant;

use crate::call::{Answer, Failure, Plan, Target};
use crate::error::{Error, Result};
use crate::instance::{Instance, InstanceOptions};
use crate::local_time::now_ms;
use crate::message::Message;
use crate::prepare::{Prepared, Preparer};
use crate::retry::{Verdict, attempt_timeout};
use crate::route::{Route, queue_of_key};
use crate::send_result::SendResult;

/// Settings of a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Producer group.
    pub group: String,
    /// Time for a whole send, retries included. Default 3 s.
    pub send_timeout: Duration,
    /// Retries after an answer that refuses the message or an attempt without answer. Attempts that
    /// find no serving broker do not count: they are repeated until the time is over. Default 2.
    pub retries: u32,
    /// Bodies longer than this many bytes are compressed. Default 4096; `usize::MAX` for never.
    pub compress_over: usize,
    /// Largest body before compression, in bytes. Default 4 MiB, RocketMQ's limit.
    pub message_max: usize,
    /// Header encoding; brokers answer in the same one. Default JSON.
    pub serialize: SerializeType,
}

impl ProducerOptions {
    /// RocketMQ's defaults for this group.
    #[must_use]
    pub fn new(group: impl Into<String>) -> ProducerOptions {
        ProducerOptions {
            group: group.into(),
            send_timeout: Duration::from_secs(3),
            retries: 2,
            compress_over: 4096,
            message_max: 4 * 1024 * 1024,
            serialize: SerializeType::Json,
        }
    }
}

/// A producer. Cheap to clone; any number of sends may be under way at once.
#[derive(Clone, Debug)]
pub struct Producer {
    instance: Instance,
    options: Arc<ProducerOptions>,
    /// Where in the list of queues the next send goes.
    turn: Arc<AtomicUsize>,
}

impl Producer {
    /// Starts a producer with a client instance of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad nameserver list or group name.
    pub fn start(name_servers: &str, options: ProducerOptions) -> Result<Producer> {
        let instance = Instance::start(&InstanceOptions::new(name_servers))?;
        Producer::within(instance, options)
    }

    /// Starts a producer in a client instance that others use too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad group name.
    pub fn within(instance: Instance, options: ProducerOptions) -> Result<Producer> {
        name::check_group(&options.group).map_err(|error| Error::Invalid(error.to_string()))?;
        instance.inner.add_producer(&options.group);
        Ok(Producer {
            instance,
            options: Arc::new(options),
            turn: Arc::new(AtomicUsize::new(now_ms().unsigned_abs() as usize % 1024)),
        })
    }

    /// The client instance it runs in.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The queues that sends of this topic can go to. For a topic that does not exist yet, those it
    /// will get.
    ///
    /// # Errors
    /// [`Error::NoRoute`] when the topic neither exists nor can be created.
    pub async fn publish_queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        Ok(self.route(topic).await?.publish_queues.clone())
    }

    /// Sends a message to one of the topic's queues, in turn.
    ///
    /// # Errors
    /// See [`Error`]. After [`Error::Deadline`] and lost connections the message may be stored.
    pub async fn send(&self, message: Message) -> Result<SendResult> {
        self.send_within(message, self.options.send_timeout).await
    }

    /// As [`send`](Producer::send), with a time of its own.
    ///
    /// # Errors
    /// As for [`send`](Producer::send).
    pub async fn send_within(&self, message: Message, allowed: Duration) -> Result<SendResult> {
        let begun = Instant::now();
        let prepared = self.preparer().message(message)?;
        self.send_anywhere(prepared, begun, allowed).await
    }

    /// Sends a message to this very queue, also when it must be tried again.
    ///
    /// # Errors
    /// As for [`send`](Producer::send).
    pub async fn send_to(&self, message: Message, queue: &MessageQueue) -> Result<SendResult> {
        let begun = Instant::now();
        if message.topic != queue.topic {
            return Err(Error::Invalid(format!(
                "the queue is of topic {}, the message of {}",
                queue.topic, message.topic
            )));
        }
        let mut prepared = self.preparer().message(message)?;
        self.route(&prepared.topic).await?;
        let plan = self.plan(begun, self.options.send_timeout, u32::MAX);
        match self.attempt(&mut prepared, queue, &plan).await {
            Ok(answer) => SendResult::read(&prepared.msg_id, queue, answer),
            Err(failure) => Err(failure.error),
        }
    }

    /// Sends a message to the queue that `key` hashes to. Messages of one key keep their order if each
    /// is sent after the one before was acknowledged.
    ///
    /// # Errors
    /// As for [`send`](Producer::send).
    pub async fn send_ordered(&self, message: Message, key: &str) -> Result<SendResult> {
        let route = self.route(&message.topic).await?;
        let queue = queue_of_key(&route.publish_queues, key).ok_or_else(|| Error::NoRoute {
            topic: message.topic.clone(),
        })?;
        self.send_to(message, queue).await
    }

    /// Sends several messages of one topic as one request. They are stored next to each other in one
    /// queue, all or none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty batch, mixed topics, a retry topic or a delay; else as for
    /// [`send`](Producer::send).
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<SendResult> {
        let begun = Instant::now();
        let prepared = self.preparer().batch(messages)?;
        self.send_anywhere(prepared, begun, self.options.send_timeout)
            .await
    }

    /// Sends a message without waiting for an answer: it may be lost unnoticed.
    ///
    /// # Errors
    /// When the topic has no route or no connection could be made.
    pub async fn send_oneway(&self, message: Message) -> Result<()> {
        let mut prepared = self.preparer().message(message)?;
        let route = self.route(&prepared.topic).await?;
        let queue = self
            .next_queue(&route, None)
            .ok_or_else(|| Error::NoRoute {
                topic: prepared.topic.clone(),
            })?;
        let mut request = prepared.request(queue.queue_id, &self.options);
        request.mark_oneway();
        let timeout = self.options.send_timeout;
        self.instance
            .inner
            .oneway(target_of(&queue), &request, timeout)
            .await
    }

    /// Ends the producer and its client instance.
    pub async fn shutdown(&self) {
        self.instance.shutdown().await;
    }

    async fn route(&self, topic: &str) -> Result<Arc<Route>> {
        self.instance.inner.routes.get(topic, true).await
    }

    fn plan(&self, begun: Instant, allowed: Duration, rounds_max: u32) -> Plan {
        Plan {
            begun,
            counted_max: self.options.retries.saturating_add(1),
            rounds_max,
            accepts: |code| {
                matches!(
                    code,
                    response::SUCCESS
                        | response::FLUSH_DISK_TIMEOUT
                        | response::SLAVE_NOT_AVAILABLE
                        | response::FLUSH_SLAVE_TIMEOUT
                )
            },
            ..Plan::new(allowed, attempt_timeout(allowed, allowed))
        }
    }

    /// Sends to any queue: with several groups another group takes over as soon as one has been tried
    /// in vain; with one group its members are tried until the time is over.
    async fn send_anywhere(
        &self,
        mut prepared: Prepared,
        begun: Instant,
        allowed: Duration,
    ) -> Result<SendResult> {
        let mut avoid: Option<String> = None;
        let (mut attempts, mut counted) = (0, 0);
        loop {
            let route = self.route(&prepared.topic).await?;
            let Some(queue) = self.next_queue(&route, avoid.as_deref()) else {
                return Err(Error::NoRoute {
                    topic: prepared.topic,
                });
            };
            let rounds_max = if route.groups.len() > 1 { 1 } else { u32::MAX };
            let mut plan = self.plan(begun, allowed, rounds_max);
            plan.counted_max = plan.counted_max.saturating_sub(counted).max(1);
            match self.attempt(&mut prepared, &queue, &plan).await {
                Ok(mut answer) => {
                    answer.attempts += attempts;
                    return SendResult::read(&prepared.msg_id, &queue, answer);
                }
                Err(Failure {
                    error,
                    verdict,
                    attempts: more,
                }) => {
                    attempts += more;
                    let over = plan.remaining().is_zero() || counted > self.options.retries;
                    if verdict == Verdict::GiveUp || over || route.groups.len() < 2 {
                        return Err(error);
                    }
                    counted += u32::from(verdict == Verdict::Again);
                    avoid = Some(queue.broker_name);
                }
            }
        }
    }

    async fn attempt(
        &self,
        prepared: &mut Prepared,
        queue: &MessageQueue,
        plan: &Plan,
    ) -> std::result::Result<Answer, Failure> {
        let request = prepared.request(queue.queue_id, &self.options);
        self.instance
            .inner
            .call(target_of(queue), plan, &request)
            .await
    }

    fn preparer(&self) -> Preparer<'_> {
        Preparer {
            options: &self.options,
            unique_keys: &self.instance.inner.unique_keys,
        }
    }

    /// The next queue in turn, not of the group to avoid if another one has queues.
    fn next_queue(&self, route: &Route, avoid: Option<&str>) -> Option<MessageQueue> {
        let queues = &route.publish_queues;
        if queues.is_empty() {
            return None;
        }
        for _ in 0..queues.len() {
            let queue = &queues[self.turn.fetch_add(1, Ordering::Relaxed) % queues.len()];
            if avoid != Some(queue.broker_name.as_str()) {
                return Some(queue.clone());
            }
        }
        Some(queues[self.turn.fetch_add(1, Ordering::Relaxed) % queues.len()].clone())
    }
}

fn target_of(queue: &MessageQueue) -> Target<'_> {
    Target {
        topic: &queue.topic,
        broker_name: &queue.broker_name,
        broker_id: 0,
    }
}

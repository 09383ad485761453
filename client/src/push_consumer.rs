//! Consuming a group's share of its topics (RocketMQ: `DefaultMQPushConsumer`).
//!
//! ```text
//!  rebalance ──▶ one reader per assigned queue: pull ─▶ listener ─▶ progress
//!      ▲                                                             │
//!  code 40, a new route, 20 s                  saved every few seconds, when a queue goes, and at the end
//! ```
//!
//! Within a queue messages are handed over in order and one batch at a time; queues run beside each
//! other. A batch that the listener could not consume is handed over again after a pause, so that a
//! queue never runs ahead of a failure.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raftmq_proto::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, ConsumerListBody, MessageModel, MessageQueue,
};
use raftmq_proto::code::request;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::GetConsumerListByGroupRequestHeader;
use raftmq_proto::message::name;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::allocate::averagely;
use crate::call::{Plan, Target};
use crate::error::{Error, Result};
use crate::instance::{Consumer, Instance, InstanceOptions};
use crate::message::MessageExt;
use crate::nameservers::read_body;
use crate::progress::Progress;
use crate::reader::{Reader, read_queue, until_stopped};
use crate::subscription::Subscription;

const REBALANCE_EVERY: Duration = Duration::from_secs(20);
/// After a rebalance that could not be completed.
const REBALANCE_AGAIN: Duration = Duration::from_secs(1);
/// A burst of notifications, one per member that comes or goes, is one rebalance.
const REBALANCE_SETTLE: Duration = Duration::from_millis(20);
const CONSUMER_LIST_TIMEOUT: Duration = Duration::from_secs(3);
/// Wait at the end for batches that listeners are still working on.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Where a group begins that has no saved offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeFrom {
    /// At the end: messages from now on.
    LastOffset,
    /// At the beginning.
    FirstOffset,
    /// At the first message stored at or after this time, milliseconds since the epoch.
    Timestamp(i64),
}

/// What a listener made of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeStatus {
    /// Done; the messages will not come again.
    Success,
    /// Not done; hand the batch over again later.
    ReconsumeLater,
}

/// Settings of a [`PushConsumer`].
#[derive(Clone, Debug)]
pub struct PushConsumerOptions {
    /// Consumer group.
    pub group: String,
    /// What to consume.
    pub subscriptions: Vec<Subscription>,
    /// Whether each message goes to one member (clustering, the default) or to every one. A
    /// broadcasting member keeps its offsets in memory only: started anew, it begins at
    /// [`from`](PushConsumerOptions::from).
    pub model: MessageModel,
    /// Where a new group begins. Default the last offset, as in RocketMQ.
    pub from: ConsumeFrom,
    /// Most messages of one pull. Default 32.
    pub pull_batch: i32,
    /// Most messages handed to the listener at once. Default 1.
    pub consume_batch: usize,
    /// How often progress is saved. Default 5 s.
    pub save_every: Duration,
    /// How long a broker holds a pull while there is nothing. Default 15 s.
    pub hold: Duration,
    /// Pause before a batch is handed over again. Default 1 s.
    pub retry_after: Duration,
}

impl PushConsumerOptions {
    /// RocketMQ's defaults for this group.
    #[must_use]
    pub fn new(group: impl Into<String>) -> PushConsumerOptions {
        PushConsumerOptions {
            group: group.into(),
            subscriptions: Vec::new(),
            model: MessageModel::Clustering,
            from: ConsumeFrom::LastOffset,
            pull_batch: 32,
            consume_batch: 1,
            save_every: Duration::from_secs(5),
            hold: Duration::from_secs(15),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// The future of a listener's work.
pub type Consuming = Pin<Box<dyn Future<Output = ConsumeStatus> + Send>>;

/// Takes the messages of a push consumer.
pub trait MessageListener: Send + Sync + 'static {
    /// Consumes messages of one queue, in the queue's order. Called again for the same messages after
    /// [`ConsumeStatus::ReconsumeLater`], and by another member after a failure of this one.
    fn consume(&self, messages: Vec<MessageExt>) -> Consuming;
}

impl<F, R> MessageListener for F
where
    F: Fn(Vec<MessageExt>) -> R + Send + Sync + 'static,
    R: Future<Output = ConsumeStatus> + Send + 'static,
{
    fn consume(&self, messages: Vec<MessageExt>) -> Consuming {
        Box::pin(self(messages))
    }
}

/// A running member of a consumer group. Dropping it stops the work without waiting for anything; see
/// [`shutdown`](PushConsumer::shutdown).
pub struct PushConsumer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushConsumer")
            .field("group", &self.shared.options.group)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    pub(crate) instance: Instance,
    pub(crate) options: PushConsumerOptions,
    pub(crate) listener: Arc<dyn MessageListener>,
    pub(crate) progress: Arc<Progress>,
    readers: Mutex<HashMap<MessageQueue, Reader>>,
}

impl PushConsumer {
    /// Starts a member with a client instance of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad nameserver list, group or topic name, or no subscription. Brokers
    /// that cannot be reached are not an error: the member looks for them until it is shut down.
    pub async fn start(
        name_servers: &str,
        options: PushConsumerOptions,
        listener: impl MessageListener,
    ) -> Result<PushConsumer> {
        let instance = Instance::start(&InstanceOptions::new(name_servers))?;
        PushConsumer::within(instance, options, listener).await
    }

    /// Starts a member in a client instance that others use too.
    ///
    /// # Errors
    /// As for [`start`](PushConsumer::start), and when the group already runs in this instance.
    pub async fn within(
        instance: Instance,
        mut options: PushConsumerOptions,
        listener: impl MessageListener,
    ) -> Result<PushConsumer> {
        name::check_group(&options.group).map_err(|error| Error::Invalid(error.to_string()))?;
        if options.subscriptions.is_empty() {
            return Err(Error::Invalid(format!(
                "the consumer group {} subscribes to nothing",
                options.group
            )));
        }
        for subscription in &options.subscriptions {
            name::check_topic(&subscription.topic)
                .map_err(|error| Error::Invalid(error.to_string()))?;
        }
        options.pull_batch = options.pull_batch.max(1);
        options.consume_batch = options.consume_batch.max(1);
        if options.model == MessageModel::Clustering {
            // All members of a group must subscribe to the same; RocketMQ's add the retry topic.
            let retry_topic = name::retry_topic(&options.group);
            options
                .subscriptions
                .push(Subscription::tags(retry_topic, "*"));
        }
        let rebalance = Arc::new(Notify::new());
        let progress = Arc::new(Progress::default());
        instance.inner.add_consumer(Consumer {
            data: consumer_data(&options),
            rebalance: Arc::clone(&rebalance),
            progress: Arc::clone(&progress),
        })?;
        let shared = Arc::new(Shared {
            instance,
            options,
            listener: Arc::new(listener),
            progress,
            readers: Mutex::new(HashMap::new()),
        });
        for subscription in &shared.options.subscriptions {
            let routes = &shared.instance.inner.routes;
            if let Err(error) = routes.get(&subscription.topic, false).await {
                tracing::debug!(topic = subscription.topic, %error, "no route yet");
            }
        }
        // Brokers must know this member before it asks them who is in the group.
        shared.instance.inner.heartbeat().await;
        let (stop, stopped) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(keep_balance(
                Arc::clone(&shared),
                rebalance,
                stopped.clone(),
            )),
            tokio::spawn(keep_saving(Arc::clone(&shared), stopped)),
        ];
        Ok(PushConsumer {
            shared,
            stop,
            tasks,
        })
    }

    /// The client instance it runs in.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.shared.instance
    }

    /// The queues this member reads now, sorted.
    #[must_use]
    pub fn assigned(&self) -> Vec<MessageQueue> {
        let mut queues: Vec<MessageQueue> = self.shared.readers.lock().keys().cloned().collect();
        queues.sort();
        queues
    }

    /// Stops, waits up to 10 s for batches that the listener is working on, saves progress and leaves
    /// the group. The client instance goes on.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            // An error would be a panic of the task, which the runtime has reported.
            drop(task.await);
        }
        let readers = std::mem::take(&mut *self.shared.readers.lock());
        for reader in readers.values() {
            reader.stop();
        }
        let ended = async {
            for reader in readers.into_values() {
                reader.ended().await;
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, ended).await.is_err() {
            tracing::warn!(
                group = self.shared.options.group,
                "a listener still works on a batch; it will be delivered again"
            );
        }
        self.shared.save_progress().await;
        self.shared
            .instance
            .inner
            .remove_consumer(&self.shared.options.group)
            .await;
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for reader in self.shared.readers.lock().values() {
            reader.stop();
        }
        self.shared
            .instance
            .inner
            .forget_consumer(&self.shared.options.group);
    }
}

fn consumer_data(options: &PushConsumerOptions) -> ConsumerData {
    ConsumerData {
        group_name: options.group.clone(),
        consume_type: ConsumeType::ConsumePassively,
        message_model: options.model,
        consume_from_where: match options.from {
            ConsumeFrom::LastOffset => ConsumeFromWhere::ConsumeFromLastOffset,
            ConsumeFrom::FirstOffset => ConsumeFromWhere::ConsumeFromFirstOffset,
            ConsumeFrom::Timestamp(_) => ConsumeFromWhere::ConsumeFromTimestamp,
        },
        subscription_data_set: options
            .subscriptions
            .iter()
            .map(Subscription::data)
            .collect(),
        unit_mode: false,
    }
}

async fn keep_balance(
    shared: Arc<Shared>,
    rebalance: Arc<Notify>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut changes = shared.instance.inner.routes.changes();
    loop {
        changes.mark_unchanged();
        let complete = tokio::select! {
            complete = shared.rebalance() => complete,
            () = until_stopped(&mut stopped) => return,
        };
        let pause = if complete {
            REBALANCE_EVERY
        } else {
            REBALANCE_AGAIN
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = rebalance.notified() => tokio::time::sleep(REBALANCE_SETTLE).await,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = until_stopped(&mut stopped) => return,
        }
    }
}

async fn keep_saving(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.options.save_every) => {}
            () = until_stopped(&mut stopped) => return,
        }
        shared.save_progress().await;
    }
}

impl Shared {
    /// Compares what this member should read with what it reads. Returns whether everything was known
    /// that is needed to tell.
    async fn rebalance(self: &Arc<Self>) -> bool {
        let mut complete = true;
        for subscription in &self.options.subscriptions {
            let topic = &subscription.topic;
            match self.share_of(topic).await {
                Ok(share) => self.apply_share(subscription, share),
                Err(error) => {
                    // What was assigned stays: better read twice than not at all.
                    tracing::debug!(topic, %error, "rebalance put off");
                    complete = false;
                }
            }
        }
        complete
    }

    async fn share_of(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        let inner = &self.instance.inner;
        let route = inner.routes.get(topic, false).await?;
        if self.options.model == MessageModel::Broadcasting {
            return Ok(route.subscribe_queues.clone());
        }
        let Some(group) = route.groups.first() else {
            return Err(Error::NoRoute {
                topic: topic.to_owned(),
            });
        };
        let header = GetConsumerListByGroupRequestHeader {
            consumer_group: self.options.group.clone(),
        };
        let request =
            RemotingCommand::request(request::GET_CONSUMER_LIST_BY_GROUP).with_header(&header);
        let target = Target {
            topic,
            broker_name: &group.broker_name,
            broker_id: 0,
        };
        let plan = Plan {
            // Code 1 means that the broker knows no member: a heartbeat helps, asking again does not.
            counted_max: 1,
            ..Plan::new(CONSUMER_LIST_TIMEOUT, CONSUMER_LIST_TIMEOUT / 2)
        };
        let answer = match inner.call(target, &plan, &request).await {
            Ok(answer) => answer,
            Err(failure) => {
                inner.heartbeat_soon();
                return Err(failure.error);
            }
        };
        let list: ConsumerListBody = read_body(&answer.address, answer.reply)?;
        let mut ids = list.consumer_id_list;
        ids.sort();
        if !ids.iter().any(|id| *id == inner.client_id) {
            inner.heartbeat_soon();
            return Err(Error::Invalid(
                "the broker does not know this member yet".to_owned(),
            ));
        }
        let mut queues = route.subscribe_queues.clone();
        queues.sort();
        Ok(averagely(&inner.client_id, &ids, &queues))
    }

    fn apply_share(self: &Arc<Self>, subscription: &Subscription, share: Vec<MessageQueue>) {
        let mut readers = self.readers.lock();
        readers.retain(|queue, reader| {
            let keep = queue.topic != subscription.topic || share.binary_search(queue).is_ok();
            if !keep {
                tracing::debug!(?queue, "queue given up");
                // The reader saves its progress once its listener is done; nobody waits for it here.
                reader.stop();
            }
            keep
        });
        for queue in share {
            if readers.contains_key(&queue) {
                continue;
            }
            tracing::debug!(?queue, "queue taken");
            let reader = Reader::spawn(|stop| {
                read_queue(Arc::clone(self), subscription.clone(), queue.clone(), stop)
            });
            readers.insert(queue, reader);
        }
    }

    pub(crate) async fn save_progress(&self) {
        if self.options.model == MessageModel::Broadcasting {
            return;
        }
        for (queue, offset) in self.progress.unsaved() {
            self.save_queue(&queue, offset).await;
        }
    }

    pub(crate) async fn save_queue(&self, queue: &MessageQueue, offset: i64) {
        let inner = &self.instance.inner;
        match inner.save_offset(&self.options.group, queue, offset).await {
            Ok(()) => self.progress.saved(queue, offset),
            Err(error) => tracing::debug!(?queue, offset, %error, "offset not saved"),
        }
    }
}

//! One assigned queue of a push consumer: pulled, handed over, and its progress noted.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use raftmq_proto::body::{MessageModel, MessageQueue};
use raftmq_proto::code::response;
use raftmq_proto::message::name;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::message::MessageExt;
use crate::pull::{Pull, PullStatus};
use crate::push_consumer::{ConsumeFrom, ConsumeStatus, Shared};
use crate::subscription::Subscription;

/// Pauses after failed pulls, doubling from the first to the second; RocketMQ always waits 3 s.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Time beyond the hold in which a pull follows a failover before it counts as failed.
const PULL_BEYOND_HOLD: Duration = Duration::from_secs(15);

/// Handle of a queue's task.
pub(crate) struct Reader {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Reader {
    pub(crate) fn spawn<F>(make: impl FnOnce(watch::Receiver<bool>) -> F) -> Reader
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Reader {
            stop,
            task: tokio::spawn(make(stopped)),
        }
    }

    /// Lets the task end after the batch in the listener's hands.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the end of the task.
    pub(crate) async fn ended(self) {
        // An error would be a panic of the task, which the runtime has reported.
        drop(self.task.await);
    }
}

/// Resolves when told to stop, or when whoever could tell is gone.
pub(crate) async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // An error is the sender's end, which means the same.
    drop(stopped.wait_for(|stop| *stop).await);
}

/// Reads `queue` until stopped.
pub(crate) async fn read_queue(
    shared: Arc<Shared>,
    subscription: Subscription,
    queue: MessageQueue,
    mut stopped: watch::Receiver<bool>,
) {
    let mut reading = Reading {
        shared,
        subscription,
        queue,
        broker_id: 0,
        pause: PAUSE_MIN,
    };
    let begun = tokio::select! {
        offset = reading.begin() => Some(offset),
        () = until_stopped(&mut stopped) => None,
    };
    if let Some(mut offset) = begun {
        loop {
            let pulled = tokio::select! {
                pulled = reading.pull(offset) => pulled,
                () = until_stopped(&mut stopped) => break,
            };
            let Some((messages, next)) = pulled else {
                continue;
            };
            if !reading.hand_over(messages, &mut stopped).await {
                break;
            }
            offset = next;
            reading.shared.progress.consumed(&reading.queue, offset);
        }
    }
    if let Some(offset) = reading.shared.progress.end(&reading.queue)
        && reading.shared.options.model == MessageModel::Clustering
    {
        reading.shared.save_queue(&reading.queue, offset).await;
    }
}

struct Reading {
    shared: Arc<Shared>,
    subscription: Subscription,
    queue: MessageQueue,
    /// The member that the last answer suggested.
    broker_id: i64,
    pause: Duration,
}

impl Reading {
    /// Finds out where to begin, for as long as it takes.
    async fn begin(&mut self) -> i64 {
        loop {
            match self.first_offset().await {
                Ok((offset, saved)) => {
                    self.pause = PAUSE_MIN;
                    self.shared.progress.begin(&self.queue, offset, saved);
                    return offset;
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn first_offset(&self) -> Result<(i64, Option<i64>)> {
        let (inner, options) = (&self.shared.instance.inner, &self.shared.options);
        if options.model == MessageModel::Clustering
            && let Some(saved) = inner.query_offset(&options.group, &self.queue).await?
        {
            return Ok((saved, Some(saved)));
        }
        let offset = match options.from {
            // The group's own failures must not be skipped, whatever the group skips.
            _ if name::is_retry_topic(&self.queue.topic) => 0,
            // The first pull is answered with the first offset that still exists.
            ConsumeFrom::FirstOffset => 0,
            ConsumeFrom::LastOffset => inner.max_offset(&self.queue).await?,
            ConsumeFrom::Timestamp(time) => inner.search_offset(&self.queue, time).await?,
        };
        Ok((offset, None))
    }

    /// Pulls at `offset`: the messages and where to go on, or nothing after a failure.
    async fn pull(&mut self, offset: i64) -> Option<(Vec<MessageExt>, i64)> {
        let options = &self.shared.options;
        let pull = Pull {
            group: &options.group,
            queue: &self.queue,
            offset,
            max_messages: options.pull_batch,
            subscription: &self.subscription,
            hold: Some(options.hold),
            // With the filter in the request a broker can serve before it has seen a heartbeat, as a
            // new leader must.
            own_filter: true,
            broker_id: self.broker_id,
            allowed: options.hold + PULL_BEYOND_HOLD,
        };
        match self.shared.instance.inner.pull(&pull).await {
            Ok(result) => {
                self.pause = PAUSE_MIN;
                self.broker_id = result.suggested_broker_id;
                if result.status == PullStatus::OffsetIllegal {
                    tracing::warn!(
                        queue = ?self.queue,
                        offset,
                        next = result.next_offset,
                        "offset outside the queue, moved"
                    );
                }
                Some((result.messages, result.next_offset))
            }
            Err(error) => {
                self.failed(&error).await;
                None
            }
        }
    }

    /// Hands messages to the listener in batches, each until it is consumed. False when stopped before
    /// all were.
    async fn hand_over(
        &self,
        messages: Vec<MessageExt>,
        stopped: &mut watch::Receiver<bool>,
    ) -> bool {
        let options = &self.shared.options;
        for batch in messages.chunks(options.consume_batch) {
            loop {
                if *stopped.borrow() {
                    return false;
                }
                match self.shared.listener.consume(batch.to_vec()).await {
                    ConsumeStatus::Success => break,
                    ConsumeStatus::ReconsumeLater => {
                        tokio::select! {
                            () = tokio::time::sleep(options.retry_after) => {}
                            () = until_stopped(stopped) => return false,
                        }
                    }
                }
            }
            if let Some(last) = batch.last() {
                self.shared
                    .progress
                    .consumed(&self.queue, last.queue_offset + 1);
            }
        }
        true
    }

    async fn failed(&mut self, error: &Error) {
        tracing::debug!(queue = ?self.queue, %error, "queue not readable right now");
        self.broker_id = 0;
        if matches!(
            error.code(),
            Some(
                response::SUBSCRIPTION_NOT_EXIST
                    | response::SUBSCRIPTION_NOT_LATEST
                    | response::SUBSCRIPTION_GROUP_NOT_EXIST
            )
        ) {
            self.shared.instance.inner.heartbeat_soon();
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

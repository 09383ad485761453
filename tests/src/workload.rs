//! Producers that send while faults happen.
//!
//! Two kinds run side by side. Our client's producers retry as an application's would; they give the figures. Plain
//! producers write to one member after the other, one attempt for each message, so that every outcome is exact: no copy
//! may appear twice, and what was refused may not appear at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use raftmq_client::MessageQueue;
use raftmq_client::{Message, Producer, ProducerOptions, SendResult};
use tokio::runtime::Runtime;

use crate::calls::{self, MessageId, Refusal, response};
use crate::clock::Nanos;
use crate::figures::say;
use crate::history::{Ack, History, Key, Outcome, Send, since};
use crate::wait::{pause, wait_for};
use crate::wire::Connection;

/// Producer numbers: our client's from 0, plain ones from here, Java's and preloading ones further up.
pub const PLAIN_FIRST: u32 = 1_000;
/// Number of the first Java producer.
pub const JAVA_FIRST: u32 = 2_000;
/// Number of the first preloading producer.
pub const PRELOAD_FIRST: u32 = 3_000;
/// Number of the Go producer.
pub const GO_FIRST: u32 = 4_000;

/// Whose a producer is, by its number.
pub fn kind_of(producer: u32) -> &'static str {
    match producer {
        ..PLAIN_FIRST => "our client",
        PLAIN_FIRST..JAVA_FIRST => "plain",
        JAVA_FIRST..PRELOAD_FIRST => "java",
        PRELOAD_FIRST..GO_FIRST => "preloading",
        GO_FIRST.. => "go",
    }
}

/// What is sent, to where, by how many.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nameservers, `;` between them.
    pub nameservers: String,
    /// The members, for plain producers.
    pub addresses: Vec<String>,
    /// Topic; exists.
    pub topic: String,
    /// Its queues.
    pub queues: i32,
    /// How many of our client's producers.
    pub client_producers: u32,
    /// How many plain producers.
    pub plain_producers: u32,
    /// Time between a producer's acknowledgement and its next send.
    pub pace: Duration,
}

impl Plan {
    /// Size of a message's body: mostly small, now and then large, so that segments fill and entries span pages.
    fn body_size(key: Key) -> usize {
        match key.seq % 16 {
            7 => 40_000,
            15 => 2_000,
            _ => 200,
        }
    }

    fn queue_of(&self, producer: u32) -> i32 {
        i32::try_from(producer).unwrap_or(0) % self.queues
    }
}

/// Producers under way.
#[derive(Debug)]
pub struct Workload {
    history: History,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    runtime: Option<Runtime>,
    producers: u32,
}

impl Workload {
    /// Starts the producers and waits until each has had a send acknowledged.
    pub fn start(plan: &Plan, history: &History) -> Result<Workload> {
        let workload = Workload::launch(plan, history)?;
        let started = Nanos::now();
        wait_for(
            "every producer's first acknowledged send",
            Duration::from_secs(30),
            Duration::from_millis(5),
            || {
                let acked = history.acked_since(started);
                let all = plan.client_producers + plan.plain_producers;
                (acked.range(..JAVA_FIRST).count() == all as usize).then_some(())
            },
        )?;
        Ok(workload)
    }

    fn launch(plan: &Plan, history: &History) -> Result<Workload> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start a runtime for the producers")?;
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..plan.client_producers)
            .map(|producer| {
                let (plan, history, stop) = (plan.clone(), history.clone(), Arc::clone(&stop));
                runtime.spawn(async move {
                    if let Err(error) = send_with_client(&plan, producer, &history, &stop).await {
                        // Shows up as "waited in vain" in the test.
                        say(format!("producer {producer} gave up: {error:#}"));
                    }
                })
            })
            .collect();
        let threads = (PLAIN_FIRST..PLAIN_FIRST + plan.plain_producers)
            .map(|producer| {
                let (plan, history, stop) = (plan.clone(), history.clone(), Arc::clone(&stop));
                std::thread::spawn(move || send_plainly(&plan, producer, &history, &stop))
            })
            .collect();
        Ok(Workload {
            history: history.clone(),
            stop,
            threads,
            tasks,
            runtime: Some(runtime),
            producers: plan.client_producers,
        })
    }

    /// When each of our client's producers was first acknowledged after `time` by a member other than the one on port
    /// `not_from`: the earliest and the latest of these. Waits until all have been.
    pub fn wait_acked(
        &self,
        time: Nanos,
        not_from: u16,
        within: Duration,
    ) -> Result<(Nanos, Nanos)> {
        wait_for(
            "every producer to be acknowledged again",
            within,
            Duration::from_millis(2),
            || {
                let first = self.first_acks(time, not_from);
                if first.len() < self.producers as usize {
                    return None;
                }
                Some((*first.iter().min()?, *first.iter().max()?))
            },
        )
    }

    fn first_acks(&self, time: Nanos, not_from: u16) -> Vec<Nanos> {
        let mut first = std::collections::BTreeMap::new();
        self.history.with(|sends| {
            for send in since(sends, time) {
                if send.key.producer < PLAIN_FIRST && acked_elsewhere(send, Some(not_from)) {
                    let earliest = first.entry(send.key.producer).or_insert(send.finished);
                    *earliest = send.finished.min(*earliest);
                }
            }
        });
        first.into_values().collect()
    }

    /// Ends all producers after the send they are at.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there is a failed assertion of the harness itself, already printed.
            thread.join().ok();
        }
        if let Some(runtime) = self.runtime.take() {
            for task in self.tasks.drain(..) {
                runtime.block_on(task).ok();
            }
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Whether a send was acknowledged, by another member than the one on port `not_from`.
pub fn acked_elsewhere(send: &Send, not_from: Option<u16>) -> bool {
    send.ack()
        .is_some_and(|ack| not_from.is_none() || ack.id.map(|id| id.port) != not_from)
}

async fn send_with_client(
    plan: &Plan,
    number: u32,
    history: &History,
    stop: &AtomicBool,
) -> Result<()> {
    let mut options = ProducerOptions::new("HARNESS_CLIENT_PRODUCER");
    options.compress_over = usize::MAX; // the checker looks at bodies
    let producer = Producer::start(&plan.nameservers, options).context("start a producer")?;
    let queue = queue_of(&producer, plan, plan.queue_of(number)).await?;
    for seq in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = Key {
            producer: number,
            seq,
        };
        let message = Message::new(plan.topic.as_str(), key.body(Plan::body_size(key)))
            .with_keys(key.to_string());
        let started = Nanos::now();
        let result = producer.send_to(message, &queue).await;
        let finished = Nanos::now();
        let (outcome, attempts_max) = client_outcome(result);
        let failed = !matches!(outcome, Outcome::Acked(_));
        history.add(Send {
            key,
            queue: queue.queue_id,
            started,
            finished,
            attempts_max,
            outcome,
        });
        let rest = if failed {
            Duration::from_millis(10).max(plan.pace)
        } else {
            plan.pace
        };
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
    producer.shutdown().await;
    Ok(())
}

async fn queue_of(producer: &Producer, plan: &Plan, wanted: i32) -> Result<MessageQueue> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let found = producer.publish_queues(&plan.topic).await;
        let queue = found
            .ok()
            .into_iter()
            .flatten()
            .find(|queue| queue.queue_id == wanted);
        if let Some(queue) = queue {
            return Ok(queue);
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "no route to {} queue {wanted}",
            plan.topic
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A failed send of a client that retries is unknown, whatever its last attempt was told, unless nothing was ever sent.
fn client_outcome(result: raftmq_client::Result<SendResult>) -> (Outcome, u32) {
    use raftmq_client::Error;
    match result {
        Ok(result) => {
            let ack = Ack {
                queue: result.message_queue.queue_id,
                offset: result.queue_offset,
                id: MessageId::parse(&result.offset_msg_id).ok(),
            };
            (Outcome::Acked(ack), result.attempts)
        }
        Err(error @ (Error::Invalid(_) | Error::NoRoute { .. })) => {
            (Outcome::Refused(error.to_string()), 0)
        }
        Err(error) => (Outcome::Unknown(error.to_string()), u32::MAX),
    }
}

fn send_plainly(plan: &Plan, number: u32, history: &History, stop: &AtomicBool) {
    let queue = plan.queue_of(number - PLAIN_FIRST);
    let mut connection: Option<Connection> = None;
    let mut turn = number as usize;
    let mut seq = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let address = &plan.addresses[turn % plan.addresses.len()];
        let Some(open) = connection.take().or_else(|| Connection::open(address).ok()) else {
            turn += 1;
            pause(Duration::from_millis(20));
            continue;
        };
        let key = Key {
            producer: number,
            seq,
        };
        seq += 1;
        let (send, left) = send_once(plan, queue, key, open);
        // Now and then to another member although this one works, so that followers forward.
        connection = left.filter(|_| !seq.is_multiple_of(64));
        if connection.is_none() {
            turn += 1;
        }
        let failed = send.ack().is_none();
        history.add(send);
        pause(if failed {
            Duration::from_millis(10).max(plan.pace)
        } else {
            plan.pace
        });
    }
}

/// One attempt; the connection comes back unless it broke.
fn send_once(
    plan: &Plan,
    queue: i32,
    key: Key,
    mut connection: Connection,
) -> (Send, Option<Connection>) {
    let properties = calls::keys_property(&key.to_string());
    let body = key.body(Plan::body_size(key));
    let request = calls::send_request(&plan.topic, queue, &properties, &body);
    let started = Nanos::now();
    let result = calls::send(&mut connection, &request);
    let finished = Nanos::now();
    let (outcome, usable) = plain_outcome(result);
    let send = Send {
        key,
        queue,
        started,
        finished,
        attempts_max: 1,
        outcome,
    };
    (send, usable.then_some(connection))
}

/// The outcome of a single attempt, and whether the connection is still in step.
pub fn plain_outcome(result: Result<calls::Sent>) -> (Outcome, bool) {
    match result {
        Ok(sent) => {
            let ack = Ack {
                queue: sent.queue,
                offset: sent.offset,
                id: sent.ids.first().copied(),
            };
            (Outcome::Acked(ack), true)
        }
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if is_definite(refusal) => (Outcome::Refused(refusal.to_string()), true),
            Some(refusal) => (Outcome::Unknown(refusal.to_string()), true),
            None => (Outcome::Unknown(format!("{error:#}")), false),
        },
    }
}

/// Whether a code says that nothing was stored. `SYSTEM_ERROR` is what RocketMQ answers when it cannot tell, and
/// `SERVICE_NOT_AVAILABLE` is the last word of a broker whose disk failed it.
pub(crate) fn is_definite(refusal: &Refusal) -> bool {
    ![response::SYSTEM_ERROR, response::SERVICE_NOT_AVAILABLE].contains(&refusal.code)
}

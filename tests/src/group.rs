//! Reads everything back through a push consumer group of our client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use raftmq_client::{
    ConsumeFrom, ConsumeStatus, MessageExt, PushConsumer, PushConsumerOptions, Subscription,
};

use crate::history::{FoundKey, found_key};
use crate::readback::Contents;

type Got = Arc<Mutex<HashMap<(i32, i64), FoundKey>>>;

/// Has a new group of two members consume `topic` from its beginning until it has had every message of `contents`; an error
/// when it has not within `within`, or when it was given anything that is not in `contents`.
pub fn consume_all(
    nameservers: &str,
    group: &str,
    topic: &str,
    contents: &Contents,
    within: Duration,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start a runtime for the consumers")?;
    let got = Got::default();
    let read = runtime.block_on(consume(
        nameservers,
        group,
        topic,
        contents.len(),
        within,
        &got,
    ));
    runtime.shutdown_timeout(Duration::from_secs(1));
    let got = got.lock().unwrap_or_else(PoisonError::into_inner);
    compare(group, &got, contents)?;
    read
}

async fn consume(
    nameservers: &str,
    group: &str,
    topic: &str,
    wanted: usize,
    within: Duration,
    got: &Got,
) -> Result<()> {
    let mut members = Vec::new();
    for _ in 0..2 {
        let mut options = PushConsumerOptions::new(group);
        options.subscriptions = vec![Subscription::tags(topic, "*")];
        options.from = ConsumeFrom::FirstOffset;
        options.consume_batch = 32;
        let got = Arc::clone(got);
        let listener = move |messages: Vec<MessageExt>| {
            let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
            for message in messages {
                let key = found_key(message.keys().unwrap_or_default());
                got.insert((message.queue_id, message.queue_offset), key);
            }
            std::future::ready(ConsumeStatus::Success)
        };
        let member = PushConsumer::start(nameservers, options, listener).await;
        members.push(member.context("start a push consumer")?);
    }
    let start = Instant::now();
    let count = || got.lock().unwrap_or_else(PoisonError::into_inner).len();
    while count() < wanted && start.elapsed() < within {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for member in members {
        member.shutdown().await;
    }
    let count = count();
    ensure!(
        count >= wanted,
        "group {group} was given {count} of {wanted} messages within {:.0} s",
        within.as_secs_f64()
    );
    Ok(())
}

fn compare(group: &str, got: &HashMap<(i32, i64), FoundKey>, contents: &Contents) -> Result<()> {
    let mut known = HashMap::with_capacity(contents.len());
    for (queue, held) in &contents.queues {
        for message in &held.messages {
            known.insert((*queue, message.offset), &message.key);
        }
    }
    for (place, key) in got {
        ensure!(
            known.get(place) == Some(&key),
            "group {group} was given {key:?} at (queue, offset) {place:?}, where {:?} stands",
            known.get(place)
        );
    }
    Ok(())
}

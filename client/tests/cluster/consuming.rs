//! Push consumers: sharing queues, progress, failovers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raftmq_client::{
    ConsumeFrom, ConsumeStatus, Message, MessageExt, MessageModel, MessageQueue, Producer,
    ProducerOptions, PushConsumer, PushConsumerOptions, Subscription,
};

use crate::eventually;
use crate::fake::{Cluster, GROUP, Mood};

type Seen = Arc<Mutex<Vec<MessageExt>>>;

fn options(group: &str) -> PushConsumerOptions {
    PushConsumerOptions {
        subscriptions: vec![Subscription::tags("T", "*")],
        from: ConsumeFrom::FirstOffset,
        hold: Duration::from_millis(500),
        ..PushConsumerOptions::new(group)
    }
}

async fn consumer(cluster: &Cluster, options: PushConsumerOptions) -> (PushConsumer, Seen) {
    let seen: Seen = Arc::default();
    let copy = Arc::clone(&seen);
    let listener = move |messages: Vec<MessageExt>| {
        copy.lock().unwrap().extend(messages);
        std::future::ready(ConsumeStatus::Success)
    };
    (
        PushConsumer::start(&cluster.name_server(), options, listener)
            .await
            .unwrap(),
        seen,
    )
}

fn bodies(seen: &Seen) -> BTreeSet<String> {
    let seen = seen.lock().unwrap();
    seen.iter()
        .map(|message| String::from_utf8_lossy(&message.body).into_owned())
        .collect()
}

async fn send(cluster: &Cluster, prefix: &str, count: usize) {
    let producer =
        Producer::start(&cluster.name_server(), ProducerOptions::new("producers")).unwrap();
    for number in 0..count {
        producer
            .send(Message::new("T", format!("{prefix}{number}")))
            .await
            .unwrap();
    }
    producer.shutdown().await;
}

#[tokio::test]
async fn everything_is_consumed_in_order_and_progress_is_saved() {
    let cluster = Cluster::start(3, "T");
    send(&cluster, "a", 200).await;
    let (consumer, seen) = consumer(&cluster, options("g")).await;
    eventually("200 messages", || seen.lock().unwrap().len() >= 200).await;
    assert_eq!(bodies(&seen).len(), 200);
    for queue_id in 0..4 {
        let offsets: Vec<i64> = seen
            .lock()
            .unwrap()
            .iter()
            .filter(|message| message.queue_id == queue_id)
            .map(|message| message.queue_offset)
            .collect();
        assert!(offsets.is_sorted() && offsets.len() == 50, "{offsets:?}");
    }
    // A held pull is woken by what arrives.
    send(&cluster, "b", 4).await;
    eventually("4 more", || seen.lock().unwrap().len() >= 204).await;
    let instance = consumer.instance().clone();
    consumer.shutdown().await;
    instance.shutdown().await;
    let saved = cluster.saved("g", "T");
    assert_eq!(
        saved.values().copied().collect::<Vec<_>>(),
        [51, 51, 51, 51]
    );
}

#[tokio::test]
async fn a_new_member_goes_on_where_the_group_was() {
    let cluster = Cluster::start(1, "T");
    send(&cluster, "a", 8).await;
    let (first, seen) = consumer(&cluster, options("g")).await;
    eventually("8 messages", || seen.lock().unwrap().len() >= 8).await;
    let instance = first.instance().clone();
    first.shutdown().await;
    instance.shutdown().await;
    send(&cluster, "b", 8).await;
    let (_second, seen) = consumer(&cluster, options("g")).await;
    eventually("8 new messages", || seen.lock().unwrap().len() >= 8).await;
    assert!(bodies(&seen).iter().all(|body| body.starts_with('b')));
}

#[tokio::test]
async fn members_share_the_queues_and_take_over_from_each_other() {
    let cluster = Cluster::start(2, "T");
    let (first, seen_first) = consumer(&cluster, options("g")).await;
    eventually("all queues", || first.assigned().len() == 4).await;
    let (second, seen_second) = consumer(&cluster, options("g")).await;
    eventually("half the queues", || {
        first.assigned().len() == 2 && second.assigned().len() == 2
    })
    .await;
    let all: BTreeSet<MessageQueue> = first
        .assigned()
        .into_iter()
        .chain(second.assigned())
        .collect();
    assert_eq!(all.len(), 4);
    send(&cluster, "a", 40).await;
    eventually("40 messages", || {
        let (first, second) = (bodies(&seen_first), bodies(&seen_second));
        first.union(&second).count() == 40
    })
    .await;
    assert!(!bodies(&seen_first).is_empty() && !bodies(&seen_second).is_empty());

    let instance = second.instance().clone();
    second.shutdown().await;
    instance.shutdown().await;
    eventually("all queues again", || first.assigned().len() == 4).await;
    send(&cluster, "b", 8).await;
    eventually("8 more", || {
        bodies(&seen_first)
            .iter()
            .filter(|body| body.starts_with('b'))
            .count()
            == 8
    })
    .await;
    assert!(seen_second.lock().unwrap().len() + seen_first.lock().unwrap().len() >= 48);
}

#[tokio::test]
async fn broadcasting_members_each_get_everything() {
    let cluster = Cluster::start(1, "T");
    let options = || PushConsumerOptions {
        model: MessageModel::Broadcasting,
        ..options("g")
    };
    let (_first, seen_first) = consumer(&cluster, options()).await;
    let (_second, seen_second) = consumer(&cluster, options()).await;
    send(&cluster, "a", 12).await;
    eventually("12 messages each", || {
        bodies(&seen_first).len() == 12 && bodies(&seen_second).len() == 12
    })
    .await;
    assert!(cluster.saved("g", "T").is_empty());
}

#[tokio::test]
async fn a_batch_comes_again_until_it_is_consumed() {
    let cluster = Cluster::start(1, "T");
    send(&cluster, "a", 4).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let options = PushConsumerOptions {
        retry_after: Duration::from_millis(20),
        ..options("g")
    };
    let consumer = PushConsumer::start(&cluster.name_server(), options, move |_messages| {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        std::future::ready(match call {
            0..8 => ConsumeStatus::ReconsumeLater,
            _ => ConsumeStatus::Success,
        })
    })
    .await
    .unwrap();
    eventually("4 messages after 8 failures", || {
        calls.load(Ordering::SeqCst) == 12
    })
    .await;
    consumer.shutdown().await;
    assert_eq!(cluster.saved("g", "T").values().sum::<i64>(), 4);
}

#[tokio::test]
async fn a_new_group_may_begin_at_the_end() {
    let cluster = Cluster::start(1, "T");
    send(&cluster, "a", 8).await;
    let options = PushConsumerOptions {
        from: ConsumeFrom::LastOffset,
        ..options("g")
    };
    let (consumer, seen) = consumer(&cluster, options).await;
    eventually("all queues", || consumer.assigned().len() == 4).await;
    eventually("the members' offsets", || {
        consumer
            .assigned()
            .iter()
            .all(|queue| queue.broker_name == GROUP)
    })
    .await;
    // Where a queue begins is known once its pull is held.
    eventually("pulls", || {
        cluster.asked(raftmq_proto::code::request::PULL_MESSAGE, 0) >= 4
    })
    .await;
    send(&cluster, "b", 4).await;
    eventually("4 messages", || seen.lock().unwrap().len() == 4).await;
    assert!(bodies(&seen).iter().all(|body| body.starts_with('b')));
}

#[tokio::test]
async fn consumption_survives_the_death_of_the_leader() {
    let mut cluster = Cluster::start(3, "T");
    let (consumer, seen) = consumer(&cluster, options("g")).await;
    send(&cluster, "a", 8).await;
    eventually("8 messages", || seen.lock().unwrap().len() == 8).await;
    cluster.set_mood(1, Mood::Refuses(14));
    cluster.set_mood(2, Mood::Refuses(14));
    cluster.kill(0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.set_mood(2, Mood::Serves);
    cluster.register(2);
    send(&cluster, "b", 8).await;
    eventually("8 more messages", || bodies(&seen).len() == 16).await;
    // The new leader knows the member without waiting for the next regular heartbeat.
    eventually("a heartbeat", || cluster.member_count() > 0).await;
    assert_eq!(consumer.assigned().len(), 4);
}

#[tokio::test]
async fn a_group_runs_once_in_an_instance() {
    let cluster = Cluster::start(1, "T");
    let (first, _seen) = consumer(&cluster, options("g")).await;
    let listener = |_: Vec<MessageExt>| std::future::ready(ConsumeStatus::Success);
    let instance = first.instance().clone();
    let again = PushConsumer::within(instance.clone(), options("g"), listener).await;
    assert!(again.is_err());
    let none = PushConsumerOptions::new("h");
    assert!(
        PushConsumer::within(instance, none, listener)
            .await
            .is_err()
    );
}

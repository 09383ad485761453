//! Producers: results, retries and failovers.

use std::time::Duration;

use raftmq_client::{
    Error, Message, MessageQueue, Producer, ProducerOptions, PullConsumer, PullStatus, SendStatus,
    Subscription,
};
use raftmq_proto::code::request;
use tokio::time::Instant;

use crate::eventually;
use crate::fake::{Cluster, GROUP, Mood, QUEUES};

fn producer(cluster: &Cluster) -> Producer {
    Producer::start(&cluster.name_server(), ProducerOptions::new("producers")).unwrap()
}

#[tokio::test]
async fn a_send_goes_to_every_queue_in_turn() {
    let cluster = Cluster::start(3, "T");
    let producer = producer(&cluster);
    let mut queues = Vec::new();
    for number in 0..QUEUES {
        let message = Message::new("T", format!("m{number}"))
            .with_tag("TagA")
            .with_keys("k");
        let result = producer.send(message).await.unwrap();
        assert_eq!(
            (result.status, result.queue_offset),
            (SendStatus::SendOk, 0)
        );
        assert_eq!((result.msg_id.len(), result.attempts), (32, 1));
        assert_eq!(result.offset_msg_id, "7F00000100002A9F0000000000000000");
        queues.push(result.message_queue.queue_id);
    }
    queues.sort();
    assert_eq!(queues, [0, 1, 2, 3]);
    let result = producer.send(Message::new("T", "m")).await.unwrap();
    assert_eq!(
        result.to_string(),
        format!(
            "SendResult [sendStatus=SEND_OK, msgId={}, offsetMsgId={}, messageQueue=MessageQueue \
             [topic=T, brokerName={GROUP}, queueId={}], queueOffset=1, recallHandle=null]",
            result.msg_id, result.offset_msg_id, result.message_queue.queue_id
        )
    );
    producer.shutdown().await;
    assert!(matches!(
        producer.send(Message::new("T", "m")).await,
        Err(Error::Closed)
    ));
}

#[tokio::test]
async fn batch_oneway_and_ordered_sends_arrive() {
    let cluster = Cluster::start(1, "T");
    let producer = producer(&cluster);
    let batch = vec![
        Message::new("T", "b0").with_tag("x"),
        Message::new("T", "b1"),
    ];
    let result = producer.send_batch(batch).await.unwrap();
    assert_eq!(result.msg_id.split(',').count(), 2);
    assert_eq!(result.offset_msg_id.split(',').count(), 2);
    let mixed = vec![Message::new("T", "b0"), Message::new("U", "b1")];
    assert!(matches!(
        producer.send_batch(mixed).await,
        Err(Error::Invalid(_))
    ));
    assert!(matches!(
        producer.send_batch(Vec::new()).await,
        Err(Error::Invalid(_))
    ));

    producer.send_oneway(Message::new("T", "o")).await.unwrap();
    eventually("the oneway message", || cluster.stored("T") == 3).await;

    let mut queues = Vec::new();
    for number in 0..5 {
        let message = Message::new("T", format!("s{number}"));
        queues.push(
            producer
                .send_ordered(message, "order-1")
                .await
                .unwrap()
                .message_queue,
        );
    }
    queues.dedup();
    assert_eq!(queues.len(), 1);

    let elsewhere = MessageQueue::new("U", GROUP, 0);
    let wrong = producer.send_to(Message::new("T", "m"), &elsewhere).await;
    assert!(matches!(wrong, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn what_was_sent_is_read_back_unchanged() {
    let cluster = Cluster::start(1, "T");
    let producer = producer(&cluster);
    let queue = MessageQueue::new("T", GROUP, 2);
    let large = vec![7u8; 100_000];
    let message = Message {
        flag: 5,
        ..Message::new("T", large.clone())
    }
    .with_tag("TagA")
    .with_property("colour", "blue");
    let sent = producer.send_to(message, &queue).await.unwrap();
    producer
        .send_to(Message::new("T", "b").with_tag("TagB"), &queue)
        .await
        .unwrap();

    let reader = PullConsumer::within(producer.instance().clone(), "readers").unwrap();
    assert_eq!(reader.queues("T").await.unwrap().len(), QUEUES as usize);
    assert_eq!(reader.min_offset(&queue).await.unwrap(), 0);
    assert_eq!(reader.max_offset(&queue).await.unwrap(), 2);
    assert_eq!(reader.search_offset(&queue, 0).await.unwrap(), 1);
    assert_eq!(reader.consumer_offset(&queue).await.unwrap(), None);
    reader.save_offset(&queue, 2).await.unwrap();
    assert_eq!(reader.consumer_offset(&queue).await.unwrap(), Some(2));

    let everything = Subscription::tags("T", "*");
    let pulled = reader.pull(&queue, &everything, 0, 32).await.unwrap();
    assert_eq!((pulled.status, pulled.next_offset), (PullStatus::Found, 2));
    let message = &pulled.messages[0];
    assert_eq!(
        message.body, large,
        "compressed on the way, decompressed here"
    );
    assert!(message.store_size < 10_000 && !message.is_compressed);
    assert_eq!(
        (message.msg_id.as_str(), message.flag),
        (sent.msg_id.as_str(), 5)
    );
    assert_eq!(message.properties["colour"], "blue");
    assert!(
        pulled.messages[1]
            .to_string()
            .contains("topic='T', flag=0, properties={TAGS=TagB")
    );

    let tagged = reader
        .pull(&queue, &Subscription::tags("T", "TagB || TagC"), 0, 32)
        .await
        .unwrap();
    assert_eq!((tagged.messages.len(), tagged.next_offset), (1, 2));
    let end = reader.pull(&queue, &everything, 2, 32).await.unwrap();
    assert_eq!(end.status, PullStatus::NoNewMessage);
    let beyond = reader.pull(&queue, &everything, 99, 32).await.unwrap();
    assert_eq!(
        (beyond.status, beyond.next_offset),
        (PullStatus::OffsetIllegal, 2)
    );
}

#[tokio::test]
async fn a_new_topic_is_created_by_the_first_send() {
    let cluster = Cluster::start(1, "T");
    let producer = producer(&cluster);
    let unknown = producer.send(Message::new("New", "m")).await;
    assert!(matches!(unknown, Err(Error::NoRoute { .. })));
    cluster.allow_auto_create();
    let result = producer.send(Message::new("New", "m")).await.unwrap();
    assert!(
        result.message_queue.queue_id < 4,
        "the producer's default is 4 queues"
    );
}

#[tokio::test]
async fn a_send_survives_the_death_of_the_leader() {
    let mut cluster = Cluster::start(3, "T");
    let producer = producer(&cluster);
    producer.send(Message::new("T", "before")).await.unwrap();
    cluster.set_mood(1, Mood::Refuses(14));
    cluster.set_mood(2, Mood::Refuses(2));
    cluster.kill(0).await;
    // An election takes a moment; the nameserver hears of it a moment later.
    let election = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        cluster.set_mood(1, Mood::Serves);
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.register(1);
    };
    let begun = Instant::now();
    let sends = async {
        let mut sends = tokio::task::JoinSet::new();
        for number in 0..50 {
            let producer = producer.clone();
            sends.spawn(async move {
                producer
                    .send(Message::new("T", format!("during {number}")))
                    .await
                    .unwrap()
            });
        }
        while let Some(sent) = sends.join_next().await {
            assert!(sent.unwrap().attempts > 1);
        }
        begun.elapsed()
    };
    let (took, ()) = tokio::join!(sends, election);
    assert!(took < Duration::from_secs(2), "{took:?}");
    // Soon the route is known again and each send needs one attempt.
    let sent = producer.send(Message::new("T", "after")).await.unwrap();
    assert_eq!(sent.attempts, 1);
    assert_eq!(cluster.stored("T"), 52);
}

#[tokio::test]
async fn a_follower_serves_while_the_route_is_stale() {
    let mut cluster = Cluster::start(3, "T");
    let producer = producer(&cluster);
    cluster.kill(0).await;
    let begun = Instant::now();
    for _ in 0..20 {
        producer.send(Message::new("T", "m")).await.unwrap();
    }
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    // The first follower that served is kept: the dead leader does not cost each send an attempt.
    assert_eq!(cluster.asked(request::SEND_MESSAGE_V2, 1), 20);
}

#[tokio::test]
async fn a_leader_that_hangs_is_passed_over() {
    let cluster = Cluster::start(2, "T");
    let options = ProducerOptions {
        send_timeout: Duration::from_secs(2),
        ..ProducerOptions::new("p")
    };
    let producer = Producer::start(&cluster.name_server(), options).unwrap();
    cluster.set_mood(0, Mood::Hangs);
    let begun = Instant::now();
    assert_eq!(
        producer
            .send(Message::new("T", "m"))
            .await
            .unwrap()
            .attempts,
        2
    );
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_refused_message_is_not_sent_again() {
    let cluster = Cluster::start(3, "T");
    let producer = producer(&cluster);
    let refused = producer
        .send(Message::new("T", "illegal"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(13));
    assert_eq!(
        refused.to_string(),
        "CODE: 13  DESC: the message is illegal"
    );
    assert_eq!(cluster.asked(request::SEND_MESSAGE_V2, 0), 1);

    cluster.set_mood(0, Mood::Refuses(16));
    cluster.set_mood(1, Mood::Refuses(16));
    cluster.set_mood(2, Mood::Refuses(16));
    let refused = producer.send(Message::new("T", "m")).await.unwrap_err();
    assert_eq!(refused.code(), Some(16));
    let asked: usize = (0..3)
        .map(|index| cluster.asked(request::SEND_MESSAGE_V2, index))
        .sum();
    assert_eq!(asked, 4, "three attempts beside the first test's one");
}

#[tokio::test]
async fn a_group_without_leader_ends_a_send_at_its_deadline() {
    let cluster = Cluster::start(2, "T");
    let producer = producer(&cluster);
    cluster.set_mood(0, Mood::Refuses(2));
    cluster.set_mood(1, Mood::Refuses(2));
    let begun = Instant::now();
    let message = Message::new("T", "m");
    let failed = producer
        .send_within(message, Duration::from_millis(600))
        .await
        .unwrap_err();
    assert!(matches!(failed, Error::Deadline { .. }), "{failed}");
    assert_eq!(failed.code(), Some(2));
    let took = begun.elapsed();
    assert!((600..3000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn a_dead_nameserver_slows_nobody() {
    let cluster = Cluster::start(1, "T");
    // One that refuses and one that accepts but never answers.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = closed.local_addr().unwrap();
    drop(closed);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let list = format!(
        "{refusing};{};{}",
        silent.local_addr().unwrap(),
        cluster.name_server()
    );
    let producer = Producer::start(&list, ProducerOptions::new("p")).unwrap();
    let begun = Instant::now();
    producer.send(Message::new("T", "m")).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn no_nameserver_at_all_is_an_error_in_time() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = closed.local_addr().unwrap();
    drop(closed);
    let producer = Producer::start(&refusing.to_string(), ProducerOptions::new("p")).unwrap();
    let begun = Instant::now();
    let failed = producer.send(Message::new("T", "m")).await.unwrap_err();
    assert!(
        failed.to_string().contains(&refusing.to_string()),
        "{failed}"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(Producer::start(" ; ", ProducerOptions::new("p")).is_err());
    assert!(Producer::start("h:1", ProducerOptions::new("no spaces")).is_err());
}

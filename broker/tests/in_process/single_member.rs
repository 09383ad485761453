//! A member that is a group of its own, asked over real connections as clients and tools ask it.

use std::time::{Duration, Instant};

use crate::calls::{pull, pull_header, query, send, send_header, update};
use crate::support::Member;
use raftmq_proto::body::{
    ConsumerData, ConsumerListBody, HeartbeatData, KvTable, LockBatchRequestBody,
    LockBatchResponseBody, MessageQueue, SubscriptionData, TopicConfig,
    TopicConfigSerializeWrapper, TopicStatsTable,
};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    CreateTopicRequestHeader, GetConsumerListByGroupRequestHeader, GetMaxOffsetRequestHeader,
    Header, PullMessageRequestHeader, SendMessageRequestHeader, SendMessageResponseHeader,
    ViewMessageRequestHeader,
};
use raftmq_proto::message::batch::{BatchItem, encode_batch};
use raftmq_proto::message::id::parse_offset_message_id;
use raftmq_proto::message::pull_sys_flag::{COMMIT_OFFSET, SUBSCRIPTION, SUSPEND};
use raftmq_proto::message::record::records;

/// Sends make their topic, come back with consecutive offsets and can be pulled as they were sent, by both headers and
/// as a batch.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_can_be_pulled() {
    let member = Member::start("").await;
    for n in 0..3u8 {
        let answer = send(&member, "T", 0, vec![n; 10]).await;
        assert_eq!(
            (answer.code, answer.remark.as_deref()),
            (response::SUCCESS, None)
        );
        let header = SendMessageResponseHeader::decode(&answer.ext_fields).unwrap();
        assert_eq!((header.queue_id, header.queue_offset), (0, n.into()));
        assert_eq!(header.transaction_id.as_deref(), Some("KEY"));
        assert_eq!(answer.ext_fields.get("MSG_REGION"), Some("DefaultRegion"));
        assert_eq!(answer.ext_fields.get("TRACE_ON"), Some("true"));

        let (host, offset) = parse_offset_message_id(&header.msg_id).unwrap();
        assert_eq!(host.port(), member.port);
        let view = ViewMessageRequestHeader {
            offset: offset.try_into().unwrap(),
            ..Default::default()
        };
        let viewed = member
            .ask(RemotingCommand::request(request::VIEW_MESSAGE_BY_ID).with_header(&view))
            .await;
        let bytes = viewed.body.into_bytes();
        assert_eq!(records(&bytes).next().unwrap().unwrap().body(), [n; 10]);
    }
    let long_names = RemotingCommand::request(request::SEND_MESSAGE).with_body(vec![3; 10]);
    let answer = member
        .ask(long_names.with_header(&send_header("T", 0)))
        .await;
    assert_eq!(answer.code, response::SUCCESS);

    let items: Vec<_> = [4, 5].map(|n| vec![n; 10]).into();
    let items: Vec<_> = items
        .iter()
        .map(|body| BatchItem {
            flag: 0,
            body,
            properties: "TAGS\u{1}b\u{2}",
        })
        .collect();
    let mut batch = RemotingCommand::request(request::SEND_BATCH_MESSAGE)
        .with_body(encode_batch(&items).unwrap());
    SendMessageRequestHeader {
        batch: Some(true),
        ..send_header("T", 0)
    }
    .encode_v2(&mut batch.ext_fields);
    let answer = member.ask(batch).await;
    let header = SendMessageResponseHeader::decode(&answer.ext_fields).unwrap();
    assert_eq!(
        (header.queue_offset, header.msg_id.split(',').count()),
        (4, 2)
    );

    let (answer, header) = pull(&member, &pull_header("T", 0)).await;
    assert_eq!(
        (answer.code, answer.remark.as_deref()),
        (response::SUCCESS, Some("FOUND"))
    );
    assert_eq!(
        (
            header.next_begin_offset,
            header.min_offset,
            header.max_offset
        ),
        (6, 0, 6)
    );
    assert_eq!(header.suggest_which_broker_id, 0);
    let bytes = answer.body.into_bytes();
    let found: Vec<_> = records(&bytes).map(|record| record.unwrap()).collect();
    for (n, record) in (0u8..).zip(&found) {
        assert_eq!(
            (record.queue_offset(), record.body()),
            (n.into(), &[n; 10][..])
        );
        record.verify_body_crc().unwrap();
        assert!(record.store_timestamp() > 0);
    }
    assert_eq!(found.len(), 6);

    let tagged = PullMessageRequestHeader {
        subscription: Some("b".to_owned()),
        ..pull_header("T", 0)
    };
    let (answer, header) = pull(&member, &tagged).await;
    assert_eq!(records(&answer.body.into_bytes()).count(), 2);
    assert_eq!(header.next_begin_offset, 6);
    member.stop().await;
}

/// Every message is there, with its offset, after a clean stop and a start on the same store.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let member = Member::start("").await;
    for n in 0..20u8 {
        assert_eq!(
            send(&member, "T", 1, vec![n; 10]).await.code,
            response::SUCCESS
        );
    }
    let member = member.restart().await;
    let answer = send(&member, "T", 1, vec![20; 10]).await;
    assert_eq!(
        SendMessageResponseHeader::decode(&answer.ext_fields)
            .unwrap()
            .queue_offset,
        20
    );
    let header = PullMessageRequestHeader {
        queue_id: 1,
        ..pull_header("T", 0)
    };
    let (answer, _) = pull(&member, &header).await;
    assert_eq!(records(&answer.body.into_bytes()).count(), 21);
    member.stop().await;
}

/// A pull that finds nothing is held until a message that it wants arrives, or its time is over; one that only asks is
/// answered at once. Each row of the offset table has its code.
#[tokio::test(flavor = "multi_thread")]
async fn pulls_wait_for_messages() {
    let member = Member::start("").await;
    assert_eq!(send(&member, "T", 0, vec![1]).await.code, response::SUCCESS);
    for (offset, code, next) in [
        (1, 19, 1),
        (2, 21, 1),
        (i64::MAX, 21, 1),
        (-1, 21, 0),
        (0, 0, 1),
    ] {
        let (answer, header) = pull(&member, &pull_header("T", offset)).await;
        assert_eq!(
            (answer.code, header.next_begin_offset),
            (code, next),
            "offset {offset}"
        );
    }
    let empty = PullMessageRequestHeader {
        queue_id: 3,
        ..pull_header("T", 7)
    };
    let (answer, header) = pull(&member, &empty).await;
    assert_eq!((answer.code, header.next_begin_offset), (21, 0));

    let waiting = PullMessageRequestHeader {
        sys_flag: SUBSCRIPTION | SUSPEND,
        suspend_timeout_millis: 20_000,
        subscription: Some("a".to_owned()),
        ..pull_header("T", 1)
    };
    let start = Instant::now();
    let (woken, ()) = tokio::join!(pull(&member, &waiting), async {
        member
            .until("a pull is held", |info| {
                info["pullThreadPoolQueueSize"] == "1"
            })
            .await;
        assert_eq!(send(&member, "T", 1, vec![2]).await.code, response::SUCCESS);
        assert_eq!(send(&member, "T", 0, vec![3]).await.code, response::SUCCESS);
    });
    assert_eq!((woken.0.code, woken.1.next_begin_offset), (0, 2));
    assert!(start.elapsed() < Duration::from_secs(15));

    let short = PullMessageRequestHeader {
        suspend_timeout_millis: 200,
        queue_offset: 2,
        ..waiting
    };
    let start = Instant::now();
    let (answer, header) = pull(&member, &short).await;
    assert_eq!((answer.code, header.next_begin_offset), (19, 2));
    assert!(start.elapsed() >= Duration::from_millis(200));
    member.stop().await;
}

/// An update is seen by the next query, survives a restart, never goes back and stays within the queue.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_offsets_are_saved_and_never_go_back() {
    let member = Member::start("").await;
    for _ in 0..10 {
        assert_eq!(send(&member, "T", 0, vec![1]).await.code, response::SUCCESS);
    }
    assert_eq!(
        update(&member, 1).await,
        response::SUBSCRIPTION_GROUP_NOT_EXIST
    );
    // A pull makes the group; what it commits counts.
    let commits = PullMessageRequestHeader {
        sys_flag: SUBSCRIPTION | COMMIT_OFFSET,
        commit_offset: 2,
        ..pull_header("T", 2)
    };
    assert_eq!(
        query(&member, Some(false)).await.0,
        response::QUERY_NOT_FOUND
    );
    assert_eq!(
        query(&member, None).await,
        (response::SUCCESS, Some("0".to_owned()))
    );
    assert_eq!(pull(&member, &commits).await.0.code, response::SUCCESS);
    assert_eq!(
        query(&member, None).await,
        (response::SUCCESS, Some("2".to_owned()))
    );
    assert_eq!(update(&member, 7).await, response::SUCCESS);
    assert_eq!(update(&member, 5).await, response::SUCCESS);
    assert_eq!(query(&member, None).await.1.as_deref(), Some("7"));
    for outside in [-1, 11, i64::MAX] {
        assert_eq!(update(&member, outside).await, response::INVALID_PARAMETER);
    }
    let member = member.restart().await;
    assert_eq!(query(&member, None).await.1.as_deref(), Some("7"));
    member.stop().await;
}

/// Heartbeats make group and retry topic, list the members and tell them of each other; a closed connection leaves.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_know_each_other() {
    let member = Member::start("").await;
    let heartbeat = |client: &str| {
        let subscription = SubscriptionData::of_tags("T", "*", 1).unwrap();
        let data = HeartbeatData {
            client_id: client.to_owned(),
            consumer_data_set: vec![ConsumerData {
                group_name: "g".to_owned(),
                subscription_data_set: vec![subscription],
                ..ConsumerData::default()
            }],
            ..HeartbeatData::default()
        };
        RemotingCommand::request(request::HEART_BEAT).with_body(data.to_json())
    };
    let (first, mut told) = member.client_told();
    let (second, _told) = member.client_told();
    let answer = member.ask_by(&first, heartbeat("c1")).await;
    assert_eq!(
        (
            answer.code,
            answer.ext_fields.get("IS_SUPPORT_HEART_BEAT_V2")
        ),
        (0, Some("false"))
    );
    assert_eq!(member.ask_by(&second, heartbeat("c2")).await.code, 0);

    let list = GetConsumerListByGroupRequestHeader {
        consumer_group: "g".to_owned(),
    };
    let list = RemotingCommand::request(request::GET_CONSUMER_LIST_BY_GROUP).with_header(&list);
    let ids = |answer: RemotingCommand| {
        ConsumerListBody::from_json(&answer.body.into_bytes())
            .unwrap()
            .consumer_id_list
    };
    assert_eq!(ids(member.ask(list.clone()).await), ["c1", "c2"]);
    let topics = member
        .ask(RemotingCommand::request(request::GET_ALL_TOPIC_CONFIG))
        .await;
    let topics = TopicConfigSerializeWrapper::from_json(&topics.body.into_bytes())
        .unwrap()
        .topic_config_table;
    assert_eq!(topics["%RETRY%g"].perm, 6);
    for system in ["TBW102", "SELF_TEST_TOPIC", "RMQ_SYS_TRANS_HALF_TOPIC"] {
        assert!(topics.contains_key(system), "{system}");
    }

    // Its own arrival, then that of the other.
    for _ in 0..2 {
        assert_eq!(
            told.recv().await.unwrap().code,
            request::NOTIFY_CONSUMER_IDS_CHANGED
        );
    }
    drop(second);
    assert_eq!(
        told.recv().await.unwrap().ext_fields.get("consumerGroup"),
        Some("g")
    );
    assert_eq!(ids(member.ask(list).await), ["c1"]);
    member.stop().await;
}

/// Queues are locked for one client at a time.
#[tokio::test(flavor = "multi_thread")]
async fn ordered_consumers_lock_queues() {
    let member = Member::start("").await;
    let lock = |client: &str| {
        let body = LockBatchRequestBody {
            client_id: client.to_owned(),
            consumer_group: "g".to_owned(),
            mq_set: [MessageQueue::new("T", "b", 0)].into(),
            only_this_broker: false,
        };
        body.to_json()
    };
    let granted = async |client: &str| {
        let answer = member
            .ask(RemotingCommand::request(request::LOCK_BATCH_MQ).with_body(lock(client)))
            .await;
        LockBatchResponseBody::from_json(&answer.body.into_bytes())
            .unwrap()
            .lock_ok_mq_set
            .len()
    };
    assert_eq!((granted("c1").await, granted("c2").await), (1, 0));
    member
        .ask(RemotingCommand::request(request::UNLOCK_BATCH_MQ).with_body(lock("c1")))
        .await;
    assert_eq!(granted("c2").await, 1);
    member.stop().await;
}

/// What tools ask for is answered in the shape they parse.
#[tokio::test(flavor = "multi_thread")]
async fn tools_are_answered() {
    let member = Member::start("").await;
    let create = |header: &CreateTopicRequestHeader| {
        RemotingCommand::request(request::UPDATE_AND_CREATE_TOPIC).with_header(header)
    };
    let made = CreateTopicRequestHeader {
        topic: "made".to_owned(),
        ..base_topic()
    };
    assert_eq!(member.ask(create(&made)).await.code, response::SUCCESS);
    let config = member
        .ask(RemotingCommand::request(request::GET_TOPIC_CONFIG).with_field("topic", "made"))
        .await;
    let config = TopicConfig::from_json(&config.body.into_bytes()).unwrap();
    assert_eq!(
        (config.read_queue_nums, config.write_queue_nums, config.perm),
        (3, 2, 6)
    );
    for (bad, what) in [
        (
            CreateTopicRequestHeader {
                topic: "a/b".to_owned(),
                ..base_topic()
            },
            "illegal",
        ),
        (
            CreateTopicRequestHeader {
                topic: "TBW102".to_owned(),
                ..base_topic()
            },
            "conflict with system topic",
        ),
        (
            CreateTopicRequestHeader {
                read_queue_nums: -1,
                ..base_topic()
            },
            "readQueueNums = -1",
        ),
        (
            CreateTopicRequestHeader {
                perm: 99,
                ..base_topic()
            },
            "perm = 99",
        ),
    ] {
        let answer = member.ask(create(&bad)).await;
        assert_eq!(answer.code, response::INVALID_PARAMETER);
        assert!(answer.remark.unwrap().contains(what), "{what}");
    }

    assert_eq!(
        send(&member, "made", 1, vec![1]).await.code,
        response::SUCCESS
    );
    let stats = member
        .ask(RemotingCommand::request(request::GET_TOPIC_STATS_INFO).with_field("topic", "made"))
        .await;
    let stats = TopicStatsTable::from_json(&stats.body.into_bytes()).unwrap();
    assert_eq!(stats.offset_table.len(), 3);
    let row = stats.offset_table[&MessageQueue::new("made", "b", 1)];
    assert!((row.max_offset, row.min_offset) == (1, 0) && row.last_update_timestamp > 0);

    let info = member
        .ask(RemotingCommand::request(request::GET_BROKER_RUNTIME_INFO))
        .await;
    let info = KvTable::from_json(&info.body.into_bytes()).unwrap().table;
    for number in [
        "msgPutTotalTodayNow",
        "commitLogMaxOffset",
        "earliestMessageTimeStamp",
        "bootTimestamp",
    ] {
        assert!(info[number].parse::<i64>().unwrap() > 0, "{number}");
    }
    for text in [
        "putTps",
        "getTransferredTps",
        "commitLogDiskRatio",
        "runtime",
    ] {
        assert!(!info[text].is_empty(), "{text}");
    }
    assert_eq!(info["brokerActive"], "true");
    let config = member
        .ask(RemotingCommand::request(request::GET_BROKER_CONFIG))
        .await;
    let text = String::from_utf8(config.body.into_bytes().to_vec()).unwrap();
    assert!(text.lines().any(|line| line == "brokerName=b"), "{text}");

    let gone = member
        .ask(RemotingCommand::request(request::DELETE_TOPIC_IN_BROKER).with_field("topic", "made"))
        .await;
    assert_eq!(gone.code, response::SUCCESS);
    let config = member
        .ask(RemotingCommand::request(request::GET_TOPIC_CONFIG).with_field("topic", "made"))
        .await;
    assert_eq!(config.code, response::TOPIC_NOT_EXIST);
    member.stop().await;
}

fn base_topic() -> CreateTopicRequestHeader {
    CreateTopicRequestHeader {
        topic: "base".to_owned(),
        default_topic: "TBW102".to_owned(),
        read_queue_nums: 3,
        write_queue_nums: 2,
        perm: 6,
        topic_filter_type: "SINGLE_TAG".to_owned(),
        ..CreateTopicRequestHeader::default()
    }
}

/// Input that no well-behaved client sends is refused with a text that says why, and the connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_reason() {
    let member = Member::start("autoCreateTopicEnable=false\n").await;
    let refused = async |command: RemotingCommand| {
        let answer = member.ask(command).await;
        (answer.code, answer.remark.unwrap_or_default())
    };
    let (code, text) = refused(RemotingCommand::request(9999)).await;
    assert_eq!(
        (code, text.as_str()),
        (3, " request type 9999 not supported")
    );
    let (code, text) = refused(RemotingCommand::request(request::SEND_MESSAGE)).await;
    assert!(
        code == 1 && text.contains("producerGroup is missing"),
        "{text}"
    );
    let odd = RemotingCommand::request(request::GET_MAX_OFFSET)
        .with_field("topic", "T")
        .with_field("queueId", "x");
    let (code, text) = refused(odd).await;
    assert!(code == 1 && text.contains("queueId = 'x'"), "{text}");

    let code_of = async |topic: &str, queue_id, body: usize| {
        send(&member, topic, queue_id, vec![1; body]).await.code
    };
    assert_eq!(code_of("unknown", 0, 1).await, response::TOPIC_NOT_EXIST);
    for name in ["a/b", "..", "a\u{1}b", "", &"t".repeat(300)] {
        assert_eq!(
            code_of(name, 0, 1).await,
            response::INVALID_PARAMETER,
            "{name:?}"
        );
    }
    let made = CreateTopicRequestHeader {
        topic: "T".to_owned(),
        ..base_topic()
    };
    member
        .ask(RemotingCommand::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&made))
        .await;
    assert_eq!(code_of("T", 3, 1).await, response::INVALID_PARAMETER);
    assert_eq!(code_of("T", i32::MAX, 1).await, response::INVALID_PARAMETER);
    assert_eq!(code_of("T", i32::MIN, 1).await, response::SUCCESS);
    assert_eq!(code_of("T", 0, 4 * 1024 * 1024).await, response::SUCCESS);
    assert_eq!(
        code_of("T", 0, 4 * 1024 * 1024 + 1).await,
        response::MESSAGE_ILLEGAL
    );
    assert_eq!(code_of("T", 0, 0).await, response::MESSAGE_ILLEGAL);
    for queue_id in [-1, 3, i32::MAX] {
        let header = PullMessageRequestHeader {
            queue_id,
            ..pull_header("T", 0)
        };
        assert_eq!(
            pull(&member, &header).await.0.code,
            response::INVALID_PARAMETER
        );
    }
    for topic in ["unknown", "a/b"] {
        assert_eq!(
            pull(&member, &pull_header(topic, 0)).await.0.code,
            response::TOPIC_NOT_EXIST
        );
    }
    let max = GetMaxOffsetRequestHeader {
        topic: "unknown".to_owned(),
        queue_id: -7,
        committed: true,
    };
    let answer = member
        .ask(RemotingCommand::request(request::GET_MAX_OFFSET).with_header(&max))
        .await;
    assert_eq!(
        (answer.code, answer.ext_fields.get("offset")),
        (0, Some("0"))
    );
    let garbage =
        RemotingCommand::request(request::HEART_BEAT).with_body(b"{\"clientID\":".to_vec());
    assert_eq!(refused(garbage).await.0, response::SYSTEM_ERROR);
    for offset in [i64::MIN, 0, 7, i64::MAX] {
        let view = ViewMessageRequestHeader {
            offset,
            ..ViewMessageRequestHeader::default()
        };
        let answer = member
            .ask(RemotingCommand::request(request::VIEW_MESSAGE_BY_ID).with_header(&view))
            .await;
        assert_eq!(answer.code, response::SYSTEM_ERROR);
    }
    // The fast port serves sends, and nothing that may be held.
    let mut fast = RemotingCommand::request(request::SEND_MESSAGE_V2).with_body(vec![1]);
    send_header("T", 0).encode_v2(&mut fast.ext_fields);
    assert_eq!(member.ask_fast(fast).await.code, response::SUCCESS);
    let held = RemotingCommand::request(request::PULL_MESSAGE).with_header(&pull_header("T", 0));
    assert_eq!(
        member.ask_fast(held).await.code,
        response::REQUEST_CODE_NOT_SUPPORTED
    );
    member.stop().await;
}

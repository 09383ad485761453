//! Messages found by key, unique key, time and physical offset.

use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    Header, QueryMessageRequestHeader, QueryMessageResponseHeader, SendMessageRequestHeader,
    SendMessageResponseHeader, ViewMessageRequestHeader,
};
use raftmq_proto::message::id::parse_offset_message_id;
use raftmq_proto::message::record::records;

use crate::calls::{send, send_header};
use crate::support::Member;

async fn send_keyed(member: &Member, topic: &str, keys: &str, unique: &str, body: Vec<u8>) -> u64 {
    let mut command = RemotingCommand::request(request::SEND_MESSAGE_V2).with_body(body);
    SendMessageRequestHeader {
        properties: Some(format!("KEYS\u{1}{keys}\u{2}UNIQ_KEY\u{1}{unique}\u{2}")),
        ..send_header(topic, 0)
    }
    .encode_v2(&mut command.ext_fields);
    let answer = member.ask(command).await;
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    let header = SendMessageResponseHeader::decode(&answer.ext_fields).unwrap();
    parse_offset_message_id(&header.msg_id).unwrap().1
}

fn for_key(topic: &str, key: &str) -> QueryMessageRequestHeader {
    QueryMessageRequestHeader {
        topic: topic.to_owned(),
        key: key.to_owned(),
        max_num: 64,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
    }
}

/// Code, first bytes of the bodies found, and the header.
async fn found(
    member: &Member,
    header: &QueryMessageRequestHeader,
    unique: bool,
) -> (i32, Vec<u8>, QueryMessageResponseHeader) {
    let mut command = RemotingCommand::request(request::QUERY_MESSAGE).with_header(header);
    if unique {
        command = command.with_field("_UNIQUE_KEY_QUERY", "true");
    }
    let answer = member.ask(command).await;
    let header = QueryMessageResponseHeader::decode(&answer.ext_fields).unwrap();
    let bytes = answer.body.into_bytes();
    let bodies = records(&bytes).map(|record| record.unwrap().body()[0]);
    (answer.code, bodies.collect(), header)
}

/// By each word of KEYS, by unique key, within a time range, at most as many as asked for, oldest first; the header
/// says how far the index is; the same after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_key() {
    let mut member = Member::start("maxMsgsNumBatch=4\ndefaultQueryMaxNum=2\n").await;
    let mut last = 0;
    for n in 0..6u8 {
        last = send_keyed(
            &member,
            "T",
            &format!("all k{n}"),
            &format!("U{n}"),
            vec![n],
        )
        .await;
    }
    send_keyed(&member, "Other", "k1", "U1", vec![9]).await;
    for n in 0..3u8 {
        send_keyed(&member, "T", "", "SAME", vec![n]).await;
    }
    for _ in 0..2 {
        let (code, bodies, header) = found(&member, &for_key("T", "k1"), false).await;
        assert_eq!((code, bodies), (response::SUCCESS, vec![1]));
        assert!(header.index_last_update_timestamp > 0);
        assert!(header.index_last_update_phyoffset > i64::try_from(last).unwrap());
        let (_, bodies, _) = found(&member, &for_key("T", "all"), false).await;
        assert_eq!(bodies, [2, 3, 4, 5], "the newest, oldest first");
        let few = QueryMessageRequestHeader {
            max_num: 1,
            ..for_key("T", "all")
        };
        assert_eq!(found(&member, &few, false).await.1, [5]);
        assert_eq!(found(&member, &for_key("T", "U3"), true).await.1, [3]);
        assert_eq!(found(&member, &for_key("T", "SAME"), true).await.1, [1, 2]);
        let before = QueryMessageRequestHeader {
            end_timestamp: 1000,
            ..for_key("T", "all")
        };
        for (header, unique) in [
            (before, false),
            (for_key("T", "k9"), false),
            (for_key("Missing", "k1"), false),
            (
                QueryMessageRequestHeader {
                    max_num: -1,
                    ..for_key("T", "all")
                },
                false,
            ),
            (for_key("T", "U9"), true),
        ] {
            let (code, bodies, _) = found(&member, &header, unique).await;
            assert_eq!(
                (code, bodies),
                (response::QUERY_NOT_FOUND, vec![]),
                "{header:?}"
            );
        }
        member = member.restart().await;
    }
    member.stop().await;
}

/// An answer stays far below what a frame may have, whatever the messages' size.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_bounded_in_bytes() {
    let member = Member::start("").await;
    for n in 0..4u8 {
        send_keyed(
            &member,
            "T",
            "big",
            &format!("U{n}"),
            vec![n; 3 * 1024 * 1024],
        )
        .await;
    }
    let (code, bodies, _) = found(&member, &for_key("T", "big"), false).await;
    assert_eq!((code, bodies), (response::SUCCESS, vec![2, 3]));
    member.stop().await;
}

/// Any member finds what was acknowledged, by key and by physical offset.
#[tokio::test(flavor = "multi_thread")]
async fn any_member_finds_what_was_acknowledged() {
    let members = Member::start_three().await;
    for n in 0..5u8 {
        let offset = send_keyed(&members[0], "T", "k", &format!("U{n}"), vec![n]).await;
        for member in &members {
            let header = for_key("T", &format!("U{n}"));
            assert_eq!(found(member, &header, true).await.1, [n]);
            let view = ViewMessageRequestHeader {
                offset: offset.try_into().unwrap(),
                ..ViewMessageRequestHeader::default()
            };
            let viewed = RemotingCommand::request(request::VIEW_MESSAGE_BY_ID).with_header(&view);
            let viewed = member.ask(viewed).await;
            assert_eq!(viewed.code, response::SUCCESS);
            let bytes = viewed.body.into_bytes();
            assert_eq!(records(&bytes).next().unwrap().unwrap().body(), [n]);
        }
    }
    let nowhere = ViewMessageRequestHeader {
        offset: 7,
        ..ViewMessageRequestHeader::default()
    };
    let command = RemotingCommand::request(request::VIEW_MESSAGE_BY_ID).with_header(&nowhere);
    assert_eq!(members[1].ask(command).await.code, response::SYSTEM_ERROR);
    for member in members {
        member.stop().await;
    }
}

/// Without the index nothing is found, and sends go on.
#[tokio::test(flavor = "multi_thread")]
async fn the_index_can_be_switched_off() {
    let member = Member::start("messageIndexEnable=false\n").await;
    assert_eq!(send(&member, "T", 0, vec![1]).await.code, response::SUCCESS);
    let (code, ..) = found(&member, &for_key("T", "KEY"), true).await;
    assert_eq!(code, response::QUERY_NOT_FOUND);
    member.stop().await;
}

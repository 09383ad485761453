//! Requests as clients send them.

use raftmq_proto::code::request;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    Header, PullMessageRequestHeader, PullMessageResponseHeader, QueryConsumerOffsetRequestHeader,
    SendMessageRequestHeader, UpdateConsumerOffsetRequestHeader,
};
use raftmq_proto::message::pull_sys_flag::SUBSCRIPTION;

use crate::support::Member;

pub(crate) fn send_header(topic: &str, queue_id: i32) -> SendMessageRequestHeader {
    SendMessageRequestHeader {
        producer_group: "p".to_owned(),
        topic: topic.to_owned(),
        default_topic: "TBW102".to_owned(),
        default_topic_queue_nums: 4,
        queue_id,
        properties: Some("TAGS\u{1}a\u{2}UNIQ_KEY\u{1}KEY\u{2}".to_owned()),
        ..SendMessageRequestHeader::default()
    }
}

pub(crate) fn pull_header(topic: &str, offset: i64) -> PullMessageRequestHeader {
    PullMessageRequestHeader {
        consumer_group: "g".to_owned(),
        topic: topic.to_owned(),
        queue_offset: offset,
        max_msg_nums: 32,
        sys_flag: SUBSCRIPTION,
        subscription: Some("*".to_owned()),
        ..PullMessageRequestHeader::default()
    }
}

pub(crate) async fn send(
    member: &Member,
    topic: &str,
    queue_id: i32,
    body: Vec<u8>,
) -> RemotingCommand {
    let mut command = RemotingCommand::request(request::SEND_MESSAGE_V2).with_body(body);
    send_header(topic, queue_id).encode_v2(&mut command.ext_fields);
    member.ask(command).await
}

pub(crate) async fn pull(
    member: &Member,
    header: &PullMessageRequestHeader,
) -> (RemotingCommand, PullMessageResponseHeader) {
    let answer = member
        .ask(RemotingCommand::request(request::PULL_MESSAGE).with_header(header))
        .await;
    let header = PullMessageResponseHeader::decode(&answer.ext_fields).unwrap_or_default();
    (answer, header)
}

pub(crate) async fn query(member: &Member, zero: Option<bool>) -> (i32, Option<String>) {
    let header = QueryConsumerOffsetRequestHeader {
        consumer_group: "g".to_owned(),
        topic: "T".to_owned(),
        queue_id: 0,
        set_zero_if_not_found: zero,
    };
    let answer = member
        .ask(RemotingCommand::request(request::QUERY_CONSUMER_OFFSET).with_header(&header))
        .await;
    (
        answer.code,
        answer.ext_fields.get("offset").map(str::to_owned),
    )
}

pub(crate) async fn update(member: &Member, offset: i64) -> i32 {
    let header = UpdateConsumerOffsetRequestHeader {
        consumer_group: "g".to_owned(),
        topic: "T".to_owned(),
        queue_id: 0,
        commit_offset: offset,
    };
    member
        .ask(RemotingCommand::request(request::UPDATE_CONSUMER_OFFSET).with_header(&header))
        .await
        .code
}

//! The requests that the tests make themselves, one function each, over a blocking connection.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::record;
use crate::wire::{Connection, Reply, Request};

/// Request codes.
#[allow(missing_docs, reason = "the names are RocketMQ's")]
pub mod request {
    pub const SEND_MESSAGE: i32 = 10;
    pub const PULL_MESSAGE: i32 = 11;
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    pub const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    pub const GET_MAX_OFFSET: i32 = 30;
    pub const GET_MIN_OFFSET: i32 = 31;
    pub const HEART_BEAT: i32 = 34;
    pub const UNREGISTER_CLIENT: i32 = 35;
    pub const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    pub const REGISTER_BROKER: i32 = 103;
    pub const UNREGISTER_BROKER: i32 = 104;
    pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
    pub const SEND_MESSAGE_V2: i32 = 310;
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    pub const GET_TOPIC_CONFIG: i32 = 351;
    pub const GET_SUBSCRIPTIONGROUP_CONFIG: i32 = 352;
    pub const LITE_PULL_MESSAGE: i32 = 361;
}

/// Response codes.
#[allow(missing_docs, reason = "the names are RocketMQ's")]
pub mod response {
    pub const SUCCESS: i32 = 0;
    pub const SYSTEM_ERROR: i32 = 1;
    pub const SYSTEM_BUSY: i32 = 2;
    pub const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
    pub const MESSAGE_ILLEGAL: i32 = 13;
    pub const SERVICE_NOT_AVAILABLE: i32 = 14;
    pub const TOPIC_NOT_EXIST: i32 = 17;
    pub const PULL_NOT_FOUND: i32 = 19;
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    pub const PULL_OFFSET_MOVED: i32 = 21;
    pub const QUERY_NOT_FOUND: i32 = 22;
    pub const SUBSCRIPTION_GROUP_NOT_EXIST: i32 = 26;
    pub const INVALID_PARAMETER: i32 = 29;
}

/// Ordinary calls answer well within this, or the connection is dead.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The server's definite "no".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Response code.
    pub code: i32,
    /// The server's words.
    pub remark: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused with code {}: {}", self.code, self.remark)
    }
}

impl std::error::Error for Refusal {}

fn accepted(reply: Reply) -> Result<Reply> {
    if reply.code == response::SUCCESS {
        return Ok(reply);
    }
    Err(Refusal {
        code: reply.code,
        remark: reply.remark,
    }
    .into())
}

/// Calls and expects success; any other code becomes a [`Refusal`].
pub fn call(connection: &mut Connection, request: &Request) -> Result<Reply> {
    call_within(connection, request, PATIENCE)
}

/// As [`call`], with another patience.
pub fn call_within(
    connection: &mut Connection,
    request: &Request,
    within: Duration,
) -> Result<Reply> {
    accepted(connection.call(request, within)?)
}

/// What an acknowledged send says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Queue that took the message.
    pub queue: i32,
    /// Offset of the (first) message in it.
    pub offset: i64,
    /// Ids in hexadecimal, one per message.
    pub ids: Vec<MessageId>,
}

/// Where a message was stored: the address of the member that led then, and the commit log offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId {
    /// Listen port of the member that stored it; all members of a test share the host.
    pub port: u16,
    /// Commit log offset.
    pub physical_offset: i64,
}

impl MessageId {
    /// Parses the 32 hexadecimal digits: IPv4 address, port in 4 bytes, offset in 8.
    pub fn parse(text: &str) -> Result<MessageId> {
        ensure!(
            text.len() == 32 && text.is_ascii(),
            "message id '{text}' has not 32 digits"
        );
        let port = u32::from_str_radix(&text[8..16], 16).context("port in the message id")?;
        let offset = u64::from_str_radix(&text[16..], 16).context("offset in the message id")?;
        Ok(MessageId {
            port: u16::try_from(port).context("port in the message id")?,
            physical_offset: i64::try_from(offset).context("offset in the message id")?,
        })
    }
}

/// A `SEND_MESSAGE_V2` request; `queue` -1 lets the broker choose.
pub fn send_request(topic: &str, queue: i32, properties: &str, body: &[u8]) -> Request {
    Request::new(request::SEND_MESSAGE_V2)
        .field("a", "HARNESS_PRODUCER")
        .field("b", topic)
        .field("c", "TBW102")
        .field("d", 8)
        .field("e", queue)
        .field("f", 0)
        .field("g", 1_700_000_000_000_i64)
        .field("h", 0)
        .field("i", properties)
        .field("j", 0)
        .field("k", false)
        .field("m", false)
        .body(body)
}

/// The same request under `SEND_MESSAGE` with the long names.
pub fn send_request_v1(topic: &str, queue: i32, properties: &str, body: &[u8]) -> Request {
    Request::new(request::SEND_MESSAGE)
        .field("producerGroup", "HARNESS_PRODUCER")
        .field("topic", topic)
        .field("defaultTopic", "TBW102")
        .field("defaultTopicQueueNums", 8)
        .field("queueId", queue)
        .field("sysFlag", 0)
        .field("bornTimestamp", 1_700_000_000_000_i64)
        .field("flag", 0)
        .field("properties", properties)
        .field("reconsumeTimes", 0)
        .field("unitMode", false)
        .field("batch", false)
        .body(body)
}

/// A `SEND_BATCH_MESSAGE` request of (properties, body) pairs.
pub fn batch_request<P: AsRef<str>, B: AsRef<[u8]>>(
    topic: &str,
    queue: i32,
    items: impl IntoIterator<Item = (P, B)>,
) -> Request {
    let mut body = Vec::new();
    for (properties, content) in items {
        let (properties, content) = (properties.as_ref().as_bytes(), content.as_ref());
        let size = 22 + content.len() + properties.len();
        for word in [size, 0, 0, 0, content.len()] {
            body.extend_from_slice(&u32::try_from(word).expect("small").to_be_bytes());
        }
        body.extend_from_slice(content);
        body.extend_from_slice(
            &u16::try_from(properties.len())
                .expect("small")
                .to_be_bytes(),
        );
        body.extend_from_slice(properties);
    }
    let mut request = send_request(topic, queue, "", &body)
        .with("m", true)
        .without("i");
    request.code = request::SEND_BATCH_MESSAGE;
    request
}

/// The `KEYS` property, encoded.
pub fn keys_property(keys: &str) -> String {
    format!("KEYS\u{1}{keys}\u{2}")
}

/// Reads the reply to any send.
pub fn sent(reply: Reply) -> Result<Sent> {
    let reply = accepted(reply)?;
    Ok(Sent {
        queue: i32::try_from(reply.number("queueId")?).context("queueId")?,
        offset: reply.number("queueOffset")?,
        ids: reply
            .text("msgId")?
            .split(',')
            .map(MessageId::parse)
            .collect::<Result<_>>()?,
    })
}

/// Sends and waits for the acknowledgement.
pub fn send(connection: &mut Connection, request: &Request) -> Result<Sent> {
    sent(connection.call(request, PATIENCE)?)
}

/// What a pull says.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// 0 found, 19 nothing there, 20 ask again, 21 offset moved.
    pub code: i32,
    /// Where to go on.
    pub next: i64,
    /// Smallest offset of the queue.
    pub min: i64,
    /// One above the largest offset of the queue.
    pub max: i64,
    /// The broker id to pull from next.
    pub suggested: i64,
    /// Whether the member that was asked had another one answer.
    pub forwarded: bool,
    /// Records back to back.
    pub body: Vec<u8>,
}

impl Pulled {
    /// The records.
    pub fn records(&self) -> Result<Vec<record::Record<'_>>> {
        record::parse_all(&self.body)
    }
}

/// A pull request that subscribes to everything; `hold` > 0 lets the broker keep it until a message arrives.
pub fn pull_request(group: &str, topic: &str, queue: i32, offset: i64, hold: Duration) -> Request {
    let suspend = if hold.is_zero() { 0 } else { 2 };
    Request::new(request::PULL_MESSAGE)
        .field("consumerGroup", group)
        .field("topic", topic)
        .field("queueId", queue)
        .field("queueOffset", offset)
        .field("maxMsgNums", 32)
        .field("sysFlag", suspend | 4)
        .field("commitOffset", 0)
        .field("suspendTimeoutMillis", hold.as_millis())
        .field("subscription", "*")
        .field("subVersion", 0)
        .field("expressionType", "TAG")
}

/// Reads the reply to a pull.
pub fn pulled(reply: Reply) -> Result<Pulled> {
    if ![0, 19, 20, 21].contains(&reply.code) {
        accepted(reply)?;
        unreachable!("success is among the codes above");
    }
    Ok(Pulled {
        code: reply.code,
        next: reply.number("nextBeginOffset")?,
        min: reply.number("minOffset")?,
        max: reply.number("maxOffset")?,
        suggested: reply.number("suggestWhichBrokerId")?,
        forwarded: reply.fields.contains_key("raftmqForwarded"),
        body: reply.body,
    })
}

/// Pulls once.
pub fn pull(
    connection: &mut Connection,
    group: &str,
    topic: &str,
    queue: i32,
    offset: i64,
    hold: Duration,
) -> Result<Pulled> {
    let request = pull_request(group, topic, queue, offset, hold);
    pulled(connection.call(&request, hold + PATIENCE)?)
}

fn offset_of(connection: &mut Connection, code: i32, topic: &str, queue: i32) -> Result<i64> {
    let request = Request::new(code)
        .field("topic", topic)
        .field("queueId", queue);
    call(connection, &request)?.number("offset")
}

/// One above the largest offset of a queue.
pub fn max_offset(connection: &mut Connection, topic: &str, queue: i32) -> Result<i64> {
    offset_of(connection, request::GET_MAX_OFFSET, topic, queue)
}

/// The smallest offset of a queue.
pub fn min_offset(connection: &mut Connection, topic: &str, queue: i32) -> Result<i64> {
    offset_of(connection, request::GET_MIN_OFFSET, topic, queue)
}

/// The request that saves a group's offset.
pub fn update_offset_request(group: &str, topic: &str, queue: i32, offset: i64) -> Request {
    Request::new(request::UPDATE_CONSUMER_OFFSET)
        .field("consumerGroup", group)
        .field("topic", topic)
        .field("queueId", queue)
        .field("commitOffset", offset)
}

/// Saves a group's offset and waits for the answer.
pub fn update_offset(
    connection: &mut Connection,
    group: &str,
    topic: &str,
    queue: i32,
    offset: i64,
) -> Result<()> {
    let request = update_offset_request(group, topic, queue, offset);
    call(connection, &request).map(|_| ())
}

/// A group's saved offset; `None` when none was saved.
pub fn query_offset(
    connection: &mut Connection,
    group: &str,
    topic: &str,
    queue: i32,
) -> Result<Option<i64>> {
    let request = Request::new(request::QUERY_CONSUMER_OFFSET)
        .field("consumerGroup", group)
        .field("topic", topic)
        .field("queueId", queue)
        .field("setZeroIfNotFound", false);
    let reply = connection.call(&request, PATIENCE)?;
    if reply.code == response::QUERY_NOT_FOUND {
        return Ok(None);
    }
    accepted(reply)?.number("offset").map(Some)
}

/// A value of a broker's runtime information.
pub fn runtime_info(connection: &mut Connection, key: &str) -> Result<String> {
    let reply = call(connection, &Request::new(request::GET_BROKER_RUNTIME_INFO))?;
    let info: Value = serde_json::from_slice(&reply.body).context("parse runtime information")?;
    let value = info["table"][key].as_str();
    Ok(value
        .with_context(|| format!("no {key} in {info}"))?
        .to_owned())
}

/// Creates or changes a topic.
pub fn create_topic(connection: &mut Connection, topic: &str, queues: i32) -> Result<()> {
    call(connection, &topic_request(topic, queues)).map(|_| ())
}

/// Whether a broker knows a topic.
pub fn has_topic(connection: &mut Connection, topic: &str) -> Result<bool> {
    let request = topic_settings_request(topic);
    settings(connection, &request, response::TOPIC_NOT_EXIST).map(|found| found.is_some())
}

/// The request that creates or changes a topic.
pub fn topic_request(topic: &str, queues: i32) -> Request {
    Request::new(request::UPDATE_AND_CREATE_TOPIC)
        .field("topic", topic)
        .field("defaultTopic", "TBW102")
        .field("readQueueNums", queues)
        .field("writeQueueNums", queues)
        .field("perm", 6)
        .field("topicFilterType", "SINGLE_TAG")
        .field("topicSysFlag", 0)
        .field("order", false)
}

/// The request that creates or changes a subscription group.
pub fn group_request(group: &str, retries_max: i64) -> Request {
    let body = json!({
        "groupName": group,
        "consumeEnable": true,
        "consumeFromMinEnable": true,
        "consumeBroadcastEnable": true,
        "retryQueueNums": 1,
        "retryMaxTimes": retries_max,
        "brokerId": 0,
        "whichBrokerWhenConsumeSlowly": 1,
        "notifyConsumerIdsChangedEnable": true,
    });
    Request::new(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(body.to_string())
}

/// The request that reads a topic's settings.
pub fn topic_settings_request(topic: &str) -> Request {
    Request::new(request::GET_TOPIC_CONFIG).field("topic", topic)
}

/// Calls and reads the JSON in the answer's body; `None` when the answer is that code.
pub fn settings(
    connection: &mut Connection,
    request: &Request,
    not_there: i32,
) -> Result<Option<Value>> {
    let reply = connection.call(request, PATIENCE)?;
    if reply.code == not_there {
        return Ok(None);
    }
    serde_json::from_slice(&accepted(reply)?.body)
        .context("settings")
        .map(Some)
}

/// A heartbeat as a push consumer of `group` on `topic` sends it.
pub fn heartbeat_request(client: &str, group: &str, topic: &str) -> Request {
    let body = json!({
        "clientID": client,
        "producerDataSet": [],
        "consumerDataSet": [{
            "groupName": group,
            "consumeType": "CONSUME_PASSIVELY",
            "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
            "subscriptionDataSet": [{
                "classFilterMode": false, "topic": topic, "subString": "*", "tagsSet": [],
                "codeSet": [], "subVersion": 1, "expressionType": "TAG",
            }],
            "unitMode": false,
        }],
    });
    Request::new(request::HEART_BEAT).body(body.to_string())
}

/// Client ids of a consumer group.
pub fn consumer_ids(connection: &mut Connection, group: &str) -> Result<Vec<String>> {
    let request = Request::new(request::GET_CONSUMER_LIST_BY_GROUP).field("consumerGroup", group);
    let body: Value = serde_json::from_slice(&call(connection, &request)?.body)?;
    let ids = body["consumerIdList"]
        .as_array()
        .context("no consumerIdList")?;
    Ok(ids
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect())
}

/// One broker group as a nameserver knows it: (broker id, address) pairs, ascending.
pub type GroupAddresses = Vec<(i64, String)>;

/// JSON as the Java servers write it: keys of maps that are numbers come without quotes.
fn java_json(text: &[u8]) -> Result<Value> {
    let mut standard = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped, mut key_may_begin) = (false, false, false);
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !in_string && key_may_begin && digits > 0 && rest.get(digits) == Some(&b':') {
            standard.push(b'"');
            standard.extend_from_slice(&rest[..digits]);
            standard.push(b'"');
            rest = &rest[digits..];
            continue;
        }
        if *byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && *byte == b'\\' && !escaped;
        key_may_begin = matches!(byte, b'{' | b',');
        standard.push(*byte);
        rest = after;
    }
    serde_json::from_slice(&standard).context("JSON")
}

fn addresses(group: &Value) -> Result<GroupAddresses> {
    let table = group["brokerAddrs"].as_object().context("no brokerAddrs")?;
    let mut found = Vec::new();
    for (id, address) in table {
        let address = address.as_str().context("a broker address is no text")?;
        found.push((id.parse().context("a broker id")?, address.to_owned()));
    }
    found.sort();
    Ok(found)
}

/// Asks a nameserver for the members of a broker group; empty when it knows none.
pub fn group_addresses(nameserver: &mut Connection, name: &str) -> Result<GroupAddresses> {
    let reply = call(nameserver, &Request::new(request::GET_BROKER_CLUSTER_INFO))?;
    let body = java_json(&reply.body).context("the cluster info")?;
    match body["brokerAddrTable"].get(name) {
        Some(group) => addresses(group),
        None => Ok(Vec::new()),
    }
}

/// Asks a nameserver for the route of a topic: the members of its first broker group.
pub fn route_addresses(nameserver: &mut Connection, topic: &str) -> Result<GroupAddresses> {
    let request = Request::new(request::GET_ROUTEINFO_BY_TOPIC).field("topic", topic);
    let body = java_json(&call(nameserver, &request)?.body)?;
    addresses(
        body["brokerDatas"]
            .get(0)
            .context("a route without brokers")?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_id_of_the_java_classes() {
        let id = MessageId::parse("7F00000100002A9F000000000001E240").expect("a good id");
        assert_eq!(
            id,
            MessageId {
                port: 10911,
                physical_offset: 123_456
            }
        );
        assert!(MessageId::parse("7F0000").is_err());
        assert!(MessageId::parse("7F00000100002A9F0000000000x1E240").is_err());
    }

    #[test]
    fn keys_without_quotes_are_read() {
        let read =
            java_json(br#"{"a":{0:"x,1:","2":[3,4],10:"\"{5:"}}"#).expect("as Java writes it");
        assert_eq!(
            read,
            json!({"a": {"0": "x,1:", "2": [3, 4], "10": "\"{5:"}})
        );
        assert!(java_json(b"{0:").is_err());
    }

    #[test]
    fn a_batch_item_has_the_layout_of_the_java_client() {
        let request = batch_request("T", 0, [("ab", "hi")]);
        let expected = b"\0\0\0\x1a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02hi\0\x02ab";
        assert_eq!(request.body, expected);
        assert_eq!(request.code, 320);
    }
}

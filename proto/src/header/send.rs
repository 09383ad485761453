//! Sending messages: codes 10, 310, 320, 324, 325, and the replies to them.

use super::{Header, HeaderError, Value, headers};
use crate::code::request;
use crate::frame::ExtFields;

/// A send (10, 324 with long field names; 310, 320, 325 with one-letter names).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendMessageRequestHeader {
    /// Group of the producer.
    pub producer_group: String,
    /// Topic to store under.
    pub topic: String,
    /// Topic whose settings a new topic takes over, normally `TBW102`.
    pub default_topic: String,
    /// Queues the producer wants a new topic to have.
    pub default_topic_queue_nums: i32,
    /// Queue to store in; negative lets the broker choose.
    pub queue_id: i32,
    /// Message system flags, see [`crate::message::sys_flag`].
    pub sys_flag: i32,
    /// When the message was made, in ms of the producer's clock.
    pub born_timestamp: i64,
    /// The user's own flag.
    pub flag: i32,
    /// Encoded message properties, see [`crate::message::properties`].
    pub properties: Option<String>,
    /// How often the message has been consumed in vain.
    pub reconsume_times: Option<i32>,
    /// Whether the topic belongs to one deployment unit.
    pub unit_mode: Option<bool>,
    /// Whether the body is a batch.
    pub batch: Option<bool>,
    /// After how many failed consumptions a retried message goes to the dead-letter topic.
    pub max_reconsume_times: Option<i32>,
}

/// Wire names of one header version, in the order of the struct's fields.
struct Names {
    producer_group: &'static str,
    topic: &'static str,
    default_topic: &'static str,
    default_topic_queue_nums: &'static str,
    queue_id: &'static str,
    sys_flag: &'static str,
    born_timestamp: &'static str,
    flag: &'static str,
    properties: &'static str,
    reconsume_times: &'static str,
    unit_mode: &'static str,
    batch: &'static str,
    max_reconsume_times: &'static str,
}

const V1: Names = Names {
    producer_group: "producerGroup",
    topic: "topic",
    default_topic: "defaultTopic",
    default_topic_queue_nums: "defaultTopicQueueNums",
    queue_id: "queueId",
    sys_flag: "sysFlag",
    born_timestamp: "bornTimestamp",
    flag: "flag",
    properties: "properties",
    reconsume_times: "reconsumeTimes",
    unit_mode: "unitMode",
    batch: "batch",
    max_reconsume_times: "maxReconsumeTimes",
};

const V2: Names = Names {
    producer_group: "a",
    topic: "b",
    default_topic: "c",
    default_topic_queue_nums: "d",
    queue_id: "e",
    sys_flag: "f",
    born_timestamp: "g",
    flag: "h",
    properties: "i",
    reconsume_times: "j",
    unit_mode: "k",
    batch: "m",
    max_reconsume_times: "l",
};

/// The values as found, by position in the struct; the last of a repeated field counts.
#[derive(Default)]
struct Found<'a> {
    producer_group: Option<&'a str>,
    topic: Option<&'a str>,
    default_topic: Option<&'a str>,
    default_topic_queue_nums: Option<&'a str>,
    queue_id: Option<&'a str>,
    sys_flag: Option<&'a str>,
    born_timestamp: Option<&'a str>,
    flag: Option<&'a str>,
    properties: Option<&'a str>,
    reconsume_times: Option<&'a str>,
    unit_mode: Option<&'a str>,
    batch: Option<&'a str>,
    max_reconsume_times: Option<&'a str>,
}

fn value<T: Value>(name: &'static str, found: Option<&str>) -> Result<T, HeaderError> {
    match found {
        Some(text) => T::parse(name, text),
        None => T::absent().ok_or(HeaderError::Missing { field: name }),
    }
}

impl SendMessageRequestHeader {
    /// Whether a request code carries the one-letter names.
    pub fn is_v2(code: i32) -> bool {
        matches!(
            code,
            request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE | request::SEND_REPLY_MESSAGE_V2
        )
    }

    /// Reads the header in the version that a request code carries.
    ///
    /// # Errors
    /// When a required field is missing or a value has the wrong form.
    pub fn decode_for_code(code: i32, fields: &ExtFields) -> Result<Self, HeaderError> {
        if Self::is_v2(code) {
            Self::decode_v2(fields)
        } else {
            Self::decode_v1(fields)
        }
    }

    /// Writes the header in the version that a request code carries.
    pub fn encode_for_code(&self, code: i32, fields: &mut ExtFields) {
        if Self::is_v2(code) {
            self.encode_v2(fields)
        } else {
            self.encode_v1(fields)
        }
    }

    /// Reads the header with the long names.
    ///
    /// # Errors
    /// When a required field is missing or a value has the wrong form.
    pub fn decode_v1(fields: &ExtFields) -> Result<Self, HeaderError> {
        // One pass over the fields: a send is the hottest request there is.
        let mut found = Found::default();
        for (name, value) in fields.iter() {
            let slot = match name {
                "producerGroup" => &mut found.producer_group,
                "topic" => &mut found.topic,
                "defaultTopic" => &mut found.default_topic,
                "defaultTopicQueueNums" => &mut found.default_topic_queue_nums,
                "queueId" => &mut found.queue_id,
                "sysFlag" => &mut found.sys_flag,
                "bornTimestamp" => &mut found.born_timestamp,
                "flag" => &mut found.flag,
                "properties" => &mut found.properties,
                "reconsumeTimes" => &mut found.reconsume_times,
                "unitMode" => &mut found.unit_mode,
                "batch" => &mut found.batch,
                "maxReconsumeTimes" => &mut found.max_reconsume_times,
                _ => continue,
            };
            *slot = Some(value);
        }
        Self::from_found(&V1, &found)
    }

    /// Reads the header with the one-letter names.
    ///
    /// # Errors
    /// When a required field is missing or a value has the wrong form.
    pub fn decode_v2(fields: &ExtFields) -> Result<Self, HeaderError> {
        let mut found = Found::default();
        for (name, value) in fields.iter() {
            let slot = match name.as_bytes() {
                b"a" => &mut found.producer_group,
                b"b" => &mut found.topic,
                b"c" => &mut found.default_topic,
                b"d" => &mut found.default_topic_queue_nums,
                b"e" => &mut found.queue_id,
                b"f" => &mut found.sys_flag,
                b"g" => &mut found.born_timestamp,
                b"h" => &mut found.flag,
                b"i" => &mut found.properties,
                b"j" => &mut found.reconsume_times,
                b"k" => &mut found.unit_mode,
                b"l" => &mut found.max_reconsume_times,
                b"m" => &mut found.batch,
                _ => continue,
            };
            *slot = Some(value);
        }
        Self::from_found(&V2, &found)
    }

    fn from_found(names: &Names, found: &Found<'_>) -> Result<Self, HeaderError> {
        Ok(SendMessageRequestHeader {
            producer_group: value(names.producer_group, found.producer_group)?,
            topic: value(names.topic, found.topic)?,
            default_topic: value(names.default_topic, found.default_topic)?,
            default_topic_queue_nums: value(
                names.default_topic_queue_nums,
                found.default_topic_queue_nums,
            )?,
            queue_id: value(names.queue_id, found.queue_id)?,
            sys_flag: value(names.sys_flag, found.sys_flag)?,
            born_timestamp: value(names.born_timestamp, found.born_timestamp)?,
            flag: value(names.flag, found.flag)?,
            properties: value(names.properties, found.properties)?,
            reconsume_times: value(names.reconsume_times, found.reconsume_times)?,
            unit_mode: value(names.unit_mode, found.unit_mode)?,
            batch: value(names.batch, found.batch)?,
            max_reconsume_times: value(names.max_reconsume_times, found.max_reconsume_times)?,
        })
    }

    /// Writes the header with the long names.
    pub fn encode_v1(&self, fields: &mut ExtFields) {
        self.encode_as(&V1, fields);
    }

    /// Writes the header with the one-letter names.
    pub fn encode_v2(&self, fields: &mut ExtFields) {
        self.encode_as(&V2, fields);
    }

    fn encode_as(&self, names: &Names, fields: &mut ExtFields) {
        self.producer_group.write(names.producer_group, fields);
        self.topic.write(names.topic, fields);
        self.default_topic.write(names.default_topic, fields);
        self.default_topic_queue_nums
            .write(names.default_topic_queue_nums, fields);
        self.queue_id.write(names.queue_id, fields);
        self.sys_flag.write(names.sys_flag, fields);
        self.born_timestamp.write(names.born_timestamp, fields);
        self.flag.write(names.flag, fields);
        self.properties.write(names.properties, fields);
        self.reconsume_times.write(names.reconsume_times, fields);
        self.unit_mode.write(names.unit_mode, fields);
        self.batch.write(names.batch, fields);
        self.max_reconsume_times
            .write(names.max_reconsume_times, fields);
    }
}

/// With the long names.
impl Header for SendMessageRequestHeader {
    fn decode(fields: &ExtFields) -> Result<Self, HeaderError> {
        Self::decode_v1(fields)
    }

    fn encode(&self, fields: &mut ExtFields) {
        self.encode_v1(fields);
    }
}

/// The same header with the one-letter names, for requests made through [`Header`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendMessageRequestHeaderV2(pub SendMessageRequestHeader);

impl Header for SendMessageRequestHeaderV2 {
    fn decode(fields: &ExtFields) -> Result<Self, HeaderError> {
        SendMessageRequestHeader::decode_v2(fields).map(SendMessageRequestHeaderV2)
    }

    fn encode(&self, fields: &mut ExtFields) {
        self.0.encode_v2(fields);
    }
}

headers! {
    /// Reply to a send (10, 310, 320, 324, 325).
    SendMessageResponseHeader {
        msg_id: String = "msgId",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        transaction_id: Option<String> = "transactionId",
        batch_uniq_id: Option<String> = "batchUniqId",
        recall_handle: Option<String> = "recallHandle",
    }

    /// A message given back after failed consumption (36); `offset` is its physical offset.
    ConsumerSendMsgBackRequestHeader {
        offset: i64 = "offset",
        group: String = "group",
        delay_level: i32 = "delayLevel",
        origin_msg_id: Option<String> = "originMsgId",
        origin_topic: Option<String> = "originTopic",
        unit_mode: bool = "unitMode" or false,
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
    }

    /// The end of a transaction (37): `commitOrRollback` 0 unknown, 8 commit, 12 rollback.
    EndTransactionRequestHeader {
        topic: Option<String> = "topic",
        producer_group: String = "producerGroup",
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        commit_or_rollback: i32 = "commitOrRollback",
        from_transaction_check: bool = "fromTransactionCheck" or false,
        msg_id: String = "msgId",
        transaction_id: Option<String> = "transactionId",
    }

    /// The broker's question how a transaction ended (39); the body is the half message.
    CheckTransactionStateRequestHeader {
        topic: Option<String> = "topic",
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        msg_id: Option<String> = "msgId",
        transaction_id: Option<String> = "transactionId",
        offset_msg_id: Option<String> = "offsetMsgId",
    }

    /// A reply message pushed to the client that asked (326).
    ReplyMessageRequestHeader {
        producer_group: String = "producerGroup",
        topic: String = "topic",
        default_topic: String = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<String> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: bool = "unitMode" or false,
        born_host: String = "bornHost",
        store_host: String = "storeHost",
        store_timestamp: i64 = "storeTimestamp",
    }

    /// Takes a timer message back (370).
    RecallMessageRequestHeader {
        producer_group: Option<String> = "producerGroup",
        topic: String = "topic",
        recall_handle: String = "recallHandle",
    }

    /// Reply to [`RecallMessageRequestHeader`].
    RecallMessageResponseHeader {
        msg_id: String = "msgId",
    }

    /// Lets a half message be checked again (323).
    ResumeCheckHalfMessageRequestHeader {
        topic: Option<String> = "topic",
        msg_id: Option<String> = "msgId",
    }
}

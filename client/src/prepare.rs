//! Making a message ready to travel: checks, unique key, compression, header. Pure but for the clock.

use bytes::Bytes;
use raftmq_proto::code::request;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{SendMessageRequestHeader, SendMessageRequestHeaderV2};
use raftmq_proto::message::compression::{self, CompressionType};
use raftmq_proto::message::{batch, name, properties, sys_flag};

use crate::error::{Error, Result};
use crate::local_time::now_ms;
use crate::message::Message;
use crate::producer::ProducerOptions;
use crate::unique_key::UniqueKeys;

/// zlib's level in RocketMQ's producer.
const COMPRESS_LEVEL: u32 = 5;

/// A message made ready to travel.
pub(crate) struct Prepared {
    code: i32,
    pub(crate) topic: String,
    pub(crate) msg_id: String,
    header: SendMessageRequestHeader,
    body: Bytes,
}

impl Prepared {
    /// The request that brings it into this queue.
    pub(crate) fn request(&mut self, queue_id: i32, options: &ProducerOptions) -> RemotingCommand {
        self.header.queue_id = queue_id;
        let header = SendMessageRequestHeaderV2(self.header.clone());
        let mut request = RemotingCommand::request(self.code)
            .with_header(&header)
            .with_body(self.body.clone());
        request.serialize = options.serialize;
        request
    }
}

/// Makes messages of one producer ready.
pub(crate) struct Preparer<'a> {
    pub(crate) options: &'a ProducerOptions,
    pub(crate) unique_keys: &'a UniqueKeys,
}

impl Preparer<'_> {
    fn header(
        &self,
        topic: &str,
        sys_flag: i32,
        flag: i32,
        text: String,
    ) -> SendMessageRequestHeader {
        SendMessageRequestHeader {
            producer_group: self.options.group.clone(),
            topic: topic.to_owned(),
            default_topic: name::AUTO_CREATE_TOPIC.to_owned(),
            default_topic_queue_nums: 4,
            queue_id: -1,
            sys_flag,
            born_timestamp: now_ms(),
            flag,
            properties: Some(text),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(false),
            max_reconsume_times: None,
        }
    }

    fn check(&self, message: &Message) -> Result<()> {
        name::check_topic(&message.topic).map_err(|error| Error::Invalid(error.to_string()))?;
        if message.body.is_empty() {
            return Err(Error::Invalid("the message body length is zero".to_owned()));
        }
        if message.body.len() > self.options.message_max {
            return Err(Error::Invalid(format!(
                "the message body size over max value, MAX: {}",
                self.options.message_max
            )));
        }
        Ok(())
    }

    pub(crate) fn message(&self, mut message: Message) -> Result<Prepared> {
        self.check(&message)?;
        let msg_id = self.give_unique_key(&mut message);
        let mut flags = 0;
        let mut body = message.body;
        if body.len() > self.options.compress_over {
            let compressed = compression::compress_zlib(&body, COMPRESS_LEVEL);
            body = compressed.into();
            flags |= sys_flag::COMPRESSED | CompressionType::Zlib.sys_flag_bits();
        }
        let text = encode_properties(&message.properties)?;
        Ok(Prepared {
            code: request::SEND_MESSAGE_V2,
            msg_id,
            header: self.header(&message.topic, flags, message.flag, text),
            topic: message.topic,
            body,
        })
    }

    pub(crate) fn batch(&self, mut messages: Vec<Message>) -> Result<Prepared> {
        let Some(first) = messages.first() else {
            return Err(Error::Invalid(
                "a batch needs at least one message".to_owned(),
            ));
        };
        let topic = first.topic.clone();
        if topic.starts_with(name::RETRY_TOPIC_PREFIX) {
            return Err(Error::Invalid(
                "a batch cannot go to a retry topic".to_owned(),
            ));
        }
        let mut msg_ids = Vec::with_capacity(messages.len());
        let mut items = Vec::with_capacity(messages.len());
        let mut total = 0usize;
        for message in &mut messages {
            self.check(message)?;
            if message.topic != topic {
                return Err(Error::Invalid("a batch must be of one topic".to_owned()));
            }
            if message.properties.contains_key(properties::DELAY) {
                return Err(Error::Invalid("a batch cannot be delayed".to_owned()));
            }
            total = total.saturating_add(message.body.len());
            msg_ids.push(self.give_unique_key(message));
            items.push((
                message.flag,
                message.body.clone(),
                encode_properties(&message.properties)?,
            ));
        }
        if total > self.options.message_max {
            return Err(Error::Invalid(format!(
                "the batch's bodies have {total} bytes, more than the limit {}",
                self.options.message_max
            )));
        }
        let items: Vec<batch::BatchItem<'_>> = items
            .iter()
            .map(|(flag, body, properties)| batch::BatchItem {
                flag: *flag,
                body,
                properties,
            })
            .collect();
        let body =
            batch::encode_batch(&items).map_err(|error| Error::Invalid(error.to_string()))?;
        let mut header = self.header(&topic, 0, 0, String::new());
        header.batch = Some(true);
        Ok(Prepared {
            code: request::SEND_BATCH_MESSAGE,
            topic,
            msg_id: msg_ids.join(","),
            header,
            body: body.into(),
        })
    }

    /// The message's unique key; retries carry the same, so that copies can be told.
    fn give_unique_key(&self, message: &mut Message) -> String {
        let name = properties::UNIQ_KEY;
        if let Some(key) = message.properties.get(name) {
            return key.clone();
        }
        let key = self.unique_keys.next();
        message.properties.insert(name.to_owned(), key.clone());
        message
            .properties
            .entry(properties::WAIT.to_owned())
            .or_insert_with(|| "true".to_owned());
        key
    }
}

fn encode_properties(given: &std::collections::BTreeMap<String, String>) -> Result<String> {
    /// A name or value that held them would become something else.
    const SEPARATORS: [char; 2] = [
        properties::NAME_VALUE_SEPARATOR,
        properties::PROPERTY_SEPARATOR,
    ];
    for (name, value) in given {
        if name.is_empty() || name.contains(SEPARATORS) || value.contains(SEPARATORS) {
            return Err(Error::Invalid(format!(
                "property {name:?} is empty or holds a control character 1 or 2"
            )));
        }
    }
    let text = properties::encode(
        given
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    if text.len() > properties::PROPERTIES_MAX {
        return Err(Error::Invalid(format!(
            "the properties have {} bytes, more than the limit {}",
            text.len(),
            properties::PROPERTIES_MAX
        )));
    }
    Ok(text)
}

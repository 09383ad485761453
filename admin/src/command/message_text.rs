//! How a found message is shown (RocketMQ: `QueryMsgByIdSubCommand.printMsg`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use raftmq_client::MessageExt;
use raftmq_client::local_time::LocalTime;
use serde_json::{Value, json};

/// Where the original leaves bodies.
const BODIES: &str = "/tmp/rocketmq/msgbodys";

/// Ways to read a body as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charset {
    Utf8,
    Latin1,
}

impl Charset {
    /// The charset of this name, as far as it is supported.
    pub(crate) fn named(name: &str) -> anyhow::Result<Charset> {
        match name.to_ascii_uppercase().as_str() {
            "UTF-8" | "UTF8" | "US-ASCII" | "ASCII" => Ok(Charset::Utf8),
            "ISO-8859-1" | "LATIN1" => Ok(Charset::Latin1),
            _ => anyhow::bail!("bodyFormat '{name}' is not supported: UTF-8 or ISO-8859-1"),
        }
    }

    fn decode(self, bytes: &[u8]) -> String {
        match self {
            Charset::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Charset::Latin1 => bytes.iter().copied().map(char::from).collect(),
        }
    }
}

/// Leaves the body in a file; `nth` tells apart several messages of one id.
pub(crate) fn save_body(message: &MessageExt, nth: usize) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(BODIES).with_context(|| format!("cannot create {BODIES}"))?;
    let path = PathBuf::from(BODIES).join(file_name(message, nth));
    std::fs::write(&path, &message.body)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The unique key is whatever a producer wrote, so it is a file name only if it is harmless.
fn file_name(message: &MessageExt, nth: usize) -> String {
    let id = &message.msg_id;
    let harmless =
        !id.is_empty() && id.len() <= 200 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    let id = if harmless { id } else { &message.offset_msg_id };
    match nth {
        0 => id.clone(),
        nth => format!("{id}_{nth}"),
    }
}

/// The message's fields, a line each.
pub(crate) fn fields(message: &MessageExt, body: &str) -> String {
    let time = |ms| LocalTime::from_epoch_ms(ms).to_millis_text();
    let rows = [
        ("Topic:", message.topic.clone()),
        ("Tags:", format!("[{}]", message.tag().unwrap_or("null"))),
        ("Keys:", format!("[{}]", message.keys().unwrap_or("null"))),
        ("Queue ID:", message.queue_id.to_string()),
        ("Queue Offset:", message.queue_offset.to_string()),
        ("CommitLog Offset:", message.commit_log_offset.to_string()),
        ("Reconsume Times:", message.reconsume_times.to_string()),
        ("Born Timestamp:", time(message.born_timestamp)),
        ("Store Timestamp:", time(message.store_timestamp)),
        ("Born Host:", message.born_host.to_string()),
        ("Store Host:", message.store_host.to_string()),
        ("System Flag:", message.sys_flag.to_string()),
        ("Properties:", properties(&message.properties)),
        ("Message Body Path:", body.to_owned()),
    ];
    rows.map(|(label, value)| row(label, &value)).concat()
}

/// As `fields`, with the id by which the message lies where it is.
pub(crate) fn with_id(message: &MessageExt, body: &str, charset: Option<Charset>) -> String {
    let mut text = row("OffsetID:", &message.offset_msg_id);
    text.push_str(&fields(message, body));
    if let Some(charset) = charset {
        text.push_str(&row("Message Body:", &charset.decode(&message.body)));
    }
    text
}

fn row(label: &str, value: &str) -> String {
    format!("{label:<20} {value}\n")
}

/// As Java prints a map; by name, while Java's order is that of its hashes.
fn properties(properties: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = properties
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Messages as a JSON array.
pub(crate) fn list_as_json(messages: &[MessageExt]) -> Value {
    messages.iter().map(as_json).collect()
}

/// The message as JSON.
pub(crate) fn as_json(message: &MessageExt) -> Value {
    json!({
        "offsetMsgId": message.offset_msg_id,
        "msgId": message.msg_id,
        "topic": message.topic,
        "queueId": message.queue_id,
        "queueOffset": message.queue_offset,
        "commitLogOffset": message.commit_log_offset,
        "reconsumeTimes": message.reconsume_times,
        "bornTimestamp": message.born_timestamp,
        "storeTimestamp": message.store_timestamp,
        "bornHost": message.born_host.to_string(),
        "storeHost": message.store_host.to_string(),
        "sysFlag": message.sys_flag,
        "properties": message.properties,
        "body": String::from_utf8_lossy(&message.body),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn message(unique_key: &str) -> MessageExt {
        let properties = [("TAGS", "a"), ("UNIQ_KEY", unique_key)];
        MessageExt {
            broker_name: "b".to_owned(),
            topic: "T".to_owned(),
            queue_id: 3,
            queue_offset: 7,
            store_size: 100,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: "127.0.0.1:5000".parse().unwrap(),
            store_timestamp: 0,
            store_host: "127.0.0.1:10911".parse().unwrap(),
            msg_id: unique_key.to_owned(),
            offset_msg_id: "7F00000100002A9F0000000000000010".to_owned(),
            commit_log_offset: 16,
            body_crc: 0,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            body: "héllo".into(),
            is_compressed: false,
        }
    }

    #[test]
    fn fields_stand_in_the_original_s_columns() {
        let text = with_id(&message("ABC"), "/tmp/x", Some(Charset::Utf8));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "OffsetID:            7F00000100002A9F0000000000000010"
        );
        for line in [
            "Topic:               T",
            "Tags:                [a]",
            "Keys:                [null]",
            "Queue ID:            3",
            "CommitLog Offset:    16",
            "Store Host:          127.0.0.1:10911",
            "Properties:          {TAGS=a, UNIQ_KEY=ABC}",
            "Message Body Path:   /tmp/x",
            "Message Body:        héllo",
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
        assert_eq!(lines.len(), 16);
    }

    #[test]
    fn a_producer_cannot_choose_where_a_body_is_written() {
        assert_eq!(file_name(&message("ABC"), 0), "ABC");
        assert_eq!(file_name(&message("ABC"), 2), "ABC_2");
        for key in ["../../etc/passwd", "", "a/b", "a.b", &"A".repeat(500)] {
            assert_eq!(file_name(&message(key), 0), message(key).offset_msg_id);
        }
    }

    #[test]
    fn charsets_are_known_by_name() {
        assert_eq!(Charset::named("utf-8").unwrap(), Charset::Utf8);
        assert_eq!(Charset::Latin1.decode(&[0xe9]), "é");
        assert!(Charset::named("EBCDIC").is_err());
    }
}

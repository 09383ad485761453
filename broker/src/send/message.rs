//! From the bytes of a send to message records: properties, limits, batches.
//!
//! Pure. Offsets and the store time are not known yet; they are stamped where the entry gets its place in the log.

use std::net::SocketAddr;

use bytes::BytesMut;
use raftmq_proto::header::SendMessageRequestHeader;
use raftmq_proto::message::batch::decode_batch;
use raftmq_proto::message::record::NewRecord;
use raftmq_proto::message::{name, properties, sys_flag};

use crate::exchange::Refusal;

/// What every message of this broker gets or is held to.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// `brokerClusterName`, stored as the property CLUSTER.
    pub(crate) cluster: String,
    /// `regionId`, stored as MSG_REGION.
    pub(crate) region: String,
    /// `traceOn`, stored as TRACE_ON.
    pub(crate) trace_on: bool,
    /// The address consumers are told as the store host.
    pub(crate) store_host: SocketAddr,
    /// Largest body in bytes.
    pub(crate) body_max: usize,
    /// Transaction messages are forbidden by the configuration, not only unsupported.
    pub(crate) reject_transactions: bool,
}

/// Where the message goes and where it came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) topic: &'a str,
    pub(crate) queue_id: i32,
    pub(crate) multi_tags: bool,
    /// The message goes to a dead-letter topic: whatever delay it asks for is over.
    pub(crate) dead: bool,
    pub(crate) born_host: SocketAddr,
}

/// Records ready to be proposed.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) records: BytesMut,
    pub(crate) count: u32,
    /// The unique key of a single message; a batch has one in each of its messages.
    pub(crate) unique_key: Option<String>,
}

/// Builds the record of a single message; `unique_key` makes a key for one that has none.
pub(crate) fn single(
    stamp: &Stamp,
    envelope: Envelope<'_>,
    header: &SendMessageRequestHeader,
    body: &[u8],
    unique_key: impl FnOnce() -> String,
) -> Result<Message, Refusal> {
    check_body(stamp, body)?;
    let given = header.properties.as_deref().unwrap_or_default();
    refuse_transaction(stamp, header, given)?;
    if !envelope.dead {
        refuse_delay(given)?;
    }
    let (text, unique_key) = stored_properties(stamp, given, envelope.dead, unique_key);
    let mut records = BytesMut::new();
    append(
        stamp,
        envelope,
        header,
        header.flag,
        body,
        &text,
        &mut records,
    )?;
    Ok(Message {
        records,
        count: 1,
        unique_key: Some(unique_key),
    })
}

/// Builds the records of a batch, in its order. Items keep their properties as they are.
pub(crate) fn batch(
    stamp: &Stamp,
    envelope: Envelope<'_>,
    header: &SendMessageRequestHeader,
    body: &[u8],
) -> Result<Message, Refusal> {
    if envelope.topic.len() > name::TOPIC_MAX {
        return Err(Refusal::illegal(format!(
            "message topic length too long {}",
            envelope.topic.len()
        )));
    }
    if name::is_retry_topic(envelope.topic) {
        return Err(Refusal::illegal(format!(
            "batch request does not support retry group {}",
            envelope.topic
        )));
    }
    check_body(stamp, body)?;
    let of_batch = header.properties.as_deref().unwrap_or_default();
    refuse_transaction(stamp, header, of_batch)?;
    refuse_delay(of_batch)?;
    let mut records = BytesMut::with_capacity(body.len() * 2);
    let mut count = 0;
    for item in decode_batch(body) {
        let item = item.map_err(|error| Refusal::illegal(error.to_string()))?;
        refuse_transaction(stamp, header, item.properties)?;
        refuse_delay(item.properties)?;
        append(
            stamp,
            envelope,
            header,
            item.flag,
            item.body,
            item.properties,
            &mut records,
        )?;
        count += 1;
    }
    Ok(Message {
        records,
        count,
        unique_key: None,
    })
}

fn check_body(stamp: &Stamp, body: &[u8]) -> Result<(), Refusal> {
    if body.is_empty() {
        return Err(Refusal::illegal("the message body is empty"));
    }
    if body.len() > stamp.body_max {
        return Err(Refusal::illegal(format!(
            "the message body has {} bytes, the limit is maxMessageSize = {}",
            body.len(),
            stamp.body_max
        )));
    }
    Ok(())
}

fn refuse_transaction(
    stamp: &Stamp,
    header: &SendMessageRequestHeader,
    given: &str,
) -> Result<(), Refusal> {
    let flagged = sys_flag::transaction_type(header.sys_flag) != sys_flag::TRANSACTION_NOT_TYPE;
    let named = properties::get(given, properties::TRAN_MSG)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if !flagged && !named {
        return Ok(());
    }
    if stamp.reject_transactions {
        return Err(Refusal::new(
            raftmq_proto::code::response::NO_PERMISSION,
            "sending transaction message is forbidden: rejectTransactionMessage = true",
        ));
    }
    Err(Refusal::illegal(
        "transaction messages are not supported yet: property TRAN_MSG is set; nothing was stored",
    ))
}

/// A message that asks to be delivered later must not be delivered at once.
fn refuse_delay(given: &str) -> Result<(), Refusal> {
    let set = |name: &str| {
        properties::get(given, name)
            .filter(|value| value.parse::<i64>().map_or(true, |value| value > 0))
    };
    let timers = [
        properties::DELAY,
        properties::TIMER_DELAY_SEC,
        properties::TIMER_DELAY_MS,
        properties::TIMER_DELIVER_MS,
    ];
    match timers
        .into_iter()
        .find_map(|name| set(name).map(|value| (name, value)))
    {
        Some((name, value)) => Err(Refusal::illegal(format!(
            "delayed delivery is not supported yet: property {name} = '{value}' is set; nothing was stored"
        ))),
        None => Ok(()),
    }
}

/// The properties as stored, and the message's unique key.
fn stored_properties(
    stamp: &Stamp,
    given: &str,
    dead: bool,
    unique_key: impl FnOnce() -> String,
) -> (String, String) {
    let trace_on = if stamp.trace_on { "true" } else { "false" };
    let set = [
        (properties::MSG_REGION, stamp.region.as_str()),
        (properties::TRACE_ON, trace_on),
        (properties::CLUSTER, stamp.cluster.as_str()),
    ];
    // WAIT concerns only the sender, POP_CK may only come from the broker.
    let dropped = [properties::WAIT, properties::POP_CK];
    let mut text = String::with_capacity(given.len() + 160);
    let mut key = None;
    for (name, value) in properties::parse(given) {
        let replaced =
            set.iter().any(|(set, _)| *set == name) || (dead && name == properties::DELAY);
        if replaced || dropped.contains(&name) {
            continue;
        }
        if name == properties::UNIQ_KEY {
            key = Some(value.to_owned());
        }
        push(&mut text, name, value);
    }
    for (name, value) in set {
        push(&mut text, name, value);
    }
    if dead {
        push(&mut text, properties::DELAY, "-1");
    }
    let key = key.unwrap_or_else(|| {
        let key = unique_key();
        push(&mut text, properties::UNIQ_KEY, &key);
        key
    });
    (text, key)
}

fn push(text: &mut String, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    text.push_str(name);
    text.push(properties::NAME_VALUE_SEPARATOR);
    text.push_str(value);
    text.push(properties::PROPERTY_SEPARATOR);
}

fn append(
    stamp: &Stamp,
    envelope: Envelope<'_>,
    header: &SendMessageRequestHeader,
    flag: i32,
    body: &[u8],
    text: &str,
    records: &mut BytesMut,
) -> Result<(), Refusal> {
    if text.len() > properties::PROPERTIES_MAX {
        return Err(Refusal::illegal(format!(
            "the message properties have {} bytes with those the broker adds, the limit is {}",
            text.len(),
            properties::PROPERTIES_MAX
        )));
    }
    let multi_tags = if envelope.multi_tags {
        sys_flag::MULTI_TAGS
    } else {
        0
    };
    let record = NewRecord {
        queue_id: envelope.queue_id,
        flag,
        sys_flag: header.sys_flag | multi_tags,
        born_timestamp: header.born_timestamp,
        born_host: envelope.born_host,
        store_host: stamp.store_host,
        reconsume_times: header.reconsume_times.unwrap_or(0),
        prepared_transaction_offset: 0,
        body,
        topic: envelope.topic,
        properties: text,
    };
    record
        .encode(records)
        .map_err(|error| Refusal::illegal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use raftmq_proto::code::response;
    use raftmq_proto::message::batch::{BatchItem, encode_batch};
    use raftmq_proto::message::record::{RecordRef, records};

    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            cluster: "C".to_owned(),
            region: "R".to_owned(),
            trace_on: true,
            store_host: ([10, 0, 0, 1], 10911).into(),
            body_max: 16,
            reject_transactions: false,
        }
    }

    const ENVELOPE: Envelope<'_> = Envelope {
        topic: "T",
        queue_id: 2,
        multi_tags: false,
        dead: false,
        born_host: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5),
    };

    fn header(properties: &str) -> SendMessageRequestHeader {
        SendMessageRequestHeader {
            properties: Some(properties.to_owned()),
            flag: 9,
            ..Default::default()
        }
    }

    fn send(properties: &str, body: &[u8]) -> Result<Message, Refusal> {
        single(&stamp(), ENVELOPE, &header(properties), body, || {
            "NEW".to_owned()
        })
    }

    #[test]
    fn a_record_keeps_what_was_sent_and_gets_what_the_broker_adds() {
        let message = send(
            "TAGS\u{1}a\u{2}WAIT\u{1}true\u{2}POP_CK\u{1}x\u{2}CLUSTER\u{1}old\u{2}",
            b"hi",
        )
        .unwrap();
        let record = RecordRef::parse(&message.records).unwrap();
        assert_eq!(
            (
                record.topic(),
                record.queue_id(),
                record.flag(),
                record.body()
            ),
            ("T", 2, 9, &b"hi"[..])
        );
        let stored: Vec<_> = properties::parse(record.properties()).collect();
        let wanted = [
            ("TAGS", "a"),
            ("MSG_REGION", "R"),
            ("TRACE_ON", "true"),
            ("CLUSTER", "C"),
            ("UNIQ_KEY", "NEW"),
        ];
        assert_eq!(stored, wanted);
        assert_eq!(message.unique_key.as_deref(), Some("NEW"));

        let message = send("UNIQ_KEY\u{1}OWN\u{2}", b"hi").unwrap();
        assert_eq!(message.unique_key.as_deref(), Some("OWN"));
        assert!(!std::str::from_utf8(&message.records).is_ok_and(|text| text.contains("NEW")));
    }

    #[test]
    fn bodies_up_to_the_limit_pass_and_nothing_larger() {
        assert!(send("", &[1; 16]).is_ok());
        for (body, part) in [(vec![1; 17], "maxMessageSize = 16"), (Vec::new(), "empty")] {
            let refusal = send("", &body).unwrap_err();
            assert_eq!(refusal.code, response::MESSAGE_ILLEGAL);
            assert!(refusal.remark.contains(part), "{}", refusal.remark);
        }
        let refusal = send(&format!("K\u{1}{}\u{2}", "x".repeat(32_760)), b"x").unwrap_err();
        assert!(refusal.remark.contains("32767"), "{}", refusal.remark);
    }

    #[test]
    fn what_cannot_be_honoured_yet_is_refused_and_never_stored_as_a_plain_message() {
        for set in [
            "DELAY\u{1}3",
            "TIMER_DELIVER_MS\u{1}99",
            "TIMER_DELAY_SEC\u{1}x",
            "TRAN_MSG\u{1}true",
        ] {
            let refusal = send(set, b"x").unwrap_err();
            assert_eq!(refusal.code, response::MESSAGE_ILLEGAL, "{set}");
            assert!(
                refusal.remark.contains("nothing was stored"),
                "{}",
                refusal.remark
            );
        }
        assert!(send("DELAY\u{1}0\u{2}TRAN_MSG\u{1}false", b"x").is_ok());
        let dead = Envelope {
            dead: true,
            ..ENVELOPE
        };
        let message = single(&stamp(), dead, &header("DELAY\u{1}3"), b"x", || {
            "K".to_owned()
        })
        .unwrap();
        let record = RecordRef::parse(&message.records).unwrap();
        assert_eq!(record.property(properties::DELAY), Some("-1"));

        let forbidden = Stamp {
            reject_transactions: true,
            ..stamp()
        };
        let refusal = single(
            &forbidden,
            ENVELOPE,
            &header("TRAN_MSG\u{1}true"),
            b"x",
            String::new,
        )
        .unwrap_err();
        assert_eq!(refusal.code, response::NO_PERMISSION);
        let prepared = SendMessageRequestHeader {
            sys_flag: sys_flag::TRANSACTION_PREPARED_TYPE,
            ..header("")
        };
        assert!(single(&stamp(), ENVELOPE, &prepared, b"x", String::new).is_err());
    }

    #[test]
    fn a_batch_becomes_one_record_per_item_in_order() {
        let item = |body: &'static [u8], properties| BatchItem {
            flag: 1,
            body,
            properties,
        };
        let items = [
            item(b"a", "UNIQ_KEY\u{1}1\u{2}"),
            item(b"b", "UNIQ_KEY\u{1}2\u{2}"),
        ];
        let body = encode_batch(&items).unwrap();
        let large = Stamp {
            body_max: 1000,
            ..stamp()
        };
        let message = batch(&large, ENVELOPE, &header("WAIT\u{1}true"), &body).unwrap();
        let bodies: Vec<_> = records(&message.records)
            .map(|record| record.unwrap().body().to_vec())
            .collect();
        assert_eq!(
            (message.count, bodies),
            (2, vec![b"a".to_vec(), b"b".to_vec()])
        );

        for (topic, sent) in [
            ("T", &body[..body.len() - 1]),
            ("T", &[][..]),
            ("%RETRY%g", &body[..]),
        ] {
            let envelope = Envelope { topic, ..ENVELOPE };
            let refusal = batch(&large, envelope, &header(""), sent).unwrap_err();
            assert_eq!(refusal.code, response::MESSAGE_ILLEGAL);
        }
        let delayed = encode_batch(&[item(b"a", "DELAY\u{1}1\u{2}")]).unwrap();
        assert!(batch(&large, ENVELOPE, &header(""), &delayed).is_err());
    }
}

//! A message's properties: `name \u{1} value \u{2}`, again and again.
//!
//! Java ends the last pair with `\u{2}` as well, some clients do not; both are read. A pair
//! without name or value does not exist for readers.

/// Between a name and its value.
pub const NAME_VALUE_SEPARATOR: char = '\u{1}';
/// After a pair.
pub const PROPERTY_SEPARATOR: char = '\u{2}';
/// Most bytes of properties a record can hold: their length has 16 bits, one of them the sign.
pub const PROPERTIES_MAX: usize = i16::MAX as usize;

/// Keys to find the message by, separated by blanks.
pub const KEYS: &str = "KEYS";
/// The tag to filter by.
pub const TAGS: &str = "TAGS";
/// Whether the sender waits until the message is stored safely.
pub const WAIT: &str = "WAIT";
/// Delay level, 1 to 18.
pub const DELAY: &str = "DELAY";
/// Topic a retried message came from first.
pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
/// Topic of a message that waits under a system topic.
pub const REAL_TOPIC: &str = "REAL_TOPIC";
/// Queue of a message that waits under a system topic.
pub const REAL_QID: &str = "REAL_QID";
/// `true` on a half message.
pub const TRAN_MSG: &str = "TRAN_MSG";
/// Producer group.
pub const PGROUP: &str = "PGROUP";
/// Lowest offset of the queue, set by clients on receipt.
pub const MIN_OFFSET: &str = "MIN_OFFSET";
/// Highest offset of the queue, set by clients on receipt.
pub const MAX_OFFSET: &str = "MAX_OFFSET";
/// Kept for old clients.
pub const BUYER_ID: &str = "BUYER_ID";
/// Offset message id before retries.
pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
/// Kept for old clients.
pub const TRANSFER_FLAG: &str = "TRANSFER_FLAG";
/// Kept for old clients.
pub const CORRECTION_FLAG: &str = "CORRECTION_FLAG";
/// Kept for old clients.
pub const MQ2_FLAG: &str = "MQ2_FLAG";
/// How often the message was consumed in vain.
pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
/// Region of the broker.
pub const MSG_REGION: &str = "MSG_REGION";
/// Whether clients trace the message.
pub const TRACE_ON: &str = "TRACE_ON";
/// The id the client gave the message.
pub const UNIQ_KEY: &str = "UNIQ_KEY";
/// Kept for old clients.
pub const EXTEND_UNIQ_INFO: &str = "EXTEND_UNIQ_INFO";
/// After how many failures the message is dead.
pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
/// When consumption began, in ms.
pub const CONSUME_START_TIME: &str = "CONSUME_START_TIME";
/// Messages in an inner batch.
pub const INNER_NUM: &str = "INNER_NUM";
/// Queue offset of the first message of an inner batch.
pub const INNER_BASE: &str = "INNER_BASE";
/// Kept for old clients.
pub const DUP_INFO: &str = "DUP_INFO";
/// Seconds before a transaction is first checked.
pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
/// Queue offset of the half message.
pub const TRAN_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
/// Id of the transaction.
pub const TRANSACTION_ID: &str = "__transactionId__";
/// How often the transaction was checked.
pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
/// Namespace of the message.
pub const INSTANCE_ID: &str = "INSTANCE_ID";
/// Matches a reply message with its request.
pub const CORRELATION_ID: &str = "CORRELATION_ID";
/// Client id that waits for a reply message.
pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
/// How long a request message waits for its reply, in ms.
pub const TTL: &str = "TTL";
/// When the broker got a reply message, in ms.
pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
/// When the broker pushed a reply message, in ms.
pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
/// Name of the cluster that stored the message.
pub const CLUSTER: &str = "CLUSTER";
/// `reply` on a reply message.
pub const MSG_TYPE: &str = "MSG_TYPE";
/// Receipt handle of a message taken by POP.
pub const POP_CK: &str = "POP_CK";
/// Offset of the POP checkpoint.
pub const POP_CK_OFFSET: &str = "POP_CK_OFFSET";
/// When the message was first taken by POP, in ms.
pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
/// Messages with the same value keep their order.
pub const SHARDING_KEY: &str = "__SHARDINGKEY";
/// Queue of a message forwarded elsewhere.
pub const FORWARD_QUEUE_ID: &str = "PROPERTY_FORWARD_QUEUE_ID";
/// Marks a message that was redirected.
pub const REDIRECT: &str = "REDIRECT";
/// Further queues the message appears in.
pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
/// Offsets in those queues.
pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
/// Context of distributed tracing.
pub const TRACE_CONTEXT: &str = "TRACE_CONTEXT";
/// Deliver after so many seconds.
pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
/// Deliver at this time, in ms.
pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
/// Deliver after so many ms.
pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
/// Delay level of a timer message.
pub const TIMER_DELAY_LEVEL: &str = "TIMER_DELAY_LEVEL";
/// When a timer message was taken in, in ms.
pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
/// When a timer message was delivered, in ms.
pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
/// How often a timer message was put off.
pub const TIMER_ROLL_TIMES: &str = "TIMER_ROLL_TIMES";
/// Delivery time of a timer message, in ms.
pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
/// Names a timer message to cancel.
pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
/// Host the message was made on, where it was forwarded.
pub const BORN_HOST: &str = "__BORNHOST";
/// When the message was made, where it was forwarded.
pub const BORN_TIMESTAMP: &str = "BORN_TIMESTAMP";
/// Set by clients on receipt.
pub const TRANSIENT_TOPIC_CONFIG: &str = "__RMQ.TRANSIENT.TOPIC_SYS_FLAG";
/// Set by clients on receipt.
pub const TRANSIENT_GROUP_CONFIG: &str = "__RMQ.TRANSIENT.GROUP_SYS_FLAG";
/// Checksum over the record.
pub const CRC32: &str = "__CRC32#";
/// Topic of a dead message before it died.
pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
/// Id of a dead message before it died.
pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";

/// The pairs in the order they stand. A repeated name comes repeatedly; its last value counts.
pub fn parse(properties: &str) -> impl Iterator<Item = (&str, &str)> {
    properties.split(PROPERTY_SEPARATOR).filter_map(|pair| {
        pair.split_once(NAME_VALUE_SEPARATOR)
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
    })
}

/// The value of a property.
pub fn get<'a>(properties: &'a str, name: &str) -> Option<&'a str> {
    // From the end, so that the last of repeated names is found first.
    properties.rsplit(PROPERTY_SEPARATOR).find_map(|pair| {
        let value = pair
            .strip_prefix(name)?
            .strip_prefix(NAME_VALUE_SEPARATOR)?;
        (!value.is_empty() && !name.is_empty()).then_some(value)
    })
}

/// Writes pairs as a properties string. Pairs without name or value are left out, and so are
/// separator characters inside of names and values: they cannot be carried.
pub fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut builder = PropertiesBuilder::default();
    for (name, value) in pairs {
        builder.push(name, value);
    }
    builder.finish()
}

/// A properties string under change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuilder {
    text: String,
}

impl PropertiesBuilder {
    /// No properties yet.
    pub fn new() -> Self {
        PropertiesBuilder::default()
    }

    /// Starts from an encoded string, with room for some bytes more.
    pub fn from_encoded(properties: &str) -> Self {
        let mut text = String::with_capacity(properties.len() + 160);
        text.push_str(properties);
        if !text.is_empty() && !text.ends_with(PROPERTY_SEPARATOR) {
            text.push(PROPERTY_SEPARATOR);
        }
        PropertiesBuilder { text }
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        get(&self.text, name)
    }

    /// Sets a property, replacing its former value. An empty value removes it. Separator
    /// characters inside of name and value are left out: they cannot be carried.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.remove(name);
        self.push(name, value);
        self
    }

    /// Removes a property; `true` if it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        if self.get(name).is_none() {
            return false;
        }
        let mut kept = String::with_capacity(self.text.capacity());
        for pair in self.text.split_inclusive(PROPERTY_SEPARATOR) {
            let value = pair.strip_prefix(name);
            if !value.is_some_and(|value| value.starts_with(NAME_VALUE_SEPARATOR)) {
                kept.push_str(pair);
            }
        }
        self.text = kept;
        true
    }

    /// The string so far.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The encoded string.
    pub fn finish(self) -> String {
        self.text
    }

    /// Appends a pair without looking for an earlier one of its name.
    fn push(&mut self, name: &str, value: &str) {
        let carried = |text: &str| text.chars().any(|c| !is_separator(c));
        if carried(name) && carried(value) {
            self.text.extend(name.split(is_separator));
            self.text.push(NAME_VALUE_SEPARATOR);
            self.text.extend(value.split(is_separator));
            self.text.push(PROPERTY_SEPARATOR);
        }
    }
}

fn is_separator(c: char) -> bool {
    c == NAME_VALUE_SEPARATOR || c == PROPERTY_SEPARATOR
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn last_separator_may_be_missing() {
        for text in [
            "KEYS\u{1}k\u{2}TAGS\u{1}a\u{2}",
            "KEYS\u{1}k\u{2}TAGS\u{1}a",
        ] {
            assert_eq!(
                parse(text).collect::<Vec<_>>(),
                [("KEYS", "k"), ("TAGS", "a")]
            );
            assert_eq!(get(text, TAGS), Some("a"));
            assert_eq!(get(text, KEYS), Some("k"));
            assert_eq!(get(text, "KEY"), None);
            assert_eq!(get(text, "AGS"), None);
            let mut builder = PropertiesBuilder::from_encoded(text);
            builder.set("CLUSTER", "c");
            assert_eq!(
                builder.finish(),
                "KEYS\u{1}k\u{2}TAGS\u{1}a\u{2}CLUSTER\u{1}c\u{2}"
            );
        }
    }

    #[test]
    fn pairs_without_name_or_value_do_not_exist() {
        let text = "\u{1}v\u{2}n\u{1}\u{2}n\u{2}\u{2}a\u{1}b\u{1}c\u{2}";
        assert_eq!(parse(text).collect::<Vec<_>>(), [("a", "b\u{1}c")]);
        assert_eq!(get(text, "n"), None);
        assert_eq!(get(text, ""), None);
    }

    #[test]
    fn a_value_cannot_smuggle_in_a_property() {
        let text = encode([("REGION", "r\u{2}TAGS\u{1}x")]);
        assert_eq!(parse(&text).collect::<Vec<_>>(), [("REGION", "rTAGSx")]);
    }

    #[test]
    fn set_replaces_and_empty_removes() {
        let mut builder = PropertiesBuilder::from_encoded("A\u{1}1\u{2}B\u{1}2\u{2}A\u{1}3\u{2}");
        assert_eq!(builder.get("A"), Some("3"));
        builder.set("A", "4").set("B", "");
        assert_eq!(builder.as_str(), "A\u{1}4\u{2}");
        assert!(builder.remove("A"));
        assert!(!builder.remove("A"));
        assert_eq!(builder.finish(), "");
    }

    proptest! {
        #[test]
        fn pairs_round_trip(pairs in prop::collection::vec(("[^\u{1}\u{2}]{1,12}", "[^\u{1}\u{2}]{1,12}"), 0..12)) {
            let text = encode(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let read: Vec<_> = parse(&text).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(&read, &pairs);
            let last: HashMap<_, _> = pairs.into_iter().collect();
            for (name, value) in &last {
                prop_assert_eq!(get(&text, name), Some(value.as_str()));
            }
        }

        #[test]
        fn get_agrees_with_parse_on_any_text(text in "[ab\u{1}\u{2}é]{0,40}", name in "[abé]{0,3}") {
            let parsed = parse(&text).filter(|(n, _)| *n == name).last().map(|(_, v)| v);
            prop_assert_eq!(get(&text, &name), parsed);
            let mut builder = PropertiesBuilder::from_encoded(&text);
            builder.remove(&name);
            prop_assert_eq!(builder.get(&name), None);
            let others = |t: &str| parse(t).filter(|(n, _)| *n != name).map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
            prop_assert_eq!(others(builder.as_str()), others(&text));
        }
    }
}

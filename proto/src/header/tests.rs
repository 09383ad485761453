use proptest::prelude::*;

use super::*;
use crate::code::request;

fn fields(pairs: &[(&str, &str)]) -> ExtFields {
    pairs.iter().copied().collect()
}

const V2: [(&str, &str); 14] = [
    ("a", "group"),
    ("b", "T"),
    ("c", "TBW102"),
    ("d", "4"),
    ("e", "3"),
    ("f", "1"),
    ("g", "1700000000000"),
    ("h", "5"),
    ("i", "TAGS\u{1}a\u{2}"),
    ("j", "2"),
    ("k", "true"),
    ("l", "16"),
    ("m", "false"),
    ("n", "broker-a"),
];

fn send() -> SendMessageRequestHeader {
    SendMessageRequestHeader {
        producer_group: "group".into(),
        topic: "T".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 3,
        sys_flag: 1,
        born_timestamp: 1_700_000_000_000,
        flag: 5,
        properties: Some("TAGS\u{1}a\u{2}".into()),
        reconsume_times: Some(2),
        unit_mode: Some(true),
        batch: Some(false),
        max_reconsume_times: Some(16),
    }
}

#[test]
fn send_header_in_both_versions() {
    assert_eq!(
        SendMessageRequestHeader::decode_v2(&fields(&V2)),
        Ok(send())
    );
    for code in [10, 310, 320, 324, 325] {
        let mut written = ExtFields::default();
        send().encode_for_code(code, &mut written);
        let short = matches!(code, 310 | 320 | 325);
        assert_eq!(written.get("b").is_some(), short, "{code}");
        assert_eq!(
            written.get("defaultTopicQueueNums").is_some(),
            !short,
            "{code}"
        );
        let read = SendMessageRequestHeader::decode_for_code(code, &written);
        assert_eq!(read, Ok(send()), "{code}");
    }
    let mut long = ExtFields::default();
    send().encode(&mut long);
    assert_eq!(long.get("maxReconsumeTimes"), Some("16"));
    let missing = SendMessageRequestHeader::decode_for_code(request::SEND_MESSAGE_V2, &long);
    assert_eq!(missing, Err(HeaderError::Missing { field: "a" }));
    let mut short = ExtFields::default();
    SendMessageRequestHeaderV2(send()).encode(&mut short);
    assert_eq!(
        SendMessageRequestHeaderV2::decode(&short).unwrap().0,
        send()
    );
}

#[test]
fn optional_send_fields_may_be_absent() {
    let read = SendMessageRequestHeader::decode_v2(&fields(&V2[..8])).unwrap();
    let expected = SendMessageRequestHeader {
        properties: None,
        reconsume_times: None,
        unit_mode: None,
        batch: None,
        max_reconsume_times: None,
        ..send()
    };
    assert_eq!(read, expected);
    for missing in 0..8 {
        let mut kept = V2.to_vec();
        let (field, _) = kept.remove(missing);
        let read = SendMessageRequestHeader::decode_v2(&fields(&kept));
        assert_eq!(read, Err(HeaderError::Missing { field }));
    }
}

#[test]
fn errors_name_field_value_and_kind() {
    let text = |error: HeaderError| error.to_string();
    let queue = |value| {
        let fields = fields(&[("topic", "T"), ("queueId", value)]);
        text(GetMinOffsetRequestHeader::decode(&fields).unwrap_err())
    };
    assert_eq!(
        queue("x"),
        "header field queueId = 'x' is not a 32-bit integer"
    );
    assert_eq!(
        queue("2147483648"),
        "header field queueId = '2147483648' is not a 32-bit integer"
    );
    assert!(queue(&"9".repeat(1000)).len() < 150);
    let missing = GetMinOffsetRequestHeader::decode(&fields(&[("queueId", "0")])).unwrap_err();
    assert_eq!(text(missing), "header field topic is missing");
    let offset = GetMinOffsetResponseHeader::decode(&fields(&[("offset", "")])).unwrap_err();
    assert_eq!(
        text(offset),
        "header field offset = '' is not a 64-bit integer"
    );
    let changed = QueryDataVersionResponseHeader::decode(&fields(&[("changed", "yes")]));
    assert_eq!(
        text(changed.unwrap_err()),
        "header field changed = 'yes' is not true or false"
    );
}

#[test]
fn absent_fields_take_their_defaults() {
    let read = GetMaxOffsetRequestHeader::decode(&fields(&[("topic", "T"), ("queueId", "-1")]));
    let expected = GetMaxOffsetRequestHeader {
        topic: "T".into(),
        queue_id: -1,
        committed: true,
    };
    assert_eq!(read, Ok(expected));
    assert!(GetMaxOffsetRequestHeader::default().committed);
    let reset = fields(&[
        ("topic", "T"),
        ("group", "g"),
        ("timestamp", "-1"),
        ("isForce", "TRUE"),
    ]);
    let reset = ResetOffsetRequestHeader::decode(&reset).unwrap();
    assert_eq!(
        (reset.queue_id, reset.offset, reset.is_force),
        (-1, None, true)
    );
    assert_eq!(
        HeartbeatRequestHeader::decode(&ExtFields::default()),
        Ok(HeartbeatRequestHeader {})
    );
}

#[test]
fn booleans_of_cpp_clients_are_digits() {
    for (text, value) in [("1", true), ("0", false), ("True", true), ("FALSE", false)] {
        let read = NotificationResponseHeader::decode(&fields(&[("hasMsg", text)])).unwrap();
        assert_eq!(read.has_msg, value, "{text}");
    }
}

#[test]
fn pull_header_has_the_sheets_names() {
    let mut written = ExtFields::default();
    let header = PullMessageRequestHeader {
        consumer_group: "g".into(),
        topic: "T".into(),
        subscription: Some("*".into()),
        expression_type: Some("TAG".into()),
        max_msg_bytes: Some(1),
        request_source: Some(-1),
        proxy_froward_client_id: Some("c".into()),
        ..PullMessageRequestHeader::default()
    };
    header.encode(&mut written);
    let names: Vec<_> = written.iter().map(|(name, _)| name).collect();
    let expected = "consumerGroup topic queueId queueOffset maxMsgNums sysFlag commitOffset \
        suspendTimeoutMillis subscription subVersion expressionType maxMsgBytes requestSource \
        proxyFrowardClientId";
    assert_eq!(names.join(" "), expected);
    assert_eq!(PullMessageRequestHeader::decode(&written), Ok(header));
}

proptest! {
    #[test]
    fn send_headers_round_trip(texts in prop::array::uniform3(".{0,10}"), numbers in any::<(i32, i32, i32, i64, i32)>(), options in any::<(Option<i32>, Option<bool>, Option<bool>, Option<i32>)>(), properties in prop::option::of(".{0,20}")) {
        let [producer_group, topic, default_topic] = texts;
        let header = SendMessageRequestHeader {
            producer_group, topic, default_topic, properties,
            default_topic_queue_nums: numbers.0,
            queue_id: numbers.1,
            sys_flag: numbers.2,
            born_timestamp: numbers.3,
            flag: numbers.4,
            reconsume_times: options.0,
            unit_mode: options.1,
            batch: options.2,
            max_reconsume_times: options.3,
        };
        let (mut long, mut short) = (ExtFields::default(), ExtFields::default());
        header.encode_v1(&mut long);
        header.encode_v2(&mut short);
        prop_assert_eq!(SendMessageRequestHeader::decode_v1(&long), Ok(header.clone()));
        prop_assert_eq!(SendMessageRequestHeader::decode_v2(&short), Ok(header));
    }

    #[test]
    fn any_fields_decode_without_panic(pairs in prop::collection::vec(("[a-n]|topic|queueId|offset|consumerGroup", ".{0,12}|-?[0-9]{1,21}"), 0..20)) {
        let fields: ExtFields = pairs.into_iter().collect();
        drop(SendMessageRequestHeader::decode_v2(&fields));
        drop(UpdateConsumerOffsetRequestHeader::decode(&fields));
        drop(PopMessageRequestHeader::decode(&fields));
    }
}

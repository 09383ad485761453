//! Bytes that the published Java jars wrote (`golden/Frames.java`) are read as what they are, and
//! written again byte for byte.

use bytes::{Bytes, BytesMut};
use raftmq_proto::body::RegisterBrokerBody;
use raftmq_proto::frame::{LanguageCode, RemotingCommand, SerializeType};
use raftmq_proto::header::SendMessageRequestHeader;
use raftmq_proto::message::batch::{BatchItem, decode_batch, encode_batch};
use raftmq_proto::message::record::{
    NewRecord, RecordRef, stamp_physical_offset, stamp_queue_offset, stamp_store_timestamp,
};
use raftmq_proto::message::{properties, sys_flag};

fn golden(name: &str) -> Vec<u8> {
    let lines = include_str!("../golden/frames-5.5.0.txt").lines();
    let mut pairs = lines.filter_map(|line| line.split_once('\t'));
    let (_, hex) = pairs
        .find(|(found, _)| *found == name)
        .expect("a line of that name");
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits"))
        .collect()
}

#[test]
fn sends_in_both_header_encodings() {
    for (name, serialize) in [
        ("json", SerializeType::Json),
        ("binary", SerializeType::RocketMq),
    ] {
        let frame = Bytes::from(golden(name));
        let command = RemotingCommand::decode(frame.slice(4..)).unwrap();
        assert_eq!(
            (command.code, command.opaque, command.version),
            (310, 77, 479)
        );
        assert_eq!(
            (command.language, command.serialize),
            (LanguageCode::JAVA, serialize)
        );
        assert_eq!(command.remark.as_deref(), Some("remark\n"));
        assert_eq!(command.body.to_bytes(), "body");
        let header =
            SendMessageRequestHeader::decode_for_code(command.code, &command.ext_fields).unwrap();
        let expected = SendMessageRequestHeader {
            producer_group: "group".into(),
            topic: "Topic中".into(),
            default_topic: "TBW102".into(),
            default_topic_queue_nums: 4,
            queue_id: 3,
            sys_flag: 1,
            born_timestamp: 1_700_000_000_000,
            flag: 5,
            properties: Some("KEYS\u{1}a \"b\"\\\u{2}TAGS\u{1}t😀\u{2}".into()),
            reconsume_times: Some(2),
            unit_mode: Some(true),
            batch: Some(false),
            max_reconsume_times: Some(16),
        };
        assert_eq!(header, expected);
        let tags = properties::get(header.properties.as_deref().unwrap(), properties::TAGS);
        assert_eq!(tags, Some("t😀"));
        assert_eq!(command.encode(), frame, "{name}");
    }
}

#[test]
fn records_with_hosts_of_both_kinds() {
    for (name, born, store) in [
        ("record v4", "10.0.0.1:8", "127.0.0.1:10911"),
        ("record v6", "[fe80::1]:8", "[fe80::2]:10911"),
    ] {
        let mut java = golden(name);
        let record = NewRecord {
            queue_id: 3,
            flag: 4,
            sys_flag: sys_flag::TRANSACTION_COMMIT_TYPE,
            born_timestamp: 7,
            born_host: born.parse().unwrap(),
            store_host: store.parse().unwrap(),
            reconsume_times: 11,
            prepared_transaction_offset: 12,
            body: b"hello",
            topic: "T",
            properties: "TAGS\u{1}t\u{2}",
        };
        let mut ours = BytesMut::new();
        record.encode(&mut ours).unwrap();
        stamp_queue_offset(&mut ours, 5);
        stamp_physical_offset(&mut ours, 6);
        stamp_store_timestamp(&mut ours, 9);
        // That Java program leaves the body's checksum at zero.
        java[8..12].copy_from_slice(&ours[8..12]);
        assert_eq!(ours, java, "{name}");
        let read = RecordRef::parse(&java).unwrap();
        assert_eq!((read.queue_offset(), read.physical_offset()), (5, 6));
        assert_eq!((read.store_timestamp(), read.born_timestamp()), (9, 7));
        assert_eq!(
            (read.born_host(), read.store_host()),
            (record.born_host, record.store_host)
        );
        assert_eq!(read.verify_body_crc(), Ok(()));
    }
}

#[test]
fn a_batch() {
    let java = golden("batch");
    let items = [
        BatchItem {
            flag: 1,
            body: b"one",
            properties: "k\u{1}v\u{2}WAIT\u{1}true\u{2}",
        },
        BatchItem {
            flag: 0,
            body: b"two",
            properties: "WAIT\u{1}true\u{2}",
        },
    ];
    let read: Vec<_> = decode_batch(&java).collect::<Result<_, _>>().unwrap();
    assert_eq!(read, items);
    assert_eq!(encode_batch(&items).unwrap(), java);
}

#[test]
fn a_compressed_registration() {
    let body = RegisterBrokerBody::decode(&golden("registration"), true, 479).unwrap();
    let wrapper = &body.topic_config_serialize_wrapper;
    let topic = &wrapper.topic_config_table["T"];
    assert_eq!(
        (topic.read_queue_nums, topic.write_queue_nums, topic.perm),
        (8, 4, 6)
    );
    assert_eq!(topic.attributes["message.type"], "FIFO");
    assert_eq!(wrapper.data_version.timestamp, 5);
    let again = RegisterBrokerBody::decode(&body.encode_compressed(), true, 479).unwrap();
    assert_eq!(again, body);
}

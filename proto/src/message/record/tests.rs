use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::message::properties;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

fn new<'a>(body: &'a [u8], topic: &'a str, properties: &'a str) -> NewRecord<'a> {
    NewRecord {
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 0,
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic,
        properties,
    }
}

fn encode(record: &NewRecord<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    record.encode(&mut out).unwrap();
    assert_eq!(out.len(), record.encoded_len());
    out
}

#[test]
fn golden_record() {
    let bytes = encode(&new(b"hi", "T", "TAGS\u{1}a\u{2}"));
    let golden = hex(
        "00000065 daa320a7 58932aac 00000000 00000000 0000000000000000 0000000000000000 00000000
         0000000000000000 7f00000100000001 0000000000000000 7f00000100002a9f 00000000
         0000000000000000 00000002 6869 01 54 0007 54414753016102",
    );
    assert_eq!(bytes, golden);
    let record = RecordRef::parse(&golden).unwrap();
    assert_eq!((record.total_size(), record.magic()), (0x65, MAGIC_V1));
    assert_eq!((record.body(), record.topic()), (&b"hi"[..], "T"));
    assert_eq!(record.property(properties::TAGS), Some("a"));
    assert_eq!(record.born_host(), "127.0.0.1:1".parse().unwrap());
    assert_eq!(record.store_host(), "127.0.0.1:10911".parse().unwrap());
    assert_eq!(record.verify_body_crc(), Ok(()));
}

#[test]
fn fixed_part_has_91_bytes() {
    assert_eq!(encode(&new(b"", "", "")).len(), RECORD_MIN);
}

#[test]
fn long_topics_take_v2() {
    for (len, magic) in [
        (127, MAGIC_V1),
        (128, MAGIC_V2),
        (255, MAGIC_V2),
        (32_767, MAGIC_V2),
    ] {
        let topic = "t".repeat(len);
        let bytes = encode(&new(b"b", &topic, "p\u{1}v\u{2}"));
        let record = RecordRef::parse(&bytes).unwrap();
        assert_eq!((record.topic().len(), record.magic()), (len, magic));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_appends_nothing() {
    let long = "x".repeat(32_768);
    let mut out = BytesMut::new();
    let error = new(b"", &long, "").encode(&mut out).unwrap_err();
    assert_eq!(error, RecordError::TopicTooLong { len: 32_768 });
    let error = new(b"", "T", &long).encode(&mut out).unwrap_err();
    assert_eq!(error, RecordError::PropertiesTooLong { len: 32_768 });
    assert!(out.is_empty());
}

#[test]
fn mapped_ipv4_hosts_are_stored_as_ipv4() {
    let mut record = new(b"", "T", "");
    record.born_host = "[::ffff:10.0.0.1]:5".parse().unwrap();
    record.sys_flag = BORNHOST_V6 | STOREHOST_V6 | 1;
    let bytes = encode(&record);
    let read = RecordRef::parse(&bytes).unwrap();
    assert_eq!(
        (read.sys_flag(), read.born_host()),
        (1, "10.0.0.1:5".parse().unwrap())
    );
}

#[test]
fn stamps_go_where_readers_look() {
    for host in ["127.0.0.1:10911", "[fe80::1]:10911"] {
        let mut record = new(b"body", "T", "a\u{1}b\u{2}");
        record.born_host = host.parse().unwrap();
        let mut two = BytesMut::new();
        record.encode(&mut two).unwrap();
        record.encode(&mut two).unwrap();
        for (at, bytes) in records_mut(&mut two).enumerate() {
            stamp_queue_offset(bytes, 70 + at as u64);
            stamp_physical_offset(bytes, u64::MAX - at as u64);
            stamp_store_timestamp(bytes, -5 - i64::try_from(at).unwrap());
        }
        let read: Vec<_> = records(&two).map(Result::unwrap).collect();
        assert_eq!(read.len(), 2);
        for (at, record) in read.iter().enumerate() {
            assert_eq!(record.queue_offset(), 70 + at as u64);
            assert_eq!(record.physical_offset(), u64::MAX - at as u64);
            assert_eq!(record.store_timestamp(), -5 - i64::try_from(at).unwrap());
            assert_eq!(
                (record.body(), record.store_host().port()),
                (&b"body"[..], 10_911)
            );
        }
    }
    assert_eq!(store_timestamp_at(0), 56);
    assert_eq!(store_timestamp_at(BORNHOST_V6), 68);
}

#[test]
fn every_cut_and_wrong_length_is_an_error() {
    let whole = encode(&new(b"hello", "Topic", "a\u{1}b\u{2}"));
    for len in 0..whole.len() {
        assert!(RecordRef::parse(&whole[..len]).is_err(), "{len}");
        // Also where the length field agrees with the cut.
        let mut cut = whole[..len].to_vec();
        if let Some(total) = cut.get_mut(..4) {
            total.copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
            assert!(RecordRef::parse(&cut).is_err(), "{len}");
        }
    }
    let mut long = whole.to_vec();
    long[3] += 1;
    long.push(0);
    let trailing = RecordError::TrailingBytes {
        total: long.len(),
        left: 1,
    };
    assert_eq!(RecordRef::parse(&long), Err(trailing));
    let mut filler = whole.to_vec();
    filler[4..8].copy_from_slice(&0xCBD4_3194u32.to_be_bytes());
    assert_eq!(
        RecordRef::parse(&filler),
        Err(RecordError::BadMagic(0xCBD4_3194))
    );
    let mut damaged = whole.to_vec();
    let body_at = 84 + 4;
    damaged[body_at] ^= 1;
    let error = RecordRef::parse(&damaged)
        .unwrap()
        .verify_body_crc()
        .unwrap_err();
    assert!(matches!(error, RecordError::BodyCrc { .. }));
}

#[test]
fn iteration_ends_at_the_first_bad_record() {
    let mut bytes = encode(&new(b"1", "T", ""));
    bytes.extend_from_slice(b"\0\0\0\x08junk");
    bytes.extend_from_slice(&encode(&new(b"2", "T", "")));
    let read: Vec<_> = records(&bytes).collect();
    assert_eq!(read.len(), 2);
    assert!(read[0].is_ok() && read[1].is_err());
    assert_eq!(records_mut(&mut bytes).count(), 1);
}

prop_compose! {
    fn parts()(
        numbers in any::<(i32, i32, i32, i64, i32, i64)>(),
        hosts in any::<(std::net::SocketAddr, std::net::SocketAddr)>(),
        body in prop::collection::vec(any::<u8>(), 0..100),
        topic in "[a-zA-Z%]{0,200}",
        properties in "\\PC{0,40}",
    ) -> ((i32, i32, i32, i64, i32, i64), (std::net::SocketAddr, std::net::SocketAddr), Vec<u8>, String, String) {
        (numbers, hosts, body, topic, properties)
    }
}

proptest! {
    #[test]
    fn records_round_trip((numbers, hosts, body, topic, properties) in parts()) {
        let (queue_id, flag, sys_flag, born_timestamp, reconsume_times, prepared) = numbers;
        let record = NewRecord {
            queue_id, flag, sys_flag, born_timestamp, reconsume_times,
            born_host: hosts.0,
            store_host: hosts.1,
            prepared_transaction_offset: prepared,
            body: &body,
            topic: &topic,
            properties: &properties,
        };
        let bytes = encode(&record);
        let read = RecordRef::parse(&bytes).unwrap();
        let host = |host: SocketAddr| (host.ip().to_canonical(), host.port());
        prop_assert_eq!((read.queue_id(), read.flag(), read.born_timestamp()), (queue_id, flag, born_timestamp));
        let v6 = BORNHOST_V6 | STOREHOST_V6;
        prop_assert_eq!(read.sys_flag() & !v6, sys_flag & !v6);
        prop_assert_eq!((read.reconsume_times(), read.prepared_transaction_offset()), (reconsume_times, prepared));
        prop_assert_eq!(host(read.born_host()), host(hosts.0));
        prop_assert_eq!(host(read.store_host()), host(hosts.1));
        prop_assert_eq!((read.body(), read.topic(), read.properties()), (&body[..], &topic[..], &properties[..]));
        prop_assert_eq!((read.queue_offset(), read.physical_offset(), read.store_timestamp()), (0, 0, 0));
        prop_assert_eq!(read.verify_body_crc(), Ok(()));
        prop_assert_eq!(read.as_bytes(), &bytes[..]);
    }

    #[test]
    fn any_bytes_parse_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), v2 in any::<bool>()) {
        records(&bytes).for_each(drop);
        records_mut(&mut bytes).for_each(|record| {
            stamp_queue_offset(record, 1);
            stamp_physical_offset(record, 1);
            stamp_store_timestamp(record, 1);
        });
        // And past the checks of length and magic.
        if bytes.len() >= 8 {
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&(if v2 { MAGIC_V2 } else { MAGIC_V1 }).to_be_bytes());
            records(&bytes).for_each(drop);
        }
    }

    #[test]
    fn mutated_records_parse_without_panic((_, _, body, topic, properties) in parts(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&new(&body, &topic, &properties)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(record) = RecordRef::parse(&bytes) {
            prop_assert!(record.total_size() as usize <= bytes.len());
            drop(record.verify_body_crc());
        }
    }
}

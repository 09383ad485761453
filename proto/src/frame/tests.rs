use proptest::prelude::*;

use super::*;
use crate::code::request;
use crate::header::{GetRouteInfoRequestHeader, SendMessageRequestHeader};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

/// Decodes what `encode` made.
fn decode(frame: &Bytes) -> Result<RemotingCommand, FrameError> {
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(length as usize, frame.len() - 4);
    RemotingCommand::decode(frame.slice(4..))
}

#[test]
fn golden_json_request() {
    let mut command = RemotingCommand::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(
        &GetRouteInfoRequestHeader {
            topic: "T".into(),
            ..Default::default()
        },
    );
    command.opaque = 7;
    command.version = 0;
    let frame = command.encode();
    assert_eq!(frame[..8], hex("0000007d 00000079"));
    let header = r#"{"code":105,"extFields":{"topic":"T"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":0}"#;
    assert_eq!(std::str::from_utf8(&frame[8..]).unwrap(), header);
    assert_eq!(decode(&frame).unwrap(), command);
}

#[test]
fn golden_binary_request() {
    let frame = hex(
        "00000024 0100001e 0022 00 0000 00000001 00000000 00000001 72 00000008 0001 6b 00000001 76 0102",
    );
    let command = RemotingCommand {
        code: 34,
        language: LanguageCode::JAVA,
        version: 0,
        opaque: 1,
        flag: 0,
        remark: Some("r".into()),
        ext_fields: ExtFields::from_iter([("k", "v")]),
        body: Bytes::from_static(&[1, 2]).into(),
        serialize: SerializeType::RocketMq,
    };
    assert_eq!(command.encode(), frame);
    assert_eq!(decode(&frame.into()).unwrap(), command);
}

#[test]
fn body_is_a_slice_of_the_frame() {
    let frame = RemotingCommand::request(10)
        .with_body(vec![7u8; 100])
        .encode()
        .slice(4..);
    let command = RemotingCommand::decode(frame.clone()).unwrap();
    let body = command.body.into_bytes();
    assert_eq!(body.as_ptr(), frame[frame.len() - 100..].as_ptr());
}

#[test]
fn head_is_followed_by_chunks() {
    let chunks = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")];
    let command = RemotingCommand::success().with_body(chunks);
    let mut out = BytesMut::from(&b"earlier"[..]);
    command.encode_head(&mut out);
    for chunk in command.body.chunks() {
        out.extend_from_slice(chunk);
    }
    assert_eq!(out[7..], command.encode());
    assert_eq!(decode(&command.encode()).unwrap().body.into_bytes(), "abcd");
}

#[test]
fn reply_takes_number_and_encoding_of_its_request() {
    let mut request = RemotingCommand::request(request::HEART_BEAT);
    request.opaque = 9;
    request.serialize = SerializeType::RocketMq;
    request.mark_oneway();
    assert!(request.is_oneway() && !request.is_response());
    assert!(request.meta().oneway);
    let mut reply = RemotingCommand::success();
    reply.reply_to(&request.meta());
    assert_eq!(
        (reply.opaque, reply.serialize),
        (9, SerializeType::RocketMq)
    );
    assert!(reply.is_response() && !reply.is_oneway());
}

#[test]
fn code_beyond_16_bits_travels_as_json() {
    let mut command = RemotingCommand::request(request::POP_MESSAGE);
    command.serialize = SerializeType::RocketMq;
    let read = decode(&command.encode()).unwrap();
    assert_eq!((read.code, read.serialize), (200_050, SerializeType::Json));
}

/// What other clients write: blanks, other orders, numbers as text and text as numbers, nulls.
#[test]
fn unusual_json_headers_are_read() {
    let header = r#" { "extFields" : {"queueId":3,"topic":"T\u0001","batch":false,"n":null,'x':"1"} ,
        "language":"FORTRAN", "remark":null, "code":"10", "unknown":{"a":[1,{"b":"}"}]},
        "opaque":-5, "flag":2,"version":401 } "#;
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(header.len()).unwrap());
    frame.extend_from_slice(header.as_bytes());
    let command = RemotingCommand::decode(frame.freeze()).unwrap();
    assert_eq!(
        (command.code, command.opaque, command.version),
        (10, -5, 401)
    );
    assert_eq!(command.language, LanguageCode::OTHER);
    assert!(command.is_oneway() && command.remark.is_none() && command.body.is_empty());
    let fields: Vec<_> = command.ext_fields.iter().collect();
    assert_eq!(
        fields,
        [
            ("queueId", "3"),
            ("topic", "T\u{1}"),
            ("batch", "false"),
            ("x", "1")
        ]
    );
}

#[test]
fn what_is_no_frame_is_named() {
    let decode = |bytes: Vec<u8>| RemotingCommand::decode(bytes.into());
    assert_eq!(decode(vec![0, 0, 0]), Err(FrameError::Truncated { len: 3 }));
    assert_eq!(
        decode(vec![0; FRAME_MAX + 1]),
        Err(FrameError::TooLong { len: FRAME_MAX + 1 })
    );
    assert_eq!(
        decode(vec![2, 0, 0, 0]),
        Err(FrameError::UnknownSerializeType(2))
    );
    assert_eq!(
        decode(vec![0, 0, 1, 0, 1, 1]),
        Err(FrameError::HeaderTooLong {
            header: 256,
            room: 2
        })
    );
    assert_eq!(
        decode(vec![1, 0, 0, 1, 1]),
        Err(FrameError::Binary { field: "code" })
    );
    for json in [
        "",
        "{",
        "{}",
        "[]",
        r#"{"code":1"#,
        r#"{"code":x}"#,
        r#"{"code":1}x"#,
        r#"{"code":99999999999}"#,
    ] {
        let mut frame = vec![0, 0, 0, u8::try_from(json.len()).unwrap()];
        frame.extend(json.as_bytes());
        assert!(matches!(decode(frame), Err(FrameError::Json(_))), "{json}");
    }
    let deep = format!("{{\"x\":{}", "[".repeat(200_000));
    let mut frame = u32::try_from(deep.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(deep.as_bytes());
    assert!(matches!(decode(frame), Err(FrameError::Json(_))));
}

#[test]
fn fields_of_one_frame_are_bounded() {
    let fields = |n| ExtFields::from_iter((0..n).map(|i| (i.to_string(), "v")));
    for serialize in [SerializeType::Json, SerializeType::RocketMq] {
        let mut command = RemotingCommand::request(10);
        command.serialize = serialize;
        command.ext_fields = fields(EXT_FIELDS_MAX);
        assert_eq!(decode(&command.encode()).unwrap(), command);
        command.ext_fields = fields(EXT_FIELDS_MAX + 1);
        assert_eq!(decode(&command.encode()), Err(FrameError::TooManyFields));
    }
}

#[test]
fn a_header_that_cannot_be_framed_says_so() {
    let mut command = RemotingCommand::success().with_body("body");
    command.opaque = 3;
    command.ext_fields.insert("huge", "x".repeat(HEADER_MAX));
    let frame = command.encode();
    let read = decode(&frame).unwrap();
    assert_eq!((read.code, read.opaque), (response::SYSTEM_ERROR, 3));
    assert!(read.remark.unwrap().contains("16777215") && read.ext_fields.is_empty());
    assert_eq!(read.body.into_bytes(), "body");
}

#[test]
fn ext_fields_replace_and_remove() {
    let mut fields = ExtFields::default();
    fields.insert("a", "1");
    fields.insert(String::from("b"), "2");
    fields.insert_display("a", 30);
    assert_eq!(fields.iter().collect::<Vec<_>>(), [("a", "30"), ("b", "2")]);
    assert_eq!((fields.len(), fields.get("c")), (2, None));
    assert!(fields.remove("a") && !fields.remove("a"));
    assert_eq!(fields, ExtFields::from_iter([("b", "2")]));
    assert_ne!(fields, ExtFields::from_iter([("b", "3")]));
    assert_ne!(fields, ExtFields::default());
    assert_eq!(format!("{fields:?}"), r#"{"b": "2"}"#);
}

#[test]
fn languages_by_name_and_number() {
    assert_eq!(LanguageCode::from_name("GO"), LanguageCode::GO);
    assert_eq!(LanguageCode::from_name("ADA"), LanguageCode::OTHER);
    assert_eq!(LanguageCode::from_code(12), LanguageCode::RUST);
    assert_eq!(LanguageCode::from_code(200), LanguageCode::OTHER);
    assert_eq!(LanguageCode(200).name(), "OTHER");
    assert_eq!(LanguageCode::NODE_JS.to_string(), "NODE_JS");
}

pub(crate) fn command() -> impl Strategy<Value = RemotingCommand> {
    let field = ("[a-zA-Z_]{1,12}", "\\PC{0,20}|[\\x00-\\x7f]{0,20}");
    (
        (
            any::<i32>(),
            any::<i16>(),
            any::<i32>(),
            any::<i32>(),
            0u8..14,
        ),
        prop::option::of("\\PC{1,20}"),
        prop::collection::vec(field, 0..16),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
        any::<bool>(),
    )
        .prop_map(
            |((code, version, opaque, flag, language), remark, fields, body, binary)| {
                RemotingCommand {
                    code: if binary { code % 32_768 } else { code },
                    language: LanguageCode(language),
                    version: version.into(),
                    opaque,
                    flag,
                    remark,
                    ext_fields: fields.into_iter().collect(),
                    body: body.into_iter().map(Bytes::from).collect::<Vec<_>>().into(),
                    serialize: if binary {
                        SerializeType::RocketMq
                    } else {
                        SerializeType::Json
                    },
                }
            },
        )
}

proptest! {
    #[test]
    fn commands_round_trip(command in command()) {
        prop_assert_eq!(decode(&command.encode()).unwrap(), command);
    }

    #[test]
    fn json_headers_are_standard_json(command in command()) {
        prop_assume!(command.serialize == SerializeType::Json);
        let frame = command.encode();
        let header = frame.len() - command.body.len();
        let value: serde_json::Value = serde_json::from_slice(&frame[8..header]).unwrap();
        prop_assert_eq!(&value["code"], command.code);
        prop_assert_eq!(value["remark"].as_str(), command.remark.as_deref());
        for (name, text) in command.ext_fields.iter() {
            prop_assert_eq!(value["extFields"][name].as_str(), Some(text));
        }
    }

    #[test]
    fn any_bytes_decode_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), encoding in 0u8..2) {
        drop(RemotingCommand::decode(bytes.clone().into()));
        // And past the check of encoding and header length.
        let len = u8::try_from(bytes.len()).unwrap();
        bytes.splice(0..0, [encoding, 0, 0, len]);
        drop(RemotingCommand::decode(bytes.into()));
    }

    #[test]
    fn mutated_frames_decode_without_panic(command in command(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let mut bytes = command.encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(4 + cut.index(bytes.len() - 3));
        if let Ok(read) = RemotingCommand::decode(bytes[4..].to_vec().into()) {
            drop(SendMessageRequestHeader::decode_v2(&read.ext_fields));
            // What was read can be written and read again.
            prop_assert_eq!(decode(&read.encode()).unwrap(), read);
        }
    }
}

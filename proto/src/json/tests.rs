use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, JsonError> {
    from_slice(json.as_bytes())
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Sample {
    flag: bool,
    map: BTreeMap<i64, String>,
    number: i32,
    option: Option<Vec<f64>>,
    text: String,
}

#[test]
fn dialect_is_read() {
    let json = r#" {number:'12', 'flag':"true", "text":5, map:{0:"a","1":'b',-2:"c"}, option:[1,2.5e1,null,"3"], extra:{{"a":1}:2,b:[{}]}, } "#;
    let sample: Sample = read(json).unwrap();
    let expected = Sample {
        flag: true,
        map: BTreeMap::from([(0, "a".into()), (1, "b".into()), (-2, "c".into())]),
        number: 12,
        option: Some(vec![1.0, 25.0, 3.0]),
        text: "5".into(),
    };
    assert_eq!(sample, expected);
}

#[test]
fn null_members_are_absent() {
    let json = r#"{"flag":null,"map":{"1":null},"number":null,"option":null,"text":null}"#;
    assert_eq!(read::<Sample>(json), Ok(Sample::default()));
    assert_eq!(
        to_vec(&Sample::default()).unwrap(),
        br#"{"flag":false,"map":{},"number":0,"text":""}"#
    );
    let infinite = Sample {
        option: Some(vec![f64::INFINITY, 1.0]),
        ..Sample::default()
    };
    let json = String::from_utf8(to_vec(&infinite).unwrap()).unwrap();
    assert!(json.contains(r#""option":[null,1.0]"#), "{json}");
    assert_eq!(to_vec(&None::<i32>).unwrap(), b"null");
}

#[test]
fn escapes_are_read() {
    let text: String = read(r#""\u0041\u00e9\ud83d\ude00\ud83dx\n\t\/\\\"\'\x41\1\v""#).unwrap();
    assert_eq!(text, "Aé\u{1F600}\u{FFFD}x\n\t/\\\"'A\u{1}\u{b}");
    assert_eq!(from_slice::<String>(b"\"\xff\""), Ok("\u{FFFD}".into()));
    for bad in [
        r#""\q""#,
        r#""\u12"#,
        r#""\u12g4""#,
        r#""\x4""#,
        r#"""#,
        r#""\"#,
    ] {
        assert!(read::<String>(bad).is_err(), "{bad}");
    }
}

#[test]
fn errors_say_where() {
    let error = read::<Sample>(r#"{"number":1 x"flag":true}"#).unwrap_err();
    assert_eq!(error.position(), Some(12));
    assert_eq!(
        error.to_string(),
        "bad JSON at byte 12: expected ',', found 'x'"
    );
    let error = read::<Sample>(r#"{"number":99999999999}"#).unwrap_err();
    assert!(error.to_string().contains("99999999999"), "{error}");
    for bad in [
        "",
        "{",
        "{}}",
        "[",
        r#"{"number":}"#,
        r#"{"map":[]}"#,
        r#"{"number":{}}"#,
        "{,}",
        "{1}",
    ] {
        assert!(read::<Sample>(bad).is_err(), "{bad}");
    }
}

#[test]
fn depth_is_bounded() {
    for open in ["[", "{\"a\":", "{{", "{\"extra\":{"] {
        assert!(read::<Sample>(&open.repeat(100_000)).is_err());
        let ignored = format!("{{\"extra\":{}", open.repeat(100_000));
        let error = read::<Sample>(&ignored).unwrap_err();
        assert!(error.to_string().contains("64 levels"), "{error}");
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Variant {
    Unit,
    One(i32),
    Two(i32, String),
    Fields { a: u64 },
}

#[test]
fn every_kind_of_value_is_written() {
    let all = (
        [
            Variant::Unit,
            Variant::One(1),
            Variant::Two(2, "x".into()),
            Variant::Fields { a: 3 },
        ],
        (1u8, -2i16, 3.5f32, 'c', u64::MAX, ()),
        BTreeMap::from([(Some(true), Variant::Unit)]),
        BTreeMap::from([((1, 'x'), 0)]),
    );
    let json = String::from_utf8(to_vec(&all).unwrap()).unwrap();
    let expected = r#"[["Unit",{"One":1},{"Two":[2,"x"]},{"Fields":{"a":3}}],[1,-2,3.5,"c",18446744073709551615,null],{"true":"Unit"},{[1,"x"]:0}]"#;
    assert_eq!(json, expected);
    assert_eq!(read::<Variant>("\"Unit\""), Ok(Variant::Unit));
}

proptest! {
    #[test]
    fn strings_round_trip_and_are_standard(text in ".*|[\\x00-\\x7f]{0,20}") {
        let json = to_vec(&text).unwrap();
        prop_assert_eq!(from_slice::<String>(&json), Ok(text.clone()));
        prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
    }

    #[test]
    fn numbers_round_trip(integer in any::<i64>(), float in any::<f64>()) {
        prop_assert_eq!(to_vec(&integer).unwrap(), integer.to_string().into_bytes());
        if float.is_finite() {
            prop_assert_eq!(from_slice::<f64>(&to_vec(&float).unwrap()), Ok(float));
        }
    }

    #[test]
    fn standard_json_is_read_alike(map in prop::collection::btree_map(any::<i64>(), ".{0,8}", 0..4), number in any::<i32>(), flag in any::<bool>(), option in prop::option::of(prop::collection::vec(-1e9f64..1e9, 0..4)), text in ".{0,12}", pretty in any::<bool>()) {
        let sample = Sample { flag, map, number, option, text };
        let json = if pretty { serde_json::to_vec_pretty(&sample) } else { serde_json::to_vec(&sample) }.unwrap();
        prop_assert_eq!(from_slice::<Sample>(&json), Ok(sample));
    }

    #[test]
    fn any_text_is_read_without_panic(json in "[{}\\[\\]:,\"'a0$\\\\u\\n n-]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        drop(read::<Sample>(&json));
        drop(from_slice::<Sample>(&bytes));
        drop(from_slice::<Sample>(&[b"{\"x\":", &bytes[..]].concat()));
        drop(from_slice::<String>(&[b"\"", &bytes[..]].concat()));
    }
}

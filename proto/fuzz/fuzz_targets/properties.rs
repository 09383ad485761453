//! Texts: message properties, message ids, names, tag expressions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raftmq_proto::filter::TagFilter;
use raftmq_proto::message::properties::{PropertiesBuilder, get, parse};
use raftmq_proto::message::{id, name, tags_code};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    for (name, _) in parse(&text) {
        let last = parse(&text)
            .filter(|(n, _)| *n == name)
            .last()
            .map(|(_, value)| value);
        assert_eq!(get(&text, name), last);
        let mut builder = PropertiesBuilder::from_encoded(&text);
        assert!(builder.remove(name) && builder.get(name).is_none());
    }
    drop(id::parse_offset_message_id(&text));
    drop(name::check_topic(&text));
    if let Ok(filter) = TagFilter::parse(&text) {
        filter.matches_code(tags_code(&text));
    }
});

//! Batch bodies; what can be read can be written byte for byte, but for the unused fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raftmq_proto::message::batch::{decode_batch, encode_batch};

fuzz_target!(|data: &[u8]| {
    if let Ok(items) = decode_batch(data).collect::<Result<Vec<_>, _>>() {
        let encoded = encode_batch(&items).expect("what was read fits");
        assert_eq!(encoded.len(), data.len());
        let again: Vec<_> = decode_batch(&encoded).flatten().collect();
        assert_eq!(again, items);
    }
});

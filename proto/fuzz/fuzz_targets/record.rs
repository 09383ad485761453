//! Message records, read and stamped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raftmq_proto::message::record::{
    records, records_mut, stamp_physical_offset, stamp_queue_offset, stamp_store_timestamp,
};

fuzz_target!(|data: &[u8]| {
    let mut size = 0;
    for record in records(data).flatten() {
        size += record.total_size() as usize;
        drop(record.verify_body_crc());
        assert!(record.property("TAGS").is_none_or(|tag| !tag.is_empty()));
    }
    assert!(size <= data.len());
    for record in records_mut(&mut data.to_vec()) {
        stamp_queue_offset(record, 1);
        stamp_physical_offset(record, 2);
        stamp_store_timestamp(record, 3);
    }
});

//! Registrations of brokers: as given, and as the content of a zlib stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raftmq_proto::body::RegisterBrokerBody;
use raftmq_proto::message::compression::compress_zlib;

fuzz_target!(|data: &[u8]| {
    drop(RegisterBrokerBody::decode(data, false, 479));
    drop(RegisterBrokerBody::decode(data, true, 479));
    let packed = compress_zlib(data, 1);
    drop(RegisterBrokerBody::decode(&packed, true, 409));
    drop(RegisterBrokerBody::decode(&packed, true, 479));
});

//! JSON bodies: those with the most nesting and those with queues as keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raftmq_proto::body::{
    ConsumeStats, ConsumerRunningInfo, GetConsumerStatusBody, HeartbeatData, TopicRouteData,
};

macro_rules! reread {
    ($data:expr, $($body:ty),*) => {
        $(if let Ok(body) = <$body>::from_json($data) {
            let again = <$body>::from_json(&body.to_json()).expect("what was written can be read");
            assert_eq!(again.to_json(), body.to_json());
        })*
    };
}

fuzz_target!(|data: &[u8]| {
    reread!(
        data,
        HeartbeatData,
        TopicRouteData,
        ConsumeStats,
        GetConsumerStatusBody,
        ConsumerRunningInfo
    );
});

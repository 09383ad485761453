//! Metadata commands; what can be read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raftmq_proto::command::Command;

fuzz_target!(|data: &[u8]| {
    if let Ok(command) = Command::decode(data) {
        assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(&command));
    }
});

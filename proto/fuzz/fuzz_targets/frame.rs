//! Frames in both header encodings; what can be read can be written and read again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::SendMessageRequestHeader;

fuzz_target!(|data: &[u8]| {
    if let Ok(command) = RemotingCommand::decode(Bytes::copy_from_slice(data)) {
        drop(SendMessageRequestHeader::decode_for_code(
            command.code,
            &command.ext_fields,
        ));
        let again = RemotingCommand::decode(command.encode().slice(4..));
        assert_eq!(again.as_ref(), Ok(&command));
    }
});

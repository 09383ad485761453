//! Metadata commands: what travels in a Raft entry beside message records.
//!
//! Encoded as protobuf. Members of different versions may share a group for a while, so fields
//! are only ever added; an operation that a member does not know is an error there, never skipped:
//! skipping it would let its state drift apart from the others'.

use prost::Message as _;
use thiserror::Error;

/// Operations of one entry. They are applied in order, before the entry's records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// The leader's clock when it proposed, in ms; apply reads no clock of its own.
    pub time_ms: i64,
    /// What to do.
    pub ops: Vec<Op>,
}

/// One change of the replicated state.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Creates or replaces a topic.
    #[prost(message, tag = "1")]
    PutTopic(PutTopic),
    /// Deletes a topic.
    #[prost(message, tag = "2")]
    DeleteTopic(DeleteTopic),
    /// Creates or replaces a subscription group.
    #[prost(message, tag = "3")]
    PutGroup(PutGroup),
    /// Deletes a subscription group.
    #[prost(message, tag = "4")]
    DeleteGroup(DeleteGroup),
    /// Saves consumer offsets.
    #[prost(message, tag = "5")]
    SaveOffsets(SaveOffsets),
    /// Sets a key-value pair.
    #[prost(message, tag = "6")]
    PutKv(PutKv),
    /// Deletes a key-value pair.
    #[prost(message, tag = "7")]
    DeleteKv(DeleteKv),
    /// Gives up the beginning of the log.
    #[prost(message, tag = "8")]
    TrimLog(TrimLog),
    /// Lets a queue begin at another offset than 0.
    #[prost(message, tag = "9")]
    StartQueue(StartQueue),
}

/// Creates or replaces a topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutTopic {
    /// [`crate::body::TopicConfig`] as JSON; it names the topic.
    #[prost(bytes = "vec", tag = "1")]
    pub config_json: Vec<u8>,
}

/// Deletes a topic with its queues and offsets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteTopic {
    /// Topic.
    #[prost(string, tag = "1")]
    pub topic: String,
}

/// Creates or replaces a subscription group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutGroup {
    /// [`crate::body::SubscriptionGroupConfig`] as JSON; it names the group.
    #[prost(bytes = "vec", tag = "1")]
    pub config_json: Vec<u8>,
}

/// Deletes a subscription group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteGroup {
    /// Group.
    #[prost(string, tag = "1")]
    pub group: String,
    /// Whether its consumer offsets go too.
    #[prost(bool, tag = "2")]
    pub clean_offset: bool,
}

/// Saves consumer offsets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SaveOffsets {
    /// One row per group, topic and queue.
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<OffsetRow>,
}

/// A group's offset in one queue.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OffsetRow {
    /// Group.
    #[prost(string, tag = "1")]
    pub group: String,
    /// Topic.
    #[prost(string, tag = "2")]
    pub topic: String,
    /// Queue within the topic.
    #[prost(int32, tag = "3")]
    pub queue_id: i32,
    /// The queue offset to consume next.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// Whether the offset may go back: an operator's reset does, a consumer's progress never.
    #[prost(bool, tag = "5")]
    pub reset: bool,
}

/// Sets a key-value pair.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutKv {
    /// Namespace of the key.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Key.
    #[prost(string, tag = "2")]
    pub key: String,
    /// Value.
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
}

/// Deletes a key-value pair.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteKv {
    /// Namespace of the key.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Key.
    #[prost(string, tag = "2")]
    pub key: String,
}

/// Gives up the beginning of the log: no record below `position` is read any more, and the files
/// that hold nothing else may go. The leader decides, so that all members do the same.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrimLog {
    /// Physical offset of a segment's beginning; a lower one than before changes nothing.
    #[prost(uint64, tag = "1")]
    pub position: u64,
}

/// Lets a queue that has no message begin at another offset than 0, for a log that was imported
/// without its beginning. Refused once the queue has a message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StartQueue {
    /// Topic.
    #[prost(string, tag = "1")]
    pub topic: String,
    /// Queue within the topic.
    #[prost(int32, tag = "2")]
    pub queue_id: i32,
    /// Queue offset of the first message to come.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
}

/// Why bytes are not a command.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// Not the encoding of a command.
    #[error("command cannot be read: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// The operation comes from a newer version.
    #[error("operation {at} of a command is of a kind this version does not know")]
    UnknownOp {
        /// Number of the operation, from 0.
        at: usize,
    },
}

/// The wire form: protobuf has no list of alternatives, only messages that hold one.
#[derive(Clone, PartialEq, prost::Message)]
struct WireCommand {
    #[prost(int64, tag = "1")]
    time_ms: i64,
    #[prost(message, repeated, tag = "2")]
    ops: Vec<WireOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOp {
    #[prost(oneof = "Op", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    op: Option<Op>,
}

impl Command {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The encoded command. No bytes at all are the empty command of time 0.
    pub fn encode(&self) -> Vec<u8> {
        let ops = self
            .ops
            .iter()
            .map(|op| WireOp {
                op: Some(op.clone()),
            })
            .collect();
        WireCommand {
            time_ms: self.time_ms,
            ops,
        }
        .encode_to_vec()
    }

    /// Reads a command.
    ///
    /// # Errors
    /// When the bytes are damaged or hold an operation of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Command, CommandError> {
        let wire = WireCommand::decode(bytes)?;
        let ops = wire.ops.into_iter().enumerate();
        let ops = ops.map(|(at, wire)| wire.op.ok_or(CommandError::UnknownOp { at }));
        Ok(Command {
            time_ms: wire.time_ms,
            ops: ops.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op() -> impl Strategy<Value = Op> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20);
        let row = (
            ".{0,8}",
            ".{0,8}",
            any::<i32>(),
            any::<i64>(),
            any::<bool>(),
        )
            .prop_map(|(group, topic, queue_id, offset, reset)| OffsetRow {
                group,
                topic,
                queue_id,
                offset,
                reset,
            });
        prop_oneof![
            bytes().prop_map(|config_json| Op::PutTopic(PutTopic { config_json })),
            ".{0,8}".prop_map(|topic| Op::DeleteTopic(DeleteTopic { topic })),
            bytes().prop_map(|config_json| Op::PutGroup(PutGroup { config_json })),
            (".{0,8}", any::<bool>()).prop_map(|(group, clean_offset)| Op::DeleteGroup(
                DeleteGroup {
                    group,
                    clean_offset
                }
            )),
            prop::collection::vec(row, 0..5).prop_map(|rows| Op::SaveOffsets(SaveOffsets { rows })),
            (".{0,8}", ".{0,8}", bytes()).prop_map(|(namespace, key, value)| Op::PutKv(PutKv {
                namespace,
                key,
                value
            })),
            (".{0,8}", ".{0,8}")
                .prop_map(|(namespace, key)| Op::DeleteKv(DeleteKv { namespace, key })),
            any::<u64>().prop_map(|position| Op::TrimLog(TrimLog { position })),
            (".{0,8}", any::<i32>(), any::<u64>()).prop_map(|(topic, queue_id, offset)| {
                Op::StartQueue(StartQueue {
                    topic,
                    queue_id,
                    offset,
                })
            }),
        ]
    }

    #[test]
    fn unknown_operation_is_an_error() {
        let known = Command {
            time_ms: 5,
            ops: vec![Op::DeleteTopic(DeleteTopic { topic: "T".into() })],
        };
        let mut bytes = known.encode();
        // A second operation with field 15, which no version has yet: {2: {15: ""}}.
        bytes.extend([0x12, 0x02, 0x7a, 0x00]);
        assert_eq!(
            Command::decode(&bytes),
            Err(CommandError::UnknownOp { at: 1 })
        );
        assert_eq!(Command::decode(&[]), Ok(Command::default()));
    }

    proptest! {
        #[test]
        fn commands_round_trip(time_ms in any::<i64>(), ops in prop::collection::vec(op(), 0..8)) {
            let command = Command { time_ms, ops };
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            drop(Command::decode(&bytes));
        }

        #[test]
        fn mutated_commands_decode_without_panic(ops in prop::collection::vec(op(), 1..4), at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = Command { time_ms: 1, ops }.encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            drop(Command::decode(&bytes));
        }
    }
}

//! Names of topics and groups.

use thiserror::Error;

use crate::header::shorten;

/// Longest topic name in characters.
pub const TOPIC_MAX: usize = 127;
/// Longest name of a retry or dead-letter topic.
pub const RETRY_TOPIC_MAX: usize = 255;
/// Longest group name: its retry topic has to fit [`TOPIC_MAX`].
pub const GROUP_MAX: usize = 120;

/// Starts the name of a group's retry topic.
pub const RETRY_TOPIC_PREFIX: &str = "%RETRY%";
/// Starts the name of a group's dead-letter topic.
pub const DLQ_TOPIC_PREFIX: &str = "%DLQ%";
/// Starts the names of system topics.
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
/// Starts the names of system groups.
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// Topic whose settings new topics take over.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Topic of messages that wait for a delay level.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Topic of the benchmark programs.
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
/// Topic of half messages.
pub const TRANS_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Topic that tells which half messages have ended.
pub const TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Topic of half messages that were checked too often.
pub const TRANS_CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Topic of message traces.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// Topic of the broker's self test.
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
/// Topic that records moved offsets.
pub const OFFSET_MOVED_EVENT_TOPIC: &str = "OFFSET_MOVED_EVENT";
/// Topic of checkpoints.
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
/// Topic of timer messages.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";

const SYSTEM_TOPICS: [&str; 10] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    TRANS_HALF_TOPIC,
    TRACE_TOPIC,
    TRANS_OP_HALF_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT_TOPIC,
    CHECKPOINT_TOPIC,
];

const UNSENDABLE_TOPICS: [&str; 6] = [
    SCHEDULE_TOPIC,
    TRANS_HALF_TOPIC,
    TRANS_OP_HALF_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT_TOPIC,
];

/// Groups that RocketMQ's own tools use; they need no subscription group to pull.
const SYSTEM_GROUPS: [&str; 11] = [
    "DEFAULT_CONSUMER",
    "TOOLS_CONSUMER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
    "CID_RMQ_SYS_TRANS",
];

/// Why a name is refused. The text is fit to be sent back as remark.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Empty or blanks only.
    #[error("the specified {what} is blank")]
    Blank {
        /// `topic` or `group`.
        what: &'static str,
    },
    /// Too many characters.
    #[error("the specified {what} has {len} characters, more than {max}")]
    TooLong {
        /// `topic` or `group`.
        what: &'static str,
        /// Characters found.
        len: usize,
        /// Most characters allowed.
        max: usize,
    },
    /// A character that names must not have.
    #[error(
        "the specified {what} '{name}' contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
    )]
    IllegalCharacter {
        /// `topic` or `group`.
        what: &'static str,
        /// The name, shortened.
        name: String,
    },
}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'_' | b'-');
    if name.trim().is_empty() {
        return Err(NameError::Blank { what });
    }
    if !name.bytes().all(legal) {
        let name = shorten(name).escape_debug().to_string();
        return Err(NameError::IllegalCharacter { what, name });
    }
    if name.len() > max {
        return Err(NameError::TooLong {
            what,
            len: name.len(),
            max,
        });
    }
    Ok(())
}

/// Checks the name of a topic: up to 127 of `% | a-z A-Z 0-9 _ -`, 255 for retry and
/// dead-letter topics.
///
/// # Errors
/// Which rule the name breaks.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let long = is_retry_topic(topic) || is_dlq_topic(topic);
    check(
        "topic",
        topic,
        if long { RETRY_TOPIC_MAX } else { TOPIC_MAX },
    )
}

/// Checks the name of a group: up to 120 of `% | a-z A-Z 0-9 _ -`.
///
/// # Errors
/// Which rule the name breaks.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check("group", group, GROUP_MAX)
}

/// Whether a topic is RocketMQ's own. A broker's own name, its cluster's and what is derived from
/// them are system topics too, which only the broker can know.
pub fn is_system_topic(topic: &str) -> bool {
    SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_TOPIC_PREFIX)
}

/// Whether clients must not send to a topic.
pub fn is_sending_forbidden(topic: &str) -> bool {
    UNSENDABLE_TOPICS.contains(&topic)
}

/// Whether a group is RocketMQ's own.
pub fn is_system_group(group: &str) -> bool {
    SYSTEM_GROUPS.contains(&group) || group.starts_with(SYSTEM_GROUP_PREFIX)
}

/// The topic from which a group's failed messages are consumed again.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_TOPIC_PREFIX}{group}")
}

/// The topic of a group's dead messages.
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_TOPIC_PREFIX}{group}")
}

/// The topic of reply messages in a cluster.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

/// The topic of POP checkpoints in a cluster.
pub fn revive_topic(cluster: &str) -> String {
    format!("rmq_sys_REVIVE_LOG_{cluster}")
}

/// The topic over which members of a broker group are synchronised.
pub fn sync_broker_member_topic(broker_name: &str) -> String {
    format!("rmq_sys_SYNC_BROKER_MEMBER_{broker_name}")
}

/// Whether a topic is the retry topic of some group.
pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_TOPIC_PREFIX)
}

/// Whether a topic is the dead-letter topic of some group.
pub fn is_dlq_topic(topic: &str) -> bool {
    topic.starts_with(DLQ_TOPIC_PREFIX)
}

/// The group of a retry or dead-letter topic.
pub fn group_of(topic: &str) -> Option<&str> {
    topic
        .strip_prefix(RETRY_TOPIC_PREFIX)
        .or_else(|| topic.strip_prefix(DLQ_TOPIC_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_checked() {
        for good in ["T", "TopicTest", "%RETRY%g", "a|b_c-9", &"t".repeat(127)] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        assert_eq!(check_topic(&retry_topic(&"g".repeat(248))), Ok(()));
        assert!(matches!(check_topic(""), Err(NameError::Blank { .. })));
        assert!(matches!(check_topic("  "), Err(NameError::Blank { .. })));
        assert!(matches!(
            check_topic(&"t".repeat(128)),
            Err(NameError::TooLong { len: 128, .. })
        ));
        for bad in [
            "a/b", "../etc", "a b", "a\u{0}", "a\n", "é", "a.b", "a\u{1}b",
        ] {
            assert!(
                matches!(check_topic(bad), Err(NameError::IllegalCharacter { .. })),
                "{bad:?}"
            );
        }
        let message = check_topic("a\n/").unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn groups_are_checked() {
        assert_eq!(check_group(&"g".repeat(120)), Ok(()));
        assert_eq!(
            check_group(&"g".repeat(121)),
            Err(NameError::TooLong {
                what: "group",
                len: 121,
                max: 120
            })
        );
    }

    #[test]
    fn system_names_are_known() {
        assert!(is_system_topic("TBW102") && is_system_topic("rmq_sys_wheel_timer"));
        assert!(!is_system_topic("TopicTest") && !is_system_topic("%RETRY%g"));
        assert!(is_sending_forbidden("SCHEDULE_TOPIC_XXXX") && !is_sending_forbidden("TBW102"));
        assert!(is_system_group("CID_RMQ_SYS_X") && is_system_group("TOOLS_CONSUMER"));
        assert_eq!(group_of("%RETRY%g"), Some("g"));
        assert_eq!(group_of("%DLQ%g"), Some("g"));
        assert_eq!(group_of("g"), None);
    }
}

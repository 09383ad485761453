//! The keys of a nameserver's configuration.

use super::Settings;

/// One key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a key's value is and where it goes.
pub(super) enum Kind {
    Text(fn(&mut Settings) -> &mut String),
    Flag(fn(&mut Settings) -> &mut bool),
    Number {
        field: fn(&mut Settings) -> &mut u64,
        min: u64,
        max: u64,
    },
    /// Belongs to something that RaftMQ does otherwise; with the original's default.
    NotApplicable(&'static str),
    /// Concerns the original's insides; remembered and shown, with the original's default.
    Accepted(&'static str),
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn text(name: &'static str, field: fn(&mut Settings) -> &mut String) -> Key {
    Key {
        name,
        kind: Kind::Text(field),
    }
}

const fn flag(name: &'static str, field: fn(&mut Settings) -> &mut bool) -> Key {
    Key {
        name,
        kind: Kind::Flag(field),
    }
}

const fn number(
    name: &'static str,
    field: fn(&mut Settings) -> &mut u64,
    min: u64,
    max: u64,
) -> Key {
    Key {
        name,
        kind: Kind::Number { field, min, max },
    }
}

const fn not_applicable(name: &'static str, default: &'static str) -> Key {
    Key {
        name,
        kind: Kind::NotApplicable(default),
    }
}

const fn accepted(name: &'static str, default: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Accepted(default),
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// All known keys, in the order in which they are shown.
pub(super) static KEYS: &[Key] = &[
    text("rocketmqHome", |s| &mut s.rocketmq_home),
    text("kvConfigPath", |s| &mut s.kv_config_path),
    text("configStorePath", |s| &mut s.config_store_path),
    not_applicable("productEnvName", "center"),
    not_applicable("clusterTest", "false"),
    flag("orderMessageEnable", |s| &mut s.order_message),
    flag("returnOrderTopicConfigToBroker", |s| {
        &mut s.return_order_topic_config
    }),
    accepted("clientRequestThreadPoolNums", "8"),
    accepted("defaultThreadPoolNums", "16"),
    accepted("clientRequestThreadPoolQueueCapacity", "50000"),
    accepted("defaultThreadPoolQueueCapacity", "10000"),
    number(
        "scanNotActiveBrokerInterval",
        |s| &mut s.scan_interval_ms,
        10,
        DAY_MS,
    ),
    // Unregistrations are applied as they come: there is no queue to bound.
    accepted("unRegisterBrokerQueueCapacity", "3000"),
    flag("supportActingMaster", |s| &mut s.support_acting_master),
    flag("enableAllTopicList", |s| &mut s.all_topic_list),
    flag("enableTopicList", |s| &mut s.topic_list),
    not_applicable("notifyMinBrokerIdChanged", "false"),
    not_applicable("enableControllerInNamesrv", "false"),
    flag("needWaitForService", |s| &mut s.wait_for_service),
    number(
        "waitSecondsForService",
        |s| &mut s.wait_seconds,
        0,
        DAY_MS / 1000,
    ),
    flag("deleteTopicWithBrokerRegistration", |s| {
        &mut s.forget_missing_topics
    }),
    text("configBlackList", |s| &mut s.config_black_list),
    text("bindAddress", |s| &mut s.bind_address),
    number("listenPort", |s| &mut s.listen_port, 0, 65_535),
    number(
        "serverChannelMaxIdleTimeSeconds",
        |s| &mut s.idle_seconds,
        1,
        DAY_MS / 1000,
    ),
    number("serverSocketBacklog", |s| &mut s.backlog, 1, 1_000_000),
    accepted("serverWorkerThreads", "8"),
    accepted("serverCallbackExecutorThreads", "0"),
    accepted("serverSelectorThreads", "3"),
    accepted("serverOnewaySemaphoreValue", "256"),
    accepted("serverAsyncSemaphoreValue", "64"),
    accepted("serverSocketSndBufSize", "0"),
    accepted("serverSocketRcvBufSize", "0"),
    accepted("writeBufferHighWaterMark", "0"),
    accepted("writeBufferLowWaterMark", "0"),
    accepted("serverNettyWorkerGroupEnable", "true"),
    accepted("serverPooledByteBufAllocatorEnable", "true"),
    accepted("enableShutdownGracefully", "false"),
    accepted("shutdownWaitTimeSeconds", "30"),
    accepted("useEpollNativeSelector", "false"),
    text("logDir", |s| &mut s.log_dir),
    text("logLevel", |s| &mut s.log_level),
    number("logFilesMax", |s| &mut s.log_files_max, 1, 10_000),
];

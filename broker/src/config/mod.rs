//! What a member is told at start, checked once, in structs of their own for each part.
//!
//! [`GroupConfig`] must be equal on all members of a group; [`NodeConfig`] is this member's own. Reading the file is
//! [`values`], its key table [`keys`], the command line [`cli`].

pub mod checked;
pub mod cli;
pub mod keys;
pub mod peers;
pub mod retention;
pub mod together;
pub mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use peers::PeerAddress;
use retention::RetentionConfig;
use values::Values;

/// Everything a member needs to start.
#[derive(Debug, Clone)]
pub struct Config {
    /// What all members of the group share.
    pub group: GroupConfig,
    /// What is this member's own.
    pub node: NodeConfig,
    /// Every key with its effective value, for `-p` and GET_BROKER_CONFIG; also holds the warnings.
    pub values: Values,
}

/// What must be equal on all members of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `brokerClusterName`: the cluster the group belongs to in routes.
    pub cluster: String,
    /// `brokerName`: the name of the group in routes and message queues.
    pub broker_name: String,
    /// `dLegerGroup`: the Raft group.
    pub name: String,
    /// `dLegerPeers`: who bootstraps the group. Not empty, ids and addresses are distinct.
    pub peers: Vec<PeerAddress>,
    /// `mappedFileSizeCommitLog`: size of one segment in bytes, 1 MiB to 2 GiB − 1, room for two of the largest entries.
    pub segment_bytes: u64,
}

/// What is one member's own.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The number in `dLegerSelfId`.
    pub self_id: u64,
    /// `preferredLeaderId`: members that shall lead when they can; empty: any.
    pub preferred_leaders: Vec<u64>,
    /// `shutdownForwardMs`, up to 10 min: how long a member that stops goes on for clients that do not know yet. Stock
    /// clients ask for routes every 30 s.
    pub shutdown_forward: Duration,
    /// Client ports and the address told to clients.
    pub listen: ListenConfig,
    /// `leaderEndpoint`: the address that follows leadership, if there is one.
    pub endpoint: Option<EndpointConfig>,
    /// Raft port and timing.
    pub raft: RaftConfig,
    /// Where and how the store keeps its files.
    pub store: StoreConfig,
    /// What stays in the commit log.
    pub retention: RetentionConfig,
    /// Whom to register with.
    pub nameservers: NameserverConfig,
    /// Which topics and groups exist by themselves, and which may be made by a request.
    pub topics: TopicConfigs,
    /// What a send may carry.
    pub send: SendConfig,
    /// What a pull may take and how long it is held.
    pub pull: PullConfig,
    /// What a query by key may find.
    pub query: QueryConfig,
    /// Producers and consumers.
    pub clients: ClientConfig,
    /// Where the log of the process goes.
    pub logging: LogConfig,
}

/// Client ports and the address told to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// `bindAddress`: the interface the client ports are bound on.
    pub bind: IpAddr,
    /// `listenPort`, 3..=65535; the fast port is this minus two.
    pub port: u16,
    /// `brokerIP1`: the host told to clients, a name or an address.
    pub host: String,
    /// The address written into records as their store host: `host` resolved, with `port`.
    pub store_host: SocketAddr,
    /// `serverChannelMaxIdleTimeSeconds`: a connection without traffic for this long is closed.
    pub idle: Duration,
}

impl ListenConfig {
    /// `host:port` as clients are told.
    pub fn address(&self) -> String {
        host_port(&self.host, self.port)
    }

    /// The address told as the HA server: nothing listens there, nameservers demand the field.
    pub fn ha_address(&self) -> String {
        host_port(&self.host, self.port.saturating_add(1))
    }
}

/// The address that follows leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The host told to clients, a name or an address; need not be this machine's now.
    pub host: String,
    /// The port, 3..=65535; the fast port is this minus two. None of this member's own ports.
    pub port: u16,
    /// `leaderEndpointBindAddress`, else `bindAddress`: the interface it is bound on.
    pub bind: IpAddr,
}

impl EndpointConfig {
    /// `host:port` as clients are told.
    pub fn address(&self) -> String {
        host_port(&self.host, self.port)
    }
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Raft port and timing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftConfig {
    /// The interface and port the Raft transport is bound on.
    pub bind: SocketAddr,
    /// `raftHeartbeatIntervalMs`.
    pub heartbeat: Duration,
    /// `raftElectionTimeoutMinMs`; at least three heartbeats.
    pub election_min: Duration,
    /// `raftElectionTimeoutMaxMs`; above the minimum.
    pub election_max: Duration,
    /// `raftQueueCountMax`: sends that may wait to be proposed.
    pub queue_count_max: usize,
    /// `raftQueueBytesMax`: bytes of them.
    pub queue_bytes_max: usize,
    /// `raftForwardMax`: requests being forwarded, in each direction.
    pub forward_max: usize,
    /// `raftJoin`: this member does not form a group, it waits to be added to one.
    pub join: bool,
    /// `raftVoteDespiteLoss`: an operator gives up what lost members had.
    pub vote_despite_loss: bool,
    /// `seedRateMax`, 64 KiB to 10 GiB: bytes per second that this member sends to members it fills.
    pub seed_rate_max: u64,
}

/// Where and how the store keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `storePathRootDir`.
    pub root: PathBuf,
    /// `storePathDLedgerCommitLog`, else `storePathCommitLog`, else `commitlog` below the root.
    pub commit_log: PathBuf,
    /// `flushDiskType`.
    pub flush: FlushDisk,
    /// `storeScrubRate`: bytes per second at which the store is read over for damage, up to 10 GiB; `None` (0 in the
    /// file): it is not.
    pub scrub_rate: Option<u64>,
    /// `messageIndexEnable`: whether messages can be found by key.
    pub key_index: bool,
    /// `flushStallMax`, 200 ms to 10 min: a flush that takes longer makes this member give leadership up.
    pub flush_stall_max: Duration,
}

/// When an append counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushDisk {
    /// After its bytes are on the disk.
    Sync,
    /// At once; bytes are flushed every `interval` (`flushIntervalCommitLog`).
    Async {
        /// Time between two flushes.
        interval: Duration,
    },
}

/// Whom to register with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameserverConfig {
    /// `namesrvAddr`, split at `;`. Empty: the member runs unregistered.
    pub addresses: Vec<String>,
    /// `registerNameServerPeriod`, 10 s to 60 s.
    pub period: Duration,
    /// `compressedRegister`.
    pub compressed: bool,
}

/// Which topics and groups exist by themselves, and which may be made by a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfigs {
    /// `autoCreateTopicEnable`.
    pub auto_create: bool,
    /// `defaultTopicQueueNums`: queues of TBW102.
    pub default_queues: u32,
    /// `clusterTopicEnable`: whether the topic named like the cluster may be used.
    pub cluster_topic: bool,
    /// `brokerTopicEnable`: whether the topic named like the broker may be used.
    pub broker_topic: bool,
    /// `msgTraceTopicName`, when `traceTopicEnable`.
    pub trace_topic: Option<String>,
    /// `reviveQueueNum`.
    pub revive_queues: u32,
    /// `timerWheelEnable`.
    pub timer_topic: bool,
    /// `autoCreateSubscriptionGroup`.
    pub auto_create_group: bool,
    /// `enableCreateSysGroup`.
    pub system_groups: bool,
    /// `validateSystemTopicWhenUpdateTopic`.
    pub protect_system_topics: bool,
    /// `enableMixedMessageType`.
    pub mixed_message_type: bool,
}

/// What a send may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendConfig {
    /// `maxMessageSize`: largest body in bytes, up to 15 MiB.
    pub body_max: usize,
    /// `brokerPermission`: bits of 4 (read) and 2 (write).
    pub permission: i32,
    /// `startAcceptSendRequestTimeStamp`, ms since 1970.
    pub accept_from_ms: i64,
    /// `rejectTransactionMessage`.
    pub reject_transactions: bool,
    /// `regionId`.
    pub region: String,
    /// `traceOn`.
    pub trace_on: bool,
}

/// What a pull may take and how long it is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullConfig {
    /// `maxTransferCountOnMessageInMemory`: messages of one answer.
    pub messages_max: usize,
    /// `maxTransferBytesOnMessageInMemory`: bytes of one answer; its first message always passes.
    pub bytes_max: usize,
    /// `maxFilterMessageSize` in consume queue units of 20 bytes: how many one pull may examine.
    pub examine_max: usize,
    /// `longPollingEnable`.
    pub long_polling: bool,
    /// `shortPollingTimeMills`: how long a pull is held without long polling.
    pub short_polling: Duration,
    /// `pullThreadPoolQueueCapacity`: pulls held at once, over all queues.
    pub held_max: usize,
    /// `litePullMessageEnable`.
    pub lite_pull: bool,
    /// `slaveReadEnable`: a follower answers pulls from what it has applied.
    pub follower_reads: bool,
    /// `rejectPullConsumerEnable`.
    pub reject_pull_consumers: bool,
    /// `accessMessageInMemoryMaxRatio`, percent of the machine's memory taken as recent.
    pub recent_percent: u64,
}

/// What a query by key may find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryConfig {
    /// `maxMsgsNumBatch`: most messages of one answer.
    pub max: usize,
    /// `defaultQueryMaxNum`: the same when a unique key is asked for.
    pub unique_max: usize,
}

/// Producers and consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `notifyConsumerIdsChangedEnable`.
    pub notify_changes: bool,
    /// `channelExpiredTimeout`: a client without heartbeat for this long is dropped.
    pub expiry: Duration,
}

/// Where the log of the process goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `logDir`: a folder of daily files; standard error when absent.
    pub dir: Option<PathBuf>,
    /// `logKeepFiles`: how many daily files are kept.
    pub keep: usize,
}

/// A configuration no member may start with; one line that names the key, its value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

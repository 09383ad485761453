//! From key texts to checked structs: every default, bound and combination that matters is decided here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use raftmq_proto::properties_file;

use super::peers::{self, PeerAddress};
use super::retention::retention;
use super::values::Values;
use super::{
    ClientConfig, Config, ConfigError, EndpointConfig, FlushDisk, GroupConfig, ListenConfig,
    LogConfig, NameserverConfig, NodeConfig, PullConfig, QueryConfig, RaftConfig, SendConfig,
    StoreConfig, TopicConfigs,
};

const MIB: i64 = 1024 * 1024;
const GIB: i64 = 1024 * MIB;
/// What of the process environment a configuration depends on; tests pass their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `$HOME`, for the default store folder.
    pub home: Option<PathBuf>,
    /// `$NAMESRV_ADDR`, used when the file names no nameserver.
    pub namesrv_addr: Option<String>,
    /// The host's name, the default broker name.
    pub host_name: Option<String>,
    /// The address other machines reach this one by, the default `brokerIP1`.
    pub address: Option<IpAddr>,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Environment {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        Environment {
            home: std::env::var_os("HOME").map(PathBuf::from),
            namesrv_addr: std::env::var("NAMESRV_ADDR").ok(),
            host_name: host_name
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty()),
            address: routed_address(),
        }
    }
}

/// The source address of packets to other machines. Connecting a datagram socket sends nothing.
fn routed_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_unspecified())
}

/// Reads a configuration from the text of a properties file; `namesrv` is the `-n` option.
///
/// # Errors
/// Whatever would make the member unsafe: it must not start then.
pub fn read(
    file: &[u8],
    namesrv: Option<&str>,
    environment: &Environment,
) -> Result<Config, ConfigError> {
    let mut values = Values::from_file(&properties_file::parse(file));
    fill_computed(&mut values, namesrv, environment);
    let broker_name = values.text("brokerName").to_owned();
    let listen = listen(&mut values)?;
    let (self_id, peers) = membership(&mut values, &listen)?;
    let me = own(&peers, self_id)?.clone();
    let group_name = values
        .optional("dLegerGroup")
        .unwrap_or(&broker_name)
        .to_owned();
    values.set("dLegerGroup", group_name.as_str());
    let send = send(&mut values);
    let group = GroupConfig {
        cluster: values.text("brokerClusterName").to_owned(),
        broker_name,
        name: group_name,
        segment_bytes: segment_bytes(&mut values, send.body_max)?,
        peers,
    };
    for (key, name) in [
        ("brokerClusterName", &group.cluster),
        ("brokerName", &group.broker_name),
    ] {
        check_name(key, name)?;
    }
    let node = NodeConfig {
        self_id,
        preferred_leaders: preferred_leaders(&mut values, &group.peers)?,
        endpoint: endpoint(&values, &listen, &me)?,
        shutdown_forward: millis(&mut values, "shutdownForwardMs", 0, 600_000),
        raft: raft(&mut values, &listen, &me)?,
        listen,
        store: store(&mut values)?,
        retention: retention(&mut values),
        nameservers: nameservers(&mut values)?,
        topics: topics(&mut values),
        send,
        pull: pull(&mut values),
        query: QueryConfig {
            max: count(&mut values, "maxMsgsNumBatch", 1, 1000),
            unique_max: count(&mut values, "defaultQueryMaxNum", 1, 1000),
        },
        clients: ClientConfig {
            notify_changes: values.flag("notifyConsumerIdsChangedEnable"),
            expiry: millis(&mut values, "channelExpiredTimeout", 10_000, 3_600_000),
        },
        logging: LogConfig {
            dir: values.optional("logDir").map(PathBuf::from),
            keep: count(&mut values, "logKeepFiles", 1, 1000),
        },
    };
    Ok(Config {
        group,
        node,
        values,
    })
}

/// Defaults that are not constants.
fn fill_computed(values: &mut Values, namesrv: Option<&str>, environment: &Environment) {
    if let Some(given) = namesrv {
        values.set("namesrvAddr", properties_file::string(given));
    } else if let (None, Some(address)) =
        (values.optional("namesrvAddr"), &environment.namesrv_addr)
    {
        values.set("namesrvAddr", address.trim());
    }
    if values.optional("brokerName").is_none() {
        values.set(
            "brokerName",
            environment.host_name.as_deref().unwrap_or("DEFAULT_BROKER"),
        );
    }
    if values.optional("brokerIP1").is_none() {
        let address = environment
            .address
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        values.set("brokerIP1", address.to_string());
    }
    if values.optional("storePathRootDir").is_none() {
        let home = environment
            .home
            .clone()
            .unwrap_or_else(|| PathBuf::from("."));
        values.set("storePathRootDir", home.join("store").to_string_lossy());
    }
    if !values.is_given("flushDiskType") {
        values.set("flushDiskType", "SYNC_FLUSH");
    }
}

fn listen(values: &mut Values) -> Result<ListenConfig, ConfigError> {
    let port = port_of(values)?;
    let bind = ip_of(values, "bindAddress")?;
    let host = values.text("brokerIP1").trim_matches(['[', ']']).to_owned();
    let resolved = (host.as_str(), port).to_socket_addrs().map(|addresses| {
        let addresses: Vec<SocketAddr> = addresses.collect();
        // Old clients cannot read an IPv6 store host, so IPv4 is preferred where a name has both.
        addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or_else(|| addresses.first())
            .copied()
    });
    let store_host = match resolved {
        Ok(Some(address)) => address,
        Ok(None) => {
            return Err(refused(
                "brokerIP1",
                &host,
                "a name or address that resolves",
            ));
        }
        Err(error) => {
            return Err(refused(
                "brokerIP1",
                &host,
                &format!("a name or address that resolves ({error})"),
            ));
        }
    };
    let idle = values.number("serverChannelMaxIdleTimeSeconds", 1, 86_400);
    Ok(ListenConfig {
        bind,
        port,
        host,
        store_host,
        idle: Duration::from_secs(idle.unsigned_abs()),
    })
}

fn ip_of(values: &Values, key: &str) -> Result<IpAddr, ConfigError> {
    let text = values.text(key);
    text.parse()
        .map_err(|_not_an_address| refused(key, text, "an IP address such as 0.0.0.0"))
}

/// `leaderEndpoint`. Its host is not resolved: a Service's name may be known later than its members start.
fn endpoint(
    values: &Values,
    listen: &ListenConfig,
    me: &PeerAddress,
) -> Result<Option<EndpointConfig>, ConfigError> {
    let Some(text) = values.optional("leaderEndpoint") else {
        return Ok(None);
    };
    let parts = text.rsplit_once(':').map(|(host, port)| {
        let host = host.trim_matches(['[', ']']);
        (host.to_owned(), port.parse::<u16>())
    });
    let Some((host, Ok(port @ 3..))) = parts.filter(|(host, _)| is_host(host)) else {
        return Err(refused(
            "leaderEndpoint",
            text,
            "host:port that clients can connect to, port 3 to 65535 (the fast port is two below)",
        ));
    };
    let own = [listen.port, listen.port - 2, me.port];
    if own.contains(&port) || own.contains(&(port - 2)) {
        return Err(refused(
            "leaderEndpoint",
            text,
            &format!(
                "the leader listens on it beside its own ports, so neither {port} nor {} (two below) may be \
                 listenPort = {}, listenPort - 2 = {} or the Raft port {}",
                port - 2,
                listen.port,
                listen.port - 2,
                me.port
            ),
        ));
    }
    let bind = match values.optional("leaderEndpointBindAddress") {
        Some(_) => ip_of(values, "leaderEndpointBindAddress")?,
        None => listen.bind,
    };
    Ok(Some(EndpointConfig { host, port, bind }))
}

/// Whether clients could connect to it; Java takes addresses apart at `;` and at the last `:`.
fn is_host(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_unspecified(),
        Err(_) => {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !host.is_empty() && host.chars().all(is_part)
        }
    }
}

fn port_of(values: &Values) -> Result<u16, ConfigError> {
    let text = values.text("listenPort");
    match text.parse::<u16>() {
        Ok(port) if (3..u16::MAX).contains(&port) => Ok(port),
        _ => Err(refused(
            "listenPort",
            text,
            "3 to 65534 (the fast port is two below, the HA port told to clients one above)",
        )),
    }
}

/// Own id and peers. Without a peer list, or with the switch off, the member is a group of its own: plain
/// configurations keep working.
fn membership(
    values: &mut Values,
    listen: &ListenConfig,
) -> Result<(u64, Vec<PeerAddress>), ConfigError> {
    let switched_on = values.flag("enableDLegerCommitLog");
    let listed = values.optional("dLegerPeers").map(str::to_owned);
    let Some(list) = listed.filter(|_| switched_on) else {
        let why = if switched_on {
            "dLegerPeers is absent"
        } else {
            "enableDLegerCommitLog is not true"
        };
        let port = listen.port.checked_add(30_000).unwrap_or(listen.port - 3);
        let peer = PeerAddress {
            id: 0,
            host: "127.0.0.1".to_owned(),
            port,
        };
        values.warnings.push(format!(
            "{why}: this member runs as a group of its own, without replication"
        ));
        values.set("dLegerPeers", peer.to_string());
        values.set("dLegerSelfId", "n0");
        return Ok((0, vec![peer]));
    };
    let peers = peers::parse(&list)
        .map_err(|what| ConfigError(format!("configuration key dLegerPeers = '{list}': {what}")))?;
    let self_text = values.text("dLegerSelfId").to_owned();
    let self_id = peers::parse_id(&self_text).map_err(|what| {
        ConfigError(format!(
            "configuration key dLegerSelfId = '{self_text}': {what}"
        ))
    })?;
    let me = own(&peers, self_id)?;
    let ports = [listen.port, listen.port - 2];
    if ports.contains(&me.port) {
        return Err(ConfigError(format!(
            "configuration key listenPort = '{}' and the Raft port {} of '{me}' in dLegerPeers collide: \
             listenPort and listenPort - 2 must differ from it",
            listen.port, me.port
        )));
    }
    Ok((self_id, peers))
}

fn own(peers: &[PeerAddress], self_id: u64) -> Result<&PeerAddress, ConfigError> {
    peers.iter().find(|peer| peer.id == self_id).ok_or_else(|| {
        let ids: Vec<String> = peers.iter().map(|peer| format!("n{}", peer.id)).collect();
        refused(
            "dLegerSelfId",
            &format!("n{self_id}"),
            &format!("an id of dLegerPeers: {}", ids.join(", ")),
        )
    })
}

/// `preferredLeaderId`: members that shall lead when they can, all of them in the group.
fn preferred_leaders(values: &mut Values, peers: &[PeerAddress]) -> Result<Vec<u64>, ConfigError> {
    let text = values.text("preferredLeaderId").to_owned();
    let ids = text.split(';').map(str::trim).filter(|id| !id.is_empty());
    let mut preferred = Vec::new();
    for id in ids {
        let id = peers::parse_id(id).map_err(|what| {
            ConfigError(format!(
                "configuration key preferredLeaderId = '{text}': {what}"
            ))
        })?;
        preferred.push(id);
        if !peers.iter().any(|peer| peer.id == id) {
            values.warnings.push(format!(
                "configuration key preferredLeaderId: n{id} is not in dLegerPeers; it counts once it is a member"
            ));
        }
    }
    Ok(preferred)
}

fn raft(
    values: &mut Values,
    listen: &ListenConfig,
    me: &PeerAddress,
) -> Result<RaftConfig, ConfigError> {
    let heartbeat = millis(values, "raftHeartbeatIntervalMs", 10, 10_000);
    let election_min = millis(values, "raftElectionTimeoutMinMs", 50, 60_000);
    let election_max = millis(values, "raftElectionTimeoutMaxMs", 60, 120_000);
    if election_min < heartbeat * 3 {
        let allowed = format!(
            "at least three times raftHeartbeatIntervalMs ({} ms)",
            heartbeat.as_millis()
        );
        return Err(refused(
            "raftElectionTimeoutMinMs",
            values.text("raftElectionTimeoutMinMs"),
            &allowed,
        ));
    }
    if election_max <= election_min {
        let allowed = format!(
            "more than raftElectionTimeoutMinMs ({} ms)",
            election_min.as_millis()
        );
        return Err(refused(
            "raftElectionTimeoutMaxMs",
            values.text("raftElectionTimeoutMaxMs"),
            &allowed,
        ));
    }
    Ok(RaftConfig {
        bind: SocketAddr::new(listen.bind, me.port),
        heartbeat,
        election_min,
        election_max,
        queue_count_max: count(values, "raftQueueCountMax", 1, 10_000_000),
        queue_bytes_max: count(values, "raftQueueBytesMax", MIB, 64 * 1024 * MIB),
        forward_max: count(values, "raftForwardMax", 1, 1_000_000),
        join: values.flag("raftJoin"),
        vote_despite_loss: values.flag("raftVoteDespiteLoss"),
        seed_rate_max: values
            .number("seedRateMax", 64 * 1024, 10 * GIB)
            .unsigned_abs(),
    })
}

/// A segment must hold the largest entry: one batch of the largest body with its frame and properties.
fn segment_bytes(values: &mut Values, body_max: usize) -> Result<u64, ConfigError> {
    let bytes = values
        .number("mappedFileSizeCommitLog", MIB, i64::from(i32::MAX))
        .unsigned_abs();
    let needed = (body_max as u64 + MIB.unsigned_abs()) * 2;
    if bytes < needed {
        let allowed = format!("at least {needed}, twice what maxMessageSize = {body_max} may need");
        return Err(refused(
            "mappedFileSizeCommitLog",
            &bytes.to_string(),
            &allowed,
        ));
    }
    Ok(bytes)
}

fn store(values: &mut Values) -> Result<StoreConfig, ConfigError> {
    let root = PathBuf::from(values.text("storePathRootDir"));
    let commit_log = values
        .optional("storePathDLedgerCommitLog")
        .or_else(|| values.optional("storePathCommitLog"));
    let commit_log = commit_log.map_or_else(|| root.join("commitlog"), PathBuf::from);
    let interval = millis(values, "flushIntervalCommitLog", 1, 60_000);
    let flush = match values.text("flushDiskType") {
        "SYNC_FLUSH" => FlushDisk::Sync,
        "ASYNC_FLUSH" => {
            values.warnings.push(format!(
                "flushDiskType = ASYNC_FLUSH: a send is acknowledged before it is on the disk; a power cut of a \
                 majority of the members loses up to {} ms of acknowledged messages",
                interval.as_millis()
            ));
            FlushDisk::Async { interval }
        }
        other => return Err(refused("flushDiskType", other, "SYNC_FLUSH or ASYNC_FLUSH")),
    };
    let scrub_rate = values.number("storeScrubRate", 0, 10 * GIB).unsigned_abs();
    Ok(StoreConfig {
        root,
        commit_log,
        flush,
        scrub_rate: Some(scrub_rate).filter(|rate| *rate > 0),
        key_index: values.flag("messageIndexEnable"),
        flush_stall_max: millis(values, "flushStallMax", 200, 600_000),
    })
}

fn nameservers(values: &mut Values) -> Result<NameserverConfig, ConfigError> {
    let text = values.text("namesrvAddr").to_owned();
    let addresses: Vec<String> = text
        .split(';')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect();
    for address in &addresses {
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(refused("namesrvAddr", &text, "host:port;host:port"));
        }
    }
    if addresses.is_empty() {
        values.warnings.push(
            "namesrvAddr is absent: this member registers nowhere, clients cannot find it"
                .to_owned(),
        );
    }
    Ok(NameserverConfig {
        addresses,
        period: millis(values, "registerNameServerPeriod", 10_000, 60_000),
        compressed: values.flag("compressedRegister"),
    })
}

fn topics(values: &mut Values) -> TopicConfigs {
    let trace_topic = values.optional("msgTraceTopicName").map(str::to_owned);
    TopicConfigs {
        auto_create: values.flag("autoCreateTopicEnable"),
        default_queues: u32::try_from(values.number("defaultTopicQueueNums", 1, 65_536))
            .unwrap_or(8),
        cluster_topic: values.flag("clusterTopicEnable"),
        broker_topic: values.flag("brokerTopicEnable"),
        trace_topic: trace_topic.filter(|_| values.flag("traceTopicEnable")),
        revive_queues: u32::try_from(values.number("reviveQueueNum", 1, 998)).unwrap_or(8),
        timer_topic: values.flag("timerWheelEnable"),
        auto_create_group: values.flag("autoCreateSubscriptionGroup"),
        system_groups: values.flag("enableCreateSysGroup"),
        protect_system_topics: values.flag("validateSystemTopicWhenUpdateTopic"),
        mixed_message_type: values.flag("enableMixedMessageType"),
    }
}

fn send(values: &mut Values) -> SendConfig {
    SendConfig {
        // A frame of 16 MiB must hold the body, the header and the properties.
        body_max: count(values, "maxMessageSize", 1, 15 * MIB),
        permission: i32::try_from(values.number("brokerPermission", 0, 7)).unwrap_or(6),
        accept_from_ms: values.number("startAcceptSendRequestTimeStamp", 0, i64::MAX),
        reject_transactions: values.flag("rejectTransactionMessage"),
        region: values.text("regionId").to_owned(),
        trace_on: values.flag("traceOn"),
    }
}

fn pull(values: &mut Values) -> PullConfig {
    PullConfig {
        messages_max: count(values, "maxTransferCountOnMessageInMemory", 1, 10_000),
        bytes_max: count(values, "maxTransferBytesOnMessageInMemory", 1, 8 * MIB),
        examine_max: count(values, "maxFilterMessageSize", 20, 20 * 100_000) / 20,
        long_polling: values.flag("longPollingEnable"),
        short_polling: millis(values, "shortPollingTimeMills", 1, 60_000),
        held_max: count(values, "pullThreadPoolQueueCapacity", 1, 10_000_000),
        lite_pull: values.flag("litePullMessageEnable"),
        follower_reads: values.flag("slaveReadEnable"),
        reject_pull_consumers: values.flag("rejectPullConsumerEnable"),
        recent_percent: values
            .number("accessMessageInMemoryMaxRatio", 0, 100)
            .unsigned_abs(),
    }
}

pub(super) fn millis(values: &mut Values, key: &str, min: i64, max: i64) -> Duration {
    Duration::from_millis(values.number(key, min, max).unsigned_abs())
}

pub(super) fn count(values: &mut Values, key: &str, min: i64, max: i64) -> usize {
    usize::try_from(values.number(key, min, max)).unwrap_or(usize::MAX)
}

/// Cluster and broker names become topic names and travel in routes that the Go client takes apart at `,` and `:`.
fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    raftmq_proto::message::name::check_topic(name)
        .map_err(|error| ConfigError(format!("configuration key {key} = '{name}': {error}")))
}

fn refused(key: &str, value: &str, allowed: &str) -> ConfigError {
    ConfigError(format!(
        "configuration key {key} = '{value}' is not allowed: {allowed}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK: &str = "brokerClusterName = RaftCluster\nbrokerName=RaftNode00\nlistenPort=30911\n\
        namesrvAddr=127.0.0.1:9876\nstorePathRootDir=/tmp/rmqstore/node00\n\
        storePathCommitLog=/tmp/rmqstore/node00/commitlog\nenableDLegerCommitLog=true\ndLegerGroup=RaftNode00\n\
        dLegerPeers=n0-127.0.0.1:40911;n1-127.0.0.1:40912;n2-127.0.0.1:40913\ndLegerSelfId=n0\n\
        sendMessageThreadPoolNums=16\n";

    fn config(text: &str) -> Result<Config, ConfigError> {
        read(
            text.as_bytes(),
            None,
            &Environment {
                home: Some("/home/x".into()),
                ..Environment::default()
            },
        )
    }

    #[test]
    fn stock_dledger_file_reads_without_a_warning() {
        let config = config(STOCK).unwrap();
        assert_eq!(config.values.warnings, Vec::<String>::new());
        assert_eq!(config.group.name, "RaftNode00");
        assert_eq!(config.group.peers.len(), 3);
        assert_eq!(config.node.raft.bind, "0.0.0.0:40911".parse().unwrap());
        assert_eq!(config.node.store.flush, FlushDisk::Sync);
        assert_eq!(config.node.listen.address(), "127.0.0.1:30911");
        assert_eq!(config.node.listen.ha_address(), "127.0.0.1:30912");
        assert_eq!(config.node.send.body_max, 4_194_304);
        assert_eq!(config.node.store.scrub_rate, Some(20 << 20));
        assert_eq!(config.node.store.flush_stall_max, Duration::from_secs(5));
        assert_eq!(config.node.raft.seed_rate_max, 100 << 20);
    }

    #[test]
    fn plain_file_makes_a_group_of_one_and_says_so() {
        let config = config("brokerName=b\nflushDiskType=ASYNC_FLUSH\n").unwrap();
        assert_eq!(config.group.peers.len(), 1);
        assert_eq!(config.node.self_id, 0);
        assert_eq!(config.node.store.root, PathBuf::from("/home/x/store"));
        let text = config.values.warnings.join("\n");
        for part in [
            "group of its own",
            "namesrvAddr is absent",
            "acknowledged before it is on the disk",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn refuses_what_would_make_a_member_unsafe() {
        for (change, parts) in [
            ("dLegerSelfId=n7\n", ["dLegerSelfId = 'n7'", "n0, n1, n2"]),
            ("dLegerSelfId=node-1\n", ["dLegerSelfId = 'node-1'", "n0"]),
            (
                "dLegerPeers=n0-a:1;n0-b:2\n",
                ["dLegerPeers", "occurs twice"],
            ),
            (
                "dLegerPeers=n0-a:1;n1-a:1\n",
                ["dLegerPeers", "share one address"],
            ),
            ("listenPort=40911\n", ["listenPort = '40911'", "collide"]),
            ("listenPort=40913\n", ["listenPort = '40913'", "collide"]),
            ("listenPort=0\n", ["listenPort = '0'", "3 to 65534"]),
            (
                "flushDiskType=FSYNC\n",
                ["flushDiskType = 'FSYNC'", "SYNC_FLUSH or ASYNC_FLUSH"],
            ),
            (
                "namesrvAddr=127.0.0.1\n",
                ["namesrvAddr = '127.0.0.1'", "host:port"],
            ),
            ("brokerName=a/b\n", ["brokerName = 'a/b'", ""]),
            (
                "raftElectionTimeoutMinMs=150\n",
                ["raftElectionTimeoutMinMs = '150'", "three times"],
            ),
            (
                "mappedFileSizeCommitLog=1048576\n",
                ["mappedFileSizeCommitLog = '1048576'", "maxMessageSize"],
            ),
            ("bindAddress=here\n", ["bindAddress = 'here'", "IP address"]),
            (
                "leaderEndpoint=127.0.0.1\n",
                ["leaderEndpoint = '127.0.0.1'", "host:port"],
            ),
            (
                "leaderEndpoint=0.0.0.0:30901\n",
                ["leaderEndpoint = '0.0.0.0:30901'", "can connect to"],
            ),
            (
                "leaderEndpoint=a:70000\n",
                ["leaderEndpoint = 'a:70000'", "3 to 65535"],
            ),
            (
                "leaderEndpoint=10.0.0.9:30911\n",
                ["leaderEndpoint = '10.0.0.9:30911'", "listenPort = 30911"],
            ),
            (
                "leaderEndpoint=a:30913\n",
                ["leaderEndpoint = 'a:30913'", "nor 30911 (two below)"],
            ),
            (
                "leaderEndpoint=a:1000\nleaderEndpointBindAddress=eth0\n",
                ["leaderEndpointBindAddress = 'eth0'", "IP address"],
            ),
        ] {
            let error = config(&format!("{STOCK}{change}"))
                .expect_err(change)
                .to_string();
            assert!(
                parts.iter().all(|part| error.contains(part)),
                "{change}: {error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_leader_endpoint_is_bound_where_the_client_ports_are_unless_it_says_otherwise() {
        let endpoint = |more: &str| config(&format!("{STOCK}{more}")).unwrap().node.endpoint;
        assert_eq!(endpoint(""), None);
        let service = endpoint("leaderEndpoint=raftmq-leader.prod:10900\n").unwrap();
        assert_eq!(service.address(), "raftmq-leader.prod:10900");
        assert_eq!(service.bind, IpAddr::from([0, 0, 0, 0]));
        let six = endpoint("leaderEndpoint=[fd00::9]:10900\nleaderEndpointBindAddress=fd00::9\n");
        let six = six.unwrap();
        assert_eq!(six.address(), "[fd00::9]:10900");
        assert_eq!(six.bind, IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]));
    }

    #[test]
    fn command_line_beats_file_and_file_beats_environment() {
        let environment = Environment {
            namesrv_addr: Some("e:1".into()),
            ..Environment::default()
        };
        let addresses = |file: &str, option| {
            read(file.as_bytes(), option, &environment)
                .unwrap()
                .node
                .nameservers
                .addresses
        };
        assert_eq!(addresses("namesrvAddr=f:1;g:2\n", Some("o:1")), ["o:1"]);
        assert_eq!(addresses("namesrvAddr=f:1; g:2;\n", None), ["f:1", "g:2"]);
        assert_eq!(addresses("", None), ["e:1"]);
    }
}

//! The processors of a member, wired together.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use raftmq_raft::Group;
use tokio::task::JoinHandle;

use crate::admin::{Admin, Names};
use crate::clients::Clients;
use crate::clients::registry::Registry;
use crate::config::{GroupConfig, NodeConfig};
use crate::creator::Creator;
use crate::dispatch::Dispatch;
use crate::forward::{Forwarder, Run};
use crate::locks::Locks;
use crate::lookup::GroupLookup;
use crate::offsets::Offsets;
use crate::pull::hold::HoldTable;
use crate::pull::{self, PullProcessor};
use crate::register::Registered;
use crate::retention::Retention;
use crate::runtime::Runtime;
use crate::send::message::Stamp;
use crate::send::{SendProcessor, checks};
use crate::stats::Stats;
use crate::time::now_ms;
use crate::unique_key::UniqueKeys;

/// Memory assumed when the system does not tell.
const MEMORY_FALLBACK: u64 = 4 << 30;

/// The processors, wired.
pub(crate) struct Parts {
    pub(crate) names: Names,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) offsets: Arc<Offsets>,
    pub(crate) pulls: Arc<PullProcessor>,
    pub(crate) creator: Creator,
    pub(crate) stats: Arc<Stats>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) retention: Arc<Retention>,
    /// The creator's task.
    pub(crate) creating: JoinHandle<()>,
    /// What nameservers know of the topics.
    pub(crate) registered: Arc<Registered>,
}

impl Parts {
    pub(crate) fn new(
        group: &Group,
        group_config: &GroupConfig,
        node: &NodeConfig,
        settings: BTreeMap<String, String>,
    ) -> Parts {
        let runtime = Runtime::current();
        let names = Names {
            cluster: group_config.cluster.clone(),
            broker: group_config.broker_name.clone(),
        };
        let (creator, creating) = Creator::start(group.clone());
        let stats = Arc::new(Stats::default());
        let locks = Arc::new(Locks::new(group.clone()));
        let recent_bytes = memory_bytes() / 100 * node.pull.recent_percent;
        let offsets = Arc::new(Offsets::new(group.clone(), recent_bytes));
        let clients = Arc::new(Clients {
            group: group.clone(),
            creator: creator.clone(),
            registry: Mutex::new(Registry::default()),
            notify_changes: node.clients.notify_changes,
            expiry: node.clients.expiry,
            auto_create_group: node.topics.auto_create_group,
            reject_pull_consumers: node.pull.reject_pull_consumers,
            runtime: runtime.clone(),
        });
        let pulls = Arc::new(PullProcessor {
            group: group.clone(),
            rules: pull::checks::Rules {
                host: node.listen.host.clone(),
                permission: node.send.permission,
                lite_pull: node.pull.lite_pull,
            },
            config: node.pull.clone(),
            clients: Arc::clone(&clients),
            offsets: Arc::clone(&offsets),
            creator: creator.clone(),
            stats: Arc::clone(&stats),
            holds: Mutex::new(HoldTable::new(node.pull.held_max)),
            recent_bytes,
            has_endpoint: node.endpoint.is_some(),
            runtime: runtime.clone(),
        });
        let retention = Arc::new(Retention::new(group.clone(), node.retention.clone()));
        let registered = Arc::new(Registered::new(node.nameservers.addresses.len()));
        let admin = Arc::new(Admin {
            group: group.clone(),
            registered: Arc::clone(&registered),
            names: names.clone(),
            topics: node.topics.clone(),
            query: node.query.clone(),
            creator: creator.clone(),
            clients: Arc::clone(&clients),
            offsets: Arc::clone(&offsets),
            pulls: Arc::clone(&pulls),
            stats: Arc::clone(&stats),
            locks: Arc::clone(&locks),
            retention: Arc::clone(&retention),
            settings,
            started_ms: now_ms(),
        });
        let forwarder = Arc::new(Forwarder::new(group.clone(), node.self_id, runtime.clone()));
        let dispatch = Arc::new_cyclic(|dispatch: &Weak<Dispatch>| {
            let dispatch = dispatch.clone();
            let reroute: Run = Arc::new(move |exchange| {
                if let Some(dispatch) = dispatch.upgrade() {
                    dispatch.again(exchange);
                }
            });
            let sends = Arc::new(SendProcessor {
                group: group.clone(),
                rules: checks::Rules {
                    host: node.listen.host.clone(),
                    permission: node.send.permission,
                    accept_from_ms: node.send.accept_from_ms,
                    auto_create: node.topics.auto_create,
                    default_queues: node.topics.default_queues,
                },
                stamp: Stamp {
                    cluster: names.cluster.clone(),
                    region: node.send.region.clone(),
                    trace_on: node.send.trace_on,
                    store_host: node.listen.store_host,
                    body_max: node.send.body_max,
                    reject_transactions: node.send.reject_transactions,
                },
                lookup: GroupLookup::new(group.clone(), Arc::clone(&locks)),
                creator: creator.clone(),
                unique_keys: UniqueKeys::new(node.listen.store_host.ip()),
                stats: Arc::clone(&stats),
                runtime: runtime.clone(),
                waiting: Mutex::default(),
                reroute,
            });
            Dispatch {
                group: group.clone(),
                forwarder,
                sends,
                pulls: Arc::clone(&pulls),
                clients: Arc::clone(&clients),
                offsets: Arc::clone(&offsets),
                admin,
                runtime,
                follower_reads: node.pull.follower_reads,
            }
        });
        Parts {
            creating,
            names,
            dispatch,
            clients,
            offsets,
            pulls,
            creator,
            stats,
            locks,
            retention,
            registered,
        }
    }
}

/// The machine's memory.
fn memory_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total
        .and_then(|text| text.trim().strip_suffix("kB"))
        .and_then(|text| text.trim().parse::<u64>().ok());
    kib.map_or(MEMORY_FALLBACK, |kib| kib * 1024)
}

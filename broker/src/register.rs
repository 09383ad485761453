//! Tells the nameservers who this member is and what topics the group has (103, 104).
//!
//! One task per nameserver: one that is dead, slow or unknown delays nobody. Each registers when the member's part is
//! known, at once when that or a topic changes, and every period. A leader is broker id 0, a follower its number plus
//! one; the term travels as the data version's state version, so that nameservers can tell a deposed leader.
//!
//! Where an endpoint follows leadership, the leader is broker id 0 there, and under its own address what it is as a
//! follower: consumers then stay connected to every member, and a new leader knows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use raftmq_proto::body::{
    ClusterInfo, RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper, perm,
};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{RegisterBrokerRequestHeader, UnRegisterBrokerRequestHeader};
use raftmq_proto::message::record::body_crc;
use raftmq_raft::{Group, Role};
use raftmq_remoting::Client;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::Instrument as _;

use crate::admin::Names;
use crate::config::NameserverConfig;
use crate::endpoint::Access;
use crate::pull::follower_id;
use crate::runtime::spawn;

/// How long one nameserver may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// First pause after a failure; it doubles up to the period.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// A deposed leader lets the new one register first: without a broker id 0 producers have nowhere to send.
const DEPOSED_PAUSE: Duration = Duration::from_millis(300);
/// Changes of topics within this time make one registration.
const GATHER: Duration = Duration::from_millis(20);
/// How long a change of a topic waits for the nameservers to know it, as the original does for its `updateTopic`.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);
/// Extension field of 103 and 104: rises with every registration of an address, so that a late unregistration cannot
/// undo a newer registration. Other nameservers pass over it.
const REGISTRATION_VERSION: &str = "registrationVersion";
/// How long leaving may take at a graceful stop.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a new leader may take to register before the old one leaves all the same.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);
/// How often the old one looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a member tells about itself.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) names: Names,
    pub(crate) address: String,
    pub(crate) ha_address: String,
    /// The leader endpoint's address, where there is one.
    pub(crate) endpoint: Option<String>,
    pub(crate) self_id: u64,
    pub(crate) permission: i32,
}

/// The part a member registers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    broker_id: i64,
    term: u64,
    /// A leader that is reached over the endpoint.
    by_endpoint: bool,
}

/// What makes a registration necessary, beside the role.
pub(crate) struct Changes {
    /// Notified after every change of a topic.
    pub(crate) topics: Arc<Notify>,
    /// Whether this member is reached over the endpoint.
    pub(crate) access: watch::Receiver<Access>,
}

impl Card {
    fn follower_id(&self) -> i64 {
        follower_id(self.self_id)
    }

    /// Addresses to register, and the broker id of each.
    fn places(&self, part: Part) -> Vec<(&str, i64)> {
        match &self.endpoint {
            Some(endpoint) if part.by_endpoint => {
                vec![
                    (endpoint, part.broker_id),
                    (&self.address, self.follower_id()),
                ]
            }
            _ => vec![(&self.address, part.broker_id)],
        }
    }
}

/// One registration, encoded once for all nameservers.
#[derive(Debug)]
struct Registration {
    part: Part,
    /// Counter of the topics' data version in the body.
    topics: i64,
    body: Bytes,
}

/// Which state of the topics each nameserver knows, for answers that must not come before it does.
#[derive(Debug)]
pub(crate) struct Registered {
    /// By nameserver: counter of the topics' data version; none while it does not answer.
    topics: watch::Sender<Vec<Option<i64>>>,
}

impl Registered {
    pub(crate) fn new(nameservers: usize) -> Registered {
        Registered {
            topics: watch::Sender::new(vec![None; nameservers]),
        }
    }

    fn note(&self, nth: usize, topics: Option<i64>) {
        self.topics.send_modify(|known| {
            if let Some(known) = known.get_mut(nth) {
                *known = topics;
            }
        });
    }

    /// Returns once every nameserver that answers knows this state of the topics, or after a second.
    pub(crate) async fn knows_topics(&self, counter: i64) {
        let mut known = self.topics.subscribe();
        let all = known.wait_for(|known| known.iter().flatten().all(|known| *known >= counter));
        if tokio::time::timeout(KNOWN_WITHIN, all).await.is_err() {
            tracing::warn!("a nameserver does not know the changed topics yet");
        }
    }
}

/// The running tasks.
pub(crate) struct Registrar {
    card: Card,
    config: NameserverConfig,
    client: Arc<Client>,
    current: watch::Receiver<Option<Arc<Registration>>>,
    role: watch::Receiver<Role>,
    tasks: Vec<JoinHandle<()>>,
}

/// The part of a role, once it is known: a leader that may answer and has an address for it, or a follower of a known
/// leader.
fn part_of(role: &Role, access: Access, card: &Card) -> Option<Part> {
    let term = role.term;
    if role.serving {
        let by_endpoint = match access {
            Access::None => false,
            Access::Open(open) if open == term => true,
            Access::Denied(denied) if denied == term => false,
            Access::Closed | Access::Open(_) | Access::Denied(_) => return None,
        };
        return Some(Part {
            broker_id: 0,
            term,
            by_endpoint,
        });
    }
    role.leader.filter(|leader| *leader != card.self_id)?;
    Some(Part {
        broker_id: card.follower_id(),
        term,
        by_endpoint: false,
    })
}

impl Registrar {
    /// Starts registering.
    pub(crate) fn start(
        card: Card,
        config: NameserverConfig,
        group: Group,
        client: Arc<Client>,
        changes: Changes,
        registered: Arc<Registered>,
    ) -> Registrar {
        let (tell, current) = watch::channel(None);
        let mut tasks = Vec::new();
        let role = group.role();
        let prepare = prepare(card.clone(), config.compressed, group, changes, tell);
        tasks.push(spawn(prepare));
        for (nth, address) in config.addresses.iter().enumerate() {
            let registered = Arc::clone(&registered);
            let keep = keep_registered(
                address.clone(),
                move |topics| registered.note(nth, topics),
                card.clone(),
                config.clone(),
                Arc::clone(&client),
                current.clone(),
            );
            tasks.push(spawn(keep));
        }
        Registrar {
            card,
            config,
            client,
            current,
            role,
            tasks,
        }
    }

    /// Stops registering and takes this member out of the routes, at every nameserver that answers. If it has handed
    /// leadership over, each nameserver is left once it knows the new leader: without one, producers have nowhere to send.
    pub(crate) async fn leave(self, handed_over: bool) {
        for task in &self.tasks {
            task.abort();
        }
        let Some(last) = self.current.borrow().clone() else {
            return;
        };
        let still_leads = self.role.borrow().serving;
        let led = handed_over && last.part.broker_id == 0;
        let mut leaving = tokio::task::JoinSet::new();
        for address in self.config.addresses {
            let card = self.card.clone();
            let client = Arc::clone(&self.client);
            let part = last.part;
            let leave = async move {
                if led {
                    drop(timeout(REPLACED_WITHIN, until_replaced(&address, &card, &client)).await);
                }
                unregister(&address, &card, &client, part, still_leads).await;
            };
            leaving.spawn(leave.in_current_span());
        }
        leaving.join_all().await;
    }
}

/// Returns once the nameserver names another member than this one as the group's leader.
async fn until_replaced(address: &str, card: &Card, client: &Client) {
    loop {
        let command = RemotingCommand::request(request::GET_BROKER_CLUSTER_INFO);
        let answer = client.invoke(address, command, LEAVE_TIMEOUT).await;
        let info = answer
            .ok()
            .and_then(|answer| ClusterInfo::from_json(&answer.body.to_bytes()).ok());
        let leader = info.as_ref().and_then(|info| {
            let group = info.broker_addr_table.get(&card.names.broker)?;
            group.broker_addrs.get(&0)
        });
        if leader.is_some_and(|leader| *leader != card.address) {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Encodes a registration whenever the part or a topic changes.
async fn prepare(
    card: Card,
    compressed: bool,
    group: Group,
    mut changes: Changes,
    tell: watch::Sender<Option<Arc<Registration>>>,
) {
    let mut role = group.role();
    let mut removed = group.removed();
    let mut told: Option<Part> = None;
    loop {
        let access = *changes.access.borrow_and_update();
        let gone = *removed.borrow_and_update();
        let part = part_of(&role.borrow_and_update(), access, &card).filter(|_| !gone);
        if gone && told.take().is_some() {
            tell.send_replace(None);
        }
        if let Some(part) = part {
            let deposed = told.is_some_and(|told| told.broker_id == 0) && part.broker_id != 0;
            if deposed {
                sleep(DEPOSED_PAUSE).await;
                if part_of(&role.borrow(), *changes.access.borrow(), &card) != Some(part) {
                    continue;
                }
            }
            if told != Some(part) {
                tracing::info!(
                    broker_id = part.broker_id,
                    term = part.term,
                    endpoint = part.by_endpoint,
                    "registers with this part"
                );
            }
            told = Some(part);
            let (topics, body) = encode(&card, compressed, &group, part);
            tell.send_replace(Some(Arc::new(Registration { part, topics, body })));
        }
        tokio::select! {
            changed = role.changed() => if changed.is_err() { return },
            changed = removed.changed() => if changed.is_err() { return },
            // Its sender is gone where there is no endpoint.
            Ok(()) = changes.access.changed() => {}
            () = changes.topics.notified() => sleep(GATHER).await,
        }
    }
}

/// Counter of the topics' data version, and the body.
fn encode(card: &Card, compressed: bool, group: &Group, part: Part) -> (i64, Bytes) {
    let state = &group.store().state;
    // Before the topics: what changes in between is then registered under an older version, and once more.
    let mut data_version = state.topic_version();
    let topics = data_version.counter;
    data_version.state_version = i64::try_from(part.term).unwrap_or(i64::MAX);
    let allowed = card.permission & (perm::READ | perm::WRITE);
    let restricted = allowed != perm::READ | perm::WRITE;
    let row = |topic: &Arc<TopicConfig>| {
        let mut topic = TopicConfig::clone(topic);
        if restricted {
            topic.perm &= card.permission;
        }
        (topic.topic_name.clone(), topic)
    };
    let topic_config_table: BTreeMap<String, TopicConfig> =
        state.topics().iter().map(row).collect();
    let wrapper = TopicConfigSerializeWrapper {
        data_version,
        topic_config_table,
        ..TopicConfigSerializeWrapper::default()
    };
    let body = RegisterBrokerBody {
        filter_server_list: Vec::new(),
        topic_config_serialize_wrapper: wrapper,
    };
    let body = if compressed {
        body.encode_compressed()
    } else {
        body.to_json()
    };
    (topics, Bytes::from(body))
}

/// The next registration version: the clock, in microseconds, which rises across restarts too.
fn registration_version() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Keeps one nameserver up to date.
async fn keep_registered(
    address: String,
    note: impl Fn(Option<i64>),
    card: Card,
    config: NameserverConfig,
    client: Arc<Client>,
    mut current: watch::Receiver<Option<Arc<Registration>>>,
) {
    let mut pause = RETRY_PAUSE;
    let mut reported = None;
    let mut last: Option<Arc<Registration>> = None;
    loop {
        let registration = current.borrow_and_update().clone();
        let mut next = config.period;
        let before = std::mem::replace(&mut last, registration.clone());
        if let (Some(before), None) = (before, &registration) {
            note(None);
            unregister(&address, &card, &client, before.part, false).await;
        }
        if let Some(registration) = registration {
            let outcome =
                register(&address, &card, config.compressed, &client, &registration).await;
            note(outcome.is_ok().then_some(registration.topics));
            if reported.as_ref() != Some(&outcome) {
                match &outcome {
                    Ok(()) => tracing::info!(nameserver = address, "registered"),
                    Err(error) => {
                        tracing::warn!(nameserver = address, error, "not registered, trying again")
                    }
                }
                reported = Some(outcome.clone());
            }
            if outcome.is_ok() {
                pause = RETRY_PAUSE;
            } else {
                next = pause.min(config.period);
                pause = pause.saturating_mul(2).min(config.period);
            }
        }
        // A change ends the pause; without one the registration is repeated.
        if matches!(
            timeout_at(Instant::now() + next, current.changed()).await,
            Ok(Err(_))
        ) {
            return;
        }
    }
}

/// Takes this member out of the routes of one nameserver.
async fn unregister(address: &str, card: &Card, client: &Client, part: Part, still_leads: bool) {
    for (own, broker_id) in card.places(part) {
        // The endpoint belongs to whoever leads by now; nameservers that know no terms would forget that member.
        if broker_id == 0 && part.by_endpoint && !still_leads {
            continue;
        }
        let header = UnRegisterBrokerRequestHeader {
            broker_name: card.names.broker.clone(),
            broker_addr: own.to_owned(),
            cluster_name: card.names.cluster.clone(),
            broker_id,
        };
        let command = RemotingCommand::request(request::UNREGISTER_BROKER)
            .with_header(&header)
            .with_field(REGISTRATION_VERSION, registration_version().to_string())
            .with_field("stateVersion", part.term.to_string());
        match client.invoke(address, command, LEAVE_TIMEOUT).await {
            Ok(_left) => tracing::info!(nameserver = address, own, "unregistered"),
            Err(error) => tracing::info!(nameserver = address, own, %error, "not unregistered"),
        }
    }
}

/// Registers the leader's address first: it matters most.
async fn register(
    address: &str,
    card: &Card,
    compressed: bool,
    client: &Client,
    registration: &Registration,
) -> Result<(), String> {
    for (own, broker_id) in card.places(registration.part) {
        let header = RegisterBrokerRequestHeader {
            broker_name: card.names.broker.clone(),
            broker_addr: own.to_owned(),
            cluster_name: card.names.cluster.clone(),
            ha_server_addr: card.ha_address.clone(),
            broker_id,
            heartbeat_timeout_millis: None,
            enable_acting_master: Some(false),
            compressed: Some(compressed),
            body_crc32: i32::try_from(body_crc(&registration.body)).unwrap_or(0),
        };
        let command = RemotingCommand::request(request::REGISTER_BROKER)
            .with_header(&header)
            .with_field(REGISTRATION_VERSION, registration_version().to_string())
            .with_body(registration.body.clone());
        let answer = client
            .invoke(address, command, CALL_TIMEOUT)
            .await
            .map_err(|error| error.to_string())?;
        if answer.code != response::SUCCESS {
            return Err(format!(
                "refused with code {}: {}",
                answer.code,
                answer.remark.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use raftmq_raft::RoleState;

    use super::*;

    fn role(state: RoleState, leader: Option<u64>, serving: bool) -> Role {
        Role {
            term: 7,
            leader,
            state,
            serving,
        }
    }

    /// Nameservers that answer are waited for, others are not.
    #[tokio::test]
    async fn waits_for_nameservers_that_answer() {
        let registered = Arc::new(Registered::new(2));
        registered.knows_topics(5).await;
        registered.note(0, Some(4));
        let waits = Arc::clone(&registered);
        let waiting = tokio::spawn(async move { waits.knows_topics(5).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        registered.note(0, Some(5));
        let begun = Instant::now();
        waiting.await.unwrap();
        assert!(begun.elapsed() < KNOWN_WITHIN);
    }

    fn card(endpoint: Option<&str>) -> Card {
        Card {
            names: Names {
                cluster: "C".to_owned(),
                broker: "B".to_owned(),
            },
            address: "own:1".to_owned(),
            ha_address: "own:2".to_owned(),
            endpoint: endpoint.map(str::to_owned),
            self_id: 2,
            permission: 6,
        }
    }

    /// A leader is told where it is reached: nowhere before it listens there, and under its own address when it cannot.
    #[test]
    fn a_leader_is_registered_where_it_listens() {
        let card = card(Some("all:9"));
        let leads = role(RoleState::Leader, Some(2), true);
        let places = |role: &Role, access| {
            part_of(role, access, &card).map(|part| card.places(part).to_vec())
        };
        for not_yet in [Access::Closed, Access::Open(6), Access::Denied(6)] {
            assert_eq!(places(&leads, not_yet), None);
        }
        assert_eq!(
            places(&leads, Access::Open(7)).unwrap(),
            [("all:9", 0), ("own:1", 3)]
        );
        assert_eq!(places(&leads, Access::Denied(7)).unwrap(), [("own:1", 0)]);
        let follows = role(RoleState::Follower, Some(0), false);
        assert_eq!(places(&follows, Access::Open(7)).unwrap(), [("own:1", 3)]);
    }

    #[test]
    fn a_part_is_told_only_once_it_is_known() {
        let part = |role: Role| {
            part_of(&role, Access::None, &card(None)).map(|part| (part.broker_id, part.term))
        };
        assert_eq!(part(role(RoleState::Leader, Some(2), true)), Some((0, 7)));
        assert_eq!(part(role(RoleState::Leader, Some(2), false)), None);
        assert_eq!(
            part(role(RoleState::Follower, Some(0), false)),
            Some((3, 7))
        );
        assert_eq!(part(role(RoleState::Follower, None, false)), None);
        assert_eq!(part(role(RoleState::Candidate, None, false)), None);
    }
}

//! What the producers, consumers and admin calls of one process share: connections, routes,
//! heartbeats (RocketMQ: `MQClientInstance`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use raftmq_proto::body::{
    ConsumerData, ConsumerRunningInfo, HeartbeatData, ProcessQueueInfo, ProducerData,
};
use raftmq_proto::code::request;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::UnregisterClientRequestHeader;
use raftmq_remoting::{Client, ClientOptions};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::callbacks::Callbacks;
use crate::error::{Error, Result};
use crate::identity::new_client_id;
use crate::members::Experience;
use crate::nameservers::{NameServers, expect_success};
use crate::progress::Progress;
use crate::routes::Routes;
use crate::unique_key::UniqueKeys;

const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
const ROUTES_EVERY: Duration = Duration::from_secs(30);
/// A topic without a route of its own is about to be created; its consumers wait for it.
const ROUTES_SOON: Duration = Duration::from_secs(1);

/// Settings of an [`Instance`].
#[derive(Clone, Debug)]
pub struct InstanceOptions {
    /// Nameserver addresses, `host:port`, separated by `;`.
    pub name_servers: String,
    /// Wait for a connection to a broker. Default 1 s: a member that needs longer is passed over for
    /// another one.
    pub connect_timeout: Duration,
    /// Most queues a topic gets that the first send creates. Default 4.
    pub default_topic_queues: i32,
}

impl InstanceOptions {
    /// The defaults, with these nameservers.
    #[must_use]
    pub fn new(name_servers: impl Into<String>) -> InstanceOptions {
        InstanceOptions {
            name_servers: name_servers.into(),
            connect_timeout: Duration::from_secs(1),
            default_topic_queues: 4,
        }
    }
}

/// A client of a cluster. Cheap to clone; the clones are the same client. Ends when
/// [`shutdown`](Instance::shutdown) is called or the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Instance {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client_id: String,
    pub(crate) remoting: Client,
    pub(crate) name_servers: NameServers,
    pub(crate) routes: Routes,
    pub(crate) unique_keys: UniqueKeys,
    pub(crate) experience: Experience,
    registered: Mutex<Registered>,
    heartbeat_now: Arc<Notify>,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Registered {
    producer_groups: HashSet<String>,
    consumers: HashMap<String, Consumer>,
}

/// What the instance needs of a consumer group that runs in it.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) data: ConsumerData,
    pub(crate) rebalance: Arc<Notify>,
    pub(crate) progress: Arc<Progress>,
}

impl Instance {
    /// Starts a client. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the nameserver list is not usable.
    pub fn start(options: &InstanceOptions) -> Result<Instance> {
        let name_servers = NameServers::new(&options.name_servers)?;
        let routes = Routes::new(name_servers.clone(), options.default_topic_queues);
        let heartbeat_now = Arc::new(Notify::new());
        let slot: Arc<OnceLock<Weak<Inner>>> = Arc::new(OnceLock::new());
        let callbacks = Callbacks::new(Arc::clone(&slot), Arc::clone(&heartbeat_now));
        let remoting = Client::new(ClientOptions {
            connect_timeout: options.connect_timeout,
            ..ClientOptions::default()
        })
        .with_handler(Arc::new(callbacks));
        let inner = Arc::new(Inner {
            client_id: new_client_id(),
            remoting,
            name_servers,
            routes,
            unique_keys: UniqueKeys::new(),
            experience: Experience::default(),
            registered: Mutex::new(Registered::default()),
            heartbeat_now,
            closed: watch::Sender::new(false),
        });
        // The slot was made above and is filled only here.
        if slot.set(Arc::downgrade(&inner)).is_err() {
            return Err(Error::Closed);
        }
        tokio::spawn(keep_routes(inner.routes.clone(), inner.closed.subscribe()));
        tokio::spawn(keep_heartbeats(
            Arc::downgrade(&inner),
            inner.closed.subscribe(),
        ));
        Ok(Instance { inner })
    }

    /// The id under which brokers register this client.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.inner.client_id
    }

    /// The nameservers it uses.
    #[must_use]
    pub fn name_servers(&self) -> &NameServers {
        &self.inner.name_servers
    }

    /// Ends the background work and tells the brokers to forget this client. Calls under way fail.
    pub async fn shutdown(&self) {
        if self.inner.closed.send_replace(true) {
            return;
        }
        let registered = std::mem::take(&mut *self.inner.registered.lock());
        let mut headers = Vec::new();
        for group in registered.producer_groups {
            headers.push(self.inner.unregister_header(Some(group), None));
        }
        for group in registered.consumers.into_keys() {
            headers.push(self.inner.unregister_header(None, Some(group)));
        }
        let mut sends = JoinSet::new();
        for address in self.inner.heartbeat_addresses(true) {
            for header in &headers {
                let request =
                    RemotingCommand::request(request::UNREGISTER_CLIENT).with_header(header);
                let (inner, address) = (Arc::clone(&self.inner), address.clone());
                sends.spawn(async move {
                    // The connection's end tells the broker the same, a moment later.
                    drop(
                        inner
                            .remoting
                            .invoke(&address, request, Duration::from_secs(1))
                            .await,
                    );
                });
            }
        }
        while sends.join_next().await.is_some() {}
        self.inner.remoting.close_all();
    }
}

impl Inner {
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    fn unregister_header(
        &self,
        producer_group: Option<String>,
        consumer_group: Option<String>,
    ) -> UnregisterClientRequestHeader {
        UnregisterClientRequestHeader {
            client_id: self.client_id.clone(),
            producer_group,
            consumer_group,
        }
    }

    pub(crate) fn add_producer(&self, group: &str) {
        self.registered
            .lock()
            .producer_groups
            .insert(group.to_owned());
        self.heartbeat_now.notify_one();
    }

    /// Registers a consumer group.
    ///
    /// Fails when the instance already runs a consumer of this group: they would share a client id and
    /// read the same queues.
    pub(crate) fn add_consumer(&self, consumer: Consumer) -> Result<()> {
        let mut registered = self.registered.lock();
        let group = consumer.data.group_name.clone();
        if registered.consumers.contains_key(&group) {
            return Err(Error::Invalid(format!(
                "the consumer group {group} already runs in this client instance"
            )));
        }
        registered.consumers.insert(group, consumer);
        Ok(())
    }

    /// Stops registering the group; brokers notice when its heartbeats stay out.
    pub(crate) fn forget_consumer(&self, group: &str) {
        self.registered.lock().consumers.remove(group);
    }

    /// Stops registering the group and tells the brokers.
    pub(crate) async fn remove_consumer(&self, group: &str) {
        self.forget_consumer(group);
        let header = self.unregister_header(None, Some(group.to_owned()));
        for address in self.heartbeat_addresses(true) {
            let request = RemotingCommand::request(request::UNREGISTER_CLIENT).with_header(&header);
            if let Err(error) = self
                .remoting
                .invoke(&address, request, Duration::from_secs(1))
                .await
            {
                tracing::debug!(address, %error, "unregister failed");
            }
        }
    }

    /// Lets the group's consumer look again at how queues are shared.
    pub(crate) fn rebalance(&self, group: &str) {
        if let Some(consumer) = self.registered.lock().consumers.get(group) {
            consumer.rebalance.notify_one();
        }
    }

    /// What a member of the group reads and how far it is, if one runs here.
    pub(crate) fn running_info(&self, group: &str) -> Option<ConsumerRunningInfo> {
        let registered = self.registered.lock();
        let consumer = registered.consumers.get(group)?;
        let queue_info = |offset| ProcessQueueInfo {
            commit_offset: offset,
            ..Default::default()
        };
        let queues = consumer.progress.all().into_iter();
        Some(ConsumerRunningInfo {
            mq_table: queues
                .map(|(queue, offset)| (queue, queue_info(offset)))
                .collect(),
            properties: [
                (
                    "PROP_NAMESERVER_ADDR".to_owned(),
                    self.name_servers.addresses().join(";"),
                ),
                (
                    "PROP_CONSUME_TYPE".to_owned(),
                    consumer.data.consume_type.name().to_owned(),
                ),
            ]
            .into(),
            subscription_set: consumer.data.subscription_data_set.clone(),
            ..ConsumerRunningInfo::default()
        })
    }

    /// Asks for a heartbeat soon.
    pub(crate) fn heartbeat_soon(&self) {
        self.heartbeat_now.notify_one();
    }

    /// Leaders, which know the producers; with consumers every member, so that a follower that becomes
    /// leader knows the group already.
    fn heartbeat_addresses(&self, everyone: bool) -> BTreeSet<String> {
        let mut addresses = BTreeSet::new();
        for route in self.routes.all() {
            for group in &route.groups {
                let members = group.members.iter();
                addresses.extend(
                    members
                        .filter(|(id, _)| everyone || *id == 0)
                        .map(|(_, address)| address.clone()),
                );
            }
        }
        addresses
    }

    /// Sends one heartbeat to every broker that should know this client and waits for the answers.
    pub(crate) async fn heartbeat(self: &Arc<Self>) {
        let (body, everyone) = {
            let registered = self.registered.lock();
            if registered.producer_groups.is_empty() && registered.consumers.is_empty() {
                return;
            }
            let data = HeartbeatData {
                client_id: self.client_id.clone(),
                producer_data_set: registered
                    .producer_groups
                    .iter()
                    .map(|group| ProducerData {
                        group_name: group.clone(),
                    })
                    .collect(),
                consumer_data_set: registered
                    .consumers
                    .values()
                    .map(|consumer| consumer.data.clone())
                    .collect(),
                ..HeartbeatData::default()
            };
            (
                raftmq_proto::body::to_json(&data),
                !registered.consumers.is_empty(),
            )
        };
        let mut sends = JoinSet::new();
        for address in self.heartbeat_addresses(everyone) {
            let request = RemotingCommand::request(request::HEART_BEAT).with_body(body.clone());
            let inner = Arc::clone(self);
            sends.spawn(async move {
                let answer = inner
                    .remoting
                    .invoke(&address, request, HEARTBEAT_TIMEOUT)
                    .await;
                let outcome = answer
                    .map_err(|cause| Error::Connection {
                        address: address.clone(),
                        cause,
                    })
                    .and_then(|reply| expect_success(&address, reply));
                if let Err(error) = outcome {
                    tracing::debug!(address, %error, "heartbeat failed");
                }
            });
        }
        while sends.join_next().await.is_some() {}
    }
}

async fn keep_routes(routes: Routes, mut closed: watch::Receiver<bool>) {
    let mut refreshed = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUTES_SOON) => {}
            changed = closed.changed() => {
                if changed.is_err() || *closed.borrow() {
                    return;
                }
            }
        }
        let all = refreshed.elapsed() >= ROUTES_EVERY;
        if all {
            refreshed = Instant::now();
        }
        routes.refresh_known(all).await;
    }
}

async fn keep_heartbeats(inner: Weak<Inner>, mut closed: watch::Receiver<bool>) {
    let Some((mut changes, now)) = inner
        .upgrade()
        .map(|inner| (inner.routes.changes(), Arc::clone(&inner.heartbeat_now)))
    else {
        return;
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT_EVERY) => {}
            () = now.notified() => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            changed = closed.changed() => {
                if changed.is_err() || *closed.borrow() {
                    return;
                }
            }
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.heartbeat().await;
    }
}

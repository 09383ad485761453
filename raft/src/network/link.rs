//! Connections to the other members.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::client::RETRY_MS;
use super::tcp::connect;
use super::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MESSAGE_BYTES_MAX,
    STREAM_WINDOW_BYTES,
};
use crate::pb::raft_client::RaftClient;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Append,
    Heartbeat,
    /// Votes and transfers of leadership.
    Control,
    Forward,
    /// What takes long: repair and seeding.
    Bulk,
}

/// Where a member is and whether it votes, as the latest membership known here has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) voter: bool,
}

/// Who belongs to the group, and all connections of this member to the others, made when first used
/// and kept.
pub(crate) struct Links {
    own: u64,
    /// Addresses from the configuration, tried when the membership's address does not answer: a
    /// group that moved could otherwise never elect the leader that would record the move.
    configured: HashMap<u64, String>,
    /// The running membership; the configuration's as long as there is none.
    members: RwLock<BTreeMap<u64, Place>>,
    links: Mutex<HashMap<(u64, Lane), Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(own: u64, configured: HashMap<u64, String>) -> Self {
        let place = |(id, address): (&u64, &String)| {
            let (address, voter) = (address.clone(), true);
            (*id, Place { address, voter })
        };
        Links {
            own,
            members: RwLock::new(configured.iter().map(place).collect()),
            configured,
            links: Mutex::default(),
        }
    }

    /// Takes over the members of a newer membership. Connections to those that have moved turn to
    /// the new address, whoever holds them.
    pub(crate) fn set_members(&self, members: BTreeMap<u64, Place>) {
        *self.members.write() = members;
        for ((member, _), link) in self.links.lock().iter() {
            link.turn_to(self.addresses(*member));
        }
    }

    /// Takes over the address of one member.
    pub(crate) fn learn(&self, member: u64, address: &str) {
        {
            let mut members = self.members.write();
            let place = members.entry(member).or_insert_with(|| Place {
                address: String::new(),
                voter: false,
            });
            if place.address == address {
                return;
            }
            address.clone_into(&mut place.address);
        }
        for ((linked, _), link) in self.links.lock().iter() {
            if *linked == member {
                link.turn_to(self.addresses(member));
            }
        }
    }

    /// The other members of the group.
    pub(crate) fn others(&self) -> Vec<u64> {
        let members = self.members.read();
        members
            .keys()
            .copied()
            .filter(|id| *id != self.own)
            .collect()
    }

    /// The members that vote.
    pub(crate) fn voters(&self) -> Vec<u64> {
        let members = self.members.read();
        let voters = members.iter().filter(|(_, place)| place.voter);
        voters.map(|(id, _)| *id).collect()
    }

    /// Where a member may be, the likeliest place first.
    fn addresses(&self, member: u64) -> Vec<String> {
        let known = self
            .members
            .read()
            .get(&member)
            .map(|place| place.address.clone());
        let configured = self.configured.get(&member).cloned();
        let other = configured.filter(|address| Some(address) != known.as_ref());
        known.into_iter().chain(other).collect()
    }

    /// The connection to a member.
    ///
    /// A connection is driven by the runtime in whose context it is first asked for.
    pub(crate) fn link(&self, member: u64, lane: Lane) -> Arc<Link> {
        let addresses = self.addresses(member);
        let mut links = self.links.lock();
        let link = links.entry((member, lane));
        let link = link.or_insert_with(|| Arc::new(Link::new(member, addresses)));
        link.clone()
    }
}

/// One connection to one member. It is made and made again by itself; each attempt resolves the
/// host name anew.
pub(crate) struct Link {
    member: u64,
    addresses: RwLock<Vec<String>>,
    current: AtomicUsize,
    channel: RwLock<Option<Channel>>,
    /// Consecutive failures and the time of the last one.
    failures: Mutex<Option<(usize, Instant)>>,
    /// The last heartbeat failed.
    down: AtomicBool,
}

impl Link {
    pub(crate) fn new(member: u64, addresses: Vec<String>) -> Self {
        let link = Link {
            member,
            addresses: RwLock::new(addresses),
            current: AtomicUsize::new(0),
            channel: RwLock::new(None),
            failures: Mutex::new(None),
            down: AtomicBool::new(false),
        };
        link.open();
        link
    }

    pub(crate) fn member(&self) -> u64 {
        self.member
    }

    /// Where it connects to, for messages.
    pub(crate) fn address(&self) -> String {
        let current = self.current.load(Ordering::Relaxed);
        let addresses = self.addresses.read();
        let address = addresses.get(current).cloned();
        address.unwrap_or_else(|| "no known address".to_owned())
    }

    /// Connects to another place from now on, if the member is not where it was.
    fn turn_to(&self, addresses: Vec<String>) {
        {
            let mut known = self.addresses.write();
            if *known == addresses {
                return;
            }
            *known = addresses;
        }
        self.current.store(0, Ordering::Relaxed);
        *self.failures.lock() = None;
        self.open();
    }

    fn open(&self) {
        if self.addresses.read().is_empty() {
            // It has left the group.
            *self.channel.write() = None;
            return;
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address()));
        let channel = match endpoint {
            Ok(endpoint) => Some(
                endpoint
                    .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                    .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                    .keep_alive_while_idle(true)
                    // Who has enough answers gives the other requests up, as often as it likes.
                    .http2_max_local_error_reset_streams(None)
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .connect_with_connector_lazy(tower::service_fn(async |address| {
                        connect(address).await.map(TokioIo::new)
                    })),
            ),
            Err(error) => {
                tracing::warn!(member = self.member, address = self.address(), %error,
                    "address cannot be used");
                None
            }
        };
        *self.channel.write() = channel;
    }

    /// A client over this connection.
    pub(crate) fn client(&self) -> Result<RaftClient<Channel>, Status> {
        let channel = self.channel.read().clone().ok_or_else(|| {
            Status::unavailable(format!("member {} has {}", self.member, self.address()))
        })?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Waits until another attempt is due after failures. A refused connection fails within
    /// microseconds, and openraft would try again as fast.
    pub(crate) async fn due(&self) {
        let due = self.failures.lock().map(|(count, last)| {
            let nth = count.saturating_sub(1).min(RETRY_MS.len() - 1);
            last + Duration::from_millis(RETRY_MS[nth])
        });
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
    }

    /// To be called when a request was answered.
    pub(crate) fn answered(&self) {
        *self.failures.lock() = None;
    }

    /// Notes whether a request got through; true when that is news.
    pub(crate) fn note(&self, up: bool) -> bool {
        self.down.swap(!up, Ordering::Relaxed) == up
    }

    /// To be called when a request found nobody, or the wrong one: turns to the other address, if
    /// there is one.
    pub(crate) fn failed(&self) {
        {
            let mut failures = self.failures.lock();
            let count = failures.map_or(0, |(count, _)| count);
            *failures = Some((count.saturating_add(1), Instant::now()));
        }
        let places = self.addresses.read().len();
        if places > 1 {
            let current = self.current.load(Ordering::Relaxed);
            self.current
                .store((current + 1) % places, Ordering::Relaxed);
            self.open();
        }
    }
}

//! Connections to the other members.

use std::collections::HashMap;
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

/// All connections of this member, made when first used and kept.
pub(crate) struct Links {
    /// Addresses from the configuration, tried when the membership's address does not answer: a
    /// group that moved could otherwise never elect the leader that would record the move.
    configured: HashMap<u64, String>,
    links: Mutex<HashMap<(u64, Lane), Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(configured: HashMap<u64, String>) -> Self {
        Links {
            configured,
            links: Mutex::default(),
        }
    }

    /// The connection to a member. `address` is where the membership says it is; without it, the
    /// connection there is, or one to the configured address.
    ///
    /// A connection is driven by the runtime in whose context it is first asked for.
    pub(crate) fn link(&self, member: u64, address: Option<&str>, lane: Lane) -> Arc<Link> {
        let configured = self.configured.get(&member).map(String::as_str);
        let mut addresses: Vec<&str> = address.into_iter().collect();
        addresses.extend(configured.filter(|a| Some(*a) != address));
        let mut links = self.links.lock();
        if let Some(link) = links.get(&(member, lane))
            && (address.is_none() || link.addresses.iter().eq(addresses.iter()))
        {
            return link.clone();
        }
        let addresses = addresses.into_iter().map(str::to_owned).collect();
        let link = Arc::new(Link::new(member, addresses));
        links.insert((member, lane), link.clone());
        link
    }
}

/// One connection to one member. It is made and made again by itself; each attempt resolves the
/// host name anew.
pub(crate) struct Link {
    member: u64,
    addresses: Vec<String>,
    current: AtomicUsize,
    channel: RwLock<Option<Channel>>,
    /// Consecutive failures and the time of the last one.
    failures: Mutex<Option<(usize, Instant)>>,
    /// The last heartbeat failed.
    down: AtomicBool,
}

impl Link {
    fn new(member: u64, addresses: Vec<String>) -> Self {
        let link = Link {
            member,
            addresses,
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
    pub(crate) fn address(&self) -> &str {
        let current = self.current.load(Ordering::Relaxed);
        self.addresses
            .get(current)
            .map_or("no known address", String::as_str)
    }

    fn open(&self) {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address()));
        let channel = match endpoint {
            Ok(endpoint) => Some(
                endpoint
                    .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                    .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                    .keep_alive_while_idle(true)
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
        if self.addresses.len() > 1 {
            let current = self.current.load(Ordering::Relaxed);
            self.current
                .store((current + 1) % self.addresses.len(), Ordering::Relaxed);
            self.open();
        }
    }
}

//! Asking nameservers. They are replicas of each other, each told everything by each broker, so one
//! answer is enough; a dead one must cost nothing but the first look.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raftmq_proto::body::{self, ClusterInfo, TopicRouteData};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::GetRouteInfoRequestHeader;
use raftmq_remoting::{Client, ClientOptions};
use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// A nameserver on the same network accepts at once or is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After this long without an answer the next nameserver is asked beside the silent one.
const HEDGE_AFTER: Duration = Duration::from_millis(200);
/// Most nameservers used of a list.
const SERVERS_MAX: usize = 64;

/// The nameservers of one client instance.
#[derive(Clone, Debug)]
pub struct NameServers {
    addresses: Arc<Vec<String>>,
    /// Index of the one that answered last, asked first next time.
    good: Arc<AtomicUsize>,
    client: Client,
}

impl NameServers {
    /// Uses the nameservers of `list`, `host:port` each, separated by `;`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the list has no address or too many.
    pub fn new(list: &str) -> Result<NameServers> {
        let addresses: Vec<String> = list
            .split(';')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        if addresses.is_empty() {
            return Err(Error::Invalid(
                "no name server address: give -n or set NAMESRV_ADDR, e.g. 127.0.0.1:9876"
                    .to_owned(),
            ));
        }
        if addresses.len() > SERVERS_MAX {
            return Err(Error::Invalid(format!(
                "{} name server addresses, at most {SERVERS_MAX} are supported",
                addresses.len()
            )));
        }
        let client = Client::new(ClientOptions {
            connect_timeout: CONNECT_TIMEOUT,
            ..ClientOptions::default()
        });
        Ok(NameServers {
            addresses: Arc::new(addresses),
            good: Arc::new(AtomicUsize::new(0)),
            client,
        })
    }

    /// The addresses, in the order given.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Asks the nameservers until one answers, whatever its response code.
    ///
    /// # Errors
    /// [`Error::Deadline`] or the last connection error when none answered.
    pub async fn ask(
        &self,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand> {
        self.ask_from(self.good.load(Ordering::Relaxed), request, timeout, |_| {
            true
        })
        .await
    }

    /// As [`ask`](NameServers::ask), beginning at the server with this index (modulo their number) and
    /// passing over answers that are not `conclusive` while another server may give a better one.
    async fn ask_from(
        &self,
        first: usize,
        request: RemotingCommand,
        timeout: Duration,
        conclusive: fn(&RemotingCommand) -> bool,
    ) -> Result<RemotingCommand> {
        let count = self.addresses.len();
        let mut untried = (0..count).map(|step| (first + step) % count);
        let mut asked: JoinSet<(usize, Result<RemotingCommand>)> = JoinSet::new();
        let ask = |asked: &mut JoinSet<_>, index: usize| {
            let (this, request) = (self.clone(), request.clone());
            asked.spawn(async move {
                let address = this.addresses[index].clone();
                let answer = this.client.invoke(&address, request, timeout).await;
                (
                    index,
                    answer.map_err(|cause| Error::Connection { address, cause }),
                )
            });
        };
        let deadline = tokio::time::Instant::now() + timeout;
        let mut inconclusive = None;
        let mut last_error = None;
        loop {
            if asked.is_empty() {
                match untried.next() {
                    Some(index) => ask(&mut asked, index),
                    None => break,
                }
            }
            tokio::select! {
                Some(done) = asked.join_next() => match done {
                    Ok((index, Ok(reply))) => {
                        if conclusive(&reply) {
                            self.good.store(index, Ordering::Relaxed);
                            return Ok(reply);
                        }
                        inconclusive = Some(reply);
                    }
                    Ok((_, Err(error))) => last_error = Some(error),
                    Err(_) => return Err(Error::Closed),
                },
                () = tokio::time::sleep(HEDGE_AFTER), if untried.len() > 0 => {
                    if let Some(index) = untried.next() {
                        ask(&mut asked, index);
                    }
                }
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        match (inconclusive, last_error) {
            (Some(reply), _) => Ok(reply),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::Deadline {
                allowed: timeout,
                last: None,
            }),
        }
    }

    /// Sends the request to every nameserver, as changes of their own tables need.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub async fn tell_all(&self, request: RemotingCommand, timeout: Duration) -> Result<()> {
        let mut outcome = Ok(());
        for address in self.addresses.iter() {
            let told = self
                .client
                .invoke(address, request.clone(), timeout)
                .await
                .map_err(|cause| Error::Connection {
                    address: address.clone(),
                    cause,
                })
                .and_then(|reply| expect_success(address, reply));
            if let (Ok(()), Err(error)) = (&outcome, told) {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// The route of `topic`, `None` when no nameserver knows the topic.
    ///
    /// # Errors
    /// When no nameserver gave a readable answer.
    pub async fn route(&self, topic: &str, timeout: Duration) -> Result<Option<TopicRouteData>> {
        self.route_from(self.good.load(Ordering::Relaxed), topic, timeout)
            .await
    }

    /// As [`route`](NameServers::route), beginning at the server with this index: while a failover is
    /// watched, a nameserver that was cut off from the new leader must not be the only one asked.
    pub(crate) async fn route_from(
        &self,
        first: usize,
        topic: &str,
        timeout: Duration,
    ) -> Result<Option<TopicRouteData>> {
        let header = GetRouteInfoRequestHeader {
            topic: topic.to_owned(),
            accept_standard_json_only: Some(true),
        };
        let request =
            RemotingCommand::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
        // A nameserver that has just started may not know yet what the others know.
        let reply = self
            .ask_from(first, request, timeout, |reply| {
                reply.code != response::TOPIC_NOT_EXIST
            })
            .await?;
        if reply.code == response::TOPIC_NOT_EXIST {
            return Ok(None);
        }
        read_body("name server", reply).map(Some)
    }

    /// The clusters, their broker groups and members.
    ///
    /// # Errors
    /// When no nameserver gave a readable answer.
    pub async fn cluster_info(&self, timeout: Duration) -> Result<ClusterInfo> {
        let request = RemotingCommand::request(request::GET_BROKER_CLUSTER_INFO);
        read_body("name server", self.ask(request, timeout).await?)
    }
}

/// Turns an error code into an error.
pub(crate) fn expect_success(address: &str, reply: RemotingCommand) -> Result<()> {
    check(address, reply).map(|_| ())
}

/// The reply, if it reports success.
pub(crate) fn check(address: &str, reply: RemotingCommand) -> Result<RemotingCommand> {
    if reply.code == response::SUCCESS {
        return Ok(reply);
    }
    Err(Error::Refused {
        address: address.to_owned(),
        code: reply.code,
        remark: reply.remark.unwrap_or_default(),
    })
}

/// The JSON body of a successful reply.
pub(crate) fn read_body<T: serde::de::DeserializeOwned>(
    address: &str,
    reply: RemotingCommand,
) -> Result<T> {
    let reply = check(address, reply)?;
    body::from_json(&reply.body.into_bytes()).map_err(|error| Error::Unreadable {
        address: address.to_owned(),
        reason: error.to_string(),
    })
}

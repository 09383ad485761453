//! The sending side of Raft's own messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use futures::stream::{self, BoxStream};
use futures::{Future, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::ReplicationClosed;
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::SnapshotResponse;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status, Streaming};

use super::forward::cause;
use super::link::Link;
use super::{Identity, Lane, Links, wire};
use crate::pb;
use crate::types::{
    AppendEntriesRequest, Node, RPCError, Raft, Snapshot, StreamAppendError, StreamAppendResult,
    StreamingError, TransferLeaderRequest, TransferLeaderResponse, Types, Unreachable, Vote,
    VoteRequest, VoteResponse,
};

/// Waits between attempts to reach a member, in milliseconds; the last one repeats. A restarted
/// member is found this soon.
pub(super) const RETRY_MS: [u64; 4] = [10, 20, 40, 80];

/// Time between two questions to a member whether it has been seeded.
const RESEED_PAUSE: Duration = Duration::from_millis(200);

/// How long the leader may take to trim the log.
const TRIM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a member may take to tell about itself.
const SURVEY_TIMEOUT: Duration = Duration::from_millis(500);

/// Makes the clients through which openraft speaks to other members.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
    /// Requests with entries under way to each follower.
    pub(crate) appends_in_flight: usize,
    /// Set once the Raft core exists.
    pub(crate) raft: Arc<OnceLock<Raft>>,
}

impl Network {
    /// Asks a member about itself; `None` when it does not answer in time.
    pub(crate) async fn survey(&self, member: u64) -> Option<pb::SurveyReply> {
        let link = self.links.link(member, Lane::Control);
        self.ask(&link).await.ok()
    }

    /// Asks a member that need not belong to the group yet about itself, at this address only.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn survey_at(
        &self,
        member: u64,
        address: &str,
    ) -> Result<pb::SurveyReply, String> {
        self.ask(&Link::new(member, vec![address.to_owned()])).await
    }

    /// Asks the other members of the group about themselves; those that do not answer are left out.
    pub(crate) async fn survey_others(&self) -> Vec<(u64, pb::SurveyReply)> {
        let asked = self.links.others().into_iter().map(|member| async move {
            let reply = self.survey(member).await?;
            Some((member, reply))
        });
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().flatten().collect()
    }

    async fn ask(&self, link: &Link) -> Result<pb::SurveyReply, String> {
        let request = pb::SurveyRequest {
            hello: Some(self.identity.hello(link.member())),
        };
        let answer = async { link.client()?.survey(request).await };
        match tokio::time::timeout(SURVEY_TIMEOUT, answer).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => {
                failed(&self.identity, link, &status);
                Err(cause(&status))
            }
            Err(_elapsed) => Err(format!(
                "no answer within {} ms",
                SURVEY_TIMEOUT.as_millis()
            )),
        }
    }

    /// Whether a member follows the leader with this vote, at some time while this runs.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn follows(&self, member: u64, leader: Vote) -> Result<bool, Status> {
        let link = self.links.link(member, Lane::Heartbeat);
        let request = pb::HeartbeatRequest {
            hello: Some(self.identity.hello(member)),
            leader: Some(wire::to_ballot(&leader)),
            previous: None,
            commit: None,
        };
        let reply = link.client()?.heartbeat(request).await?.into_inner();
        let result = wire::from_append_reply(reply)?;
        Ok(!matches!(result, Err(StreamAppendError::HigherVote(_))))
    }

    /// Asks the leader to give up the beginning of the log.
    pub(crate) async fn trim(&self, leader: u64, position: u64) -> Result<(), Status> {
        let link = self.links.link(leader, Lane::Control);
        let request = pb::TrimRequest {
            hello: Some(self.identity.hello(leader)),
            position,
        };
        let mut client = link.client()?;
        tokio::time::timeout(TRIM_TIMEOUT, client.trim(request))
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no answer"))?
            .map(drop)
    }

    /// The connection for whatever takes long: entries to mend with, files and logs to seed from.
    pub(crate) fn bulk(&self, member: u64) -> Arc<Link> {
        self.links.link(member, Lane::Bulk)
    }

    fn peer(&self, member: u64, node: &Node, lane: Lane) -> Peer {
        self.links.learn(member, &node.addr);
        Peer {
            identity: self.identity.clone(),
            appends_in_flight: self.appends_in_flight,
            raft: self.raft.clone(),
            lane,
            link: self.links.link(member, lane),
            control: self.links.link(member, Lane::Control),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Peer {
        self.peer(target, node, Lane::Heartbeat)
    }
}

/// A member as openraft's tasks address it.
pub(crate) struct Peer {
    identity: Arc<Identity>,
    appends_in_flight: usize,
    raft: Arc<OnceLock<Raft>>,
    lane: Lane,
    link: Arc<Link>,
    control: Arc<Link>,
}

/// Logs a refusal once and turns any failure into openraft's "try again after a while".
fn failed(identity: &Identity, link: &Link, status: &Status) -> Unreachable {
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::DataLoss => {
            let complaint = format!(
                "member {} at {} refused: {}",
                link.member(),
                link.address(),
                status.message()
            );
            if identity.say(&complaint) {
                tracing::error!(member = identity.id(), "{complaint}");
            }
        }
        _ => {
            tracing::debug!(peer = link.member(), address = link.address(), %status,
                "request to member failed");
        }
    }
    link.failed();
    Unreachable::from_string(format!(
        "member {} at {}: {status}",
        link.member(),
        link.address()
    ))
}

type Replies<'s> = BoxStream<'s, Result<StreamAppendResult, RPCError>>;

impl Peer {
    async fn heartbeat(
        &self,
        request: &AppendEntriesRequest,
    ) -> Result<StreamAppendResult, Status> {
        let hello = self.identity.hello(self.link.member());
        let reply = self
            .link
            .client()?
            .heartbeat(wire::to_heartbeat(hello, request))
            .await?
            .into_inner();
        self.result(reply).await
    }

    /// Logs that a follower is lost, or back. Heartbeats tell it first.
    fn note(&self, failure: Option<&Status>) {
        let (member, address) = (self.link.member(), self.link.address());
        match failure {
            None if self.link.note(true) => {
                tracing::info!(member, address, "member answers again");
            }
            Some(status) if self.link.note(false) => {
                tracing::warn!(
                    member,
                    address,
                    cause = cause(status),
                    "member does not answer"
                );
            }
            None | Some(_) => {}
        }
    }

    /// Takes an answer apart. A follower that says it may have lost entries is allowed to lack what
    /// it had, before openraft learns that it does; from any other it would not be believed.
    async fn result(&self, reply: pb::AppendReply) -> Result<StreamAppendResult, Status> {
        self.link.answered();
        let recovering = reply.recovering;
        let result = wire::from_append_reply(reply)?;
        if recovering
            && let Err(StreamAppendError::Conflict(_)) = &result
            && let Some(raft) = self.raft.get()
        {
            let allowed = raft
                .trigger()
                .allow_next_revert(&self.link.member(), true)
                .await;
            tracing::debug!(member = self.link.member(), ?allowed, "member lost entries");
        }
        Ok(result)
    }

    /// Opens a stream whose first message is the hello and whose others are `input`, of which
    /// only so many are taken that the limit of unanswered requests is kept. A request is formed
    /// when it is taken, so later ones hold more entries.
    async fn append<S>(&self, input: S) -> Result<AppendReplies, Status>
    where
        S: Stream<Item = AppendEntriesRequest> + Send + Unpin + 'static,
    {
        let window = Arc::new(Semaphore::new(self.appends_in_flight));
        let exhausted = Arc::new(AtomicBool::new(false));
        // The sending half ends with the receiving half: openraft's next stream needs what `input`
        // holds.
        let end = CancellationToken::new();
        let hello = pb::AppendRequest {
            hello: Some(self.identity.hello(self.link.member())),
            ..pb::AppendRequest::default()
        };
        let state = (input, window.clone(), exhausted.clone());
        let requests = stream::unfold(state, |(mut input, window, exhausted)| async move {
            window.acquire().await.ok()?.forget();
            let Some(request) = input.next().await else {
                exhausted.store(true, Ordering::Release);
                return None;
            };
            Some((wire::to_append(&request), (input, window, exhausted)))
        });
        let outbound = stream::once(std::future::ready(hello))
            .chain(requests)
            .take_until(end.clone().cancelled_owned());
        let guard = end.drop_guard();
        let replies = self.link.client()?.append(outbound).await?.into_inner();
        Ok(AppendReplies {
            replies,
            window,
            exhausted,
            _end: guard,
        })
    }

    async fn control<R, F>(&self, call: F) -> Result<R, RPCError>
    where
        F: Future<Output = Result<R, Status>>,
    {
        call.await
            .map_err(|status| failed(&self.identity, &self.control, &status).into())
    }
}

/// The answers on an append stream.
struct AppendReplies {
    replies: Streaming<pb::AppendReply>,
    window: Arc<Semaphore>,
    exhausted: Arc<AtomicBool>,
    _end: DropGuard,
}

impl AppendReplies {
    async fn next(&mut self) -> Option<Result<pb::AppendReply, Status>> {
        match self.replies.message().await {
            Ok(Some(reply)) => {
                self.window.add_permits(1);
                Some(Ok(reply))
            }
            Ok(None) if self.exhausted.load(Ordering::Acquire) => None,
            Ok(None) => Some(Err(Status::unavailable("the stream ended"))),
            Err(status) => Some(Err(status)),
        }
    }
}

impl NetStreamAppend<Types> for Peer {
    /// The time limit of `option` is one heartbeat. That would end any stream that carries real
    /// work; dead connections are found by HTTP/2 pings instead.
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<Replies<'s>, RPCError>>
    where
        S: Stream<Item = AppendEntriesRequest> + OptionalSend + Unpin + 'static,
    {
        let peer = &*self;
        Box::pin(async move {
            if peer.lane == Lane::Heartbeat {
                let Some(request) = input.next().await else {
                    return Ok(stream::empty().boxed());
                };
                let result = peer.heartbeat(&request).await;
                peer.note(result.as_ref().err());
                let result =
                    result.map_err(|status| failed(&peer.identity, &peer.link, &status).into());
                return Ok(stream::once(std::future::ready(result)).boxed());
            }
            peer.link.due().await;
            let replies = peer
                .append(input)
                .await
                .map_err(|status| failed(&peer.identity, &peer.link, &status))?;
            let replies = stream::unfold(Some(replies), move |replies| async move {
                let mut replies = replies?;
                let result = match replies.next().await? {
                    Ok(reply) => peer.result(reply).await,
                    Err(status) => Err(status),
                };
                match result {
                    Ok(result) => {
                        let more = result.is_ok().then_some(replies);
                        Some((Ok(result), more))
                    }
                    Err(status) => {
                        let error = failed(&peer.identity, &peer.link, &status);
                        Some((Err(error.into()), None))
                    }
                }
            });
            Ok(replies.boxed())
        })
    }
}

impl NetVote<Types> for Peer {
    async fn vote(
        &mut self,
        rpc: VoteRequest,
        _option: RPCOption,
    ) -> Result<VoteResponse, RPCError> {
        let hello = self.identity.hello(self.control.member());
        self.control(async {
            let reply = self
                .control
                .client()?
                .vote(wire::to_vote(hello, &rpc))
                .await?;
            wire::from_vote_reply(reply.into_inner())
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest,
        _option: RPCOption,
    ) -> Result<VoteResponse, RPCError> {
        let hello = self.identity.hello(self.control.member());
        self.control(async {
            let reply = self
                .control
                .client()?
                .pre_vote(wire::to_vote(hello, &rpc))
                .await?;
            wire::from_vote_reply(reply.into_inner())
        })
        .await
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse, RPCError> {
        let hello = self.identity.hello(self.control.member());
        self.control(async {
            let message = wire::to_transfer(hello, &request);
            let reply = self.control.client()?.transfer_leader(message).await?;
            wire::from_transfer_reply(reply.into_inner())
        })
        .await
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = ();

    /// The follower lacks entries that this member does not have any more. It is told so, fetches
    /// what it lacks from whichever member it likes, and has the snapshot's last entry in the end:
    /// this waits for that.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError> {
        let Some(wanted) = snapshot.meta.last_log_id else {
            return Ok(SnapshotResponse::new(vote));
        };
        let mut cancel = std::pin::pin!(cancel);
        tracing::info!(
            member = self.control.member(),
            "member needs entries that are gone from the log: it has to be seeded"
        );
        loop {
            let request = pb::ReseedRequest {
                hello: Some(self.identity.hello(self.control.member())),
                leader: Some(wire::to_ballot(&vote)),
                wanted: Some(wire::to_log_id(&wanted)),
            };
            let answer = async {
                let reply = self.control.client()?.reseed(request).await?;
                Ok::<_, Status>(reply.into_inner())
            };
            let answer = match futures::future::select(&mut cancel, std::pin::pin!(answer)).await {
                Either::Left((closed, _)) => return Err(StreamingError::Closed(closed)),
                Either::Right((answer, _)) => answer,
            };
            match answer {
                Ok(reply) if reply.higher.is_some() => {
                    let higher = wire::from_ballot(reply.higher).map_err(|status| {
                        StreamingError::from(failed(&self.identity, &self.control, &status))
                    })?;
                    return Ok(SnapshotResponse::new(higher));
                }
                Ok(reply) if reply.have => return Ok(SnapshotResponse::new(vote)),
                Ok(_) => {}
                // It is away while it fetches.
                Err(status) => drop(failed(&self.identity, &self.control, &status)),
            }
            let pause = std::pin::pin!(tokio::time::sleep(RESEED_PAUSE));
            if let Either::Left((closed, _)) = futures::future::select(&mut cancel, pause).await {
                return Err(StreamingError::Closed(closed));
            }
        }
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        let last = RETRY_MS[RETRY_MS.len() - 1];
        let waits = RETRY_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(waits.map(Duration::from_millis)))
    }
}

//! The receiving side.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;
use raftmq_proto::command::{Op, TrimLog};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::{Request, Response, Status, Streaming};

use super::supply::Supply;
use super::tcp::{Connection, Listener, incoming};
use super::{
    CONNECTION_WINDOW_BYTES, Forwarder, Identity, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES, wire,
};
use crate::pb;
use crate::pb::raft_server::RaftServer;
use crate::proposer::ProposerHandle;
use crate::standing::Standing;
use crate::succession::EndOfStream;
use crate::types::{
    AppendEntriesRequest, Raft, RaftState, StreamAppendError, VoteRequest, VoteResponse, log_id,
    store_log_id,
};

/// How long a peer may take to send the first message of a stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a candidate's request waits for this member to know whether the group is new.
const DECIDE_TIMEOUT: Duration = Duration::from_millis(150);
/// Connections at once; each member needs four.
const CONNECTIONS_MAX: usize = 256;

/// What the server answers with.
pub(crate) struct ServerParts {
    /// Empty until the member takes part in the group: a log that is being mended can already help
    /// to mend others.
    pub(crate) raft: Arc<OnceLock<Raft>>,
    /// Empty as long.
    pub(crate) proposer: Arc<OnceLock<ProposerHandle>>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) supply: Arc<Supply>,
    pub(crate) standing: watch::Receiver<Standing>,
    /// When a leader was last heard.
    pub(crate) heard: Arc<Mutex<Instant>>,
    /// Told when the leader's stream of entries has ended.
    pub(crate) stream_ended: Arc<Notify>,
    /// Requests that one connection may have under way.
    pub(crate) streams_max: u32,
}

/// Requests given up by their senders that may stand in the socket of a member that was frozen: at HTTP/2's usual 20 it would
/// close the connection when it wakes.
const RESETS_MAX: usize = 4096;

/// Serves until dropped.
pub(crate) async fn serve(
    listener: Listener,
    parts: ServerParts,
) -> Result<(), tonic::transport::Error> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let incoming = incoming(listener).filter_map(move |accepted| {
        let place = places.clone().try_acquire_owned();
        std::future::ready(match (accepted, place) {
            (Ok(stream), Ok(place)) => Some(Ok(Accepted {
                stream,
                _place: place,
            })),
            // One too many: closed at once.
            (Ok(_), Err(_)) => None,
            (Err(error), _) => Some(Err(error)),
        })
    });
    let streams_max = parts.streams_max;
    let service = RaftServer::new(Service { parts })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(streams_max)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
}

/// A connection and its place among those allowed.
struct Accepted {
    stream: Connection,
    _place: OwnedSemaphorePermit,
}

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

struct Service {
    parts: ServerParts,
}

impl Service {
    /// The Raft core, once this member takes part in the group.
    fn raft(&self) -> Result<&Raft, Status> {
        self.parts
            .raft
            .get()
            .ok_or_else(|| Status::unavailable("this member does not take part in the group yet"))
    }

    /// Whether this member may lack entries it acknowledged.
    fn recovering(&self) -> bool {
        *self.parts.standing.borrow() != Standing::Full
    }

    /// The answer to a candidate that this member must not vote for because of its own past.
    /// Whether the group is new is found out within a round trip once the others are there.
    async fn abstention(&self, raft: &Raft, request: &VoteRequest) -> Option<VoteResponse> {
        let mut standing = self.parts.standing.clone();
        let decided = standing.wait_for(|standing| *standing != Standing::Undecided);
        let standing = match tokio::time::timeout(DECIDE_TIMEOUT, decided).await {
            Ok(Ok(standing)) => *standing,
            Ok(Err(_)) | Err(_) => Standing::Undecided,
        };
        if standing.votes_for(request.last_log_id.as_ref().map(store_log_id)) {
            return None;
        }
        let vote = raft.server_metrics().borrow_watched().vote;
        let last = self.parts.supply.log().last().map(log_id);
        Some(VoteResponse::new(vote, last, false))
    }
}

fn stopped(fatal: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this member's Raft core has stopped: {fatal}"))
}

/// Decodes what follows the hello. A bad message ends the stream and is left in `failure`; and so
/// do entries for which there is no room: this member goes on without them, and is sent them again
/// until there is.
fn requests(
    inbound: Streaming<pb::AppendRequest>,
    failure: Arc<Mutex<Option<Status>>>,
    supply: Arc<Supply>,
    until: EndOfStream,
) -> impl Stream<Item = AppendEntriesRequest> + Send + 'static {
    let parts = (inbound, failure, supply, until);
    stream::unfold(parts, |(mut inbound, failure, supply, until)| async move {
        let decoded = match inbound.message().await {
            Ok(Some(message)) => supply
                .require_room(bytes_of(&message))
                .and_then(|()| wire::from_append(message)),
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        match decoded {
            Ok(request) => Some((request, (inbound, failure, supply, until))),
            Err(status) => {
                *failure.lock() = Some(status);
                None
            }
        }
    })
}

fn bytes_of(message: &pb::AppendRequest) -> u64 {
    message.entries.iter().map(|entry| entry.len() as u64).sum()
}

#[tonic::async_trait]
impl pb::raft_server::Raft for Service {
    type AppendStream = BoxStream<'static, Result<pb::AppendReply, Status>>;
    type FetchEntriesStream = BoxStream<'static, Result<pb::FetchReply, Status>>;
    type SeedFileStream = BoxStream<'static, Result<pb::SeedChunk, Status>>;
    type SeedLogStream = BoxStream<'static, Result<pb::SeedChunk, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let remote = request.remote_addr();
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message())
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no hello"))??
            .ok_or_else(|| Status::invalid_argument("no hello"))?;
        self.parts.identity.check(first.hello.as_ref(), remote)?;
        let from = first.hello.map_or(0, |hello| hello.from);

        let failure = Arc::new(Mutex::new(None));
        let raft = self.raft()?;
        // Only leaders send entries.
        *self.parts.heard.lock() = Instant::now();
        let until = EndOfStream {
            from,
            raft: raft.clone(),
            tell: self.parts.stream_ended.clone(),
        };
        let results = raft.stream_append(requests(
            inbound,
            failure.clone(),
            self.parts.supply.clone(),
            until,
        ));
        let standing = self.parts.standing.clone();
        let replies = results.map(move |result| match result {
            Ok(result) => {
                let recovering = *standing.borrow() != Standing::Full;
                Ok(wire::to_append_reply(&result, recovering))
            }
            Err(fatal) => Err(stopped(fatal)),
        });
        // Requests before the bad one are answered first.
        let last = stream::once(async move { failure.lock().take() }).filter_map(move |status| {
            if let Some(status) = &status
                && status.code() == tonic::Code::DataLoss
            {
                tracing::error!(member = from, %status, "entries arrived damaged");
            }
            std::future::ready(status.map(Err))
        });
        Ok(Response::new(replies.chain(last).boxed()))
    }

    /// The Raft core answers an append once everything before it is on disk here. A heartbeat asks
    /// only for the lease, which counts from the moment the core has seen it; waiting for a slow
    /// disk would cost a healthy leader its lease.
    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::AppendReply>, Status> {
        let remote = request.remote_addr();
        let mut message = request.into_inner();
        self.parts
            .identity
            .check(message.hello.take().as_ref(), remote)?;
        let request = wire::from_heartbeat(message)?;
        *self.parts.heard.lock() = Instant::now();
        let (leader, previous) = (request.vote, request.prev_log_id);

        let raft = self.raft()?;
        let answered = pin!(raft.append_entries(request));
        // Messages reach the core in order: once it answers this one, it has seen the heartbeat. A
        // refusal is answered at once and therefore comes first.
        let (tell, told) = oneshot::channel();
        let seen = pin!(async {
            let follows = move |state: &RaftState| {
                // Nobody listens any more once the other answer has come.
                let _unheard = tell.send(*state.vote_ref() == leader);
            };
            raft.external_request(follows).await.is_ok() && told.await.unwrap_or(false)
        });
        let response = match futures::future::select(answered, seen).await {
            Either::Left((response, _)) => response.map_err(stopped)?,
            Either::Right((true, _)) => AppendEntriesResponse::Success,
            Either::Right((false, answered)) => answered.await.map_err(stopped)?,
        };
        let result = match response {
            AppendEntriesResponse::Success => Ok(previous),
            AppendEntriesResponse::PartialSuccess(last) => Ok(last),
            AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
            AppendEntriesResponse::Conflict => match previous {
                Some(previous) => Err(StreamAppendError::Conflict(previous)),
                None => return Err(Status::internal("conflict at the beginning of the log")),
            },
        };
        Ok(Response::new(wire::to_append_reply(
            &result,
            self.recovering(),
        )))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let remote = request.remote_addr();
        let mut message = request.into_inner();
        self.parts
            .identity
            .check(message.hello.take().as_ref(), remote)?;
        let request = wire::from_vote(message)?;
        let raft = self.raft()?;
        let response = match self.abstention(raft, &request).await {
            Some(abstention) => abstention,
            None => raft.vote(request).await.map_err(stopped)?,
        };
        Ok(Response::new(wire::to_vote_reply(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let remote = request.remote_addr();
        let mut message = request.into_inner();
        self.parts
            .identity
            .check(message.hello.take().as_ref(), remote)?;
        let request = wire::from_vote(message)?;
        let raft = self.raft()?;
        let response = match self.abstention(raft, &request).await {
            Some(abstention) => abstention,
            None => raft.pre_vote(request).await.map_err(stopped)?,
        };
        Ok(Response::new(wire::to_vote_reply(&response)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        let remote = request.remote_addr();
        let mut message = request.into_inner();
        self.parts
            .identity
            .check(message.hello.take().as_ref(), remote)?;
        let request = wire::from_transfer(message)?;
        let response = self
            .raft()?
            .handle_transfer_leader(request)
            .await
            .map_err(stopped)?;
        Ok(Response::new(wire::to_transfer_reply(&response)))
    }

    async fn survey(
        &self,
        request: Request<pb::SurveyRequest>,
    ) -> Result<Response<pb::SurveyReply>, Status> {
        let remote = request.remote_addr();
        self.parts
            .identity
            .check(request.into_inner().hello.as_ref(), remote)?;
        let mut reply = self.parts.supply.survey(self.recovering());
        if let Some(raft) = self.parts.raft.get() {
            let server = raft.server_metrics();
            let server = server.borrow_watched();
            reply.leads = server.state == ServerState::Leader;
            reply.term = server.vote.leader_id.term;
            let data = raft.data_metrics();
            let committed = data.borrow_watched().local_committed;
            // Applying is told sooner than committing.
            let committed = committed.as_ref().map(wire::to_log_id);
            reply.committed = committed
                .into_iter()
                .chain(reply.applied)
                .max_by_key(|id| id.index);
        }
        Ok(Response::new(reply))
    }

    async fn fetch_entries(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchEntriesStream>, Status> {
        let remote = request.remote_addr();
        let message = request.into_inner();
        self.parts.identity.check(message.hello.as_ref(), remote)?;
        let recovering = self.recovering();
        let supply = &self.parts.supply;
        Ok(Response::new(supply.entries(
            message.first,
            message.next,
            recovering,
        )))
    }

    async fn reseed(
        &self,
        request: Request<pb::ReseedRequest>,
    ) -> Result<Response<pb::ReseedReply>, Status> {
        let remote = request.remote_addr();
        let message = request.into_inner();
        self.parts.identity.check(message.hello.as_ref(), remote)?;
        let leader = wire::from_ballot(message.leader)?;
        let known = self.raft()?.server_metrics().borrow_watched().vote;
        if known > leader {
            return Ok(Response::new(pb::ReseedReply {
                have: false,
                higher: Some(wire::to_ballot(&known)),
            }));
        }
        let wanted = message.wanted.map(wire::from_log_id);
        let wanted = wanted.ok_or_else(|| Status::invalid_argument("no entry is named"))?;
        let have = self.parts.supply.reseed(store_log_id(&wanted)).await?;
        Ok(Response::new(pb::ReseedReply { have, higher: None }))
    }

    async fn seed_begin(
        &self,
        request: Request<pb::SeedBeginRequest>,
    ) -> Result<Response<pb::SeedPlan>, Status> {
        let remote = request.remote_addr();
        let message = request.into_inner();
        self.parts.identity.check(message.hello.as_ref(), remote)?;
        if self.recovering() {
            return Err(Status::unavailable("this member is not up to date itself"));
        }
        let plan = self.parts.supply.begin_seed(message.seed).await?;
        Ok(Response::new(plan))
    }

    async fn seed_file(
        &self,
        request: Request<pb::SeedFileRequest>,
    ) -> Result<Response<Self::SeedFileStream>, Status> {
        let remote = request.remote_addr();
        let message = request.into_inner();
        self.parts.identity.check(message.hello.as_ref(), remote)?;
        Ok(Response::new(self.parts.supply.seed_file(message)))
    }

    async fn seed_log(
        &self,
        request: Request<pb::SeedLogRequest>,
    ) -> Result<Response<Self::SeedLogStream>, Status> {
        let remote = request.remote_addr();
        let message = request.into_inner();
        self.parts.identity.check(message.hello.as_ref(), remote)?;
        let log = self.parts.supply.seed_log(message.seed, message.position);
        Ok(Response::new(log))
    }

    async fn trim(
        &self,
        request: Request<pb::TrimRequest>,
    ) -> Result<Response<pb::TrimReply>, Status> {
        let remote = request.remote_addr();
        let message = request.into_inner();
        self.parts.identity.check(message.hello.as_ref(), remote)?;
        let proposer = self.parts.proposer.get();
        let proposer = proposer.ok_or_else(|| Status::unavailable("this member does not lead"))?;
        let position = message.position;
        proposer
            .propose(vec![Op::TrimLog(TrimLog { position })])
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pb::TrimReply {}))
    }

    async fn forward(
        &self,
        request: Request<pb::ForwardRequest>,
    ) -> Result<Response<pb::ForwardReply>, Status> {
        let remote = request.remote_addr();
        let mut message = request.into_inner();
        self.parts
            .identity
            .check(message.hello.take().as_ref(), remote)?;
        self.parts
            .forwarder
            .answer(message)
            .await
            .map(Response::new)
    }
}

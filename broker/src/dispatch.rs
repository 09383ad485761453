//! From a request to who handles it: the only match on request codes.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_raft::{ForwardHandler, Group};
use raftmq_remoting::{Connection, Handler, Responder};

use crate::admin::Admin;
use crate::clients::Clients;
use crate::exchange::{Exchange, Outcome, PeerReply, Refusal};
use crate::forward::{Forwarder, Route, Run};
use crate::offsets::Offsets;
use crate::pull::{PullProcessor, Role};
use crate::runtime::Runtime;
use crate::send::SendProcessor;

/// All processors, and the way to the leader.
pub(crate) struct Dispatch {
    pub(crate) group: Group,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) sends: Arc<SendProcessor>,
    pub(crate) pulls: Arc<PullProcessor>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) offsets: Arc<Offsets>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) runtime: Runtime,
    /// `slaveReadEnable`.
    pub(crate) follower_reads: bool,
}

impl Dispatch {
    /// Takes a request to whoever handles it.
    pub(crate) fn handle(self: &Arc<Self>, exchange: Exchange) {
        match exchange.request.code {
            request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => self.pull(exchange),
            request::SEND_MESSAGE
            | request::SEND_MESSAGE_V2
            | request::SEND_BATCH_MESSAGE
            | request::CONSUMER_SEND_MSG_BACK
            | request::QUERY_CONSUMER_OFFSET
            | request::UPDATE_CONSUMER_OFFSET
            | request::SEARCH_OFFSET_BY_TIMESTAMP
            | request::GET_MAX_OFFSET
            | request::GET_MIN_OFFSET
            | request::GET_EARLIEST_MSG_STORETIME
            | request::LOCK_BATCH_MQ
            | request::UNLOCK_BATCH_MQ
            | request::UPDATE_AND_CREATE_TOPIC
            | request::UPDATE_AND_CREATE_TOPIC_LIST
            | request::DELETE_TOPIC_IN_BROKER
            | request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP
            | request::DELETE_SUBSCRIPTIONGROUP
            | request::GET_TOPIC_STATS_INFO
            | request::GET_CONSUME_STATS
            | request::CLEAN_UNUSED_TOPIC
            | request::DELETE_EXPIRED_COMMITLOG
            | request::RAFT_TRANSFER_LEADER
            | request::RAFT_CHANGE_MEMBERS => self.answer_on_leader(exchange, false),
            request::QUERY_MESSAGE => self.answer_on_leader(exchange, true),
            // Without a leader an operator wants to know all the more.
            request::RAFT_MEMBER_STATUS => self.answer_on_leader(exchange, true),
            // Not yet applied here, or nowhere: the leader knows.
            request::VIEW_MESSAGE_BY_ID if !self.admin.has_message(&exchange) => {
                self.answer_on_leader(exchange, true);
            }
            // Without a leader the clients this member knows are better than none.
            request::GET_CONSUMER_LIST_BY_GROUP => self.answer_on_leader(exchange, true),
            _ => self.answer_here(exchange),
        }
    }

    fn answer_on_leader(self: &Arc<Self>, exchange: Exchange, anyway: bool) {
        if self.forwarder.leads_here() {
            self.answer_here(exchange);
        } else {
            self.forwarder.to_leader(exchange, &self.route(anyway));
        }
    }

    /// How a request reaches the leader; `anyway`: this member may answer if there is none.
    fn route(self: &Arc<Self>, anyway: bool) -> Route {
        let dispatch = Arc::clone(self);
        let here: Run = Arc::new(move |exchange| dispatch.answer_here(exchange));
        Route {
            otherwise: anyway.then(|| Arc::clone(&here)),
            here,
            waits: true,
        }
    }

    /// Starts a request over that this member could not carry out, and of which nothing was done.
    pub(crate) fn again(self: &Arc<Self>, exchange: Exchange) {
        self.forwarder.again(exchange, &self.route(false));
    }

    /// Answers a request on this member. Those that only the leader may answer come here once this member leads.
    fn answer_here(self: &Arc<Self>, exchange: Exchange) {
        match exchange.request.code {
            request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                self.sends.process(exchange);
            }
            request::CONSUMER_SEND_MSG_BACK => self.sends.process_back(exchange),

            request::HEART_BEAT => self.clients.heartbeat(exchange),
            request::UNREGISTER_CLIENT => {
                finish(exchange, |exchange| self.clients.unregister(exchange))
            }
            request::GET_CONSUMER_LIST_BY_GROUP => {
                finish(exchange, |exchange| self.clients.consumer_ids(exchange))
            }
            request::CHECK_CLIENT_CONFIG => {
                finish(exchange, |exchange| self.clients.check_config(exchange))
            }

            request::QUERY_CONSUMER_OFFSET => {
                self.later_confirmed(exchange, |d, request| Box::pin(d.offsets.query(request)));
            }
            // Nobody waits for the answer of most.
            request::UPDATE_CONSUMER_OFFSET if !exchange.request.is_oneway() => {
                self.later_confirmed(exchange, |d, request| {
                    Box::pin(d.offsets.update_for_sure(request))
                });
            }
            request::UPDATE_CONSUMER_OFFSET => {
                finish(exchange, |exchange| self.offsets.update(&exchange.request))
            }

            request::GET_MAX_OFFSET => {
                self.confirmed(exchange, |d, exchange| d.admin.max_offset(exchange))
            }
            request::GET_MIN_OFFSET => finish(exchange, |exchange| self.admin.min_offset(exchange)),
            request::SEARCH_OFFSET_BY_TIMESTAMP => {
                self.confirmed(exchange, |d, exchange| d.admin.search_offset(exchange))
            }
            request::GET_EARLIEST_MSG_STORETIME => {
                finish(exchange, |exchange| {
                    self.admin.earliest_store_time(exchange)
                });
            }
            request::VIEW_MESSAGE_BY_ID => {
                finish(exchange, |exchange| self.admin.view_message(exchange))
            }
            request::QUERY_MESSAGE => self.later(exchange, |d, request| {
                Box::pin(d.admin.query_messages(request))
            }),

            request::LOCK_BATCH_MQ => {
                self.later_confirmed(exchange, |d, request| Box::pin(d.admin.lock(request)));
            }
            request::UNLOCK_BATCH_MQ => {
                self.later(exchange, |d, request| Box::pin(d.admin.unlock(request)));
            }

            request::UPDATE_AND_CREATE_TOPIC => self.later_confirmed(exchange, |d, request| {
                Box::pin(d.admin.update_topic(request))
            }),
            _ => self.answer_tool(exchange),
        }
    }

    /// The rest of what tools ask.
    fn answer_tool(self: &Arc<Self>, exchange: Exchange) {
        match exchange.request.code {
            request::UPDATE_AND_CREATE_TOPIC_LIST => {
                self.later_confirmed(exchange, |d, request| {
                    Box::pin(d.admin.update_topics(request))
                });
            }
            request::DELETE_TOPIC_IN_BROKER => self.later_confirmed(exchange, |d, request| {
                Box::pin(d.admin.delete_topic(request))
            }),
            request::GET_ALL_TOPIC_CONFIG => finish(exchange, |_| self.admin.all_topics()),
            request::GET_TOPIC_CONFIG => finish(exchange, |exchange| self.admin.topic(exchange)),
            request::GET_TOPIC_STATS_INFO => {
                self.confirmed(exchange, |d, exchange| d.admin.topic_stats(exchange))
            }
            request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => {
                finish(exchange, |_| self.admin.system_topics())
            }

            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => {
                self.later_confirmed(exchange, |d, request| {
                    Box::pin(d.admin.update_group(request))
                });
            }
            request::DELETE_SUBSCRIPTIONGROUP => self.later(exchange, |d, request| {
                Box::pin(d.admin.delete_group(request))
            }),
            request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => {
                finish(exchange, |_| self.admin.all_groups())
            }
            request::GET_SUBSCRIPTIONGROUP_CONFIG => {
                finish(exchange, |exchange| self.admin.one_group(exchange))
            }
            request::QUERY_TOPIC_CONSUME_BY_WHO => {
                finish(exchange, |exchange| self.admin.groups_of_topic(exchange))
            }
            request::GET_CONSUME_STATS => {
                self.confirmed(exchange, |d, exchange| d.admin.consume_stats(exchange))
            }

            request::GET_CONSUMER_CONNECTION_LIST => {
                finish(exchange, |exchange| {
                    self.admin.consumer_connections(exchange)
                });
            }
            request::GET_PRODUCER_CONNECTION_LIST => {
                finish(exchange, |exchange| {
                    self.admin.producer_connections(exchange)
                });
            }
            request::GET_CONSUMER_RUNNING_INFO => self.later(exchange, |d, request| {
                Box::pin(d.admin.ask_consumer(request))
            }),

            request::CLEAN_EXPIRED_CONSUMEQUEUE => {
                self.later(exchange, |d, _| Box::pin(d.admin.clean_expired_queues()));
            }
            request::CLEAN_UNUSED_TOPIC => {
                self.later(exchange, |d, _| Box::pin(d.admin.clean_unused_topics()));
            }
            request::DELETE_EXPIRED_COMMITLOG => {
                finish(exchange, |_| self.admin.delete_expired_log())
            }

            request::RAFT_MEMBER_STATUS => {
                self.later(exchange, |d, _| Box::pin(d.admin.member_status()));
            }
            request::RAFT_CHANGE_MEMBERS => {
                let dispatch = Arc::clone(self);
                self.runtime.spawn(async move {
                    match dispatch.admin.change_members(&exchange.request).await {
                        Some(outcome) => exchange.finish(outcome),
                        None => dispatch.again(exchange),
                    }
                });
            }
            request::RAFT_TRANSFER_LEADER => self.later(exchange, |d, request| {
                Box::pin(d.admin.transfer_leader(request))
            }),

            request::GET_BROKER_CONFIG => finish(exchange, |_| self.admin.configuration()),
            request::GET_BROKER_RUNTIME_INFO => finish(exchange, |_| self.admin.runtime_info()),
            code => not_supported(exchange, code),
        }
    }

    fn pull(self: &Arc<Self>, exchange: Exchange) {
        if self.forwarder.leads_here() {
            return self.pulls.process(exchange, Role::Leader, None);
        }
        if exchange.is_forwarded() || self.forwarder.hears_leader() && !self.follower_reads {
            return self.pull_from_leader(exchange);
        }
        // What it lacks, as it lags, the leader has.
        let leader = self.forwarder.hears_leader().then(|| -> Run {
            let dispatch = Arc::clone(self);
            Arc::new(move |exchange| dispatch.pull_from_leader(exchange))
        });
        self.pulls
            .process(exchange, Role::Follower, leader.as_ref());
    }

    /// Has the leader answer a pull, or this member if the leader cannot be reached.
    fn pull_from_leader(self: &Arc<Self>, mut exchange: Exchange) {
        self.pulls.add_subscription(&mut exchange);
        let run = |role| -> Run {
            let pulls = Arc::clone(&self.pulls);
            Arc::new(move |exchange| pulls.process(exchange, role, None))
        };
        let route = Route {
            here: run(Role::Leader),
            otherwise: Some(run(Role::Follower)),
            waits: false,
        };
        self.forwarder.to_leader(exchange, &route);
    }

    /// Answers once it is certain that no other member has been elected.
    fn confirmed(
        self: &Arc<Self>,
        exchange: Exchange,
        answer: impl Fn(&Dispatch, &Exchange) -> Outcome + Send + 'static,
    ) {
        let dispatch = Arc::clone(self);
        self.runtime.spawn(async move {
            match dispatch.group.confirm_leadership().await {
                Ok(()) => finish(exchange, |exchange| answer(&dispatch, exchange)),
                Err(_) => dispatch.again(exchange),
            }
        });
    }

    /// The same for what waits. A change of what is as it should be already is not proposed, which would find out that another
    /// member has been elected.
    fn later_confirmed(self: &Arc<Self>, exchange: Exchange, answer: Later) {
        let dispatch = Arc::clone(self);
        self.runtime.spawn(async move {
            match dispatch.group.confirm_leadership().await {
                Ok(()) => {
                    let outcome = answer(&dispatch, &exchange.request).await;
                    exchange.finish(outcome);
                }
                Err(_) => dispatch.again(exchange),
            }
        });
    }

    /// Answers after waiting for the group or for a client.
    fn later(self: &Arc<Self>, exchange: Exchange, answer: Later) {
        let dispatch = Arc::clone(self);
        self.runtime.spawn(async move {
            let outcome = answer(&dispatch, &exchange.request).await;
            exchange.finish(outcome);
        });
    }
}

/// Starts what [`Dispatch::later`] waits for.
type Later = for<'a> fn(
    &'a Dispatch,
    &'a RemotingCommand,
) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

fn finish(exchange: Exchange, answer: impl FnOnce(&Exchange) -> Outcome) {
    let outcome = answer(&exchange);
    exchange.finish(outcome);
}

/// Clients probe for features this way, so the text is the original's.
fn not_supported(exchange: Exchange, code: i32) {
    let remark = format!(" request type {code} not supported");
    exchange.answer(RemotingCommand::failure(
        response::REQUEST_CODE_NOT_SUPPORTED,
        remark,
    ));
}

/// One of the two client ports.
pub(crate) struct Port {
    pub(crate) dispatch: Arc<Dispatch>,
    /// The fast port serves everything but what may be held.
    pub(crate) fast: bool,
}

impl Handler for Port {
    fn handle(&self, request: RemotingCommand, responder: Responder) {
        let exchange = Exchange::from_client(request, responder);
        match exchange.request.code {
            code @ (request::PULL_MESSAGE | request::LITE_PULL_MESSAGE) if self.fast => {
                not_supported(exchange, code)
            }
            _ => self.dispatch.handle(exchange),
        }
    }

    fn closed(&self, connection: &Connection) {
        self.dispatch.clients.closed(connection.id());
    }
}

/// Takes what other members forward. They may do so before this member is complete.
#[derive(Default)]
pub(crate) struct FromPeers {
    /// Weak, because the group holds this and the dispatch holds the group.
    pub(crate) dispatch: OnceLock<Weak<Dispatch>>,
}

impl ForwardHandler for FromPeers {
    fn handle(&self, request: RemotingCommand, from_client: SocketAddr, reply: PeerReply) {
        let exchange = Exchange::from_peer(request, from_client, reply);
        match self.dispatch.get().and_then(Weak::upgrade) {
            Some(dispatch) => dispatch.handle(exchange),
            None => exchange.refuse(Refusal::busy("this member is starting or stopping")),
        }
    }
}

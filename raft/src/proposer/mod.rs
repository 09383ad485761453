//! The one place where submissions become log entries.
//!
//! ```text
//!   submit ─▶ bounded queue ─▶ proposer task ─▶ entry (window of a few) ─▶ Raft core
//!                                 ▲ counters          │ applied, on the apply task
//!                                 └── reload ◀─ error ┴─▶ done(Ok(offsets))
//! ```
//!
//! While this member serves as leader, the task takes whatever is queued as soon as a place in the
//! window is free, gives each record its queue offset and the time, and submits it all as one entry
//! that only the leader of this very term may append. No timer delays anything: alone, a submission
//! goes out at once; under load, entries grow by themselves.
//!
//! The counters are what apply will find as long as every entry is applied in order. After any
//! error that is no longer sure: the task waits until everything under way has an outcome and
//! starts again from the applied state. An entry that was numbered in vain is refused at apply, on
//! every member alike, and its submitters are told to try again.

mod admission;
mod batch;
mod room;
mod submission;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use raftmq_proto::command::{Command, Op};
use raftmq_proto::message::record;
use raftmq_store::{CommitLog, State};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::options::GroupOptions;
use crate::role::{Lease, Role, RoleState};
use crate::types::{ClientWriteError, ClientWriteResult, Completion, Raft};
use admission::Admission;
use batch::{Counters, Item, Messages, Ops, UnderWay, assemble, check_ops, check_records};
use submission::Waiter;
pub use submission::{Done, MessageSubmission, PhysicalOffsets, ProposeError, Stored};

/// Room kept in an entry for its header and the time of a command.
const ENTRY_SPARE: usize = 128;
/// Queues counted before the counters are started anew, to bound their memory.
const QUEUES_MAX: usize = 200_000;
/// How long submissions wait for a new leader's first entry to be applied.
const SERVE_WITHIN: Duration = Duration::from_secs(2);
/// Entries looked at, from the end, for the last store time.
const TIME_ENTRIES_MAX: u64 = 64;

/// Takes submissions.
#[derive(Clone)]
pub(crate) struct ProposerHandle {
    queue: mpsc::UnboundedSender<Item>,
    admission: Arc<Admission>,
    role: watch::Receiver<Role>,
    fatal: watch::Receiver<Option<Arc<str>>>,
    closed: Arc<AtomicBool>,
    entry_max: usize,
}

impl ProposerHandle {
    pub(crate) fn submit(&self, m: MessageSubmission) {
        let waiter = Waiter::new(m.done);
        let admitted = self
            .accepts(m.records.len())
            .and_then(|()| check_records(&m.records, &m.topic, m.queue_id, m.count))
            .and_then(|()| self.admission.admit(m.records.len()));
        match admitted {
            Err(error) => waiter.complete(Err(error)),
            Ok(admitted) => self.enqueue(Item::Messages(Messages {
                topic: m.topic,
                queue_id: m.queue_id,
                records: m.records,
                count: m.count,
                waiter,
                admitted,
            })),
        }
    }

    pub(crate) async fn propose(&self, ops: Vec<Op>) -> Result<(), ProposeError> {
        check_ops(&ops)?;
        let renumbers = ops.iter().any(|op| matches!(op, Op::DeleteTopic(_)));
        let encoded = Command { time_ms: 0, ops }.encode();
        self.accepts(encoded.len())?;
        let admitted = self.admission.admit(encoded.len())?;
        let (done, outcome) = oneshot::channel();
        let waiter = Waiter::new(Box::new(move |result: Result<Stored, ProposeError>| {
            // The proposer may have stopped waiting.
            drop(done.send(result.map(|_| ())));
        }));
        self.enqueue(Item::Ops(Ops {
            encoded,
            renumbers,
            waiter,
            admitted,
        }));
        outcome.await.unwrap_or(Err(ProposeError::Unknown))
    }

    fn accepts(&self, bytes: usize) -> Result<(), ProposeError> {
        if let Some(reason) = self.fatal.borrow().as_ref() {
            return Err(ProposeError::Poisoned(reason.to_string()));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(ProposeError::Closed);
        }
        if bytes > self.entry_max {
            let (size, limit) = (bytes as u64, self.entry_max as u64);
            return Err(ProposeError::TooLarge { size, limit });
        }
        let role = *self.role.borrow();
        if role.state == RoleState::Leader {
            Ok(())
        } else {
            Err(ProposeError::NotLeader {
                leader: role.leader,
            })
        }
    }

    fn enqueue(&self, item: Item) {
        if let Err(mpsc::error::SendError(item)) = self.queue.send(item) {
            item.refuse(ProposeError::Closed);
        }
    }

    /// Refuses all later submissions.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// The proposer task of a group.
pub(crate) struct Proposer {
    raft: Raft,
    log: CommitLog,
    state: Arc<State>,
    lease: Lease,
    role: watch::Receiver<Role>,
    queue: mpsc::UnboundedReceiver<Item>,
    /// Taken from the queue but not fitting into the last entry.
    carried: Option<Item>,
    window: Arc<Semaphore>,
    window_size: u32,
    /// Some entry came to nothing: the counters are wrong.
    stale: Arc<AtomicBool>,
    submissions_max: usize,
    bytes_max: usize,
}

impl Proposer {
    pub(crate) fn new(
        options: &GroupOptions,
        raft: Raft,
        (log, state): (CommitLog, Arc<State>),
        lease: Lease,
        role: watch::Receiver<Role>,
        fatal: watch::Receiver<Option<Arc<str>>>,
    ) -> (Proposer, ProposerHandle) {
        let (sender, queue) = mpsc::unbounded_channel();
        let log_max = usize::try_from(log.entry_bytes_max()).unwrap_or(usize::MAX);
        let entry_max = log_max.saturating_sub(ENTRY_SPARE);
        let handle = ProposerHandle {
            queue: sender,
            admission: Admission::new(options.queue_count_max, options.queue_bytes_max),
            role: role.clone(),
            fatal,
            closed: Arc::default(),
            entry_max,
        };
        let window_size = u32::try_from(options.proposals_in_flight).unwrap_or(u32::MAX);
        let proposer = Proposer {
            raft,
            log,
            state,
            lease,
            role,
            queue,
            carried: None,
            window: Arc::new(Semaphore::new(window_size as usize)),
            window_size,
            stale: Arc::default(),
            submissions_max: options.entry_submissions_max,
            bytes_max: options.entry_bytes_max.min(entry_max),
        };
        (proposer, handle)
    }

    /// Runs until all handles are gone or the Raft core has stopped.
    pub(crate) async fn run(mut self) {
        while let Some(term) = self.leadership().await {
            if !self.lead(term).await {
                break;
            }
        }
        self.queue.close();
        self.refuse_queued(&ProposeError::Closed);
    }

    /// Waits until this member serves as leader and returns its term; `None` at the end.
    async fn leadership(&mut self) -> Option<u64> {
        loop {
            let role = *self.role.borrow_and_update();
            if role.serving {
                return Some(role.term);
            }
            let patience = if role.state == RoleState::Leader {
                SERVE_WITHIN
            } else {
                self.refuse_queued(&ProposeError::NotLeader {
                    leader: role.leader,
                });
                Duration::MAX
            };
            tokio::select! {
                changed = self.role.changed() => changed.ok()?,
                // A leader's first entry is normally applied within milliseconds; what was
                // submitted meanwhile is kept.
                item = self.queue.recv(), if role.state != RoleState::Leader => {
                    item?.refuse(ProposeError::NotLeader { leader: role.leader });
                }
                () = tokio::time::sleep(patience), if role.state == RoleState::Leader => {
                    self.refuse_queued(&ProposeError::NotLeader { leader: None });
                }
            }
        }
    }

    fn refuse_queued(&mut self, error: &ProposeError) {
        if let Some(item) = self.carried.take() {
            item.refuse(error.clone());
        }
        while let Ok(item) = self.queue.try_recv() {
            item.refuse(error.clone());
        }
    }

    fn leads(&mut self, term: u64) -> bool {
        let role = *self.role.borrow_and_update();
        role.serving && role.term == term
    }

    /// Proposes until leadership of this term ends; false when there is nothing left to live for.
    async fn lead(&mut self, term: u64) -> bool {
        // Everything of earlier terms has its outcome before the first counter is loaded.
        let mut counters = match self.all_resolved(term).await {
            Some(counters) => counters,
            None => return true,
        };
        let mut time_ms = last_store_time(&self.log);
        while let Some(place) = self.places(1, term).await {
            let first = match self.carried.take() {
                Some(item) => item,
                None => tokio::select! {
                    item = self.queue.recv() => match item {
                        Some(item) => item,
                        None => return false,
                    },
                    changed = self.role.changed() => {
                        if changed.is_err() {
                            return false;
                        }
                        if self.leads(term) {
                            continue;
                        }
                        return true;
                    }
                },
            };
            if self.stale.load(Ordering::Acquire) || counters.queues() > QUEUES_MAX {
                self.carried = Some(first);
                drop(place);
                counters = match self.all_resolved(term).await {
                    Some(counters) => counters,
                    None => return true,
                };
                continue;
            }
            time_ms = time_ms.max(now_ms());
            let renumbers = first.renumbers();
            // An append that meets a full disk would end this member.
            let items = self.gather(first);
            let items = room::keep_what_fits(&self.log, items);
            if items.is_empty() {
                continue;
            }
            let state = &self.state;
            let (proposal, under_way) = assemble(items, time_ms, &mut counters, |topic, queue| {
                state.next_offset(topic, queue)
            });
            if renumbers {
                self.stale.store(true, Ordering::Release);
            }
            let entry = EntryUnderWay {
                submissions: Some(under_way),
                stale: self.stale.clone(),
                place: Some(place),
            };
            let completion = Completion::new(move |result| entry.complete(result));
            let sent = self
                .raft
                .write(proposal)
                .with_leader(term)
                .responder(completion)
                .await;
            if let Err(fatal) = sent {
                tracing::debug!(%fatal, "the Raft core takes no proposals any more");
                return false;
            }
        }
        true
    }

    /// Waits until every entry under way has its outcome; the counters start empty then. `None`
    /// when leadership of the term ended meanwhile.
    async fn all_resolved(&mut self, term: u64) -> Option<Counters> {
        let all = self.places(self.window_size, term).await?;
        self.stale.store(false, Ordering::Release);
        drop(all);
        Some(Counters::default())
    }

    /// Waits for so many places in the window, as long as this member leads the term. A leader that
    /// has lost its quorum may wait long: what is queued is refused then.
    async fn places(&mut self, count: u32, term: u64) -> Option<OwnedSemaphorePermit> {
        let acquire = self.window.clone().acquire_many_owned(count);
        tokio::pin!(acquire);
        loop {
            tokio::select! {
                biased;
                places = &mut acquire => return places.ok(),
                changed = self.role.changed() => {
                    if changed.is_err() || !self.leads(term) {
                        return None;
                    }
                }
                () = tokio::time::sleep(self.lease.length()) => {
                    if !self.lease.holds() {
                        self.refuse_queued(&ProposeError::NotLeader { leader: None });
                    }
                }
            }
        }
    }

    /// Takes what is queued, as much as goes into one entry.
    fn gather(&mut self, first: Item) -> Vec<Item> {
        let mut bytes = first.len();
        let alone = first.renumbers();
        let mut items = vec![first];
        while !alone && items.len() < self.submissions_max && bytes < self.bytes_max {
            let Ok(item) = self.queue.try_recv() else {
                break;
            };
            if item.renumbers() || bytes + item.len() > self.bytes_max {
                self.carried = Some(item);
                break;
            }
            bytes += item.len();
            items.push(item);
        }
        items
    }
}

/// An entry whose outcome is not known. Dropped with the Raft core if that ends first.
struct EntryUnderWay {
    submissions: Option<Vec<UnderWay>>,
    stale: Arc<AtomicBool>,
    place: Option<OwnedSemaphorePermit>,
}

impl EntryUnderWay {
    /// Called on the apply task, or on the Raft core's for an entry that is not applied.
    fn complete(mut self, result: ClientWriteResult) {
        let submissions = self.submissions.take().unwrap_or_default();
        let error = match result {
            Ok(response) => {
                if !response.data.refused.is_empty() {
                    self.stale.store(true, Ordering::Release);
                }
                drop(self.place.take());
                for submission in submissions {
                    submission.applied(&response.data);
                }
                return;
            }
            // Refused before it was appended.
            Err(ClientWriteError::ForwardToLeader(to)) => ProposeError::NotLeader {
                leader: to.leader_id,
            },
            // Appended here, then replaced by a new leader's entry; another leader may still
            // bring it back.
            Err(
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => ProposeError::Unknown,
        };
        self.stale.store(true, Ordering::Release);
        drop(self.place.take());
        for submission in submissions {
            submission.failed(error.clone());
        }
    }
}

impl Drop for EntryUnderWay {
    fn drop(&mut self) {
        if self.submissions.is_some() {
            self.stale.store(true, Ordering::Release);
        }
    }
}

/// The wall clock in milliseconds.
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The store time of the last record near the end of the log: later ones must not lie before it,
/// even if this member's clock is behind the last leader's.
fn last_store_time(log: &CommitLog) -> i64 {
    let Some(last) = log.last() else { return 0 };
    let first = log
        .first_index()
        .max(last.index.saturating_sub(TIME_ENTRIES_MAX - 1));
    for index in (first..=last.index).rev() {
        let Ok(entries) = log.read(index, index + 1, None) else {
            return 0;
        };
        for entry in entries {
            let records = record::records(entry.records_slice()).map_while(Result::ok);
            if let Some(last) = records.last() {
                return last.store_timestamp();
            }
        }
    }
    0
}

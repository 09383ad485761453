//! Consumer offsets (14, 15): saved in memory at once, through the log within 100 ms. Whoever waits for an answer gets it once
//! the group has applied the offset. RocketMQ: `ConsumerOffsetManager`.

pub(crate) mod overlay;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raftmq_proto::code::response;
use raftmq_proto::command::{Op, SaveOffsets};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    QueryConsumerOffsetRequestHeader, QueryConsumerOffsetResponseHeader,
    UpdateConsumerOffsetRequestHeader,
};
use raftmq_raft::Group;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::exchange::{Outcome, Refusal, header};
use overlay::{OffsetKey, Overlay, Saved};

/// A saved offset waits at most this long for its batch.
const SAVE_PERIOD: Duration = Duration::from_millis(100);
/// How long an answer may take. Without a quorum an offset may never be saved.
const SAVED_WITHIN: Duration = Duration::from_secs(3);
/// Offsets in one entry: some 100 bytes each.
const BATCH_MAX: usize = 8192;
/// Offsets that wait: every queue of every group of a large installation.
const WAITING_MAX: usize = 2_000_000;

/// The offsets of all groups, as the leader knows them.
pub(crate) struct Offsets {
    group: Group,
    overlay: Mutex<Overlay>,
    /// Somebody waits for what is saved: it goes into the log at once.
    hurry: Notify,
    /// Told whenever a batch has been applied, or what waited was given up.
    settled: watch::Sender<()>,
    pulled: Mutex<Pulled>,
    recent_bytes: u64,
}

/// Topic → queue → offset.
type OffsetsByQueue = HashMap<Arc<str>, HashMap<i32, i64>>;

/// Where groups pull at, for the lag shown by tools.
#[derive(Default)]
struct Pulled {
    groups: HashMap<Arc<str>, OffsetsByQueue>,
    count: usize,
}

impl Offsets {
    /// `recent_bytes`: how far behind the end of the log a message counts as recent.
    pub(crate) fn new(group: Group, recent_bytes: u64) -> Offsets {
        Offsets {
            group,
            overlay: Mutex::new(Overlay::new(WAITING_MAX)),
            hurry: Notify::new(),
            settled: watch::Sender::default(),
            pulled: Mutex::default(),
            recent_bytes,
        }
    }

    /// The offset of a group in a queue: saved last, applied or not.
    pub(crate) fn known(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let key = OffsetKey {
            group: group.into(),
            topic: topic.into(),
            queue_id,
        };
        let saved = self.overlay.lock().get(&key);
        // What waits here may have been overtaken while another member led.
        saved.max(
            self.group
                .store()
                .state
                .consumer_offset(group, topic, queue_id),
        )
    }

    /// Topics in which a group has saved an offset, applied or not.
    pub(crate) fn topics_of(&self, group: &str) -> BTreeSet<String> {
        let waiting = self.overlay.lock();
        let mut topics: BTreeSet<String> = waiting
            .topics(group)
            .map(|topic| topic.to_string())
            .collect();
        drop(waiting);
        let applied = self.group.store().state.offsets_of_group(group);
        topics.extend(applied.iter().map(|(topic, ..)| topic.to_string()));
        topics
    }

    /// Saves an offset. An ordinary save never moves a group back: what arrives late from the former owner of a queue
    /// is answered like any other and changes nothing.
    pub(crate) fn save(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<(), Refusal> {
        let state = &self.group.store().state;
        let max = state.queue_bounds(topic, queue_id).max;
        check_range(offset, max)?;
        let key = OffsetKey {
            group: group.into(),
            topic: topic.into(),
            queue_id,
        };
        let applied = state.consumer_offset(group, topic, queue_id);
        match self.overlay.lock().save(key, offset, applied) {
            Saved::Taken | Saved::Same => Ok(()),
            Saved::Behind(known) => {
                tracing::debug!(
                    group,
                    topic,
                    queue_id,
                    offset,
                    known,
                    "offset behind the known one is not saved"
                );
                Ok(())
            }
            Saved::Full => Err(Refusal::busy(format!(
                "more than {WAITING_MAX} consumer offsets wait to be saved"
            ))),
        }
    }

    /// Notes where a group pulls at.
    pub(crate) fn note_pull(&self, group: &Arc<str>, topic: &Arc<str>, queue_id: i32, offset: i64) {
        let mut pulled = self.pulled.lock();
        let Pulled { groups, count } = &mut *pulled;
        if let Some(known) = groups
            .get_mut(group)
            .and_then(|topics| topics.get_mut(topic)?.get_mut(&queue_id))
        {
            *known = offset;
            return;
        }
        if *count < WAITING_MAX {
            *count += 1;
            let topics = groups.entry(Arc::clone(group)).or_default();
            topics
                .entry(Arc::clone(topic))
                .or_default()
                .insert(queue_id, offset);
        }
    }

    /// Where a group last pulled at.
    pub(crate) fn pulled(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.pulled
            .lock()
            .groups
            .get(group)?
            .get(topic)?
            .get(&queue_id)
            .copied()
    }

    /// 15, for somebody who waits: the group has applied the offset, or a larger one, when it is answered.
    pub(crate) async fn update_for_sure(&self, request: &RemotingCommand) -> Outcome {
        let header: UpdateConsumerOffsetRequestHeader = header(request)?;
        let answer = self.update(request)?;
        let (group, topic) = (&header.consumer_group, &header.topic);
        self.applied(group, topic, header.queue_id, header.commit_offset)
            .await?;
        Ok(answer)
    }

    /// Waits until the group has applied an offset that was saved, or a larger one.
    async fn applied(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        offset: i64,
    ) -> Result<(), Refusal> {
        let mut settled = self.settled.subscribe();
        self.hurry.notify_one();
        let applied = async {
            loop {
                let state = &self.group.store().state;
                if state.consumer_offset(group, topic, queue_id) >= Some(offset) {
                    return Ok(());
                }
                if !self.group.role().borrow().serving || settled.changed().await.is_err() {
                    return Err(Refusal::busy("another member leads; ask it"));
                }
            }
        };
        tokio::select! {
            outcome = timeout(SAVED_WITHIN, applied) => outcome.unwrap_or_else(|_elapsed| {
                Err(Refusal::error(format!(
                    "outcome unknown: not acknowledged by a quorum within {} ms",
                    SAVED_WITHIN.as_millis()
                )))
            }),
            loss = self.group.lost() => {
                let name = self.group.name();
                Err(Refusal::error(format!("outcome unknown: group {name} has {loss}")))
            }
        }
    }

    /// 15.
    pub(crate) fn update(&self, request: &RemotingCommand) -> Outcome {
        let header: UpdateConsumerOffsetRequestHeader = header(request)?;
        let state = &self.group.store().state;
        if state.group(&header.consumer_group).is_none() {
            let text = format!("Group {} not exist!", header.consumer_group);
            return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, text));
        }
        if state.topic(&header.topic).is_none() {
            return Err(Refusal::new(
                response::TOPIC_NOT_EXIST,
                format!("Topic {} not exist!", header.topic),
            ));
        }
        self.save(
            &header.consumer_group,
            &header.topic,
            header.queue_id,
            header.commit_offset,
        )?;
        Ok(RemotingCommand::success())
    }

    /// 14. The caller has confirmed that this member still leads.
    ///
    /// What waits to be applied could be lost with this member: it is told once it cannot.
    pub(crate) async fn query(&self, request: &RemotingCommand) -> Outcome {
        let header: QueryConsumerOffsetRequestHeader = header(request)?;
        let (group, topic) = (&header.consumer_group, &header.topic);
        let offset = match self.known(group, topic, header.queue_id) {
            Some(offset) => {
                self.applied(group, topic, header.queue_id, offset).await?;
                offset
            }
            // A new group on a young queue starts at its beginning, whatever its consumers ask for.
            None if header.set_zero_if_not_found != Some(false)
                && self.is_young(topic, header.queue_id) =>
            {
                0
            }
            None => {
                let text = "Not found, maybe this group consumer boot first";
                return Err(Refusal::new(response::QUERY_NOT_FOUND, text));
            }
        };
        Ok(RemotingCommand::success().with_header(&QueryConsumerOffsetResponseHeader { offset }))
    }

    /// Whether the first message of the queue is still there and recent.
    fn is_young(&self, topic: &str, queue_id: i32) -> bool {
        let store = self.group.store();
        if store.state.queue_bounds(topic, queue_id).min > 0 {
            return false;
        }
        let first = store.state.units(topic, queue_id, 0, 1);
        let recent =
            |offset: u64| store.log.end_position().saturating_sub(offset) <= self.recent_bytes;
        first.is_ok_and(|units| {
            units
                .first()
                .is_some_and(|unit| recent(unit.physical_offset))
        })
    }

    /// Forgets saved offsets that `gone` picks.
    pub(crate) fn forget(&self, gone: impl Fn(&OffsetKey) -> bool) {
        self.overlay.lock().forget(gone);
    }

    /// Proposes what was saved, for as long as the member runs.
    pub(crate) async fn run_saving(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SAVE_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.hurry.notified() => {}
            }
            if !self.group.role().borrow().serving {
                // Another member takes the offsets now; what was not proposed its clients save there again.
                self.forget(|_| true);
                self.settled.send_replace(());
                *self.pulled.lock() = Pulled::default();
                continue;
            }
            self.save_all().await;
        }
    }

    /// Proposes everything that waits; gives up at the first batch that fails, to try again with the next tick.
    pub(crate) async fn save_all(&self) {
        loop {
            let batch = self.overlay.lock().batch(BATCH_MAX);
            if batch.is_empty() {
                return;
            }
            let op = Op::SaveOffsets(SaveOffsets {
                rows: overlay::rows(&batch),
            });
            match self.group.propose(vec![op]).await {
                Ok(()) => {
                    self.overlay.lock().applied(&batch);
                    self.settled.send_replace(());
                }
                Err(error) => {
                    tracing::debug!(%error, rows = batch.len(), "consumer offsets not saved yet");
                    return;
                }
            }
        }
    }
}

/// An offset beyond the end of the queue would, never going back, make its group skip what arrives next.
fn check_range(offset: i64, max: u64) -> Result<(), Refusal> {
    match u64::try_from(offset) {
        Ok(offset) if offset <= max => Ok(()),
        _ => Err(Refusal::invalid(format!(
            "commitOffset = {offset} is outside of the queue: 0 to {max}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_offsets_within_the_queue_are_saved() {
        assert_eq!(check_range(0, 0), Ok(()));
        assert_eq!(check_range(7, 7), Ok(()));
        for offset in [8, -1, i64::MIN, i64::MAX] {
            assert_eq!(
                check_range(offset, 7).unwrap_err().code,
                response::INVALID_PARAMETER
            );
        }
    }
}

//! What clients send, save and read, and what they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use raftmq_proto::command::{OffsetRow, Op, SaveOffsets};
use raftmq_raft::{MessageSubmission, ProposeError, Stored};

use super::{Due, Said, Simulation};
use crate::history::{Attempt, Check, GROUP, Outcome, QUEUES, TOPIC};
use crate::invariants::no_acknowledged_loss;
use crate::os::{self, MS};
use crate::violation;
use crate::workload::{Client, PATIENCE, is_refusal, records};

impl Simulation {
    /// Takes what the members have said.
    pub(super) fn hear(&mut self) -> Check {
        let said = std::mem::take(&mut *self.said.lock());
        for said in said {
            match said {
                Said::Attempt(attempt, result) => self.answered(attempt, result)?,
                Said::Offsets(sent, result) => {
                    if result.is_ok() {
                        for (saved, sent) in self.history.saved_offset.iter_mut().zip(sent) {
                            *saved = (*saved).max(sent);
                        }
                    }
                }
                Said::Read(member, floor, next) => {
                    self.history.reads += 1;
                    no_acknowledged_loss::read(member, &floor, &next)?;
                }
                Said::Stopped(member, life) => {
                    let now = self.members[member].life.as_ref().map(|life| life.number);
                    if now == Some(life) {
                        self.note(format_args!("n{member} has stopped"));
                        self.crash(member, false)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, id: u64, result: Result<Stored, ProposeError>) -> Check {
        let attempt = &mut self.history.attempts[id as usize];
        if attempt.outcome.is_some() {
            return violation!(
                "no_acknowledged_loss",
                "attempt {id} was answered twice: {:?} and {result:?}",
                attempt.outcome
            );
        }
        let (client, number) = (attempt.client, attempt.number);
        let outcome = match result {
            Ok(stored) => Outcome::Stored(stored),
            Err(error) if is_refusal(&error) => Outcome::Refused(error),
            Err(_) => Outcome::Unknown,
        };
        attempt.outcome = Some(outcome.clone());
        let it = &mut self.clients[client];
        match outcome {
            Outcome::Stored(stored) => {
                it.acknowledged += 1;
                it.open.remove(&number);
                self.history.stored += 1;
                return no_acknowledged_loss::acknowledged(&mut self.history, id, &stored);
            }
            Outcome::Refused(ProposeError::NotLeader {
                leader: Some(leader),
            }) => {
                it.leader = leader as usize;
                self.history.refused += 1;
            }
            Outcome::Refused(_) => {
                it.ask_anyone();
                self.history.refused += 1;
            }
            Outcome::Unknown => self.history.unknown += 1,
        }
        if self.clients[client].open.get(&number) == Some(&Some(id)) {
            self.later(client, number);
        }
        Ok(())
    }

    /// A client wants something new stored, if it has not enough under way.
    pub(super) fn send_next(&mut self, client: usize) -> Check {
        if self.closing {
            return Ok(());
        }
        let delay = self.around(self.plan.think);
        self.after(delay, Due::Send(client));
        let it = &mut self.clients[client];
        if it.open.len() >= self.plan.width {
            return Ok(());
        }
        it.next += 1;
        let number = it.next;
        self.send(client, number)
    }

    pub(super) fn retry(&mut self, client: usize, number: u64) -> Check {
        if self.clients[client].open.get(&number) == Some(&None) {
            return self.send(client, number);
        }
        Ok(())
    }

    /// What is not answered in time is tried again, with somebody else.
    pub(super) fn time_out(&mut self, client: usize, number: u64, attempt: u64) -> Check {
        let it = &mut self.clients[client];
        if it.open.get(&number) == Some(&Some(attempt)) {
            it.ask_anyone();
            return self.send(client, number);
        }
        Ok(())
    }

    /// Tries again after a while.
    fn later(&mut self, client: usize, number: u64) {
        let it = &mut self.clients[client];
        it.open.insert(number, None);
        let delay = it.random.range(5 * MS, 100 * MS);
        self.after(delay, Due::Retry { client, number });
    }

    fn send(&mut self, client: usize, number: u64) -> Check {
        let it = &mut self.clients[client];
        let (queue, count, target) = (it.queue, Client::count(number), it.leader);
        let padding = it.random.below(self.plan.padding) as usize;
        let member = &mut self.members[target];
        let (Some(life), Some(group)) = (&member.life, member.group()) else {
            // Nobody listens there.
            it.ask_anyone();
            self.later(client, number);
            return Ok(());
        };
        let id = self.history.attempts.len() as u64;
        it.open.insert(number, Some(id));
        self.history.attempts.push(Attempt {
            client,
            number,
            queue,
            count,
            member: target,
            above: self.history.acknowledged[queue],
            outcome: None,
        });
        os::enter(target, member.skew);
        let (alive, said) = (life.alive.clone(), self.said.clone());
        group.submit(MessageSubmission {
            topic: TOPIC.into(),
            queue_id: queue as i32,
            records: records(id, queue, count, padding),
            count,
            done: Box::new(move |result| {
                if alive.load(Ordering::Relaxed) {
                    said.lock().push(Said::Attempt(id, result));
                }
            }),
        });
        member.wakes = Some(os::now());
        self.after(
            PATIENCE,
            Due::Timeout {
                client,
                number,
                attempt: id,
            },
        );
        self.hear()
    }

    pub(super) fn save_offsets(&mut self) -> Check {
        let Some(leader) = self.members.iter().find(|member| member.leads()) else {
            return Ok(());
        };
        let id = leader.id;
        let mut rows = Vec::new();
        let mut sent = [0; QUEUES];
        for (queue, sent) in sent.iter_mut().enumerate() {
            let Some(acknowledged) = self.history.acknowledged[queue] else {
                continue;
            };
            *sent = acknowledged as i64 + 1;
            rows.push(OffsetRow {
                group: GROUP.to_owned(),
                topic: TOPIC.to_owned(),
                queue_id: queue as i32,
                offset: *sent,
                reset: false,
            });
            let highest = &mut self.history.sent_offset[queue];
            *highest = (*highest).max(*sent);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let said = self.said.clone();
        self.ask(id, move |group, alive| async move {
            let ops = vec![Op::SaveOffsets(SaveOffsets { rows })];
            let result = group.propose(ops).await;
            if alive.load(Ordering::Relaxed) {
                said.lock().push(Said::Offsets(sent, result));
            }
        });
        Ok(())
    }

    /// Somebody who believes to lead is asked to make sure and then to show what it has.
    pub(super) fn read(&mut self) -> Check {
        let floor = self.history.acknowledged;
        let leaders: Vec<usize> = self
            .members
            .iter()
            .filter(|member| member.leads())
            .map(|member| member.id)
            .collect();
        for id in leaders {
            let said = self.said.clone();
            self.ask(id, move |group, alive| async move {
                if group.confirm_leadership().await.is_ok() && alive.load(Ordering::Relaxed) {
                    let state = &group.store().state;
                    let next = std::array::from_fn(|queue| state.next_offset(TOPIC, queue as i32));
                    said.lock().push(Said::Read(id, floor, next));
                }
            });
        }
        Ok(())
    }

    /// Has a member do something.
    pub(super) fn ask<F>(
        &mut self,
        id: usize,
        what: impl FnOnce(raftmq_raft::Group, Arc<AtomicBool>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let member = &mut self.members[id];
        let Some(life) = &member.life else { return };
        let Some(group) = &life.group else { return };
        life.runtime.spawn(what(group.clone(), life.alive.clone()));
        member.wakes = Some(os::now());
    }
}

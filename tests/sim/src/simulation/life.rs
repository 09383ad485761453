//! Members start, run, flush, cut their state, and die.

use std::sync::atomic::Ordering;

use raftmq_raft::{Role, RoleState};

use super::process::PANICKED;
use super::{Due, Simulation};
use crate::history::Check;
use crate::invariants::{election_safety, leader_completeness, liveness, state_machine_order};
use crate::member::DiskFault;
use crate::os::{self, MS};
use crate::run::Flaw;

impl Simulation {
    /// After a member has run, or something was done to it.
    pub(super) fn look_at(&mut self, id: usize) -> Check {
        if PANICKED.load(Ordering::Relaxed) {
            return liveness::broken(format!("n{id} panicked"));
        }
        let fault = self.members[id].fault.lock().take();
        match fault {
            Some(DiskFault::Stop) => {
                self.note(format_args!("n{id}: power is cut in the middle of a write"));
                self.count("torn-writes");
                return self.crash(id, true);
            }
            Some(DiskFault::Error) => {
                self.note(format_args!("n{id}: a disk operation fails"));
                self.count("io-errors");
                if let Some(life) = &mut self.members[id].life {
                    life.failing = true;
                }
            }
            None => {}
        }
        self.hear()?;
        let member = &mut self.members[id];
        let Some(life) = &mut member.life else {
            return Ok(());
        };
        if life.group.is_none() {
            let started = life.started.lock().take();
            match started {
                None => {}
                Some(Ok(group)) => life.group = Some(group),
                Some(Err(_)) if life.failing => {
                    return self.crash(id, false);
                }
                Some(Err(error)) => {
                    return liveness::broken(format!("n{id} does not start: {error}"));
                }
            }
        }
        let written = life.written.swap(false, Ordering::Relaxed);
        if written && !life.flush_due {
            life.flush_due = true;
            let due = Due::Flush {
                member: id,
                life: life.number,
            };
            let delay = if self.plan.async_flush {
                500 * MS
            } else {
                self.network.disk_latency(id)
            };
            self.after(delay, due);
        }
        self.look_at_group(id)
    }

    fn look_at_group(&mut self, id: usize) -> Check {
        let member = &mut self.members[id];
        let Some(life) = &mut member.life else {
            return Ok(());
        };
        let Some(group) = &life.group else {
            return Ok(());
        };
        let fatal = group.fatal().borrow().clone();
        if let Some(reason) = fatal {
            if life.failing {
                self.note(format_args!("n{id} ends: {reason}"));
                return self.crash(id, false);
            }
            if !life.stopping {
                return liveness::broken(format!("n{id} ended by itself: {reason}"));
            }
        }
        if let Some(reason) = group.restart_wanted().borrow().clone() {
            return liveness::broken(format!("n{id} wants to be started again: {reason}"));
        }
        let marks = group.watermarks();
        let log = &life.store.log;
        let role = *group.role().borrow();
        let applied = &mut life.applied;
        state_machine_order::check(&mut self.history, id, applied, log, &marks, role.term)?;
        if self.plan.flaw == Some(Flaw::Overruled)
            && let Some(applied) = self.history.committed.last_mut()
        {
            applied.crc = !applied.crc;
        }
        election_safety::check(&mut self.history, id, &role)?;
        if self.plan.flaw == Some(Flaw::TwoLeaders) && role.state == RoleState::Follower {
            let state = RoleState::Leader;
            election_safety::check(&mut self.history, id, &Role { state, ..role })?;
        }
        if life.role != Some((role.term, role.state)) {
            life.role = Some((role.term, role.state));
            let begins = role.state == RoleState::Leader;
            if begins {
                leader_completeness::check(&self.history, id, role.term, log)?;
            }
            self.note(format_args!(
                "n{id} is {:?} of term {} with {:?}, applied {:?}",
                role.state, role.term, marks.last, marks.applied
            ));
            if begins {
                self.check_logs(false)?;
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, id: usize) -> Check {
        if self.members[id].life.is_some() {
            return Ok(());
        }
        self.network.power_on(id);
        let started = self.members[id].start();
        self.note(format_args!(
            "n{id} starts: {:?}",
            started
                .as_ref()
                .map(|()| self.members[id].life.as_ref().map(|life| {
                    (
                        life.store.last_stop(),
                        life.store.log.last(),
                        life.store.state.applied(),
                    )
                }))
        ));
        if let Err(error) = started {
            let fault = self.members[id].fault.lock().take();
            match fault {
                Some(fault) => return self.crash(id, fault == DiskFault::Stop),
                None => return liveness::broken(format!("n{id} does not open: {error}")),
            }
        }
        self.look_at(id)
    }

    /// The process, or with `power` the machine, of a member ends; it comes back later.
    pub(super) fn crash(&mut self, id: usize, power: bool) -> Check {
        self.network.crash(id, power);
        let mut random = self.random.fork();
        self.members[id].crash(power, &mut random);
        let delay = if self.healed.is_some() {
            100 * MS
        } else {
            self.random.range(20 * MS, self.plan.mended)
        };
        self.after(delay, Due::Start(id));
        self.hear()
    }

    pub(super) fn flush(&mut self, id: usize, number: u64) -> Check {
        let member = &mut self.members[id];
        let Some(life) = member.life.as_mut().filter(|life| life.number == number) else {
            return Ok(());
        };
        life.flush_due = false;
        if member.paused {
            // The kernel goes on, but nobody is there to be told.
            life.flush_due = true;
            self.after(
                10 * MS,
                Due::Flush {
                    member: id,
                    life: number,
                },
            );
            return Ok(());
        }
        os::enter(id, member.skew);
        life.written.store(false, Ordering::Relaxed);
        drop(life.store.log.flush());
        member.wakes = Some(os::now());
        self.look_at(id)
    }

    pub(super) fn persist(&mut self, id: usize) -> Check {
        let delay = self.around(self.plan.persist_every);
        self.after(delay, Due::Persist(id));
        let member = &mut self.members[id];
        let Some(life) = member.life.as_mut().filter(|_| !member.paused) else {
            return Ok(());
        };
        os::enter(id, member.skew);
        drop(life.store.state.persist());
        member.wakes = Some(os::now());
        self.look_at(id)
    }
}

//! What goes wrong, and its end.

use super::{Due, Mend, Said, Simulation};
use crate::MEMBERS;
use crate::faults::{Kind, other};
use crate::history::Check;
use crate::member::{DiskFault, Member};
use crate::net::DiskLatency;
use crate::os::{self, MS, Nanos, SECOND};
use crate::run::Flaw;

/// Acknowledgements that each client must get after everything is healed.
const PROOF: u64 = 3;
/// Longest disk operation count until a disk fault happens.
const OPERATIONS_MAX: u64 = 60;

impl Simulation {
    fn victim(&mut self) -> usize {
        let leader = self.members.iter().find(|member| member.leads());
        match leader.map(|member| member.id) {
            Some(leader) if self.random.percent(self.plan.at_leader_percent) => leader,
            _ => self.random.below(MEMBERS as u64) as usize,
        }
    }

    /// Whether a member may lose what it has not flushed, without more being lost than is promised:
    /// the others have all that they acknowledged.
    fn may_forget(&self, id: usize) -> bool {
        if !self.plan.async_flush || self.plan.flaw.is_some_and(Flaw::is_in_members) {
            return true;
        }
        let is_sound = |member: &Member| {
            member
                .group()
                .is_some_and(|group| !group.recovering() && group.role().borrow().leader.is_some())
        };
        self.members.iter().all(is_sound) && self.members[id].life.is_some()
    }

    pub(super) fn fault(&mut self) -> Check {
        let kind = *self.random.pick(&self.plan.kinds);
        let id = self.victim();
        let other = other(&mut self.random, id);
        let until = self.random.range(20 * MS, self.plan.mended);
        let is_up = self.members[id].life.is_some();
        match kind {
            Kind::Kill if is_up => {
                self.note(format_args!("n{id} is killed"));
                self.count("kills");
                self.crash(id, false)?;
            }
            Kind::PowerCut if is_up && self.may_forget(id) => {
                self.note(format_args!("n{id} loses power"));
                self.count("power-cuts");
                self.crash(id, true)?;
            }
            Kind::Blackout => {
                self.note(format_args!("all members lose power"));
                self.count("blackouts");
                for id in 0..MEMBERS {
                    if self.members[id].life.is_some() {
                        self.crash(id, true)?;
                    }
                }
            }
            Kind::StopInWrite | Kind::IoError => {
                let fault = match kind {
                    Kind::StopInWrite => DiskFault::Stop,
                    _ => DiskFault::Error,
                };
                let operations = self.random.below(OPERATIONS_MAX);
                *self.members[id].disk_fault.lock() = Some((operations, fault));
            }
            Kind::Stop if is_up => {
                let said = self.said.clone();
                let Some(life) = &mut self.members[id].life else {
                    return Ok(());
                };
                if life.group.is_none() || std::mem::replace(&mut life.stopping, true) {
                    return Ok(());
                }
                let number = life.number;
                self.note(format_args!("n{id} is asked to stop"));
                self.count("stops");
                self.ask(id, move |group, _| async move {
                    group.shutdown().await;
                    said.lock().push(Said::Stopped(id, number));
                });
            }
            Kind::Transfer => {
                self.count("transfers");
                self.ask(id, move |group, _| async move {
                    let outcome = group.transfer_leader(None).await;
                    tracing::info!(?outcome, "leadership was to be handed over");
                });
            }
            Kind::Isolate => {
                self.note(format_args!("n{id} is isolated"));
                self.count("partitions");
                for other in (0..MEMBERS).filter(|other| *other != id) {
                    self.cut(id, other, until);
                    self.cut(other, id, until);
                }
            }
            Kind::OneWay => {
                self.note(format_args!("n{id} does not reach n{other}"));
                self.count("partitions");
                self.cut(id, other, until);
            }
            Kind::CutPair => {
                self.note(format_args!("n{id} and n{other} do not reach each other"));
                self.count("partitions");
                self.cut(id, other, until);
                self.cut(other, id, until);
            }
            Kind::SlowLink => {
                let extra = self.random.range(10 * MS, 600 * MS);
                self.network.set_link(id, other, |link| link.extra = extra);
                self.after(until, Due::Mend(Mend::Link(id, other)));
            }
            Kind::SlowDisk => {
                let slow = self.random.range(20 * MS, 1500 * MS);
                self.network.set_disk(id, DiskLatency(slow / 4, slow));
                self.after(until, Due::Mend(Mend::Disk(id)));
            }
            Kind::Pause if is_up && !self.members[id].paused => {
                self.note(format_args!("n{id} is stopped for a while"));
                self.count("pauses");
                self.members[id].paused = true;
                self.after(until, Due::Mend(Mend::Resume(id)));
            }
            Kind::Clock => {
                let jump = self.random.below(60 * SECOND) as i64 - 30 * SECOND as i64;
                self.note(format_args!("n{id}: its clock is off by {jump} ns"));
                self.members[id].skew = jump;
            }
            _ => {}
        }
        self.check_logs(false)
    }

    fn cut(&mut self, from: usize, to: usize, until: Nanos) {
        self.network.set_link(from, to, |link| link.cut = true);
        self.after(until, Due::Mend(Mend::Link(from, to)));
    }

    pub(super) fn mend(&mut self, mend: Mend) -> Check {
        self.note(format_args!("mended: {mend:?}"));
        match mend {
            Mend::Link(from, to) => self.network.set_link(from, to, |link| {
                link.cut = false;
                link.extra = 0;
            }),
            Mend::Disk(id) => {
                let (low, high) = self.plan.disk;
                self.network.set_disk(id, DiskLatency(low, high));
            }
            Mend::Resume(id) => {
                let member = &mut self.members[id];
                if std::mem::replace(&mut member.paused, false) {
                    member.wakes = member.life.is_some().then(os::now);
                    // What it was asked while it could not know that it is deposed.
                    return self.read();
                }
            }
        }
        Ok(())
    }

    pub(super) fn heal(&mut self) -> Check {
        self.note(format_args!("everything is healed"));
        for from in 0..MEMBERS {
            for to in (0..MEMBERS).filter(|to| *to != from) {
                self.mend(Mend::Link(from, to))?;
            }
            self.mend(Mend::Disk(from))?;
            self.mend(Mend::Resume(from))?;
            self.members[from].disk_fault.lock().take();
            if self.members[from].life.is_none() {
                let delay = self.random.below(300 * MS);
                self.after(delay, Due::Start(from));
            }
        }
        self.healed = Some(os::now());
        let more = match self.plan.flaw {
            Some(Flaw::Stuck) => u64::MAX,
            _ => PROOF,
        };
        let proof = self
            .clients
            .iter()
            .map(|it| it.acknowledged.saturating_add(more));
        self.proof = proof.collect();
        Ok(())
    }
}

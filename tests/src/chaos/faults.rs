//! Has faults happen to a group, and takes them back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use super::schedule::{Fault, Who};
use crate::cluster::leader_of;
use crate::disk;
use crate::fault::Flush;
use crate::figures::say;
use crate::link::{Links, Quality};
use crate::network::Network;
use crate::routes::RouteWatch;
use crate::subject::{Replacement, Subject};
use crate::wait::pause;

/// A change of members may take so long while other faults last; what is left of it is done afterwards.
const CHANGE_WITHIN: Duration = Duration::from_secs(8);
/// And so long when everything is well.
const CHANGE_WITHIN_HEALED: Duration = Duration::from_secs(60);

/// A group and everything around it that can fail.
pub struct Ground {
    /// The group.
    pub subject: Box<dyn Subject>,
    /// The wires between the members' sites.
    pub network: Network,
    /// The proxy between the members, where a fault needs it.
    pub links: Option<Links>,
    /// The size of each member's disk when it is well, where it has one of its own.
    pub disk_bytes: Option<u64>,
    /// Is told who is killed and started.
    pub routes: RouteWatch,
    /// Members that were killed and not started since.
    down: BTreeSet<usize>,
    /// Members whose disks were full in this round.
    full: BTreeSet<usize>,
    /// A change of members that is half done.
    unfinished: Option<(usize, Replacement)>,
}

/// A fault that lasts.
#[derive(Debug)]
pub enum Lasting {
    /// It was over at once, or hit nobody.
    Over,
    /// These were killed.
    Killed(Vec<usize>),
    /// This one is stopped.
    Paused(usize),
    /// What the first sends to the second vanishes.
    Cut(Vec<(usize, usize)>),
    /// The links between the first and the others.
    Links(usize),
    /// The same, reset again and again.
    Resets(usize, Duration),
    /// Its clock is off.
    Clock(usize),
    /// Their disks are full.
    Full(Vec<usize>),
    /// Their flushes are slow.
    Flush(Vec<usize>),
}

impl Ground {
    /// Everything is well.
    pub fn new(
        subject: Box<dyn Subject>,
        network: Network,
        links: Option<Links>,
        disk_bytes: Option<u64>,
    ) -> Result<Ground> {
        let nameservers = subject.nameserver_addresses();
        let nameservers: Vec<String> = nameservers.split(';').map(str::to_owned).collect();
        let mut ground = Ground {
            routes: RouteWatch::start(&nameservers, None),
            subject,
            network,
            links,
            disk_bytes,
            down: BTreeSet::new(),
            full: BTreeSet::new(),
            unfinished: None,
        };
        ground.take_over_links()?;
        Ok(ground)
    }

    fn take_over_links(&mut self) -> Result<()> {
        if let Some(links) = &mut self.links {
            for member in 0..self.subject.members() {
                links.take_over(&self.network, member, self.subject.peer_port(member))?;
            }
        }
        Ok(())
    }

    fn others(&self, member: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.subject.members()).filter(move |other| *other != member)
    }

    /// The member that a nameserver names as the leader; a send would take longer to find out while faults last.
    fn leader(&self) -> usize {
        let registered = self.subject.registered(0).unwrap_or_default();
        let addresses = self.subject.addresses();
        leader_of(&registered)
            .and_then(|leader| addresses.iter().position(|address| address == leader))
            .unwrap_or(0)
    }

    fn resolve(&self, who: Who) -> usize {
        match who {
            Who::Leader => self.leader(),
            Who::Follower(after) => (self.leader() + after) % self.subject.members(),
            Who::Member(member) => member,
        }
    }

    fn one_or_all(&self, who: Option<Who>) -> Vec<usize> {
        match who {
            Some(who) => vec![self.resolve(who)],
            None => (0..self.subject.members()).collect(),
        }
    }

    fn links(&self) -> Result<&Links> {
        self.links
            .as_ref()
            .context("there is no proxy on the links")
    }

    /// Has a fault begin.
    pub fn begin(&mut self, fault: Fault) -> Result<Lasting> {
        match fault {
            Fault::Kill(who) => {
                let member = self.resolve(who);
                self.kill(vec![member])
            }
            Fault::KillTwo(who) => {
                let left = self.resolve(who);
                self.kill(self.others(left).collect())
            }
            Fault::KillAll => self.kill((0..self.subject.members()).collect()),
            Fault::Pause(who) => {
                let member = self.resolve(who);
                if !self.subject.is_running(member) {
                    return Ok(Lasting::Over);
                }
                self.subject.signal(member, libc::SIGSTOP)?;
                Ok(Lasting::Paused(member))
            }
            Fault::Partition(who) => {
                let member = self.resolve(who);
                let both = |other| [(member, other), (other, member)];
                self.cut(self.others(member).flat_map(both).collect())
            }
            Fault::OneWay { who, deaf } => {
                let member = self.resolve(who);
                let way = |other| {
                    if deaf {
                        (other, member)
                    } else {
                        (member, other)
                    }
                };
                self.cut(self.others(member).map(way).collect())
            }
            Fault::Ring(missing) => {
                let members = self.subject.members();
                let one = (self.leader() + missing) % members;
                let other = (one + 1) % members;
                self.cut(vec![(one, other), (other, one)])
            }
            Fault::Slow { who, delay } => self.set_links(who, Quality::Slow(delay)),
            Fault::HalfOpen(who) => self.set_links(who, Quality::Silent),
            Fault::Reset { who, every } => Ok(Lasting::Resets(self.resolve(who), every)),
            Fault::Clock { who, ahead_ms } => {
                let member = self.resolve(who);
                self.subject.library()?.set_clock(member, ahead_ms)?;
                Ok(Lasting::Clock(member))
            }
            Fault::DiskFull(who) => {
                let members = self.one_or_all(who);
                for member in &members {
                    disk::resize(&self.subject.store(*member), 0)?;
                }
                self.full.extend(&members);
                Ok(Lasting::Full(members))
            }
            Fault::SlowFlush { who, takes } => {
                let members = self.one_or_all(who);
                let library = self.subject.library()?;
                for member in &members {
                    library.set_flush(*member, Flush::Slow(takes))?;
                }
                Ok(Lasting::Flush(members))
            }
            Fault::Members { who, how } => self.replace(who, how),
            Fault::Transfer(after) => {
                let to = (self.leader() + after) % self.subject.members();
                // It may be refused, or be in vain, while other faults last.
                if let Err(error) = self.subject.transfer_leader(to) {
                    say(format!("    not handed over to {to}: {error:#}"));
                }
                Ok(Lasting::Over)
            }
        }
    }

    fn kill(&mut self, mut members: Vec<usize>) -> Result<Lasting> {
        members.retain(|member| self.subject.is_running(*member));
        let killed = self.subject.kill(&members)?;
        self.down.extend(&members);
        let addresses = self.subject.addresses();
        for member in &members {
            self.routes.died(&addresses[*member], killed);
        }
        Ok(Lasting::Killed(members))
    }

    fn cut(&self, ways: Vec<(usize, usize)>) -> Result<Lasting> {
        for (from, to) in &ways {
            self.network.cut_one_way(*from, *to)?;
        }
        Ok(Lasting::Cut(ways))
    }

    fn set_links(&self, who: Who, quality: Quality) -> Result<Lasting> {
        let member = self.resolve(who);
        for other in self.others(member) {
            self.links()?.set(member, other, quality);
        }
        Ok(Lasting::Links(member))
    }

    fn replace(&mut self, who: Who, how: Replacement) -> Result<Lasting> {
        if self.unfinished.is_some() {
            return Ok(Lasting::Over); // one change at a time
        }
        let member = self.resolve(who);
        if how == Replacement::InOneStep {
            self.kill(vec![member])?;
        }
        self.unfinished = Some((member, how));
        if let Err(error) = self.go_on_replacing(CHANGE_WITHIN) {
            say(format!("    the change of members has to wait: {error:#}"));
        }
        Ok(Lasting::Over)
    }

    fn go_on_replacing(&mut self, within: Duration) -> Result<()> {
        let Some((member, how)) = self.unfinished else {
            return Ok(());
        };
        self.routes.started(&self.subject.addresses()[member]);
        let replaced = self.subject.replace_member(member, how, within);
        self.take_over_links()?; // it listens at another port
        if self.subject.is_running(member) {
            self.down.remove(&member);
        }
        replaced?;
        self.unfinished = None;
        Ok(())
    }

    /// Waits while faults last, doing what has to be done again and again.
    pub fn let_pass<'a>(
        &self,
        time: Duration,
        lasting: impl IntoIterator<Item = &'a Lasting>,
    ) -> Result<()> {
        let resets = lasting.into_iter().find_map(|one| match one {
            Lasting::Resets(member, every) => Some((*member, *every)),
            _ => None,
        });
        let Some((member, every)) = resets else {
            pause(time);
            return Ok(());
        };
        let mut left = time;
        loop {
            for other in self.others(member) {
                self.links()?.reset(member, other);
            }
            let step = left.min(every);
            pause(step);
            left -= step;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Takes a fault back.
    pub fn end(&mut self, lasting: &Lasting) -> Result<()> {
        match lasting {
            Lasting::Over | Lasting::Resets(..) => {}
            Lasting::Killed(members) => {
                for member in members {
                    self.start(*member)?;
                }
            }
            Lasting::Paused(member) => self.resume(*member)?,
            Lasting::Cut(ways) => {
                for (from, to) in ways {
                    self.network.mend_one_way(*from, *to)?;
                }
            }
            Lasting::Links(member) => {
                for other in self.others(*member) {
                    self.links()?.set(*member, other, Quality::Well);
                }
            }
            Lasting::Clock(member) => self.subject.library()?.set_clock(*member, 0)?,
            Lasting::Full(members) => {
                let bytes = self
                    .disk_bytes
                    .context("the disks are not the members' own")?;
                for member in members {
                    disk::resize(&self.subject.store(*member), bytes)?;
                }
            }
            Lasting::Flush(members) => {
                let library = self.subject.library()?;
                for member in members {
                    library.set_flush(*member, Flush::Well)?;
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, member: usize) -> Result<()> {
        if self.subject.is_running(member) {
            return Ok(());
        }
        self.routes.started(&self.subject.addresses()[member]);
        self.down.remove(&member);
        self.subject.start_member(member)
    }

    /// Whether a member has ended that nobody ended.
    pub fn has_ended(&mut self, member: usize) -> bool {
        !self.subject.is_running(member) && !self.down.contains(&member)
    }

    fn resume(&mut self, member: usize) -> Result<()> {
        // It may have been killed meanwhile.
        if self.subject.is_running(member) {
            self.subject.signal(member, libc::SIGCONT)?;
        }
        Ok(())
    }

    /// Starts a member again that ended although nobody ended it. An error that says so, unless it ended because its disk has
    /// not a byte left: it may do that, where it cannot save what it has applied, and its supervisor starts it again.
    pub fn start_again(&mut self, member: usize) -> Result<()> {
        let ended = self.subject.require_running();
        let excused = self.full.contains(&member);
        self.start(member)?;
        match ended {
            Err(error) if excused => {
                say(format!("    n{member}, whose disk was full: {error:#}"));
                Ok(())
            }
            ended => ended,
        }
    }

    /// Kills all members and starts them, and waits until they serve.
    pub fn restart_all(&mut self) -> Result<()> {
        self.kill((0..self.subject.members()).collect())?;
        for member in 0..self.subject.members() {
            self.start(member)?;
        }
        self.subject.wait_serving().context("restart all members")
    }

    /// Nothing of the last round excuses anybody any more.
    pub fn forget_excuses(&mut self) {
        self.full.clear();
    }

    /// Everything is well again: members that do not run are started, and a change of members that was begun is finished.
    pub fn heal(&mut self) -> Result<()> {
        self.network.heal()?;
        for member in 0..self.subject.members() {
            self.start(member)?;
        }
        self.go_on_replacing(CHANGE_WITHIN_HEALED)
    }
}

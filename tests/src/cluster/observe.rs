//! What the members and nameservers of a cluster say, and waiting until they say it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Cluster, GROUP, SERVING_WITHIN};
use crate::calls::{self, GroupAddresses, Sent};
use crate::process::Process;
use crate::wait::{wait_for, wait_ok};
use crate::wire::Connection;

/// The topic that the harness itself sends to, to find out who leads: each group has one of its own name from the start.
const PROBE_TOPIC: &str = GROUP;

impl Cluster {
    /// How often a member has logged `words` since its process was started.
    pub fn said(&self, index: usize, words: &str) -> usize {
        let member = &self.members[index];
        let log = std::fs::read(&member.log).unwrap_or_default();
        let from = usize::try_from(member.log_from).unwrap_or(usize::MAX);
        String::from_utf8_lossy(log.get(from..).unwrap_or_default())
            .lines()
            .filter(|line| line.contains(words))
            .count()
    }

    /// Waits until a member has logged `words` since its process was started.
    pub fn wait_said(&self, index: usize, words: &str) -> Result<()> {
        let what = format!("{} to log '{words}'", self.members[index].name());
        wait_for(&what, SERVING_WITHIN, Duration::from_millis(20), || {
            (self.said(index, words) > 0).then_some(())
        })
    }

    /// An error that says which member has ended without being told to.
    pub fn require_running(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process
                && let Some(status) = process.exit_status()
            {
                bail!("{} ended: {status}", member.name());
            }
        }
        Ok(())
    }

    /// Sends one message through the given member.
    pub fn probe(&self, index: usize) -> Result<Sent> {
        let mut connection = Connection::open(&self.members[index].address())?;
        let request = calls::send_request(PROBE_TOPIC, 0, "", b"probe");
        calls::send(&mut connection, &request)
    }

    /// The member that leads: whoever stores a message sent through any member that runs.
    pub fn leader(&mut self) -> Result<usize> {
        let mut reason = anyhow::anyhow!("no member runs");
        for index in 0..self.members.len() {
            if !self.members[index].is_running() {
                continue;
            }
            match self.probe(index) {
                Ok(sent) => {
                    let port = sent.ids.first().context("a send without an id")?.port;
                    return self
                        .member_on(port)
                        .with_context(|| format!("who is on {port}?"));
                }
                Err(error) => {
                    let name = self.members[index].name();
                    reason = error.context(format!("send through {name}"));
                }
            }
        }
        Err(reason)
    }

    /// Waits until there is a leader that stores messages, and names it.
    pub fn wait_leader(&mut self) -> Result<usize> {
        wait_ok(
            "a leader that stores",
            SERVING_WITHIN,
            Duration::from_millis(20),
            || {
                self.reap();
                self.leader()
            },
        )
    }

    /// Waits until another member than `former` leads, and names it.
    pub fn wait_other_leader(&mut self, former: usize) -> Result<usize> {
        let name = self.members[former].name();
        let what = format!("another member than {name} to lead");
        wait_ok(&what, SERVING_WITHIN, Duration::from_millis(20), || {
            self.require_running()?;
            let leader = self.leader()?;
            ensure!(leader != former, "{name} still leads");
            Ok(leader)
        })
    }

    /// So that a member that has ended is not asked.
    fn reap(&mut self) {
        for member in &mut self.members {
            member.is_running();
        }
    }

    /// Waits until a message can be sent through the given member.
    pub fn wait_member(&mut self, index: usize) -> Result<()> {
        let name = self.members[index].name();
        let what = format!("{name} to take a send");
        wait_ok(&what, SERVING_WITHIN, Duration::from_millis(10), || {
            if let Some(process) = &mut self.members[index].process
                && let Some(status) = process.exit_status()
            {
                bail!("{name} ended: {status}");
            }
            self.probe(index).map(|_| ())
        })
    }

    /// Waits until a message can be sent through every member that runs, and the nameservers that run name a leader.
    pub fn wait_serving(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            if self.members[index].is_running() {
                self.wait_member(index)?;
            }
        }
        let leader = self.wait_leader()?;
        self.wait_registered(leader)
    }

    /// Waits until every nameserver that runs names `leader`, or the address that follows leadership, as broker 0.
    pub fn wait_registered(&mut self, leader: usize) -> Result<()> {
        let own = self.members[leader].address();
        let address = self.endpoint.clone().unwrap_or(own);
        for index in 0..self.nameservers.len() {
            if !self.nameservers[index]
                .process
                .as_mut()
                .is_some_and(Process::is_running)
            {
                continue;
            }
            let what = format!("nameserver {index} to name {address} as broker 0");
            wait_for(&what, SERVING_WITHIN, Duration::from_millis(10), || {
                let members = self.registered(index).ok()?;
                (leader_of(&members)? == address).then_some(())
            })?;
        }
        Ok(())
    }

    /// The members that a nameserver knows.
    pub fn registered(&self, nameserver: usize) -> Result<GroupAddresses> {
        let address = format!("127.0.0.1:{}", self.nameservers[nameserver].port);
        calls::group_addresses(&mut Connection::open(&address)?, GROUP)
    }

    /// Waits until every nameserver that runs has a route to `topic`.
    pub fn wait_topic(&mut self, topic: &str) -> Result<()> {
        for nameserver in &mut self.nameservers {
            if !nameserver.process.as_mut().is_some_and(Process::is_running) {
                continue;
            }
            let address = format!("127.0.0.1:{}", nameserver.port);
            let what = format!("a route to {topic} at {address}");
            wait_ok(&what, SERVING_WITHIN, Duration::from_millis(10), || {
                calls::route_addresses(&mut Connection::open(&address)?, topic).map(|_| ())
            })?;
        }
        Ok(())
    }
}

/// The address of broker 0.
pub fn leader_of(members: &GroupAddresses) -> Option<&str> {
    members
        .iter()
        .find_map(|(id, address)| (*id == 0).then_some(address.as_str()))
}

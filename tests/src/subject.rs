//! What a chaos run needs of a group under test, whoever made its programs.
//!
//! Members are counted from 0; member `n` runs at `Options::sites[n]` for good, with the same address for clients, also when
//! another store, id or process takes the place. What happens on the wires between the sites is the
//! [`Network`](crate::network::Network)'s, not the group's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::calls::{self, GroupAddresses, Sent};
use crate::clock::Nanos;
use crate::cluster::{Cluster, GROUP};
use crate::fault::Library;
use crate::segments;
use crate::wait::wait_ok;
use crate::wire::Connection;

/// A broker group with its nameservers, running as real processes.
pub trait Subject {
    /// Product and version, for reports.
    fn name(&self) -> String;

    /// How many members there are.
    fn members(&self) -> usize;

    /// Where clients reach each member, running or not.
    fn addresses(&self) -> Vec<String>;

    /// The port on which the others reach a member; its host is the site's.
    fn peer_port(&self, member: usize) -> u16;

    /// `host:port;host:port` of all nameservers.
    fn nameserver_addresses(&self) -> String;

    /// Starts a member that does not run, and does not wait.
    fn start_member(&mut self, member: usize) -> Result<()>;

    /// Whether a member's process has not ended.
    fn is_running(&mut self, member: usize) -> bool;

    /// `kill -9` of all the named members in the same moment, which is returned, when they are gone.
    fn kill(&mut self, members: &[usize]) -> Result<Nanos>;

    /// Has a member end in order, with SIGTERM.
    fn terminate(&mut self, member: usize) -> Result<()>;

    /// Sends SIGSTOP or SIGCONT to a member.
    fn signal(&self, member: usize, signal: i32) -> Result<()>;

    /// Who stores messages; an error when nobody does at this moment.
    fn leader(&mut self) -> Result<usize>;

    /// Sends one message through a member to a topic of the harness; an error when it is not stored.
    fn probe(&self, member: usize) -> Result<Sent>;

    /// Waits until there is a leader that every nameserver names, and every member that runs takes part.
    fn wait_serving(&mut self) -> Result<()>;

    /// An error unless the member takes part at this moment: it leads, or it has what was acknowledged a moment ago.
    fn require_taking_part(&mut self, member: usize) -> Result<()>;

    /// The members that a nameserver knows at this moment: (broker id, address).
    fn registered(&self, nameserver: usize) -> Result<GroupAddresses>;

    /// Creates a topic through whoever leads, and waits until the nameservers have its route.
    fn create_topic(&mut self, topic: &str, queues: i32) -> Result<()>;

    /// Whether a member knows a topic.
    fn has_topic(&self, member: usize, topic: &str) -> Result<bool>;

    /// Hands leadership over to a member in order.
    fn transfer_leader(&mut self, _to: usize) -> Result<()> {
        bail!("{} cannot hand leadership over", self.name())
    }

    /// Takes a member out of the group and a new one with an empty store in at the same site. Whether the old one is alive
    /// is up to the caller. `within` is for each step; after an error it is half done, and another call goes on with it.
    fn replace_member(
        &mut self,
        _member: usize,
        _how: Replacement,
        _within: Duration,
    ) -> Result<()> {
        bail!("{} cannot change its members", self.name())
    }

    /// What stands between the members and libc, with `Options::faulty`; by it flushes get slow and clocks jump.
    fn library(&self) -> Result<&Library>;

    /// A member's folder; with `Options::disk_bytes` a file system of its own is mounted there.
    fn store(&self, member: usize) -> PathBuf;

    /// An error with the first difference unless all members hold the same bytes; in words what was compared.
    fn require_identical(&mut self, within: Duration) -> Result<String>;

    /// An error that names the member when one has ended that nobody ended.
    fn require_running(&mut self) -> Result<()>;

    /// Nothing wrong was found: traces may be removed.
    fn passed(&mut self) -> Result<()>;
}

/// How one member comes in for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    /// The old one leaves the group, then the new one is added and promoted.
    OneAfterTheOther,
    /// Both in one step, the old one being dead.
    InOneStep,
}

/// What a member that is told to end may take.
const END_WITHIN: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);

/// How a change of a member is refused that is not in the group any more.
const NO_MEMBER: &str = "no member of the group has";

impl Subject for Cluster {
    fn name(&self) -> String {
        "RaftMQ".to_owned()
    }

    fn members(&self) -> usize {
        self.members.len()
    }

    fn addresses(&self) -> Vec<String> {
        self.addresses()
    }

    fn peer_port(&self, member: usize) -> u16 {
        self.members[member].raft_port
    }

    fn nameserver_addresses(&self) -> String {
        self.nameserver_addresses()
    }

    fn start_member(&mut self, member: usize) -> Result<()> {
        self.start_member(member)
    }

    fn is_running(&mut self, member: usize) -> bool {
        self.members[member].is_running()
    }

    fn kill(&mut self, members: &[usize]) -> Result<Nanos> {
        let time = Nanos::now();
        for member in members {
            self.signal(*member, libc::SIGKILL)?;
        }
        for member in members {
            self.kill(*member)?;
            self.members[*member].process = None; // so that nobody wonders how it ended
        }
        Ok(time)
    }

    fn terminate(&mut self, member: usize) -> Result<()> {
        self.terminate(member, END_WITHIN)?;
        self.members[member].process = None;
        Ok(())
    }

    fn signal(&self, member: usize, signal: i32) -> Result<()> {
        self.signal(member, signal)
    }

    fn leader(&mut self) -> Result<usize> {
        self.leader()
    }

    fn probe(&self, member: usize) -> Result<Sent> {
        self.probe(member)
    }

    fn wait_serving(&mut self) -> Result<()> {
        self.wait_serving()
    }

    /// Any member takes sends, and those that do not lead hand them on once they follow the leader.
    fn require_taking_part(&mut self, member: usize) -> Result<()> {
        self.probe(member).map(|_| ())
    }

    fn registered(&self, nameserver: usize) -> Result<GroupAddresses> {
        self.registered(nameserver)
    }

    fn create_topic(&mut self, topic: &str, queues: i32) -> Result<()> {
        self.create_topic(topic, queues)?;
        self.wait_topic(topic)
    }

    fn has_topic(&self, member: usize, topic: &str) -> Result<bool> {
        let mut connection = Connection::open(&self.members[member].address())?;
        calls::has_topic(&mut connection, topic)
    }

    fn transfer_leader(&mut self, to: usize) -> Result<()> {
        Cluster::transfer_leader(self, to)
    }

    fn replace_member(&mut self, member: usize, how: Replacement, within: Duration) -> Result<()> {
        let in_one_step = how == Replacement::InOneStep;
        let old = match self.replacing.clone() {
            Some(old) => old,
            None => {
                let old = format!("n{}", self.members[member].number);
                if !in_one_step {
                    self.change(&["removeMember", "-i", &old], NO_MEMBER, within)?;
                }
                self.renew_member(member)?;
                self.start_member(member)?;
                self.replacing = Some(old.clone());
                old
            }
        };
        let new = format!("n{}", self.members[member].number);
        let place = self.raft_address(member);
        wait_ok(&format!("{new} to listen"), within, STEP, || {
            std::net::TcpStream::connect(&place).context("connect")
        })?;
        if in_one_step {
            let (exchange, patience) = (["-i", &old, "-r", &new, "-a", &place], within.as_secs());
            let words = [
                &["replaceMember"],
                &exchange[..],
                &["-t", &patience.to_string()],
            ];
            self.change(&words.concat(), NO_MEMBER, within)?;
        } else {
            let words = ["addMember", "-i", &new, "-a", &place];
            self.change(&words, "is in use", within)?;
            self.change(&["promoteMember", "-i", &new], "has a vote already", within)?;
        }
        self.replacing = None;
        Ok(())
    }

    fn library(&self) -> Result<&Library> {
        self.library()
    }

    fn store(&self, member: usize) -> PathBuf {
        self.members[member].store.clone()
    }

    fn require_identical(&mut self, within: Duration) -> Result<String> {
        Ok(segments::require_identical_within(self, within)?.to_string())
    }

    fn require_running(&mut self) -> Result<()> {
        self.require_running()
    }

    fn passed(&mut self) -> Result<()> {
        self.passed()
    }
}

impl Cluster {
    /// Has the members of the group changed. While faults happen an attempt may fail for reasons of its own and is repeated;
    /// that one whose answer was lost had been carried out is known by the words in which its repetition is refused.
    fn change(&self, words: &[&str], refused_when_done: &str, within: Duration) -> Result<()> {
        let words = [words, &["-g", GROUP]].concat();
        let what = words.join(" ");
        wait_ok(&what, within, STEP, || match self.admin(&words) {
            Err(error) if !format!("{error:#}").contains(refused_when_done) => Err(error),
            _ => Ok(()),
        })
    }
}

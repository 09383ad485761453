//! A broker group with its nameservers, as real processes in a temporary folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::binaries::Binaries;
use crate::calls::{self, GroupAddresses, Sent};
use crate::clock::Nanos;
use crate::disk::Disk;
use crate::fault::{Flush, Library};
use crate::figures::say;
use crate::ports::free_port;
use crate::process::{Process, tail};
use crate::wait::{wait_for, wait_ok};
use crate::wire::Connection;

/// A group that has not elected and served by then, on a machine however loaded, is broken.
pub const SERVING_WITHIN: Duration = Duration::from_secs(30);

/// What a member may log in a test, whose faults are a few dozen at most.
const LOG_MAX: u64 = 2 << 20;

/// The broker name of every test group.
pub const GROUP: &str = "RaftNode00";

/// The topic that the harness itself sends to, to find out who leads: each group has one of its own name from the start.
const PROBE_TOPIC: &str = GROUP;

/// Where a member runs.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its address for clients and members.
    pub host: String,
    /// Words in front of its command line, such as those that enter a network namespace.
    pub enter: Vec<String>,
}

impl Default for Site {
    fn default() -> Site {
        Site {
            host: "127.0.0.1".to_owned(),
            enter: Vec::new(),
        }
    }
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Members of the group.
    pub members: usize,
    /// Nameservers.
    pub nameservers: usize,
    /// Segment size; small, so that a test fills several.
    pub segment_bytes: u64,
    /// Whether whoever leads is reached over one address (`leaderEndpoint`).
    pub leader_endpoint: bool,
    /// Further lines of each member's conf.
    pub conf: Vec<(String, String)>,
    /// Where each member runs; members beyond the list run here.
    pub sites: Vec<Site>,
    /// The address by which members and clients reach the nameservers.
    pub nameserver_host: String,
    /// Gives each member's store a file system of its own with so many bytes.
    pub disk_bytes: Option<u64>,
    /// Most bytes of log that a member writes if nothing goes round in a circle.
    pub log_bytes_max: u64,
    /// Lets a test make the flushes of members slow or fail and shift their clocks, see [`Library`].
    pub faulty: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            members: 3,
            nameservers: 1,
            segment_bytes: 16 << 20,
            leader_endpoint: false,
            conf: Vec::new(),
            sites: Vec::new(),
            nameserver_host: Site::default().host,
            disk_bytes: None,
            log_bytes_max: LOG_MAX,
            faulty: false,
        }
    }
}

impl Options {
    /// One member only.
    pub fn single() -> Options {
        Options {
            members: 1,
            ..Options::default()
        }
    }

    /// Adds a line to each member's conf.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Options {
        self.conf.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// One nameserver.
#[derive(Debug)]
pub struct Nameserver {
    /// Where it listens.
    pub port: u16,
    /// Running or ended.
    pub process: Option<Process>,
    log: PathBuf,
    conf: PathBuf,
}

/// One member of the group.
#[derive(Debug)]
pub struct Member {
    /// Number in `dLegerSelfId`.
    pub number: usize,
    /// Where it runs.
    pub site: Site,
    /// Where clients connect.
    pub port: u16,
    /// Where the other members connect.
    pub raft_port: u16,
    /// `storePathRootDir`.
    pub store: PathBuf,
    /// The conf file.
    pub conf: PathBuf,
    /// Standard output and error, of all its processes.
    pub log: PathBuf,
    /// Where in it the output of the last process begins.
    log_from: u64,
    /// Running or ended; `None` before the first start.
    pub process: Option<Process>,
}

impl Member {
    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("{}:{}", self.site.host, self.port)
    }

    /// The folder of the segments.
    pub fn commit_log(&self) -> PathBuf {
        self.store.join("commitlog")
    }

    /// Whether its process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }
}

/// A group under test. Dropped without [`Cluster::passed`], it prints the last log lines of everyone and keeps its folder.
#[derive(Debug)]
pub struct Cluster {
    root: PathBuf,
    options: Options,
    /// `host:port` that follows leadership, where there is one.
    pub endpoint: Option<String>,
    /// The nameservers.
    pub nameservers: Vec<Nameserver>,
    /// The members.
    pub members: Vec<Member>,
    /// After the members, which are to be gone when these are dropped.
    disks: Vec<Disk>,
    /// What stands between the members and libc.
    library: Option<Library>,
    /// The number of the next member.
    numbered: usize,
    /// The id of the member for which another is coming in, until that is done.
    pub(crate) replacing: Option<String>,
    passed: bool,
}

impl Cluster {
    /// Writes the confs, starts everything and waits until the group serves.
    pub fn start(options: Options) -> Result<Cluster> {
        let mut cluster = Cluster::prepare(options)?;
        cluster.launch()?;
        Ok(cluster)
    }

    /// Starts everything that was prepared and waits until the group serves.
    pub fn launch(&mut self) -> Result<()> {
        for index in 0..self.nameservers.len() {
            self.start_nameserver(index)?;
        }
        self.start_all()?;
        self.wait_serving()
    }

    /// Writes the confs and starts nothing.
    pub fn prepare(options: Options) -> Result<Cluster> {
        let root = make_root()?;
        let mut cluster = Cluster {
            root,
            endpoint: None,
            nameservers: Vec::new(),
            members: Vec::new(),
            disks: Vec::new(),
            library: None,
            numbered: options.members,
            replacing: None,
            passed: false,
            options,
        };
        for number in 0..cluster.options.nameservers {
            let port = free_port()?;
            let conf = cluster.root.join(format!("namesrv{number}.conf"));
            let kv = cluster.root.join(format!("kvConfig{number}.json"));
            let text = format!("listenPort={port}\nkvConfigPath={}\n", kv.display());
            std::fs::write(&conf, text).context("write a nameserver's conf")?;
            let log = cluster.root.join(format!("namesrv{number}.out"));
            cluster.nameservers.push(Nameserver {
                port,
                process: None,
                log,
                conf,
            });
        }
        for number in 0..cluster.options.members {
            let root = &cluster.root;
            cluster.members.push(Member {
                number,
                site: cluster
                    .options
                    .sites
                    .get(number)
                    .cloned()
                    .unwrap_or_default(),
                port: free_port()?,
                raft_port: free_port()?,
                store: root.join(format!("node{number}")),
                conf: root.join(format!("broker-n{number}.conf")),
                log: root.join(format!("broker-n{number}.out")),
                log_from: 0,
                process: None,
            });
        }
        if cluster.options.faulty {
            cluster.library = Some(Library::compile(&cluster.root)?);
        }
        if cluster.options.leader_endpoint {
            cluster.endpoint = Some(format!("127.0.0.1:{}", free_port()?));
        }
        if let Some(bytes) = cluster.options.disk_bytes {
            for member in &cluster.members {
                cluster.disks.push(Disk::mount(&member.store, bytes)?);
            }
        }
        for member in &cluster.members {
            let text = cluster.conf_of(member, GROUP);
            std::fs::write(&member.conf, text).context("write a member's conf")?;
        }
        Ok(cluster)
    }

    /// The conf of a member in the style of the stock dledger confs.
    pub fn conf_of(&self, member: &Member, group: &str) -> String {
        let mut conf = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(conf, "{key}={value}").expect("writing to a string does not fail");
        };
        line("brokerClusterName", &"RaftCluster");
        line("brokerName", &group);
        line("brokerIP1", &member.site.host);
        line("listenPort", &member.port);
        line("namesrvAddr", &self.nameserver_addresses());
        line("storePathRootDir", &member.store.display());
        line("storePathCommitLog", &member.commit_log().display());
        line("mappedFileSizeCommitLog", &self.options.segment_bytes);
        line("enableDLegerCommitLog", &true);
        line("dLegerGroup", &group);
        line("dLegerPeers", &self.peers());
        line("dLegerSelfId", &format!("n{}", member.number));
        line("sendMessageThreadPoolNums", &16);
        if let Some(endpoint) = &self.endpoint {
            line("leaderEndpoint", endpoint);
        }
        line("shutdownForwardMs", &1_000);
        for (key, value) in &self.options.conf {
            line(key, value);
        }
        conf
    }

    /// Adds a member with an empty store, whose conf says that it has to be added to the group, and starts nothing.
    pub fn prepare_joining(&mut self) -> Result<usize> {
        let number = self.numbered;
        self.numbered += 1;
        let member = Member {
            number,
            site: Site::default(),
            port: free_port()?,
            raft_port: free_port()?,
            store: self.root.join(format!("node{number}")),
            conf: self.root.join(format!("broker-n{number}.conf")),
            log: self.root.join(format!("broker-n{number}.out")),
            log_from: 0,
            process: None,
        };
        self.members.push(member);
        let member = &self.members[self.members.len() - 1];
        let text = format!("{}raftJoin=true\n", self.conf_of(member, GROUP));
        std::fs::write(&member.conf, text).context("write a member's conf")?;
        Ok(self.members.len() - 1)
    }

    /// Puts another member with a new number and an empty store in the place of one, whose process is killed if it still runs,
    /// and starts nothing. It has the old one's address for clients and another one for members; its conf says that it has to
    /// be added to the group.
    pub fn renew_member(&mut self, index: usize) -> Result<()> {
        let (number, raft_port) = (self.numbered, free_port()?);
        self.numbered += 1;
        let conf = self.root.join(format!("broker-n{number}.conf"));
        let log = self.root.join(format!("broker-n{number}.out"));
        let member = &mut self.members[index];
        member.process = None; // kills it
        // The folder itself may be where a disk is mounted.
        for entry in std::fs::read_dir(&member.store).context("list a store")? {
            let path = entry.context("list a store")?.path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
        (member.number, member.raft_port) = (number, raft_port);
        (member.conf, member.log) = (conf, log);
        let member = &self.members[index];
        let text = format!("{}raftJoin=true\n", self.conf_of(member, GROUP));
        std::fs::write(&member.conf, text).context("write a member's conf")
    }

    /// Gives a member that does not run another port for the others, in its own conf only.
    pub fn move_member(&mut self, index: usize) -> Result<()> {
        self.members[index].raft_port = free_port()?;
        let member = &self.members[index];
        let text = self.conf_of(member, GROUP);
        std::fs::write(&member.conf, text).context("write a member's conf")
    }

    /// Kills a member that does not belong to the group any more and forgets it; those behind it move up.
    pub fn forget(&mut self, index: usize) {
        drop(self.members.remove(index));
    }

    /// Where the others reach a member.
    pub fn raft_address(&self, index: usize) -> String {
        let member = &self.members[index];
        format!("{}:{}", member.site.host, member.raft_port)
    }

    /// The place of the member with this number.
    pub fn index_of(&self, number: usize) -> Result<usize> {
        let mut members = self.members.iter();
        members
            .position(|member| member.number == number)
            .with_context(|| format!("there is no n{number}"))
    }

    fn peers(&self) -> String {
        let peer = |member: &Member| {
            format!(
                "n{}-{}:{}",
                member.number, member.site.host, member.raft_port
            )
        };
        self.members.iter().map(peer).collect::<Vec<_>>().join(";")
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `host:port;host:port` of all nameservers.
    pub fn nameserver_addresses(&self) -> String {
        let host = &self.options.nameserver_host;
        let address = |nameserver: &Nameserver| format!("{host}:{}", nameserver.port);
        self.nameservers
            .iter()
            .map(address)
            .collect::<Vec<_>>()
            .join(";")
    }

    /// Addresses of all members, running or not.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(Member::address).collect()
    }

    /// The member that listens on `port`.
    pub fn member_on(&self, port: u16) -> Option<usize> {
        self.members.iter().position(|member| member.port == port)
    }

    /// Starts a nameserver.
    pub fn start_nameserver(&mut self, index: usize) -> Result<()> {
        let mut command = Command::new(&Binaries::locate()?.nameserver);
        let nameserver = &mut self.nameservers[index];
        command
            .current_dir(&self.root)
            .env("HOME", &self.root)
            .arg("-c")
            .arg(&nameserver.conf);
        nameserver.process = Some(Process::spawn(command, &nameserver.log)?);
        let address = format!("127.0.0.1:{}", nameserver.port);
        wait_ok(
            "the nameserver to answer",
            SERVING_WITHIN,
            Duration::from_millis(5),
            || calls::group_addresses(&mut Connection::open(&address)?, GROUP).map(|_| ()),
        )
    }

    /// Starts (or restarts) a member and does not wait.
    pub fn start_member(&mut self, index: usize) -> Result<()> {
        let member = &self.members[index];
        let mut words = member
            .site
            .enter
            .iter()
            .map(std::ffi::OsString::from)
            .collect::<Vec<_>>();
        words.push(Binaries::locate()?.broker.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-c").arg(&member.conf);
        command.current_dir(&self.root).env("HOME", &self.root);
        if let Some(library) = &self.library {
            library.load(&mut command, index)?;
        }
        let member = &mut self.members[index];
        ensure!(!member.is_running(), "member n{index} is still running");
        member.log_from = std::fs::metadata(&member.log).map_or(0, |log| log.len());
        member.process = Some(Process::spawn(command, &member.log)?);
        Ok(())
    }

    /// What stands between the members and libc; with [`faulty`](Options::faulty).
    pub fn library(&self) -> Result<&Library> {
        self.library
            .as_ref()
            .context("the members were started without the library of faults")
    }

    /// Has the flushes of a member's commit log go so from now on.
    pub fn set_flush(&self, index: usize, flush: Flush) -> Result<()> {
        self.library()?.set_flush(index, flush)
    }

    /// The command line that starts a broker from a conf file.
    pub fn broker_command(&self, conf: &Path) -> Result<Command> {
        let mut command = Command::new(&Binaries::locate()?.broker);
        command
            .current_dir(&self.root)
            .env("HOME", &self.root)
            .arg("-c")
            .arg(conf);
        Ok(command)
    }

    /// Runs `mqadmin` with the nameservers of this cluster, and returns what it printed.
    pub fn admin(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&Binaries::locate()?.admin);
        let command = command.current_dir(&self.root).env("HOME", &self.root);
        let (name, options) = words.split_first().context("no command")?;
        command.args([*name, "-n", &self.nameserver_addresses()]);
        let output = command.args(options).output().context("run mqadmin")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "mqadmin {words:?}: {said} {complaint}"
        );
        Ok(said)
    }

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
        let what = format!("member n{index} to log '{words}'");
        wait_for(&what, SERVING_WITHIN, Duration::from_millis(20), || {
            (self.said(index, words) > 0).then_some(())
        })
    }

    /// Starts every member that is not running.
    pub fn start_all(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            if !self.members[index].is_running() {
                self.start_member(index)?;
            }
        }
        Ok(())
    }

    /// `kill -9` of a member.
    pub fn kill(&mut self, index: usize) -> Result<Nanos> {
        let process = self.members[index]
            .process
            .as_mut()
            .context("never started")?;
        Ok(process.kill_9())
    }

    /// `kill -9` of all members at once.
    pub fn kill_all(&mut self) {
        for member in &self.members {
            if let Some(process) = &member.process {
                process.signal(libc::SIGKILL);
            }
        }
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                process.kill_9();
            }
        }
    }

    /// SIGTERM to a member, and waits until it has ended in order.
    pub fn terminate(&mut self, index: usize, within: Duration) -> Result<()> {
        let process = self.members[index]
            .process
            .as_mut()
            .context("never started")?;
        process.signal(libc::SIGTERM);
        let status = process
            .wait_exit(within)
            .with_context(|| format!("stop member n{index}"))?;
        ensure!(
            status.success(),
            "member n{index} was told to stop and ended with {status}"
        );
        Ok(())
    }

    /// Sends a signal to a member, such as SIGSTOP, SIGCONT or SIGTERM.
    pub fn signal(&self, index: usize, signal: i32) -> Result<()> {
        self.members[index]
            .process
            .as_ref()
            .context("never started")?
            .signal(signal);
        Ok(())
    }

    /// Resident memory of a member that is no file's, in bytes.
    pub fn private_bytes(&self, index: usize) -> Result<u64> {
        self.members[index]
            .process
            .as_ref()
            .context("never started")?
            .private_bytes()
    }

    /// An error that says which member has ended without being told to.
    pub fn require_running(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process
                && let Some(status) = process.exit_status()
            {
                bail!("member n{} ended: {status}", member.number);
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
                Err(error) => reason = error.context(format!("send through n{index}")),
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
                self.require_running_or_killed();
                self.leader()
            },
        )
    }

    /// Waits until another member than `former` leads, and names it.
    pub fn wait_other_leader(&mut self, former: usize) -> Result<usize> {
        let what = format!("another member than n{former} to lead");
        wait_ok(&what, SERVING_WITHIN, Duration::from_millis(20), || {
            self.require_running()?;
            let leader = self.leader()?;
            ensure!(leader != former, "n{former} still leads");
            Ok(leader)
        })
    }

    fn require_running_or_killed(&mut self) {
        for member in &mut self.members {
            member.is_running(); // reaps, so that a member that ended is not asked
        }
    }

    /// Waits until a message can be sent through the given member.
    pub fn wait_member(&mut self, index: usize) -> Result<()> {
        let what = format!("member n{index} to take a send");
        wait_ok(&what, SERVING_WITHIN, Duration::from_millis(10), || {
            if let Some(process) = &mut self.members[index].process
                && let Some(status) = process.exit_status()
            {
                bail!("member n{index} ended: {status}");
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

    /// Creates a topic through whoever leads.
    pub fn create_topic(&mut self, topic: &str, queues: i32) -> Result<()> {
        let leader = self.wait_leader()?;
        let address = self.members[leader].address();
        calls::create_topic(&mut Connection::open(&address)?, topic, queues)
            .with_context(|| format!("create topic {topic}"))
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

    /// To be called at the end of a test that found nothing wrong: the folder is then removed. An error when a member wrote
    /// more log than anybody can read: something goes round in a circle there.
    pub fn passed(&mut self) -> Result<()> {
        for member in &self.members {
            let bytes = std::fs::metadata(&member.log).map_or(0, |file| file.len());
            ensure!(
                bytes <= self.options.log_bytes_max,
                "member n{} wrote {} MiB of log to {}",
                member.number,
                bytes >> 20,
                member.log.display()
            );
        }
        self.passed = true;
        Ok(())
    }
}

/// The address of broker 0.
pub fn leader_of(members: &GroupAddresses) -> Option<&str> {
    members
        .iter()
        .find_map(|(id, address)| (*id == 0).then_some(address.as_str()))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.process = None; // kills it
        }
        for nameserver in &mut self.nameservers {
            nameserver.process = None;
        }
        if self.passed {
            self.disks.clear();
        }
        if self.passed && !std::thread::panicking() {
            if let Err(error) = std::fs::remove_dir_all(&self.root) {
                say(format!("could not remove {}: {error}", self.root.display()));
            }
            return;
        }
        for member in &self.members {
            say(format!(
                "--- last log lines of member n{}:\n{}",
                member.number,
                tail(&member.log, 25)
            ));
        }
        for nameserver in &self.nameservers {
            say(format!(
                "--- last log lines of a nameserver:\n{}",
                tail(&nameserver.log, 8)
            ));
        }
        say(format!("--- everything is kept in {}", self.root.display()));
    }
}

fn make_root() -> Result<PathBuf> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("raftmq-test-{}-{count}", std::process::id());
    let root = std::env::temp_dir().join(name);
    // A folder of an earlier process that had the same id.
    std::fs::remove_dir_all(&root).ok();
    std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    Ok(root)
}

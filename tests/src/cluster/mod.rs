//! A broker group with its nameservers, as real processes in a temporary folder.

mod observe;
mod options;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::Binaries;
use crate::calls;
use crate::clock::Nanos;
use crate::disk::Disk;
use crate::fault::{Flush, Library};
use crate::figures::say;
use crate::ports::free_port;
use crate::process::{Process, tail};
use crate::wait::wait_ok;
use crate::wire::Connection;

pub use observe::leader_of;
pub use options::{Options, Site, conf_argument};

/// A group that has not elected and served by then, on a machine however loaded, is broken.
pub const SERVING_WITHIN: Duration = Duration::from_secs(30);

/// The broker name of every test group.
pub const GROUP: &str = "RaftNode00";

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
    /// Its id in the group.
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

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
        // What the tests find must not depend on how full the machine's disk is. Above 90 % nothing helps.
        line("cleanFileForciblyEnable", &false);
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
        ensure!(!member.is_running(), "{} is still running", member.name());
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

    /// Runs `mqadmin` with the nameservers of this cluster, however it ends.
    pub fn run_admin(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(&Binaries::locate()?.admin);
        let command = command.current_dir(&self.root).env("HOME", &self.root);
        let (name, options) = words.split_first().context("no command")?;
        command.args([*name, "-n", &self.nameserver_addresses()]);
        command.args(options).output().context("run mqadmin")
    }

    /// As [`run_admin`](Self::run_admin), when it has to succeed; returns what it printed.
    pub fn admin(&self, words: &[&str]) -> Result<String> {
        let output = self.run_admin(words)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "mqadmin {words:?}: {said} {complaint}"
        );
        Ok(said)
    }

    /// Hands leadership over to a member.
    pub fn transfer_leader(&self, to: usize) -> Result<()> {
        let target = self.members[to].name();
        let words = ["transferLeader", "-g", GROUP, "-i", &target, "--json"];
        let done: serde_json::Value =
            serde_json::from_str(&self.admin(&words)?).context("the answer of transferLeader")?;
        ensure!(done["to"] == self.members[to].number, "{done}");
        Ok(())
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
        let name = self.members[index].name();
        let process = self.members[index]
            .process
            .as_mut()
            .context("never started")?;
        process.signal(libc::SIGTERM);
        let status = process
            .wait_exit(within)
            .with_context(|| format!("stop {name}"))?;
        ensure!(
            status.success(),
            "{name} was told to stop and ended with {status}"
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

    /// Creates a topic through whoever leads.
    pub fn create_topic(&mut self, topic: &str, queues: i32) -> Result<()> {
        let leader = self.wait_leader()?;
        let address = self.members[leader].address();
        calls::create_topic(&mut Connection::open(&address)?, topic, queues)
            .with_context(|| format!("create topic {topic}"))
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

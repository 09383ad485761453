//! The original's cluster, to put it through the same faults: a nameserver and brokers in DLedger mode from the published
//! jars, with the timers that they have by themselves.
//!
//! What differs for whoever drives it: only the leader takes sends and changes of topics, so clients have to ask the route
//! ([`by_route`](crate::routes::by_route)); there is no hand-over and no change of members.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::calls::{self, GroupAddresses, Sent};
use crate::clock::Nanos;
use crate::cluster::{GROUP, Options, Site, leader_of};
use crate::disk::Disk;
use crate::fault::Library;
use crate::figures::say;
use crate::java::{RELEASE, jars};
use crate::ports::free_port;
use crate::process::{Process, tail};
use crate::subject::Subject;
use crate::wait::{wait_for, wait_ok};
use crate::wire::Connection;

/// Three machines of Java start on a machine that is busy with something else; and an election takes its 10 s or more.
pub const SERVING_WITHIN: Duration = Duration::from_secs(120);

/// A member that follows has by then what was acknowledged.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The topic that the harness itself sends to: each broker group has one of its own name from the start.
const PROBE_TOPIC: &str = GROUP;

/// Small, for three of them share a machine with clients.
const BROKER_MEMORY: &[&str] = &["-Xms512m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m"];
const NAMESERVER_MEMORY: &[&str] = &["-Xms64m", "-Xmx128m"];
/// What they reach into on a JDK that is newer than the one they were built for.
const OPENED: &[&str] = &[
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
];

/// One process of the original.
#[derive(Debug)]
struct Server {
    class: &'static str,
    memory: &'static [&'static str],
    site: Site,
    port: u16,
    /// Where DLedger of the other members connects; of a broker.
    peer_port: u16,
    store: PathBuf,
    home: PathBuf,
    conf: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Server {
    fn address(&self) -> String {
        format!("{}:{}", self.site.host, self.port)
    }

    fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    fn start(&mut self, jars: &Path, library: Option<(&Library, usize)>) -> Result<()> {
        ensure!(!self.is_running(), "{} is still running", self.address());
        std::fs::create_dir_all(&self.home).context("create a home")?;
        let mut words = self.site.enter.clone();
        words.push("java".to_owned());
        words.extend(
            self.memory
                .iter()
                .chain(OPENED)
                .map(|word| (*word).to_owned()),
        );
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("-XX:+UseSerialGC")
            .arg(format!("-Duser.home={}", self.home.display()))
            .arg(format!("-Drocketmq.home.dir={}", self.home.display()))
            .env("ROCKETMQ_HOME", &self.home)
            .arg("-cp")
            .arg(format!("{}/*", jars.display()))
            .arg(self.class)
            .arg("-c")
            .arg(&self.conf);
        if let Some((library, member)) = library {
            library.load(&mut command, member)?;
        }
        self.process = Some(Process::spawn(command, &self.log)?);
        Ok(())
    }
}

/// A group of the original under test. Dropped without [`Original::passed`], it prints the last lines of everyone and keeps
/// its folder.
#[derive(Debug)]
pub struct Original {
    root: PathBuf,
    jars: PathBuf,
    nameservers: Vec<Server>,
    members: Vec<Server>,
    /// After the members, which are to be gone when these are dropped.
    disks: Vec<Disk>,
    /// What stands between the members and libc.
    library: Option<Library>,
    passed: bool,
}

impl Original {
    /// Starts everything in a new folder `root` and waits until the group serves. Of the options it takes the numbers of
    /// members and nameservers, sites, segment size, disks, the library of faults and further lines of the members' confs.
    pub fn start(root: PathBuf, options: &Options) -> Result<Original> {
        let jars = jars()?;
        let jars = jars.with_context(|| {
            format!("the jars of RocketMQ {RELEASE} are neither cached nor to be fetched")
        })?;
        std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        let mut original = Original {
            root,
            jars,
            nameservers: Vec::new(),
            members: Vec::new(),
            disks: Vec::new(),
            library: None,
            passed: false,
        };
        original.prepare(options)?;
        for nameserver in &mut original.nameservers {
            nameserver.start(&original.jars, None)?;
        }
        for index in 0..original.nameservers.len() {
            wait_ok(
                "the original's nameserver to answer",
                SERVING_WITHIN,
                Duration::from_millis(50),
                || original.registered(index).map(|_| ()),
            )?;
        }
        for member in 0..original.members.len() {
            original.start_member(member)?;
        }
        original.wait_serving()?;
        Ok(original)
    }

    fn server(
        &self,
        name: &str,
        class: &'static str,
        memory: &'static [&'static str],
        site: Site,
    ) -> Result<Server> {
        let root = &self.root;
        Ok(Server {
            class,
            memory,
            site,
            port: free_port()?,
            peer_port: free_port()?,
            store: root.join(format!("store-{name}")),
            home: root.join(format!("home-{name}")),
            conf: root.join(format!("{name}.conf")),
            log: root.join(format!("{name}.out")),
            process: None,
        })
    }

    fn prepare(&mut self, options: &Options) -> Result<()> {
        for number in 0..options.nameservers {
            let site = Site {
                host: options.nameserver_host.clone(),
                ..Site::default()
            };
            let class = "org.apache.rocketmq.namesrv.NamesrvStartup";
            let server =
                self.server(&format!("namesrv{number}"), class, NAMESERVER_MEMORY, site)?;
            let text = format!("listenPort={}\n", server.port);
            std::fs::write(&server.conf, text).context("write a nameserver's conf")?;
            self.nameservers.push(server);
        }
        if options.faulty {
            self.library = Some(Library::compile(&self.root)?);
        }
        for number in 0..options.members {
            let site = options.sites.get(number).cloned().unwrap_or_default();
            let class = "org.apache.rocketmq.broker.BrokerStartup";
            let server = self.server(&format!("n{number}"), class, BROKER_MEMORY, site)?;
            if let Some(bytes) = options.disk_bytes {
                self.disks.push(Disk::mount(&server.store, bytes)?);
            }
            self.members.push(server);
        }
        for (number, member) in self.members.iter().enumerate() {
            let text = self.conf_of(number, member, options);
            std::fs::write(&member.conf, text).context("write a member's conf")?;
        }
        Ok(())
    }

    fn conf_of(&self, number: usize, member: &Server, options: &Options) -> String {
        let peer = |(number, member): (usize, &Server)| {
            format!("n{number}-{}:{}", member.site.host, member.peer_port)
        };
        let peers: Vec<String> = self.members.iter().enumerate().map(peer).collect();
        let mut conf = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(conf, "{key}={value}").expect("writing to a string does not fail");
        };
        line("brokerClusterName", &"RaftCluster");
        line("brokerName", &GROUP);
        line("brokerIP1", &member.site.host);
        line("listenPort", &member.port);
        line("namesrvAddr", &self.nameserver_addresses());
        line("storePathRootDir", &member.store.display());
        line(
            "storePathCommitLog",
            &member.store.join("commitlog").display(),
        );
        line("mappedFileSizeCommitLog", &options.segment_bytes);
        line("enableDLegerCommitLog", &true);
        line("dLegerGroup", &GROUP);
        line("dLegerPeers", &peers.join(";"));
        line("dLegerSelfId", &format!("n{number}"));
        line("sendMessageThreadPoolNums", &16);
        for (key, value) in &options.conf {
            line(key, value);
        }
        conf
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits until there is a leader that stores messages, and names it.
    pub fn wait_leader(&mut self) -> Result<usize> {
        let what = "a leader of the original that stores";
        wait_ok(what, SERVING_WITHIN, Duration::from_millis(20), || {
            self.leader()
        })
    }

    fn wait_topic(&self, topic: &str) -> Result<()> {
        for nameserver in &self.nameservers {
            let address = nameserver.address();
            let what = format!("a route to {topic} at {address}");
            wait_ok(&what, SERVING_WITHIN, Duration::from_millis(20), || {
                calls::route_addresses(&mut Connection::open(&address)?, topic).map(|_| ())
            })?;
        }
        Ok(())
    }
}

impl Subject for Original {
    fn name(&self) -> String {
        format!("RocketMQ {RELEASE} in DLedger mode")
    }

    fn members(&self) -> usize {
        self.members.len()
    }

    fn addresses(&self) -> Vec<String> {
        self.members.iter().map(Server::address).collect()
    }

    fn peer_port(&self, member: usize) -> u16 {
        self.members[member].peer_port
    }

    fn nameserver_addresses(&self) -> String {
        let addresses: Vec<String> = self.nameservers.iter().map(Server::address).collect();
        addresses.join(";")
    }

    fn start_member(&mut self, member: usize) -> Result<()> {
        let library = self.library.as_ref().map(|library| (library, member));
        self.members[member].start(&self.jars, library)
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
            self.members[*member].process = None; // waits until it is gone
        }
        Ok(time)
    }

    fn terminate(&mut self, member: usize) -> Result<()> {
        self.signal(member, libc::SIGTERM)?;
        let server = &mut self.members[member];
        let process = server.process.as_mut().context("never started")?;
        process
            .wait_exit(SERVING_WITHIN)
            .with_context(|| format!("stop member n{member}"))?;
        server.process = None;
        Ok(())
    }

    fn signal(&self, member: usize, signal: i32) -> Result<()> {
        let process = self.members[member].process.as_ref();
        process.context("it does not run")?.signal(signal);
        Ok(())
    }

    /// Members that do not lead refuse.
    fn leader(&mut self) -> Result<usize> {
        let mut reason = anyhow::anyhow!("no member runs");
        for member in 0..self.members.len() {
            if !self.is_running(member) {
                continue;
            }
            match self.probe(member) {
                Ok(_) => return Ok(member),
                Err(error) => reason = error.context(format!("send to n{member}")),
            }
        }
        Err(reason)
    }

    fn probe(&self, member: usize) -> Result<Sent> {
        let mut connection = Connection::open(&self.members[member].address())?;
        let request = calls::send_request(PROBE_TOPIC, 0, "", b"probe");
        calls::send(&mut connection, &request)
    }

    fn wait_serving(&mut self) -> Result<()> {
        let leader = self.wait_leader()?;
        let address = self.members[leader].address();
        for nameserver in 0..self.nameservers.len() {
            let what = format!("the original's nameserver to name {address} as broker 0");
            wait_for(&what, SERVING_WITHIN, Duration::from_millis(20), || {
                let members = self.registered(nameserver).ok()?;
                (leader_of(&members)? == address).then_some(())
            })?;
        }
        for member in 0..self.members.len() {
            if self.is_running(member) {
                let what = format!("member n{member} of the original to take part");
                wait_ok(&what, SERVING_WITHIN, Duration::from_millis(50), || {
                    self.require_taking_part(member)
                })?;
            }
        }
        Ok(())
    }

    fn require_taking_part(&mut self, member: usize) -> Result<()> {
        let leader = self.leader()?;
        if leader == member {
            return Ok(());
        }
        let sent = self.probe(leader)?;
        let mut connection = Connection::open(&self.members[member].address())?;
        let what = format!("member n{member} to have offset {}", sent.offset);
        wait_ok(&what, A_MOMENT, Duration::from_millis(20), || {
            let max = calls::max_offset(&mut connection, PROBE_TOPIC, sent.queue)?;
            ensure!(max > sent.offset, "it has {max} messages");
            Ok(())
        })
    }

    fn registered(&self, nameserver: usize) -> Result<GroupAddresses> {
        let address = self.nameservers[nameserver].address();
        calls::group_addresses(&mut Connection::open(&address)?, GROUP)
    }

    /// The members that do not lead learn of it within ten seconds.
    fn create_topic(&mut self, topic: &str, queues: i32) -> Result<()> {
        let leader = self.wait_leader()?;
        let address = self.members[leader].address();
        calls::create_topic(&mut Connection::open(&address)?, topic, queues)
            .with_context(|| format!("create topic {topic}"))?;
        self.wait_topic(topic)
    }

    fn has_topic(&self, member: usize, topic: &str) -> Result<bool> {
        let mut connection = Connection::open(&self.members[member].address())?;
        calls::has_topic(&mut connection, topic)
    }

    fn library(&self) -> Result<&Library> {
        let library = self.library.as_ref();
        library.context("the members were started without the library of faults")
    }

    fn store(&self, member: usize) -> PathBuf {
        self.members[member].store.clone()
    }

    /// Its files are not compared: only what clients read is judged.
    fn require_identical(&mut self, _within: Duration) -> Result<String> {
        Ok("the original's files are not compared".to_owned())
    }

    fn require_running(&mut self) -> Result<()> {
        for (number, member) in self.members.iter_mut().enumerate() {
            if let Some(process) = &mut member.process
                && let Some(status) = process.exit_status()
            {
                bail!("member n{number} of the original ended: {status}");
            }
        }
        Ok(())
    }

    fn passed(&mut self) -> Result<()> {
        self.passed = true;
        Ok(())
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        for server in self.members.iter_mut().chain(&mut self.nameservers) {
            server.process = None; // kills it
        }
        if self.passed && !std::thread::panicking() {
            self.disks.clear();
            if let Err(error) = std::fs::remove_dir_all(&self.root) {
                say(format!("could not remove {}: {error}", self.root.display()));
            }
            return;
        }
        for (number, member) in self.members.iter().enumerate() {
            say(format!(
                "--- last lines of the original's n{number}:\n{}",
                tail(&member.log, 10)
            ));
        }
        say(format!("--- everything is kept in {}", self.root.display()));
    }
}

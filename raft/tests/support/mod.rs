//! A whole group in one process: real stores in temporary folders, real sockets on loopback.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod ports;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::message::record::NewRecord;
use raftmq_raft::{
    ForwardHandler, Group, GroupOptions, MessageSubmission, Peer, ProposeError, StartError, Stored,
};
use raftmq_store::{Error, Store, StoreOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) use ports::free_ports;

/// Longest wait for anything; far more than it takes on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Takes the answer to a forwarded request.
pub type Reply = Box<dyn FnOnce(RemotingCommand) + Send>;

/// Answers forwarded requests with their body and the member that answered.
pub struct Echo {
    pub member: u64,
    /// Replies kept back, as a held pull is.
    pub held: Mutex<Vec<Reply>>,
}

/// Code of a request that [`Echo`] holds.
pub const HOLD: i32 = 11;

impl ForwardHandler for Echo {
    fn handle(&self, request: RemotingCommand, from_client: SocketAddr, reply: Reply) {
        if request.code == HOLD {
            self.held.lock().push(reply);
            return;
        }
        let remark = format!("member {} answers {from_client}", self.member);
        let mut answer =
            RemotingCommand::response(0, Some(remark)).with_body(request.body.to_bytes());
        answer.opaque = request.opaque;
        reply(answer);
    }
}

pub struct Cluster {
    pub name: String,
    pub peers: Vec<Peer>,
    pub groups: BTreeMap<u64, Group>,
    pub echoes: HashMap<u64, Arc<Echo>>,
    pub tune: fn(&mut GroupOptions),
    pub root: TempDir,
}

impl Cluster {
    /// Members that are not started yet. With `RUST_LOG` set, they log to the test's output.
    pub fn new(name: &str, members: u64) -> Cluster {
        if let Ok(filter) = std::env::var("RUST_LOG") {
            let filter = format!("{},{filter}", raftmq_raft::LOG_FILTER);
            let logs = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_test_writer();
            // The tests of one binary share it.
            drop(logs.try_init());
        }
        let peers = (0..members)
            .map(|id| Peer {
                id,
                host: "127.0.0.1".to_owned(),
                port: free_ports(),
            })
            .collect();
        Cluster {
            name: name.to_owned(),
            peers,
            groups: BTreeMap::new(),
            echoes: HashMap::new(),
            tune: |_| {},
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// A running group whose members all vote.
    pub async fn started(name: &str, members: u64) -> Cluster {
        let mut cluster = Cluster::new(name, members);
        cluster.start_all().await;
        cluster
    }

    /// Starts all members that do not run, and waits until all vote.
    pub async fn start_all(&mut self) {
        for peer in self.peers.clone() {
            if !self.groups.contains_key(&peer.id) {
                self.start(peer.id).await;
            }
        }
        // A member that starts when the others have formed the group has to catch up first.
        until("all members vote", || {
            (!self.groups.values().any(Group::recovering)).then_some(())
        })
        .await;
    }

    pub fn options(&self, id: u64) -> GroupOptions {
        let port = self.peers[id as usize].port;
        let bind = SocketAddr::from(([127, 0, 0, 1], port));
        let mut options = GroupOptions::new(self.name.as_str(), id, self.peers.clone(), bind);
        // Several groups and the compiler may share two cores with this test.
        options.heartbeat = Duration::from_millis(100);
        options.election_min = Duration::from_millis(300);
        options.election_max = Duration::from_millis(500);
        (self.tune)(&mut options);
        options
    }

    pub fn folder(&self, id: u64) -> PathBuf {
        self.root.path().join(format!("n{id}"))
    }

    pub async fn start(&mut self, id: u64) {
        let options = self.options(id);
        let store = open_store(&options, self.folder(id)).await;
        let echo = Arc::new(Echo {
            member: id,
            held: Mutex::default(),
        });
        let group = Group::start(options, store, echo.clone()).await.unwrap();
        self.echoes.insert(id, echo);
        self.groups.insert(id, group);
    }

    /// Takes members down and starts them again that ask for it, until `done`.
    pub async fn tend(&mut self, what: &str, mut done: impl FnMut(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            let wanted = |group: &&Group| group.restart_wanted().borrow().is_some();
            let asking: Vec<u64> = self
                .groups
                .values()
                .filter(wanted)
                .map(Group::self_id)
                .collect();
            for id in asking {
                self.stop(id).await;
                self.start(id).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stores messages until the log has grown by so many bytes.
    pub async fn fill(&self, bytes: u64) {
        let leader = self.leader().await;
        let end = || self.group(leader).watermarks().log_end;
        let goal = end() + bytes;
        let body = vec![7; 128 * 1024];
        while end() < goal {
            self.store("filler", 0, &body).await;
        }
    }

    /// Gives up the log's beginning on all running members, but for its last `segments`.
    pub async fn trim(&self, segments: u64) {
        let leader = self.leader().await;
        let group = self.group(leader);
        let end = group.watermarks().log_end;
        let position = (end / SEGMENT + 1 - segments) * SEGMENT;
        group.trim(position).await.unwrap();
        until("the trimmed segments are gone", || {
            let gone = |group: &Group| group.store().log.min_position() == position;
            self.groups.values().all(gone).then_some(())
        })
        .await;
    }

    /// Stops a member and waits until its threads have let go of its store.
    pub async fn put_down(&mut self, id: u64) {
        self.stop(id).await;
        drop(open_store(&self.options(id), self.folder(id)).await);
    }

    /// Stops a member as a crash would: nothing is handed over, nothing is saved.
    pub fn kill(&mut self, id: u64) {
        if let Some(group) = self.groups.remove(&id) {
            group.abort();
        }
    }

    pub async fn stop(&mut self, id: u64) {
        if let Some(group) = self.groups.remove(&id) {
            group.shutdown().await;
        }
    }

    pub fn group(&self, id: u64) -> &Group {
        &self.groups[&id]
    }

    /// The member that serves as leader, waiting for one.
    pub async fn leader(&self) -> u64 {
        let found = until("a leader serves", || {
            self.groups
                .values()
                .find(|g| g.role().borrow().serving)
                .map(Group::self_id)
        });
        found.await
    }

    /// Waits until every running member has applied what the leader has.
    pub async fn settled(&self) {
        until("all members have applied the leader's log", || {
            let marks: Vec<_> = self.groups.values().map(Group::watermarks).collect();
            let last = marks.iter().filter_map(|m| m.last).max();
            marks
                .iter()
                .all(|m| m.applied == last && m.last == last)
                .then_some(())
        })
        .await;
    }

    /// Asserts that all running members hold the same bytes and the same state.
    pub async fn assert_equal(&self) {
        self.settled().await;
        let mut images = self.groups.values().map(|group| {
            let log = &group.store().log;
            let last = log.last().expect("a formed group has entries");
            let mut bytes = Vec::new();
            let mut next = log.first_index();
            while next <= last.index {
                let entries = log.read(next, last.index + 1, Some(1 << 20)).unwrap();
                next += entries.len() as u64;
                for entry in entries {
                    bytes.extend_from_slice(&entry.raw);
                }
            }
            (group.self_id(), bytes, digest(group))
        });
        let (first, bytes, state) = images.next().unwrap();
        for (id, other_bytes, other_state) in images {
            assert!(
                bytes == other_bytes,
                "logs of members {first} and {id} differ"
            );
            assert_eq!(
                state, other_state,
                "states of members {first} and {id} differ"
            );
        }
    }

    /// Stores one message through whoever leads, again and again until it is surely stored.
    pub async fn store(&self, topic: &str, queue_id: i32, body: &[u8]) -> Stored {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing was stored in time");
            let leader = self.leader().await;
            match submit(self.group(leader), topic, queue_id, &[body]).await {
                Ok(stored) => return stored,
                Err(
                    ProposeError::NotLeader { .. }
                    | ProposeError::Renumber
                    | ProposeError::Busy { .. },
                ) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Records of one submission.
pub fn records(topic: &str, queue_id: i32, bodies: &[&[u8]]) -> BytesMut {
    let mut out = BytesMut::new();
    for body in bodies {
        NewRecord {
            queue_id,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: "127.0.0.1:1000".parse().unwrap(),
            store_host: "127.0.0.1:10911".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            topic,
            properties: "",
        }
        .encode(&mut out)
        .unwrap();
    }
    out
}

/// Submits and waits for the outcome.
pub async fn submit(
    group: &Group,
    topic: &str,
    queue_id: i32,
    bodies: &[&[u8]],
) -> Result<Stored, ProposeError> {
    let (tell, told) = oneshot::channel();
    group.submit(MessageSubmission {
        topic: topic.into(),
        queue_id,
        records: records(topic, queue_id, bodies),
        count: bodies.len() as u32,
        done: Box::new(move |outcome| drop(tell.send(outcome))),
    });
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("an outcome in time")
        .expect("an outcome")
}

/// Waits until `condition` gives something.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How the members' stores are opened: with small segments.
pub fn store_options(folder: PathBuf, group: &str, id: u64) -> StoreOptions {
    let mut options = StoreOptions::new(folder, group, id);
    options.segment_bytes = SEGMENT;
    options
}

/// Bytes of a segment.
pub const SEGMENT: u64 = 4 * 1024 * 1024;

/// Opens a store, waiting for a killed member's threads to let go of it.
pub async fn open_store(options: &GroupOptions, folder: PathBuf) -> Store {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let store = store_options(folder.clone(), &options.group, options.self_id);
        match raftmq_raft::open_store(options, store).await {
            Ok(store) => return store,
            Err(StartError::Open(Error::Locked { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A hash over everything a member has applied.
pub fn digest(group: &Group) -> u64 {
    group.store().state.digest().unwrap()
}

//! Clients that write and read registers while faults happen, and note every operation for the checker
//! ([`linearizability`](crate::linearizability)).
//!
//! | register | write | read | model |
//! |---|---|---|---|
//! | a group's offset in a queue | 15 | 14, for which the leader confirms itself | the largest value |
//! | a topic's settings | 17 | 351 | plain register |
//! | a subscription group's settings | 200 | 352 | plain register |
//!
//! Settings are answered by any member from what it has applied, so a read of them counts only if the same member confirmed
//! just before, on the same connection, that it leads: the largest offset of a queue (30) costs a round of heartbeats. The
//! models and what they promise stand beside the check, in `tests/linearizability/models.go`.
//!
//! A key is given up for a new one after some time, or a few of unknown outcome: these could take effect at
//! any later time, and each of them doubles what the checker has to search.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::calls::{self, Refusal, request, response};
use crate::clock::Nanos;
use crate::history::History;
use crate::leadership::Addresses;
use crate::preload::preload;
use crate::wait::pause;
use crate::wire::{Connection, Request};
use crate::workload::is_definite;

/// The topic in whose first queue the offsets are saved.
pub const TOPIC: &str = "Registers";
/// Its messages: offsets beyond the end of the queue are refused.
const MESSAGES: u32 = 2_000;

/// Operations on one key: enough to live through a change of the leader, and as many as there are different topic settings.
const OPERATIONS_MAX: u32 = 1_500;
/// Writes of unknown outcome on one key.
const UNKNOWN_MAX: u32 = 5;
/// Operations over one connection, so that every member is used.
const OPERATIONS_EACH: u32 = 64;
/// `retryMaxTimes` of a group that nobody has set it for.
const RETRIES_NEW: i64 = 16;
/// The field that marks an answer which another member gave.
const FORWARDED: &str = "raftmqForwarded";

/// Who works on what.
#[derive(Clone)]
pub struct Plan {
    /// Where requests go, in turn.
    pub members: Addresses,
    /// Keys of each of the three kinds at a time.
    pub keys: usize,
    /// Clients of each key.
    pub clients: usize,
    /// Time between a client's operations.
    pub pace: Duration,
    /// Whether several clients save offsets of one group, and sometimes smaller ones, which may not move the group back.
    /// Otherwise one of them saves and the others read.
    pub rivals: bool,
}

impl Plan {
    /// What the product promises, at a pace that leaves room for other clients.
    pub fn new(members: Addresses) -> Plan {
        Plan {
            members,
            keys: 2,
            clients: 3,
            pace: Duration::from_millis(20),
            rivals: true,
        }
    }
}

/// Creates [`TOPIC`] with messages in it, through the leader's address. Once, before [`Registers::start`].
pub fn prepare(leader: &str) -> Result<()> {
    calls::create_topic(&mut Connection::open(leader)?, TOPIC, 1)?;
    preload(leader, TOPIC, 1, MESSAGES, &History::default())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Offset,
    Topic,
    Group,
}

/// A place for keys, one after the other.
#[derive(Debug)]
struct Slot {
    kind: Kind,
    number: usize,
    at: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    operations: u32,
    unknown: u32,
    /// The last value that anybody took to write.
    value: i64,
}

/// A key for one operation, and a value that nobody else writes to it.
#[derive(Debug)]
struct Turn {
    name: String,
    generation: u32,
    fresh: i64,
}

impl Slot {
    fn turn(&self) -> Turn {
        let mut place = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        place.operations += 1;
        let worn = place.operations > OPERATIONS_MAX || place.unknown > UNKNOWN_MAX;
        if worn || place.value >= i64::from(MESSAGES) {
            *place = Place {
                generation: place.generation + 1,
                ..Place::default()
            };
        }
        place.value += 1;
        let kind = match self.kind {
            Kind::Offset => "Offset",
            Kind::Topic => "Topic",
            Kind::Group => "Group",
        };
        Turn {
            name: format!("Register{kind}{}x{}", self.number, place.generation),
            generation: place.generation,
            fresh: place.value,
        }
    }

    fn note_unknown(&self) {
        let mut place = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        place.unknown += 1;
    }
}

/// How many operations ended how.
#[derive(Debug, Default)]
struct Counts {
    read: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
}

/// Clients under way.
#[derive(Debug)]
pub struct Registers {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    out: Arc<Out>,
    threads: Vec<JoinHandle<()>>,
}

/// Where the history goes.
#[derive(Debug)]
struct Out {
    file: Mutex<BufWriter<File>>,
    counts: Counts,
}

impl Out {
    fn line(&self, line: &Value) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // An error shows at the end, where the file is flushed: a buffer that failed keeps failing.
        writeln!(file, "{line}").ok();
    }
}

impl Registers {
    /// Starts the clients, which write their history to `path`. [`prepare`] comes before.
    pub fn start(plan: &Plan, path: &Path) -> Result<Registers> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let out = Arc::new(Out {
            file: Mutex::new(BufWriter::new(file)),
            counts: Counts::default(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for kind in [Kind::Offset, Kind::Topic, Kind::Group] {
            for number in 0..plan.keys {
                let slot = Arc::new(Slot {
                    kind,
                    number,
                    at: Mutex::default(),
                });
                for nth in 0..plan.clients {
                    let mut client = Client {
                        number: threads.len(),
                        writes: match kind {
                            // As a consumer does, which reads where its group is only when it gets a queue.
                            Kind::Offset if nth == 0 => Writes::Only,
                            Kind::Offset if !plan.rivals => Writes::Never,
                            _ => Writes::AndReads,
                        },
                        plan: plan.clone(),
                        slot: Arc::clone(&slot),
                        out: Arc::clone(&out),
                        turn: threads.len(),
                        left: 0,
                        connection: None,
                        mine: (0, 0),
                        dice: u32::try_from(threads.len()).unwrap_or(0),
                    };
                    let stop = Arc::clone(&stop);
                    threads.push(std::thread::spawn(move || client.run(&stop)));
                }
            }
        }
        Ok(Registers {
            path: path.to_owned(),
            stop,
            out,
            threads,
        })
    }

    /// How many operations were answered so far.
    pub fn answered(&self) -> u64 {
        let counts = &self.out.counts;
        counts.read.load(Ordering::Relaxed) + counts.written.load(Ordering::Relaxed)
    }

    /// Ends the clients and returns where the history is.
    pub fn stop(mut self) -> Result<PathBuf> {
        self.halt();
        let mut file = self.out.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush()
            .with_context(|| format!("write {}", self.path.display()))?;
        Ok(self.path.clone())
    }

    /// Ends the clients; what they did stays in the file.
    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there is a failed assertion of the harness itself, already printed.
            thread.join().ok();
        }
    }
}

impl std::fmt::Display for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = &self.out.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "registers: {} reads, {} writes, {} writes refused, {} unknown",
            of(&counts.read),
            of(&counts.written),
            of(&counts.refused),
            of(&counts.unknown)
        )
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.halt();
    }
}

/// What came of a request.
enum Answer {
    /// Done; a read has what it read.
    Done(String),
    /// Not done, for sure.
    Refused,
    /// Done, or not, or later.
    Unknown,
    /// The member does not lead: ask another one.
    Elsewhere,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    Only,
    AndReads,
    Never,
}

struct Client {
    number: usize,
    writes: Writes,
    plan: Plan,
    slot: Arc<Slot>,
    out: Arc<Out>,
    /// Which member is next.
    turn: usize,
    /// How many operations go over this connection yet.
    left: u32,
    connection: Option<Connection>,
    /// What this client wrote last and was acknowledged, and to which of the keys.
    mine: (u32, i64),
    dice: u32,
}

impl Client {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Some(connection) = self.connected() else {
                pause(Duration::from_millis(20));
                continue;
            };
            let writes = match self.writes {
                Writes::Only => true,
                Writes::AndReads => self.draw(2) == 0,
                Writes::Never => false,
            };
            if writes {
                self.write(connection);
            } else {
                self.read(connection);
            }
            pause(self.plan.pace);
        }
    }

    /// A small random number; the same in every run.
    fn draw(&mut self, below: u32) -> u32 {
        self.dice = self
            .dice
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        (self.dice >> 16) % below
    }

    fn connected(&mut self) -> Option<Connection> {
        if self.left > 0
            && let Some(open) = self.connection.take()
        {
            self.left -= 1;
            return Some(open);
        }
        let members = (self.plan.members)();
        self.turn += 1;
        let address = members.get(self.turn % members.len().max(1))?;
        self.left = OPERATIONS_EACH;
        Connection::open(address).ok()
    }

    /// Mostly a value that was never written; sometimes the one that this client wrote last once more, which a member that
    /// has it may answer without asking the others; of offsets, sometimes a smaller one.
    fn value(&mut self, turn: &Turn) -> i64 {
        let mine = (self.mine.0 == turn.generation && self.mine.1 > 0).then_some(self.mine.1);
        match (mine, self.slot.kind) {
            (Some(mine), Kind::Topic | Kind::Group) if self.draw(4) == 0 => mine,
            (Some(mine), Kind::Offset) if self.plan.rivals && self.draw(8) == 0 => {
                (mine - 1).max(1)
            }
            _ => turn.fresh,
        }
    }

    fn write(&mut self, mut connection: Connection) {
        let turn = self.slot.turn();
        let value = self.value(&turn);
        let request = self.write_request(&turn.name, value);
        let called = Nanos::now();
        let result = calls::call(&mut connection, &request);
        let returned = Nanos::now();
        let answer = match result {
            Ok(_) => Answer::Done(self.written(value)),
            Err(error) => answer_of(&error),
        };
        let counts = &self.out.counts;
        let (outcome, count) = match &answer {
            Answer::Done(_) => ("ok", &counts.written),
            Answer::Refused | Answer::Elsewhere => ("refused", &counts.refused),
            Answer::Unknown => ("unknown", &counts.unknown),
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.note(
            &turn,
            called,
            returned,
            ("write", &self.written(value), outcome),
        );
        match answer {
            Answer::Done(_) => self.mine = (turn.generation, value),
            Answer::Unknown => {
                self.slot.note_unknown();
                return; // the connection may be out of step
            }
            Answer::Refused | Answer::Elsewhere if self.slot.kind == Kind::Offset => {
                // A group whose offsets are saved has to exist. If this fails, the next one tries again.
                let create = calls::group_request(&turn.name, RETRIES_NEW);
                calls::call(&mut connection, &create).ok();
                self.left = 0;
            }
            Answer::Refused | Answer::Elsewhere => self.left = 0,
        }
        self.connection = Some(connection);
    }

    fn read(&mut self, mut connection: Connection) {
        let turn = self.slot.turn();
        let called = Nanos::now();
        let result = match self.slot.kind {
            Kind::Offset => read_offset(&mut connection, &turn.name),
            Kind::Topic | Kind::Group => self.read_settings(&mut connection, &turn.name),
        };
        let returned = Nanos::now();
        match result.unwrap_or_else(|error| answer_of(&error)) {
            Answer::Done(value) => {
                self.out.counts.read.fetch_add(1, Ordering::Relaxed);
                self.note(&turn, called, returned, ("read", &value, "ok"));
                self.connection = Some(connection);
            }
            Answer::Unknown => {}
            Answer::Refused | Answer::Elsewhere => {
                self.left = 0;
                self.connection = Some(connection);
            }
        }
    }

    fn write_request(&self, name: &str, value: i64) -> Request {
        match self.slot.kind {
            Kind::Offset => Request::new(request::UPDATE_CONSUMER_OFFSET)
                .field("consumerGroup", name)
                .field("topic", TOPIC)
                .field("queueId", 0)
                .field("commitOffset", value),
            Kind::Topic => {
                let (read, write, perm) = topic_settings(value);
                calls::topic_request(name, 1)
                    .with("readQueueNums", read)
                    .with("writeQueueNums", write)
                    .with("perm", perm)
            }
            Kind::Group => calls::group_request(name, RETRIES_NEW + value),
        }
    }

    /// How a value reads.
    fn written(&self, value: i64) -> String {
        match self.slot.kind {
            Kind::Offset | Kind::Group => value.to_string(),
            Kind::Topic => {
                let (read, write, perm) = topic_settings(value);
                format!("{read}/{write}/{perm}")
            }
        }
    }

    fn read_settings(&self, connection: &mut Connection, name: &str) -> Result<Answer> {
        let confirm = Request::new(request::GET_MAX_OFFSET)
            .field("topic", TOPIC)
            .field("queueId", 0);
        let confirmed = calls::call(connection, &confirm)?;
        if confirmed.fields.contains_key(FORWARDED) {
            return Ok(Answer::Elsewhere);
        }
        let (request, not_there) = match self.slot.kind {
            Kind::Offset | Kind::Topic => (
                calls::topic_settings_request(name),
                response::TOPIC_NOT_EXIST,
            ),
            Kind::Group => (
                Request::new(request::GET_SUBSCRIPTIONGROUP_CONFIG).field("group", name),
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
            ),
        };
        let Some(found) = calls::settings(connection, &request, not_there)? else {
            return Ok(Answer::Done(String::new()));
        };
        let number = |field: &str| {
            let number = found[field].as_i64();
            number.with_context(|| format!("{name} has no {field}: {found}"))
        };
        Ok(Answer::Done(match self.slot.kind {
            // A broker that makes a group of whatever it is asked for has not been told anything of it.
            Kind::Group => match number("retryMaxTimes")? {
                RETRIES_NEW => String::new(),
                retries => (retries - RETRIES_NEW).to_string(),
            },
            Kind::Offset | Kind::Topic => format!(
                "{}/{}/{}",
                number("readQueueNums")?,
                number("writeQueueNums")?,
                number("perm")?
            ),
        }))
    }

    fn note(&self, turn: &Turn, called: Nanos, returned: Nanos, what: (&str, &str, &str)) {
        let (op, value, outcome) = what;
        let kind = match self.slot.kind {
            Kind::Offset => "max",
            Kind::Topic | Kind::Group => "register",
        };
        self.out.line(&json!({
            "kind": kind,
            "key": turn.name,
            "client": self.number,
            "call": called.0,
            "return": returned.0,
            "op": op,
            "value": value,
            "outcome": outcome,
        }));
    }
}

/// Numbers of queues for reading and writing, and permissions: another triple for each of the first 1,500 values.
fn topic_settings(value: i64) -> (i64, i64, i64) {
    (
        1 + value % 16,
        1 + value / 16 % 32,
        [2, 4, 6][usize::try_from(value / 512 % 3).unwrap_or(0)],
    )
}

fn read_offset(connection: &mut Connection, name: &str) -> Result<Answer> {
    let found = calls::query_offset(connection, name, TOPIC, 0)?;
    Ok(Answer::Done(
        found.map_or_else(String::new, |found| found.to_string()),
    ))
}

fn answer_of(error: &anyhow::Error) -> Answer {
    match error.downcast_ref::<Refusal>() {
        Some(refusal) if is_definite(refusal) => Answer::Refused,
        _ => Answer::Unknown,
    }
}

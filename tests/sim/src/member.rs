//! One member: its machine, its disk, and the life of its present process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use raftmq_proto::frame::RemotingCommand;
use raftmq_raft::{ForwardHandler, Group, GroupOptions, Peer, RoleState};
use raftmq_store::disk::{Disk, Fault, MemoryDisk, Operation};
use raftmq_store::{FlushMode, StateOptions, Store, StoreOptions};
use tokio::runtime::Runtime;

use crate::MEMBERS;
use crate::lying::LyingDisk;
use crate::net::address;
use crate::os::{self, Nanos};
use crate::random::Random;
use crate::run::Flaw;

/// A fault that waits for the disk to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// The machine stops in the middle of the operation.
    Stop,
    /// It fails.
    Error,
}

pub struct Member {
    pub id: usize,
    /// Its state database is really there, everything else is on `disk`.
    pub folder: PathBuf,
    pub disk: MemoryDisk,
    pub life: Option<Life>,
    /// Counts processes.
    pub lives: u64,
    /// How far its wall clock is off, in nanoseconds.
    pub skew: i64,
    /// Stopped as by SIGSTOP; the clock goes on.
    pub paused: bool,
    /// When it next has something to do.
    pub wakes: Option<Nanos>,
    /// To happen after so many more disk operations.
    pub disk_fault: Arc<Mutex<Option<(u64, DiskFault)>>>,
    /// The fault that has happened.
    pub fault: Arc<Mutex<Option<DiskFault>>>,
    pub settings: Settings,
}

/// What all members of a run have in common.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub segment_bytes: u64,
    pub async_flush: bool,
    pub appends_in_flight: usize,
    pub entry_bytes_max: usize,
    pub flaw: Option<Flaw>,
}

/// A process.
pub struct Life {
    pub number: u64,
    pub store: Store,
    pub runtime: Runtime,
    /// Filled once the member has started.
    pub started: Arc<Mutex<Option<Result<Group, String>>>>,
    pub group: Option<Group>,
    /// False from the crash on: what the process still says nobody hears.
    pub alive: Arc<AtomicBool>,
    /// Something was written to the log since it was last flushed.
    pub written: Arc<AtomicBool>,
    pub flush_due: bool,
    /// A disk operation has failed: it may end.
    pub failing: bool,
    pub role: Option<(u64, RoleState)>,
    pub applied: Option<u64>,
    /// It was asked to stop in order.
    pub stopping: bool,
}

struct Deaf;

impl ForwardHandler for Deaf {
    fn handle(
        &self,
        _: RemotingCommand,
        _: SocketAddr,
        _: Box<dyn FnOnce(RemotingCommand) + Send>,
    ) {
    }
}

impl Member {
    pub fn new(id: usize, settings: Settings) -> Member {
        let folder = PathBuf::from(format!("n{id}"));
        // Paths are looked at on the real file system too.
        std::fs::create_dir_all(folder.join("commitlog")).expect("a folder for the state");
        Member {
            id,
            folder,
            disk: MemoryDisk::new(),
            life: None,
            lives: 0,
            skew: 0,
            paused: false,
            wakes: None,
            disk_fault: Arc::default(),
            fault: Arc::default(),
            settings,
        }
    }

    /// Starts a process. `Err` when the store does not open.
    pub fn start(&mut self) -> Result<(), String> {
        os::enter(self.id, self.skew);
        self.lives += 1;
        let written = Arc::new(AtomicBool::new(false));
        self.set_rule(written.clone());
        let settings = self.settings;
        let store = StoreOptions {
            segment_bytes: settings.segment_bytes,
            flush: if settings.async_flush {
                FlushMode::Async {
                    interval: std::time::Duration::from_millis(500),
                }
            } else {
                FlushMode::Sync
            },
            prepare_ahead: 0,
            background: false,
            state: StateOptions {
                background: false,
                key_index: false,
                ..StateOptions::default()
            },
            ..StoreOptions::new(&self.folder, "sim", self.id as u64)
        };
        let disk: Arc<dyn Disk> = match settings.flaw {
            Some(Flaw::LyingDisk) => Arc::new(LyingDisk(self.disk.clone())),
            _ => Arc::new(self.disk.clone()),
        };
        let store = Store::open_on(disk, store).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let peers = (0..MEMBERS).map(|id| Peer {
            id: id as u64,
            host: address(id).ip().to_string(),
            port: address(id).port(),
        });
        let options = GroupOptions {
            scrub_rate: 0,
            vote_despite_loss: settings.flaw == Some(Flaw::Forgetful),
            appends_in_flight: settings.appends_in_flight,
            entry_bytes_max: settings.entry_bytes_max,
            ..GroupOptions::new("sim", self.id as u64, peers.collect(), address(self.id))
        };
        let started = Arc::new(Mutex::new(None));
        let tell = started.clone();
        let opened = store.clone();
        runtime.spawn(async move {
            let group = Group::start_here(options, opened, Arc::new(Deaf)).await;
            *tell.lock() = Some(group.map_err(|error| error.to_string()));
        });
        self.life = Some(Life {
            number: self.lives,
            store,
            runtime,
            started,
            group: None,
            alive: Arc::new(AtomicBool::new(true)),
            written,
            flush_due: false,
            failing: false,
            role: None,
            applied: None,
            stopping: false,
        });
        self.wakes = Some(os::now());
        Ok(())
    }

    /// Notes writes to the log, and lets the fault happen that waits.
    fn set_rule(&self, written: Arc<AtomicBool>) {
        let (waiting, happened) = (self.disk_fault.clone(), self.fault.clone());
        let log = self.folder.join("commitlog");
        self.disk.set_rule(move |operation, path| {
            if matches!(operation, Operation::Write { .. }) && path.starts_with(&log) {
                written.store(true, Ordering::Relaxed);
            }
            let changes = matches!(
                operation,
                Operation::Write { .. }
                    | Operation::SyncData
                    | Operation::SyncDir
                    | Operation::SetSize
                    | Operation::Rename
            );
            let mut waiting = waiting.lock();
            let (left, fault) = (*waiting).filter(|_| changes)?;
            if left > 0 {
                *waiting = Some((left - 1, fault));
                return None;
            }
            *waiting = None;
            *happened.lock() = Some(fault);
            Some(match fault {
                DiskFault::Stop => Fault::Stop,
                DiskFault::Error => Fault::Errno(libc::EIO),
            })
        });
    }

    /// The process ends at once; with `power` the machine too, and what was not flushed is lost as
    /// `random` has it.
    pub fn crash(&mut self, power: bool, random: &mut Random) {
        os::enter(self.id, self.skew);
        self.disk_fault.lock().take();
        self.fault.lock().take();
        self.disk = if power {
            self.disk.crash(|choices| random.below(choices))
        } else {
            self.disk.kill()
        };
        self.wakes = None;
        self.paused = false;
        if let Some(life) = self.life.take() {
            life.alive.store(false, Ordering::Relaxed);
            life.started.lock().take();
            let Life {
                runtime,
                group,
                store,
                ..
            } = life;
            drop(runtime);
            drop(group);
            drop(store);
        }
    }

    pub fn group(&self) -> Option<&Group> {
        self.life.as_ref()?.group.as_ref()
    }

    pub fn leads(&self) -> bool {
        self.group()
            .is_some_and(|group| group.role().borrow().state == RoleState::Leader)
    }
}

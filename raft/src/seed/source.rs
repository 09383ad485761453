//! The member that others are brought up from.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use raftmq_store::entry::Header;
use raftmq_store::{LogBase, Store};
use tonic::Status;

use crate::network::wire;
use crate::pb;
use crate::types::log_id;

/// Folder of the copies in the store folder.
const FOLDER: &str = "seeds";
/// A copy that nobody has asked for this long is removed.
const IDLE: Duration = Duration::from_secs(60);
/// Copies at once: a group has few members to bring up.
const SEEDS_MAX: usize = 2;
/// Bytes of one answer.
const CHUNK: usize = 128 * 1024;
/// How long a copy may keep the log from being trimmed.
const HOLD_MAX: Duration = Duration::from_secs(3600);

/// Keeps copies of the state for members that fetch them.
pub(crate) struct Source {
    store: Store,
    seeds: Mutex<HashMap<u64, Arc<Seed>>>,
}

struct Seed {
    dir: PathBuf,
    plan: pb::SeedPlan,
    begun: Instant,
    used: Mutex<Instant>,
}

impl Drop for Seed {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

impl Source {
    /// Removes what an earlier process left.
    pub(crate) fn new(store: Store) -> Self {
        remove(&store.root().join(FOLDER));
        Source {
            store,
            seeds: Mutex::default(),
        }
    }

    /// True while a member fetches the log from here: its beginning should stay.
    pub(crate) fn holds_log(&self) -> bool {
        let mut seeds = self.seeds.lock();
        seeds.retain(|_, seed| seed.used.lock().elapsed() < IDLE);
        seeds.values().any(|seed| seed.begun.elapsed() < HOLD_MAX)
    }

    /// Makes a copy, or finds the one that was begun. Waits for the disk.
    pub(crate) fn begin(&self, wanted: u64) -> Result<pb::SeedPlan, Status> {
        if let Some(seed) = self.find(wanted) {
            return Ok(seed.plan.clone());
        }
        self.holds_log();
        if self.seeds.lock().len() >= SEEDS_MAX {
            return Err(Status::resource_exhausted(format!(
                "{SEEDS_MAX} members are being brought up from here already"
            )));
        }
        let number = loop {
            let number = crate::network::random();
            if number != 0 && !self.seeds.lock().contains_key(&number) {
                break number;
            }
        };
        let dir = self
            .store
            .root()
            .join(FOLDER)
            .join(format!("{number:016x}"));
        let plan = self.copy(number, &dir).inspect_err(|_| remove(&dir))?;
        let seed = Seed {
            dir,
            plan: plan.clone(),
            begun: Instant::now(),
            used: Mutex::new(Instant::now()),
        };
        self.seeds.lock().insert(number, Arc::new(seed));
        Ok(plan)
    }

    fn copy(&self, number: u64, dir: &Path) -> Result<pb::SeedPlan, Status> {
        let failed = |error: raftmq_store::Error| Status::internal(error.to_string());
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).map_err(|error| Status::internal(error.to_string()))?;
        }
        let log = &self.store.log;
        let base = log.base();
        let copy = self.store.state.checkpoint(dir).map_err(failed)?;
        let applied = copy.applied;
        let entry = log
            .read(applied.index, applied.index + 1, None)
            .map_err(failed)?;
        let crc = entry
            .first()
            .and_then(|stored| Header::decode(&stored.raw).ok())
            .map(|header| header.crc)
            .ok_or_else(|| Status::internal(format!("entry {applied} is not in the log")))?;
        let LogBase {
            position,
            next_index,
            prev,
            prev_crc,
            genesis,
        } = base;
        Ok(pb::SeedPlan {
            seed: number,
            applied: Some(wire::to_log_id(&log_id(applied))),
            applied_crc: crc,
            applied_end: copy.applied_end,
            log_start: position,
            first_index: next_index,
            previous: prev.map(|id| wire::to_log_id(&log_id(id))),
            previous_crc: prev_crc,
            genesis,
            segment_bytes: log.options().segment_bytes,
            files: copy
                .files
                .into_iter()
                .map(|(name, size)| pb::SeedFileInfo { name, size })
                .collect(),
        })
    }

    fn find(&self, number: u64) -> Option<Arc<Seed>> {
        let seed = self.seeds.lock().get(&number).cloned()?;
        *seed.used.lock() = Instant::now();
        Some(seed)
    }

    fn seed(&self, number: u64) -> Result<Arc<Seed>, Status> {
        self.find(number)
            .ok_or_else(|| Status::not_found("this copy is not kept any more"))
    }

    /// A piece of a file; empty at its end. Waits for the disk.
    pub(crate) fn file(
        &self,
        number: u64,
        name: &str,
        offset: u64,
    ) -> Result<pb::SeedChunk, Status> {
        let seed = self.seed(number)?;
        let file = seed.plan.files.iter().find(|file| file.name == name);
        let file = file.ok_or_else(|| Status::not_found(format!("there is no file {name:?}")))?;
        let left = file.size.saturating_sub(offset);
        let mut data = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        let path = seed.dir.join(name);
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut data, offset));
        read.map_err(|error| Status::internal(format!("{}: {error}", path.display())))?;
        Ok(chunk(data.into()))
    }

    /// A piece of the log; empty at the end of what belongs to the copy. Waits for the disk.
    pub(crate) fn log(&self, number: u64, position: u64) -> Result<pb::SeedChunk, Status> {
        let seed = self.seed(number)?;
        let limit = seed.plan.applied_end;
        if position >= limit {
            return Ok(chunk(Bytes::new()));
        }
        let data = self.store.log.raw(position, CHUNK as u64, limit);
        let data = data.map_err(|error| Status::out_of_range(error.to_string()))?;
        Ok(chunk(data))
    }
}

fn chunk(data: Bytes) -> pb::SeedChunk {
    let crc = crc32c::crc32c(&data);
    pb::SeedChunk { data, crc }
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove the copy of a state");
    }
}

//! Looking for damage at rest: everything on the disk is read again and again, slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use raftmq_store::{Error, ScrubCursor, Store};

/// Bytes between two pauses.
const STEP: u64 = 1024 * 1024;
/// A pass over everything begins no sooner after the one before.
const PASS_EVERY: Duration = Duration::from_secs(600);

/// Figures of the search for damage.
#[derive(Debug, Default)]
pub struct ScrubStats {
    bytes: AtomicU64,
    passes: AtomicU64,
    found: AtomicU64,
}

impl ScrubStats {
    /// Bytes read since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many times everything was read.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Damaged places found.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }
}

/// The thread that reads.
pub(crate) struct Scrubber {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    rate: u64,
    stats: Arc<ScrubStats>,
    closing: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Scrubber {
    /// Starts the thread; `rate` in bytes per second, 0 starts none.
    pub(crate) fn start(
        store: Store,
        rate: u64,
        stats: Arc<ScrubStats>,
    ) -> std::io::Result<Scrubber> {
        let shared = Arc::new(Shared {
            rate,
            stats,
            closing: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut thread = None;
        if rate > 0 {
            let work = shared.clone();
            let span = tracing::Span::current();
            let spawned = std::thread::Builder::new()
                .name("scrub".to_owned())
                .spawn(move || span.in_scope(|| work.run(&store)))?;
            thread = Some(spawned);
        }
        Ok(Scrubber {
            shared,
            thread: Mutex::new(thread),
        })
    }

    /// Ends the thread.
    pub(crate) fn close(&self) {
        {
            // Under the lock: whoever is about to wait sees it, or is woken.
            let _lock = self.shared.lock.lock();
            self.shared.closing.store(true, Ordering::Release);
        }
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            drop(thread.join());
        }
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Reads until closed, or until the state database is found damaged, which the state tells.
    fn run(&self, store: &Store) {
        loop {
            let begin = Instant::now();
            self.log(store);
            self.state(store);
            if self.closing.load(Ordering::Acquire) || store.state.damage().is_some() {
                return;
            }
            self.stats.passes.fetch_add(1, Ordering::Relaxed);
            self.pause(PASS_EVERY.saturating_sub(begin.elapsed()));
        }
    }

    fn log(&self, store: &Store) {
        let mut cursor = ScrubCursor::default();
        while !self.closing.load(Ordering::Acquire) {
            match store.log.scrub(&mut cursor, STEP) {
                Ok(step) => {
                    self.read(step.bytes);
                    let found = step.holes.len() as u64;
                    self.stats.found.fetch_add(found, Ordering::Relaxed);
                    if step.finished {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the commit log cannot be read through");
                    return;
                }
            }
        }
    }

    fn state(&self, store: &Store) {
        let mut read = |bytes: u64| {
            self.read(bytes);
            !self.closing.load(Ordering::Acquire)
        };
        match store.state.scrub(&mut read) {
            Ok(()) => {}
            Err(Error::StateDamaged { .. }) => {
                self.stats.found.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "the state database cannot be read through"),
        }
    }

    /// Notes bytes, and waits as long as they may take.
    fn read(&self, bytes: u64) {
        self.stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pause(Duration::from_secs_f64(bytes as f64 / self.rate as f64));
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut lock = self.lock.lock();
        while !self.closing.load(Ordering::Acquire) {
            if self.wake.wait_until(&mut lock, until).timed_out() {
                break;
            }
        }
    }
}

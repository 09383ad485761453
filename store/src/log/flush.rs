//! The flush thread: one `fdatasync` for everything that was appended while the last one ran.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::poison::Poison;

use super::checkpoint::Checkpoint;
use super::segment::Segment;
use super::{FlushCallback, FlushMode, Mark};

/// A checkpoint is saved after so many flushed bytes: recovery scans hardly more.
const CHECKPOINT_EVERY: u64 = 8 * 1024 * 1024;

pub(crate) struct Flusher {
    mode: FlushMode,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Held from taking the queue until its callbacks have run: flushes are one after the other,
    /// and a truncation comes between two of them.
    turn: Mutex<Checkpoint>,
    /// Position up to which the log is durable.
    flushed: AtomicU64,
    /// Index after the last durable entry.
    flushed_next: AtomicU64,
    /// How many times files were flushed, for measurements.
    flushes: AtomicU64,
    /// When the flush under way began.
    begun: Mutex<Option<Instant>>,
    poison: Poison,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<FlushCallback>,
    dirty: Vec<Arc<Segment>>,
    /// The last entry appended.
    mark: Option<Mark>,
    /// Somebody waits although the mode would not flush yet.
    urgent: bool,
    closing: bool,
}

/// The right to flush or to change what is flushed.
pub(crate) type Turn<'a> = MutexGuard<'a, Checkpoint>;

impl Flusher {
    pub(crate) fn new(
        mode: FlushMode,
        checkpoint: Checkpoint,
        mark: Option<Mark>,
        poison: Poison,
    ) -> Self {
        let flusher = Flusher {
            mode,
            queue: Mutex::new(Queue {
                mark,
                ..Queue::default()
            }),
            wake: Condvar::new(),
            turn: Mutex::new(checkpoint),
            flushed: AtomicU64::new(0),
            flushed_next: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            begun: Mutex::new(None),
            poison,
        };
        flusher.set_flushed(mark);
        flusher
    }

    fn set_flushed(&self, mark: Option<Mark>) {
        self.flushed
            .store(mark.map_or(0, |mark| mark.end), Ordering::Release);
        self.flushed_next
            .store(mark.map_or(0, |mark| mark.id.index + 1), Ordering::Release);
    }

    pub(crate) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn flushed_next(&self) -> u64 {
        self.flushed_next.load(Ordering::Acquire)
    }

    /// How long the flush under way has taken so far.
    pub(crate) fn flushing_for(&self) -> Option<Duration> {
        self.begun.lock().map(|begun| begun.elapsed())
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Notes that entries up to `mark` were written to `segments`, and who wants to know when
    /// they are durable. In asynchronous mode the callback is handed back, to be called at once.
    pub(crate) fn appended(
        &self,
        mark: Mark,
        segments: impl IntoIterator<Item = Arc<Segment>>,
        flushed: FlushCallback,
    ) -> Option<FlushCallback> {
        let mut queue = self.queue.lock();
        queue.mark = Some(mark);
        for segment in segments {
            if !queue.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, &segment)) {
                queue.dirty.push(segment);
            }
        }
        match self.mode {
            FlushMode::Sync => {
                queue.waiting.push(flushed);
                drop(queue);
                self.wake.notify_one();
                None
            }
            FlushMode::Async { .. } => Some(flushed),
        }
    }

    /// Returns once everything appended before is durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let (done, result) = std::sync::mpsc::sync_channel(1);
        {
            let mut queue = self.queue.lock();
            if queue.closing {
                drop(queue);
                return self.run(&mut self.turn.lock());
            }
            // Nobody listens any more only if this thread is gone, and then nothing is lost.
            queue
                .waiting
                .push(Box::new(move |flushed| drop(done.send(flushed))));
            queue.urgent = true;
        }
        self.wake.notify_one();
        match result.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.poison.check().err().unwrap_or(Error::Closed)),
        }
    }

    /// Waits for the flush under way and keeps the next one from starting.
    pub(crate) fn turn(&self) -> Turn<'_> {
        self.turn.lock()
    }

    /// Flushes what is waiting, on the calling thread.
    pub(crate) fn run(&self, checkpoint: &mut Turn<'_>) -> Result<()> {
        let (waiting, dirty, mark) = {
            let mut queue = self.queue.lock();
            queue.urgent = false;
            (
                std::mem::take(&mut queue.waiting),
                std::mem::take(&mut queue.dirty),
                queue.mark,
            )
        };
        let result = self.poison.check().and_then(|()| {
            self.sync(&dirty, mark, checkpoint)
                .map_err(|e| self.poison.poison(e))
        });
        for flushed in waiting {
            flushed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            });
        }
        result
    }

    fn sync(
        &self,
        dirty: &[Arc<Segment>],
        mark: Option<Mark>,
        checkpoint: &mut Checkpoint,
    ) -> Result<()> {
        *self.begun.lock() = Some(Instant::now());
        let synced = dirty.iter().try_for_each(|segment| segment.sync());
        *self.begun.lock() = None;
        synced?;
        self.flushes
            .fetch_add(dirty.len() as u64, Ordering::Relaxed);
        let Some(mark) = mark.filter(|_| !dirty.is_empty()) else {
            return Ok(());
        };
        self.set_flushed(Some(mark));
        let mut rolled = false;
        for segment in dirty
            .iter()
            .filter(|segment| segment.end() <= mark.position)
        {
            segment.close_file();
            rolled = true;
        }
        if rolled {
            checkpoint.save_synced(Some(mark))?;
        } else if mark.end >= checkpoint.saved_end() + CHECKPOINT_EVERY {
            checkpoint.save(Some(mark))?;
        }
        Ok(())
    }

    /// Forgets what lies behind `mark`; everything before it is durable. The caller has the turn.
    pub(crate) fn truncated(&self, mark: Option<Mark>) {
        let mut queue = self.queue.lock();
        queue.mark = mark;
        queue.dirty.clear();
        drop(queue);
        self.set_flushed(mark);
    }

    /// The thread's work, until closed.
    pub(crate) fn serve(&self) {
        let interval = match self.mode {
            FlushMode::Sync => None,
            FlushMode::Async { interval } => Some(interval.max(Duration::from_millis(1))),
        };
        loop {
            {
                let mut queue = self.queue.lock();
                while queue.waiting.is_empty() && !queue.closing && !queue.urgent {
                    match interval {
                        None => self.wake.wait(&mut queue),
                        Some(interval) => {
                            let late = self.wake.wait_for(&mut queue, interval).timed_out();
                            if late && !queue.dirty.is_empty() {
                                break;
                            }
                        }
                    }
                }
                if queue.closing && queue.waiting.is_empty() {
                    return;
                }
            }
            // An error is kept by the poison, and everybody who waited was told.
            drop(self.run(&mut self.turn.lock()));
        }
    }

    /// Lets the thread end after a last flush by the caller.
    pub(crate) fn close(&self) {
        self.queue.lock().closing = true;
        self.wake.notify_all();
    }

    /// Flushes everything and notes it in the checkpoint, durably.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut turn = self.turn.lock();
        self.run(&mut turn)?;
        let mark = self.queue.lock().mark;
        turn.save_synced(mark).map_err(|e| self.poison.poison(e))
    }
}

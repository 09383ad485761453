//! Looking through the whole log for damage, a piece at a time.

use std::sync::atomic::Ordering;

use crate::error::Result;

use super::walk::{Step, Walk};
use super::{CommitLog, Hole, Mark};

/// Where a scrub has come to. The default begins at the beginning of the log.
#[derive(Debug, Clone, Default)]
pub struct ScrubCursor {
    position: u64,
    last: Option<Mark>,
    generation: u64,
}

impl ScrubCursor {
    /// Position up to which the log was looked through in this round.
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// What one call of [`CommitLog::scrub`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes of the log that were looked through.
    pub bytes: u64,
    /// Damage met that was not known before.
    pub holes: Vec<Hole>,
    /// The end of what is flushed was reached; the next call begins anew.
    pub finished: bool,
}

impl CommitLog {
    /// Reads about `bytes_max` bytes of the log from the disk, not from the page cache, and checks
    /// every entry and the chain. The caller paces the calls; pieces of 1 MiB and more cost least.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when nothing can be read at all.
    pub fn scrub(&self, cursor: &mut ScrubCursor, bytes_max: u64) -> Result<ScrubStep> {
        let shared = self.shared();
        let known = self.holes();
        let generation = shared.holes.generation.load(Ordering::Acquire);
        let until = self.flushed_position();
        let base = self.base();
        let segments: Vec<_> = shared.segments.read().iter().cloned().collect();
        let chunk = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let is_in = (base.position..=until).contains(&cursor.position);
        let mut walk = if is_in && cursor.position > base.position {
            if generation == cursor.generation {
                Walk::new(segments, cursor.position, cursor.last, until)?
            } else {
                // What was read may have been cut off and written anew.
                let size = shared.options.segment_bytes;
                let nth = ((cursor.position - base.position) / size) as usize;
                Walk::at_segment(segments, nth, base.mark(), until)?
            }
        } else {
            Walk::new(segments, base.position, base.mark(), until)?
        };
        walk.cold(chunk);
        walk.know(known.clone());
        let began = walk.position();
        let mut finished = false;
        let mut examined = None;
        while walk.position() - began < bytes_max {
            let (at, is_end) = match walk.step()? {
                Step::Entry(_) => continue,
                Step::Gap(gap) => (gap.position, false),
                Step::End(_) => (walk.position(), true),
            };
            // What is wrong is found out once a segment, unless the log was cut there meanwhile.
            if at < until
                && let Some(segment) = shared.segment(at)
                && examined.replace(segment.start) != Some(segment.start)
            {
                shared.examine(&segment)?;
            }
            if is_end {
                finished = true;
                break;
            }
        }
        let bytes = walk.position() - began;
        *cursor = ScrubCursor::default();
        if !finished {
            cursor.position = walk.position();
            cursor.last = walk.last();
            cursor.generation = generation;
        }
        let mut holes = self.holes();
        holes.retain(|hole| !known.contains(hole));
        Ok(ScrubStep {
            bytes,
            holes,
            finished,
        })
    }
}

//! The log as bytes, to fill another member's log with.

use bytes::Bytes;

use crate::entry::verify;
use crate::error::{Error, Result};

use super::CommitLog;
use super::segment::At;

impl CommitLog {
    /// Whole entries back to back, from `position` on: one at least, and as many as fit into
    /// `bytes_max` and end at or below `limit` (pass the position after the last applied entry).
    /// Empty when none does.
    ///
    /// `position` is where an entry ends or a segment begins. Blank ends of segments are left out:
    /// the first entry then stands at the start of the next segment, as its header says.
    /// Everything is verified.
    ///
    /// # Errors
    /// [`Error::NoRecord`] below the beginning of the log; [`Error::Corrupt`] when there is no
    /// whole entry.
    pub fn raw(&self, position: u64, bytes_max: u64, limit: u64) -> Result<Bytes> {
        let shared = self.shared();
        let limit = limit.min(shared.end());
        if position >= limit {
            return Ok(Bytes::new());
        }
        let gone = || Error::NoRecord {
            offset: position,
            what: "it is before the beginning of the log",
        };
        let mut segment = shared.segment(position).ok_or_else(gone)?;
        let mut from = position;
        if matches!(segment.at(position), At::End) {
            from = segment.end();
            if from >= limit {
                return Ok(Bytes::new());
            }
            segment = shared.segment(from).ok_or_else(gone)?;
        }
        let mut end = from;
        while end < limit.min(segment.end()) {
            let what = match segment.at(end) {
                At::End => break,
                At::Bad(what) => what,
                At::Entry(header) => {
                    let too_much = end > from && header.end() - from > bytes_max;
                    if too_much || header.end() > limit {
                        break;
                    }
                    let raw = segment.slice(end - segment.start, header.size.into());
                    match raw.map(|raw| verify(&raw)) {
                        Some(Ok(_)) => {
                            end = header.end();
                            continue;
                        }
                        Some(Err(error)) => error.to_string(),
                        None => "entry is cut off".to_owned(),
                    }
                }
            };
            // What comes before is good; the next call meets it again.
            if end > from {
                break;
            }
            return Err(shared.damaged(&segment, end, what));
        }
        segment
            .slice(from - segment.start, end - from)
            .ok_or_else(gone)
    }
}

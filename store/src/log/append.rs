//! Appending and truncating: the one writer's side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use raftmq_proto::message::record;

use crate::entry::{EntryKind, HEADER, Header, NewEntry, filler};
use crate::error::{Error, Result};

use super::segment::Segment;
use super::{CommitLog, FlushCallback, Mark};

/// An entry with its place, ready to be written.
struct Planned {
    header: Header,
    head: [u8; HEADER],
    body: Payload,
}

enum Payload {
    /// Body only; the header is `head`.
    Fresh(BytesMut),
    /// Header and body.
    Stored(Bytes),
}

impl CommitLog {
    /// Writes entries behind the last one. They are readable on return, and `flushed` is called
    /// when they are durable (see [`FlushCallback`]). Callbacks run in the order of the appends.
    ///
    /// To be called by one task only: entries must come in the order of their indexes.
    ///
    /// # Errors
    /// [`Error::Diverged`], [`Error::Malformed`] and [`Error::EntryTooLarge`] leave the log as it
    /// was. [`Error::Io`] poisons it. `flushed` is not called after an error.
    pub fn append(
        &self,
        entries: impl IntoIterator<Item = NewEntry>,
        flushed: FlushCallback,
    ) -> Result<()> {
        let shared = self.shared();
        let mut writer = self.inner.writer.lock();
        shared.poison.check()?;
        let planned = self.plan(*writer, entries)?;
        let (last, touched) = match planned.last().map(|planned| Mark::of(&planned.header)) {
            Some(last) => {
                let touched = self
                    .write(*writer, &planned)
                    .map_err(|e| shared.poison.poison(e))?;
                let mut index = shared.index.write();
                for planned in &planned {
                    index.push(Mark::of(&planned.header));
                }
                drop(index);
                shared.end.store(last.end, Ordering::Release);
                *writer = Some(last);
                (Some(last), touched)
            }
            // Without an entry it still waits for those before it.
            None if self.flushed_position() < shared.end() => {
                (*writer, shared.active().into_iter().collect())
            }
            None => (None, Vec::new()),
        };
        // Still under the lock, so that flushes come in the order of the appends.
        let at_once = match last {
            Some(last) => shared.flusher.appended(last, touched, flushed),
            None => Some(flushed),
        };
        drop(writer);
        if let Some(flushed) = at_once {
            flushed(Ok(()));
        }
        shared.preparer.tail_moved(shared.end());
        Ok(())
    }

    /// Gives every entry its place, or refuses them all.
    fn plan(
        &self,
        mut last: Option<Mark>,
        entries: impl IntoIterator<Item = NewEntry>,
    ) -> Result<Vec<Planned>> {
        let mut planned = Vec::new();
        for entry in entries {
            let next = last.map_or(0, |last| last.id.index + 1);
            let prev_crc = last.map_or(0, |last| last.crc);
            let size = match &entry {
                NewEntry::Fresh { body, .. } => (HEADER + body.len()) as u64,
                NewEntry::Stored { raw } => raw.len() as u64,
            };
            let max = self.entry_bytes_max();
            if size > max {
                return Err(Error::EntryTooLarge { size, max });
            }
            let position = self.place(last.map_or(0, |last| last.end), size);
            let entry = match entry {
                NewEntry::Fresh {
                    id,
                    kind,
                    command_len,
                    mut body,
                } => {
                    check_command_len(command_len, body.len())?;
                    if kind == EntryKind::Data {
                        stamp(&mut body, command_len, position)?;
                    }
                    let size = size as u32;
                    let mut header = Header {
                        size,
                        id,
                        position,
                        kind,
                        prev_crc,
                        crc: 0,
                        command_len,
                    };
                    header.crc = header.compute_crc(&body);
                    Planned {
                        header,
                        head: header.encode(),
                        body: Payload::Fresh(body),
                    }
                }
                NewEntry::Stored { raw } => {
                    let header = Header::decode(&raw).map_err(|what| Error::Malformed { what })?;
                    if u64::from(header.size) != size {
                        let what = format!("{size} bytes say they are {}", header.size);
                        return Err(Error::Malformed { what });
                    }
                    Planned {
                        header,
                        head: [0; HEADER],
                        body: Payload::Stored(raw),
                    }
                }
            };
            let Header {
                id,
                position: found,
                prev_crc: chained,
                ..
            } = entry.header;
            let term = last.map_or(0, |last| last.id.term);
            let wrong = if id.index != next {
                Some(format!(
                    "entry {id} has index {}, expected {next}",
                    id.index
                ))
            } else if id.term < term {
                Some(format!(
                    "entry {id} has a lower term than the one before, {term}"
                ))
            } else if found != position {
                Some(format!(
                    "entry {id} has position {found}, expected {position}"
                ))
            } else if chained != prev_crc {
                Some(format!(
                    "entry {id} continues CRC {chained:#010x}, the last is {prev_crc:#010x}"
                ))
            } else {
                None
            };
            if let Some(what) = wrong {
                return Err(Error::Diverged { what });
            }
            last = Some(Mark::of(&entry.header));
            planned.push(entry);
        }
        Ok(planned)
    }

    /// Where an entry of `size` bytes goes when the log ends at `end`. Depends on nothing else.
    pub(super) fn place(&self, end: u64, size: u64) -> u64 {
        let segment = self.shared().options.segment_bytes;
        let room = segment - end % segment;
        // A log that ends exactly at a segment's end has no room there, not a whole segment.
        if end.is_multiple_of(segment) || size <= room {
            end
        } else {
            end + room
        }
    }

    /// Writes the planned entries, one write for each run within a segment.
    fn write(&self, last: Option<Mark>, planned: &[Planned]) -> Result<Vec<Arc<Segment>>> {
        let shared = self.shared();
        let mut touched: Vec<Arc<Segment>> = Vec::with_capacity(1);
        let mut active = shared.active().expect("a log has at least one segment");
        let mut end = last.map_or(0, |last| last.end);
        let mut rest = planned;
        while let Some(first) = rest.first() {
            let blank = filler(u32::try_from(active.end() - end).unwrap_or_default());
            let position = first.header.position;
            if position >= active.end() {
                if active.end() - end >= 8 {
                    active.write(&[&blank], end - active.start)?;
                    touch(&mut touched, &active);
                }
                let (start, size) = (active.end(), active.size);
                active = shared.preparer.roll(shared, start, size)?;
                end = start;
                continue;
            }
            let fits = rest.partition_point(|planned| planned.header.position < active.end());
            let (run, after) = rest.split_at(fits);
            let mut buffers: Vec<&[u8]> = Vec::with_capacity(run.len() * 2);
            for planned in run {
                match &planned.body {
                    Payload::Fresh(body) => buffers.extend([&planned.head[..], body]),
                    Payload::Stored(raw) => buffers.push(raw),
                }
            }
            active.write(&buffers, position - active.start)?;
            if position == active.start {
                active.set_first_index(Some(first.header.id.index));
            }
            let first_index = active.first_index().unwrap_or(first.header.id.index);
            let mut anchors = active.anchors.lock();
            let was_empty = anchors.is_empty();
            for Planned { header, .. } in run {
                anchors.push(
                    header.id.index - first_index,
                    header.position - active.start,
                );
                end = header.end();
            }
            drop(anchors);
            if was_empty {
                shared.anchored(&active);
            }
            touch(&mut touched, &active);
            rest = after;
        }
        Ok(touched)
    }

    /// Removes all entries after `index` (all entries for `None`). Durable on return; everything
    /// that stays is flushed, and callbacks of earlier appends have been called.
    ///
    /// # Errors
    /// [`Error::TruncateCommitted`] when `index` is below what [`set_committed`](Self::set_committed)
    /// was told; [`Error::OutOfRange`]; [`Error::Io`] poisons the log.
    pub fn truncate_after(&self, index: Option<u64>) -> Result<()> {
        let shared = self.shared();
        let _no_purge = self.inner.base.lock();
        let mut writer = self.inner.writer.lock();
        shared.poison.check()?;
        let next = self.next_index();
        let keep_next = index.map_or_else(|| self.first_index(), |index| index + 1);
        if keep_next > next || keep_next < self.first_index() {
            let index = index.unwrap_or_default();
            return Err(Error::OutOfRange {
                index,
                first: self.first_index(),
                next,
            });
        }
        if keep_next == next {
            return Ok(());
        }
        let committed = shared.committed_next.load(Ordering::Acquire);
        if keep_next < committed {
            return Err(Error::TruncateCommitted {
                after: index,
                committed: committed - 1,
            });
        }
        let mark = match index {
            Some(index) if index >= self.first_index() => Some(self.mark_at(index)?),
            _ => None,
        };
        let mut turn = shared.flusher.turn();
        shared.flusher.run(&mut turn)?;
        let cut = mark.map_or_else(|| self.min_position(), |mark| mark.end);
        let old_end = shared.end();

        // From here on a failure leaves the log in between.
        let poison = |error| shared.poison.poison(error);
        turn.lower(mark).map_err(poison)?;
        shared.index.write().truncate(mark);
        shared.end.store(cut, Ordering::Release);
        shared.holes.cut();
        *writer = shared.index.read().tail();
        let mut next = shared.preparer.next.lock();
        // The segment of the last entry that stays, even if the cut is at its very end.
        let last_segment = mark.map_or(cut, |mark| mark.position);
        let active = shared
            .segment(last_segment)
            .expect("the entry was read from there");
        let mut dropped: Vec<Arc<Segment>> = Vec::new();
        {
            let mut segments = shared.segments.write();
            while segments
                .back()
                .is_some_and(|last| last.start > active.start)
            {
                dropped.extend(segments.pop_back());
            }
        }
        if !dropped.is_empty() {
            // The prepared segment would leave a gap.
            dropped.splice(0..0, next.take());
        }
        let offset = cut - active.start;
        active.anchors.lock().truncate(offset);
        active.set_time_ms(None);
        active.forget_verified(offset);
        if offset == 0 {
            active.set_first_index(None);
        }
        active
            .zero(offset, old_end.min(active.end()) - active.start)
            .map_err(poison)?;
        active.sync().map_err(poison)?;
        let dir = &shared.options.dir;
        for segment in &dropped {
            segment.remove().map_err(poison)?;
        }
        if !dropped.is_empty() {
            shared
                .disk
                .sync_dir(dir)
                .map_err(Error::io("flush", dir))
                .map_err(poison)?;
        }
        shared.flusher.truncated(mark);
        shared.holes.clip(0, cut);
        drop(next);
        drop(turn);
        shared.preparer.wake();
        Ok(())
    }
}

fn touch(touched: &mut Vec<Arc<Segment>>, segment: &Arc<Segment>) {
    if !touched.iter().any(|known| Arc::ptr_eq(known, segment)) {
        touched.push(segment.clone());
    }
}

fn check_command_len(command_len: u32, body: usize) -> Result<()> {
    if command_len as usize > body {
        let what = format!("command of {command_len} bytes in a body of {body}");
        return Err(Error::Malformed { what });
    }
    Ok(())
}

/// Stamps each record with its physical offset.
fn stamp(body: &mut [u8], command_len: u32, position: u64) -> Result<()> {
    let size = body.len();
    let mut at = position + HEADER as u64 + u64::from(command_len);
    let records = body.get_mut(command_len as usize..).unwrap_or_default();
    for record in record::records_mut(records) {
        let size = record.len() as u64;
        record::stamp_physical_offset(record, at);
        at += size;
    }
    let end = position + (HEADER + size) as u64;
    if at != end {
        let what = format!(
            "records break off {} bytes before the end of the body",
            end - at
        );
        return Err(Error::Malformed { what });
    }
    Ok(())
}

//! What is in the log after any stop: an entry-by-entry walk from the checkpoint.
//!
//! The log ends before the first bytes that do not continue it, unless a later entry of it stands
//! behind them: then they are a hole. Of what lies before the checkpoint only the first header of
//! each segment is read; damage there is met by readers and by the scrub.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};

use super::base::{self, BaseFile, LogBase};
use super::checkpoint::{self, Checkpoint};
use super::holes::{Hole, hole_of, join};
use super::index::Index;
use super::reader::Reader;
use super::segment::{self, Segment, file_name};
use super::walk::{Gap, Step, Walk};
use super::{LogOptions, Mark};

/// Most segments that may be missing between others: more is a stray file, or no damage of ours.
const MISSING_MAX: u64 = 1024;
/// Most bytes written again at a start: more than lies between two checkpoints.
const REWRITE_MAX: u64 = 128 * 1024 * 1024;

pub(crate) struct Recovered {
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) index: Index,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) base: BaseFile,
    pub(crate) holes: Vec<Hole>,
}

pub(crate) fn recover(disk: &Arc<dyn Disk>, options: &LogOptions) -> Result<Recovered> {
    let dir = &options.dir;
    disk.create_dir_all(dir).map_err(Error::io("create", dir))?;
    let (mut checkpoint, slot) = Checkpoint::open(&**disk, dir, options.segment_bytes)?;
    if let Some(slot) = slot
        && slot.segment_bytes != options.segment_bytes
    {
        return Err(Error::Identity {
            path: dir.join(checkpoint::NAME),
            key: "mappedFileSizeCommitLog",
            stored: slot.segment_bytes.to_string(),
            wanted: options.segment_bytes.to_string(),
        });
    }
    let size = options.segment_bytes;
    let (mut base_file, base) = BaseFile::open(&**disk, dir, size)?;
    let mut starts = segment_starts(&**disk, dir, size)?;
    if starts.first().is_some_and(|first| *first < base.position) {
        // An fsync of it may have failed: the page cache says then what the disk does not.
        base_file.save(&base)?;
        remove_leftovers(&**disk, dir, &mut starts, &base)?;
    }
    // Below the base it is the other slot of a damaged pair.
    let known = slot.and_then(|slot| slot.mark);
    let known = known.filter(|known| known.position >= base.position);
    let flushed = known.map_or(base.position, |known| known.end);
    if base_file.was_new() && starts.first().is_some_and(|first| *first > 0) {
        return Err(Error::Corrupt {
            path: dir.join(file_name(0)),
            offset: 0,
            what: "file is missing, and so is the file base, which would say that it was removed; to have this member filled by its peers remove the store".to_owned(),
        });
    }
    if starts.is_empty() && known.is_none() && slot.is_some() {
        return Err(Error::Corrupt {
            path: dir.join(file_name(base.position)),
            offset: 0,
            what: "file is missing, and with it the whole log; to have this member filled by its peers remove the store".to_owned(),
        });
    }
    let (mut segments, suspects) = open_segments(disk, options, &starts, &base, flushed)?;
    let mut finding = Finding {
        segments: segments.iter().cloned().collect(),
        base,
        index: Index::new(base),
        holes: Vec::new(),
    };
    if let Some(known) = known {
        finding.begin(known, suspects)?;
    }
    let ended_by = finding.walk(known)?;
    let Finding { index, holes, .. } = finding;
    let last = index.last;
    let end = index.end();
    // Number of the segment that holds the last entry.
    let tail = last.map_or(0, |last| (last.position - base.position) / size) as usize;
    let first_walked = (known.map_or(0, |known| known.position - base.position) / size) as usize;
    if let Some(what) = ended_by {
        tracing::info!(last = ?last.map(|l| l.id), position = end, what,
            "commit log ends before bytes that do not continue it");
    }

    // Durable from here on is what was found, and only zeros behind it. The fsync that ended the
    // last process may have left bytes in the page cache that will never reach the disk unless
    // they are written again.
    let rewrite = end
        .saturating_sub(REWRITE_MAX)
        .max(flushed)
        .max(base.position);
    for segment in segments.iter().take(tail + 1).skip(first_walked) {
        segment.rewrite(rewrite.max(segment.start), end.min(segment.end()))?;
    }
    for segment in segments.iter().take(tail + 1).skip(first_walked) {
        segment.sync()?;
    }
    let active = segments
        .get(tail)
        .expect("the walk stays in the segments")
        .clone();
    active.clean_after(end - active.start)?;
    let stale: Vec<_> = segments.drain(tail + 1..).collect();
    for segment in stale.iter().rev() {
        disk.remove(&segment.path)
            .map_err(Error::io("remove", &segment.path))?;
    }
    disk.sync_dir(dir).map_err(Error::io("flush", dir))?;
    // A hole that a power cut may have left before anybody could rely on it is met as such at every start, until it is mended or
    // cut off.
    if holes.iter().all(|hole| hole.flushed) {
        checkpoint.save_synced(last)?;
    }
    for segment in segments.iter().rev().skip(1) {
        segment.close_file();
    }
    Ok(Recovered {
        segments,
        index,
        checkpoint,
        base: base_file,
        holes,
    })
}

/// Removes segments below the base: a removal that was interrupted.
fn remove_leftovers(
    disk: &dyn Disk,
    dir: &Path,
    starts: &mut Vec<u64>,
    base: &LogBase,
) -> Result<()> {
    let kept = starts.partition_point(|start| *start < base.position);
    for start in starts.drain(..kept) {
        let path = dir.join(file_name(start));
        disk.remove(&path).map_err(Error::io("remove", &path))?;
    }
    disk.sync_dir(dir).map_err(Error::io("flush", dir))
}

/// Start positions of the segment files in a folder, ascending.
pub(crate) fn segment_starts(disk: &dyn Disk, dir: &Path, size: u64) -> Result<Vec<u64>> {
    let mut starts = Vec::new();
    for name in disk.list(dir).map_err(Error::io("list", dir))? {
        let digits = segment::is_file_name(&name);
        match name.parse::<u64>() {
            Ok(start) if digits && start % size == 0 => starts.push(start),
            Ok(_) if digits => {
                return Err(Error::Corrupt {
                    path: dir.join(&name),
                    offset: 0,
                    what: format!("file name is no multiple of the segment size {size}"),
                });
            }
            _ if name == checkpoint::NAME || name == base::NAME => {}
            _ => tracing::debug!(name, "not a file of the commit log"),
        }
    }
    starts.sort_unstable();
    Ok(starts)
}

/// Opens the segments from the base to the last file, and creates those that are missing between.
/// Also returns the numbers of those that lack something below `flushed`.
fn open_segments(
    disk: &Arc<dyn Disk>,
    options: &LogOptions,
    starts: &[u64],
    base: &LogBase,
    flushed: u64,
) -> Result<(VecDeque<Arc<Segment>>, Vec<usize>)> {
    let (dir, size) = (&options.dir, options.segment_bytes);
    let last = starts.last().map_or(base.position, |last| last + size);
    let end = last.max(flushed.next_multiple_of(size));
    let missing = (end - base.position) / size - starts.len() as u64;
    if missing > MISSING_MAX {
        return Err(Error::Corrupt {
            path: dir.clone(),
            offset: 0,
            what: format!(
                "{missing} of the files {} to {} are missing; to have this member filled by its peers remove the store",
                file_name(base.position),
                file_name(end - size)
            ),
        });
    }
    let mut segments = VecDeque::new();
    let mut lacking = Vec::new();
    for start in (base.position..end).step_by(size as usize) {
        let path = dir.join(file_name(start));
        let found = match starts.binary_search(&start) {
            Ok(_) => {
                let file = disk
                    .open(&path, crate::disk::Open::Existing)
                    .map_err(Error::io("open", &path))?;
                file.size().map_err(Error::io("read", &path))?
            }
            Err(_) => 0,
        };
        let segment = Segment::open(disk, dir, start, size)?;
        if found < size && (start < flushed || start + size < end) {
            tracing::error!(path = %path.display(), found, size, "file of the commit log is missing or short");
            segment.sync()?;
            lacking.push(segments.len());
        }
        segments.push_back(Arc::new(segment));
    }
    if segments.is_empty() {
        let first = Segment::create(disk, dir, base.position, size)?;
        segments.push_back(Arc::new(first));
    }
    Ok((segments, lacking))
}

/// What the walks of a recovery find.
struct Finding {
    segments: Vec<Arc<Segment>>,
    base: LogBase,
    index: Index,
    holes: Vec<Hole>,
}

impl Finding {
    /// The segments before the one with the checkpointed entry are not walked, but each must at
    /// least begin well; if not, or if it lacks something, it is walked after all.
    fn begin(&mut self, known: Mark, mut suspects: Vec<usize>) -> Result<()> {
        let size = self.segments.first().map_or(1, |first| first.size);
        let active = ((known.position - self.base.position) / size) as usize;
        let mut next = self.base.next_index;
        suspects.retain(|nth| *nth <= active);
        for (nth, segment) in self.segments.iter().enumerate().take(active + 1) {
            let mut reader = Reader::new(segment.clone())?;
            reader.narrow(0);
            match reader.entry(segment.start) {
                Ok(header)
                    if header.id.index >= next
                        && header.id.index <= known.id.index
                        && (nth > 0 || header.id.index == next) =>
                {
                    next = header.id.index + 1;
                    segment.set_first_index(Some(header.id.index));
                }
                _ => suspects.push(nth),
            }
        }
        suspects.sort_unstable();
        let mut walked = self.base.position;
        for nth in suspects {
            let Some(segment) = self.segments.get(nth).cloned() else {
                continue;
            };
            let stop = segment.end().min(known.position);
            if stop <= walked.max(segment.start) {
                continue;
            }
            let segments = self.segments.clone();
            let mut walk = Walk::at_segment(
                segments,
                nth.saturating_sub(1),
                self.base.mark(),
                known.position,
            )?;
            while walk.position() < stop {
                let gap = match walk.step()? {
                    Step::Entry(header) => {
                        self.begins(header.position, header.id.index);
                        continue;
                    }
                    Step::Gap(gap) => gap,
                    Step::End(_) if walk.position() >= known.position => break,
                    Step::End(at) => {
                        let first = walk.last().map_or(0, |last| last.id.index + 1);
                        if first == known.id.index {
                            // The blank end before the checkpointed entry, at most.
                            break;
                        }
                        at.gap(first, known.position, known.id.index)
                    }
                };
                let ends = gap.end >= known.position;
                self.gap(gap, true)?;
                if ends {
                    break;
                }
            }
            walked = walk.position();
        }
        Ok(())
    }

    /// Walks from the checkpointed entry, or from the base, to the end.
    fn walk(&mut self, known: Option<Mark>) -> Result<Option<String>> {
        let (from, before) = match known {
            Some(known) => (known.end, Some(known)),
            None => (self.base.position, self.base.mark()),
        };
        if let Some(known) = known {
            self.known(known)?;
        }
        let mut walk = Walk::new(self.segments.clone(), from, before, u64::MAX)?;
        loop {
            match walk.step()? {
                Step::Entry(header) => {
                    self.begins(header.position, header.id.index);
                    if let Some(segment) = self.segment(header.position)
                        && let Some(first) = segment.first_index()
                    {
                        let offset = header.position - segment.start;
                        segment.anchors.lock().push(header.id.index - first, offset);
                    }
                    self.index.push(Mark::of(&header));
                }
                Step::Gap(gap) => self.gap(gap, false)?,
                Step::End(end) => return Ok(end.what),
            }
        }
    }

    /// The checkpointed entry, which is the last of the log even if it is damaged.
    fn known(&mut self, known: Mark) -> Result<()> {
        let Some(segment) = self.segment(known.position).cloned() else {
            return Ok(());
        };
        let what = match Reader::new(segment.clone())?.entry(known.position) {
            Ok(header) if header.id == known.id && header.crc == known.crc => None,
            Ok(header) => Some(format!(
                "entry {} is not the flushed one, {}",
                header.id, known.id
            )),
            Err(what) => Some(format!("entry {} was flushed, but {what}", known.id)),
        };
        if let Some(what) = what {
            let gap = Gap {
                position: known.position,
                end: known.end,
                first_index: known.id.index,
                next_index: known.id.index + 1,
                what,
            };
            self.gap(gap, true)?;
        } else if let Some(first) = segment.first_index() {
            let offset = known.position - segment.start;
            segment.anchors.lock().push(known.id.index - first, offset);
        }
        self.index.push(known);
        Ok(())
    }

    fn segment(&self, position: u64) -> Option<&Arc<Segment>> {
        let size = self.segments.first()?.size;
        let nth = position.checked_sub(self.base.position)? / size;
        self.segments.get(usize::try_from(nth).ok()?)
    }

    fn begins(&self, position: u64, index: u64) {
        if let Some(segment) = self.segment(position)
            && position == segment.start
        {
            segment.set_first_index(Some(index));
        }
    }

    fn gap(&mut self, gap: Gap, flushed: bool) -> Result<()> {
        let Some(segment) = self.segment(gap.position).cloned() else {
            return Ok(());
        };
        for inside in &self.segments {
            if inside.start == gap.position {
                inside.set_first_index(Some(gap.first_index));
            } else if (gap.position..gap.end).contains(&inside.start) {
                inside.set_first_index(Some(gap.next_index));
            }
        }
        let hole = hole_of(&segment, gap, flushed);
        if hole.is_blank() {
            return segment.write_blank(hole.offset);
        }
        tracing::error!(path = %hole.path.display(), offset = hole.offset, first = hole.first_index,
            next = hole.next_index, what = hole.what, "commit log is damaged");
        join(&mut self.holes, hole);
        Ok(())
    }
}

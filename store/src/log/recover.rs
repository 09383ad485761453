//! What is in the log after any stop: an entry-by-entry walk from the checkpoint.
//!
//! The log ends before the first bytes that do not continue it. Damage at or before the entry
//! the checkpoint names is an error: those bytes were flushed, and members may rely on them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};

use super::base::{self, BaseFile, LogBase};
use super::checkpoint::{self, Checkpoint};
use super::index::Index;
use super::segment::{self, Segment, file_name};
use super::walk::{Reader, Walk};
use super::{LogOptions, Mark};

pub(crate) struct Recovered {
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) index: Index,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) base: BaseFile,
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
    let (base_file, base) = BaseFile::open(&**disk, dir, size)?;
    let mut starts = segment_starts(&**disk, dir, size)?;
    remove_leftovers(&**disk, dir, &mut starts, &base)?;
    // Below the base it is the other slot of a damaged pair.
    let known = slot.and_then(|slot| slot.mark);
    let known = known.filter(|known| known.position >= base.position);
    check_complete(&**disk, dir, &starts, size, &base, known)?;

    let mut segments = VecDeque::with_capacity(starts.len().max(1));
    for start in starts {
        segments.push_back(Arc::new(Segment::open(disk, dir, start, size)?));
    }
    if segments.is_empty() {
        let first = Segment::create(disk, dir, base.position, size)?;
        segments.push_back(Arc::new(first));
    }
    let mut index = Index::new(base);
    let mut walk = Walk::new(&segments, &base, known)?;
    while let Some(mark) = walk.step()? {
        index.push(mark);
    }
    let last = index.last;
    let end = index.end();
    // Number of the segment that holds the last entry.
    let tail = last.map_or(0, |last| (last.position - base.position) / size) as usize;
    if slot.is_none() {
        refuse_gap(&segments, tail, last)?;
    }
    let Walk {
        first_segment,
        ended_by,
        ..
    } = walk;
    if let Some(what) = ended_by {
        tracing::info!(last = ?last.map(|l| l.id), position = end, what,
            "commit log ends before bytes that do not continue it");
    }

    // Durable from here on is what was found, and only zeros behind it.
    for segment in segments.iter().take(tail + 1).skip(first_segment) {
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
    checkpoint.save_synced(last)?;
    for segment in segments.iter().rev().skip(1) {
        segment.close_file();
    }
    Ok(Recovered {
        segments,
        index,
        checkpoint,
        base: base_file,
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
    if kept == 0 {
        return Ok(());
    }
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

/// Refuses a log with missing or short files below what is known to be flushed.
fn check_complete(
    disk: &dyn Disk,
    dir: &Path,
    starts: &[u64],
    size: u64,
    base: &LogBase,
    known: Option<Mark>,
) -> Result<()> {
    let flushed = known.map_or(base.position, |known| known.end);
    let count = (starts.len() as u64).max((flushed - base.position).div_ceil(size));
    for expected in (0..count).map(|nth| base.position + nth * size) {
        let path = dir.join(file_name(expected));
        let missing = |what: &str| Error::Corrupt {
            path: path.clone(),
            offset: 0,
            what: format!("{what}, but the log reaches to position {flushed} at least"),
        };
        if starts.binary_search(&expected).is_err() {
            if expected < flushed || expected < starts.last().copied().unwrap_or(0) {
                return Err(missing("file is missing"));
            }
            continue;
        }
        if expected < flushed {
            let file = disk
                .open(&path, crate::disk::Open::Existing)
                .map_err(Error::io("open", &path))?;
            let found = file.size().map_err(Error::io("read", &path))?;
            if found < size {
                return Err(missing(&format!("file has {found} bytes of {size}")));
            }
        }
    }
    Ok(())
}

/// Without a checkpoint nothing says how far the log was flushed; but an entry in a later segment
/// means that it went on, and a cut here would lose what others may rely on.
fn refuse_gap(segments: &VecDeque<Arc<Segment>>, tail: usize, last: Option<Mark>) -> Result<()> {
    let (Some(tail), Some(next)) = (segments.get(tail), segments.get(tail + 1)) else {
        return Ok(());
    };
    let mut reader = Reader::new(next.clone())?;
    if let Ok(header) = reader.entry(next.start)
        && last.is_none_or(|last| header.id.index > last.id.index)
    {
        let end = last.map_or(tail.start, |last| last.end);
        let what = format!(
            "log breaks off here, but {} goes on with entry {} (and there is no checkpoint)",
            next.path.display(),
            header.id
        );
        return Err(tail.corrupt(end.max(tail.start), what));
    }
    Ok(())
}

//! Reading the whole state database with its checksums, to find damage before it is needed.
//!
//! The files are opened anew, apart from the database in use, so that nothing is taken from its
//! caches; the system's cache of them is given up at the beginning.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use rocksdb::{DB, IteratorMode, ReadOptions};

use crate::error::{Error, Result};

use super::keys::{self, is_key_row};
use super::{State, block, open, rows};

/// Attempts to open the files while the database in use removes some of them.
const ATTEMPTS: usize = 5;

/// Bytes read between two words with the caller.
const PIECE: u64 = if cfg!(test) { 2000 } else { 4 * 1024 * 1024 };

/// Where a scrub goes on.
#[derive(Default)]
struct Cursor {
    /// Number of the column family.
    family: usize,
    /// Key of the next row, or one before it.
    key: Vec<u8>,
}

impl State {
    /// Reads every row from the files, with checksums, and tells the bytes of each piece to `read`,
    /// which may wait; ends early when that says no.
    ///
    /// # Errors
    /// [`Error::StateDamaged`] once anything is damaged, see [`damage`](Self::damage): the
    /// database has to be built again. [`Error::Database`] when it cannot be read.
    pub fn scrub(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        forget_cached(&self.inner.path);
        let mut cursor = Cursor::default();
        loop {
            let (bytes, is_over) = self.scrub_piece(&mut cursor)?;
            if !read(bytes) || is_over {
                return Ok(());
            }
        }
    }

    /// Reads a piece from a cursor on, and moves that; returns bytes, and whether it was the last.
    fn scrub_piece(&self, cursor: &mut Cursor) -> Result<(u64, bool)> {
        let inner = &*self.inner;
        let db = self.open_apart()?;
        let mut bytes = 0;
        let families = [rocksdb::DEFAULT_COLUMN_FAMILY_NAME, keys::FAMILY];
        while let Some(name) = families.get(cursor.family) {
            let family = db
                .cf_handle(name)
                .ok_or_else(|| inner.damaged(format!("column family {name} is missing")))?;
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            options.fill_cache(false);
            let from = IteratorMode::From(&cursor.key, rocksdb::Direction::Forward);
            for row in db.iterator_cf_opt(family, options, from) {
                let (key, value) = row.map_err(|error| inner.database(error))?;
                if bytes >= PIECE {
                    cursor.key = key.into_vec();
                    return Ok((bytes, false));
                }
                let is_readable = match cursor.family {
                    0 => is_readable(&key, &value),
                    _ => is_key_row(&key, &value),
                };
                if !is_readable {
                    let key = String::from_utf8_lossy(&key);
                    let what = format!("row {} is not readable", key.escape_debug());
                    return Err(inner.damaged(what));
                }
                bytes += (key.len() + value.len()) as u64;
            }
            cursor.family += 1;
            cursor.key.clear();
        }
        Ok((bytes, true))
    }

    /// The database as its files have it.
    fn open_apart(&self) -> Result<DB> {
        let inner = &*self.inner;
        let mut attempt = 1;
        loop {
            match open::open_read_only(&inner.path) {
                Ok((db, _)) => return Ok(db),
                // A file was removed between looking and opening, or the list of files is just
                // being written.
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(Error::StateDamaged { what, .. }) => return Err(inner.damaged(what)),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_readable(key: &[u8], value: &[u8]) -> bool {
    use rows::Key;
    match rows::decode(key) {
        None => false,
        Some(Key::Meta) => rows::Meta::decode(value).is_some(),
        Some(Key::Queue(..)) => rows::decode_queue(value).is_some(),
        Some(Key::Offsets(..)) => rows::decode_offsets(value).is_some(),
        Some(Key::Block) => block::units(0, value).is_some(),
        Some(Key::Topic | Key::Group | Key::Kv(..)) => true,
    }
}

/// Gives up what the system has cached of the files. Best effort.
fn forget_cached(dir: &Path) {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for file in files.filter_map(|file| File::open(file.path()).ok()) {
        // SAFETY: the descriptor is open, and the call takes nothing else.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{append, by_hand, message};
    use super::*;
    use crate::entry::EntryKind;
    use crate::log::CommitLog;

    fn scrub(state: &State) -> Result<u64> {
        let mut all = 0;
        state.scrub(&mut |bytes| {
            all += bytes;
            true
        })?;
        Ok(all)
    }

    /// Every row is read once, in pieces; a byte that changes on disk is found although it is cached.
    #[test]
    fn damage_is_found() {
        let log = CommitLog::memory();
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
        for offset in 0..3000 {
            let record = message("A", 0, 0, "", offset, 1);
            let entry = append(&log, EntryKind::Data, &[], &record);
            state.apply(&[entry]).unwrap();
            // Three tables, of which the first has one row: from four on RocksDB would put them together meanwhile.
            if offset % 1500 == 0 {
                state.persist().unwrap();
            }
        }
        state.persist().unwrap();
        let units = 3000 * 20;
        let rest = 1000 + 24 * (3000 / 7); // with where each term ended
        assert!((units..units + rest).contains(&scrub(&state).unwrap()));
        assert_eq!(state.units("A", 0, 0, 3000).unwrap().len(), 3000); // all of it is cached

        let files = std::fs::read_dir(dir.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let tables = paths.filter(|path| path.extension().is_some_and(|e| e == "sst"));
        let path = tables.max_by_key(|path| path.metadata().unwrap().len());
        let path = path.unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 3] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(state.damage(), None);
        let error = scrub(&state).unwrap_err();
        assert!(matches!(error, Error::StateDamaged { .. }), "{error}");
        assert!(state.damage().is_some());
    }
}

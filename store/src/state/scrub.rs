//! Reading the whole state database, to find damage before somebody needs what is damaged.

use rocksdb::{IteratorMode, ReadOptions};

use crate::error::Result;

use super::State;

/// Bytes read between two words with the caller.
const PIECE: u64 = 256 * 1024;

impl State {
    /// Reads every row, checking the database's checksums, and tells the bytes of each piece to
    /// `read`, which may wait; ends early when that says no.
    ///
    /// # Errors
    /// [`Error::StateDamaged`](crate::Error::StateDamaged): the database has to be built again.
    /// [`Error::Database`](crate::Error::Database) when it cannot be read.
    pub fn scrub(&self, read: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let mut piece = 0;
        let mut seek: Vec<u8> = Vec::new();
        // An iterator pins what it began with: a new one for each piece.
        loop {
            let from = IteratorMode::From(&seek, rocksdb::Direction::Forward);
            let mut more = None;
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            options.fill_cache(false);
            for row in self.inner.db.iterator_opt(from, options) {
                let (key, value) = row.map_err(|error| self.inner.database(error))?;
                piece += (key.len() + value.len()) as u64;
                if piece >= PIECE {
                    let mut next = key.into_vec();
                    next.push(0);
                    more = Some(next);
                    break;
                }
            }
            if !read(std::mem::take(&mut piece)) {
                return Ok(());
            }
            match more {
                Some(next) => seek = next,
                None => return Ok(()),
            }
        }
    }
}

//! A copy of the state database for another member.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;

use crate::entry::LogId;
use crate::error::{Error, Result};

use super::State;

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCheckpoint {
    /// The last entry that is applied in it.
    pub applied: LogId,
    /// Position after that entry.
    pub applied_end: u64,
    /// Beginning of the log at that entry.
    pub log_start: u64,
    /// Files by name, with their size in bytes.
    pub files: Vec<(String, u64)>,
}

impl State {
    /// Persists the state, and makes a copy of its database in `dir`, which must not exist yet
    /// (its parent must). On the same file system it costs next to nothing: files are linked.
    ///
    /// # Errors
    /// As [`persist`](Self::persist), [`Error::Io`], and [`Error::Inconsistent`] when nothing is
    /// applied yet.
    pub fn checkpoint(&self, dir: &Path) -> Result<StateCheckpoint> {
        let inner = &*self.inner;
        // No cut in between.
        let mut persister = inner.persister.lock();
        inner.persist(&mut persister)?;
        let persisted = *inner.persisted.read();
        let Some(applied) = persisted.applied else {
            return Err(Error::Inconsistent {
                path: inner.path.clone(),
                what: "no entry is applied yet".to_owned(),
            });
        };
        let made = Checkpoint::new(&inner.db).and_then(|made| made.create_checkpoint(dir));
        made.map_err(|error| inner.database(error))?;
        let mut files = Vec::new();
        let list = || Error::io("list", dir);
        for file in std::fs::read_dir(dir).map_err(list())? {
            let file = file.map_err(list())?;
            let size = file.metadata().map_err(list())?.len();
            files.push((file.file_name().to_string_lossy().into_owned(), size));
        }
        files.sort_unstable();
        Ok(StateCheckpoint {
            applied,
            applied_end: persisted.applied_end,
            log_start: persisted.log_start,
            files,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{append, by_hand, message};
    use super::*;
    use crate::entry::EntryKind;
    use crate::log::CommitLog;

    fn apply(state: &State, log: &CommitLog, offsets: std::ops::Range<u64>) {
        for offset in offsets {
            let record = message("A", 0, 0, "", offset, 1);
            let entry = append(log, EntryKind::Data, &[], &record);
            state.apply(&[entry]).unwrap();
        }
    }

    /// A checkpoint is the state as it was, whatever happens to the original.
    #[test]
    fn checkpoint_opens_as_a_state() {
        let log = CommitLog::memory();
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path().join("state"), log.clone(), by_hand()).unwrap();
        let copy = dir.path().join("copy");
        assert!(matches!(
            state.checkpoint(&copy),
            Err(Error::Inconsistent { .. })
        ));
        apply(&state, &log, 0..300);
        let made = state.checkpoint(&copy).unwrap();
        let expected = (state.applied(), state.applied_position());
        assert_eq!((Some(made.applied), made.applied_end), expected);
        assert_eq!(state.persisted(), Some(made.applied));
        assert!(made.files.iter().any(|(name, _)| name == "CURRENT"));
        let digest = state.digest().unwrap();
        apply(&state, &log, 300..400);
        state.persist().unwrap();
        let copy = State::open(&copy, log, by_hand()).unwrap();
        assert_eq!(copy.digest().unwrap(), digest);
    }

    /// Damage is found where it is read, and the database is not opened again.
    #[test]
    fn damaged_database_is_refused() {
        let log = CommitLog::memory();
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), log.clone(), by_hand()).unwrap();
        apply(&state, &log, 0..1000);
        state.persist().unwrap();
        apply(&state, &log, 1000..1001);
        state.close().unwrap();
        let mut failed = None;
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sst") {
                let mut bytes = std::fs::read(&path).unwrap();
                for at in (0..bytes.len() / 2).step_by(16) {
                    bytes[at] ^= 1;
                }
                std::fs::write(path, bytes).unwrap();
            }
        }
        drop(state);
        let mut damaged = |error: Error| {
            assert!(matches!(error, Error::StateDamaged { .. }), "{error}");
            failed = Some(error.to_string());
        };
        match State::open(dir.path(), log.clone(), by_hand()) {
            Err(error) => damaged(error),
            Ok(state) => {
                damaged(state.units("A", 0, 0, 10).unwrap_err());
                assert!(state.damage().is_some());
            }
        }
        let again = State::open(dir.path(), log.clone(), by_hand()).unwrap_err();
        assert_eq!(Some(again.to_string()), failed);
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(State::open(dir.path(), log, by_hand()).is_ok());
    }
}

//! Whose store a folder is: group, member, and what may never change. Checked at every start, so
//! that a member is not pointed at somebody else's store by mistake.

use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::small_file;

/// File name in the store folder.
pub(crate) const NAME: &str = "identity";
/// Layout of the store. A store with another one is not opened.
pub const FORMAT: u64 = 1;

/// What the identity file holds, as `key=value` lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The broker group's name (`dLegerGroup`).
    pub group: String,
    /// This member's id; `dLegerSelfId` without its `n`.
    pub self_id: u64,
    /// Bytes of a commit-log segment (`mappedFileSizeCommitLog`).
    pub segment_bytes: u64,
}

impl Identity {
    fn lines(&self) -> [(&'static str, String); 4] {
        [
            ("format", FORMAT.to_string()),
            ("dLegerGroup", self.group.clone()),
            ("dLegerSelfId", format!("n{}", self.self_id)),
            ("mappedFileSizeCommitLog", self.segment_bytes.to_string()),
        ]
    }

    /// Compares with the identity file in `dir`, or creates it. True when it was created.
    ///
    /// # Errors
    /// [`Error::Identity`] names the first value that differs.
    pub(crate) fn check_or_create(&self, disk: &Arc<dyn Disk>, dir: &Path) -> Result<bool> {
        let path = dir.join(NAME);
        let Some(bytes) = small_file::read(disk, &path, 64 * 1024)? else {
            let mut text =
                String::from("# Written by RaftMQ when this store was created. Do not edit.\n");
            for (key, value) in self.lines() {
                text.push_str(&format!("{key}={value}\n"));
            }
            small_file::replace(&**disk, &path, text.as_bytes())?;
            return Ok(true);
        };
        let text = String::from_utf8_lossy(&bytes);
        let stored = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::trim)
        };
        for (key, wanted) in self.lines() {
            match stored(key) {
                Some(value) if value == wanted => {}
                Some(value) => {
                    return Err(Error::Identity {
                        path,
                        key,
                        stored: value.to_owned(),
                        wanted,
                    });
                }
                None => {
                    let what = format!("it has no line {key}=");
                    return Err(Error::Corrupt {
                        path,
                        offset: 0,
                        what,
                    });
                }
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    /// Each difference is an error with the file and both values.
    #[test]
    fn differences_are_named() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let dir = Path::new("/store");
        let mine = Identity {
            group: "a=b".to_owned(),
            self_id: 0,
            segment_bytes: 4096,
        };
        assert!(mine.check_or_create(&disk, dir).unwrap());
        assert!(!mine.check_or_create(&disk, dir).unwrap());
        let others = [
            (
                Identity {
                    group: "c".to_owned(),
                    ..mine.clone()
                },
                "dLegerGroup=a=b",
                "dLegerGroup=c",
            ),
            (
                Identity {
                    self_id: 1,
                    ..mine.clone()
                },
                "dLegerSelfId=n0",
                "dLegerSelfId=n1",
            ),
            (
                Identity {
                    segment_bytes: 8192,
                    ..mine
                },
                "=4096",
                "=8192",
            ),
        ];
        for (other, stored, wanted) in others {
            let error = other.check_or_create(&disk, dir).unwrap_err().to_string();
            for part in ["/store/identity", stored, wanted] {
                assert!(error.contains(part), "{error}");
            }
            assert_eq!(error.lines().count(), 1);
        }
    }
}

//! Which segments a log folder has.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file whose name is a position in 20 digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName {
    /// Where it is.
    pub path: PathBuf,
    /// Position of its first byte.
    pub start: u64,
    /// Bytes it has.
    pub len: u64,
}

impl SegmentName {
    /// The position that a file's name says, if it is the name of a segment.
    pub fn start_of(path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| name.parse().ok()).flatten()
    }
}

/// The segment files of a folder, by position.
///
/// # Errors
/// [`Error::Io`].
pub fn segments(dir: &Path) -> Result<Vec<SegmentName>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if let Some(start) = SegmentName::start_of(&path) {
            let meta = std::fs::metadata(&path).map_err(Error::io("read", &path))?;
            if meta.is_file() {
                let len = meta.len();
                found.push(SegmentName { path, start, len });
            }
        }
    }
    found.sort_unstable_by_key(|segment| segment.start);
    Ok(found)
}

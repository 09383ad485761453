//! Files of a few bytes that are replaced as a whole, durably.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, Open};
use crate::error::{Error, Result};

/// Replaces a file: temporary file, fsync, rename, fsync of the folder. After a crash the file
/// holds the old or the new bytes; on return the new ones for good.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary: PathBuf = dir.join(name);
    let file = disk
        .open(&temporary, Open::Create)
        .map_err(Error::io("open", &temporary))?;
    file.set_size(bytes.len() as u64)
        .and_then(|()| file.write_at(&[bytes], 0))
        .map_err(Error::io("write", &temporary))?;
    file.sync_data().map_err(Error::io("flush", &temporary))?;
    disk.rename(&temporary, path)
        .map_err(Error::io("replace", path))?;
    disk.sync_dir(dir).map_err(Error::io("flush", dir))
}

/// The whole content, or `None` when the file does not exist. Files larger than `max` are refused.
pub(crate) fn read(disk: &Arc<dyn Disk>, path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let file = match disk.open(path, Open::Existing) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let size = file.size().map_err(Error::io("read", path))?;
    if size > max {
        let what = format!("file has {size} bytes, at most {max} are expected");
        return Err(Error::Corrupt {
            path: path.to_path_buf(),
            offset: max,
            what,
        });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    file.read_at(&mut bytes, 0)
        .map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}

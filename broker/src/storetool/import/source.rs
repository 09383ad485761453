//! Where a Java broker's store has its parts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use raftmq_proto::message::record::{MAGIC_V1, MAGIC_V2};
use raftmq_proto::properties_file;
use raftmq_store::inspect::{is_locked_by_java, segments};

use super::reader::{Layout, Part};

/// A Java broker's store.
pub(super) struct Source {
    pub(super) root: PathBuf,
    /// Its logs, older first: a plain one may have been continued by DLedger.
    pub(super) parts: Vec<Part>,
    /// What DLedger's checkpoint says is committed.
    pub(super) committed_index: Option<u64>,
    /// Whether the broker was not shut down in order.
    pub(super) unclean: bool,
}

impl Source {
    /// Looks at a store folder; `log` names the folder of the log when it is elsewhere.
    pub(super) fn find(
        root: &Path,
        log: Option<&Path>,
        committed_only: bool,
    ) -> anyhow::Result<Source> {
        ensure!(
            root.is_dir(),
            "--from {}: is no folder; name the store folder of a RocketMQ broker (storePathRootDir)",
            root.display()
        );
        ensure!(
            !is_locked_by_java(&root.join("lock"))?,
            "--from {}: a RocketMQ broker is using this store; stop it first",
            root.display()
        );
        ensure!(
            !root.join("identity").exists(),
            "--from {}: this is a store of RaftMQ, not of RocketMQ",
            root.display()
        );
        let (folders, ledger) = match log {
            // DLedger keeps its checkpoint beside the data.
            Some(log) => (vec![log.to_path_buf()], log.parent().map(Path::to_path_buf)),
            None => {
                let ledger = dledger_folder(root)?;
                let data = ledger.as_ref().map(|folder| folder.join("data"));
                let folders = std::iter::once(root.join("commitlog")).chain(data);
                (folders.collect(), ledger)
            }
        };
        let committed_index = match &ledger {
            Some(folder) => committed_index(folder)?,
            None => None,
        };
        let mut parts = Vec::new();
        for folder in &folders {
            parts.extend(part(folder, committed_index.filter(|_| committed_only))?);
        }
        if parts.is_empty() {
            let names: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
            bail!(
                "--from {}: no commit log found in {}; name its folder with --from-commitlog",
                root.display(),
                names.join(" or ")
            );
        }
        Ok(Source {
            root: root.to_path_buf(),
            parts,
            committed_index,
            unclean: root.join("abort").exists(),
        })
    }

    /// Bytes of all segment files.
    pub(super) fn bytes(&self) -> u64 {
        let files = self.parts.iter().flat_map(|part| &part.files);
        files.map(|file| file.len).sum()
    }

    /// Where the topics and offsets are.
    pub(super) fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// Physical offset of the first message of a consume queue, if its file is there.
    pub(super) fn first_of_queue(&self, topic: &str, queue_id: i32) -> Option<u64> {
        let queue = self.root.join("consumequeue").join(topic);
        let path = queue.join(queue_id.to_string()).join(format!("{:020}", 0));
        let mut unit = [0; 20];
        File::open(path).ok()?.read_exact_at(&mut unit, 0).ok()?;
        let (offset, rest) = unit.split_first_chunk::<8>()?;
        let (size, _) = rest.split_first_chunk::<4>()?;
        (u32::from_be_bytes(*size) > 0).then(|| u64::from_be_bytes(*offset))
    }

    /// Whether the broker kept a consume queue of the topic; `None` when it kept none in files.
    pub(super) fn has_queues(&self, topic: &str) -> Option<bool> {
        let folder = self.root.join("consumequeue");
        let mut all = std::fs::read_dir(&folder).ok()?;
        all.next()?.ok()?;
        Some(folder.join(topic).is_dir())
    }
}

/// The `dledger-…` folder, of which there should be one.
fn dledger_folder(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("dledger-") && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    if let [first, second, ..] = found.as_slice() {
        bail!(
            "--from {}: holds stores of several members, {} and {}; name the data folder of one \
             with --from-commitlog",
            root.display(),
            first.display(),
            second.display()
        );
    }
    Ok(found.pop())
}

fn committed_index(folder: &Path) -> anyhow::Result<Option<u64>> {
    let path = folder.join("checkpoint");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let parsed = properties_file::parse(&bytes);
    let committed = parsed.value("committedIndex");
    Ok(committed.and_then(|value| value.trim().parse().ok()))
}

/// The log in a folder, if there is one; its first bytes tell its layout.
fn part(folder: &Path, last_index: Option<u64>) -> anyhow::Result<Option<Part>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let files = segments(folder)?;
    let Some(first) = files.first() else {
        return Ok(None);
    };
    let mut head = [0; 8];
    let read = File::open(&first.path).and_then(|file| file.read_exact_at(&mut head, 0));
    read.with_context(|| format!("cannot read {}", first.path.display()))?;
    let (magic, second) = head.split_at(4);
    let is_record = [MAGIC_V1, MAGIC_V2]
        .iter()
        .any(|magic| magic.to_be_bytes() == second);
    let layout = if is_record {
        Layout::Plain
    } else if *magic == 1u32.to_be_bytes() {
        Layout::DLedger
    } else if head == [0; 8] && files.len() == 1 {
        return Ok(None);
    } else {
        bail!(
            "{} begins neither with a message nor with a DLedger entry",
            first.path.display()
        );
    };
    let last_index = last_index.filter(|_| layout == Layout::DLedger);
    Ok(Some(Part {
        layout,
        files,
        last_index,
    }))
}

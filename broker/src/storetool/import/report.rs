//! What an import did, or would do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use crate::storetool::output::Output;

#[derive(Default)]
pub(super) struct Report {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) dry_run: bool,
    pub(super) topics: usize,
    pub(super) groups: usize,
    pub(super) queues: usize,
    pub(super) messages: u64,
    /// Bytes of their records.
    pub(super) bytes: u64,
    pub(super) offsets: u64,
    /// What was not taken, by reason.
    pub(super) skipped: BTreeMap<&'static str, u64>,
    pub(super) notes: Vec<String>,
    /// Of a DLedger log: index and term of the last entry taken, and what was committed.
    pub(super) last_entry: Option<(u64, u64)>,
    pub(super) committed_index: Option<u64>,
    /// Last entry written and position after it.
    pub(super) written: Option<(String, u64)>,
}

impl Report {
    pub(super) fn skip(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            *self.skipped.entry(reason).or_default() += count;
        }
    }

    pub(super) fn print(&self, out: &mut Output) -> anyhow::Result<()> {
        for note in &self.notes {
            out.text(format!("note: {note}"))?;
        }
        for (reason, count) in &self.skipped {
            out.text(format!("left out: {count} messages: {reason}"))?;
        }
        if let Some((index, term)) = self.last_entry {
            let committed = self.committed_index;
            let committed = committed.map_or_else(|| "unknown".to_owned(), |i| i.to_string());
            out.text(format!(
                "last DLedger entry: index {index}, term {term}; committed index: {committed}"
            ))?;
        }
        out.text(format!(
            "{}: {} topics, {} groups, {} queues, {} messages of {} bytes, {} consumer offsets",
            if self.dry_run {
                "would import"
            } else {
                "imported"
            },
            self.topics,
            self.groups,
            self.queues,
            self.messages,
            self.bytes,
            self.offsets
        ))?;
        if let Some((last, end)) = &self.written {
            out.text(format!(
                "{}: log ends with entry {last} at position {end}",
                self.to.display()
            ))?;
        }
        let entry = |(index, term)| json!({"index": index, "term": term});
        out.value(&json!({
            "from": self.from,
            "to": self.to,
            "dryRun": self.dry_run,
            "topics": self.topics,
            "groups": self.groups,
            "queues": self.queues,
            "messages": self.messages,
            "bytes": self.bytes,
            "consumerOffsets": self.offsets,
            "leftOut": self.skipped,
            "notes": self.notes,
            "lastDLedgerEntry": self.last_entry.map(entry),
            "committedIndex": self.committed_index,
            "lastEntry": self.written.as_ref().map(|(last, _)| last),
            "logEnd": self.written.as_ref().map(|(_, end)| end),
        }))?;
        out.flush()
    }
}

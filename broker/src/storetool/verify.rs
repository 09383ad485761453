//! `storetool verify`: everything that can be checked in a store without changing it.
//!
//! Every entry's CRC, chain, index, term and position; its command or members; its records and
//! their queue offsets; the small files; the state database and whether it belongs to the log.

mod walk;

use std::path::{Path, PathBuf};

use raftmq_raft::offline;
use raftmq_store::entry::Header;
use raftmq_store::inspect::{StateSummary, read_state, refuse_locked};
use raftmq_store::{LogBase, LogId};
use serde_json::{Value, json};

use super::output::Output;
use super::queues::Queues;
use super::{Place, file_and_byte};

/// Checks a store; true when nothing is wrong with it.
pub(super) fn run(place: &Place, out: &mut Output) -> anyhow::Result<bool> {
    let _unlocked = refuse_locked(&place.root)?;
    let mut verify = Verify {
        place,
        out,
        findings: Vec::new(),
        notes: Vec::new(),
        readable: Vec::new(),
        last: None,
        unread: None,
        base: LogBase::default(),
        flushed: None,
        queues: Queues::default(),
        state: None,
        applied: Applied::NotSeen,
        entries: 0,
        records: 0,
        bytes: 0,
    };
    verify.small_files()?;
    verify.state_rows()?;
    verify.log()?;
    verify.compare()?;
    verify.report()
}

/// A stretch of entries without anything wrong between them.
struct Stretch {
    first: Header,
    last: Header,
}

/// What the log has at the entry that the state says it has applied.
#[derive(PartialEq, Eq)]
enum Applied {
    NotSeen,
    Same,
    Other(LogId),
}

/// The end of what could be read of a segment, before it is known whether the log goes on.
struct Unread {
    path: PathBuf,
    offset: u64,
    position: u64,
    what: String,
    /// Only zeros are there.
    blank: bool,
}

struct Verify<'a> {
    place: &'a Place,
    out: &'a mut Output,
    findings: Vec<Value>,
    notes: Vec<String>,
    readable: Vec<Stretch>,
    last: Option<Header>,
    unread: Option<Unread>,
    /// Where the log begins.
    base: LogBase,
    /// Position up to which the log was flushed.
    flushed: Option<u64>,
    queues: Queues,
    state: Option<StateSummary>,
    applied: Applied,
    entries: u64,
    records: u64,
    bytes: u64,
}

impl Verify<'_> {
    fn finding(&mut self, path: &Path, offset: Option<u64>, what: &str) -> anyhow::Result<()> {
        self.out
            .text(format!("{}: {what}", file_and_byte(path, offset)))?;
        self.findings
            .push(json!({"file": path, "offset": offset, "what": what}));
        Ok(())
    }

    /// Notes an error of the store that names its own file.
    fn error(&mut self, path: &Path, error: raftmq_store::Error) -> anyhow::Result<()> {
        match error {
            raftmq_store::Error::Corrupt { path, offset, what } => {
                self.finding(&path, Some(offset), &what)
            }
            error => self.finding(path, None, &error.to_string()),
        }
    }

    fn small_files(&mut self) -> anyhow::Result<()> {
        let place = self.place;
        let (root, marks) = (place.root.clone(), place.marks());
        match marks.identity() {
            Ok(Some(_)) => {}
            Ok(None) => self.finding(&root.join("identity"), None, "file is missing")?,
            Err(error) => self.error(&root.join("identity"), error)?,
        }
        match marks.checkpoint() {
            Ok(Some(mark)) => self.flushed = mark.entry.map(|(_, _, end)| end),
            Ok(None) => {
                let path = place.commit_log.join("checkpoint");
                self.finding(&path, None, "file is missing")?;
            }
            Err(error) => self.error(&place.commit_log.join("checkpoint"), error)?,
        }
        match marks.base() {
            Ok(None) => {}
            Ok(Some((base, both))) => {
                self.base = base;
                if !both {
                    let path = place.commit_log.join("base");
                    self.finding(&path, None, "one of its two copies is damaged")?;
                }
            }
            Err(error) => self.error(&place.commit_log.join("base"), error)?,
        }
        let importing = root.join("importing");
        if importing.exists() {
            self.finding(
                &importing,
                None,
                "an import into this store was not finished",
            )?;
        }
        let refill = place.commit_log.join("refill");
        if refill.exists() {
            self.finding(
                &refill,
                None,
                "filling this log from a peer was not finished",
            )?;
        }
        match marks.vote() {
            Ok(Some(bytes)) if offline::Ballot::decode(&bytes).is_none() => {
                self.finding(&root.join("vote"), Some(8), "its content is no vote")?;
            }
            Ok(Some(_)) => {
                if let Err(error) = marks.verify_vote() {
                    self.error(&root.join("vote"), error)?;
                }
            }
            Ok(None) => self
                .notes
                .push("there is no vote: this member never voted".to_owned()),
            Err(error) => self.error(&root.join("vote"), error)?,
        }
        if let Err(error) = marks.committed() {
            self.error(&root.join("committed"), error)?;
        }
        if let Err(error) = marks.abort() {
            self.error(&root.join("abort"), error)?;
        }
        Ok(())
    }

    fn state_rows(&mut self) -> anyhow::Result<()> {
        let dir = self.place.state();
        match read_state(&dir) {
            Ok(Some(state)) => {
                if let Some((_, body)) = &state.membership
                    && let Err(what) = offline::members(body)
                {
                    self.finding(&dir, None, &what)?;
                }
                self.state = Some(state);
            }
            Ok(None) => self
                .notes
                .push("there is no state database: it is built from the log".to_owned()),
            Err(error) => self.error(&dir, error)?,
        }
        Ok(())
    }

    /// Compares the queues with the state's, at the entry that the state has applied.
    fn compare_queues(&mut self) -> anyhow::Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let mut wrong = Vec::new();
        for row in &state.queues {
            if let Some(next) = self.queues.next(&row.topic, row.queue_id)
                && next != row.bounds.max
            {
                wrong.push(format!(
                    "queue {}/{} ends at offset {}, in the log at {next}",
                    row.topic, row.queue_id, row.bounds.max
                ));
            }
        }
        let dir = self.place.state();
        for what in wrong {
            self.finding(&dir, None, &what)?;
        }
        Ok(())
    }

    /// Whether the state database belongs to this log.
    fn compare(&mut self) -> anyhow::Result<()> {
        let Some(applied) = self.state.as_ref().and_then(|state| state.applied) else {
            return Ok(());
        };
        let (dir, end) = (self.place.state(), self.readable.last());
        let last = end.map(|stretch| stretch.last.id);
        let what = match (&self.applied, last) {
            (Applied::Same, _) => return Ok(()),
            (Applied::Other(found), _) => {
                format!("state has applied entry {applied}, the log has {found} there")
            }
            (Applied::NotSeen, Some(last)) if last.index < applied.index => {
                format!("state has applied entry {applied}, the log ends at {last}")
            }
            (Applied::NotSeen, None) => {
                format!("state has applied entry {applied}, no entry of the log can be read")
            }
            // A finding says already why.
            (Applied::NotSeen, Some(_)) => {
                self.notes.push(format!(
                    "entry {applied}, which the state has applied, cannot be read"
                ));
                return Ok(());
            }
        };
        self.finding(&dir, None, &what)
    }

    fn report(self) -> anyhow::Result<bool> {
        let fine = self.findings.is_empty();
        let out = self.out;
        for note in &self.notes {
            out.text(format!("note: {note}"))?;
        }
        for stretch in &self.readable {
            out.text(format!(
                "readable: entries {} to {}, positions {}..{}",
                stretch.first.id,
                stretch.last.id,
                stretch.first.position,
                stretch.last.end()
            ))?;
        }
        out.text(format!(
            "{}: {} entries of {} bytes, {} records, {} queues: {}",
            self.place.root.display(),
            self.entries,
            self.bytes,
            self.records,
            self.queues.count(),
            match self.findings.len() {
                0 => "nothing is wrong".to_owned(),
                1 => "1 finding".to_owned(),
                more => format!("{more} findings"),
            }
        ))?;
        let readable = self.readable.iter().map(|stretch| {
            json!({
                "first": stretch.first.id.to_string(),
                "last": stretch.last.id.to_string(),
                "position": stretch.first.position,
                "end": stretch.last.end(),
            })
        });
        out.value(&json!({
            "store": self.place.root,
            "fine": fine,
            "findings": self.findings,
            "notes": self.notes,
            "readable": readable.collect::<Vec<_>>(),
            "entries": self.entries,
            "bytes": self.bytes,
            "records": self.records,
            "queues": self.queues.count(),
        }))?;
        out.flush()?;
        Ok(fine)
    }
}

//! `storetool marks`: how far a store reaches, and whose it is.

use raftmq_raft::offline::{self, Ballot};
use raftmq_store::LogId;
use raftmq_store::entry::Header;
use raftmq_store::inspect::{
    Abort, Found, SegmentName, SegmentScan, read_state, refuse_locked, segments,
};
use serde_json::{Value, json};

use super::Place;
use super::output::Output;

pub(super) fn run(place: &Place, out: &mut Output) -> anyhow::Result<()> {
    let _unlocked = refuse_locked(&place.root)?;
    let marks = place.marks();
    let files = segments(&place.commit_log)?;
    let mut shown = Shown { rows: Vec::new() };

    let identity = shown.read("identity", marks.identity());
    if let Some(lines) = identity {
        for (key, value) in lines {
            shown.put(format!("identity.{key}"), json!(value));
        }
    }
    let checkpoint = shown.read("checkpoint", marks.checkpoint());
    let size = place.segment_bytes(files.first()).unwrap_or(1).max(1);
    shown.put("segments".to_owned(), json!(files.len()));
    let base = shown.read("base", marks.base()).map(|(base, _)| base);
    let start = base.map(|base| base.position);
    let start = start.or_else(|| files.first().map(|file| file.start));
    shown.put("logStart".to_owned(), json!(start));
    let removed = base.and_then(|base| base.prev);
    shown.put("lastRemoved".to_owned(), id(removed));
    let from = checkpoint.and_then(|mark| mark.entry).map(|(_, at, _)| at);
    let last = last_entry(&files, size, from)?;
    shown.put(
        "logEnd".to_owned(),
        json!(last.map_or(0, |last| last.end())),
    );
    shown.put("lastEntry".to_owned(), id(last.map(|last| last.id)));
    let flushed = checkpoint.map(|mark| mark.entry);
    shown.put(
        "checkpoint".to_owned(),
        match flushed {
            None => Value::Null,
            Some(None) => json!("empty log"),
            Some(Some((entry, _, end))) => json!({"entry": entry.to_string(), "end": end}),
        },
    );
    let committed = shown.read("committed", marks.committed());
    shown.put("committed".to_owned(), id(committed));
    if let Some(state) = shown.read("state", read_state(&place.state())) {
        // What is applied beyond it is in memory only, and applied again from the log.
        shown.put("persisted".to_owned(), id(state.applied));
        shown.put("persistedEnd".to_owned(), json!(state.applied_end));
        shown.put("trimmedTo".to_owned(), json!(state.log_start));
        shown.put("topics".to_owned(), json!(state.topics.len()));
        shown.put("groups".to_owned(), json!(state.groups.len()));
        shown.put("queues".to_owned(), json!(state.queues.len()));
        if let Some((entry, body)) = state.membership {
            let members = offline::members(&body).unwrap_or_default();
            let names = members.iter().map(|member| {
                let voter = if member.voter { "" } else { " (no vote)" };
                format!("n{}-{}{voter}", member.id, member.address)
            });
            let names: Vec<String> = names.collect();
            shown.put(
                "membership".to_owned(),
                json!({"entry": entry.to_string(), "members": names}),
            );
        }
    }
    if let Some(bytes) = shown.read("vote", marks.vote()) {
        shown.put("vote".to_owned(), vote(&bytes));
    }
    let is_used = !files.is_empty();
    let abort = shown.read("abort", marks.abort());
    shown.put(
        "lastStop".to_owned(),
        json!(last_stop(is_used, abort.as_ref())),
    );
    shown.print(out)
}

fn id(id: Option<LogId>) -> Value {
    json!(id.map(|id| id.to_string()))
}

fn vote(bytes: &[u8]) -> Value {
    let Some(ballot) = Ballot::decode(bytes) else {
        return json!("unreadable: the file holds no vote");
    };
    let (term, candidate, granted) = match ballot.vote {
        Some((term, candidate, granted)) => (Some(term), Some(format!("n{candidate}")), granted),
        None => (None, None, false),
    };
    json!({"term": term, "for": candidate, "byQuorum": granted, "recovering": ballot.recovering})
}

fn last_stop(is_used: bool, abort: Option<&Abort>) -> &'static str {
    match abort {
        None if !is_used => "never used",
        None => "in order",
        Some(Abort {
            same_boot: true, ..
        }) => "process died",
        Some(Abort {
            was_async: true, ..
        }) => "machine stopped, with ASYNC_FLUSH: what was not flushed may be lost",
        Some(_) => "machine stopped",
    }
}

/// The last entry of the log, read from the checkpointed one on, or from the last segment that
/// has any.
fn last_entry(
    files: &[SegmentName],
    size: u64,
    from: Option<u64>,
) -> anyhow::Result<Option<Header>> {
    let from = from.unwrap_or(0);
    for file in files.iter().rev() {
        let mut scan = SegmentScan::open(&file.path, file.start, size)?;
        if (file.start..file.start + size).contains(&from) {
            scan.seek(from);
        }
        let mut last = None;
        while let Some(found) = scan.step()? {
            if let Found::Entry { header, .. } = found {
                last = Some(header);
            }
        }
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}

/// The rows to print, in order.
struct Shown {
    rows: Vec<(String, Value)>,
}

impl Shown {
    fn put(&mut self, name: String, value: Value) {
        self.rows.push((name, value));
    }

    /// What a file says; what is wrong with it becomes its row.
    fn read<T>(&mut self, name: &str, read: raftmq_store::Result<Option<T>>) -> Option<T> {
        match read {
            Ok(value) => value,
            Err(error) => {
                self.put(format!("{name}.error"), json!(error.to_string()));
                None
            }
        }
    }

    fn print(self, out: &mut Output) -> anyhow::Result<()> {
        let widest = self.rows.iter().map(|(name, _)| name.len()).max();
        let widest = widest.unwrap_or(0);
        for (name, value) in &self.rows {
            let text = match value {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            out.text(format!("{name:<widest$}  {text}"))?;
        }
        out.value(&Value::Object(self.rows.into_iter().collect()))?;
        out.flush()
    }
}

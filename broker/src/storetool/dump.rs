//! `storetool dump`: the entries of one segment file.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use raftmq_proto::command::{Command, OffsetRow, Op};
use raftmq_proto::message::properties;
use raftmq_proto::message::record::{RecordRef, records};
use raftmq_store::EntryKind;
use raftmq_store::entry::{HEADER, Header};
use raftmq_store::inspect::{Found, SegmentName, SegmentScan};
use serde_json::{Value, json};

use super::output::Output;

#[derive(Default)]
pub(super) struct Options {
    /// Position to begin at.
    pub(super) from: Option<u64>,
    /// Entries to print at most.
    pub(super) count: Option<u64>,
    /// Whether to print records too.
    pub(super) records: bool,
}

pub(super) fn run(path: &Path, options: &Options, out: &mut Output) -> anyhow::Result<()> {
    let start = SegmentName::start_of(path).with_context(|| {
        format!(
            "{}: a segment file is named by its position, in 20 digits",
            path.display()
        )
    })?;
    let meta =
        std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(meta.is_file(), "{} is no file", path.display());
    let end = start + meta.len();
    let from = options.from.unwrap_or(start);
    ensure!(
        (start..=end).contains(&from),
        "--from {from}: {} holds the positions {start} to {end}",
        path.display()
    );
    let mut scan = SegmentScan::open(path, start, meta.len())?;
    let mut last: Option<Header> = None;
    let mut left = options.count.unwrap_or(u64::MAX);
    out.text(format!(
        "{:>12} {:>6} {:>16} {:>10}  {:<10} {:<5} chain",
        "index", "term", "position", "size", "kind", "crc"
    ))?;
    while left > 0 {
        let Some(found) = scan.step()? else { break };
        match found {
            Found::Entry { header, raw } => {
                if header.position >= from {
                    left -= 1;
                    entry(&header, true, chain(last.as_ref(), &header), out)?;
                    if options.records {
                        contents(&header, &raw, out)?;
                    }
                }
                last = Some(header);
            }
            Found::Damage {
                position,
                end,
                what,
                header,
                ..
            } => {
                if position >= from {
                    if let Some(header) = header {
                        left -= 1;
                        entry(&header, false, chain(last.as_ref(), &header), out)?;
                    }
                    damage(position, end, &what, out)?;
                }
                last = None;
            }
            Found::Blank { position } => place("blank end", position, end, out)?,
            Found::Unwritten { position } => place("zeros", position, end, out)?,
        }
    }
    out.flush()
}

/// Whether an entry continues the one before it; `None` when that one is not known.
fn chain(last: Option<&Header>, header: &Header) -> Option<bool> {
    let last = last?;
    let follows = header.id.index == last.id.index + 1 && header.id.term >= last.id.term;
    Some(follows && header.prev_crc == last.crc)
}

pub(super) fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Blank => "blank",
        EntryKind::Data => "data",
        EntryKind::Membership => "membership",
    }
}

fn entry(header: &Header, crc: bool, chain: Option<bool>, out: &mut Output) -> anyhow::Result<()> {
    let word = |right: bool| if right { "ok" } else { "WRONG" };
    out.text(format!(
        "{:>12} {:>6} {:>16} {:>10}  {:<10} {:<5} {}",
        header.id.index,
        header.id.term,
        header.position,
        header.size,
        kind_name(header.kind),
        word(crc),
        chain.map_or("-", word)
    ))?;
    out.value(&json!({
        "index": header.id.index,
        "term": header.id.term,
        "position": header.position,
        "size": header.size,
        "kind": kind_name(header.kind),
        "crc": crc,
        "chain": chain,
    }))
}

fn damage(position: u64, end: u64, what: &str, out: &mut Output) -> anyhow::Result<()> {
    out.text(format!("  damage at {position}..{end}: {what}"))?;
    out.value(&json!({"damage": what, "position": position, "end": end}))
}

fn place(what: &str, position: u64, end: u64, out: &mut Output) -> anyhow::Result<()> {
    out.text(format!("  {what} at {position}..{end}"))?;
    out.value(&json!({"filler": what, "position": position, "end": end}))
}

/// Fields of something inside an entry, in the order in which they are printed.
type Fields = Vec<(&'static str, Value)>;

/// The members, the operations and the records of an entry.
fn contents(header: &Header, raw: &[u8], out: &mut Output) -> anyhow::Result<()> {
    let body = raw.get(HEADER..).unwrap_or_default();
    match header.kind {
        EntryKind::Blank => return Ok(()),
        EntryKind::Membership => {
            let members = match raftmq_raft::offline::members(body) {
                Ok(members) => members,
                Err(what) => return line(vec![("wrong", json!(what))], out),
            };
            for member in members {
                let fields = vec![
                    ("member", json!(member.id)),
                    ("address", json!(member.address)),
                    ("voter", json!(member.voter)),
                ];
                line(fields, out)?;
            }
            return Ok(());
        }
        EntryKind::Data => {}
    }
    let Some((command, rest)) = body.split_at_checked(header.command_len as usize) else {
        bail!("entry {}: its command is longer than itself", header.id);
    };
    match Command::decode(command) {
        Ok(command) => {
            for op in &command.ops {
                line(operation(op), out)?;
            }
        }
        Err(error) => line(vec![("wrong", json!(error.to_string()))], out)?,
    }
    let mut position = header.position + (HEADER + command.len()) as u64;
    for record in records(rest) {
        match record {
            Ok(record) => {
                line(record_fields(&record, position), out)?;
                position += u64::from(record.total_size());
            }
            Err(error) => {
                let wrong = json!(error.to_string());
                line(vec![("record", json!(position)), ("wrong", wrong)], out)?;
            }
        }
    }
    Ok(())
}

fn operation(op: &Op) -> Fields {
    let text = |bytes: &[u8]| json!(String::from_utf8_lossy(bytes));
    let (name, mut fields): (_, Fields) = match op {
        Op::PutTopic(put) => ("PutTopic", vec![("config", text(&put.config_json))]),
        Op::DeleteTopic(delete) => ("DeleteTopic", vec![("topic", json!(delete.topic))]),
        Op::PutGroup(put) => ("PutGroup", vec![("config", text(&put.config_json))]),
        Op::DeleteGroup(delete) => (
            "DeleteGroup",
            vec![
                ("group", json!(delete.group)),
                ("cleanOffset", json!(delete.clean_offset)),
            ],
        ),
        Op::SaveOffsets(save) => {
            let row = |row: &OffsetRow| {
                let reset = if row.reset { " reset" } else { "" };
                let (topic, queue_id, offset) = (&row.topic, row.queue_id, row.offset);
                format!("{} {topic}/{queue_id}={offset}{reset}", row.group)
            };
            let rows: Vec<String> = save.rows.iter().map(row).collect();
            ("SaveOffsets", vec![("rows", json!(rows))])
        }
        Op::PutKv(put) => (
            "PutKv",
            vec![
                ("namespace", json!(put.namespace)),
                ("key", json!(put.key)),
                ("value", text(&put.value)),
            ],
        ),
        Op::DeleteKv(delete) => (
            "DeleteKv",
            vec![
                ("namespace", json!(delete.namespace)),
                ("key", json!(delete.key)),
            ],
        ),
        Op::TrimLog(trim) => ("TrimLog", vec![("position", json!(trim.position))]),
        Op::StartQueue(start) => (
            "StartQueue",
            vec![
                ("topic", json!(start.topic)),
                ("queueId", json!(start.queue_id)),
                ("offset", json!(start.offset)),
            ],
        ),
    };
    fields.insert(0, ("operation", json!(name)));
    fields
}

fn record_fields(record: &RecordRef<'_>, position: u64) -> Fields {
    let mut fields = vec![
        ("record", json!(position)),
        ("topic", json!(record.topic())),
        ("queueId", json!(record.queue_id())),
        ("queueOffset", json!(record.queue_offset())),
        ("physicalOffset", json!(record.physical_offset())),
        ("storeTime", json!(record.store_timestamp())),
        ("keys", json!(record.property(properties::KEYS))),
        ("tags", json!(record.property(properties::TAGS))),
        ("bodySize", json!(record.body().len())),
    ];
    if let Err(error) = record.verify_body_crc() {
        fields.push(("wrong", json!(error.to_string())));
    }
    fields
}

/// Indented `name=value`, or one JSON object.
fn line(fields: Fields, out: &mut Output) -> anyhow::Result<()> {
    if out.json() {
        let fields = fields.into_iter();
        let object = fields.map(|(name, value)| (name.to_owned(), value));
        return out.value(&Value::Object(object.collect()));
    }
    let given = fields.iter().filter(|(_, value)| !value.is_null());
    let text: Vec<String> = given
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}={}", text.escape_debug()),
            None => format!("{name}={value}"),
        })
        .collect();
    out.text(format!("      {}", text.join(" ")))
}

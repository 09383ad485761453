//! `storetool import`: a new store from that of a Java broker, plain or DLedger.
//!
//! ```text
//!   pass 1: every record ─▶ plan (queues, offsets) ─┐
//!   config/*.json ─▶ tables ────────────────────────┤
//!                                                   ▼
//!   pass 2: members, topics, groups, starts of queues │ every record │ consumers' offsets
//! ```
//!
//! Memory grows with the number of queues, not of messages.

mod plan;
mod reader;
mod report;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod write;

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use raftmq_proto::body::{TopicConfig, perm};
use raftmq_proto::message::record::RecordRef;
use raftmq_proto::message::{name, sys_flag};
use raftmq_store::StoreOptions;
use raftmq_store::disk::{Disk as _, RealDisk};

use crate::broker::{group_options, store_options};
use crate::config::checked::{self, Environment};

use super::output::Output;
use plan::Plan;
use reader::{Found, Reader};
use report::Report;
use source::Source;
use tables::Tables;
use write::Writer;

/// Damaged places that are listed before the rest is only counted.
const DAMAGE_SHOWN: u64 = 20;

pub(super) struct Options {
    /// Store folder of the Java broker.
    pub(super) from: PathBuf,
    /// Its log, when that is elsewhere.
    pub(super) log: Option<PathBuf>,
    /// Configuration of the member whose store is made.
    pub(super) conf: PathBuf,
    pub(super) dry_run: bool,
    /// Leave out DLedger entries that are not known to be committed.
    pub(super) committed_only: bool,
    /// Go on behind damage.
    pub(super) skip_damaged: bool,
}

pub(super) fn run(options: &Options, out: &mut Output) -> anyhow::Result<()> {
    let conf = std::fs::read(&options.conf)
        .with_context(|| format!("cannot read {}", options.conf.display()))?;
    let conf = checked::read(&conf, None, &Environment::of_process())?;
    let target = store_options(&conf.group, &conf.node);
    let peers = group_options(&conf.group, &conf.node).peers;
    let source = Source::find(
        &options.from,
        options.log.as_deref(),
        options.committed_only,
    )?;
    check_apart(&source, &target)?;

    let mut import = Import {
        tables: Tables::read(&source.config())?,
        plan: Plan::default(),
        report: Report {
            from: options.from.clone(),
            to: target.root.clone(),
            dry_run: options.dry_run,
            committed_index: source.committed_index,
            ..Report::default()
        },
        source,
    };
    import.look(options.skip_damaged)?;
    import.settle();
    if !options.dry_run {
        import.check_room(&target)?;
        let mut writer = Writer::begin(&target, &peers)?;
        writer.tables(&import.tables, &import.plan)?;
        import.copy(&mut writer)?;
        import.report.offsets = writer.progress(&import.tables, &import.plan)?;
        let (last, end) = writer.finish()?;
        import.report.written = Some((last.to_string(), end));
    }
    import.report.print(out)
}

/// Refuses to write into the store that is read.
fn check_apart(source: &Source, target: &StoreOptions) -> anyhow::Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let log = target.commit_log_dir.as_deref().unwrap_or(&target.root);
    for (key, path) in [
        ("storePathRootDir", &*target.root),
        ("storePathCommitLog", log),
    ] {
        ensure!(
            !real(path).starts_with(real(&source.root)),
            "configuration key {key} = '{}' lies in --from {}: the import writes a new store, \
             name another folder",
            path.display(),
            source.root.display()
        );
    }
    Ok(())
}

struct Import {
    source: Source,
    tables: Tables,
    plan: Plan,
    report: Report,
}

impl Import {
    /// First pass.
    fn look(&mut self, skip_damaged: bool) -> anyhow::Result<()> {
        let mut reader = Reader::new(&self.source.parts);
        let mut progress = Progress::new("reading", self.source.bytes());
        let mut damaged = 0;
        while let Some(found) = reader.next()? {
            match found {
                Found::Record { offset, bytes } => {
                    let record = RecordRef::parse(&bytes)?;
                    if is_queued(&record) {
                        let (topic, queue_id) = (record.topic(), record.queue_id());
                        let source = &self.source;
                        let queue = self.plan.queue(topic, queue_id);
                        queue.add(record.queue_offset(), offset, bytes.len(), || {
                            source.first_of_queue(topic, queue_id)
                        });
                    } else {
                        self.report
                            .skip("half messages and rollbacks, in no queue", 1);
                    }
                    progress.show(reader.bytes);
                }
                Found::Damage(what) => {
                    damaged += 1;
                    if damaged <= DAMAGE_SHOWN {
                        self.report.notes.push(format!("damaged: {what}"));
                    }
                }
                Found::TornEnd(what) => self.report.notes.push(format!(
                    "{what}; nothing follows it, it is taken for the end of the log"
                )),
            }
        }
        progress.end();
        if damaged > 0 && !skip_damaged {
            bail!(
                "{damaged} damaged places in the source, the messages there are lost; \
                 --skip-damaged imports the others: {}",
                self.report.notes.join("; ")
            );
        }
        self.report.last_entry = reader.last_entry;
        self.report
            .skip("not known to be committed", reader.left_out);
        Ok(())
    }

    /// What is taken, now that all is known.
    fn settle(&mut self) {
        let report = &mut self.report;
        report.notes.append(&mut self.tables.notes);
        let unknown: Vec<String> = {
            let topics = self.plan.topics.keys();
            let unknown = topics.filter(|topic| !self.tables.topics.contains_key(*topic));
            unknown.cloned().collect()
        };
        for topic in unknown {
            let queues = self.plan.topics.get(&topic);
            if self.source.has_queues(&topic) == Some(false) {
                let queues = self.plan.topics.remove(&topic).unwrap_or_default();
                let count = queues.values().map(|queue| queue.count() + queue.deleted);
                report.skip("of topics that were deleted", count.sum());
                continue;
            }
            let last = queues.and_then(|queues| queues.keys().next_back());
            let queue_nums = last.map_or(1, |last| last + 1);
            report.notes.push(format!(
                "topic {topic} is not in topics.json: made with {queue_nums} queues"
            ));
            let config = TopicConfig::new(&topic, queue_nums, perm::READ | perm::WRITE);
            self.tables.topics.insert(topic, config);
        }
        for (topic, queue_id, queue) in self.plan.queues() {
            report.skip("of topics that were deleted and made anew", queue.deleted);
            report.messages += queue.count();
            report.bytes += queue.bytes;
            report.queues += 1;
            if queue.moves() {
                report.notes.push(format!(
                    "queue {topic}/{queue_id} has gaps or repeated offsets: its earlier messages \
                     and consumers' offsets move, the first message is at {}",
                    queue.start()
                ));
            }
        }
        report.topics = self.tables.topics.len();
        report.groups = self.tables.groups.len();
        let offsets = self.tables.offsets.values();
        report.offsets = offsets.map(|queues| queues.len() as u64).sum();
        for (count, what) in [
            (
                self.delayed(),
                "delayed messages wait in SCHEDULE_TOPIC_XXXX",
            ),
            (
                self.of_topic(name::TIMER_TOPIC),
                "messages are in the timer topic",
            ),
            (
                self.of_topic(name::TRANS_HALF_TOPIC),
                "half messages are in their topic",
            ),
        ] {
            if count > 0 {
                self.report
                    .notes
                    .push(format!("{count} {what}: taken over as they are"));
            }
        }
        if self.source.unclean {
            self.report.notes.push(
                "the broker was not shut down in order: what it had not flushed is missing"
                    .to_owned(),
            );
        }
    }

    fn of_topic(&self, topic: &str) -> u64 {
        let queues = self.plan.topics.get(topic).into_iter();
        queues
            .flat_map(|queues| queues.values())
            .map(|queue| queue.count())
            .sum()
    }

    /// Messages whose delay was not over.
    fn delayed(&self) -> u64 {
        let Some(queues) = self.plan.topics.get(name::SCHEDULE_TOPIC) else {
            return 0;
        };
        let waiting = queues.iter().map(|(queue_id, queue)| {
            let done = self.tables.delays.get(&(queue_id + 1)).copied();
            let done = u64::try_from(queue.moved(done.unwrap_or(0))).unwrap_or(0);
            queue.end().saturating_sub(done.max(queue.start()))
        });
        waiting.sum()
    }

    /// Second pass.
    fn copy(&mut self, writer: &mut Writer) -> anyhow::Result<()> {
        self.plan.rewind();
        let mut reader = Reader::new(&self.source.parts);
        let mut progress = Progress::new("importing", self.source.bytes());
        let mut taken = 0;
        while let Some(found) = reader.next()? {
            let Found::Record { offset, bytes } = found else {
                continue;
            };
            let record = RecordRef::parse(&bytes)?;
            if !is_queued(&record) {
                continue;
            }
            let (topic, queue_id) = (record.topic(), record.queue_id());
            if let Some(queue_offset) = self.plan.take(topic, queue_id, offset) {
                taken += 1;
                writer
                    .record(&bytes, queue_offset)
                    .with_context(|| format!("message at {offset} of {topic}/{queue_id}"))?;
            }
            progress.show(reader.bytes);
        }
        writer.flush()?;
        progress.end();
        ensure!(
            taken == self.report.messages,
            "{taken} messages were read, {} the first time: the source was changed meanwhile",
            self.report.messages
        );
        Ok(())
    }

    /// The new log is hardly larger than the old one.
    fn check_room(&self, target: &StoreOptions) -> anyhow::Result<()> {
        let log = target.commit_log_dir.as_deref().unwrap_or(&target.root);
        let existing = log.ancestors().find(|dir| dir.is_dir());
        let existing = existing.unwrap_or_else(|| Path::new("."));
        let available = RealDisk.space(existing)?.available;
        let files = self.source.parts.iter().flat_map(|part| &part.files);
        let used = files.map(|file| used_bytes(&file.path).unwrap_or(file.len));
        let needed = used.sum::<u64>() / 100 * 105 + target.prepare_ahead;
        ensure!(
            available >= needed,
            "{}: {available} bytes are available, the import needs about {needed}",
            existing.display()
        );
        Ok(())
    }
}

/// Bytes a file takes on its disk: Java's segments are not written to their end.
fn used_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).ok()?;
    Some(meta.len().min(meta.blocks() * 512))
}

fn is_queued(record: &RecordRef<'_>) -> bool {
    let transaction = sys_flag::transaction_type(record.sys_flag());
    transaction == sys_flag::TRANSACTION_NOT_TYPE
        || transaction == sys_flag::TRANSACTION_COMMIT_TYPE
}

/// A line on standard error now and then.
struct Progress {
    what: &'static str,
    total: u64,
    shown: Instant,
    terminal: bool,
    any: bool,
}

impl Progress {
    fn new(what: &'static str, total: u64) -> Progress {
        Progress {
            what,
            total,
            shown: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
            any: false,
        }
    }

    fn show(&mut self, done: u64) {
        let pause = Duration::from_secs(if self.terminal { 1 } else { 10 });
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        self.any = true;
        const MIB: u64 = 1 << 20;
        let end = if self.terminal { '\r' } else { '\n' };
        let mut to = std::io::stderr().lock();
        // Nobody may be looking.
        drop(write!(
            to,
            "{}: {} of at most {} MiB{end}",
            self.what,
            done / MIB,
            self.total / MIB
        ));
        drop(to.flush());
    }

    fn end(self) {
        if self.any && self.terminal {
            eprintln!();
        }
    }
}

//! The log, segment by segment and entry by entry.

use std::path::Path;

use raftmq_proto::command::Command;
use raftmq_proto::message::record::records;
use raftmq_proto::message::sys_flag;
use raftmq_raft::offline;
use raftmq_store::EntryKind;
use raftmq_store::entry::{HEADER, Header};
use raftmq_store::inspect::{Found, SegmentName, SegmentScan, segments};

use super::{Applied, Stretch, Unread, Verify, file_and_byte};

impl Verify<'_> {
    pub(super) fn log(&mut self) -> anyhow::Result<()> {
        let dir = self.place.commit_log.clone();
        let mut files = segments(&dir)?;
        let base = self.base;
        let below = files.partition_point(|file| file.start < base.position);
        for file in files.drain(..below) {
            let path = file.path.display();
            self.notes
                .push(format!("{path}: is before the log's beginning"));
        }
        let Some(first) = files.first() else {
            if self.flushed.is_some() {
                self.finding(&dir, None, "there is no segment file")?;
            }
            return Ok(());
        };
        let size = self.place.segment_bytes(Some(first)).unwrap_or(first.len);
        if let Some(prev) = base.prev {
            self.queues.skip();
            self.last = Some(Header {
                size: 0,
                id: prev,
                position: base.position,
                kind: EntryKind::Blank,
                prev_crc: 0,
                crc: base.prev_crc,
                command_len: 0,
            });
        }
        let mut expected = base.position;
        for file in &files {
            if file.start != expected && file.start.is_multiple_of(size) {
                let missing = dir.join(format!("{expected:020}"));
                let what = format!("file is missing, {} is there", file.path.display());
                self.finding(&missing, None, &what)?;
                self.lost();
            } else if file.start != expected {
                let what = format!("file name is no multiple of the segment size {size}");
                self.finding(&file.path, None, &what)?;
                continue;
            }
            expected = file.start + size;
            self.segment(file, size)?;
        }
        self.end_of_log()
    }

    fn segment(&mut self, file: &SegmentName, size: u64) -> anyhow::Result<()> {
        if file.len > size {
            let what = format!("file has {} bytes, a segment has {size}", file.len);
            self.finding(&file.path, Some(size), &what)?;
        }
        let mut scan = SegmentScan::open(&file.path, file.start, size)?;
        loop {
            match scan.step() {
                Ok(None) => return Ok(()),
                // The rest of this file cannot be read, others may be.
                Err(error) => {
                    self.error(&file.path, error)?;
                    self.lost();
                    return Ok(());
                }
                Ok(Some(Found::Blank { .. })) => {}
                Ok(Some(Found::Unwritten { position })) => {
                    self.unread.get_or_insert_with(|| Unread {
                        path: file.path.clone(),
                        offset: position - file.start,
                        position,
                        what: "zeros where an entry is expected".to_owned(),
                        blank: true,
                    });
                }
                Ok(Some(Found::Damage {
                    position,
                    what,
                    goes_on,
                    header,
                    end,
                })) => {
                    let offset = position - file.start;
                    let what = match header {
                        Some(header) => format!("entry {} is damaged: {what}", header.id),
                        None => what,
                    };
                    let what = format!("{what} ({} bytes up to {end})", end - position);
                    if goes_on {
                        self.unread_is_damage()?;
                        self.finding(&file.path, Some(offset), &what)?;
                        self.lost();
                    } else {
                        self.unread.get_or_insert_with(|| Unread {
                            path: file.path.clone(),
                            offset,
                            position,
                            what,
                            blank: false,
                        });
                    }
                }
                Ok(Some(Found::Entry { header, raw })) => {
                    self.unread_is_damage()?;
                    let offset = header.position - file.start;
                    self.entry(&file.path, offset, &header)?;
                    self.content(
                        &file.path,
                        offset,
                        &header,
                        raw.get(HEADER..).unwrap_or(&[]),
                    )?;
                }
            }
        }
    }

    /// The log goes on behind what could not be read, so that was no end.
    fn unread_is_damage(&mut self) -> anyhow::Result<()> {
        if let Some(unread) = self.unread.take() {
            let what = format!("{}, but the log goes on behind it", unread.what);
            self.finding(&unread.path, Some(unread.offset), &what)?;
            self.lost();
        }
        Ok(())
    }

    /// What comes next need not follow what was seen last.
    fn lost(&mut self) {
        self.last = None;
        self.queues.skip();
    }

    fn end_of_log(&mut self) -> anyhow::Result<()> {
        let end = self.readable.last().map_or(0, |stretch| stretch.last.end());
        let flushed = self.flushed.unwrap_or(0);
        match self.unread.take() {
            Some(unread) if unread.position < flushed => {
                let what = format!(
                    "{}, but the log was flushed up to position {flushed}",
                    unread.what
                );
                self.finding(&unread.path, Some(unread.offset), &what)
            }
            Some(unread) if !unread.blank => {
                self.notes.push(format!(
                    "{}: {}; nothing follows it, the next start cuts it off",
                    file_and_byte(&unread.path, Some(unread.offset)),
                    unread.what
                ));
                Ok(())
            }
            _ if end < flushed => {
                let what =
                    format!("the log ends at position {end}, it was flushed up to {flushed}");
                self.finding(&self.place.commit_log.clone(), None, &what)
            }
            _ => Ok(()),
        }
    }

    /// Whether an entry continues the log.
    fn entry(&mut self, path: &Path, offset: u64, header: &Header) -> anyhow::Result<()> {
        let before = self.readable.last().map(|stretch| stretch.last);
        let wrong = match (self.last, before) {
            (Some(last), _) if header.id.index != last.id.index + 1 => Some(format!(
                "entry {} does not follow {}: another index",
                header.id, last.id
            )),
            (Some(last), _) if header.prev_crc != last.crc => Some(format!(
                "entry {} continues CRC {:#010x}, the entry before has {:#010x}",
                header.id, header.prev_crc, last.crc
            )),
            (_, Some(before)) if header.id.index <= before.id.index => {
                Some(format!("entry {} stands behind {}", header.id, before.id))
            }
            (_, Some(before)) if header.id.term < before.id.term => Some(format!(
                "entry {} has a lower term than {} before it",
                header.id, before.id
            )),
            (None, None) if header.position == 0 && header.id.index != 0 => {
                Some(format!("log begins with entry {}", header.id))
            }
            _ => None,
        };
        if let Some(what) = &wrong {
            self.finding(path, Some(offset), what)?;
            self.lost();
        }
        match self.readable.last_mut() {
            Some(stretch) if self.last.is_some() => stretch.last = *header,
            _ => self.readable.push(Stretch {
                first: *header,
                last: *header,
            }),
        }
        self.last = Some(*header);
        self.entries += 1;
        self.bytes += u64::from(header.size);
        Ok(())
    }

    /// Command, members and records of an entry.
    fn content(
        &mut self,
        path: &Path,
        offset: u64,
        header: &Header,
        body: &[u8],
    ) -> anyhow::Result<()> {
        match header.kind {
            EntryKind::Blank => {}
            EntryKind::Membership => {
                if let Err(what) = offline::members(body) {
                    let what = format!("entry {}: {what}", header.id);
                    self.finding(path, Some(offset), &what)?;
                }
            }
            EntryKind::Data => self.data(path, offset, header, body)?,
        }
        let applied = self.state.as_ref().and_then(|state| state.applied);
        if applied.is_some_and(|applied| applied.index == header.id.index) {
            self.applied = if applied == Some(header.id) {
                Applied::Same
            } else {
                Applied::Other(header.id)
            };
            self.compare_queues()?;
        }
        Ok(())
    }

    fn data(
        &mut self,
        path: &Path,
        offset: u64,
        header: &Header,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let (command, rest) = body.split_at(header.command_len as usize);
        match Command::decode(command) {
            Ok(command) => command.ops.iter().for_each(|op| self.queues.op(op)),
            Err(error) => {
                let what = format!("entry {}: {error}", header.id);
                self.finding(path, Some(offset), &what)?;
            }
        }
        let mut at = offset + (HEADER + command.len()) as u64;
        let mut position = header.position + (HEADER + command.len()) as u64;
        for record in records(rest) {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let what = format!("entry {}: {error}", header.id);
                    self.finding(path, Some(at), &what)?;
                    break;
                }
            };
            self.records += 1;
            let (topic, queue_id) = (record.topic(), record.queue_id());
            let whose = format!("message {} of {topic}/{queue_id}", record.queue_offset());
            if record.physical_offset() != position {
                let what = format!(
                    "{whose} says physical offset {}, it stands at {position}",
                    record.physical_offset()
                );
                self.finding(path, Some(at), &what)?;
            }
            if let Err(error) = record.verify_body_crc() {
                self.finding(path, Some(at), &format!("{whose}: {error}"))?;
            }
            let transaction = sys_flag::transaction_type(record.sys_flag());
            let is_queued = transaction == sys_flag::TRANSACTION_NOT_TYPE
                || transaction == sys_flag::TRANSACTION_COMMIT_TYPE;
            if is_queued
                && let Err(expected) = self.queues.record(topic, queue_id, record.queue_offset())
            {
                let what = format!("{whose}: the queue's next offset is {expected}");
                self.finding(path, Some(at), &what)?;
            }
            at += u64::from(record.total_size());
            position += u64::from(record.total_size());
        }
        Ok(())
    }
}

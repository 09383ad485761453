//! Configuration and runtime information (26, 28).

use std::collections::BTreeMap;
use std::time::Instant;

use raftmq_proto::body::{DataVersion, KvTable};
use raftmq_proto::frame::{CURRENT_VERSION, RemotingCommand};
use raftmq_proto::header::GetBrokerConfigResponseHeader;
use raftmq_proto::message::record::RecordRef;
use raftmq_proto::properties_file;
use raftmq_store::{CommitLog, StoredEntry};

use super::Admin;
use super::size::size_text;
use crate::exchange::Outcome;
use crate::stats::Totals;
use crate::time::now_ms;

/// The release whose protocol this broker speaks.
const VERSION_TEXT: &str = "V5_3_3";

impl Admin {
    /// 26.
    pub(crate) fn configuration(&self) -> Outcome {
        let text: String = self
            .settings
            .iter()
            .map(|(key, value)| properties_file::format(key, value))
            .collect();
        let version = DataVersion {
            counter: 0,
            state_version: 0,
            timestamp: self.started_ms,
        };
        let version = String::from_utf8_lossy(&version.to_json()).into_owned();
        let header = GetBrokerConfigResponseHeader { version };
        Ok(RemotingCommand::success()
            .with_header(&header)
            .with_body(text.into_bytes()))
    }

    /// 28. Tools parse nearly all of these as numbers, so none may be missing.
    pub(crate) fn runtime_info(&self) -> Outcome {
        let mut table = BTreeMap::new();
        self.add_counters(&mut table);
        self.add_store(&mut table);
        self.add_health(&mut table);
        self.add_queues(&mut table);
        let mut table: BTreeMap<String, String> = table
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let log = self.group.store().log.options().dir.display();
        let ratio = table.get("commitLogDiskRatio").cloned();
        table.insert(
            format!("commitLogDiskRatio_{log}"),
            ratio.unwrap_or_default(),
        );
        Ok(RemotingCommand::success().with_body(KvTable { table }.to_json()))
    }

    fn add_counters(&self, table: &mut BTreeMap<&'static str, String>) {
        let now = now_ms();
        let totals = self.stats.totals();
        let day = self.stats.day();
        let tps = |of: fn(&Totals) -> u64| {
            let [short, middle, long] = self.stats.averages(Instant::now(), of);
            format!("{short:.4} {middle:.4} {long:.4}")
        };
        let average = if totals.put == 0 {
            0.0
        } else {
            totals.put_bytes as f64 / totals.put as f64
        };
        let serving = self.group.role().borrow().serving;
        table.extend([
            ("bootTimestamp", self.started_ms.to_string()),
            ("runtime", runtime_text(now - self.started_ms)),
            ("brokerActive", serving.to_string()),
            ("brokerVersion", CURRENT_VERSION.to_string()),
            ("brokerVersionDesc", VERSION_TEXT.to_owned()),
            ("putMessageTimesTotal", totals.put.to_string()),
            ("putMessageFailedTimes", totals.put_failed.to_string()),
            ("putMessageSizeTotal", totals.put_bytes.to_string()),
            ("putMessageAverageSize", format!("{average:.1}")),
            ("putMessageEntireTimeMax", "0".to_owned()),
            ("putMessageDistributeTime", String::new()),
            ("getMessageEntireTimeMax", "0".to_owned()),
            ("putTps", tps(|totals| totals.put)),
            ("getFoundTps", tps(|totals| totals.found)),
            ("getMissTps", tps(|totals| totals.missed)),
            ("getTotalTps", tps(|totals| totals.found + totals.missed)),
            ("getTransferredTps", tps(|totals| totals.transferred)),
            // The spelling that 4.x tools ask for, and fail without.
            ("getTransferedTps", tps(|totals| totals.transferred)),
            ("putLatency99", "0.00".to_owned()),
            ("putLatency999", "0.00".to_owned()),
            ("msgPutTotalYesterdayMorning", day.yesterday.0.to_string()),
            ("msgPutTotalTodayMorning", day.today.0.to_string()),
            ("msgPutTotalTodayNow", totals.put.to_string()),
            ("msgGetTotalYesterdayMorning", day.yesterday.1.to_string()),
            ("msgGetTotalTodayMorning", day.today.1.to_string()),
            ("msgGetTotalTodayNow", totals.transferred.to_string()),
        ]);
    }

    fn add_store(&self, table: &mut BTreeMap<&'static str, String>) {
        let marks = self.group.watermarks();
        let log = &self.group.store().log;
        let setting = |key: &str| self.settings.get(key).cloned().unwrap_or_default();
        let space = log.space().ok();
        let ratio = space.map_or(-1.0, |space| space.used_ratio());
        let state = self.group.store().space().ok();
        let state_ratio = state.map_or(-1.0, |space| space.used_ratio());
        let capacity = space.map_or_else(String::new, |space| {
            format!(
                "Total : {}, Free : {}.",
                size_text(space.total),
                size_text(space.available)
            )
        });
        let index = |id: Option<raftmq_store::LogId>| {
            id.map_or_else(|| "-1".to_owned(), |id| id.index.to_string())
        };
        table.extend([
            ("commitLogMinOffset", marks.log_start.to_string()),
            ("commitLogMaxOffset", marks.log_end.to_string()),
            ("commitLogDiskRatio", format!("{ratio:.4}")),
            ("consumeQueueDiskRatio", format!("{state_ratio:.4}")),
            ("commitLogDirCapacity", capacity),
            (
                "remainHowManyDataToFlush",
                size_text(marks.log_end.saturating_sub(marks.flushed_position)),
            ),
            ("remainHowManyDataToCommit", "0 B".to_owned()),
            ("remainTransientStoreBufferNumbs", i32::MAX.to_string()),
            ("dispatchBehindBytes", "0".to_owned()),
            ("dispatchMaxBuffer", "0".to_owned()),
            ("pageCacheLockTimeMills", "0".to_owned()),
            (
                "earliestMessageTimeStamp",
                earliest_store_time(log).unwrap_or(-1).to_string(),
            ),
            (
                "startAcceptSendRequestTimeStamp",
                setting("startAcceptSendRequestTimeStamp"),
            ),
            ("raftAppliedIndex", index(marks.applied)),
            ("raftCommittedIndex", index(marks.committed)),
            ("raftLastIndex", index(marks.last)),
            ("raftFlushedPosition", marks.flushed_position.to_string()),
            ("raftTerm", self.group.role().borrow().term.to_string()),
        ]);
    }

    /// Room, damage and what is done about them.
    fn add_health(&self, table: &mut BTreeMap<&'static str, String>) {
        let store = self.group.store();
        let (log, scrub) = (store.log.stats(), self.group.scrub_stats());
        let trouble = *self.group.disk_trouble().borrow();
        table.extend([
            ("retentionLastTrim", self.last_trim_text()),
            (
                "retentionManualRounds",
                self.retention.manual_rounds().to_string(),
            ),
            ("storeLogStart", store.state.log_start().to_string()),
            (
                "storeFull",
                store
                    .log
                    .full()
                    .map_or_else(String::new, |why| why.to_string()),
            ),
            ("storeDamageKnown", log.holes.to_string()),
            ("storeDamageRepaired", log.repaired.to_string()),
            ("storeScrubBytes", scrub.bytes().to_string()),
            ("storeScrubPasses", scrub.passes().to_string()),
            ("storeScrubFound", scrub.found().to_string()),
            (
                "raftDiskTrouble",
                trouble.map_or_else(String::new, |trouble| trouble.to_string()),
            ),
            ("raftRecovering", self.group.recovering().to_string()),
        ]);
    }

    /// What this member gave up last while it led; empty if it has not.
    fn last_trim_text(&self) -> String {
        let last = self.retention.last();
        last.map_or_else(String::new, |last| {
            format!(
                "at {}, position {}, {} segments, {} bytes, {:?}",
                last.at_ms,
                last.trim.position(),
                last.trim.ends.len(),
                last.trim.bytes,
                last.trim.cause
            )
        })
    }

    /// Queues in front of thread pools do not exist here; held pulls are the one thing that waits.
    fn add_queues(&self, table: &mut BTreeMap<&'static str, String>) {
        let zero = || "0".to_owned();
        for key in [
            "timerReadBehind",
            "timerOffsetBehind",
            "timerCongestNum",
            "sendThreadPoolQueueSize",
            "sendThreadPoolQueueHeadWaitTimeMills",
            "pullThreadPoolQueueHeadWaitTimeMills",
            "litePullThreadPoolQueueSize",
            "litePullThreadPoolQueueHeadWaitTimeMills",
            "queryThreadPoolQueueSize",
            "queryThreadPoolQueueHeadWaitTimeMills",
            "ackThreadPoolQueueSize",
            "ackThreadPoolQueueHeadWaitTimeMills",
            "EndTransactionQueueSize",
        ] {
            table.insert(key, zero());
        }
        table.insert("timerEnqueueTps", "0.0".to_owned());
        table.insert("timerDequeueTps", "0.0".to_owned());
        table.insert("pullThreadPoolQueueSize", self.pulls.held().to_string());
        for (key, setting) in [
            ("sendThreadPoolQueueCapacity", "sendThreadPoolQueueCapacity"),
            ("pullThreadPoolQueueCapacity", "pullThreadPoolQueueCapacity"),
            (
                "litePullThreadPoolQueueCapacity",
                "litePullThreadPoolQueueCapacity",
            ),
            (
                "queryThreadPoolQueueCapacity",
                "queryThreadPoolQueueCapacity",
            ),
            ("ackThreadPoolQueueCapacity", "ackThreadPoolQueueCapacity"),
            (
                "EndTransactionThreadPoolQueueCapacity",
                "endTransactionPoolQueueCapacity",
            ),
        ] {
            table.insert(
                key,
                self.settings.get(setting).cloned().unwrap_or_else(zero),
            );
        }
    }
}

/// When the first message of the log was stored.
fn earliest_store_time(log: &CommitLog) -> Option<i64> {
    let first = log.first_index();
    // The first entries of a log are blank or change topics; the first message follows closely.
    let entries = log
        .read(first, log.next_index().min(first + 256), Some(1024 * 1024))
        .ok()?;
    let records = entries
        .iter()
        .map(StoredEntry::records)
        .find(|records| !records.is_empty())?;
    RecordRef::parse(&records)
        .ok()
        .map(|record| record.store_timestamp())
}

fn runtime_text(ms: i64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    format!(
        "[ {days} days, {hours} hours, {minutes} minutes, {} seconds ]",
        seconds % 60
    )
}

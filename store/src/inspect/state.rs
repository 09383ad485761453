//! The state database, read as it lies there.

use std::path::Path;

use raftmq_proto::body::{self, SubscriptionGroupConfig, TopicConfig};
use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, IteratorMode, ReadOptions};

use crate::entry::LogId;
use crate::error::{Error, Result};
use crate::state::QueueBounds;
use crate::state::open::{failure, open_read_only};
use crate::state::rows::{self, Key, Meta};

/// Bounds of a queue, as the database has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    /// Topic.
    pub topic: String,
    /// Queue within the topic.
    pub queue_id: i32,
    /// First and last offsets.
    pub bounds: QueueBounds,
}

/// What a state database holds.
#[derive(Debug, Clone, Default)]
pub struct StateSummary {
    /// The last entry that is applied and persisted.
    pub applied: Option<LogId>,
    /// Position after it.
    pub applied_end: u64,
    /// Records below this position were given up.
    pub log_start: u64,
    /// The last applied membership: its entry and its bytes.
    pub membership: Option<(LogId, Vec<u8>)>,
    /// Names of the topics.
    pub topics: Vec<String>,
    /// Names of the subscription groups.
    pub groups: Vec<String>,
    /// Consume queues.
    pub queues: Vec<QueueRow>,
    /// Rows of any kind.
    pub rows: u64,
}

/// Reads every row of the state database in `dir`, checksums included. `None` when there is no
/// database.
///
/// # Errors
/// [`Error::Database`], [`Error::StateDamaged`]; [`Error::Corrupt`] for a row that cannot be read.
pub fn read_state(dir: &Path) -> Result<Option<StateSummary>> {
    if !dir.join("CURRENT").is_file() {
        return Ok(None);
    }
    let database = |source| failure(dir, source);
    let (db, families) = open_read_only(dir)?;
    let options = || {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        options
    };
    let mut summary = StateSummary::default();
    // The other families are looked at for their checksums only.
    for family in families
        .iter()
        .filter(|name| *name != DEFAULT_COLUMN_FAMILY_NAME)
    {
        let Some(family) = db.cf_handle(family) else {
            continue;
        };
        for row in db.iterator_cf_opt(family, options(), IteratorMode::Start) {
            row.map_err(database)?;
            summary.rows += 1;
        }
    }
    for row in db.iterator_opt(IteratorMode::Start, options()) {
        let (key, value) = row.map_err(database)?;
        summary.rows += 1;
        summary.take(&key, &value).ok_or_else(|| Error::Corrupt {
            path: dir.to_path_buf(),
            offset: 0,
            what: format!(
                "row {} of the database is not readable",
                String::from_utf8_lossy(&key).escape_debug()
            ),
        })?;
    }
    Ok(Some(summary))
}

impl StateSummary {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match rows::decode(key)? {
            Key::Meta => {
                let meta = Meta::decode(value)?;
                self.applied = meta.applied;
                self.applied_end = meta.applied_end;
                self.log_start = meta.log_start;
                self.membership = meta.membership;
            }
            Key::Topic => {
                let config = body::from_json::<TopicConfig>(value).ok()?;
                self.topics.push(config.topic_name);
            }
            Key::Group => {
                let config = body::from_json::<SubscriptionGroupConfig>(value).ok()?;
                self.groups.push(config.group_name);
            }
            Key::Offsets(..) => drop(rows::decode_offsets(value)?),
            Key::Queue(topic, queue_id) => {
                let (_, bounds, _) = rows::decode_queue(value)?;
                self.queues.push(QueueRow {
                    topic: topic.to_owned(),
                    queue_id,
                    bounds,
                });
            }
            Key::Kv(..) | Key::Block => {}
        }
        Some(())
    }
}

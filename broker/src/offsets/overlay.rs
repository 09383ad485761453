//! Consumer offsets that clients have saved and the group has not applied yet.
//!
//! The leader answers queries from here first, so that a query after an update sees it at once, while updates travel
//! through the log in batches. Pure; [`super`] drives it.

use std::collections::HashMap;
use std::sync::Arc;

use raftmq_proto::command::OffsetRow;

/// Names a consumer offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OffsetKey {
    pub(crate) group: Arc<str>,
    pub(crate) topic: Arc<str>,
    pub(crate) queue_id: i32,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saved {
    /// Taken; it will be in the next batch.
    Taken,
    /// Equal to what is known: nothing to do.
    Same,
    /// Below what is known. Late commits of a former owner of the queue arrive like this; they never move a group back.
    Behind(i64),
    /// Too many offsets wait to be saved.
    Full,
}

/// Updates not yet applied, newest value per offset.
#[derive(Debug)]
pub(crate) struct Overlay {
    rows: HashMap<OffsetKey, i64>,
    max: usize,
}

impl Overlay {
    /// Room for `max` offsets that wait at once.
    pub(crate) fn new(max: usize) -> Overlay {
        Overlay {
            rows: HashMap::new(),
            max,
        }
    }

    /// Takes an update; `applied` is what the group has applied for this offset.
    pub(crate) fn save(&mut self, key: OffsetKey, offset: i64, applied: Option<i64>) -> Saved {
        let known = self.rows.get(&key).copied().max(applied);
        match known {
            Some(known) if known == offset => Saved::Same,
            Some(known) if known > offset => Saved::Behind(known),
            _ if self.rows.len() >= self.max && !self.rows.contains_key(&key) => Saved::Full,
            _ => {
                self.rows.insert(key, offset);
                Saved::Taken
            }
        }
    }

    /// The saved value that is not applied yet.
    pub(crate) fn get(&self, key: &OffsetKey) -> Option<i64> {
        self.rows.get(key).copied()
    }

    /// Topics in which a group has saved an offset that is not applied yet.
    pub(crate) fn topics(&self, group: &str) -> impl Iterator<Item = &Arc<str>> {
        let of_group = self.rows.keys().filter(move |key| *key.group == *group);
        of_group.map(|key| &key.topic)
    }

    /// Up to `max` rows to propose next. They stay here until [`applied`](Self::applied).
    pub(crate) fn batch(&self, max: usize) -> Vec<(OffsetKey, i64)> {
        self.rows
            .iter()
            .take(max)
            .map(|(key, offset)| (key.clone(), *offset))
            .collect()
    }

    /// Forgets rows that are applied now, unless a newer value has come meanwhile.
    pub(crate) fn applied(&mut self, rows: &[(OffsetKey, i64)]) {
        for (key, offset) in rows {
            if self.rows.get(key) == Some(offset) {
                self.rows.remove(key);
            }
        }
    }

    /// Forgets what `gone` picks: a deleted topic or group.
    pub(crate) fn forget(&mut self, gone: impl Fn(&OffsetKey) -> bool) {
        self.rows.retain(|key, _| !gone(key));
    }
}

/// The wire form of a batch.
pub(crate) fn rows(batch: &[(OffsetKey, i64)]) -> Vec<OffsetRow> {
    let row = |(key, offset): &(OffsetKey, i64)| OffsetRow {
        group: key.group.to_string(),
        topic: key.topic.to_string(),
        queue_id: key.queue_id,
        offset: *offset,
        reset: false,
    };
    batch.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(queue_id: i32) -> OffsetKey {
        OffsetKey {
            group: "g".into(),
            topic: "t".into(),
            queue_id,
        }
    }

    #[test]
    fn a_saved_offset_is_seen_at_once_and_never_goes_back() {
        let mut overlay = Overlay::new(2);
        assert_eq!(overlay.save(key(0), 5, Some(3)), Saved::Taken);
        assert_eq!(overlay.get(&key(0)), Some(5));
        assert_eq!(overlay.save(key(0), 5, Some(3)), Saved::Same);
        assert_eq!(overlay.save(key(0), 4, Some(3)), Saved::Behind(5));
        assert_eq!(overlay.save(key(1), 2, Some(9)), Saved::Behind(9));
        assert_eq!(overlay.save(key(1), 10, Some(9)), Saved::Taken);
        assert_eq!(overlay.save(key(2), 1, None), Saved::Full);
        assert_eq!(overlay.save(key(1), 11, Some(9)), Saved::Taken);
        assert!(overlay.topics("g").all(|topic| **topic == *"t"));
        assert_eq!(overlay.topics("g").count(), 2);
        assert_eq!(overlay.topics("h").count(), 0);
    }

    #[test]
    fn a_newer_value_survives_the_batch_that_carried_the_older() {
        let mut overlay = Overlay::new(10);
        overlay.save(key(0), 5, None);
        let batch = overlay.batch(10);
        overlay.save(key(0), 6, None);
        overlay.applied(&batch);
        assert_eq!(overlay.get(&key(0)), Some(6));
        overlay.applied(&overlay.batch(10));
        assert!(overlay.rows.is_empty());
        overlay.save(key(1), 1, None);
        overlay.forget(|key| &*key.topic == "t");
        assert!(overlay.rows.is_empty());
    }
}

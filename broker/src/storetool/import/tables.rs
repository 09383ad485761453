//! What a Java broker keeps in `config/*.json`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use raftmq_proto::body::{
    ConsumerOffsetSerializeWrapper, DelayOffsetSerializeWrapper, SubscriptionGroupConfig,
    SubscriptionGroupWrapper, TopicConfig, TopicConfigSerializeWrapper,
};
use raftmq_proto::json::JsonError;

/// The tables, and what is worth telling about them.
#[derive(Default)]
pub(super) struct Tables {
    /// By name.
    pub(super) topics: BTreeMap<String, TopicConfig>,
    /// By name.
    pub(super) groups: BTreeMap<String, SubscriptionGroupConfig>,
    /// By topic and group, then queue.
    pub(super) offsets: BTreeMap<(String, String), BTreeMap<i32, i64>>,
    /// Next offset of each delay level.
    pub(super) delays: BTreeMap<i32, i64>,
    pub(super) notes: Vec<String>,
}

impl Tables {
    pub(super) fn read(config: &Path) -> anyhow::Result<Tables> {
        let mut tables = Tables::default();
        let parsed = tables.table(
            config,
            "topics.json",
            TopicConfigSerializeWrapper::from_json,
        )?;
        tables.topics = parsed.topic_config_table;
        for (name, topic) in &mut tables.topics {
            topic.topic_name.clone_from(name);
        }
        let parsed = tables.table(
            config,
            "subscriptionGroup.json",
            SubscriptionGroupWrapper::from_json,
        )?;
        tables.groups = parsed.subscription_group_table;
        for (name, group) in &mut tables.groups {
            group.group_name.clone_from(name);
        }
        if !parsed.forbidden_table.is_empty() {
            tables.notes.push(format!(
                "which topics {} groups must not read is not taken over",
                parsed.forbidden_table.len()
            ));
        }
        let parsed = tables.table(
            config,
            "consumerOffset.json",
            ConsumerOffsetSerializeWrapper::from_json,
        )?;
        for (name, queues) in parsed.offset_table {
            match name.split_once('@') {
                Some((topic, group)) => {
                    let key = (topic.to_owned(), group.to_owned());
                    tables.offsets.insert(key, queues);
                }
                None => tables
                    .notes
                    .push(format!("consumerOffset.json: {name:?} is no topic@group")),
            }
        }
        let parsed = tables.table(
            config,
            "delayOffset.json",
            DelayOffsetSerializeWrapper::from_json,
        )?;
        tables.delays = parsed.offset_table;
        Ok(tables)
    }

    /// Reads a file; like the broker, its `.bak` when it is missing, empty or not readable.
    fn table<T: Default>(
        &mut self,
        config: &Path,
        name: &str,
        parse: fn(&[u8]) -> Result<T, JsonError>,
    ) -> anyhow::Result<T> {
        let mut wrong = None;
        for path in [config.join(name), config.join(format!("{name}.bak"))] {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) if bytes.is_empty() => continue,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", path.display()));
                }
            };
            match parse(&bytes) {
                Ok(parsed) => {
                    if let Some(wrong) = wrong {
                        self.notes.push(format!("{wrong}; its .bak is taken"));
                    }
                    return Ok(parsed);
                }
                Err(error) => wrong = Some(format!("{}: {error}", path.display())),
            }
        }
        match wrong {
            // A typo must not cost a user the offsets of all consumers.
            Some(wrong) => anyhow::bail!("{wrong}"),
            None => {
                self.notes.push(format!(
                    "{} is missing: nothing is taken from it",
                    config.join(name).display()
                ));
                Ok(T::default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fastjson's integer keys, the fallback, and what is refused.
    #[test]
    fn reads_as_the_broker_does() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "consumerOffset.json",
            "{\n\t\"offsetTable\":{\"T@G\":{0:12,1:7\n\t\t},\"%RETRY%G@G\":{0:1}}\n}",
        );
        write("topics.json", "");
        write(
            "topics.json.bak",
            r#"{"topicConfigTable":{"T":{"readQueueNums":3,"topicName":"T","writeQueueNums":3}}}"#,
        );
        write("delayOffset.json", r#"{"offsetTable":{1:0,2:5}}"#);
        let tables = Tables::read(dir.path()).unwrap();
        assert_eq!(tables.topics["T"].read_queue_nums, 3);
        let offsets = &tables.offsets[&("T".to_owned(), "G".to_owned())];
        assert_eq!(offsets, &BTreeMap::from([(0, 12), (1, 7)]));
        assert_eq!(tables.delays[&2], 5);
        assert!(tables.notes[0].contains("subscriptionGroup.json is missing"));
        write("subscriptionGroup.json", "{");
        let error = Tables::read(dir.path()).err().unwrap().to_string();
        assert!(error.contains("subscriptionGroup.json"), "{error}");
    }
}

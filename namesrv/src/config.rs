//! The nameserver's configuration: RocketMQ's keys, read from a properties file.
//!
//! RocketMQ: `NamesrvConfig` and the part of `NettyServerConfig` that concerns a nameserver.

mod keys;

use std::collections::BTreeMap;
use std::fmt;

use raftmq_proto::properties_file::{self, Parsed};

use keys::{Kind, find};

/// Checked values of the keys that have an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address to listen on (`bindAddress`).
    pub bind_address: String,
    /// Port to listen on (`listenPort`); 0 takes a free one.
    pub listen_port: u64,
    /// Seconds of silence after which a connection is closed.
    pub idle_seconds: u64,
    /// Connections the system keeps waiting to be accepted.
    pub backlog: u64,
    /// Where RocketMQ is installed; only shown.
    pub rocketmq_home: String,
    /// File of the key-value configuration.
    pub kv_config_path: String,
    /// File that `updateNamesrvConfig` writes to: the one given by `-c`, if any.
    pub config_store_path: String,
    /// Keys that `updateNamesrvConfig` must not change, separated by `;`.
    pub config_black_list: String,
    /// Milliseconds between two searches for brokers that fell silent.
    pub scan_interval_ms: u64,
    /// Whether routes carry the queues of ordered topics.
    pub order_message: bool,
    /// Whether brokers get the configuration of ordered topics when they register.
    pub return_order_topic_config: bool,
    /// Whether the lowest follower may be presented as the leader of a group without one.
    pub support_acting_master: bool,
    /// Whether 206 is answered.
    pub all_topic_list: bool,
    /// Whether 224 and 311 to 313 are answered.
    pub topic_list: bool,
    /// Whether routes are refused until brokers had time to register.
    pub wait_for_service: bool,
    /// How many seconds that is.
    pub wait_seconds: u64,
    /// Whether a registration removes the topics it does not name.
    pub forget_missing_topics: bool,
    /// Folder for log files; empty: log to stderr.
    pub log_dir: String,
    /// Least severe level that is logged, or a filter like `info,raftmq_namesrv=debug`.
    pub log_level: String,
    /// How many daily log files are kept.
    pub log_files_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let home = home();
        Self {
            bind_address: "0.0.0.0".to_owned(),
            listen_port: 9876,
            idle_seconds: 120,
            backlog: 1024,
            rocketmq_home: std::env::var("ROCKETMQ_HOME").unwrap_or_default(),
            kv_config_path: format!("{home}/namesrv/kvConfig.json"),
            config_store_path: format!("{home}/namesrv/namesrv.properties"),
            config_black_list: "configBlackList;configStorePath;kvConfigPath".to_owned(),
            scan_interval_ms: 5_000,
            order_message: false,
            return_order_topic_config: true,
            support_acting_master: false,
            all_topic_list: true,
            topic_list: true,
            wait_for_service: false,
            wait_seconds: 45,
            forget_missing_topics: false,
            log_dir: String::new(),
            log_level: "info".to_owned(),
            log_files_max: 10,
        }
    }
}

fn home() -> String {
    std::env::var("HOME")
        .ok()
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| ".".to_owned())
}

/// All keys with their values: those with an effect, those that are only remembered, and unknown ones.
#[derive(Debug, Clone, Default)]
pub struct Config {
    settings: Settings,
    /// Values given for keys without an effect here, known or not.
    others: BTreeMap<String, String>,
}

/// Something in a configuration that has no effect, or not the one its author expects. Never fatal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The nameserver does not know the key.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// The key belongs to something RaftMQ does otherwise.
    NotApplicable {
        /// The key.
        key: String,
    },
    /// The value is of the wrong kind or out of bounds; the key keeps its value.
    BadValue {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
        /// The value it keeps.
        kept: String,
    },
    /// A flag was given something else than `true` or `false`, which counts as false.
    TakenForFalse {
        /// The key.
        key: String,
        /// What was given.
        value: String,
    },
    /// The file's syntax.
    Syntax(properties_file::Problem),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key } => {
                write!(f, "configuration key {key} is not known and has no effect")
            }
            Self::NotApplicable { key } => {
                write!(f, "configuration key {key} has no effect in RaftMQ")
            }
            Self::BadValue {
                key,
                value,
                allowed,
                kept,
            } => {
                write!(
                    f,
                    "configuration key {key} = '{value}' is ignored: allowed is {allowed}; it stays {kept}"
                )
            }
            Self::TakenForFalse { key, value } => {
                write!(
                    f,
                    "configuration key {key} = '{value}' counts as false: only 'true' is true"
                )
            }
            Self::Syntax(problem) => write!(f, "configuration {problem}"),
        }
    }
}

impl Config {
    /// The defaults, changed by the text of a properties file.
    pub fn from_properties(bytes: &[u8]) -> (Self, Vec<Warning>) {
        let mut config = Self::default();
        let warnings = config.apply(&properties_file::parse(bytes));
        (config, warnings)
    }

    /// Takes over all entries that can be; the others are reported.
    pub fn apply(&mut self, parsed: &Parsed) -> Vec<Warning> {
        let mut warnings: Vec<Warning> = parsed
            .problems
            .iter()
            .cloned()
            .map(Warning::Syntax)
            .collect();
        for entry in parsed.effective() {
            warnings.extend(self.set(&entry.key, &entry.value));
        }
        warnings
    }

    /// Values of the keys that have an effect.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same, to be changed by whoever embeds the nameserver.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Whether a key may be changed by `updateNamesrvConfig`.
    pub fn is_black_listed(&self, key: &str) -> bool {
        // These are refused even where the configured list leaves them out: they name files.
        const ALWAYS: [&str; 4] = [
            "configBlackList",
            "configStorePath",
            "kvConfigPath",
            "rocketmqHome",
        ];
        ALWAYS.contains(&key)
            || self
                .settings
                .config_black_list
                .split(';')
                .any(|listed| listed == key)
    }

    /// All keys as `key=value` lines: the known ones in a fixed order, then what else was given.
    pub fn lines(&self) -> String {
        let mut settings = self.settings.clone();
        let mut lines = String::new();
        let mut line = |key: &str, value: &str| {
            for part in [key, "=", value, "\n"] {
                lines.push_str(part);
            }
        };
        for key in keys::KEYS {
            match &key.kind {
                Kind::Text(field) => line(key.name, field(&mut settings)),
                Kind::Flag(field) => line(key.name, &field(&mut settings).to_string()),
                Kind::Number { field, .. } => line(key.name, &field(&mut settings).to_string()),
                Kind::NotApplicable(default) | Kind::Accepted(default) => {
                    line(
                        key.name,
                        self.others.get(key.name).map_or(*default, String::as_str),
                    );
                }
            }
        }
        for (key, value) in self.others.iter().filter(|(key, _)| find(key).is_none()) {
            line(key, value);
        }
        lines
    }

    fn set(&mut self, name: &str, value: &str) -> Option<Warning> {
        let Some(key) = find(name) else {
            self.others.insert(name.to_owned(), value.to_owned());
            return Some(Warning::UnknownKey {
                key: name.to_owned(),
            });
        };
        match &key.kind {
            Kind::Text(field) => {
                properties_file::string(value).clone_into(field(&mut self.settings));
                None
            }
            Kind::Flag(field) => {
                *field(&mut self.settings) = properties_file::boolean(value);
                let meant = properties_file::boolean(value) || value.eq_ignore_ascii_case("false");
                (!meant).then(|| Warning::TakenForFalse {
                    key: name.to_owned(),
                    value: value.to_owned(),
                })
            }
            Kind::Number { field, min, max } => {
                let field = field(&mut self.settings);
                match properties_file::integer::<u64>(value).filter(|n| (min..=max).contains(&n)) {
                    Some(number) => {
                        *field = number;
                        None
                    }
                    None => Some(Warning::BadValue {
                        key: name.to_owned(),
                        value: value.to_owned(),
                        allowed: format!("a number from {min} to {max}, without blanks after it"),
                        kept: field.to_string(),
                    }),
                }
            }
            Kind::Accepted(_) => {
                self.others.insert(name.to_owned(), value.to_owned());
                None
            }
            Kind::NotApplicable(_) => {
                self.others.insert(name.to_owned(), value.to_owned());
                Some(Warning::NotApplicable {
                    key: name.to_owned(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Config, Vec<String>) {
        let (config, warnings) = Config::from_properties(text.as_bytes());
        (config, warnings.iter().map(Warning::to_string).collect())
    }

    #[test]
    fn a_usual_conf_is_read_without_a_warning() {
        let (config, warnings) = read(
            "# nameserver\nlistenPort=9877\nbindAddress = 127.0.0.1 \norderMessageEnable=TRUE\n\
             scanNotActiveBrokerInterval=1000\nserverWorkerThreads=8\nkvConfigPath=/tmp/kv.json\n",
        );
        assert!(warnings.is_empty(), "{warnings:?}");
        let settings = config.settings();
        assert_eq!(
            (settings.listen_port, settings.scan_interval_ms),
            (9877, 1000)
        );
        assert_eq!(settings.bind_address, "127.0.0.1");
        assert!(settings.order_message && settings.return_order_topic_config);
        assert_eq!(settings.kv_config_path, "/tmp/kv.json");
    }

    #[test]
    fn what_has_no_effect_is_named_with_its_value_and_what_is_allowed() {
        let (config, warnings) = read(
            "listenPort=70000\nscanNotActiveBrokerInterval=5000 \nlistenPrt=1\nclusterTest=true\n\
             supportActingMaster=yes\nkvConfigPath=\\uzz\n",
        );
        let settings = config.settings();
        assert_eq!(
            (settings.listen_port, settings.scan_interval_ms),
            (9876, 5000)
        );
        assert!(!settings.support_acting_master);
        assert_eq!(warnings.len(), 6, "{warnings:#?}");
        let has = |parts: &[&str]| {
            warnings
                .iter()
                .any(|w| parts.iter().all(|part| w.contains(part)))
        };
        assert!(
            has(&["listenPort", "'70000'", "0 to 65535", "9876"]),
            "{warnings:#?}"
        );
        assert!(
            has(&["scanNotActiveBrokerInterval", "'5000 '"]),
            "{warnings:#?}"
        );
        assert!(has(&["listenPrt", "not known"]), "{warnings:#?}");
        assert!(has(&["clusterTest", "no effect"]), "{warnings:#?}");
        assert!(
            has(&["supportActingMaster", "'yes'", "false"]),
            "{warnings:#?}"
        );
        assert!(has(&["line 6"]), "{warnings:#?}");
    }

    #[test]
    fn every_key_is_shown_with_its_value_also_unknown_ones() {
        let (config, _) = read("myKey=a\nlistenPort=1\nserverWorkerThreads=3\n");
        let lines = config.lines();
        for line in [
            "listenPort=1",
            "serverWorkerThreads=3",
            "enableTopicList=true",
            "myKey=a",
        ] {
            assert!(
                lines.lines().any(|l| l == line),
                "{line} is not in\n{lines}"
            );
        }
        let names: Vec<&str> = keys::KEYS.iter().map(|key| key.name).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        // What is shown can be read back.
        assert_eq!(read(&lines).0.lines(), lines);
    }

    #[test]
    fn keys_that_name_files_are_always_on_the_black_list() {
        let (config, _) = read("configBlackList=listenPort;bindAddress\n");
        for key in [
            "listenPort",
            "bindAddress",
            "kvConfigPath",
            "configBlackList",
            "rocketmqHome",
        ] {
            assert!(config.is_black_listed(key), "{key}");
        }
        assert!(!config.is_black_listed("orderMessageEnable"));
    }
}

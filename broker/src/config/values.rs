//! The effective value of every known key: defaults, then the file, with a warning for whatever was not understood.

use std::collections::BTreeMap;

use raftmq_proto::properties_file::{self, Parsed};

use super::keys::{self, Kind, Use};

/// Key → value text. Holds every known key and the unknown ones of the file, as the Java broker shows them.
#[derive(Debug, Clone, Default)]
pub struct Values {
    given: BTreeMap<String, String>,
    /// One line per thing in the file that is not what its author may think.
    pub warnings: Vec<String>,
}

impl Values {
    /// Takes what a parsed file says.
    pub fn from_file(parsed: &Parsed) -> Values {
        let mut values = Values::default();
        for problem in &parsed.problems {
            values.warnings.push(format!("configuration {problem}"));
        }
        for entry in parsed.effective() {
            values.take(&entry.key, &entry.value);
        }
        values
    }

    fn take(&mut self, written: &str, value: &str) {
        let alias = keys::ALIASES.iter().find(|(old, _)| *old == written);
        let name = alias.map_or(written, |(_, name)| name);
        if name != written && self.given.contains_key(name) {
            let text = format!(
                "configuration key {written} is another spelling of {name}, which is also present"
            );
            self.warnings.push(text);
        }
        let Some(key) = keys::find(name) else {
            if !keys::REMOVED.contains(&name) {
                self.warnings.push(format!(
                    "configuration key {name} is not known; it has no effect"
                ));
            }
            self.given.insert(name.to_owned(), value.to_owned());
            return;
        };
        let value = match key.kind {
            Kind::Int if properties_file::integer::<i64>(value).is_none() => {
                let default = if key.default.is_empty() {
                    "computed"
                } else {
                    key.default
                };
                self.warnings.push(format!(
                    "configuration key {name} = '{value}' is not a whole number; the default stays: {default}"
                ));
                return;
            }
            Kind::Flag => {
                if !matches!(value.to_ascii_lowercase().as_str(), "true" | "false") {
                    self.warnings.push(format!(
                        "configuration key {name} = '{value}' is not true or false; taken as false"
                    ));
                }
                properties_file::boolean(value).to_string()
            }
            Kind::Int => value.to_owned(),
            Kind::Text => properties_file::string(value).to_owned(),
        };
        match key.usage {
            Use::Later if value != key.default => self.warnings.push(format!(
                "configuration key {name} = '{value}': this release does not have the feature yet; it has no effect"
            )),
            Use::NotApplicable if value != key.default => self.warnings.push(format!(
                "configuration key {name} = '{value}' does not apply to a Raft group; it has no effect"
            )),
            _ => {}
        }
        self.given.insert(name.to_owned(), value);
    }

    /// Sets a key from the command line or from a computed default.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.given.insert(name.to_owned(), value.into());
    }

    /// Whether the file or the command line names the key.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The text of a key: given, or its default (empty when it has none).
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(value) => value,
            None => keys::find(name).map_or("", |key| key.default),
        }
    }

    /// The text of a key, absent when empty.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// A flag.
    pub fn flag(&self, name: &str) -> bool {
        properties_file::boolean(self.text(name))
    }

    /// A number brought into `min..=max`, with a warning when it lay outside.
    pub fn number(&mut self, name: &str, min: i64, max: i64) -> i64 {
        let given = properties_file::integer(self.text(name)).unwrap_or(min);
        let value = given.clamp(min, max);
        if value != given {
            self.warnings.push(format!(
                "configuration key {name} = '{given}' is outside {min} to {max}; {value} is used"
            ));
            self.set(name, value.to_string());
        }
        value
    }

    /// Every known key and every unknown key of the file with its effective value, by name.
    pub fn all(&self) -> BTreeMap<&str, &str> {
        let defaults = keys::KEYS.iter().map(|key| (key.name, key.default));
        defaults
            .chain(
                self.given
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            )
            .collect()
    }

    /// The keys that are read and obeyed, by name.
    pub fn important(&self) -> BTreeMap<&str, &str> {
        let applied = |name: &str| keys::find(name).is_some_and(|key| key.usage == Use::Applied);
        self.all()
            .into_iter()
            .filter(|(name, _)| applied(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        Values::from_file(&properties_file::parse(text.as_bytes()))
    }

    #[test]
    fn aliases_reach_the_key_they_stand_for() {
        let values =
            values("enableDLedgerCommitLog=true\ndLedgerPeers = n0-a:1\nbrokerIP=1.2.3.4\n");
        assert!(values.flag("enableDLegerCommitLog"));
        assert_eq!(values.text("dLegerPeers"), "n0-a:1");
        assert_eq!(values.text("brokerIP1"), "1.2.3.4");
        assert!(values.warnings.is_empty(), "{:?}", values.warnings);
    }

    #[test]
    fn names_unknown_keys_bad_numbers_and_features_that_do_not_exist() {
        let values = values(
            "listenport=1\nmaxMessageSize=4M\nlistenPort=30911 \naclEnable=true\nbrokerRole=SLAVE\nslaveReadEnable=yes\n",
        );
        let text = values.warnings.join("\n");
        for part in [
            "listenport is not known",
            "maxMessageSize = '4M' is not a whole number; the default stays: 4194304",
            "listenPort = '30911 ' is not a whole number; the default stays: 10911",
            "aclEnable = 'true': this release does not have the feature yet",
            "brokerRole = 'SLAVE' does not apply",
            "slaveReadEnable = 'yes' is not true or false",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(values.text("listenPort"), "10911");
        assert_eq!(values.text("maxMessageSize"), "4194304");
        assert_eq!(values.text("listenport"), "1");
    }

    #[test]
    fn stock_defaults_and_removed_keys_are_silent() {
        let values = values(
            "haListenPort=10912\nsendMessageThreadPoolNums=16\ncommercialEnable=true\nbrokerId=0\n",
        );
        assert!(values.warnings.is_empty(), "{:?}", values.warnings);
    }

    #[test]
    fn numbers_outside_their_range_are_brought_back_and_named() {
        let mut values = values("registerNameServerPeriod=5\n");
        assert_eq!(
            values.number("registerNameServerPeriod", 10_000, 60_000),
            10_000
        );
        assert!(values.warnings[0].contains("outside 10000 to 60000"));
    }
}

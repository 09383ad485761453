//! The key-value configuration: small, rarely changed, and on disk before a change is acknowledged.
//!
//! The file is `{"configTable":{"namespace":{"key":"value"}}}`, written whole: temporary file, fsync, rename, fsync of the
//! folder. After a crash it is the old one or the new one. RocketMQ: `KVConfigManager`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

/// Longest text of all entries together: every change writes all of it.
pub const TEXT_MAX: usize = 8 * 1024 * 1024;

/// Namespace of the queues of ordered topics.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

type Table = BTreeMap<String, BTreeMap<String, String>>;

/// Why the key-value configuration could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The file exists and cannot be read. It is not overwritten.
    #[error("key-value configuration {path} cannot be read: {reason}", path = path.display())]
    Unreadable {
        /// The file (`kvConfigPath`).
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A change could not be written; it has not been made.
    #[error("key-value configuration {path} cannot be written: {source}", path = path.display())]
    Unwritable {
        /// The file (`kvConfigPath`).
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A change would make the table too large; it has not been made.
    #[error("key-value configuration would have {bytes} bytes, {TEXT_MAX} are allowed")]
    TooLarge {
        /// Length of all entries with the change.
        bytes: usize,
    },
}

/// Values by namespace and key.
#[derive(Debug)]
pub struct KvConfig {
    path: PathBuf,
    table: RwLock<Table>,
    /// Changes are written one after the other.
    writing: Mutex<()>,
}

impl KvConfig {
    /// Reads the file; there need not be one.
    ///
    /// # Errors
    /// When it exists and is not understood.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KvError> {
        let path = path.into();
        let unreadable = |reason: String| KvError::Unreadable {
            path: path.clone(),
            reason,
        };
        let table = match fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Table::new(),
            Ok(bytes) => table_from_json(&bytes).map_err(unreadable)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::new(),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        Ok(Self {
            path,
            table: RwLock::new(table),
            writing: Mutex::new(()),
        })
    }

    /// A value.
    pub fn value(&self, namespace: &str, key: &str) -> Option<String> {
        self.table.read().get(namespace)?.get(key).cloned()
    }

    /// All values of a namespace, if it has any.
    pub fn namespace(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.table.read().get(namespace).cloned()
    }

    /// Sets a value. Durable on return; readers see it only then. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be written, or the table would become too large; nothing is changed then.
    pub fn put(&self, namespace: &str, key: &str, value: &str) -> Result<(), KvError> {
        self.change(|table| {
            table
                .entry(namespace.to_owned())
                .or_default()
                .insert(key.to_owned(), value.to_owned());
        })
    }

    /// Removes a value, if it is there. Otherwise like [`KvConfig::put`].
    ///
    /// # Errors
    /// When the change cannot be written.
    pub fn delete(&self, namespace: &str, key: &str) -> Result<(), KvError> {
        self.change(|table| {
            if let Some(values) = table.get_mut(namespace) {
                values.remove(key);
                if values.is_empty() {
                    table.remove(namespace);
                }
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Table)) -> Result<(), KvError> {
        let _one_at_a_time = self.writing.lock();
        let mut table = self.table.read().clone();
        change(&mut table);
        let texts = table.iter().flat_map(|(namespace, values)| {
            let of_values = values.iter().map(|(key, value)| key.len() + value.len());
            of_values.chain([namespace.len()])
        });
        let bytes: usize = texts.sum();
        if bytes > TEXT_MAX {
            return Err(KvError::TooLarge { bytes });
        }
        let text = json!({ "configTable": table }).to_string();
        replace_file(&self.path, text.as_bytes()).map_err(|source| KvError::Unwritable {
            path: self.path.clone(),
            source,
        })?;
        *self.table.write() = table;
        Ok(())
    }
}

fn table_from_json(bytes: &[u8]) -> Result<Table, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let Value::Object(mut document) = document else {
        return Err("it is not a JSON object".to_owned());
    };
    match document.remove("configTable") {
        None | Some(Value::Null) => Ok(Table::new()),
        Some(table) => {
            serde_json::from_value(table).map_err(|error| format!("configTable: {error}"))
        }
    }
}

/// Replaces a file so that a crash leaves either the old content or the new one.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself is durable once the folder is.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/kvConfig.json");
        let kv = KvConfig::open(&path).unwrap();
        assert_eq!(kv.namespace("ns"), None);
        kv.put("ns", "key", "value \"with\" ünïcode").unwrap();
        kv.put("ns", "key2", "2").unwrap();
        kv.put(ORDER_TOPIC_CONFIG, "topic", "b:4").unwrap();
        kv.delete("ns", "key2").unwrap();
        kv.delete("ns", "never there").unwrap();
        kv.delete("nowhere", "key").unwrap();
        drop(kv);
        let kv = KvConfig::open(&path).unwrap();
        assert_eq!(
            kv.value("ns", "key").as_deref(),
            Some("value \"with\" ünïcode")
        );
        assert_eq!(kv.value("ns", "key2"), None);
        let order = BTreeMap::from([("topic".to_owned(), "b:4".to_owned())]);
        assert_eq!(kv.namespace(ORDER_TOPIC_CONFIG), Some(order));
        kv.delete(ORDER_TOPIC_CONFIG, "topic").unwrap();
        assert_eq!(kv.namespace(ORDER_TOPIC_CONFIG), None);
    }

    #[test]
    fn the_originals_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        fs::write(&path, "{\n\t\"configTable\":{\"ns\":{\"k\":\"v\"}\n\t}\n}").unwrap();
        assert_eq!(
            KvConfig::open(&path).unwrap().value("ns", "k").as_deref(),
            Some("v")
        );
        for empty in ["", "  \n", "{}", r#"{"configTable":null}"#] {
            fs::write(&path, empty).unwrap();
            assert_eq!(
                KvConfig::open(&path).unwrap().namespace("ns"),
                None,
                "{empty:?}"
            );
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        for damaged in [
            r#"{"configTable":{"ns""#,
            "[]",
            r#"{"configTable":{"ns":1}}"#,
            "\u{0}\u{1}",
        ] {
            fs::write(&path, damaged).unwrap();
            let error = KvConfig::open(&path).unwrap_err().to_string();
            assert!(error.contains("kvConfig.json"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_change_that_cannot_be_written_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        let kv = KvConfig::open(&path).unwrap();
        // A folder in the place of the temporary file.
        fs::create_dir(folder.path().join("kvConfig.json.tmp")).unwrap();
        let error = kv.put("ns", "key", "value").unwrap_err();
        assert!(matches!(error, KvError::Unwritable { .. }), "{error}");
        assert_eq!(kv.value("ns", "key"), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let kv = KvConfig::open(folder.path().join("kvConfig.json")).unwrap();
        let error = kv.put("ns", "key", &"x".repeat(TEXT_MAX)).unwrap_err();
        assert!(matches!(error, KvError::TooLarge { .. }), "{error}");
        assert_eq!(kv.namespace("ns"), None);
    }
}

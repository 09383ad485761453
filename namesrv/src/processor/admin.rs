//! The key-value configuration (100, 101, 102, 219) and the nameserver's own configuration (318, 319).

use std::fs;
use std::io;
use std::path::Path;

use parking_lot::{Mutex, RwLock};
use raftmq_proto::body::KvTable;
use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    DeleteKVConfigRequestHeader, GetKVConfigRequestHeader, GetKVConfigResponseHeader,
    GetKVListByNamespaceRequestHeader, Header, PutKVConfigRequestHeader,
};
use raftmq_proto::properties_file;
use tracing::{info, warn};

use super::{Answer, Failure};
use crate::config::{Config, Settings, Warning};
use crate::kv_config::{KvConfig, KvError, ORDER_TOPIC_CONFIG, replace_file};

/// What tools may look at and change, apart from routes.
pub(super) struct Admin {
    config: RwLock<Config>,
    kv: KvConfig,
    /// Configuration changes are written one after the other.
    updating: Mutex<()>,
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        Self::system_error(error)
    }
}

impl Admin {
    pub(super) fn new(config: Config, kv: KvConfig) -> Self {
        Self {
            config: RwLock::new(config),
            kv,
            updating: Mutex::new(()),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        self.config.read().settings().clone()
    }

    /// One setting, without copying all of them.
    pub(super) fn setting<T>(&self, of: impl FnOnce(&Settings) -> T) -> T {
        of(self.config.read().settings())
    }

    /// Queues of an ordered topic.
    pub(super) fn order_topic_conf(&self, topic: &str) -> Option<String> {
        self.kv.value(ORDER_TOPIC_CONFIG, topic)
    }

    /// All of a namespace as a body, if it has any values.
    pub(super) fn namespace_json(&self, namespace: &str) -> Option<Vec<u8>> {
        self.kv
            .namespace(namespace)
            .map(|table| KvTable { table }.to_json())
    }

    /// Blocks on the disk.
    pub(super) fn put_kv(&self, request: &RemotingCommand) -> Answer {
        let header = PutKVConfigRequestHeader::decode(&request.ext_fields)?;
        self.kv.put(&header.namespace, &header.key, &header.value)?;
        info!(
            namespace = header.namespace,
            key = header.key,
            "key-value entry set"
        );
        Ok(RemotingCommand::success())
    }

    /// Blocks on the disk.
    pub(super) fn delete_kv(&self, request: &RemotingCommand) -> Answer {
        let header = DeleteKVConfigRequestHeader::decode(&request.ext_fields)?;
        self.kv.delete(&header.namespace, &header.key)?;
        info!(
            namespace = header.namespace,
            key = header.key,
            "key-value entry deleted"
        );
        Ok(RemotingCommand::success())
    }

    pub(super) fn kv_value(&self, request: &RemotingCommand) -> Answer {
        let header = GetKVConfigRequestHeader::decode(&request.ext_fields)?;
        let GetKVConfigRequestHeader { namespace, key } = header;
        match self.kv.value(&namespace, &key) {
            Some(value) => Ok(RemotingCommand::success()
                .with_header(&GetKVConfigResponseHeader { value: Some(value) })),
            None => Err(Failure::new(
                response::QUERY_NOT_FOUND,
                format!("No config item, Namespace: {namespace} Key: {key}"),
            )),
        }
    }

    pub(super) fn kv_namespace(&self, request: &RemotingCommand) -> Answer {
        let header = GetKVListByNamespaceRequestHeader::decode(&request.ext_fields)?;
        let body = self.namespace_json(&header.namespace).ok_or_else(|| {
            let text = format!("No config item, Namespace: {}", header.namespace);
            Failure::new(response::QUERY_NOT_FOUND, text)
        })?;
        Ok(RemotingCommand::success().with_body(body))
    }

    pub(super) fn config_lines(&self) -> RemotingCommand {
        RemotingCommand::success().with_body(self.config.read().lines().into_bytes())
    }

    /// Takes over keys at run time and writes them to the conf file, whose other lines stay. Blocks on the disk.
    pub(super) fn update_config(&self, request: &RemotingCommand) -> Answer {
        let _one_at_a_time = self.updating.lock();
        let parsed = properties_file::parse(&request.body.to_bytes());
        let mut config = self.config.read().clone();
        if parsed
            .entries
            .iter()
            .any(|entry| config.is_black_listed(&entry.key))
        {
            return Err(Failure::new(
                response::NO_PERMISSION,
                "Can not update config in black list.",
            ));
        }
        for warning in config.apply(&parsed) {
            // The original answers success to a number it cannot read; whoever sent it would believe it is in force.
            if matches!(warning, Warning::BadValue { .. }) {
                return Err(Failure::system_error(warning));
            }
            warn!("{warning}");
        }
        let changes: Vec<(&str, &str)> = parsed
            .effective()
            .map(|entry| (entry.key.as_str(), entry.value.as_str()))
            .collect();
        if changes.is_empty() {
            return Ok(RemotingCommand::success());
        }
        let path = Path::new(&config.settings().config_store_path);
        let write = || {
            let before = match fs::read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                read => read?,
            };
            replace_file(path, &properties_file::update(&before, &changes))
        };
        write().map_err(|error| {
            Failure::system_error(format!(
                "configuration file {} cannot be written: {error}",
                path.display()
            ))
        })?;
        info!(keys = ?changes, path = %path.display(), "configuration changed");
        *self.config.write() = config;
        Ok(RemotingCommand::success())
    }
}

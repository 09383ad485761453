//! Connections of producers and consumers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData, json_bodies};
use crate::frame::LanguageCode;

/// A client's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// Peer address, `ip:port`.
    pub client_addr: String,
    /// The client.
    pub client_id: String,
    /// Its language.
    pub language: LanguageCode,
    /// Its protocol version.
    pub version: i32,
}

/// Connections of a consumer group (203).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    /// The connections.
    pub connection_set: Vec<Connection>,
    /// Where the group begins without saved offset.
    pub consume_from_where: ConsumeFromWhere,
    /// Push, pull or pop.
    pub consume_type: ConsumeType,
    /// Whether the group shares the messages.
    pub message_model: MessageModel,
    /// What the group wants, by topic.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Connections of a producer group (204).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    /// The connections.
    pub connection_set: Vec<Connection>,
}

/// All producers (328).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTableInfo {
    /// Producers by group.
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

/// A producer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    /// The client.
    pub client_id: String,
    /// Its language.
    pub language: LanguageCode,
    /// When it was last heard of, in ms.
    pub last_update_timestamp: i64,
    /// Peer address, `ip:port`.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// Its protocol version.
    pub version: i32,
}

json_bodies!(
    Connection,
    ConsumerConnection,
    ProducerConnection,
    ProducerTableInfo
);

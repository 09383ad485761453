//! Users and access rules.

use serde::{Deserialize, Serialize};

use super::json_bodies;

/// A user (3001 to 3005).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo {
    /// Password; never sent to whom it does not belong.
    pub password: Option<String>,
    /// `enable` or `disable`.
    pub user_status: Option<String>,
    /// `Super` or `Normal`.
    pub user_type: Option<String>,
    /// Name.
    pub username: Option<String>,
}

/// Access rules of a subject (3006 to 3010).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AclInfo {
    /// The rules.
    pub policies: Vec<PolicyInfo>,
    /// `User:name`.
    pub subject: Option<String>,
}

/// Access rules of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyInfo {
    /// The rules.
    pub entries: Vec<PolicyEntryInfo>,
    /// `Custom` or `Default`.
    pub policy_type: Option<String>,
}

/// An access rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyEntryInfo {
    /// `Pub`, `Sub`, `All`, …
    pub actions: Vec<String>,
    /// `Allow` or `Deny`.
    pub decision: Option<String>,
    /// `Topic:x`, `Group:x`, `Cluster:x` or `*`.
    pub resource: Option<String>,
    /// Addresses or networks it is for.
    pub source_ips: Vec<String>,
}

json_bodies!(UserInfo, AclInfo);

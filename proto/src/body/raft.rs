//! What operators ask of a broker group as a Raft group (41001 to 41003, ours).

use serde::{Deserialize, Serialize};

use super::json_bodies;

/// Leadership was handed over (41002).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaderTransferred {
    /// The broker group.
    pub broker_name: String,
    /// The member that led.
    pub from: u64,
    /// The member that leads now; the same if there was nothing to do.
    pub to: u64,
}

json_bodies!(LeaderTransferred);

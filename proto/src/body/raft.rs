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

/// The members of a broker group (41001, 41003).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupMembers {
    /// The broker group.
    pub broker_name: String,
    /// The member that told this.
    pub told_by: u64,
    /// The members, by id.
    pub members: Vec<GroupMember>,
}

/// What is known of a member. What it would have to say itself is absent when it does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupMember {
    /// Its id: the number in `n0`.
    pub id: u64,
    /// Where it listens for the other members.
    pub address: String,
    /// `leader`, `voter` or `learner`.
    pub role: String,
    /// Whether it answers.
    pub answers: bool,
    /// It does not vote until it has caught up.
    pub recovering: bool,
    /// Term of its vote.
    pub term: Option<u64>,
    /// Index of the last entry of its log.
    pub last_index: Option<u64>,
    /// Index of the last entry it knows to be on a quorum.
    pub committed_index: Option<u64>,
    /// Index of the last entry it has applied.
    pub applied_index: Option<u64>,
    /// Physical offset after the last byte on its disk.
    pub flushed_position: Option<u64>,
    /// Entries it lacks.
    pub lag_entries: Option<u64>,
    /// Bytes it lacks.
    pub lag_bytes: Option<u64>,
    /// Time since the leader heard of it, in ms.
    pub last_contact_ms: Option<u64>,
}

json_bodies!(LeaderTransferred, GroupMembers);

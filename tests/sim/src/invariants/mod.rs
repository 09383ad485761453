//! What must hold, one file each.
//!
//! | invariant | looked at | from |
//! |---|---|---|
//! | [`election_safety`] | whenever a member ran | Raft §5.2 |
//! | [`leader_completeness`] | whenever a member begins to lead | Raft §5.4 |
//! | [`log_matching`] | when leadership changes, a member dies, at the end | Raft §5.3 |
//! | [`state_machine_order`] | whenever a member ran | Raft §5.4.3 |
//! | [`no_acknowledged_loss`] | with every answer, at the end | what a producer was told |
//! | [`dense_offsets`] | at the end | RocketMQ's consume queues |
//! | [`identical_segments`] | at the end | one log, byte for byte |
//! | [`liveness`] | after all is healed | somebody leads, everything gets through |

pub mod dense_offsets;
pub mod election_safety;
pub mod identical_segments;
pub mod leader_completeness;
pub mod liveness;
pub mod log_matching;
pub mod no_acknowledged_loss;
pub mod state_machine_order;

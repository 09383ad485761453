//! Reads of the group's applied state, for processors.

use std::sync::Arc;

use bytes::Bytes;
use raftmq_proto::body::{SubscriptionGroupConfig, TopicConfig};
use raftmq_raft::Group;

use crate::locks::Locks;
use crate::send::checks::Lookup;

/// Topics, groups and records as this member has applied them.
#[derive(Clone)]
pub(crate) struct GroupLookup {
    group: Group,
    locks: Arc<Locks>,
}

impl GroupLookup {
    pub(crate) fn new(group: Group, locks: Arc<Locks>) -> GroupLookup {
        GroupLookup { group, locks }
    }

    /// The record at a physical offset, if it is whole and applied.
    pub(crate) fn record_at(&self, physical_offset: u64) -> Option<Bytes> {
        self.group.store().state.record_at(physical_offset).ok()
    }
}

impl Lookup for GroupLookup {
    fn topic(&self, name: &str) -> Option<Arc<TopicConfig>> {
        self.group.store().state.topic(name)
    }

    fn group(&self, name: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        self.group.store().state.group(name)
    }

    fn holds_locks(&self, group: &str) -> bool {
        self.locks.is_any_live(group)
    }
}

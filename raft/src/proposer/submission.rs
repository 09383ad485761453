//! What is submitted, and what comes of it.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::BytesMut;

/// Messages for one queue, to be stored together.
pub struct MessageSubmission {
    /// Topic.
    pub topic: Arc<str>,
    /// Queue within the topic.
    pub queue_id: i32,
    /// Records back to back, as `NewRecord::encode` makes them, all of this topic and queue. Queue
    /// offset, physical offset and store time are stamped into them.
    pub records: BytesMut,
    /// Number of records, at least 1.
    pub count: u32,
    /// Called exactly once, whatever happens: on the apply task when the messages are stored, on
    /// any other thread otherwise, also within [`crate::Group::submit`]. Must not block.
    pub done: Done,
}

/// Receives the outcome of a submission.
pub type Done = Box<dyn FnOnce(Result<Stored, ProposeError>) + Send>;

/// Where messages were stored. They are committed and applied: consumers can read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Queue offset of the first; the others follow without a gap. 0 for half messages and
    /// rollbacks, which stand in no queue.
    pub queue_offset: u64,
    /// Physical offset of each.
    pub physical_offsets: PhysicalOffsets,
}

/// One offset for each message of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalOffsets(Few);

/// Nearly all submissions are one message, which should not cost an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Few {
    One([u64; 1]),
    Any(Vec<u64>),
}

impl PhysicalOffsets {
    pub(super) fn with_capacity(count: usize) -> Self {
        PhysicalOffsets(if count == 1 {
            Few::One([0])
        } else {
            Few::Any(Vec::with_capacity(count))
        })
    }

    pub(super) fn push(&mut self, offset: u64) {
        match &mut self.0 {
            Few::One(one) => *one = [offset],
            Few::Any(many) => many.push(offset),
        }
    }

    pub(super) fn add(&mut self, base: u64) {
        let offsets = match &mut self.0 {
            Few::One(one) => one.as_mut_slice(),
            Few::Any(many) => many.as_mut_slice(),
        };
        for offset in offsets {
            *offset += base;
        }
    }
}

impl Deref for PhysicalOffsets {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match &self.0 {
            Few::One(one) => one,
            Few::Any(many) => many,
        }
    }
}

/// Why a submission was not stored, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead, or has lost touch with a quorum. Nothing was stored.
    #[error("this member does not lead the group (leader: {leader:?})")]
    NotLeader {
        /// The member that does, if known.
        leader: Option<u64>,
    },
    /// A bound is reached. Nothing was stored.
    #[error("{what}: {value}, limit {limit} ({key})")]
    Busy {
        /// What there is too much of.
        what: &'static str,
        /// How much it would have been.
        value: u64,
        /// How much is allowed.
        limit: u64,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// The disk is full. Nothing was stored.
    #[error("disk full: {what}")]
    DiskFull {
        /// Which folder, how much is used, and the limit.
        what: Arc<str>,
    },
    /// Longer than any entry of the log may be. Nothing was stored; retrying is pointless.
    #[error("{size} bytes do not fit into one log entry of at most {limit}")]
    TooLarge {
        /// Bytes submitted.
        size: u64,
        /// Most that fit.
        limit: u64,
    },
    /// The submission is not what it says it is. Nothing was stored; retrying is pointless.
    #[error("malformed submission: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// Refused at apply because its queue offsets had become stale. Nothing was stored, and it may
    /// be submitted again at once.
    #[error("the assigned queue offsets had become stale; nothing was stored")]
    Renumber,
    /// The leader changed while the submission was under way. It may or may not be stored.
    #[error("leadership changed before the outcome was known; it may or may not be stored")]
    Unknown,
    /// The Raft core or the store has failed; this process must be restarted.
    #[error("this member has failed: {0}")]
    Poisoned(String),
    /// The group is being shut down. Nothing was stored.
    #[error("this member is shutting down")]
    Closed,
}

/// Sees to it that a [`Done`] is called exactly once.
pub(super) struct Waiter {
    done: Option<Done>,
    /// What to say when nobody else does.
    otherwise: ProposeError,
}

impl Waiter {
    /// A waiter whose submission has not left this member's queue.
    pub(super) fn new(done: Done) -> Self {
        Waiter {
            done: Some(done),
            otherwise: ProposeError::Closed,
        }
    }

    /// From now on the submission may end up in the log whatever happens here.
    pub(super) fn proposed(&mut self) {
        self.otherwise = ProposeError::Unknown;
    }

    pub(super) fn complete(mut self, outcome: Result<Stored, ProposeError>) {
        self.call(outcome);
    }

    fn call(&mut self, outcome: Result<Stored, ProposeError>) {
        if let Some(done) = self.done.take() {
            // A panic here would end the apply task, and with it this member.
            if catch_unwind(AssertUnwindSafe(move || done(outcome))).is_err() {
                tracing::error!("the receiver of a submission's outcome panicked");
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.done.is_some() {
            let outcome = Err(self.otherwise.clone());
            self.call(outcome);
        }
    }
}

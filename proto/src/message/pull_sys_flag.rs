//! Bits of a pull request's `sysFlag` (RocketMQ: `PullSysFlag`).

/// `commitOffset` is to be saved as the group's offset.
pub const COMMIT_OFFSET: i32 = 1;
/// The request may be held until messages arrive.
pub const SUSPEND: i32 = 1 << 1;
/// The request's own subscription rules, not that of the heartbeat.
pub const SUBSCRIPTION: i32 = 1 << 2;
/// Filtering by a class, which no broker supports any more.
pub const CLASS_FILTER: i32 = 1 << 3;
/// The consumer is a lite pull consumer.
pub const LITE_PULL: i32 = 1 << 4;

/// Whether `commitOffset` is to be saved.
pub fn has_commit_offset(flag: i32) -> bool {
    flag & COMMIT_OFFSET != 0
}

/// Whether the request may be held.
pub fn has_suspend(flag: i32) -> bool {
    flag & SUSPEND != 0
}

/// Whether the request's own subscription rules.
pub fn has_subscription(flag: i32) -> bool {
    flag & SUBSCRIPTION != 0
}

/// Whether the consumer is a lite pull consumer.
pub fn has_lite_pull(flag: i32) -> bool {
    flag & LITE_PULL != 0
}

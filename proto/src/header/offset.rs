//! Queue bounds and consumer offsets.

use super::headers;

headers! {
    /// Asks for the saved offset of a group (14).
    QueryConsumerOffsetRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: String = "topic",
        queue_id: i32 = "queueId",
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }

    /// Reply to [`QueryConsumerOffsetRequestHeader`].
    QueryConsumerOffsetResponseHeader {
        offset: i64 = "offset",
    }

    /// Saves the offset of a group (15).
    UpdateConsumerOffsetRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: String = "topic",
        queue_id: i32 = "queueId",
        commit_offset: i64 = "commitOffset",
    }

    /// Asks for the queue offset at a time in ms (29); `boundaryType` is `lower` or `upper`.
    SearchOffsetRequestHeader {
        topic: String = "topic",
        queue_id: i32 = "queueId",
        timestamp: i64 = "timestamp",
        boundary_type: Option<String> = "boundaryType",
    }

    /// Reply to [`SearchOffsetRequestHeader`].
    SearchOffsetResponseHeader {
        offset: i64 = "offset",
    }

    /// Asks for the offset after the last message of a queue (30).
    GetMaxOffsetRequestHeader {
        topic: String = "topic",
        queue_id: i32 = "queueId",
        committed: bool = "committed" or true,
    }

    /// Reply to [`GetMaxOffsetRequestHeader`].
    GetMaxOffsetResponseHeader {
        offset: i64 = "offset",
    }

    /// Asks for the offset of the first message of a queue (31).
    GetMinOffsetRequestHeader {
        topic: String = "topic",
        queue_id: i32 = "queueId",
    }

    /// Reply to [`GetMinOffsetRequestHeader`].
    GetMinOffsetResponseHeader {
        offset: i64 = "offset",
    }

    /// Asks when the first message of a queue was stored (32).
    GetEarliestMsgStoretimeRequestHeader {
        topic: String = "topic",
        queue_id: i32 = "queueId",
    }

    /// Reply to [`GetEarliestMsgStoretimeRequestHeader`], in ms.
    GetEarliestMsgStoretimeResponseHeader {
        timestamp: i64 = "timestamp",
    }

    /// Sets the offsets of a group back or forth (222 to the broker, 220 to clients);
    /// `timestamp` -1 means the end of each queue.
    ResetOffsetRequestHeader {
        group: String = "group",
        topic: String = "topic",
        queue_id: i32 = "queueId" or -1,
        offset: Option<i64> = "offset",
        timestamp: i64 = "timestamp",
        is_force: bool = "isForce",
    }

    /// Asks clients what they have consumed (223 to the broker, 221 to clients).
    GetConsumerStatusRequestHeader {
        topic: String = "topic",
        group: String = "group",
        client_addr: Option<String> = "clientAddr",
    }

    /// Asks for the lowest offsets among groups (308); `filterGroups` is comma-joined.
    QueryCorrectionOffsetHeader {
        filter_groups: Option<String> = "filterGroups",
        compare_group: String = "compareGroup",
        topic: String = "topic",
    }

    /// Copies the offsets of one group to another (314).
    CloneGroupOffsetRequestHeader {
        src_group: String = "srcGroup",
        dest_group: String = "destGroup",
        topic: Option<String> = "topic",
        offline: Option<bool> = "offline",
    }
}

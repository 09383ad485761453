//! POP consumption.

use super::headers;

headers! {
    /// Takes messages for a while (200050); queue -1 is any queue.
    PopMessageRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: String = "topic",
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        invisible_time: i64 = "invisibleTime",
        poll_time: i64 = "pollTime",
        born_time: i64 = "bornTime",
        init_mode: i32 = "initMode",
        exp_type: Option<String> = "expType",
        exp: Option<String> = "exp",
        order: bool = "order" or false,
        attempt_id: Option<String> = "attemptId",
    }

    /// Reply to [`PopMessageRequestHeader`] and [`PeekMessageRequestHeader`].
    PopMessageResponseHeader {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
        rest_num: i64 = "restNum",
        start_offset_info: Option<String> = "startOffsetInfo",
        msg_offset_info: Option<String> = "msgOffsetInfo",
        order_count_info: Option<String> = "orderCountInfo",
    }

    /// Acknowledges a message taken by POP (200051).
    AckMessageRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: String = "topic",
        queue_id: i32 = "queueId",
        extra_info: String = "extraInfo",
        offset: i64 = "offset",
    }

    /// Looks at messages without taking them (200052).
    PeekMessageRequestHeader {
        topic: String = "topic",
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        consumer_group: String = "consumerGroup",
    }

    /// Keeps a taken message invisible for another while (200053).
    ChangeInvisibleTimeRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: String = "topic",
        queue_id: i32 = "queueId",
        extra_info: String = "extraInfo",
        offset: i64 = "offset",
        invisible_time: i64 = "invisibleTime",
    }

    /// Reply to [`ChangeInvisibleTimeRequestHeader`].
    ChangeInvisibleTimeResponseHeader {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_qid: i32 = "reviveQid",
    }

    /// Waits for messages without taking them (200054).
    NotificationRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: String = "topic",
        queue_id: i32 = "queueId",
        poll_time: i64 = "pollTime",
        born_time: i64 = "bornTime",
        order: bool = "order" or false,
        attempt_id: Option<String> = "attemptId",
    }

    /// Reply to [`NotificationRequestHeader`].
    NotificationResponseHeader {
        has_msg: bool = "hasMsg" or false,
        polling_full: bool = "pollingFull" or false,
    }

    /// Asks how many requests are held for a queue (200055).
    PollingInfoRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: String = "topic",
        queue_id: i32 = "queueId",
    }

    /// Reply to [`PollingInfoRequestHeader`].
    PollingInfoResponseHeader {
        polling_num: i32 = "pollingNum",
    }
}

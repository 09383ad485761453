//! Producer and consumer groups, and the clients in them.

use super::headers;

headers! {
    /// A heartbeat (34); everything is in the body.
    HeartbeatRequestHeader {}

    /// A client leaves (35).
    UnregisterClientRequestHeader {
        client_id: String = "clientID",
        producer_group: Option<String> = "producerGroup",
        consumer_group: Option<String> = "consumerGroup",
    }

    /// Asks for the client ids of a consumer group (38).
    GetConsumerListByGroupRequestHeader {
        consumer_group: String = "consumerGroup",
    }

    /// Tells clients that the members of their group changed (40).
    NotifyConsumerIdsChangedRequestHeader {
        consumer_group: String = "consumerGroup",
    }

    /// Asks for all subscription groups (201), optionally page by page.
    GetAllSubscriptionGroupRequestHeader {
        group_seq: i32 = "groupSeq",
        data_version: Option<String> = "dataVersion",
        max_group_num: Option<i32> = "maxGroupNum",
    }

    /// Reply to [`GetAllSubscriptionGroupRequestHeader`].
    GetAllSubscriptionGroupResponseHeader {
        total_group_num: i32 = "totalGroupNum",
    }

    /// Asks for one subscription group (352).
    GetSubscriptionGroupConfigRequestHeader {
        group: String = "group",
    }

    /// Deletes a subscription group (207).
    DeleteSubscriptionGroupRequestHeader {
        group_name: String = "groupName",
        clean_offset: bool = "cleanOffset" or false,
    }

    /// Asks for the connections of a consumer group (203).
    GetConsumerConnectionListRequestHeader {
        consumer_group: String = "consumerGroup",
    }

    /// Asks for the connections of a producer group (204).
    GetProducerConnectionListRequestHeader {
        producer_group: String = "producerGroup",
    }

    /// Asks for all producers (328).
    GetAllProducerInfoRequestHeader {}

    /// Asks for the lag of a group (208); `topicList` is joined by `;`.
    GetConsumeStatsRequestHeader {
        consumer_group: String = "consumerGroup",
        topic: Option<String> = "topic",
        topic_list: Option<String> = "topicList",
    }

    /// Asks for the lag of every group (317).
    GetConsumeStatsInBrokerHeader {
        is_order: bool = "isOrder",
    }

    /// Asks which groups consume a topic (300).
    QueryTopicConsumeByWhoRequestHeader {
        topic: String = "topic",
    }

    /// Asks which topics a group consumes (343).
    QueryTopicsByConsumerRequestHeader {
        group: String = "group",
    }

    /// Asks for a subscription of a group (345).
    QuerySubscriptionByConsumerRequestHeader {
        group: String = "group",
        topic: Option<String> = "topic",
    }

    /// Asks from when to when messages of a topic wait (303).
    QueryConsumeTimeSpanRequestHeader {
        topic: String = "topic",
        group: String = "group",
    }

    /// Asks a consumer what it is doing (307), through the broker.
    GetConsumerRunningInfoRequestHeader {
        consumer_group: String = "consumerGroup",
        client_id: String = "clientId",
        jstack_enable: Option<bool> = "jstackEnable",
    }

    /// Lets one consumer consume one message now (309).
    ConsumeMessageDirectlyResultRequestHeader {
        consumer_group: String = "consumerGroup",
        client_id: Option<String> = "clientId",
        msg_id: Option<String> = "msgId",
        broker_name: Option<String> = "brokerName",
        topic: Option<String> = "topic",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
    }

    /// Forbids or allows a group to read a topic (353).
    UpdateGroupForbiddenRequestHeader {
        group: String = "group",
        topic: String = "topic",
        readable: Option<bool> = "readable",
    }

    /// Locks queues for ordered consumption (41).
    LockBatchMqRequestHeader {}

    /// Releases locked queues (42).
    UnlockBatchMqRequestHeader {}
}

//! Topics.

use super::headers;

headers! {
    /// Creates or changes a topic (17); `attributes` is a list like `+key=value,-key`.
    CreateTopicRequestHeader {
        topic: String = "topic",
        default_topic: String = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        perm: i32 = "perm",
        topic_filter_type: String = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: bool = "order" or false,
        attributes: Option<String> = "attributes",
        force: bool = "force" or false,
    }

    /// Creates or changes several topics (18).
    CreateTopicListRequestHeader {}

    /// Asks for all topics (21), optionally page by page.
    GetAllTopicConfigRequestHeader {
        topic_seq: i32 = "topicSeq",
        data_version: Option<String> = "dataVersion",
        max_topic_num: Option<i32> = "maxTopicNum",
    }

    /// Reply to [`GetAllTopicConfigRequestHeader`].
    GetAllTopicConfigResponseHeader {
        total_topic_num: i32 = "totalTopicNum",
    }

    /// Asks for one topic (351); `lo` wants its static-topic mapping too.
    GetTopicConfigRequestHeader {
        topic: String = "topic",
        lo: Option<bool> = "lo",
    }

    /// Asks for the queue bounds of a topic (202).
    GetTopicStatsInfoRequestHeader {
        topic: String = "topic",
    }

    /// Deletes a topic on a broker (215).
    DeleteTopicRequestHeader {
        topic: String = "topic",
    }

    /// Deletes a topic's routes on a nameserver (216), of one cluster or of all.
    DeleteTopicFromNamesrvRequestHeader {
        topic: String = "topic",
        cluster_name: Option<String> = "clusterName",
    }

    /// Registers one topic at a nameserver (217).
    RegisterTopicRequestHeader {
        topic: String = "topic",
    }

    /// Reads units of a consume queue (321).
    QueryConsumeQueueRequestHeader {
        topic: Option<String> = "topic",
        queue_id: Option<i32> = "queueId",
        index: Option<i64> = "index",
        count: Option<i32> = "count",
        consumer_group: Option<String> = "consumerGroup",
    }
}

//! Registration of brokers, routes and the nameserver's key-value configuration.

use super::headers;

headers! {
    /// A broker registers (103). `bodyCrc32` 0 means unchecked.
    RegisterBrokerRequestHeader {
        broker_name: String = "brokerName",
        broker_addr: String = "brokerAddr",
        cluster_name: String = "clusterName",
        ha_server_addr: String = "haServerAddr",
        broker_id: i64 = "brokerId",
        heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMillis",
        enable_acting_master: Option<bool> = "enableActingMaster",
        compressed: Option<bool> = "compressed",
        body_crc32: i32 = "bodyCrc32" or 0,
    }

    /// Reply to [`RegisterBrokerRequestHeader`].
    RegisterBrokerResponseHeader {
        ha_server_addr: Option<String> = "haServerAddr",
        master_addr: Option<String> = "masterAddr",
    }

    /// A broker leaves (104).
    UnRegisterBrokerRequestHeader {
        broker_name: String = "brokerName",
        broker_addr: String = "brokerAddr",
        cluster_name: String = "clusterName",
        broker_id: i64 = "brokerId",
    }

    /// Asks whether a nameserver's copy of the topics is stale (322).
    QueryDataVersionRequestHeader {
        broker_name: String = "brokerName",
        broker_addr: String = "brokerAddr",
        cluster_name: String = "clusterName",
        broker_id: i64 = "brokerId",
    }

    /// Reply to [`QueryDataVersionRequestHeader`].
    QueryDataVersionResponseHeader {
        changed: bool = "changed",
    }

    /// A broker is alive (904).
    BrokerHeartbeatRequestHeader {
        cluster_name: String = "clusterName",
        broker_addr: String = "brokerAddr",
        broker_name: String = "brokerName",
        broker_id: Option<i64> = "brokerId",
        epoch: Option<i32> = "epoch",
        max_offset: Option<i64> = "maxOffset",
        confirm_offset: Option<i64> = "confirmOffset",
        heartbeat_timeout_mills: Option<i64> = "heartbeatTimeoutMills",
        election_priority: Option<i32> = "electionPriority",
    }

    /// Asks for the route of a topic (105).
    GetRouteInfoRequestHeader {
        topic: String = "topic",
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }

    /// Sets a configuration value (100).
    PutKVConfigRequestHeader {
        namespace: String = "namespace",
        key: String = "key",
        value: String = "value",
    }

    /// Asks for a configuration value (101).
    GetKVConfigRequestHeader {
        namespace: String = "namespace",
        key: String = "key",
    }

    /// Reply to [`GetKVConfigRequestHeader`].
    GetKVConfigResponseHeader {
        value: Option<String> = "value",
    }

    /// Deletes a configuration value (102).
    DeleteKVConfigRequestHeader {
        namespace: String = "namespace",
        key: String = "key",
    }

    /// Asks for all values of a namespace (219).
    GetKVListByNamespaceRequestHeader {
        namespace: String = "namespace",
    }

    /// Takes the write permission of a broker's queues away (205).
    WipeWritePermOfBrokerRequestHeader {
        broker_name: String = "brokerName",
    }

    /// Reply to [`WipeWritePermOfBrokerRequestHeader`].
    WipeWritePermOfBrokerResponseHeader {
        wipe_topic_count: i32 = "wipeTopicCount",
    }

    /// Gives the write permission back (327).
    AddWritePermOfBrokerRequestHeader {
        broker_name: String = "brokerName",
    }

    /// Reply to [`AddWritePermOfBrokerRequestHeader`].
    AddWritePermOfBrokerResponseHeader {
        add_topic_count: i32 = "addTopicCount",
    }

    /// Asks for the topics of a cluster (224).
    GetTopicsByClusterRequestHeader {
        cluster: String = "cluster",
    }

    /// Asks for the members of a broker group (901).
    GetBrokerMemberGroupRequestHeader {
        cluster_name: String = "clusterName",
        broker_name: String = "brokerName",
    }

    /// Tells brokers of a group that its smallest id changed (905).
    NotifyMinBrokerIdChangeRequestHeader {
        min_broker_id: Option<i64> = "minBrokerId",
        broker_name: Option<String> = "brokerName",
        min_broker_addr: Option<String> = "minBrokerAddr",
        offline_broker_addr: Option<String> = "offlineBrokerAddr",
        ha_broker_addr: Option<String> = "haBrokerAddr",
    }
}

//! Request and response codes, under RocketMQ's own names.

/// What a request asks for (RocketMQ: `RequestCode`).
pub mod request {
    /// Stores one message; header with the long names.
    pub const SEND_MESSAGE: i32 = 10;
    /// Reads messages of one queue, held while there are none.
    pub const PULL_MESSAGE: i32 = 11;
    /// Query message.
    pub const QUERY_MESSAGE: i32 = 12;
    /// Query broker offset.
    pub const QUERY_BROKER_OFFSET: i32 = 13;
    /// Query consumer offset.
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    /// Update consumer offset.
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    /// Update and create topic.
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    /// Update and create topic list.
    pub const UPDATE_AND_CREATE_TOPIC_LIST: i32 = 18;
    /// Get all topic config.
    pub const GET_ALL_TOPIC_CONFIG: i32 = 21;
    /// Get topic config list.
    pub const GET_TOPIC_CONFIG_LIST: i32 = 22;
    /// Get topic name list.
    pub const GET_TOPIC_NAME_LIST: i32 = 23;
    /// Update broker config.
    pub const UPDATE_BROKER_CONFIG: i32 = 25;
    /// Get broker config.
    pub const GET_BROKER_CONFIG: i32 = 26;
    /// Trigger delete files.
    pub const TRIGGER_DELETE_FILES: i32 = 27;
    /// Get broker runtime info.
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    /// Search offset by timestamp.
    pub const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    /// Get max offset.
    pub const GET_MAX_OFFSET: i32 = 30;
    /// Get min offset.
    pub const GET_MIN_OFFSET: i32 = 31;
    /// Get earliest msg storetime.
    pub const GET_EARLIEST_MSG_STORETIME: i32 = 32;
    /// View message by id.
    pub const VIEW_MESSAGE_BY_ID: i32 = 33;
    /// Registers the producers and consumers of a client.
    pub const HEART_BEAT: i32 = 34;
    /// Unregister client.
    pub const UNREGISTER_CLIENT: i32 = 35;
    /// Consumer send msg back.
    pub const CONSUMER_SEND_MSG_BACK: i32 = 36;
    /// End transaction.
    pub const END_TRANSACTION: i32 = 37;
    /// Get consumer list by group.
    pub const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    /// Check transaction state.
    pub const CHECK_TRANSACTION_STATE: i32 = 39;
    /// Notify consumer ids changed.
    pub const NOTIFY_CONSUMER_IDS_CHANGED: i32 = 40;
    /// Lock batch mq.
    pub const LOCK_BATCH_MQ: i32 = 41;
    /// Unlock batch mq.
    pub const UNLOCK_BATCH_MQ: i32 = 42;
    /// Get all consumer offset.
    pub const GET_ALL_CONSUMER_OFFSET: i32 = 43;
    /// Get all delay offset.
    pub const GET_ALL_DELAY_OFFSET: i32 = 45;
    /// Check client config.
    pub const CHECK_CLIENT_CONFIG: i32 = 46;
    /// Get client config.
    pub const GET_CLIENT_CONFIG: i32 = 47;
    /// `UPDATE_AND_CREATE_ACL_CONFIG` of releases up to 5.2 (ACL 1.0).
    pub const UPDATE_AND_CREATE_ACL_CONFIG: i32 = 50;
    /// `DELETE_ACL_CONFIG` of releases up to 5.2 (ACL 1.0).
    pub const DELETE_ACL_CONFIG: i32 = 51;
    /// `GET_BROKER_CLUSTER_ACL_INFO` of releases up to 5.2 (ACL 1.0).
    pub const GET_BROKER_CLUSTER_ACL_INFO: i32 = 52;
    /// `UPDATE_GLOBAL_WHITE_ADDRS_CONFIG` of releases up to 5.2 (ACL 1.0).
    pub const UPDATE_GLOBAL_WHITE_ADDRS_CONFIG: i32 = 53;
    /// `GET_BROKER_CLUSTER_ACL_CONFIG` of releases up to 5.2 (ACL 1.0).
    pub const GET_BROKER_CLUSTER_ACL_CONFIG: i32 = 54;
    /// Get timer check point.
    pub const GET_TIMER_CHECK_POINT: i32 = 60;
    /// Get timer metrics.
    pub const GET_TIMER_METRICS: i32 = 61;
    /// Put kv config.
    pub const PUT_KV_CONFIG: i32 = 100;
    /// Get kv config.
    pub const GET_KV_CONFIG: i32 = 101;
    /// Delete kv config.
    pub const DELETE_KV_CONFIG: i32 = 102;
    /// Register broker.
    pub const REGISTER_BROKER: i32 = 103;
    /// Unregister broker.
    pub const UNREGISTER_BROKER: i32 = 104;
    /// Get routeinfo by topic.
    pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    /// Get broker cluster info.
    pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
    /// Update and create subscriptiongroup.
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
    /// Get all subscriptiongroup config.
    pub const GET_ALL_SUBSCRIPTIONGROUP_CONFIG: i32 = 201;
    /// Get topic stats info.
    pub const GET_TOPIC_STATS_INFO: i32 = 202;
    /// Get consumer connection list.
    pub const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
    /// Get producer connection list.
    pub const GET_PRODUCER_CONNECTION_LIST: i32 = 204;
    /// Wipe write perm of broker.
    pub const WIPE_WRITE_PERM_OF_BROKER: i32 = 205;
    /// Get all topic list from nameserver.
    pub const GET_ALL_TOPIC_LIST_FROM_NAMESERVER: i32 = 206;
    /// Delete subscriptiongroup.
    pub const DELETE_SUBSCRIPTIONGROUP: i32 = 207;
    /// Get consume stats.
    pub const GET_CONSUME_STATS: i32 = 208;
    /// Suspend consumer.
    pub const SUSPEND_CONSUMER: i32 = 209;
    /// Resume consumer.
    pub const RESUME_CONSUMER: i32 = 210;
    /// Reset consumer offset in consumer.
    pub const RESET_CONSUMER_OFFSET_IN_CONSUMER: i32 = 211;
    /// Reset consumer offset in broker.
    pub const RESET_CONSUMER_OFFSET_IN_BROKER: i32 = 212;
    /// Adjust consumer thread pool.
    pub const ADJUST_CONSUMER_THREAD_POOL: i32 = 213;
    /// Who consume the message.
    pub const WHO_CONSUME_THE_MESSAGE: i32 = 214;
    /// Delete topic in broker.
    pub const DELETE_TOPIC_IN_BROKER: i32 = 215;
    /// Delete topic in namesrv.
    pub const DELETE_TOPIC_IN_NAMESRV: i32 = 216;
    /// Register topic in namesrv.
    pub const REGISTER_TOPIC_IN_NAMESRV: i32 = 217;
    /// Get kvlist by namespace.
    pub const GET_KVLIST_BY_NAMESPACE: i32 = 219;
    /// Reset consumer client offset.
    pub const RESET_CONSUMER_CLIENT_OFFSET: i32 = 220;
    /// Get consumer status from client.
    pub const GET_CONSUMER_STATUS_FROM_CLIENT: i32 = 221;
    /// Invoke broker to reset offset.
    pub const INVOKE_BROKER_TO_RESET_OFFSET: i32 = 222;
    /// Invoke broker to get consumer status.
    pub const INVOKE_BROKER_TO_GET_CONSUMER_STATUS: i32 = 223;
    /// Get topics by cluster.
    pub const GET_TOPICS_BY_CLUSTER: i32 = 224;
    /// Update and create subscriptiongroup list.
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST: i32 = 225;
    /// Query topic consume by who.
    pub const QUERY_TOPIC_CONSUME_BY_WHO: i32 = 300;
    /// Register filter server.
    pub const REGISTER_FILTER_SERVER: i32 = 301;
    /// Register message filter class.
    pub const REGISTER_MESSAGE_FILTER_CLASS: i32 = 302;
    /// Query consume time span.
    pub const QUERY_CONSUME_TIME_SPAN: i32 = 303;
    /// Get system topic list from ns.
    pub const GET_SYSTEM_TOPIC_LIST_FROM_NS: i32 = 304;
    /// Get system topic list from broker.
    pub const GET_SYSTEM_TOPIC_LIST_FROM_BROKER: i32 = 305;
    /// Clean expired consumequeue.
    pub const CLEAN_EXPIRED_CONSUMEQUEUE: i32 = 306;
    /// Get consumer running info.
    pub const GET_CONSUMER_RUNNING_INFO: i32 = 307;
    /// Query correction offset.
    pub const QUERY_CORRECTION_OFFSET: i32 = 308;
    /// Consume message directly.
    pub const CONSUME_MESSAGE_DIRECTLY: i32 = 309;
    /// Stores one message; header with the one-letter names.
    pub const SEND_MESSAGE_V2: i32 = 310;
    /// Get unit topic list.
    pub const GET_UNIT_TOPIC_LIST: i32 = 311;
    /// Get has unit sub topic list.
    pub const GET_HAS_UNIT_SUB_TOPIC_LIST: i32 = 312;
    /// Get has unit sub ununit topic list.
    pub const GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST: i32 = 313;
    /// Clone group offset.
    pub const CLONE_GROUP_OFFSET: i32 = 314;
    /// View broker stats data.
    pub const VIEW_BROKER_STATS_DATA: i32 = 315;
    /// Clean unused topic.
    pub const CLEAN_UNUSED_TOPIC: i32 = 316;
    /// Get broker consume stats.
    pub const GET_BROKER_CONSUME_STATS: i32 = 317;
    /// Update namesrv config.
    pub const UPDATE_NAMESRV_CONFIG: i32 = 318;
    /// Get namesrv config.
    pub const GET_NAMESRV_CONFIG: i32 = 319;
    /// Stores a batch of messages; header with the one-letter names.
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    /// Query consume queue.
    pub const QUERY_CONSUME_QUEUE: i32 = 321;
    /// Query data version.
    pub const QUERY_DATA_VERSION: i32 = 322;
    /// Resume check half message.
    pub const RESUME_CHECK_HALF_MESSAGE: i32 = 323;
    /// Send reply message.
    pub const SEND_REPLY_MESSAGE: i32 = 324;
    /// Send reply message v2.
    pub const SEND_REPLY_MESSAGE_V2: i32 = 325;
    /// Push reply message to client.
    pub const PUSH_REPLY_MESSAGE_TO_CLIENT: i32 = 326;
    /// Add write perm of broker.
    pub const ADD_WRITE_PERM_OF_BROKER: i32 = 327;
    /// Get all producer info.
    pub const GET_ALL_PRODUCER_INFO: i32 = 328;
    /// Delete expired commitlog.
    pub const DELETE_EXPIRED_COMMITLOG: i32 = 329;
    /// Query topics by consumer.
    pub const QUERY_TOPICS_BY_CONSUMER: i32 = 343;
    /// Query subscription by consumer.
    pub const QUERY_SUBSCRIPTION_BY_CONSUMER: i32 = 345;
    /// Get topic config.
    pub const GET_TOPIC_CONFIG: i32 = 351;
    /// Get subscriptiongroup config.
    pub const GET_SUBSCRIPTIONGROUP_CONFIG: i32 = 352;
    /// Update and get group forbidden.
    pub const UPDATE_AND_GET_GROUP_FORBIDDEN: i32 = 353;
    /// Check rocksdb cq write progress.
    pub const CHECK_ROCKSDB_CQ_WRITE_PROGRESS: i32 = 354;
    /// Export rocksdb config to json.
    pub const EXPORT_ROCKSDB_CONFIG_TO_JSON: i32 = 355;
    /// Lite pull message.
    pub const LITE_PULL_MESSAGE: i32 = 361;
    /// Recall message.
    pub const RECALL_MESSAGE: i32 = 370;
    /// Query assignment.
    pub const QUERY_ASSIGNMENT: i32 = 400;
    /// Set message request mode.
    pub const SET_MESSAGE_REQUEST_MODE: i32 = 401;
    /// Get all message request mode.
    pub const GET_ALL_MESSAGE_REQUEST_MODE: i32 = 402;
    /// Update and create static topic.
    pub const UPDATE_AND_CREATE_STATIC_TOPIC: i32 = 513;
    /// Get broker member group.
    pub const GET_BROKER_MEMBER_GROUP: i32 = 901;
    /// Add broker.
    pub const ADD_BROKER: i32 = 902;
    /// Remove broker.
    pub const REMOVE_BROKER: i32 = 903;
    /// Broker heartbeat.
    pub const BROKER_HEARTBEAT: i32 = 904;
    /// Notify min broker id change.
    pub const NOTIFY_MIN_BROKER_ID_CHANGE: i32 = 905;
    /// Exchange broker ha info.
    pub const EXCHANGE_BROKER_HA_INFO: i32 = 906;
    /// Get broker ha status.
    pub const GET_BROKER_HA_STATUS: i32 = 907;
    /// Reset master flush offset.
    pub const RESET_MASTER_FLUSH_OFFSET: i32 = 908;
    /// Controller alter sync state set.
    pub const CONTROLLER_ALTER_SYNC_STATE_SET: i32 = 1001;
    /// Controller elect master.
    pub const CONTROLLER_ELECT_MASTER: i32 = 1002;
    /// Controller register broker.
    pub const CONTROLLER_REGISTER_BROKER: i32 = 1003;
    /// Controller get replica info.
    pub const CONTROLLER_GET_REPLICA_INFO: i32 = 1004;
    /// Controller get metadata info.
    pub const CONTROLLER_GET_METADATA_INFO: i32 = 1005;
    /// Controller get sync state data.
    pub const CONTROLLER_GET_SYNC_STATE_DATA: i32 = 1006;
    /// Get broker epoch cache.
    pub const GET_BROKER_EPOCH_CACHE: i32 = 1007;
    /// Notify broker role changed.
    pub const NOTIFY_BROKER_ROLE_CHANGED: i32 = 1008;
    /// Update controller config.
    pub const UPDATE_CONTROLLER_CONFIG: i32 = 1009;
    /// Get controller config.
    pub const GET_CONTROLLER_CONFIG: i32 = 1010;
    /// Clean broker data.
    pub const CLEAN_BROKER_DATA: i32 = 1011;
    /// Controller get next broker id.
    pub const CONTROLLER_GET_NEXT_BROKER_ID: i32 = 1012;
    /// Controller apply broker id.
    pub const CONTROLLER_APPLY_BROKER_ID: i32 = 1013;
    /// Broker close channel request.
    pub const BROKER_CLOSE_CHANNEL_REQUEST: i32 = 1014;
    /// Check not active broker request.
    pub const CHECK_NOT_ACTIVE_BROKER_REQUEST: i32 = 1015;
    /// Get broker live info request.
    pub const GET_BROKER_LIVE_INFO_REQUEST: i32 = 1016;
    /// Get sync state data request.
    pub const GET_SYNC_STATE_DATA_REQUEST: i32 = 1017;
    /// Raft broker heart beat event request.
    pub const RAFT_BROKER_HEART_BEAT_EVENT_REQUEST: i32 = 1018;
    /// Update cold data flow ctr config.
    pub const UPDATE_COLD_DATA_FLOW_CTR_CONFIG: i32 = 2001;
    /// Remove cold data flow ctr config.
    pub const REMOVE_COLD_DATA_FLOW_CTR_CONFIG: i32 = 2002;
    /// Get cold data flow ctr info.
    pub const GET_COLD_DATA_FLOW_CTR_INFO: i32 = 2003;
    /// Set commitlog read mode.
    pub const SET_COMMITLOG_READ_MODE: i32 = 2004;
    /// Auth create user.
    pub const AUTH_CREATE_USER: i32 = 3001;
    /// Auth update user.
    pub const AUTH_UPDATE_USER: i32 = 3002;
    /// Auth delete user.
    pub const AUTH_DELETE_USER: i32 = 3003;
    /// Auth get user.
    pub const AUTH_GET_USER: i32 = 3004;
    /// Auth list user.
    pub const AUTH_LIST_USER: i32 = 3005;
    /// Auth create acl.
    pub const AUTH_CREATE_ACL: i32 = 3006;
    /// Auth update acl.
    pub const AUTH_UPDATE_ACL: i32 = 3007;
    /// Auth delete acl.
    pub const AUTH_DELETE_ACL: i32 = 3008;
    /// Auth get acl.
    pub const AUTH_GET_ACL: i32 = 3009;
    /// Auth list acl.
    pub const AUTH_LIST_ACL: i32 = 3010;
    /// Pop message.
    pub const POP_MESSAGE: i32 = 200_050;
    /// Ack message.
    pub const ACK_MESSAGE: i32 = 200_051;
    /// Peek message.
    pub const PEEK_MESSAGE: i32 = 200_052;
    /// Change message invisibletime.
    pub const CHANGE_MESSAGE_INVISIBLETIME: i32 = 200_053;
    /// Notification.
    pub const NOTIFICATION: i32 = 200_054;
    /// Polling info.
    pub const POLLING_INFO: i32 = 200_055;
    /// Pop rollback.
    pub const POP_ROLLBACK: i32 = 200_056;
    /// Batch ack message.
    pub const BATCH_ACK_MESSAGE: i32 = 200_151;
    /// Ours: what a member knows about its group.
    pub const RAFT_MEMBER_STATUS: i32 = 41_001;
    /// Ours: hand leadership over.
    pub const RAFT_TRANSFER_LEADER: i32 = 41_002;
    /// Ours: change who belongs to the group.
    pub const RAFT_CHANGE_MEMBERS: i32 = 41_003;

    /// The name of a request code, for logs and metrics; `None` for a code nobody defined.
    pub fn name(code: i32) -> Option<&'static str> {
        Some(match code {
            SEND_MESSAGE => "SEND_MESSAGE",
            PULL_MESSAGE => "PULL_MESSAGE",
            QUERY_MESSAGE => "QUERY_MESSAGE",
            QUERY_BROKER_OFFSET => "QUERY_BROKER_OFFSET",
            QUERY_CONSUMER_OFFSET => "QUERY_CONSUMER_OFFSET",
            UPDATE_CONSUMER_OFFSET => "UPDATE_CONSUMER_OFFSET",
            UPDATE_AND_CREATE_TOPIC => "UPDATE_AND_CREATE_TOPIC",
            UPDATE_AND_CREATE_TOPIC_LIST => "UPDATE_AND_CREATE_TOPIC_LIST",
            GET_ALL_TOPIC_CONFIG => "GET_ALL_TOPIC_CONFIG",
            GET_TOPIC_CONFIG_LIST => "GET_TOPIC_CONFIG_LIST",
            GET_TOPIC_NAME_LIST => "GET_TOPIC_NAME_LIST",
            UPDATE_BROKER_CONFIG => "UPDATE_BROKER_CONFIG",
            GET_BROKER_CONFIG => "GET_BROKER_CONFIG",
            TRIGGER_DELETE_FILES => "TRIGGER_DELETE_FILES",
            GET_BROKER_RUNTIME_INFO => "GET_BROKER_RUNTIME_INFO",
            SEARCH_OFFSET_BY_TIMESTAMP => "SEARCH_OFFSET_BY_TIMESTAMP",
            GET_MAX_OFFSET => "GET_MAX_OFFSET",
            GET_MIN_OFFSET => "GET_MIN_OFFSET",
            GET_EARLIEST_MSG_STORETIME => "GET_EARLIEST_MSG_STORETIME",
            VIEW_MESSAGE_BY_ID => "VIEW_MESSAGE_BY_ID",
            HEART_BEAT => "HEART_BEAT",
            UNREGISTER_CLIENT => "UNREGISTER_CLIENT",
            CONSUMER_SEND_MSG_BACK => "CONSUMER_SEND_MSG_BACK",
            END_TRANSACTION => "END_TRANSACTION",
            GET_CONSUMER_LIST_BY_GROUP => "GET_CONSUMER_LIST_BY_GROUP",
            CHECK_TRANSACTION_STATE => "CHECK_TRANSACTION_STATE",
            NOTIFY_CONSUMER_IDS_CHANGED => "NOTIFY_CONSUMER_IDS_CHANGED",
            LOCK_BATCH_MQ => "LOCK_BATCH_MQ",
            UNLOCK_BATCH_MQ => "UNLOCK_BATCH_MQ",
            GET_ALL_CONSUMER_OFFSET => "GET_ALL_CONSUMER_OFFSET",
            GET_ALL_DELAY_OFFSET => "GET_ALL_DELAY_OFFSET",
            CHECK_CLIENT_CONFIG => "CHECK_CLIENT_CONFIG",
            GET_CLIENT_CONFIG => "GET_CLIENT_CONFIG",
            UPDATE_AND_CREATE_ACL_CONFIG => "UPDATE_AND_CREATE_ACL_CONFIG",
            DELETE_ACL_CONFIG => "DELETE_ACL_CONFIG",
            GET_BROKER_CLUSTER_ACL_INFO => "GET_BROKER_CLUSTER_ACL_INFO",
            UPDATE_GLOBAL_WHITE_ADDRS_CONFIG => "UPDATE_GLOBAL_WHITE_ADDRS_CONFIG",
            GET_BROKER_CLUSTER_ACL_CONFIG => "GET_BROKER_CLUSTER_ACL_CONFIG",
            GET_TIMER_CHECK_POINT => "GET_TIMER_CHECK_POINT",
            GET_TIMER_METRICS => "GET_TIMER_METRICS",
            PUT_KV_CONFIG => "PUT_KV_CONFIG",
            GET_KV_CONFIG => "GET_KV_CONFIG",
            DELETE_KV_CONFIG => "DELETE_KV_CONFIG",
            REGISTER_BROKER => "REGISTER_BROKER",
            UNREGISTER_BROKER => "UNREGISTER_BROKER",
            GET_ROUTEINFO_BY_TOPIC => "GET_ROUTEINFO_BY_TOPIC",
            GET_BROKER_CLUSTER_INFO => "GET_BROKER_CLUSTER_INFO",
            UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP",
            GET_ALL_SUBSCRIPTIONGROUP_CONFIG => "GET_ALL_SUBSCRIPTIONGROUP_CONFIG",
            GET_TOPIC_STATS_INFO => "GET_TOPIC_STATS_INFO",
            GET_CONSUMER_CONNECTION_LIST => "GET_CONSUMER_CONNECTION_LIST",
            GET_PRODUCER_CONNECTION_LIST => "GET_PRODUCER_CONNECTION_LIST",
            WIPE_WRITE_PERM_OF_BROKER => "WIPE_WRITE_PERM_OF_BROKER",
            GET_ALL_TOPIC_LIST_FROM_NAMESERVER => "GET_ALL_TOPIC_LIST_FROM_NAMESERVER",
            DELETE_SUBSCRIPTIONGROUP => "DELETE_SUBSCRIPTIONGROUP",
            GET_CONSUME_STATS => "GET_CONSUME_STATS",
            SUSPEND_CONSUMER => "SUSPEND_CONSUMER",
            RESUME_CONSUMER => "RESUME_CONSUMER",
            RESET_CONSUMER_OFFSET_IN_CONSUMER => "RESET_CONSUMER_OFFSET_IN_CONSUMER",
            RESET_CONSUMER_OFFSET_IN_BROKER => "RESET_CONSUMER_OFFSET_IN_BROKER",
            ADJUST_CONSUMER_THREAD_POOL => "ADJUST_CONSUMER_THREAD_POOL",
            WHO_CONSUME_THE_MESSAGE => "WHO_CONSUME_THE_MESSAGE",
            DELETE_TOPIC_IN_BROKER => "DELETE_TOPIC_IN_BROKER",
            DELETE_TOPIC_IN_NAMESRV => "DELETE_TOPIC_IN_NAMESRV",
            REGISTER_TOPIC_IN_NAMESRV => "REGISTER_TOPIC_IN_NAMESRV",
            GET_KVLIST_BY_NAMESPACE => "GET_KVLIST_BY_NAMESPACE",
            RESET_CONSUMER_CLIENT_OFFSET => "RESET_CONSUMER_CLIENT_OFFSET",
            GET_CONSUMER_STATUS_FROM_CLIENT => "GET_CONSUMER_STATUS_FROM_CLIENT",
            INVOKE_BROKER_TO_RESET_OFFSET => "INVOKE_BROKER_TO_RESET_OFFSET",
            INVOKE_BROKER_TO_GET_CONSUMER_STATUS => "INVOKE_BROKER_TO_GET_CONSUMER_STATUS",
            GET_TOPICS_BY_CLUSTER => "GET_TOPICS_BY_CLUSTER",
            UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST",
            QUERY_TOPIC_CONSUME_BY_WHO => "QUERY_TOPIC_CONSUME_BY_WHO",
            REGISTER_FILTER_SERVER => "REGISTER_FILTER_SERVER",
            REGISTER_MESSAGE_FILTER_CLASS => "REGISTER_MESSAGE_FILTER_CLASS",
            QUERY_CONSUME_TIME_SPAN => "QUERY_CONSUME_TIME_SPAN",
            GET_SYSTEM_TOPIC_LIST_FROM_NS => "GET_SYSTEM_TOPIC_LIST_FROM_NS",
            GET_SYSTEM_TOPIC_LIST_FROM_BROKER => "GET_SYSTEM_TOPIC_LIST_FROM_BROKER",
            CLEAN_EXPIRED_CONSUMEQUEUE => "CLEAN_EXPIRED_CONSUMEQUEUE",
            GET_CONSUMER_RUNNING_INFO => "GET_CONSUMER_RUNNING_INFO",
            QUERY_CORRECTION_OFFSET => "QUERY_CORRECTION_OFFSET",
            CONSUME_MESSAGE_DIRECTLY => "CONSUME_MESSAGE_DIRECTLY",
            SEND_MESSAGE_V2 => "SEND_MESSAGE_V2",
            GET_UNIT_TOPIC_LIST => "GET_UNIT_TOPIC_LIST",
            GET_HAS_UNIT_SUB_TOPIC_LIST => "GET_HAS_UNIT_SUB_TOPIC_LIST",
            GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => "GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST",
            CLONE_GROUP_OFFSET => "CLONE_GROUP_OFFSET",
            VIEW_BROKER_STATS_DATA => "VIEW_BROKER_STATS_DATA",
            CLEAN_UNUSED_TOPIC => "CLEAN_UNUSED_TOPIC",
            GET_BROKER_CONSUME_STATS => "GET_BROKER_CONSUME_STATS",
            UPDATE_NAMESRV_CONFIG => "UPDATE_NAMESRV_CONFIG",
            GET_NAMESRV_CONFIG => "GET_NAMESRV_CONFIG",
            SEND_BATCH_MESSAGE => "SEND_BATCH_MESSAGE",
            QUERY_CONSUME_QUEUE => "QUERY_CONSUME_QUEUE",
            QUERY_DATA_VERSION => "QUERY_DATA_VERSION",
            RESUME_CHECK_HALF_MESSAGE => "RESUME_CHECK_HALF_MESSAGE",
            SEND_REPLY_MESSAGE => "SEND_REPLY_MESSAGE",
            SEND_REPLY_MESSAGE_V2 => "SEND_REPLY_MESSAGE_V2",
            PUSH_REPLY_MESSAGE_TO_CLIENT => "PUSH_REPLY_MESSAGE_TO_CLIENT",
            ADD_WRITE_PERM_OF_BROKER => "ADD_WRITE_PERM_OF_BROKER",
            GET_ALL_PRODUCER_INFO => "GET_ALL_PRODUCER_INFO",
            DELETE_EXPIRED_COMMITLOG => "DELETE_EXPIRED_COMMITLOG",
            QUERY_TOPICS_BY_CONSUMER => "QUERY_TOPICS_BY_CONSUMER",
            QUERY_SUBSCRIPTION_BY_CONSUMER => "QUERY_SUBSCRIPTION_BY_CONSUMER",
            GET_TOPIC_CONFIG => "GET_TOPIC_CONFIG",
            GET_SUBSCRIPTIONGROUP_CONFIG => "GET_SUBSCRIPTIONGROUP_CONFIG",
            UPDATE_AND_GET_GROUP_FORBIDDEN => "UPDATE_AND_GET_GROUP_FORBIDDEN",
            CHECK_ROCKSDB_CQ_WRITE_PROGRESS => "CHECK_ROCKSDB_CQ_WRITE_PROGRESS",
            EXPORT_ROCKSDB_CONFIG_TO_JSON => "EXPORT_ROCKSDB_CONFIG_TO_JSON",
            LITE_PULL_MESSAGE => "LITE_PULL_MESSAGE",
            RECALL_MESSAGE => "RECALL_MESSAGE",
            QUERY_ASSIGNMENT => "QUERY_ASSIGNMENT",
            SET_MESSAGE_REQUEST_MODE => "SET_MESSAGE_REQUEST_MODE",
            GET_ALL_MESSAGE_REQUEST_MODE => "GET_ALL_MESSAGE_REQUEST_MODE",
            UPDATE_AND_CREATE_STATIC_TOPIC => "UPDATE_AND_CREATE_STATIC_TOPIC",
            GET_BROKER_MEMBER_GROUP => "GET_BROKER_MEMBER_GROUP",
            ADD_BROKER => "ADD_BROKER",
            REMOVE_BROKER => "REMOVE_BROKER",
            BROKER_HEARTBEAT => "BROKER_HEARTBEAT",
            NOTIFY_MIN_BROKER_ID_CHANGE => "NOTIFY_MIN_BROKER_ID_CHANGE",
            EXCHANGE_BROKER_HA_INFO => "EXCHANGE_BROKER_HA_INFO",
            GET_BROKER_HA_STATUS => "GET_BROKER_HA_STATUS",
            RESET_MASTER_FLUSH_OFFSET => "RESET_MASTER_FLUSH_OFFSET",
            CONTROLLER_ALTER_SYNC_STATE_SET => "CONTROLLER_ALTER_SYNC_STATE_SET",
            CONTROLLER_ELECT_MASTER => "CONTROLLER_ELECT_MASTER",
            CONTROLLER_REGISTER_BROKER => "CONTROLLER_REGISTER_BROKER",
            CONTROLLER_GET_REPLICA_INFO => "CONTROLLER_GET_REPLICA_INFO",
            CONTROLLER_GET_METADATA_INFO => "CONTROLLER_GET_METADATA_INFO",
            CONTROLLER_GET_SYNC_STATE_DATA => "CONTROLLER_GET_SYNC_STATE_DATA",
            GET_BROKER_EPOCH_CACHE => "GET_BROKER_EPOCH_CACHE",
            NOTIFY_BROKER_ROLE_CHANGED => "NOTIFY_BROKER_ROLE_CHANGED",
            UPDATE_CONTROLLER_CONFIG => "UPDATE_CONTROLLER_CONFIG",
            GET_CONTROLLER_CONFIG => "GET_CONTROLLER_CONFIG",
            CLEAN_BROKER_DATA => "CLEAN_BROKER_DATA",
            CONTROLLER_GET_NEXT_BROKER_ID => "CONTROLLER_GET_NEXT_BROKER_ID",
            CONTROLLER_APPLY_BROKER_ID => "CONTROLLER_APPLY_BROKER_ID",
            BROKER_CLOSE_CHANNEL_REQUEST => "BROKER_CLOSE_CHANNEL_REQUEST",
            CHECK_NOT_ACTIVE_BROKER_REQUEST => "CHECK_NOT_ACTIVE_BROKER_REQUEST",
            GET_BROKER_LIVE_INFO_REQUEST => "GET_BROKER_LIVE_INFO_REQUEST",
            GET_SYNC_STATE_DATA_REQUEST => "GET_SYNC_STATE_DATA_REQUEST",
            RAFT_BROKER_HEART_BEAT_EVENT_REQUEST => "RAFT_BROKER_HEART_BEAT_EVENT_REQUEST",
            UPDATE_COLD_DATA_FLOW_CTR_CONFIG => "UPDATE_COLD_DATA_FLOW_CTR_CONFIG",
            REMOVE_COLD_DATA_FLOW_CTR_CONFIG => "REMOVE_COLD_DATA_FLOW_CTR_CONFIG",
            GET_COLD_DATA_FLOW_CTR_INFO => "GET_COLD_DATA_FLOW_CTR_INFO",
            SET_COMMITLOG_READ_MODE => "SET_COMMITLOG_READ_MODE",
            AUTH_CREATE_USER => "AUTH_CREATE_USER",
            AUTH_UPDATE_USER => "AUTH_UPDATE_USER",
            AUTH_DELETE_USER => "AUTH_DELETE_USER",
            AUTH_GET_USER => "AUTH_GET_USER",
            AUTH_LIST_USER => "AUTH_LIST_USER",
            AUTH_CREATE_ACL => "AUTH_CREATE_ACL",
            AUTH_UPDATE_ACL => "AUTH_UPDATE_ACL",
            AUTH_DELETE_ACL => "AUTH_DELETE_ACL",
            AUTH_GET_ACL => "AUTH_GET_ACL",
            AUTH_LIST_ACL => "AUTH_LIST_ACL",
            POP_MESSAGE => "POP_MESSAGE",
            ACK_MESSAGE => "ACK_MESSAGE",
            PEEK_MESSAGE => "PEEK_MESSAGE",
            CHANGE_MESSAGE_INVISIBLETIME => "CHANGE_MESSAGE_INVISIBLETIME",
            NOTIFICATION => "NOTIFICATION",
            POLLING_INFO => "POLLING_INFO",
            POP_ROLLBACK => "POP_ROLLBACK",
            BATCH_ACK_MESSAGE => "BATCH_ACK_MESSAGE",
            RAFT_MEMBER_STATUS => "RAFT_MEMBER_STATUS",
            RAFT_TRANSFER_LEADER => "RAFT_TRANSFER_LEADER",
            RAFT_CHANGE_MEMBERS => "RAFT_CHANGE_MEMBERS",
            _ => return None,
        })
    }
}

/// How a request ended (RocketMQ: `ResponseCode`).
pub mod response {
    /// Done.
    pub const SUCCESS: i32 = 0;
    /// Failed; the remark says why. Producers retry it elsewhere.
    pub const SYSTEM_ERROR: i32 = 1;
    /// Refused for now; producers retry it elsewhere.
    pub const SYSTEM_BUSY: i32 = 2;
    /// Nobody handles this request code.
    pub const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
    /// Transaction failed.
    pub const TRANSACTION_FAILED: i32 = 4;
    /// Flush disk timeout.
    pub const FLUSH_DISK_TIMEOUT: i32 = 10;
    /// Slave not available.
    pub const SLAVE_NOT_AVAILABLE: i32 = 11;
    /// Flush slave timeout.
    pub const FLUSH_SLAVE_TIMEOUT: i32 = 12;
    /// The message breaks a limit; never retried.
    pub const MESSAGE_ILLEGAL: i32 = 13;
    /// This broker cannot store now; producers retry it elsewhere.
    pub const SERVICE_NOT_AVAILABLE: i32 = 14;
    /// Version not supported.
    pub const VERSION_NOT_SUPPORTED: i32 = 15;
    /// Not readable, not writable or not allowed.
    pub const NO_PERMISSION: i32 = 16;
    /// Unknown topic; clients refresh their route.
    pub const TOPIC_NOT_EXIST: i32 = 17;
    /// Topic exist already.
    pub const TOPIC_EXIST_ALREADY: i32 = 18;
    /// No message at this offset yet.
    pub const PULL_NOT_FOUND: i32 = 19;
    /// Nothing matched up to `nextBeginOffset`; pull again from there.
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    /// The offset is outside of the queue; `nextBeginOffset` corrects it.
    pub const PULL_OFFSET_MOVED: i32 = 21;
    /// Nothing is stored under what was asked for.
    pub const QUERY_NOT_FOUND: i32 = 22;
    /// Subscription parse failed.
    pub const SUBSCRIPTION_PARSE_FAILED: i32 = 23;
    /// Subscription not exist.
    pub const SUBSCRIPTION_NOT_EXIST: i32 = 24;
    /// Subscription not latest.
    pub const SUBSCRIPTION_NOT_LATEST: i32 = 25;
    /// Subscription group not exist.
    pub const SUBSCRIPTION_GROUP_NOT_EXIST: i32 = 26;
    /// Filter data not exist.
    pub const FILTER_DATA_NOT_EXIST: i32 = 27;
    /// Filter data not latest.
    pub const FILTER_DATA_NOT_LATEST: i32 = 28;
    /// Invalid parameter.
    pub const INVALID_PARAMETER: i32 = 29;
    /// Transaction should commit.
    pub const TRANSACTION_SHOULD_COMMIT: i32 = 200;
    /// Transaction should rollback.
    pub const TRANSACTION_SHOULD_ROLLBACK: i32 = 201;
    /// Transaction state unknow.
    pub const TRANSACTION_STATE_UNKNOW: i32 = 202;
    /// Transaction state group wrong.
    pub const TRANSACTION_STATE_GROUP_WRONG: i32 = 203;
    /// No buyer id.
    pub const NO_BUYER_ID: i32 = 204;
    /// Not in current unit.
    pub const NOT_IN_CURRENT_UNIT: i32 = 205;
    /// Consumer not online.
    pub const CONSUMER_NOT_ONLINE: i32 = 206;
    /// Consume msg timeout.
    pub const CONSUME_MSG_TIMEOUT: i32 = 207;
    /// No message.
    pub const NO_MESSAGE: i32 = 208;
    /// Polling full.
    pub const POLLING_FULL: i32 = 209;
    /// Polling timeout.
    pub const POLLING_TIMEOUT: i32 = 210;
    /// Broker not exist.
    pub const BROKER_NOT_EXIST: i32 = 211;
    /// Broker dispatch not complete.
    pub const BROKER_DISPATCH_NOT_COMPLETE: i32 = 212;
    /// Broadcast consumption.
    pub const BROADCAST_CONSUMPTION: i32 = 213;
    /// Flow control.
    pub const FLOW_CONTROL: i32 = 215;
    /// Not leader for queue.
    pub const NOT_LEADER_FOR_QUEUE: i32 = 501;
    /// Illegal operation.
    pub const ILLEGAL_OPERATION: i32 = 604;
    /// Go away.
    pub const GO_AWAY: i32 = 1500;
    /// User not exist.
    pub const USER_NOT_EXIST: i32 = 3001;
    /// Policy not exist.
    pub const POLICY_NOT_EXIST: i32 = 3002;

    /// The name of a response code, for logs and metrics; `None` for a code nobody defined.
    pub fn name(code: i32) -> Option<&'static str> {
        Some(match code {
            SUCCESS => "SUCCESS",
            SYSTEM_ERROR => "SYSTEM_ERROR",
            SYSTEM_BUSY => "SYSTEM_BUSY",
            REQUEST_CODE_NOT_SUPPORTED => "REQUEST_CODE_NOT_SUPPORTED",
            TRANSACTION_FAILED => "TRANSACTION_FAILED",
            FLUSH_DISK_TIMEOUT => "FLUSH_DISK_TIMEOUT",
            SLAVE_NOT_AVAILABLE => "SLAVE_NOT_AVAILABLE",
            FLUSH_SLAVE_TIMEOUT => "FLUSH_SLAVE_TIMEOUT",
            MESSAGE_ILLEGAL => "MESSAGE_ILLEGAL",
            SERVICE_NOT_AVAILABLE => "SERVICE_NOT_AVAILABLE",
            VERSION_NOT_SUPPORTED => "VERSION_NOT_SUPPORTED",
            NO_PERMISSION => "NO_PERMISSION",
            TOPIC_NOT_EXIST => "TOPIC_NOT_EXIST",
            TOPIC_EXIST_ALREADY => "TOPIC_EXIST_ALREADY",
            PULL_NOT_FOUND => "PULL_NOT_FOUND",
            PULL_RETRY_IMMEDIATELY => "PULL_RETRY_IMMEDIATELY",
            PULL_OFFSET_MOVED => "PULL_OFFSET_MOVED",
            QUERY_NOT_FOUND => "QUERY_NOT_FOUND",
            SUBSCRIPTION_PARSE_FAILED => "SUBSCRIPTION_PARSE_FAILED",
            SUBSCRIPTION_NOT_EXIST => "SUBSCRIPTION_NOT_EXIST",
            SUBSCRIPTION_NOT_LATEST => "SUBSCRIPTION_NOT_LATEST",
            SUBSCRIPTION_GROUP_NOT_EXIST => "SUBSCRIPTION_GROUP_NOT_EXIST",
            FILTER_DATA_NOT_EXIST => "FILTER_DATA_NOT_EXIST",
            FILTER_DATA_NOT_LATEST => "FILTER_DATA_NOT_LATEST",
            INVALID_PARAMETER => "INVALID_PARAMETER",
            TRANSACTION_SHOULD_COMMIT => "TRANSACTION_SHOULD_COMMIT",
            TRANSACTION_SHOULD_ROLLBACK => "TRANSACTION_SHOULD_ROLLBACK",
            TRANSACTION_STATE_UNKNOW => "TRANSACTION_STATE_UNKNOW",
            TRANSACTION_STATE_GROUP_WRONG => "TRANSACTION_STATE_GROUP_WRONG",
            NO_BUYER_ID => "NO_BUYER_ID",
            NOT_IN_CURRENT_UNIT => "NOT_IN_CURRENT_UNIT",
            CONSUMER_NOT_ONLINE => "CONSUMER_NOT_ONLINE",
            CONSUME_MSG_TIMEOUT => "CONSUME_MSG_TIMEOUT",
            NO_MESSAGE => "NO_MESSAGE",
            POLLING_FULL => "POLLING_FULL",
            POLLING_TIMEOUT => "POLLING_TIMEOUT",
            BROKER_NOT_EXIST => "BROKER_NOT_EXIST",
            BROKER_DISPATCH_NOT_COMPLETE => "BROKER_DISPATCH_NOT_COMPLETE",
            BROADCAST_CONSUMPTION => "BROADCAST_CONSUMPTION",
            FLOW_CONTROL => "FLOW_CONTROL",
            NOT_LEADER_FOR_QUEUE => "NOT_LEADER_FOR_QUEUE",
            ILLEGAL_OPERATION => "ILLEGAL_OPERATION",
            GO_AWAY => "GO_AWAY",
            USER_NOT_EXIST => "USER_NOT_EXIST",
            POLICY_NOT_EXIST => "POLICY_NOT_EXIST",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_follow_codes() {
        assert_eq!(super::request::name(200_050), Some("POP_MESSAGE"));
        assert_eq!(super::request::name(-1), None);
        assert_eq!(super::response::name(0), Some("SUCCESS"));
        assert_eq!(super::response::name(9), None);
    }
}

//! Broker administration, statistics, users and access control.

use super::headers;

headers! {
    /// Reply to GET_BROKER_CONFIG (26); `version` is a data version as JSON.
    GetBrokerConfigResponseHeader {
        version: String = "version",
    }

    /// Hands leadership over (41002), to the furthest member unless one is named.
    RaftTransferLeaderRequestHeader {
        member_id: Option<i64> = "memberId",
    }

    /// Changes who belongs to a broker group (41003). `change` is add, promote, remove, replace or move; add and move name
    /// an address, replace the learner that comes in the member's place.
    RaftChangeMembersRequestHeader {
        change: String = "change",
        member_id: i64 = "memberId",
        address: Option<String> = "address",
        replacement: Option<i64> = "replacement",
    }

    /// Asks for a statistic (315), e.g. `TOPIC_PUT_NUMS` of a topic.
    ViewBrokerStatsDataRequestHeader {
        stats_name: String = "statsName",
        stats_key: String = "statsKey",
    }

    /// Sets the flush offset a slave replicates from (908).
    ResetMasterFlushOffsetHeader {
        master_flush_offset: i64 = "masterFlushOffset",
    }

    /// Creates a user (3001).
    CreateUserRequestHeader {
        username: Option<String> = "username",
    }

    /// Changes a user (3002).
    UpdateUserRequestHeader {
        username: Option<String> = "username",
    }

    /// Deletes a user (3003).
    DeleteUserRequestHeader {
        username: Option<String> = "username",
    }

    /// Asks for a user (3004).
    GetUserRequestHeader {
        username: Option<String> = "username",
    }

    /// Asks for users (3005).
    ListUsersRequestHeader {
        filter: Option<String> = "filter",
    }

    /// Creates an access rule (3006).
    CreateAclRequestHeader {
        subject: Option<String> = "subject",
    }

    /// Changes an access rule (3007).
    UpdateAclRequestHeader {
        subject: Option<String> = "subject",
    }

    /// Deletes an access rule (3008).
    DeleteAclRequestHeader {
        subject: Option<String> = "subject",
        policy_type: Option<String> = "policyType",
        resource: Option<String> = "resource",
    }

    /// Asks for the access rules of a subject (3009).
    GetAclRequestHeader {
        subject: Option<String> = "subject",
    }

    /// Asks for access rules (3010).
    ListAclsRequestHeader {
        subject_filter: Option<String> = "subjectFilter",
        resource_filter: Option<String> = "resourceFilter",
    }
}

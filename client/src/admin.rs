//! What administrators ask of nameservers and brokers (RocketMQ: `DefaultMQAdminExt`).

use std::collections::BTreeMap;
use std::time::Duration;

use raftmq_proto::body::{
    ClusterInfo, ConsumeStats, ConsumerConnection, ConsumerRunningInfo, GroupList, GroupMembers,
    KvTable, LeaderTransferred, SubscriptionGroupConfig, TopicConfig, TopicList, TopicRouteData,
    TopicStatsTable, to_json,
};
use raftmq_proto::code::{request, response};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    CreateTopicRequestHeader, DeleteTopicFromNamesrvRequestHeader, DeleteTopicRequestHeader,
    GetConsumeStatsRequestHeader, GetConsumerConnectionListRequestHeader,
    GetConsumerRunningInfoRequestHeader, GetKVConfigRequestHeader, GetKVConfigResponseHeader,
    GetTopicStatsInfoRequestHeader, Header, PutKVConfigRequestHeader,
    QueryTopicConsumeByWhoRequestHeader, RaftChangeMembersRequestHeader,
    RaftTransferLeaderRequestHeader,
};
use raftmq_proto::message::name;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::instance::{Instance, InstanceOptions};
use crate::nameservers::{check, expect_success, read_body};

/// Time for one call, as in RocketMQ.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Namespace of the queues that ordered topics have.
const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Admin calls. Cheap to clone. It registers nothing at the brokers.
#[derive(Clone, Debug)]
pub struct Admin {
    instance: Instance,
}

impl Admin {
    /// Starts with a client instance of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad nameserver list.
    pub fn start(name_servers: &str) -> Result<Admin> {
        Ok(Admin {
            instance: Instance::start(&InstanceOptions::new(name_servers))?,
        })
    }

    /// Uses a client instance that others use too.
    #[must_use]
    pub fn within(instance: Instance) -> Admin {
        Admin { instance }
    }

    /// The client instance it runs in.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Ends the client instance.
    pub async fn shutdown(&self) {
        self.instance.shutdown().await;
    }

    async fn ask_name_server<T: DeserializeOwned>(&self, request: RemotingCommand) -> Result<T> {
        read_body(
            "name server",
            self.instance.name_servers().ask(request, TIMEOUT).await?,
        )
    }

    async fn ask<T: DeserializeOwned>(&self, address: &str, request: RemotingCommand) -> Result<T> {
        self.ask_within(address, request, TIMEOUT).await
    }

    async fn ask_within<T: DeserializeOwned>(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<T> {
        let reply = self
            .instance
            .inner
            .call_address(address, request, timeout)
            .await?;
        read_body(address, reply)
    }

    async fn tell(&self, address: &str, request: RemotingCommand) -> Result<()> {
        let reply = self
            .instance
            .inner
            .call_address(address, request, TIMEOUT)
            .await?;
        expect_success(address, reply)
    }

    /// The clusters, their broker groups and members.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cluster_info(&self) -> Result<ClusterInfo> {
        self.instance.name_servers().cluster_info(TIMEOUT).await
    }

    /// All topics the nameservers know.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn topic_list(&self) -> Result<TopicList> {
        let request = RemotingCommand::request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER);
        self.ask_name_server(request).await
    }

    /// The route of a topic.
    ///
    /// # Errors
    /// [`Error::Refused`] with code 17 when no nameserver knows the topic.
    pub async fn topic_route(&self, topic: &str) -> Result<TopicRouteData> {
        let servers = self.instance.name_servers();
        match servers.route(topic, TIMEOUT).await? {
            Some(route) => Ok(route),
            None => Err(Error::Refused {
                address: servers.addresses().join(";"),
                code: response::TOPIC_NOT_EXIST,
                remark: format!("No topic route info in name server for the topic: {topic}"),
            }),
        }
    }

    /// Offsets of the topic's queues at the broker with this address.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn topic_stats_at(&self, address: &str, topic: &str) -> Result<TopicStatsTable> {
        let header = GetTopicStatsInfoRequestHeader {
            topic: topic.to_owned(),
        };
        let request = RemotingCommand::request(request::GET_TOPIC_STATS_INFO).with_header(&header);
        self.ask(address, request).await
    }

    /// Offsets of the topic's queues in all broker groups that `routed_by` lives in: the topic itself
    /// or, for topics without a route of their own, another one.
    ///
    /// # Errors
    /// See [`Error`]; also when no group has a queue of the topic.
    pub async fn topic_stats(&self, topic: &str, routed_by: &str) -> Result<TopicStatsTable> {
        let route = self.topic_route(routed_by).await?;
        let mut all = TopicStatsTable::default();
        for address in serving_addresses(&route) {
            let stats = self.topic_stats_at(&address, topic).await?;
            all.topic_put_tps += stats.topic_put_tps;
            all.offset_table.extend(stats.offset_table);
        }
        Ok(all)
    }

    /// Creates or changes a topic at the broker with this address.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_topic(&self, address: &str, config: &TopicConfig) -> Result<()> {
        let attributes = config.attributes.iter().map(|(name, value)| {
            if value.is_empty() {
                name.clone()
            } else {
                format!("{name}={value}")
            }
        });
        let header = CreateTopicRequestHeader {
            topic: config.topic_name.clone(),
            default_topic: name::AUTO_CREATE_TOPIC.to_owned(),
            read_queue_nums: config.read_queue_nums,
            write_queue_nums: config.write_queue_nums,
            perm: config.perm,
            topic_filter_type: config.topic_filter_type.name().to_owned(),
            topic_sys_flag: Some(config.topic_sys_flag),
            order: config.order,
            attributes: Some(attributes.collect::<Vec<_>>().join(",")),
            ..CreateTopicRequestHeader::default()
        };
        let request =
            RemotingCommand::request(request::UPDATE_AND_CREATE_TOPIC).with_header(&header);
        self.tell(address, request).await
    }

    /// Deletes a topic at the broker with this address.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_topic_at(&self, address: &str, topic: &str) -> Result<()> {
        let header = DeleteTopicRequestHeader {
            topic: topic.to_owned(),
        };
        let request =
            RemotingCommand::request(request::DELETE_TOPIC_IN_BROKER).with_header(&header);
        self.tell(address, request).await
    }

    /// Makes every nameserver forget the topic's route in a cluster.
    ///
    /// # Errors
    /// The first failure, after all were asked.
    pub async fn delete_topic_in_name_servers(&self, cluster: &str, topic: &str) -> Result<()> {
        let header = DeleteTopicFromNamesrvRequestHeader {
            topic: topic.to_owned(),
            cluster_name: Some(cluster.to_owned()),
        };
        let request =
            RemotingCommand::request(request::DELETE_TOPIC_IN_NAMESRV).with_header(&header);
        self.instance
            .name_servers()
            .tell_all(request, TIMEOUT)
            .await
    }

    /// Sets the queues of an ordered topic, `broker:queues;…`. With `of_cluster` it replaces what was
    /// there, else it adds or replaces one broker's part.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_order_conf(&self, topic: &str, conf: &str, of_cluster: bool) -> Result<()> {
        let mut value = conf.to_owned();
        if !of_cluster && let Some(old) = self.order_conf(topic).await? {
            value = merge_order_conf(&old, conf);
        }
        let header = PutKVConfigRequestHeader {
            namespace: ORDER_TOPIC_CONFIG.to_owned(),
            key: topic.to_owned(),
            value,
        };
        let request = RemotingCommand::request(request::PUT_KV_CONFIG).with_header(&header);
        self.instance
            .name_servers()
            .tell_all(request, TIMEOUT)
            .await
    }

    /// The queues of an ordered topic, `None` when nothing is set.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn order_conf(&self, topic: &str) -> Result<Option<String>> {
        let header = GetKVConfigRequestHeader {
            namespace: ORDER_TOPIC_CONFIG.to_owned(),
            key: topic.to_owned(),
        };
        let request = RemotingCommand::request(request::GET_KV_CONFIG).with_header(&header);
        let reply = self.instance.name_servers().ask(request, TIMEOUT).await?;
        if reply.code == response::QUERY_NOT_FOUND {
            return Ok(None);
        }
        let reply = check("name server", reply)?;
        let header = GetKVConfigResponseHeader::decode(&reply.ext_fields).map_err(|error| {
            Error::Unreadable {
                address: "name server".to_owned(),
                reason: error.to_string(),
            }
        })?;
        Ok(header.value)
    }

    /// The groups that consume a topic.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn topic_consumers(&self, topic: &str) -> Result<GroupList> {
        let route = self.topic_route(topic).await?;
        let Some(address) = serving_addresses(&route).into_iter().next() else {
            return Ok(GroupList::default());
        };
        let header = QueryTopicConsumeByWhoRequestHeader {
            topic: topic.to_owned(),
        };
        let request =
            RemotingCommand::request(request::QUERY_TOPIC_CONSUME_BY_WHO).with_header(&header);
        self.ask(&address, request).await
    }

    /// Runtime numbers of the broker with this address.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn broker_runtime(&self, address: &str) -> Result<KvTable> {
        self.ask(
            address,
            RemotingCommand::request(request::GET_BROKER_RUNTIME_INFO),
        )
        .await
    }

    /// Creates or changes a consumer group at the broker with this address.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_group(
        &self,
        address: &str,
        config: &SubscriptionGroupConfig,
    ) -> Result<()> {
        let request = RemotingCommand::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP)
            .with_body(to_json(config));
        self.tell(address, request).await
    }

    /// How far a group is in each queue, of one topic or of all it consumes.
    ///
    /// # Errors
    /// [`Error::Refused`] with code 206 when the group has no offsets and no member; see [`Error`].
    pub async fn consume_stats(
        &self,
        cluster: Option<&str>,
        group: &str,
        topic: Option<&str>,
    ) -> Result<ConsumeStats> {
        let route = self.group_route(cluster, group, topic).await?;
        let mut all = ConsumeStats::default();
        for address in serving_addresses(&route) {
            let header = GetConsumeStatsRequestHeader {
                consumer_group: group.to_owned(),
                topic: topic.map(ToOwned::to_owned),
                ..GetConsumeStatsRequestHeader::default()
            };
            let request = RemotingCommand::request(request::GET_CONSUME_STATS).with_header(&header);
            let stats: ConsumeStats = self.ask_within(&address, request, TIMEOUT * 3).await?;
            all.consume_tps += stats.consume_tps;
            all.offset_table.extend(stats.offset_table);
        }
        if all.offset_table.is_empty() && self.consumer_connection(group).await.is_err() {
            return Err(Error::Refused {
                address: String::new(),
                code: response::CONSUMER_NOT_ONLINE,
                remark: "Not found the consumer group consume stats, because return offset table \
                         is empty, maybe the consumer not online"
                    .to_owned(),
            });
        }
        Ok(all)
    }

    /// A group lives where its retry topic lives; where that is missing, where its topic does.
    async fn group_route(
        &self,
        cluster: Option<&str>,
        group: &str,
        topic: Option<&str>,
    ) -> Result<TopicRouteData> {
        let mut route = self.topic_route(&name::retry_topic(group)).await;
        for other in topic.into_iter().chain(cluster) {
            if route.is_ok() {
                break;
            }
            route = self.topic_route(other).await;
        }
        route
    }

    /// The members of a consumer group.
    ///
    /// # Errors
    /// [`Error::Refused`] with code 206 when none is online; see [`Error`].
    pub async fn consumer_connection(&self, group: &str) -> Result<ConsumerConnection> {
        let route = self.topic_route(&name::retry_topic(group)).await?;
        for address in serving_addresses(&route) {
            let header = GetConsumerConnectionListRequestHeader {
                consumer_group: group.to_owned(),
            };
            let request = RemotingCommand::request(request::GET_CONSUMER_CONNECTION_LIST)
                .with_header(&header);
            let connection: ConsumerConnection = self.ask(&address, request).await?;
            if !connection.connection_set.is_empty() {
                return Ok(connection);
            }
        }
        Err(Error::Refused {
            address: String::new(),
            code: response::CONSUMER_NOT_ONLINE,
            remark: "Not found the consumer group connection".to_owned(),
        })
    }

    /// Who belongs to a broker group, and how far each member is. Any member takes the request; without a leader it tells
    /// what it finds out itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn member_status(&self, address: &str) -> Result<GroupMembers> {
        let request = RemotingCommand::request(request::RAFT_MEMBER_STATUS);
        self.ask(address, request).await
    }

    /// Changes who belongs to a broker group. Any member takes the request.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason; see [`Error`].
    pub async fn change_members(
        &self,
        address: &str,
        change: &RaftChangeMembersRequestHeader,
    ) -> Result<GroupMembers> {
        let request = RemotingCommand::request(request::RAFT_CHANGE_MEMBERS).with_header(change);
        self.ask_within(address, request, TIMEOUT * 3).await
    }

    /// Has a broker group led by another member, the furthest one unless `to` names it. Any member takes the request.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason when nobody took over; see [`Error`].
    pub async fn transfer_leader(
        &self,
        address: &str,
        to: Option<u64>,
    ) -> Result<LeaderTransferred> {
        let header = RaftTransferLeaderRequestHeader {
            member_id: to.map(|id| i64::try_from(id).unwrap_or(i64::MAX)),
        };
        let request = RemotingCommand::request(request::RAFT_TRANSFER_LEADER).with_header(&header);
        self.ask(address, request).await
    }

    /// What a member of a consumer group says of itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn consumer_running_info(
        &self,
        group: &str,
        client_id: &str,
    ) -> Result<ConsumerRunningInfo> {
        let route = self.topic_route(&name::retry_topic(group)).await?;
        let Some(address) = serving_addresses(&route).into_iter().next() else {
            return Err(Error::NoRoute {
                topic: name::retry_topic(group),
            });
        };
        let header = GetConsumerRunningInfoRequestHeader {
            consumer_group: group.to_owned(),
            client_id: client_id.to_owned(),
            jstack_enable: Some(false),
        };
        let request =
            RemotingCommand::request(request::GET_CONSUMER_RUNNING_INFO).with_header(&header);
        self.ask_within(&address, request, TIMEOUT * 3).await
    }
}

/// Of each group the leader, or any member while there is none.
fn serving_addresses(route: &TopicRouteData) -> Vec<String> {
    route
        .broker_datas
        .iter()
        .filter_map(|broker| {
            let addresses = &broker.broker_addrs;
            addresses
                .get(&0)
                .or_else(|| addresses.values().next())
                .cloned()
        })
        .collect()
}

/// Adds or replaces one broker's part of `broker:queues;broker:queues`.
fn merge_order_conf(old: &str, part: &str) -> String {
    let broker_of = |part: &str| part.split(':').next().unwrap_or_default().to_owned();
    let mut parts: BTreeMap<String, &str> = old
        .split(';')
        .filter(|part| !part.trim().is_empty())
        .map(|part| (broker_of(part), part))
        .collect();
    parts.insert(broker_of(part), part);
    parts.into_values().collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::merge_order_conf;

    #[test]
    fn one_broker_s_part_is_replaced() {
        assert_eq!(merge_order_conf("a:1;b:2", "b:4"), "a:1;b:4");
        assert_eq!(merge_order_conf("b:2", "a:4"), "a:4;b:2");
        assert_eq!(merge_order_conf("", "a:4"), "a:4");
    }
}

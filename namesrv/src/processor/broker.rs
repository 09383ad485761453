//! What brokers tell (103, 104, 217, 322, 904), and what tools ask about and do to them (106, 205, 216, 327, 901).

use raftmq_proto::body::{
    DataVersion, GetBrokerMemberGroupResponseBody, RegisterBrokerBody, TopicConfigSerializeWrapper,
    TopicRouteData,
};
use raftmq_proto::frame::{ExtFields, RemotingCommand};
use raftmq_proto::header::{
    AddWritePermOfBrokerRequestHeader, AddWritePermOfBrokerResponseHeader,
    BrokerHeartbeatRequestHeader, DeleteTopicFromNamesrvRequestHeader,
    GetBrokerMemberGroupRequestHeader, Header, HeaderError, QueryDataVersionRequestHeader,
    QueryDataVersionResponseHeader, RegisterBrokerRequestHeader, RegisterBrokerResponseHeader,
    RegisterTopicRequestHeader, UnRegisterBrokerRequestHeader, WipeWritePermOfBrokerRequestHeader,
    WipeWritePermOfBrokerResponseHeader,
};
use raftmq_proto::message::record::body_crc;
use raftmq_remoting::Connection;
use tracing::{info, warn};

use super::{Answer, Failure, Processor};
use crate::kv_config::ORDER_TOPIC_CONFIG;
use crate::route_table::{BrokerKey, Registered, Registration, Unregistered, Unregistration};

/// Field of 103 with the broker's zone.
const ZONE_NAME: &str = "__ZONE_NAME";

/// Field of 103 and 104, sent by RaftMQ's brokers only: number of the registration.
const REGISTRATION_VERSION: &str = "registrationVersion";

/// Field of 104, sent by RaftMQ's brokers only: the term of the registration.
const STATE_VERSION: &str = "stateVersion";

/// Brokers before this version (3.0.11) register with their topics alone.
const VERSION_WITH_FILTERS: i32 = 37;

impl Processor {
    pub(super) fn register_broker(
        &self,
        request: &RemotingCommand,
        connection: &Connection,
    ) -> Answer {
        let header = RegisterBrokerRequestHeader::decode(&request.ext_fields)?;
        let body = request.body.to_bytes();
        if header.body_crc32 != 0 && i64::from(header.body_crc32) != i64::from(body_crc(&body)) {
            return Err(Failure::system_error("crc32 not match"));
        }
        let registration = Registration {
            topics: topics_of(&body, header.compressed.unwrap_or(false), request.version)?,
            zone: request.ext_fields.get(ZONE_NAME).map(str::to_owned),
            version: optional_i64(&request.ext_fields, REGISTRATION_VERSION)?,
            heartbeat_timeout_ms: header
                .heartbeat_timeout_millis
                .and_then(|ms| u64::try_from(ms).ok()),
            cluster: header.cluster_name,
            broker_name: header.broker_name,
            address: header.broker_addr,
            broker_id: header.broker_id,
            ha_server_addr: header.ha_server_addr,
            enable_acting_master: header.enable_acting_master,
        };
        let key = BrokerKey {
            cluster: registration.cluster.clone(),
            address: registration.address.clone(),
        };
        let (name, id) = (registration.broker_name.clone(), registration.broker_id);
        let term = registration.topics.data_version.state_version;
        let forget_missing = self
            .admin
            .setting(|settings| settings.forget_missing_topics);

        let mut table = self.table.write();
        let known = table.data_version(&key).is_some();
        let outcome = table.register(registration, forget_missing, connection.id(), self.now_ms());
        drop(table);

        let peer = connection.peer();
        let header = match outcome {
            Registered::Accepted {
                ha_server_addr,
                master_addr,
            } => {
                if !known {
                    info!(name, id, address = key.address, cluster = key.cluster, term, %peer, "new broker registered");
                }
                RegisterBrokerResponseHeader {
                    ha_server_addr,
                    master_addr,
                }
            }
            Registered::Ignored(stale) => {
                warn!(name, id, address = key.address, %peer, "registration ignored: {stale}");
                RegisterBrokerResponseHeader {
                    ha_server_addr: None,
                    master_addr: None,
                }
            }
            Registered::Refused(refused) => {
                warn!(name, id, address = key.address, %peer, "registration refused: {refused}");
                return Err(Failure::system_error(refused));
            }
        };
        let mut answer = RemotingCommand::success().with_header(&header);
        if self
            .admin
            .setting(|settings| settings.return_order_topic_config)
            && let Some(body) = self.admin.namespace_json(ORDER_TOPIC_CONFIG)
        {
            answer.body = body.into();
        }
        Ok(answer)
    }

    pub(super) fn unregister_broker(
        &self,
        request: &RemotingCommand,
        connection: &Connection,
    ) -> Answer {
        let header = UnRegisterBrokerRequestHeader::decode(&request.ext_fields)?;
        let wish = Unregistration {
            version: optional_i64(&request.ext_fields, REGISTRATION_VERSION)?,
            state_version: optional_i64(&request.ext_fields, STATE_VERSION)?,
            cluster: header.cluster_name,
            broker_name: header.broker_name,
            address: header.broker_addr,
            broker_id: header.broker_id,
        };
        let outcome = self.table.write().unregister(&wish, connection.id());
        let (name, id, address, peer) = (
            &wish.broker_name,
            wish.broker_id,
            &wish.address,
            connection.peer(),
        );
        match outcome {
            Unregistered::Removed => info!(name, id, address, %peer, "broker unregistered"),
            Unregistered::Unknown => info!(name, id, address, %peer, "unknown broker unregistered"),
            Unregistered::Ignored(stale) => {
                warn!(name, id, address, %peer, "unregistration ignored: {stale}")
            }
        }
        Ok(RemotingCommand::success())
    }

    pub(super) fn heartbeat(&self, request: &RemotingCommand, connection: &Connection) -> Answer {
        let header = BrokerHeartbeatRequestHeader::decode(&request.ext_fields)?;
        let broker = BrokerKey {
            cluster: header.cluster_name,
            address: header.broker_addr,
        };
        self.table
            .write()
            .heartbeat(&broker, connection.id(), self.now_ms());
        Ok(RemotingCommand::success())
    }

    pub(super) fn query_data_version(
        &self,
        request: &RemotingCommand,
        connection: &Connection,
    ) -> Answer {
        let header = QueryDataVersionRequestHeader::decode(&request.ext_fields)?;
        let theirs = DataVersion::from_json(&request.body.to_bytes())?;
        let broker = BrokerKey {
            cluster: header.cluster_name,
            address: header.broker_addr,
        };
        let mut table = self.table.write();
        let ours = table.data_version(&broker);
        table.heartbeat(&broker, connection.id(), self.now_ms());
        drop(table);
        let changed = ours != Some(theirs);
        let answer =
            RemotingCommand::success().with_header(&QueryDataVersionResponseHeader { changed });
        Ok(match ours {
            Some(ours) => answer.with_body(ours.to_json()),
            None => answer,
        })
    }

    pub(super) fn cluster_info(&self) -> RemotingCommand {
        let info = self.table.read().cluster_info();
        RemotingCommand::success().with_body(info.to_json())
    }

    pub(super) fn member_group(&self, request: &RemotingCommand) -> Answer {
        let header = GetBrokerMemberGroupRequestHeader::decode(&request.ext_fields)?;
        let broker_member_group = self
            .table
            .read()
            .member_group(&header.cluster_name, &header.broker_name);
        let body = GetBrokerMemberGroupResponseBody {
            broker_member_group,
        };
        Ok(RemotingCommand::success().with_body(body.to_json()))
    }

    pub(super) fn wipe_write_perm(&self, request: &RemotingCommand) -> Answer {
        let header = WipeWritePermOfBrokerRequestHeader::decode(&request.ext_fields)?;
        let topics = self.table.write().wipe_write_perm(&header.broker_name);
        info!(name = header.broker_name, topics, "write permission wiped");
        let wipe_topic_count = i32::try_from(topics).unwrap_or(i32::MAX);
        Ok(RemotingCommand::success()
            .with_header(&WipeWritePermOfBrokerResponseHeader { wipe_topic_count }))
    }

    pub(super) fn add_write_perm(&self, request: &RemotingCommand) -> Answer {
        let header = AddWritePermOfBrokerRequestHeader::decode(&request.ext_fields)?;
        let topics = self.table.write().add_write_perm(&header.broker_name);
        info!(name = header.broker_name, topics, "write permission added");
        let add_topic_count = i32::try_from(topics).unwrap_or(i32::MAX);
        Ok(RemotingCommand::success()
            .with_header(&AddWritePermOfBrokerResponseHeader { add_topic_count }))
    }

    pub(super) fn register_topic(&self, request: &RemotingCommand) -> Answer {
        let header = RegisterTopicRequestHeader::decode(&request.ext_fields)?;
        if request.body.is_empty() {
            return Ok(RemotingCommand::success());
        }
        let route = TopicRouteData::from_json(&request.body.to_bytes())?;
        let registered = self
            .table
            .write()
            .register_topic(&header.topic, route.queue_datas);
        registered.map_err(Failure::system_error)?;
        Ok(RemotingCommand::success())
    }

    pub(super) fn delete_topic(&self, request: &RemotingCommand) -> Answer {
        let header = DeleteTopicFromNamesrvRequestHeader::decode(&request.ext_fields)?;
        let cluster = header
            .cluster_name
            .as_deref()
            .filter(|cluster| !cluster.is_empty());
        self.table.write().delete_topic(&header.topic, cluster);
        info!(topic = header.topic, cluster, "topic deleted");
        Ok(RemotingCommand::success())
    }
}

fn topics_of(
    body: &[u8],
    compressed: bool,
    version: i32,
) -> Result<TopicConfigSerializeWrapper, Failure> {
    if body.is_empty() {
        Ok(TopicConfigSerializeWrapper::default())
    } else if version < VERSION_WITH_FILTERS {
        Ok(TopicConfigSerializeWrapper::from_json(body)?)
    } else {
        let body =
            RegisterBrokerBody::decode(body, compressed, version).map_err(Failure::system_error)?;
        Ok(body.topic_config_serialize_wrapper)
    }
}

fn optional_i64(fields: &ExtFields, field: &'static str) -> Result<Option<i64>, HeaderError> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_not_a_number| HeaderError::NotInteger {
                field,
                value: text.to_owned(),
                bits: 64,
            })
    };
    fields.get(field).map(parse).transpose()
}

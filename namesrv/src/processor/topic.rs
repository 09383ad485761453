//! Routes (105) and lists of topics (206, 224, 304, 311, 312, 313).

use raftmq_proto::body::TopicList;
use raftmq_proto::code::response;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{GetRouteInfoRequestHeader, GetTopicsByClusterRequestHeader, Header};

use super::{Answer, Failure, Processor};
use crate::route_table::{RouteQuery, RouteTable};

/// Fields of 105 by which a client asks for brokers of its zone only.
const ZONE_MODE: &str = "__ZONE_MODE";
const ZONE_NAME: &str = "__ZONE_NAME";

/// Clients show this remark to people, who search for its words.
const NO_ROUTE_HELP: &str =
    "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

impl Processor {
    pub(super) fn route(&self, request: &RemotingCommand) -> Answer {
        let header = GetRouteInfoRequestHeader::decode(&request.ext_fields)?;
        let (wait_s, order, acting_master) = self.admin.setting(|settings| {
            let wait_s = settings.wait_for_service.then_some(settings.wait_seconds);
            (
                wait_s,
                settings.order_message,
                settings.support_acting_master,
            )
        });
        if wait_s.is_some_and(|wait_s| self.started.elapsed().as_secs() < wait_s) {
            return Err(Failure::system_error("name server not ready"));
        }
        let zone_mode = request
            .ext_fields
            .get(ZONE_MODE)
            .is_some_and(|mode| mode.eq_ignore_ascii_case("true"));
        let zone = request
            .ext_fields
            .get(ZONE_NAME)
            .filter(|zone| zone_mode && !zone.trim().is_empty());
        let query = RouteQuery {
            topic: &header.topic,
            acting_master,
            zone,
        };
        let Some(mut route) = self.table.read().route(query) else {
            return Err(Failure::new(
                response::TOPIC_NOT_EXIST,
                format!(
                    "No topic route info in name server for the topic: {}{NO_ROUTE_HELP}",
                    header.topic
                ),
            ));
        };
        if order {
            route.order_topic_conf = self.admin.order_topic_conf(&header.topic);
        }
        // Always standard JSON with quoted keys: clients of every generation read it.
        Ok(RemotingCommand::success().with_body(route.to_json()))
    }

    pub(super) fn all_topics(&self) -> Answer {
        self.list(
            self.admin.setting(|settings| settings.all_topic_list),
            RouteTable::topic_list,
        )
    }

    pub(super) fn topics_by_cluster(&self, request: &RemotingCommand) -> Answer {
        let enabled = self.admin.setting(|settings| settings.topic_list);
        let header = GetTopicsByClusterRequestHeader::decode(&request.ext_fields);
        match (enabled, header) {
            (true, Err(error)) => Err(error.into()),
            (true, Ok(header)) => self.list(true, |table| table.topics_by_cluster(&header.cluster)),
            (false, _) => self.list(false, RouteTable::topic_list),
        }
    }

    pub(super) fn unit_topics(&self, of: fn(&RouteTable) -> TopicList) -> Answer {
        self.list(self.admin.setting(|settings| settings.topic_list), of)
    }

    pub(super) fn system_topics(&self) -> RemotingCommand {
        let list = self.table.read().system_topics();
        RemotingCommand::success().with_body(list.to_json())
    }

    fn list(&self, enabled: bool, of: impl FnOnce(&RouteTable) -> TopicList) -> Answer {
        if !enabled {
            return Err(Failure::system_error("disable"));
        }
        let list = of(&self.table.read());
        Ok(RemotingCommand::success().with_body(list.to_json()))
    }
}

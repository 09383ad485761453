//! Subscription groups: create, change, delete, list (200, 201, 207, 225, 352), and who consumes a topic (300).

use raftmq_proto::body::{GroupList, SubscriptionGroupConfig, SubscriptionGroupWrapper};
use raftmq_proto::code::response;
use raftmq_proto::command::{DeleteGroup, Op};
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{
    DeleteSubscriptionGroupRequestHeader, GetAllSubscriptionGroupResponseHeader,
    GetSubscriptionGroupConfigRequestHeader, QueryTopicConsumeByWhoRequestHeader,
};
use raftmq_proto::message::name;

use super::Admin;
use crate::creator::{self, Change};
use crate::exchange::{Exchange, Outcome, Refusal, header};

impl Admin {
    /// 200.
    pub(crate) async fn update_group(&self, request: &RemotingCommand) -> Outcome {
        let config = SubscriptionGroupConfig::from_json(&request.body.to_bytes())
            .map_err(|error| Refusal::error(format!("subscription group: {error}")))?;
        name::check_group(&config.group_name)
            .map_err(|error| Refusal::invalid(error.to_string()))?;
        let known = self.group.store().state.group(&config.group_name);
        if known.is_none_or(|known| *known != config) {
            tracing::info!(group = config.group_name, "group created or changed");
            self.creator
                .carry_out(vec![Change::Do(creator::put_group(&config))])
                .await?;
        }
        Ok(RemotingCommand::success())
    }

    /// 207.
    pub(crate) async fn delete_group(&self, request: &RemotingCommand) -> Outcome {
        let header: DeleteSubscriptionGroupRequestHeader = header(request)?;
        let group = header.group_name;
        tracing::info!(group, "group deleted");
        let op = Op::DeleteGroup(DeleteGroup {
            group: group.clone(),
            clean_offset: header.clean_offset,
        });
        self.creator.carry_out(vec![Change::Do(op)]).await?;
        if header.clean_offset {
            self.offsets.forget(|key| *key.group == *group);
        }
        Ok(RemotingCommand::success())
    }

    /// 201.
    pub(crate) fn all_groups(&self) -> Outcome {
        let state = &self.group.store().state;
        let groups = state.groups();
        let total = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        let one = |group: &std::sync::Arc<SubscriptionGroupConfig>| {
            (
                group.group_name.clone(),
                SubscriptionGroupConfig::clone(group),
            )
        };
        let body = SubscriptionGroupWrapper {
            data_version: state.group_version(),
            subscription_group_table: groups.iter().map(one).collect(),
            ..SubscriptionGroupWrapper::default()
        };
        let header = GetAllSubscriptionGroupResponseHeader {
            total_group_num: total,
        };
        Ok(RemotingCommand::success()
            .with_header(&header)
            .with_body(body.to_json()))
    }

    /// 352.
    pub(crate) fn one_group(&self, exchange: &Exchange) -> Outcome {
        let header: GetSubscriptionGroupConfigRequestHeader = exchange.header()?;
        match self.group.store().state.group(&header.group) {
            Some(group) => Ok(RemotingCommand::success().with_body(group.to_json())),
            None => {
                let text = format!("No group in this broker. group: {}", header.group);
                Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, text))
            }
        }
    }

    /// 300.
    pub(crate) fn groups_of_topic(&self, exchange: &Exchange) -> Outcome {
        let header: QueryTopicConsumeByWhoRequestHeader = exchange.header()?;
        let mut group_list = self.clients.registry().groups_of_topic(&header.topic);
        group_list.extend(
            self.group
                .store()
                .state
                .groups_of_topic(&header.topic)
                .iter()
                .map(ToString::to_string),
        );
        Ok(RemotingCommand::success().with_body(GroupList { group_list }.to_json()))
    }
}

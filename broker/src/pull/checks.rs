//! The checks of a pull, in the order the original makes them.

use std::sync::Arc;

use raftmq_proto::body::{
    MessageModel, SubscriptionData, SubscriptionGroupConfig, TopicConfig, perm,
};
use raftmq_proto::code::response;
use raftmq_proto::filter::TagFilter;
use raftmq_proto::frame::RemotingCommand;
use raftmq_proto::header::{Header, PullMessageRequestHeader, PullMessageResponseHeader};
use raftmq_proto::message::{name, pull_sys_flag};

use crate::clients::no_such_filter;
use crate::exchange::Refusal;

/// What forbids a pull (RocketMQ: `ForbiddenType`).
const FORBIDDEN_BROKER: i32 = 1;
const FORBIDDEN_GROUP: i32 = 2;
const FORBIDDEN_TOPIC: i32 = 3;
const FORBIDDEN_BROADCAST: i32 = 4;

/// A refusal that may say what forbids the pull.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PullRefusal {
    pub(crate) refusal: Refusal,
    forbidden: Option<i32>,
}

impl PullRefusal {
    fn forbidden(by: i32, remark: String) -> PullRefusal {
        PullRefusal {
            refusal: Refusal::new(response::NO_PERMISSION, remark),
            forbidden: Some(by),
        }
    }

    fn new(code: i32, remark: impl Into<String>) -> PullRefusal {
        PullRefusal {
            refusal: Refusal::new(code, remark),
            forbidden: None,
        }
    }

    pub(crate) fn into_response(self) -> RemotingCommand {
        let forbidden = self.forbidden;
        let mut answer = self.refusal.into_response();
        if forbidden.is_some() {
            PullMessageResponseHeader {
                forbidden_type: forbidden,
                ..Default::default()
            }
            .encode(&mut answer.ext_fields);
        }
        answer
    }
}

impl From<Refusal> for PullRefusal {
    fn from(refusal: Refusal) -> PullRefusal {
        PullRefusal {
            refusal,
            forbidden: None,
        }
    }
}

/// The broker's own part in the checks.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) host: String,
    pub(crate) permission: i32,
    pub(crate) lite_pull: bool,
}

/// What a consumer group has told in its heartbeats.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) message_model: MessageModel,
    pub(crate) subscription: Option<SubscriptionData>,
}

/// What the checks are made against.
pub(crate) struct Facts {
    pub(crate) is_lite: bool,
    pub(crate) group: Option<Arc<SubscriptionGroupConfig>>,
    pub(crate) topic: Option<Arc<TopicConfig>>,
    pub(crate) registered: Option<Registered>,
}

/// A pull that may be answered.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    pub(crate) group: Arc<SubscriptionGroupConfig>,
    pub(crate) topic: Arc<TopicConfig>,
    pub(crate) filter: TagFilter,
}

/// Checks a pull.
pub(crate) fn check(
    rules: &Rules,
    header: &PullMessageRequestHeader,
    facts: Facts,
) -> Result<Allowed, PullRefusal> {
    if !perm::is_readable(rules.permission) {
        let text = format!("the broker[{}] pulling message is forbidden", rules.host);
        return Err(PullRefusal::forbidden(FORBIDDEN_BROKER, text));
    }
    if facts.is_lite && !rules.lite_pull {
        let text = format!(
            "the broker[{}] for lite pull consumer is forbidden",
            rules.host
        );
        return Err(PullRefusal::forbidden(FORBIDDEN_BROKER, text));
    }
    let Some(group) = facts.group else {
        let text = format!(
            "subscription group [{}] does not exist",
            header.consumer_group
        );
        return Err(PullRefusal::new(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            text,
        ));
    };
    if !group.consume_enable {
        let text = format!(
            "subscription group no permission, {}",
            header.consumer_group
        );
        return Err(PullRefusal::forbidden(FORBIDDEN_GROUP, text));
    }
    let Some(topic) = facts.topic else {
        let text = format!("topic[{}] not exist, apply first please!", header.topic);
        return Err(PullRefusal::new(response::TOPIC_NOT_EXIST, text));
    };
    if !perm::is_readable(topic.perm) {
        let text = format!("the topic[{}] pulling message is forbidden", header.topic);
        return Err(PullRefusal::forbidden(FORBIDDEN_TOPIC, text));
    }
    if header.queue_id < 0 || header.queue_id >= topic.read_queue_nums {
        return Err(PullRefusal::new(
            response::INVALID_PARAMETER,
            format!(
                "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}]",
                header.queue_id, header.topic, topic.read_queue_nums
            ),
        ));
    }
    let filter = if pull_sys_flag::has_subscription(header.sys_flag) {
        filter_of_request(header)?
    } else {
        filter_of_group(header, &group, facts.registered)?
    };
    // A retried message matched its subscription before; its tag is no reason to withhold it.
    let filter = if name::is_retry_topic(&header.topic) {
        TagFilter::All
    } else {
        filter
    };
    Ok(Allowed {
        group,
        topic,
        filter,
    })
}

fn filter_of_request(header: &PullMessageRequestHeader) -> Result<TagFilter, PullRefusal> {
    let expression_type = header.expression_type.as_deref().unwrap_or_default();
    if !expression_type.is_empty() && expression_type != raftmq_proto::body::EXPRESSION_TAG {
        return Err(Refusal::error(no_such_filter(expression_type)).into());
    }
    parse(header.subscription.as_deref().unwrap_or_default())
}

fn filter_of_group(
    header: &PullMessageRequestHeader,
    group: &SubscriptionGroupConfig,
    registered: Option<Registered>,
) -> Result<TagFilter, PullRefusal> {
    let Some(registered) = registered else {
        return Err(PullRefusal::new(
            response::SUBSCRIPTION_NOT_EXIST,
            "the consumer's group info not exist",
        ));
    };
    if !group.consume_broadcast_enable && registered.message_model == MessageModel::Broadcasting {
        let text = format!(
            "the consumer group[{}] can not consume by broadcast way",
            header.consumer_group
        );
        return Err(PullRefusal::forbidden(FORBIDDEN_BROADCAST, text));
    }
    let Some(subscription) = registered.subscription else {
        return Err(PullRefusal::new(
            response::SUBSCRIPTION_NOT_EXIST,
            "the consumer's subscription not exist",
        ));
    };
    // A newer expression can only ask for less than everything, and clients filter again: what is known serves until
    // the next heartbeat, rather than nothing for up to 30 s.
    let everything = subscription.sub_string == "*";
    if subscription.sub_version < header.sub_version && !everything {
        return Err(PullRefusal::new(
            response::SUBSCRIPTION_NOT_LATEST,
            "the consumer's subscription not latest",
        ));
    }
    if !subscription.is_tag_type() {
        return Err(Refusal::error(no_such_filter(&subscription.expression_type)).into());
    }
    if subscription.class_filter_mode {
        return Ok(TagFilter::All);
    }
    parse(&subscription.sub_string)
}

fn parse(expression: &str) -> Result<TagFilter, PullRefusal> {
    TagFilter::parse(expression).map_err(|error| {
        let text = format!("parse the consumer's subscription failed: {error}");
        PullRefusal::new(response::SUBSCRIPTION_PARSE_FAILED, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            host: "h".to_owned(),
            permission: 6,
            lite_pull: true,
        }
    }

    fn header() -> PullMessageRequestHeader {
        PullMessageRequestHeader {
            consumer_group: "g".to_owned(),
            topic: "T".to_owned(),
            sub_version: 5,
            ..PullMessageRequestHeader::default()
        }
    }

    fn facts() -> Facts {
        let subscription = SubscriptionData::of_tags("T", "a", 5).unwrap();
        Facts {
            is_lite: false,
            group: Some(Arc::new(SubscriptionGroupConfig::new("g"))),
            topic: Some(Arc::new(TopicConfig::new("T", 4, 6))),
            registered: Some(Registered {
                message_model: MessageModel::Clustering,
                subscription: Some(subscription),
            }),
        }
    }

    fn refused(
        rules: &Rules,
        header: &PullMessageRequestHeader,
        facts: Facts,
    ) -> (i32, Option<i32>) {
        let refusal = check(rules, header, facts).expect_err("a refusal");
        (refusal.refusal.code, refusal.forbidden)
    }

    #[test]
    fn refuses_in_the_order_of_the_original() {
        let closed = Rules {
            permission: 2,
            ..rules()
        };
        assert_eq!(
            refused(
                &closed,
                &header(),
                Facts {
                    group: None,
                    ..facts()
                }
            ),
            (16, Some(1))
        );
        let no_lite = Rules {
            lite_pull: false,
            ..rules()
        };
        assert_eq!(
            refused(
                &no_lite,
                &header(),
                Facts {
                    is_lite: true,
                    group: None,
                    ..facts()
                }
            ),
            (16, Some(1))
        );
        assert_eq!(
            refused(
                &rules(),
                &header(),
                Facts {
                    group: None,
                    topic: None,
                    ..facts()
                }
            ),
            (26, None)
        );
        let disabled = SubscriptionGroupConfig {
            consume_enable: false,
            ..SubscriptionGroupConfig::new("g")
        };
        let with_group = |group| Facts {
            group: Some(Arc::new(group)),
            ..facts()
        };
        assert_eq!(
            refused(
                &rules(),
                &header(),
                Facts {
                    topic: None,
                    ..with_group(disabled)
                }
            ),
            (16, Some(2))
        );
        assert_eq!(
            refused(
                &rules(),
                &header(),
                Facts {
                    topic: None,
                    ..facts()
                }
            ),
            (17, None)
        );
        let write_only = Facts {
            topic: Some(Arc::new(TopicConfig::new("T", 4, 2))),
            ..facts()
        };
        assert_eq!(refused(&rules(), &header(), write_only), (16, Some(3)));
        for queue_id in [-1, 4, i32::MAX] {
            assert_eq!(
                refused(
                    &rules(),
                    &PullMessageRequestHeader {
                        queue_id,
                        ..header()
                    },
                    facts()
                ),
                (29, None)
            );
        }
        assert_eq!(
            refused(
                &rules(),
                &header(),
                Facts {
                    registered: None,
                    ..facts()
                }
            ),
            (24, None)
        );
        let unsubscribed = Registered {
            message_model: MessageModel::Clustering,
            subscription: None,
        };
        assert_eq!(
            refused(
                &rules(),
                &header(),
                Facts {
                    registered: Some(unsubscribed),
                    ..facts()
                }
            ),
            (24, None)
        );
        assert_eq!(
            refused(
                &rules(),
                &PullMessageRequestHeader {
                    sub_version: 6,
                    ..header()
                },
                facts()
            ),
            (25, None)
        );
        let no_broadcast = SubscriptionGroupConfig {
            consume_broadcast_enable: false,
            ..SubscriptionGroupConfig::new("g")
        };
        let broadcast = Registered {
            message_model: MessageModel::Broadcasting,
            subscription: None,
        };
        let facts = Facts {
            registered: Some(broadcast),
            ..with_group(no_broadcast)
        };
        assert_eq!(refused(&rules(), &header(), facts), (16, Some(4)));
    }

    #[test]
    fn the_filter_comes_from_the_request_when_it_says_so_else_from_the_heartbeat() {
        let filter = |header: &PullMessageRequestHeader, facts| {
            check(&rules(), header, facts).unwrap().filter
        };
        assert_eq!(filter(&header(), facts()), TagFilter::parse("a").unwrap());
        let own = PullMessageRequestHeader {
            sys_flag: pull_sys_flag::SUBSCRIPTION,
            subscription: Some("b || c".to_owned()),
            ..header()
        };
        assert_eq!(
            filter(
                &own,
                Facts {
                    registered: None,
                    ..facts()
                }
            ),
            TagFilter::parse("b||c").unwrap()
        );
        let broken = PullMessageRequestHeader {
            subscription: Some("||".to_owned()),
            ..own.clone()
        };
        assert_eq!(refused(&rules(), &broken, facts()), (23, None));
        let sql = PullMessageRequestHeader {
            expression_type: Some("SQL92".to_owned()),
            ..own.clone()
        };
        assert_eq!(refused(&rules(), &sql, facts()), (1, None));
        let retry = PullMessageRequestHeader {
            topic: "%RETRY%g".to_owned(),
            ..own
        };
        assert_eq!(filter(&retry, facts()), TagFilter::All);
    }
}

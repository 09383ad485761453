//! The checks of a send, in the order the original makes them, up to the queue it goes to.
//!
//! Pure: topics and groups are looked up through [`Lookup`], the clock and the dice are arguments.

use std::sync::Arc;

use raftmq_proto::body::{SubscriptionGroupConfig, TopicConfig, perm};
use raftmq_proto::code::response;
use raftmq_proto::header::SendMessageRequestHeader;
use raftmq_proto::message::name;

use crate::exchange::Refusal;

/// From this version (V3_4_9) on, clients say themselves after how many failures a message is dead.
const VERSION_WITH_MAX_RECONSUME: i32 = 121;
/// Most queues of a topic made by a send.
const AUTO_QUEUES_MAX: i32 = 1024;

/// Where topics and groups are found.
pub(crate) trait Lookup {
    fn topic(&self, name: &str) -> Option<Arc<TopicConfig>>;
    fn group(&self, name: &str) -> Option<Arc<SubscriptionGroupConfig>>;
    /// Whether the group consumes in order at the moment.
    fn holds_locks(&self, group: &str) -> bool;
}

/// What the checks need to know about this broker.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The host told to clients, for texts.
    pub(crate) host: String,
    pub(crate) permission: i32,
    pub(crate) accept_from_ms: i64,
    pub(crate) auto_create: bool,
    /// Queues of the default topic, should it not be made yet.
    pub(crate) default_queues: u32,
}

/// What is known about the moment and the sender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now_ms: i64,
    /// Any number; picks the queue when the sender leaves the choice.
    pub(crate) dice: u32,
    /// Protocol version of the sender.
    pub(crate) client_version: i32,
}

/// Where a send goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) topic: Arc<TopicConfig>,
    pub(crate) queue_id: i32,
    /// The message has failed too often and goes to the dead-letter topic of its group.
    pub(crate) dead: bool,
}

/// The outcome of the checks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Placement {
    At(Place),
    /// The topic has to be made first; then the checks are made again.
    After(TopicConfig),
}

/// Decides where a send goes.
pub(crate) fn place(
    rules: &Rules,
    lookup: &impl Lookup,
    header: &SendMessageRequestHeader,
    moment: Moment,
) -> Result<Placement, Refusal> {
    if moment.now_ms < rules.accept_from_ms {
        return Err(Refusal::error(format!(
            "broker unable to service, until {} ms",
            rules.accept_from_ms
        )));
    }
    let known = lookup.topic(&header.topic);
    if !perm::is_writable(rules.permission) && known.as_ref().is_some_and(|topic| topic.order) {
        return Err(Refusal::new(
            response::NO_PERMISSION,
            format!("the broker[{}] sending message is forbidden", rules.host),
        ));
    }
    name::check_topic(&header.topic).map_err(|error| Refusal::invalid(error.to_string()))?;
    if name::is_sending_forbidden(&header.topic) {
        return Err(Refusal::new(
            response::NO_PERMISSION,
            format!("Sending message to topic[{}] is forbidden.", header.topic),
        ));
    }
    let Some(topic) = known else {
        return new_topic(rules, lookup, header).map(Placement::After);
    };
    let queues = topic.read_queue_nums.max(topic.write_queue_nums);
    if header.queue_id >= queues {
        return Err(Refusal::invalid(format!(
            "request queueId[{}] is illegal, topic {} has {} read and {} write queues",
            header.queue_id, topic.topic_name, topic.read_queue_nums, topic.write_queue_nums
        )));
    }
    let queue_id = if header.queue_id >= 0 {
        header.queue_id
    } else {
        roll(moment.dice, topic.write_queue_nums)
    };
    let Some(group) = header.topic.strip_prefix(name::RETRY_TOPIC_PREFIX) else {
        return Ok(Placement::At(Place {
            topic,
            queue_id,
            dead: false,
        }));
    };
    if !is_dead(lookup, header, group, moment.client_version)? {
        return Ok(Placement::At(Place {
            topic,
            queue_id,
            dead: false,
        }));
    }
    let dead_letter = name::dlq_topic(group);
    Ok(match lookup.topic(&dead_letter) {
        Some(topic) => Placement::At(Place {
            topic,
            queue_id: 0,
            dead: true,
        }),
        None => Placement::After(TopicConfig::new(&dead_letter, 1, perm::READ | perm::WRITE)),
    })
}

/// Whether a retried message goes to the dead-letter topic: it failed too often, or its group consumes in order (such
/// a group sends only what it has given up).
fn is_dead(
    lookup: &impl Lookup,
    header: &SendMessageRequestHeader,
    group: &str,
    client_version: i32,
) -> Result<bool, Refusal> {
    let config = lookup.group(group).ok_or_else(|| group_not_exist(group))?;
    let of_client = header
        .max_reconsume_times
        .filter(|_| client_version >= VERSION_WITH_MAX_RECONSUME);
    let max = of_client.unwrap_or(config.retry_max_times);
    Ok(header.reconsume_times.unwrap_or(0) > max || lookup.holds_locks(group))
}

/// The refusal for a group that does not exist.
pub(crate) fn group_not_exist(group: &str) -> Refusal {
    Refusal::new(
        response::SUBSCRIPTION_GROUP_NOT_EXIST,
        format!("subscription group not exist, {group}"),
    )
}

/// The settings of a topic that a send makes, or why it may not.
fn new_topic(
    rules: &Rules,
    lookup: &impl Lookup,
    header: &SendMessageRequestHeader,
) -> Result<TopicConfig, Refusal> {
    let retried_by = header.topic.strip_prefix(name::RETRY_TOPIC_PREFIX);
    if let Some(group) = retried_by
        && lookup.group(group).is_none()
    {
        return Err(group_not_exist(group));
    }
    let is_default = header.default_topic == name::AUTO_CREATE_TOPIC;
    // The first leader of a group makes the default topic; a send may be quicker.
    let built_in = || {
        let queues = i32::try_from(rules.default_queues).unwrap_or(i32::MAX);
        let perm = perm::READ | perm::WRITE | perm::INHERIT;
        Some(Arc::new(TopicConfig::new(
            name::AUTO_CREATE_TOPIC,
            queues,
            perm,
        )))
        .filter(|_| is_default)
    };
    let template = lookup.topic(&header.default_topic).or_else(built_in);
    let template = template
        .filter(|template| (rules.auto_create || !is_default) && perm::is_inherited(template.perm));
    if let Some(template) = template {
        let queues = header
            .default_topic_queue_nums
            .min(template.write_queue_nums)
            .clamp(1, AUTO_QUEUES_MAX);
        return Ok(TopicConfig {
            topic_name: header.topic.clone(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: template.perm & !perm::INHERIT,
            topic_filter_type: template.topic_filter_type,
            topic_sys_flag: i32::from(header.unit_mode == Some(true)),
            ..TopicConfig::default()
        });
    }
    if retried_by.is_none() {
        return Err(topic_not_exist(&header.topic));
    }
    Ok(TopicConfig::new(&header.topic, 1, perm::READ | perm::WRITE))
}

/// The refusal for a topic that does not exist.
pub(crate) fn topic_not_exist(topic: &str) -> Refusal {
    Refusal::new(
        response::TOPIC_NOT_EXIST,
        format!("topic[{topic}] not exist, apply first please!"),
    )
}

fn roll(dice: u32, queues: i32) -> i32 {
    let queues = u32::try_from(queues).unwrap_or(0).max(1);
    i32::try_from(dice % queues).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Default)]
    struct Tables {
        topics: HashMap<String, Arc<TopicConfig>>,
        groups: HashMap<String, Arc<SubscriptionGroupConfig>>,
        ordered: bool,
    }

    impl Tables {
        fn with(mut self, name: &str, queues: i32, perm: i32) -> Tables {
            self.topics.insert(
                name.to_owned(),
                Arc::new(TopicConfig::new(name, queues, perm)),
            );
            self
        }

        fn with_group(mut self, name: &str) -> Tables {
            self.groups.insert(
                name.to_owned(),
                Arc::new(SubscriptionGroupConfig::new(name)),
            );
            self
        }
    }

    impl Lookup for Tables {
        fn topic(&self, name: &str) -> Option<Arc<TopicConfig>> {
            self.topics.get(name).cloned()
        }

        fn group(&self, name: &str) -> Option<Arc<SubscriptionGroupConfig>> {
            self.groups.get(name).cloned()
        }

        fn holds_locks(&self, _: &str) -> bool {
            self.ordered
        }
    }

    const MOMENT: Moment = Moment {
        now_ms: 1000,
        dice: 7,
        client_version: 479,
    };

    fn rules() -> Rules {
        Rules {
            host: "1.2.3.4".to_owned(),
            permission: 6,
            accept_from_ms: 0,
            auto_create: true,
            default_queues: 8,
        }
    }

    fn header(topic: &str, queue_id: i32) -> SendMessageRequestHeader {
        SendMessageRequestHeader {
            topic: topic.to_owned(),
            queue_id,
            default_topic: name::AUTO_CREATE_TOPIC.to_owned(),
            default_topic_queue_nums: 4,
            ..SendMessageRequestHeader::default()
        }
    }

    fn code(result: Result<Placement, Refusal>) -> i32 {
        result.expect_err("a refusal").code
    }

    fn at(result: Result<Placement, Refusal>) -> (String, i32, bool) {
        match result {
            Ok(Placement::At(place)) => {
                (place.topic.topic_name.clone(), place.queue_id, place.dead)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refuses_in_the_order_of_the_original() {
        let tables = Tables::default().with("T", 4, 6);
        let later = Rules {
            accept_from_ms: 2000,
            ..rules()
        };
        assert_eq!(
            code(place(&later, &tables, &header("a/b", 0), MOMENT)),
            response::SYSTEM_ERROR
        );
        for bad in ["", " ", "a/b", "..", "a\u{1}", &"t".repeat(128), "ü"] {
            assert_eq!(
                code(place(&rules(), &tables, &header(bad, 0), MOMENT)),
                response::INVALID_PARAMETER,
                "{bad}"
            );
        }
        for forbidden in [
            "SCHEDULE_TOPIC_XXXX",
            "RMQ_SYS_TRANS_HALF_TOPIC",
            "OFFSET_MOVED_EVENT",
        ] {
            assert_eq!(
                code(place(&rules(), &tables, &header(forbidden, 0), MOMENT)),
                response::NO_PERMISSION
            );
        }
        assert_eq!(
            code(place(&rules(), &tables, &header("T", 4), MOMENT)),
            response::INVALID_PARAMETER
        );
        assert_eq!(
            at(place(&rules(), &tables, &header("T", 3), MOMENT)),
            ("T".to_owned(), 3, false)
        );
        assert_eq!(
            at(place(&rules(), &tables, &header("T", -5), MOMENT)),
            ("T".to_owned(), 3, false)
        );

        let read_only = Rules {
            permission: 4,
            ..rules()
        };
        assert_eq!(
            at(place(&read_only, &tables, &header("T", 0), MOMENT)).0,
            "T"
        );
        let mut ordered = TopicConfig::new("O", 1, 6);
        ordered.order = true;
        let mut tables = tables;
        tables.topics.insert("O".to_owned(), Arc::new(ordered));
        assert_eq!(
            code(place(&read_only, &tables, &header("O", 0), MOMENT)),
            response::NO_PERMISSION
        );
    }

    #[test]
    fn an_unknown_topic_inherits_from_the_default_topic_when_that_is_allowed() {
        let tables = Tables::default()
            .with(name::AUTO_CREATE_TOPIC, 8, 7)
            .with("plain", 8, 6);
        let Ok(Placement::After(made)) = place(&rules(), &tables, &header("N", 0), MOMENT) else {
            panic!()
        };
        assert_eq!(
            (
                made.topic_name.as_str(),
                made.read_queue_nums,
                made.write_queue_nums,
                made.perm
            ),
            ("N", 4, 4, 6)
        );

        let mut many = header("N", 0);
        many.default_topic_queue_nums = 99;
        let Ok(Placement::After(made)) = place(&rules(), &tables, &many, MOMENT) else {
            panic!()
        };
        assert_eq!(made.write_queue_nums, 8);

        let fixed = Rules {
            auto_create: false,
            ..rules()
        };
        assert_eq!(
            code(place(&fixed, &tables, &header("N", 0), MOMENT)),
            response::TOPIC_NOT_EXIST
        );
        let mut from_plain = header("N", 0);
        from_plain.default_topic = "plain".to_owned();
        assert_eq!(
            code(place(&rules(), &tables, &from_plain, MOMENT)),
            response::TOPIC_NOT_EXIST
        );
    }

    #[test]
    fn a_retried_message_dies_after_too_many_failures_or_when_its_group_is_ordered() {
        let retry = "%RETRY%g";
        assert_eq!(
            code(place(
                &rules(),
                &Tables::default(),
                &header(retry, 0),
                MOMENT
            )),
            response::SUBSCRIPTION_GROUP_NOT_EXIST
        );
        let tables = Tables::default().with_group("g");
        let fixed = Rules {
            auto_create: false,
            ..rules()
        };
        let Ok(Placement::After(made)) = place(&fixed, &tables, &header(retry, 0), MOMENT) else {
            panic!()
        };
        assert_eq!(
            (made.topic_name.as_str(), made.write_queue_nums, made.perm),
            (retry, 1, 6)
        );

        let mut tables = tables.with(retry, 1, 6);
        let mut tired = header(retry, 0);
        tired.reconsume_times = Some(16);
        assert_eq!(
            at(place(&rules(), &tables, &tired, MOMENT)),
            (retry.to_owned(), 0, false)
        );
        tired.max_reconsume_times = Some(3);
        let Ok(Placement::After(made)) = place(&rules(), &tables, &tired, MOMENT) else {
            panic!()
        };
        assert_eq!((made.topic_name.as_str(), made.perm), ("%DLQ%g", 6));
        let old_client = Moment {
            client_version: 100,
            ..MOMENT
        };
        assert_eq!(
            at(place(&rules(), &tables, &tired, old_client)),
            (retry.to_owned(), 0, false)
        );
        tables = tables.with("%DLQ%g", 1, 6);
        assert_eq!(
            at(place(&rules(), &tables, &tired, MOMENT)),
            ("%DLQ%g".to_owned(), 0, true)
        );
        tables.ordered = true;
        assert_eq!(
            at(place(&rules(), &tables, &header(retry, 0), MOMENT)),
            ("%DLQ%g".to_owned(), 0, true)
        );
    }
}

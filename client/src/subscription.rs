//! What a consumer wants of a topic.

use raftmq_proto::body::SubscriptionData;
use raftmq_proto::message::tags_code;

use crate::local_time::now_ms;
use crate::message::MessageExt;

/// A topic and the filter on its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Topic.
    pub topic: String,
    /// `*` for everything, else tags such as `TagA || TagB`; of type SQL92 an expression.
    pub expression: String,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// Grows with each change, milliseconds since the epoch: brokers keep the newest.
    pub version: i64,
    tags: Vec<String>,
}

impl Subscription {
    /// Subscribes by tags: `*` or nothing for all messages, else tags separated by `||`.
    #[must_use]
    pub fn tags(topic: impl Into<String>, expression: &str) -> Subscription {
        let mut tags: Vec<String> = expression
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        let everything = tags.is_empty() || expression.trim() == "*";
        if everything {
            tags.clear();
        }
        tags.sort();
        tags.dedup();
        Subscription {
            topic: topic.into(),
            expression: if everything {
                "*".to_owned()
            } else {
                expression.to_owned()
            },
            expression_type: "TAG".to_owned(),
            version: now_ms(),
            tags,
        }
    }

    /// Subscribes by an SQL92 expression over message properties. The broker must have it enabled.
    #[must_use]
    pub fn sql(topic: impl Into<String>, expression: impl Into<String>) -> Subscription {
        Subscription {
            topic: topic.into(),
            expression: expression.into(),
            expression_type: "SQL92".to_owned(),
            version: now_ms(),
            tags: Vec::new(),
        }
    }

    /// Whether a pulled message is wanted: brokers compare hashes of tags only.
    #[must_use]
    pub fn wants(&self, message: &MessageExt) -> bool {
        self.tags.is_empty()
            || message
                .tag()
                .is_some_and(|tag| self.tags.iter().any(|wanted| wanted == tag))
    }

    pub(crate) fn data(&self) -> SubscriptionData {
        SubscriptionData {
            topic: self.topic.clone(),
            sub_string: self.expression.clone(),
            tags_set: self.tags.iter().cloned().collect(),
            // The hash of a tag is an i32, sign-extended where it is stored.
            code_set: self.tags.iter().map(|tag| tags_code(tag) as i32).collect(),
            sub_version: self.version,
            expression_type: self.expression_type.clone(),
            ..SubscriptionData::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_apart() {
        let subscription = Subscription::tags("T", " b || a||b || ");
        assert_eq!(subscription.tags, ["a", "b"]);
        assert_eq!(subscription.expression, " b || a||b || ");
        let data = subscription.data();
        assert_eq!(
            (data.code_set.len(), data.sub_string.as_str()),
            (2, " b || a||b || ")
        );
    }

    #[test]
    fn star_and_nothing_mean_everything() {
        for expression in ["*", "", "  ", "||"] {
            let subscription = Subscription::tags("T", expression);
            assert_eq!(
                (subscription.expression.as_str(), subscription.tags.len()),
                ("*", 0)
            );
        }
    }
}

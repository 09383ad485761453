//! `updateTopic`: creates or changes a topic at one broker or in a cluster.

use raftmq_proto::body::{TopicConfig, perm, to_json};
use std::collections::BTreeMap;

use super::{Call, Command, Running, clusters};
use crate::options::{Given, Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "updateTopic",
    class: "UpdateTopicSubCommand",
    description: "Update or create topic.",
    own_options: &[
        Opt::value(
            "b",
            "brokerAddr",
            Need::OneOf,
            "create topic to which broker",
        ),
        Opt::value(
            "c",
            "clusterName",
            Need::OneOf,
            "create topic to which cluster",
        ),
        Opt::value("a", "attributes", Need::Optional, "attribute(+a=b,+c=d,-e)"),
        Opt::value("t", "topic", Need::Required, "topic name"),
        Opt::value("r", "readQueueNums", Need::Optional, "set read queue nums"),
        Opt::value(
            "w",
            "writeQueueNums",
            Need::Optional,
            "set write queue nums",
        ),
        Opt::value(
            "p",
            "perm",
            Need::Optional,
            "set topic's permission(2|4|6), intro[2:W 4:R; 6:RW]",
        ),
        Opt::value(
            "o",
            "order",
            Need::Optional,
            "set topic's order(true|false)",
        ),
        Opt::value("u", "unit", Need::Optional, "is unit topic (true|false)"),
        Opt::value(
            "s",
            "hasUnitSub",
            Need::Optional,
            "has unit sub (true|false)",
        ),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let config = config(call.given)?;
    let (admin, json) = (call.admin, call.given.has("json"));
    let to_one = call.given.value("b").map(ToOwned::to_owned);
    let (addresses, cluster) = match (&to_one, call.given.value("c")) {
        (Some(address), _) => ([address.clone()].into(), String::new()),
        (None, cluster) => {
            let cluster = cluster.unwrap_or_default().to_owned();
            (clusters::leaders(admin, &cluster).await?, cluster)
        }
    };
    let mut order_line = None;
    for address in &addresses {
        admin.update_topic(address, &config).await?;
        if !json && to_one.is_none() {
            writeln!(call.out, "create topic to {address} success.")?;
        }
    }
    if config.order {
        let names = match &to_one {
            Some(address) => vec![clusters::group_of(admin, address).await?],
            None => {
                let info = admin.cluster_info().await?;
                let groups = clusters::groups(&info, &cluster)?;
                groups
                    .into_iter()
                    .map(|group| group.broker_name.clone())
                    .collect()
            }
        };
        let parts: Vec<String> = names
            .iter()
            .map(|name| format!("{name}:{}", config.write_queue_nums))
            .collect();
        let conf = parts.join(";");
        admin
            .update_order_conf(&config.topic_name, &conf, to_one.is_none())
            .await?;
        let of = if to_one.is_some() {
            "broker"
        } else {
            "cluster"
        };
        order_line = Some(format!(
            "set {of} orderConf. isOrder=true, orderConf=[{conf}]"
        ));
    }
    if json {
        let config: serde_json::Value = serde_json::from_slice(&to_json(&config))?;
        call.json(|| serde_json::json!({"brokers": addresses, "topicConfig": config}))?;
        return Ok(());
    }
    if let Some(line) = order_line {
        writeln!(call.out, "{line}")?;
    }
    if let Some(address) = &to_one {
        writeln!(call.out, "create topic to {address} success.")?;
    }
    writeln!(call.out, "{}", describe(&config))?;
    Ok(())
}

fn config(given: &Given) -> anyhow::Result<TopicConfig> {
    let mut flags = 0;
    if given.truth("u") {
        flags |= raftmq_proto::body::TOPIC_SYS_FLAG_UNIT;
    }
    if given.truth("s") {
        flags |= raftmq_proto::body::TOPIC_SYS_FLAG_UNIT_SUB;
    }
    Ok(TopicConfig {
        topic_name: given.value("t").unwrap_or_default().to_owned(),
        attributes: attributes(given.value("a").unwrap_or_default())?,
        read_queue_nums: given.number("r", 8)?,
        write_queue_nums: given.number("w", 8)?,
        perm: given.number("p", perm::READ | perm::WRITE)?,
        topic_sys_flag: flags,
        order: given.truth("o"),
        ..TopicConfig::default()
    })
}

/// `+key=value` sets, `-key` removes; several are separated by commas.
fn attributes(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => {
                anyhow::ensure!(
                    key.contains('+'),
                    "add/alter attribute format is wrong: {key}"
                );
                (key, value)
            }
            None => {
                anyhow::ensure!(
                    part.contains('-'),
                    "delete attribute format is wrong: {part}"
                );
                (part, "")
            }
        };
        let old = attributes.insert(key.to_owned(), value.to_owned());
        anyhow::ensure!(old.is_none(), "key duplication: {key}");
    }
    Ok(attributes)
}

/// The form in which the original prints a topic's configuration.
fn describe(config: &TopicConfig) -> String {
    let letter = |bit: i32, letter: char| if config.perm & bit != 0 { letter } else { '-' };
    let attributes: Vec<String> = config
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}{}{}, \
         topicFilterType={}, topicSysFlag={}, order={}, attributes={{{}}}]",
        config.topic_name,
        config.read_queue_nums,
        config.write_queue_nums,
        letter(perm::READ, 'R'),
        letter(perm::WRITE, 'W'),
        letter(perm::INHERIT, 'X'),
        config.topic_filter_type.name(),
        config.topic_sys_flag,
        config.order,
        attributes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_described_as_in_the_original() {
        let config = TopicConfig {
            attributes: attributes("+a=b,-c").unwrap(),
            ..TopicConfig::new("T", 8, 6)
        };
        assert_eq!(
            describe(&config),
            "TopicConfig [topicName=T, readQueueNums=8, writeQueueNums=8, perm=RW-, \
             topicFilterType=SINGLE_TAG, topicSysFlag=0, order=false, attributes={+a=b, -c=}]"
        );
    }

    #[test]
    fn bad_attributes_are_named() {
        let refused = |text| attributes(text).unwrap_err().to_string();
        assert_eq!(refused("a=b"), "add/alter attribute format is wrong: a");
        assert_eq!(refused("a"), "delete attribute format is wrong: a");
        assert_eq!(refused("+a=b,+a=c"), "key duplication: +a");
        assert!(attributes("").unwrap().is_empty());
    }
}

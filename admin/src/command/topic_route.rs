//! `topicRoute`: where a topic lives.

use raftmq_proto::body::{TopicRouteData, to_json};
use serde_json::Value;
use std::collections::BTreeMap;

use super::{Call, Command, Running};
use crate::options::{Need, Opt};
use crate::text::pretty;

pub(crate) const COMMAND: Command = Command {
    name: "topicRoute",
    class: "TopicRouteSubCommand",
    description: "Examine topic route info.",
    own_options: &[
        Opt::value("t", "topic", Need::Required, "topic name"),
        Opt::flag("l", "list", "Use list format to print data"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let topic = call.given.value("t").unwrap_or_default();
    let route = call.admin.topic_route(topic).await?;
    let value: Value = serde_json::from_slice(&to_json(&route))?;
    if call.json(|| value.clone())? {
        return Ok(());
    }
    if call.given.has("l") {
        write!(call.out, "{}", list(&route))?;
    } else {
        writeln!(call.out, "{}", pretty(&value))?;
    }
    Ok(())
}

fn row(cells: [&str; 6]) -> String {
    let [cluster, broker, addresses, read, write, perm] = cells;
    format!("{cluster:<45} {broker:<32} {addresses:<50} {read:<10} {write:<11} {perm:<5}\n")
}

fn list(route: &TopicRouteData) -> String {
    let queues: BTreeMap<&str, _> = route
        .queue_datas
        .iter()
        .map(|queues| (queues.broker_name.as_str(), queues))
        .collect();
    let mut brokers: Vec<_> = route.broker_datas.iter().collect();
    brokers.sort_by(|left, right| left.broker_name.cmp(&right.broker_name));
    let mut text = row([
        "#ClusterName",
        "#BrokerName",
        "#BrokerAddrs",
        "#ReadQueue",
        "#WriteQueue",
        "#Perm",
    ]);
    let (mut read_total, mut write_total) = (0i64, 0i64);
    for broker in brokers {
        let Some(queues) = queues.get(broker.broker_name.as_str()) else {
            continue;
        };
        read_total += i64::from(queues.read_queue_nums);
        write_total += i64::from(queues.write_queue_nums);
        let addresses: Vec<String> = broker
            .broker_addrs
            .iter()
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        text.push_str(&row([
            &broker.cluster,
            &broker.broker_name,
            &format!("{{{}}}", addresses.join(", ")),
            &queues.read_queue_nums.to_string(),
            &queues.write_queue_nums.to_string(),
            &queues.perm.to_string(),
        ]));
    }
    text.push_str(&"-".repeat(158));
    text.push('\n');
    text.push_str(&row([
        "Total:",
        &queues.len().to_string(),
        "",
        &read_total.to_string(),
        &write_total.to_string(),
        "",
    ]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftmq_proto::body::from_json;

    const ROUTE: &str = r#"{"brokerDatas":[{"brokerAddrs":{"0":"1.1.1.1:10911","1":"1.1.1.2:10911"},
        "brokerName":"B","cluster":"C","enableActingMaster":false}],"filterServerTable":{},
        "queueDatas":[{"brokerName":"B","perm":6,"readQueueNums":4,"topicSysFlag":0,
        "writeQueueNums":4}]}"#;

    #[test]
    fn json_is_laid_out_as_the_original_s() {
        let route: TopicRouteData = from_json(ROUTE.as_bytes()).unwrap();
        let value: Value = serde_json::from_slice(&to_json(&route)).unwrap();
        let expected = "{\n\t\"brokerDatas\":[\n\t\t{\n\t\t\t\"brokerAddrs\":{\n\
            \t\t\t\t0:\"1.1.1.1:10911\",\n\t\t\t\t1:\"1.1.1.2:10911\"\n\t\t\t},\n\
            \t\t\t\"brokerName\":\"B\",\n\t\t\t\"cluster\":\"C\",\n\
            \t\t\t\"enableActingMaster\":false\n\t\t}\n\t],\n\t\"filterServerTable\":{},\n\
            \t\"queueDatas\":[\n\t\t{\n\t\t\t\"brokerName\":\"B\",\n\t\t\t\"perm\":6,\n\
            \t\t\t\"readQueueNums\":4,\n\t\t\t\"topicSysFlag\":0,\n\t\t\t\"writeQueueNums\":4\n\
            \t\t}\n\t]\n}";
        assert_eq!(pretty(&value), expected);
    }

    #[test]
    fn list_has_the_original_s_columns() {
        let route: TopicRouteData = from_json(ROUTE.as_bytes()).unwrap();
        let list = list(&route);
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(
            lines[1],
            format!(
                "{:<45} {:<32} {:<50} {:<10} {:<11} {:<5}",
                "C", "B", "{0=1.1.1.1:10911, 1=1.1.1.2:10911}", 4, 4, 6
            )
        );
        assert_eq!(lines[2], "-".repeat(158));
        assert!(lines[3].starts_with("Total:"));
    }
}

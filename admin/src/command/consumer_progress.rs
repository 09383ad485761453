//! `consumerProgress`: how far a group is in each queue, or a line for every group.

use raftmq_client::Admin;
use raftmq_client::local_time::LocalTime;
use raftmq_proto::body::{
    ConsumeStats, ConsumeType, ConsumerConnection, MessageQueue, OffsetWrapper,
};
use raftmq_proto::message::name;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::{Call, Command, Running};
use crate::options::{Need, Opt};
use crate::text::{front, version_name};

pub(crate) const COMMAND: Command = Command {
    name: "consumerProgress",
    class: "ConsumerProgressSubCommand",
    description: "Query consumer's progress, speed.",
    own_options: &[
        Opt::value("g", "groupName", Need::Optional, "consumer group name"),
        Opt::value("t", "topicName", Need::Optional, "topic name"),
        Opt::value(
            "s",
            "showClientIP",
            Need::Optional,
            "Show Client IP per Queue",
        ),
        Opt::value(
            "c",
            "cluster",
            Need::Optional,
            "Cluster name or lmq parent topic, lmq is used to find the route.",
        ),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

type Clients = BTreeMap<MessageQueue, String>;

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let Some(group) = call.given.value("g") else {
        return run_all(call).await;
    };
    let (cluster, topic) = (call.given.value("c"), call.given.value("t"));
    let stats = call.admin.consume_stats(cluster, group, topic).await?;
    let clients = if call.given.truth("s") {
        Some(client_addresses(call.admin, group).await)
    } else {
        None
    };
    if call.json(|| as_json(&stats, clients.as_ref()))? {
        return Ok(());
    }
    write!(call.out, "{}", table(&stats, clients.as_ref()))?;
    Ok(())
}

/// Which client reads which queue, as far as the clients tell.
async fn client_addresses(admin: &Admin, group: &str) -> Clients {
    let mut clients = Clients::new();
    let Ok(connection) = admin.consumer_connection(group).await else {
        return clients;
    };
    for member in connection.connection_set {
        let Ok(info) = admin.consumer_running_info(group, &member.client_id).await else {
            continue;
        };
        let address = member.client_id.split('@').next().unwrap_or_default();
        clients.extend(
            info.mq_table
                .into_keys()
                .map(|queue| (queue, address.to_owned())),
        );
    }
    clients
}

/// In the original's order: topic, broker, queue.
fn sorted(stats: &ConsumeStats) -> Vec<(&MessageQueue, &OffsetWrapper)> {
    let mut rows: Vec<_> = stats.offset_table.iter().collect();
    rows.sort_by_key(|(queue, _)| (&queue.topic, &queue.broker_name, queue.queue_id));
    rows
}

fn diff(offsets: &OffsetWrapper) -> i64 {
    offsets
        .broker_offset
        .saturating_sub(offsets.consumer_offset)
}

fn in_flight(offsets: &OffsetWrapper) -> i64 {
    offsets.pull_offset.saturating_sub(offsets.consumer_offset)
}

fn as_json(stats: &ConsumeStats, clients: Option<&Clients>) -> Value {
    let queues = sorted(stats).into_iter().map(|(queue, offsets)| {
        json!({
            "topic": queue.topic,
            "brokerName": queue.broker_name,
            "queueId": queue.queue_id,
            "brokerOffset": offsets.broker_offset,
            "consumerOffset": offsets.consumer_offset,
            "clientIP": clients.and_then(|clients| clients.get(queue)),
            "diff": diff(offsets),
            "inflight": in_flight(offsets),
            "lastTimestamp": offsets.last_timestamp,
        })
    });
    json!({
        "queues": queues.collect::<Vec<_>>(),
        "consumeTps": stats.consume_tps,
        "diffTotal": stats.offset_table.values().map(diff).fold(0, i64::saturating_add),
        "inflightTotal": stats.offset_table.values().map(in_flight).fold(0, i64::saturating_add),
    })
}

fn table(stats: &ConsumeStats, clients: Option<&Clients>) -> String {
    let client_column = |text: &str| match clients {
        Some(_) => format!("{text:<20} "),
        None => String::new(),
    };
    let mut text = format!(
        "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {}{:<20} {:<20}{}\n",
        "#Topic",
        "#Broker Name",
        "#QID",
        "#Broker Offset",
        "#Consumer Offset",
        client_column("#Client IP"),
        "#Diff",
        "#Inflight",
        "#LastTime"
    );
    let (mut diff_total, mut in_flight_total) = (0i64, 0i64);
    for (queue, offsets) in sorted(stats) {
        let (diff, in_flight) = (diff(offsets), in_flight(offsets));
        diff_total = diff_total.saturating_add(diff);
        in_flight_total = in_flight_total.saturating_add(in_flight);
        let last_time = if offsets.last_timestamp == 0 {
            "N/A".to_owned()
        } else {
            LocalTime::from_epoch_ms(offsets.last_timestamp).to_seconds_text()
        };
        let client = clients
            .and_then(|clients| clients.get(queue))
            .map_or("N/A", String::as_str);
        text.push_str(&format!(
            "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {}{:<20} {:<20} {}\n",
            front(&queue.topic, 64),
            front(&queue.broker_name, 32),
            queue.queue_id,
            offsets.broker_offset,
            offsets.consumer_offset,
            client_column(client),
            diff,
            in_flight,
            last_time
        ));
    }
    text.push_str(&format!(
        "\nConsume TPS: {:.2}\nConsume Diff Total: {diff_total}\nConsume Inflight Total: \
         {in_flight_total}\n",
        stats.consume_tps
    ));
    text
}

/// A group as a whole.
struct Group {
    name: String,
    stats: Option<ConsumeStats>,
    connection: Option<ConsumerConnection>,
}

impl Group {
    fn count(&self) -> usize {
        self.connection
            .as_ref()
            .map_or(0, |connection| connection.connection_set.len())
    }

    fn version(&self) -> String {
        let connections = self
            .connection
            .as_ref()
            .map(|connection| &connection.connection_set);
        match connections.and_then(|set| set.iter().map(|member| member.version).min()) {
            Some(lowest) => version_name(lowest),
            None => "OFFLINE".to_owned(),
        }
    }

    fn consume_type(&self) -> &'static str {
        match &self.connection {
            Some(connection) if connection.consume_type == ConsumeType::ConsumeActively => "PULL",
            Some(_) => "PUSH",
            None => "",
        }
    }

    fn model(&self) -> &'static str {
        match &self.connection {
            Some(connection) if connection.consume_type == ConsumeType::ConsumePassively => {
                connection.message_model.name()
            }
            _ => "",
        }
    }

    fn tps(&self) -> i64 {
        self.stats
            .as_ref()
            .map_or(0, |stats| stats.consume_tps as i64)
    }

    fn diff_total(&self) -> i64 {
        let offsets = self
            .stats
            .iter()
            .flat_map(|stats| stats.offset_table.values());
        offsets.map(diff).fold(0, i64::saturating_add)
    }
}

async fn run_all(mut call: Call<'_>) -> anyhow::Result<()> {
    let mut groups = Vec::new();
    for topic in call.admin.topic_list().await?.topic_list {
        if !name::is_retry_topic(&topic) {
            continue;
        }
        let Some(group) = name::group_of(&topic) else {
            continue;
        };
        groups.push(Group {
            name: group.to_owned(),
            stats: call.admin.consume_stats(None, group, None).await.ok(),
            connection: call.admin.consumer_connection(group).await.ok(),
        });
    }
    let as_json = || {
        let rows = groups.iter().map(|group| {
            json!({
                "group": group.name,
                "count": group.count(),
                "version": group.version(),
                "type": group.consume_type(),
                "model": group.model(),
                "tps": group.tps(),
                "diffTotal": group.diff_total(),
            })
        });
        rows.collect()
    };
    if call.json(as_json)? {
        return Ok(());
    }
    let [group, count, version, kind, model, tps, diff] = [
        "#Group",
        "#Count",
        "#Version",
        "#Type",
        "#Model",
        "#TPS",
        "#Diff Total",
    ];
    writeln!(
        call.out,
        "{group:<64}  {count:<6}  {version:<24} {kind:<5}  {model:<14}  {tps:<7}  {diff}"
    )?;
    for group in &groups {
        writeln!(call.out, "{}", group_row(group))?;
    }
    Ok(())
}

fn group_row(group: &Group) -> String {
    format!(
        "{:<64}  {:<6}  {:<24} {:<5}  {:<14}  {:<7}  {}",
        front(&group.name, 64),
        group.count(),
        group.version(),
        group.consume_type(),
        group.model(),
        group.tps(),
        group.diff_total()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftmq_proto::body::Connection;

    fn stats() -> ConsumeStats {
        let mut stats = ConsumeStats {
            consume_tps: 1.5,
            ..ConsumeStats::default()
        };
        for (topic, broker, last_timestamp) in [("U", "a", 0), ("T", "b", 0)] {
            let offsets = OffsetWrapper {
                broker_offset: 10,
                consumer_offset: 4,
                pull_offset: 6,
                last_timestamp,
            };
            stats
                .offset_table
                .insert(MessageQueue::new(topic, broker, 0), offsets);
        }
        stats
    }

    #[test]
    fn rows_are_sorted_by_topic_and_summed_up() {
        let table = table(&stats(), None);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[1],
            format!(
                "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {:<20} {:<20} N/A",
                "T", "b", 0, 10, 4, 6, 2
            )
        );
        assert!(lines[2].starts_with("U "));
        assert_eq!(
            &lines[3..],
            [
                "",
                "Consume TPS: 1.50",
                "Consume Diff Total: 12",
                "Consume Inflight Total: 4"
            ]
        );
    }

    #[test]
    fn clients_have_a_column_on_demand() {
        let clients = Clients::from([(MessageQueue::new("T", "b", 0), "10.0.0.1".to_owned())]);
        let table = table(&stats(), Some(&clients));
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].contains("#Client IP           #Diff"));
        assert!(
            lines[1].contains("4                     10.0.0.1             6 "),
            "{}",
            lines[1]
        );
        assert!(lines[2].contains("4                     N/A                  6 "));
    }

    #[test]
    fn a_group_without_members_is_offline() {
        let mut group = Group {
            name: "g".to_owned(),
            stats: Some(stats()),
            connection: None,
        };
        assert_eq!(
            group_row(&group).split_whitespace().collect::<Vec<_>>(),
            ["g", "0", "OFFLINE", "1", "12"]
        );
        group.connection = Some(ConsumerConnection {
            connection_set: vec![Connection {
                version: 479,
                ..Connection::default()
            }],
            ..ConsumerConnection::default()
        });
        assert_eq!(
            group_row(&group).split_whitespace().collect::<Vec<_>>(),
            ["g", "1", "V5_3_3", "PUSH", "CLUSTERING", "1", "12"]
        );
    }
}

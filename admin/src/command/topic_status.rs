//! `topicStatus`: the offsets of a topic's queues.

use raftmq_client::local_time::LocalTime;
use raftmq_proto::body::TopicStatsTable;
use serde_json::{Value, json};

use super::{Call, Command, Running};
use crate::options::{Need, Opt};
use crate::text::front;

pub(crate) const COMMAND: Command = Command {
    name: "topicStatus",
    class: "TopicStatusSubCommand",
    description: "Examine topic Status info.",
    own_options: &[
        Opt::value("t", "topic", Need::Required, "topic name"),
        Opt::value(
            "c",
            "cluster",
            Need::Optional,
            "cluster name or lmq parent topic, lmq is used to find the route.",
        ),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let topic = call.given.value("t").unwrap_or_default();
    let routed_by = call.given.value("c");
    let stats = call
        .admin
        .topic_stats(topic, routed_by.unwrap_or(topic))
        .await?;
    if stats.offset_table.is_empty() && routed_by.is_none() {
        anyhow::bail!("Not found the topic stats info");
    }
    if call.json(|| as_json(&stats))? {
        return Ok(());
    }
    write!(call.out, "{}", table(&stats))?;
    Ok(())
}

fn as_json(stats: &TopicStatsTable) -> Value {
    let queues = stats.offset_table.iter().map(|(queue, offset)| {
        json!({
            "brokerName": queue.broker_name,
            "queueId": queue.queue_id,
            "minOffset": offset.min_offset,
            "maxOffset": offset.max_offset,
            "lastUpdateTimestamp": offset.last_update_timestamp,
        })
    });
    json!({"queues": queues.collect::<Vec<_>>(), "topicPutTps": stats.topic_put_tps})
}

fn table(stats: &TopicStatsTable) -> String {
    let mut text = format!(
        "{:<32}  {:<4}  {:<20}  {:<20}    {}\n",
        "#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated"
    );
    for (queue, offset) in &stats.offset_table {
        let updated = if offset.last_update_timestamp > 0 {
            LocalTime::from_epoch_ms(offset.last_update_timestamp).to_millis_text()
        } else {
            String::new()
        };
        text.push_str(&format!(
            "{:<32}  {:<4}  {:<20}  {:<20}    {}\n",
            front(&queue.broker_name, 32),
            queue.queue_id,
            offset.min_offset,
            offset.max_offset,
            updated
        ));
    }
    // Java prints a double's shortest form, always with a fraction, as `{:?}` does.
    text.push_str(&format!("\nTopic Put TPS: {:?}\n", stats.topic_put_tps));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftmq_proto::body::{MessageQueue, TopicOffset};

    #[test]
    fn rows_are_sorted_and_aligned() {
        let mut stats = TopicStatsTable::default();
        for queue_id in [1, 0] {
            let offset = TopicOffset {
                min_offset: 0,
                max_offset: 7,
                last_update_timestamp: 0,
            };
            stats
                .offset_table
                .insert(MessageQueue::new("T", "broker-a", queue_id), offset);
        }
        let expected = "\
#Broker Name                      #QID  #Min Offset           #Max Offset             #Last Updated
broker-a                          0     0                     7                       \u{20}
broker-a                          1     0                     7                       \u{20}

Topic Put TPS: 0.0
"
        .replace(" \u{20}\n", " \n");
        assert_eq!(table(&stats), expected);
    }
}

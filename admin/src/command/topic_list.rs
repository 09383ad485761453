//! `topicList`: the topics the nameservers know, on demand with their clusters and consumer groups.

use raftmq_proto::body::ClusterInfo;
use raftmq_proto::message::name;
use serde_json::json;

use super::{Call, Command, Running};
use crate::options::Opt;
use crate::text::front;

pub(crate) const COMMAND: Command = Command {
    name: "topicList",
    class: "TopicListSubCommand",
    description: "Fetch all topic list from name server.",
    own_options: &[Opt::flag("c", "clusterModel", "clusterModel")],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

struct Row {
    cluster: String,
    topic: String,
    groups: Vec<String>,
}

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    if !call.given.has("c") {
        let list = call.admin.topic_list().await?;
        if call.json(|| json!(list.topic_list))? {
            return Ok(());
        }
        for topic in list.topic_list {
            writeln!(call.out, "{topic}")?;
        }
        return Ok(());
    }
    let clusters = call.admin.cluster_info().await?;
    let mut rows = Vec::new();
    for topic in call.admin.topic_list().await?.topic_list {
        if name::is_retry_topic(&topic) || name::is_dlq_topic(&topic) {
            continue;
        }
        // A topic that is not served right now is listed all the same, as in the original.
        let (cluster, groups) = match call.admin.topic_route(&topic).await {
            Ok(route) => {
                let broker = route
                    .broker_datas
                    .first()
                    .map(|broker| broker.broker_name.as_str());
                let groups = call.admin.topic_consumers(&topic).await.unwrap_or_default();
                (
                    cluster_of(&clusters, broker),
                    groups.group_list.into_iter().collect(),
                )
            }
            Err(_) => (String::new(), Vec::new()),
        };
        rows.push(Row {
            cluster,
            topic,
            groups,
        });
    }
    let as_json = || {
        let rows = rows.iter().map(
            |row| json!({"cluster": row.cluster, "topic": row.topic, "consumerGroups": row.groups}),
        );
        rows.collect()
    };
    if call.json(as_json)? {
        return Ok(());
    }
    writeln!(
        call.out,
        "{:<20}  {:<48}  {:<48}",
        "#Cluster Name", "#Topic", "#Consumer Group"
    )?;
    for row in &rows {
        let groups = if row.groups.is_empty() {
            &[String::new()][..]
        } else {
            &row.groups
        };
        for group in groups {
            writeln!(
                call.out,
                "{:<20}  {:<64}  {:<64}",
                front(&row.cluster, 20),
                front(&row.topic, 64),
                front(group, 64)
            )?;
        }
    }
    Ok(())
}

fn cluster_of(clusters: &ClusterInfo, broker_name: Option<&str>) -> String {
    let Some(broker_name) = broker_name else {
        return String::new();
    };
    let mut clusters = clusters.cluster_addr_table.iter();
    let found = clusters.find(|(_, names)| names.contains(broker_name));
    found
        .map(|(cluster, _)| cluster.clone())
        .unwrap_or_default()
}

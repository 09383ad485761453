//! Looking up addresses by cluster (RocketMQ: `CommandUtil`).

use std::collections::BTreeSet;

use raftmq_client::Admin;
use raftmq_proto::body::{BrokerData, ClusterInfo};
use serde_json::json;

use super::Call;
use crate::options::{Given, Need, Opt};

/// The original's words for a cluster that is not there.
const NO_CLUSTER: &str =
    "Make sure the specified clusterName exists or the name server connected to is correct.";

/// The broker groups of a cluster.
pub(crate) fn groups<'a>(
    info: &'a ClusterInfo,
    cluster: &str,
) -> anyhow::Result<Vec<&'a BrokerData>> {
    match info.cluster_addr_table.get(cluster) {
        Some(names) if !names.is_empty() => Ok(names
            .iter()
            .filter_map(|name| info.broker_addr_table.get(name))
            .collect()),
        _ => anyhow::bail!("[error] {NO_CLUSTER}"),
    }
}

/// Addresses of the leaders of a cluster's groups.
pub(crate) async fn leaders(admin: &Admin, cluster: &str) -> anyhow::Result<BTreeSet<String>> {
    let info = admin.cluster_info().await?;
    let leaders: BTreeSet<String> = groups(&info, cluster)?
        .into_iter()
        .filter_map(|group| group.broker_addrs.get(&0).cloned())
        .collect();
    if leaders.is_empty() {
        anyhow::bail!("no broker group of cluster {cluster} has a leader right now");
    }
    Ok(leaders)
}

/// Addresses of all members of a cluster's groups.
pub(crate) async fn members(admin: &Admin, cluster: &str) -> anyhow::Result<BTreeSet<String>> {
    let info = admin.cluster_info().await?;
    let groups = groups(&info, cluster)?;
    Ok(groups
        .into_iter()
        .flat_map(|group| group.broker_addrs.values().cloned())
        .collect())
}

/// The broker given by `-b`, else all members of the cluster given by `-c`, else of every cluster.
pub(crate) async fn brokers(admin: &Admin, given: &Given) -> anyhow::Result<BTreeSet<String>> {
    match (given.value("b"), given.value("c")) {
        (Some(address), _) => Ok([address.to_owned()].into()),
        (None, Some(cluster)) if !cluster.is_empty() => members(admin, cluster).await,
        (None, _) => {
            let groups = admin.cluster_info().await?.broker_addr_table.into_values();
            Ok(groups
                .flat_map(|group| group.broker_addrs.into_values())
                .collect())
        }
    }
}

/// Names a broker group by one of its members.
pub(crate) const MEMBER: Opt = Opt::value(
    "b",
    "brokerAddr",
    Need::OneOf,
    "address of any member of the broker group",
);

/// Names a broker group.
pub(crate) const GROUP: Opt = Opt::value(
    "g",
    "brokerName",
    Need::OneOf,
    "name of the broker group, which the name server knows",
);

/// A member of the broker group that `-b` or `-g` names; the leader, if there is one.
pub(crate) async fn any_member(admin: &Admin, given: &Given) -> anyhow::Result<String> {
    if let Some(address) = given.value("b") {
        return Ok(address.to_owned());
    }
    let name = given.value("g").unwrap_or_default();
    let info = admin.cluster_info().await?;
    let member = info
        .broker_addr_table
        .get(name)
        .and_then(|group| group.broker_addrs.values().next());
    match member {
        Some(address) => Ok(address.clone()),
        None => anyhow::bail!("the name server knows no broker group {name}"),
    }
}

/// Name of the group that a broker address belongs to.
pub(crate) async fn group_of(admin: &Admin, address: &str) -> anyhow::Result<String> {
    let info = admin.cluster_info().await?;
    let mut groups = info.broker_addr_table.into_values();
    match groups.find(|group| group.broker_addrs.values().any(|member| member == address)) {
        Some(group) => Ok(group.broker_name),
        None => anyhow::bail!("{NO_CLUSTER}"),
    }
}

/// Asks each of [`brokers`] for something, and says whether there was one.
pub(crate) async fn on_brokers(
    mut call: Call<'_>,
    ask: impl AsyncFn(&Admin, &str) -> raftmq_client::Result<()>,
) -> anyhow::Result<()> {
    let brokers = brokers(call.admin, call.given).await?;
    for address in &brokers {
        ask(call.admin, address).await?;
    }
    if !call.json(|| json!({"brokers": brokers}))? {
        let done = if brokers.is_empty() {
            "false"
        } else {
            "success"
        };
        writeln!(call.out, "{done}")?;
    }
    Ok(())
}

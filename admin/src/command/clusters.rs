//! Looking up addresses by cluster (RocketMQ: `CommandUtil`).

use std::collections::BTreeSet;

use raftmq_client::Admin;
use raftmq_proto::body::{BrokerData, ClusterInfo};

use crate::options::Given;

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

/// Name of the group that a broker address belongs to.
pub(crate) async fn group_of(admin: &Admin, address: &str) -> anyhow::Result<String> {
    let info = admin.cluster_info().await?;
    let mut groups = info.broker_addr_table.into_values();
    match groups.find(|group| group.broker_addrs.values().any(|member| member == address)) {
        Some(group) => Ok(group.broker_name),
        None => anyhow::bail!("{NO_CLUSTER}"),
    }
}

//! `brokerStatus`: a broker's runtime numbers.

use raftmq_proto::body::KvTable;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

use super::{Call, Command, Running, clusters, one_line};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "brokerStatus",
    class: "BrokerStatusSubCommand",
    description: "Fetch broker runtime status data.",
    own_options: &[
        Opt::value("b", "brokerAddr", Need::OneOf, "Broker address"),
        Opt::value("c", "clusterName", Need::OneOf, "which cluster"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let one = call.given.value("b").map(ToOwned::to_owned);
    let addresses: BTreeSet<String> = match &one {
        Some(address) => [address.clone()].into(),
        None => clusters::members(call.admin, call.given.value("c").unwrap_or_default()).await?,
    };
    let mut tables: BTreeMap<&str, KvTable> = BTreeMap::new();
    let mut failure = None;
    for address in &addresses {
        match call.admin.broker_runtime(address).await {
            Ok(table) => drop(tables.insert(address, table)),
            Err(error) => {
                let error = anyhow::Error::from(error);
                if one.is_none() {
                    // One dead member does not hide the others.
                    eprintln!("{address}: {}", one_line(&error));
                }
                failure = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (tables.is_empty(), failure) {
        return Err(error);
    }
    let as_json = || {
        let tables: BTreeMap<_, _> = tables
            .iter()
            .map(|(address, table)| (*address, json!(table.table)))
            .collect();
        json!(tables)
    };
    if call.json(as_json)? {
        return Ok(());
    }
    for (address, table) in &tables {
        for (key, value) in &table.table {
            if one.is_some() {
                writeln!(call.out, "{key:<32}: {value}")?;
            } else {
                writeln!(call.out, "{address:<24} {key:<32}: {value}")?;
            }
        }
    }
    Ok(())
}

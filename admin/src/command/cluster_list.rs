//! `clusterList`: every member of every broker group with its load.

use std::time::Duration;

use raftmq_client::Admin;
use raftmq_client::local_time::now_ms;
use raftmq_proto::body::{ClusterInfo, KvTable};
use serde_json::{Value, json};

use super::{Call, Command, Running, one_line};
use crate::options::{Need, Opt};

pub(crate) const COMMAND: Command = Command {
    name: "clusterList",
    class: "ClusterListSubCommand",
    description: "List cluster infos.",
    own_options: &[
        Opt::flag("m", "moreStats", "Print more stats"),
        Opt::value(
            "i",
            "interval",
            Need::Optional,
            "specify intervals numbers, it is in seconds",
        ),
        Opt::value("c", "clusterName", Need::Optional, "which cluster"),
    ],
    run: |call| -> Running<'_> { Box::pin(run(call)) },
};

/// A member and what it said of itself, nothing when it did not answer.
struct Member {
    cluster: String,
    broker_name: String,
    broker_id: i64,
    address: String,
    table: Option<KvTable>,
}

async fn run(mut call: Call<'_>) -> anyhow::Result<()> {
    let again = call.given.has("i");
    let interval = Duration::from_secs(call.given.number("i", 1)?);
    loop {
        let only = call.given.value("c").filter(|cluster| !cluster.is_empty());
        let members = members(call.admin, only).await?;
        if !call.json(|| members.iter().map(as_json).collect())? {
            let (more, now) = (call.given.has("m"), now_ms());
            writeln!(
                call.out,
                "{}",
                if more { more_stats_header() } else { header() }
            )?;
            for member in &members {
                let row = if more {
                    more_stats_row(member)
                } else {
                    row(member, now)
                };
                writeln!(call.out, "{row}")?;
            }
        }
        call.out.flush()?;
        if !again {
            return Ok(());
        }
        tokio::time::sleep(interval).await;
    }
}

async fn members(admin: &Admin, only: Option<&str>) -> anyhow::Result<Vec<Member>> {
    let info: ClusterInfo = admin.cluster_info().await?;
    let mut members = Vec::new();
    for (cluster, names) in &info.cluster_addr_table {
        if only.is_some_and(|only| only != cluster) {
            continue;
        }
        for group in names
            .iter()
            .filter_map(|name| info.broker_addr_table.get(name))
        {
            for (broker_id, address) in &group.broker_addrs {
                let table = match admin.broker_runtime(address).await {
                    Ok(table) => Some(table),
                    Err(error) => {
                        // The row is printed all the same, with zeros, as in the original.
                        eprintln!("{address}: {}", one_line(&error.into()));
                        None
                    }
                };
                members.push(Member {
                    cluster: cluster.clone(),
                    broker_name: group.broker_name.clone(),
                    broker_id: *broker_id,
                    address: address.clone(),
                    table,
                });
            }
        }
    }
    Ok(members)
}

fn as_json(member: &Member) -> Value {
    json!({
        "cluster": member.cluster,
        "brokerName": member.broker_name,
        "brokerId": member.broker_id,
        "address": member.address,
        "runtime": member.table.as_ref().map(|table| &table.table),
    })
}

impl Member {
    fn text(&self, key: &str) -> &str {
        let table = self.table.as_ref();
        table
            .and_then(|table| table.table.get(key))
            .map_or("", String::as_str)
    }

    /// The value as a number, 0 when it is missing or something else; of several numbers the first.
    fn number<N: std::str::FromStr + Default>(&self, key: &str) -> N {
        let first = self.text(key).split_whitespace().next();
        first.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// For keys that older brokers do not have.
    fn text_or_n(&self, key: &str) -> &str {
        match &self.table {
            Some(table) => table.table.get(key).map_or("N", String::as_str),
            None => "",
        }
    }
}

fn header() -> String {
    format!(
        "{:<22}  {:<22}  {:<4}  {:<22} {:<16}  {:>16}  {:>30}  {:<22}  {:<11}  {:<12}  {:<8}  {:<10}",
        "#Cluster Name",
        "#Broker Name",
        "#BID",
        "#Addr",
        "#Version",
        "#InTPS(LOAD)",
        "#OutTPS(LOAD)",
        "#Timer(Progress)",
        "#PCWait(ms)",
        "#Hour",
        "#SPACE",
        "#ACTIVATED"
    )
}

fn row(member: &Member, now_ms: i64) -> String {
    let input = format!(
        "{:>9.2}({},{}ms)",
        member.number::<f64>("putTps"),
        member.text("sendThreadPoolQueueSize"),
        member.text("sendThreadPoolQueueHeadWaitTimeMills"),
    );
    let output = format!(
        "{:>9.2}({},{}ms|{},{}ms)",
        member.number::<f64>("getTransferredTps"),
        member.text("pullThreadPoolQueueSize"),
        member.text("pullThreadPoolQueueHeadWaitTimeMills"),
        member.text_or_n("ackThreadPoolQueueSize"),
        member.text_or_n("ackThreadPoolQueueHeadWaitTimeMills"),
    );
    let timer = format!(
        "{}-{}({:.1}w, {:.1}, {:.1})",
        member.number::<i64>("timerReadBehind"),
        member.number::<i64>("timerOffsetBehind"),
        member.number::<i64>("timerCongestNum") as f64 / 10_000.0,
        member.number::<f64>("timerEnqueueTps"),
        member.number::<f64>("timerDequeueTps"),
    );
    let hours = match member.text("earliestMessageTimeStamp").parse::<i64>() {
        Ok(earliest) => now_ms.saturating_sub(earliest) as f64 / 1000.0 / 60.0 / 60.0,
        Err(_) => 0.0,
    };
    format!(
        "{:<22}  {:<22}  {:<4}  {:<22} {:<16}  {:>16}  {:>30}  {:<22}  {:>11}  {:<12}  {:<8}  {:>10}",
        member.cluster,
        member.broker_name,
        member.broker_id,
        member.address,
        member.text("brokerVersionDesc"),
        input,
        output,
        timer,
        member.text("pageCacheLockTimeMills"),
        format!("{hours:.2}"),
        format!("{:.4}", member.number::<f64>("commitLogDiskRatio")),
        member.text("brokerActive") == "true",
    )
}

fn more_stats_header() -> String {
    format!(
        "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
        "#Cluster Name",
        "#Broker Name",
        "#InTotalYest",
        "#OutTotalYest",
        "#InTotalToday",
        "#OutTotalToday"
    )
}

fn more_stats_row(member: &Member) -> String {
    let number = |key| member.number::<i64>(key);
    let put_this_morning = number("msgPutTotalTodayMorning");
    let get_this_morning = number("msgGetTotalTodayMorning");
    format!(
        "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
        member.cluster,
        member.broker_name,
        put_this_morning.saturating_sub(number("msgPutTotalYesterdayMorning")),
        get_this_morning.saturating_sub(number("msgGetTotalYesterdayMorning")),
        number("msgPutTotalTodayNow").saturating_sub(put_this_morning),
        number("msgGetTotalTodayNow").saturating_sub(get_this_morning),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pairs: &[(&str, &str)]) -> Member {
        let table = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Member {
            cluster: "RaftCluster".to_owned(),
            broker_name: "RaftNode00".to_owned(),
            broker_id: 0,
            address: "127.0.0.1:30911".to_owned(),
            table: (!pairs.is_empty()).then(|| KvTable {
                table: table.collect(),
            }),
        }
    }

    #[test]
    fn a_row_has_the_original_s_form() {
        let member = member(&[
            ("putTps", "12.345 6 7"),
            ("getTransferredTps", "1.0 2.0 3.0"),
            ("sendThreadPoolQueueSize", "0"),
            ("sendThreadPoolQueueHeadWaitTimeMills", "1"),
            ("pullThreadPoolQueueSize", "2"),
            ("pullThreadPoolQueueHeadWaitTimeMills", "3"),
            ("timerCongestNum", "15000"),
            ("pageCacheLockTimeMills", "4"),
            ("earliestMessageTimeStamp", "3600000"),
            ("commitLogDiskRatio", "0.25"),
            ("brokerVersionDesc", "V5_3_3"),
            ("brokerActive", "true"),
        ]);
        assert_eq!(
            row(&member, 9_000_000),
            "RaftCluster             RaftNode00              0     127.0.0.1:30911        V5_3_3      \
             \u{20}         12.35(0,1ms)               1.00(2,3ms|N,Nms)  0-0(1.5w, 0.0, 0.0)    \
             \u{20}          4  1.50          0.2500          true"
        );
    }

    #[test]
    fn a_silent_member_has_a_row_of_zeros() {
        let row = row(&member(&[]), 0);
        assert!(row.contains("     0.00(,ms)"), "{row}");
        assert!(row.contains("     0.00(,ms|,ms)"), "{row}");
        assert!(row.ends_with("0.00          0.0000         false"), "{row}");
    }

    #[test]
    fn totals_are_differences() {
        let row = more_stats_row(&member(&[
            ("msgPutTotalYesterdayMorning", "1"),
            ("msgPutTotalTodayMorning", "4"),
            ("msgPutTotalTodayNow", "9"),
        ]));
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["RaftCluster", "RaftNode00", "3", "0", "5", "0"]
        );
    }
}

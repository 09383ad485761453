//! `quickstart producer|consumer`: sends a thousand messages, receives them, as the original's example
//! programs do.

use std::collections::HashSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use raftmq_admin::command::one_line;
use raftmq_admin::options::{self, COMMON, Given, Need, Opt};
use raftmq_client::{
    ConsumeFrom, ConsumeStatus, Message, MessageExt, Producer, ProducerOptions, PushConsumer,
    PushConsumerOptions, Subscription,
};
use tokio::sync::watch;

const NAME_SERVERS: &str = "127.0.0.1:9876";
const TOPIC: &str = "TopicTest";
const PRODUCER_GROUP: &str = "please_rename_unique_group_name";
const CONSUMER_GROUP: &str = "please_rename_unique_group_name_4";
/// As in the original: long enough for any failover.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// Failed sends in a row after which there is no cluster to send to.
const FAILURES_MAX: u32 = 10;

const OPTIONS: [Opt; 5] = [
    COMMON[0],
    COMMON[1],
    Opt::value("t", "topic", Need::Optional, "Topic, default TopicTest"),
    Opt::value("g", "group", Need::Optional, "Producer or consumer group"),
    Opt::value(
        "c",
        "count",
        Need::Optional,
        "Messages to send (default 1000) or to wait for",
    ),
];
const DEADLINE: Opt = Opt::value(
    "d",
    "deadline",
    Need::Optional,
    "Consumer: give up with exit code 1 after this many seconds (default 120 with -c)",
);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: quickstart producer|consumer [options], -h for the options";
    let Some(role) = arguments.first().map(String::as_str) else {
        eprintln!("{usage}");
        return ExitCode::FAILURE;
    };
    let mut known = OPTIONS.to_vec();
    match role {
        "producer" => {}
        "consumer" => known.push(DEADLINE),
        _ => {
            eprintln!("{usage}");
            return ExitCode::FAILURE;
        }
    }
    let given = match options::parse(&known, &arguments[1..]) {
        Ok(given) => given,
        Err(refused) => {
            eprintln!("{refused}");
            eprint!("{}", options::help(&format!("quickstart {role}"), &known));
            return ExitCode::FAILURE;
        }
    };
    if given.has("h") {
        print!("{}", options::help(&format!("quickstart {role}"), &known));
        return ExitCode::SUCCESS;
    }
    raftmq_admin::trace_to_stderr();
    let outcome = raftmq_admin::runtime().and_then(|runtime| {
        runtime.block_on(async {
            if role == "producer" {
                produce(&given).await
            } else {
                consume(&given).await
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if raftmq_admin::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart {role} failed: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

async fn produce(given: &Given) -> anyhow::Result<()> {
    let topic = given.value("t").unwrap_or(TOPIC);
    let count: u64 = given.number("c", 1000)?;
    let name_servers = raftmq_admin::name_servers(given.value("n"), NAME_SERVERS);
    let group = given.value("g").unwrap_or(PRODUCER_GROUP);
    let producer = Producer::start(&name_servers, ProducerOptions::new(group))?;
    let (mut failures, mut in_a_row) = (0u64, 0);
    for number in 0..count {
        let message = Message::new(topic, format!("Hello RocketMQ {number}")).with_tag("TagA");
        match producer.send_within(message, SEND_TIMEOUT).await {
            Ok(result) => {
                in_a_row = 0;
                writeln!(io::stdout(), "{result}")?;
            }
            Err(error) => {
                failures += 1;
                in_a_row += 1;
                eprintln!("{}", one_line(&error.into()));
                anyhow::ensure!(in_a_row < FAILURES_MAX, "{in_a_row} sends in a row failed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    producer.shutdown().await;
    anyhow::ensure!(
        failures == 0,
        "{failures} of {count} messages were not acknowledged"
    );
    Ok(())
}

/// What the listener shares with the waiting main task.
struct Received {
    /// Keys of the messages seen, while a number of them is waited for: a message may come twice.
    keys: Mutex<HashSet<String>>,
    count: watch::Sender<u64>,
}

async fn consume(given: &Given) -> anyhow::Result<()> {
    let topic = given.value("t").unwrap_or(TOPIC);
    let group = given.value("g").unwrap_or(CONSUMER_GROUP).to_owned();
    let wanted: Option<u64> = given.has("c").then(|| given.number("c", 0)).transpose()?;
    let deadline = match (given.has("d"), wanted) {
        (false, None) => None,
        _ => Some(Duration::from_secs(given.number("d", 120)?)),
    };
    let name_servers = raftmq_admin::name_servers(given.value("n"), NAME_SERVERS);
    let options = PushConsumerOptions {
        subscriptions: vec![Subscription::tags(topic, "*")],
        from: ConsumeFrom::FirstOffset,
        ..PushConsumerOptions::new(group.clone())
    };
    let received = Arc::new(Received {
        keys: Mutex::new(HashSet::new()),
        count: watch::Sender::new(0),
    });
    let mut count = received.count.subscribe();
    let listener = {
        let received = Arc::clone(&received);
        move |messages: Vec<MessageExt>| {
            receive(&received, &group, &messages, wanted);
            std::future::ready(ConsumeStatus::Success)
        }
    };
    let consumer = PushConsumer::start(&name_servers, options, listener).await?;
    writeln!(io::stdout(), "Consumer Started.")?;
    let enough = async {
        match wanted {
            // An error is the sender's end, which cannot come while the listener lives.
            Some(wanted) => drop(count.wait_for(|count| *count >= wanted).await),
            None => std::future::pending().await,
        }
    };
    let too_late = async {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        () = enough => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C"),
        () = too_late => Err(anyhow::anyhow!(
            "{} of {} messages within {} s",
            *received.count.borrow(),
            wanted.unwrap_or_default(),
            deadline.unwrap_or_default().as_secs()
        )),
    };
    let instance = consumer.instance().clone();
    consumer.shutdown().await;
    instance.shutdown().await;
    outcome
}

fn receive(received: &Received, group: &str, messages: &[MessageExt], wanted: Option<u64>) {
    let texts: Vec<String> = messages.iter().map(ToString::to_string).collect();
    let thread = messages
        .first()
        .map_or(1, |message| message.queue_id % 20 + 1);
    // A reader of our output that has gone must not stop the consumption.
    drop(writeln!(
        io::stdout(),
        "ConsumeMessageThread_{group}_{thread} Receive New Messages: [{}] ",
        texts.join(", ")
    ));
    let Some(wanted) = wanted else { return };
    let mut keys = received.keys.lock().unwrap_or_else(PoisonError::into_inner);
    for message in messages {
        if (keys.len() as u64) < wanted {
            keys.insert(message.msg_id.clone());
        }
    }
    received.count.send_replace(keys.len() as u64);
}

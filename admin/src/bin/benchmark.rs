//! `benchmark producer`: sends as fast as it can and prints what it measured, with the main options and
//! the output lines of the original's benchmark.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftmq_admin::command::one_line;
use raftmq_admin::options::{self, COMMON, Given, Need, Opt};
use raftmq_client::local_time::{LocalTime, now_ms};
use raftmq_client::{Message, Producer, ProducerOptions};
use raftmq_proto::frame::SerializeType;

const OPTIONS: [Opt; 9] = [
    COMMON[0],
    COMMON[1],
    Opt::value(
        "t",
        "topic",
        Need::Optional,
        "Topic name, Default: BenchmarkTest",
    ),
    Opt::value(
        "w",
        "threadCount",
        Need::Optional,
        "Sends under way at once, Default: 64",
    ),
    Opt::value(
        "s",
        "messageSize",
        Need::Optional,
        "Message Size, Default: 128",
    ),
    Opt::value(
        "k",
        "keyEnable",
        Need::Optional,
        "Message Key Enable, Default: false",
    ),
    Opt::value(
        "q",
        "messageQuantity",
        Need::Optional,
        "Send message quantity, Default: 0, running forever",
    ),
    Opt::value(
        "ri",
        "reportInterval",
        Need::Optional,
        "The number of ms between reports, Default: 10000",
    ),
    Opt::value(
        "",
        "duration",
        Need::Optional,
        "Seconds after which to end, Default: 0, running forever",
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) != Some("producer") {
        eprintln!("usage: benchmark producer [options], -h for the options");
        return ExitCode::FAILURE;
    }
    let given = match options::parse(&OPTIONS, &arguments[1..]) {
        Ok(given) if given.has("h") => {
            print!("{}", options::help("benchmark producer", &OPTIONS));
            return ExitCode::SUCCESS;
        }
        Ok(given) => given,
        Err(refused) => {
            eprintln!("{refused}");
            eprint!("{}", options::help("benchmark producer", &OPTIONS));
            return ExitCode::FAILURE;
        }
    };
    raftmq_admin::trace_to_stderr();
    let outcome = raftmq_admin::runtime().and_then(|runtime| runtime.block_on(produce(&given)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benchmark producer failed: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Counts of all senders since the start.
#[derive(Default)]
struct Totals {
    /// Messages whose sending has begun.
    begun: AtomicU64,
    sent: AtomicU64,
    /// Sends without an answer of a broker.
    failed: AtomicU64,
    /// Sends that a broker refused.
    refused: AtomicU64,
    micros: AtomicU64,
    micros_max: AtomicU64,
    stop: AtomicBool,
    last_failure: Mutex<Option<String>>,
}

/// How long sends took, in microseconds: 16 steps per power of two, so that a percentile is at most 7 %
/// too high, up to a bit over a minute.
struct Histogram {
    buckets: Vec<AtomicU64>,
}

impl Histogram {
    const STEPS: u64 = 16;

    fn new() -> Histogram {
        Histogram {
            buckets: (0..27 * Self::STEPS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn bucket(micros: u64) -> u64 {
        let micros = micros.max(Self::STEPS);
        let power = u64::from(micros.ilog2());
        let step = (micros >> (power - 4)) - Self::STEPS;
        (power - 4) * Self::STEPS + step
    }

    fn add(&self, micros: u64) {
        let index = (Self::bucket(micros) as usize).min(self.buckets.len() - 1);
        self.buckets[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Milliseconds within which this share of the sends was over.
    fn percentile(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let rank = (counts.iter().sum::<u64>() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (power, step) = (index as u64 / Self::STEPS, index as u64 % Self::STEPS);
                return ((Self::STEPS + step + 1) << power) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// The counts at one moment.
#[derive(Clone, Copy)]
struct Snapshot {
    at: Instant,
    sent: u64,
    micros: u64,
}

impl Totals {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            at: Instant::now(),
            sent: self.sent.load(Ordering::Relaxed),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }

    /// The original's columns for what happened since `before`.
    fn since(&self, before: &Snapshot) -> String {
        let now = self.snapshot();
        let sent = now.sent - before.sent;
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-9);
        let average = (now.micros - before.micros) as f64 / 1000.0 / (sent.max(1)) as f64;
        format!(
            "Send TPS: {} | Max RT(ms): {} | Average RT(ms): {average:7.3} | Send Failed: {} | \
             Response Failed: {}",
            (sent as f64 / seconds) as u64,
            self.micros_max.load(Ordering::Relaxed).div_ceil(1000),
            self.failed.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

async fn produce(given: &Given) -> anyhow::Result<()> {
    let topic = given.value("t").unwrap_or("BenchmarkTest").to_owned();
    let senders: usize = given.number("w", 64)?;
    let size: usize = given.number("s", 128)?;
    let keys = given.truth("k");
    let quantity: u64 = given.number("q", 0)?;
    let duration: u64 = given.number("duration", 0)?;
    let interval = Duration::from_millis(given.number("ri", 10_000)?);
    anyhow::ensure!(senders > 0 && size > 0, "-w and -s must be at least 1");
    anyhow::ensure!(!interval.is_zero(), "-ri must be at least 1");
    writeln!(
        io::stdout(),
        "topic: {topic}, threadCount: {senders}, messageSize: {size}, keyEnable: {keys}, \
         messageQuantity: {quantity}, duration: {duration}, reportInterval: {}",
        interval.as_millis()
    )?;
    let options = ProducerOptions {
        compress_over: usize::MAX,
        // As the original's benchmark does.
        serialize: SerializeType::RocketMq,
        ..ProducerOptions::new("benchmark_producer")
    };
    let name_servers = raftmq_admin::name_servers(given.value("n"), "127.0.0.1:9876");
    let producer = Producer::start(&name_servers, options)?;
    let body: Bytes = (0..size)
        .map(|index| b'a' + (index * 7 % 26) as u8)
        .collect();
    let totals = Arc::new(Totals::default());
    let histogram = Arc::new(Histogram::new());
    let start = totals.snapshot();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..senders {
        let (producer, totals) = (producer.clone(), Arc::clone(&totals));
        let (histogram, topic, body) = (Arc::clone(&histogram), topic.clone(), body.clone());
        tasks.spawn(async move {
            while !totals.stop.load(Ordering::Relaxed) {
                let number = totals.begun.fetch_add(1, Ordering::Relaxed);
                if quantity > 0 && number >= quantity {
                    break;
                }
                let mut message = Message::new(topic.clone(), body.clone());
                if keys {
                    message = message.with_keys((now_ms() / 1000).to_string());
                }
                send(&producer, message, &totals, &histogram).await;
            }
        });
    }
    let end = async {
        match duration {
            0 => drop(tokio::signal::ctrl_c().await),
            seconds => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
    };
    tokio::pin!(end);
    let mut last = start;
    let mut reports = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    loop {
        tokio::select! {
            done = tasks.join_next() => if done.is_none() { break },
            () = &mut end, if !totals.stop.load(Ordering::Relaxed) => {
                totals.stop.store(true, Ordering::Relaxed);
            }
            _ = reports.tick() => {
                let time = LocalTime::from_epoch_ms(now_ms()).to_millis_text();
                writeln!(io::stdout(), "Current Time: {time} | {}", totals.since(&last))?;
                last = totals.snapshot();
            }
        }
    }
    let total = [&totals.sent, &totals.failed, &totals.refused];
    let total: u64 = total
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .sum();
    writeln!(
        io::stdout(),
        "[Complete] Send Total: {total} | {}",
        totals.since(&start)
    )?;
    writeln!(
        io::stdout(),
        "RT percentiles(ms): p50 {:.3} | p99 {:.3} | p99.9 {:.3}",
        histogram.percentile(0.5),
        histogram.percentile(0.99),
        histogram.percentile(0.999)
    )?;
    producer.shutdown().await;
    let failure = totals
        .last_failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match failure {
        Some(failure) => anyhow::bail!("last failure: {failure}"),
        None => Ok(()),
    }
}

async fn send(producer: &Producer, message: Message, totals: &Totals, histogram: &Histogram) {
    let begun = Instant::now();
    match producer.send(message).await {
        Ok(_) => {
            let micros = begun.elapsed().as_micros() as u64;
            totals.sent.fetch_add(1, Ordering::Relaxed);
            totals.micros.fetch_add(micros, Ordering::Relaxed);
            totals.micros_max.fetch_max(micros, Ordering::Relaxed);
            histogram.add(micros);
        }
        Err(error) => {
            let counter = if error.code().is_some() {
                &totals.refused
            } else {
                &totals.failed
            };
            counter.fetch_add(1, Ordering::Relaxed);
            *totals
                .last_failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(one_line(&error.into()));
            // A cluster that refuses at once must not be hammered; the original waits 3 s.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_close() {
        let histogram = Histogram::new();
        for micros in 1..=10_000 {
            histogram.add(micros);
        }
        for (share, exact) in [(0.5, 5.0), (0.99, 9.9), (0.999, 9.99)] {
            let measured = histogram.percentile(share);
            assert!(
                measured >= exact && measured <= exact * 1.07,
                "{share}: {measured}"
            );
        }
        histogram.add(u64::MAX);
    }
}

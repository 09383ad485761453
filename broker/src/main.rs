//! `mqbroker`: runs one member of a broker group.

use std::io::Write as _;
use std::time::Duration;

use raftmq_broker::config::cli::{self, Options, Print};
use raftmq_broker::config::{Config, checked};
use raftmq_broker::{Broker, logging};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How long the threads of a member that was taken down may take to let go of its store.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);

fn main() {
    let options = match cli::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let outcome = run(&options);
    if let Err(error) = &outcome {
        let reason = format!("{error:#}").replace('\n', "; ");
        tracing::error!("{reason}");
        // The log may be in a file; whoever started the process looks here.
        eprintln!("mqbroker: {reason}");
    }
    drop(std::io::stdout().flush());
    // SAFETY: nothing is left to be done at an exit: the store is closed, or must not be touched.
    // What RocksDB would take apart there, a thread that is late may still be using.
    unsafe { libc::_exit(i32::from(outcome.is_err())) }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let config = read_config(options)?;
    if let Some(print) = options.print {
        return print_config(&config, print);
    }
    let _flushed_at_exit = logging::start(&config.node.logging)?;
    for warning in &config.values.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("broker")
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

fn read_config(options: &Options) -> anyhow::Result<Config> {
    let mut file = Vec::new();
    if let Some(path) = &options.file {
        file = std::fs::read(path)
            .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
    }
    let mut config = checked::read(
        &file,
        options.namesrv.as_deref(),
        &checked::Environment::of_process(),
    )?;
    if let Some(path) = &options.file {
        config
            .values
            .set("brokerConfigPath", path.to_string_lossy());
    }
    Ok(config)
}

fn print_config(config: &Config, print: Print) -> anyhow::Result<()> {
    let keys = match print {
        Print::All => config.values.all(),
        Print::Important => config.values.important(),
    };
    let mut out = std::io::stdout().lock();
    for (key, value) in keys {
        writeln!(out, "{key}={value}")?;
    }
    Ok(())
}

/// Why a member is not running any more.
enum Ended {
    /// Somebody asked for it.
    Stop,
    /// It goes on as a new one, with another store.
    Restart,
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before anything else, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut patience = Duration::ZERO;
    while let Ended::Restart = run_member(config.clone(), &mut stop, patience).await? {
        tracing::info!("starting again");
        patience = LET_GO_WITHIN;
    }
    Ok(())
}

/// Starts the member; waits up to `patience` for its former self to let go of the store.
async fn start(config: Config, patience: Duration) -> anyhow::Result<Broker> {
    let deadline = Instant::now() + patience;
    loop {
        match Broker::start(config.clone()).await {
            Err(error) if error.is_locked() && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

async fn run_member(
    config: Config,
    stop: &mut impl AsyncFnMut(),
    patience: Duration,
) -> anyhow::Result<Ended> {
    let namesrv = config.node.nameservers.addresses.join(";");
    let (name, address) = (
        config.group.broker_name.clone(),
        config.node.listen.address(),
    );
    // A member that has to be brought up from another one starts as long as that takes.
    let broker = tokio::select! {
        broker = start(config, patience) => broker?,
        () = stop() => return Ok(Ended::Stop),
    };
    let booted = async {
        broker.role_known().await;
        let mut text = format!("The broker[{name}, {address}] boot success. serializeType=JSON");
        if !namesrv.is_empty() {
            text.push_str(&format!(" and name server is {namesrv}"));
        }
        tracing::info!("{text}");
        let mut out = std::io::stdout().lock();
        // Nobody may be listening any more; the broker serves all the same.
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
        drop(out);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        () = booted => return Ok(Ended::Stop),
        reason = broker.failed() => Err(anyhow::anyhow!("{reason}")),
        () = stop() => Ok(Ended::Stop),
        reason = broker.restart_wanted() => {
            tracing::warn!("this member is taken down and started again: {reason}");
            Ok(Ended::Restart)
        }
    };
    if ended.is_ok() {
        tracing::info!("stopping");
        broker.shutdown().await;
    }
    ended
}

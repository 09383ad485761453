//! `mqbroker`: runs a member of a broker group, or one of each of several groups.
//!
//! Members of one process share its tokio runtime and block cache. Everything else is their own: threads and port of
//! their Raft group, store, client ports; each can be taken down and started again while the others go on.

use std::io::Write as _;
use std::time::Duration;

use raftmq_broker::config::cli::{self, Options, Print};
use raftmq_broker::config::{Config, checked, together};
use raftmq_broker::{Broker, logging};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tracing::Instrument as _;

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

/// A member that this process is to run.
struct Member {
    /// Its file, for errors; none when it has all defaults.
    file: Option<String>,
    config: Config,
}

/// Says which of several configurations an error is about.
fn about(file: Option<&str>, count: usize, error: anyhow::Error) -> anyhow::Error {
    match file {
        Some(file) if count > 1 => error.context(file.to_owned()),
        _ => error,
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let members = read_members(options)?;
    if let Some(print) = options.print {
        return members.iter().try_for_each(|member| {
            if let (Some(file), true) = (&member.file, members.len() > 1) {
                writeln!(std::io::stdout(), "# {file}")?;
            }
            print_config(&member.config, print)
        });
    }
    // The log is the process's: where the first one says.
    let logging = members.first().map(|member| &member.config.node.logging);
    let _flushed_at_exit = logging.map(logging::start).transpose()?;
    for member in &members {
        for warning in &member.config.values.warnings {
            match &member.file {
                Some(file) if members.len() > 1 => tracing::warn!("{file}: {warning}"),
                _ => tracing::warn!("{warning}"),
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("broker")
        .enable_all()
        .build()?;
    // Members start and stop on this thread, side by side; what they do in between is on the runtime's.
    runtime.block_on(LocalSet::new().run_until(serve(members)))
}

fn read_members(options: &Options) -> anyhow::Result<Vec<Member>> {
    let namesrv = options.namesrv.as_deref();
    let count = options.files.len();
    let mut members = Vec::new();
    for path in &options.files {
        let file = path.display().to_string();
        let text =
            std::fs::read(path).map_err(|error| anyhow::anyhow!("cannot read {file}: {error}"))?;
        let config = checked::read(&text, namesrv, &checked::Environment::of_process());
        let mut config = config.map_err(|error| about(Some(&file), count, error.into()))?;
        config.values.set("brokerConfigPath", &file);
        members.push(Member {
            file: Some(file),
            config,
        });
    }
    if members.is_empty() {
        let config = checked::read(b"", namesrv, &checked::Environment::of_process())?;
        members.push(Member { file: None, config });
    }
    let named = members.iter().map(|member| {
        let file = member.file.as_deref().unwrap_or_default();
        (file, &member.config)
    });
    together::check(named)?;
    Ok(members)
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

/// Nobody may be listening any more; the broker serves all the same.
fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Why a member is not running any more.
enum Ended {
    /// Somebody asked for it.
    Stop,
    /// It goes on as a new one, with another store.
    Restart,
}

/// Runs the members until somebody asks the process to stop, or one of them cannot go on: then the others hand their
/// leadership over and stop too, and whoever watches the process starts it again.
async fn serve(members: Vec<Member>) -> anyhow::Result<()> {
    // Before anything else, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // How often somebody asked for it.
    let (stop, stopped) = watch::channel(0);
    let count = members.len();
    let mut running = JoinSet::new();
    for member in members {
        let stopped = stopped.clone();
        // What is logged says of which group it is; an error's level, so that no filter takes that away.
        let span = tracing::error_span!("member", group = member.config.group.name);
        let run = async move {
            let outcome = keep_running(&member.config, stopped).await;
            outcome.map_err(|error| about(member.file.as_deref(), count, error))
        };
        running.spawn_local(run.instrument(span));
    }
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            _ = terminate.recv() => stop.send_modify(|asked| *asked += 1),
            _ = interrupt.recv() => stop.send_modify(|asked| *asked += 1),
            ended = running.join_next() => match ended {
                Some(ended) => {
                    let ended = ended.map_err(anyhow::Error::from).and_then(|ended| ended);
                    if let Err(error) = &ended && outcome.is_ok() && count > 1 {
                        tracing::error!("{error:#}: the other members of this process stop");
                    }
                    outcome = outcome.and(ended);
                    stop.send_modify(|asked| *asked = (*asked).max(1));
                }
                None => return outcome,
            },
        }
    }
}

/// Runs a member, and its successors with other stores, until the process is to stop.
async fn keep_running(config: &Config, mut stopped: watch::Receiver<u32>) -> anyhow::Result<()> {
    let mut known = 0;
    let mut stop = async || {
        // Its sender lives for as long as this.
        if let Ok(asked) = stopped.wait_for(|asked| *asked > known).await {
            known = *asked;
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
    let forward = config.node.shutdown_forward;
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
        print_line(&text);
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
    match &ended {
        Ok(Ended::Stop) => {
            tracing::info!("stopping");
            let enough = async {
                tokio::select! {
                    () = tokio::time::sleep(forward) => {}
                    () = stop() => tracing::info!("told to stop once more"),
                }
            };
            broker.shutdown(enough).await;
        }
        Ok(Ended::Restart) => broker.shutdown(std::future::ready(())).await,
        Err(_failed) => {}
    }
    ended
}

//! `mqnamesrv`: the nameserver as a process.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use raftmq_namesrv::config::Warning;
use raftmq_namesrv::{Config, NameServer, logging};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

fn main() -> ExitCode {
    match run(&command().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqnamesrv: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let file = Arg::new("configFile")
        .short('c')
        .long("configFile")
        .value_name("FILE");
    let address = Arg::new("namesrvAddr")
        .short('n')
        .long("namesrvAddr")
        .value_name("ADDRESS");
    let print = Arg::new("printConfigItem")
        .short('p')
        .long("printConfigItem")
        .action(ArgAction::SetTrue);
    Command::new("mqnamesrv")
        .about("RaftMQ nameserver")
        .arg(file.help("Name server config properties file"))
        .arg(address.help("Accepted for the sake of scripts, has no effect"))
        .arg(print.help("Print all config items and exit"))
}

fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    let (config, warnings) = read_config(arguments.get_one::<String>("configFile"))?;
    if arguments.get_flag("printConfigItem") {
        warnings.iter().for_each(|warning| eprintln!("{warning}"));
        print(&config.lines());
        return Ok(());
    }
    let _logging = logging::start(config.settings())?;
    for warning in &warnings {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

fn read_config(file: Option<&String>) -> anyhow::Result<(Config, Vec<Warning>)> {
    let Some(file) = file else {
        return Ok(Config::from_properties(b""));
    };
    let bytes = std::fs::read(file).with_context(|| format!("cannot read config file {file}"))?;
    let (mut config, warnings) = Config::from_properties(&bytes);
    // Changes made by updateNamesrvConfig go to the file they belong in.
    config.settings_mut().config_store_path.clone_from(file);
    Ok((config, warnings))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let bind_address = config.settings().bind_address.clone();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let server = NameServer::start(config)?;
    let port = server.local_addr().port();
    // Scripts wait for this line.
    let tip =
        format!("The Name Server boot success. serializeType=JSON, address {bind_address}:{port}");
    print(&format!("{tip}\n"));
    info!("{tip}");
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
    server.shutdown().await;
    info!("stopped");
    Ok(())
}

/// Prints to stdout; that nobody reads it is no reason to stop.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _closed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

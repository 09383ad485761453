//! `storetool`: work on a store whose member is stopped.
//!
//! `dump`, `verify` and `marks` change nothing, and go on behind damage; `import` makes a new
//! store from that of a Java broker. They live in this crate because it is the lowest one that may
//! know both the store's and Raft's bytes and the brokers' configuration.

mod dump;
mod import;
mod marks;
mod output;
mod queues;
mod verify;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use raftmq_store::inspect::Marks;

use output::Output;

/// Runs the tool; the arguments begin with the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => error.exit(),
    };
    let mut out = Output::stdout(json(&matches));
    match run(&matches, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read the output has seen enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storetool: {}", format!("{error:#}").replace('\n', "; "));
            ExitCode::from(2)
        }
    }
}

/// Runs a command; false when it found something wrong.
fn run(matches: &ArgMatches, out: &mut Output) -> anyhow::Result<bool> {
    match matches.subcommand() {
        Some(("dump", given)) => {
            let number = |name: &str| given.get_one::<u64>(name).copied();
            let options = dump::Options {
                from: number("from"),
                count: number("count"),
                records: given.get_flag("records"),
            };
            dump::run(&path(given, "segment"), &options, out).map(|()| true)
        }
        Some(("verify", given)) => verify::run(&Place::of(given)?, out),
        Some(("marks", given)) => marks::run(&Place::of(given)?, out).map(|()| true),
        Some(("import", given)) => {
            let options = import::Options {
                from: path(given, "from"),
                log: given.get_one::<PathBuf>("from-commitlog").cloned(),
                conf: path(given, "conf"),
                dry_run: given.get_flag("dry-run"),
                committed_only: given.get_flag("committed-only"),
                skip_damaged: given.get_flag("skip-damaged"),
            };
            import::run(&options, out).map(|()| true)
        }
        _ => anyhow::bail!("no command given: see --help"),
    }
}

fn json(matches: &ArgMatches) -> bool {
    let given = matches.subcommand().map(|(_, given)| given);
    given.is_some_and(|given| given.get_flag("json"))
}

fn path(given: &ArgMatches, name: &str) -> PathBuf {
    given.get_one::<PathBuf>(name).cloned().unwrap_or_default()
}

/// The folders of a store.
struct Place {
    root: PathBuf,
    commit_log: PathBuf,
}

impl Place {
    fn of(given: &ArgMatches) -> anyhow::Result<Place> {
        let root = path(given, "store");
        let other = given.get_one::<PathBuf>("commitlog").cloned();
        let commit_log = other.unwrap_or_else(|| root.join("commitlog"));
        for dir in [&root, &commit_log] {
            anyhow::ensure!(
                dir.is_dir(),
                "{} is no folder: name the store folder (storePathRootDir), and with --commitlog \
                 the commit log's if it is elsewhere (storePathCommitLog)",
                dir.display()
            );
        }
        Ok(Place { root, commit_log })
    }

    fn marks(&self) -> Marks<'_> {
        Marks {
            root: &self.root,
            commit_log: &self.commit_log,
        }
    }

    fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Bytes of a segment, by the first of its sources that says so.
    fn segment_bytes(&self, first: Option<&raftmq_store::inspect::SegmentName>) -> Option<u64> {
        let marks = self.marks();
        let checkpoint = marks.checkpoint().ok().flatten();
        let identity = marks.identity().ok().flatten().unwrap_or_default();
        let from_identity = || {
            let mut lines = identity.iter();
            let line = lines.find(|(key, _)| key == "mappedFileSizeCommitLog")?;
            line.1.parse().ok()
        };
        let known = checkpoint.map(|mark| mark.segment_bytes);
        let known = known.or_else(from_identity).filter(|bytes| *bytes > 0);
        known.or_else(|| first.map(|first| first.len))
    }
}

fn file_and_byte(path: &Path, offset: Option<u64>) -> String {
    match offset {
        Some(offset) => format!("{} at byte {offset}", path.display()),
        None => path.display().to_string(),
    }
}

fn command() -> Command {
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print JSON");
    let store = Arg::new("store")
        .value_name("STORE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("Store folder of a stopped member (storePathRootDir)");
    let commit_log = Arg::new("commitlog")
        .long("commitlog")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Folder of the commit log, when it is not commitlog/ below the store folder");
    let number = |name: &'static str, value: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_parser(value_parser!(u64))
    };
    Command::new("storetool")
        .about("Looks at the store of a stopped member, and imports RocketMQ's")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("dump")
                .about("Prints the entries of a segment file, also beside a running member")
                .arg(
                    Arg::new("segment")
                        .value_name("FILE")
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("Segment file of the commit log, with its name of 20 digits"),
                )
                .arg(number("from", "POSITION").help("Begin at this position of the log"))
                .arg(number("count", "N").help("Print at most so many entries"))
                .arg(
                    Arg::new("records")
                        .long("records")
                        .action(ArgAction::SetTrue)
                        .help("Print the message records of each entry too"),
                )
                .arg(json.clone().help("Print one JSON object a line")),
        )
        .subcommand(
            Command::new("verify")
                .about("Checks everything in a store; exit code 1 when something is wrong")
                .arg(store.clone())
                .arg(commit_log.clone())
                .arg(json.clone()),
        )
        .subcommand(
            Command::new("marks")
                .about("Prints how far a store's log and state reach, and whose it is")
                .arg(store)
                .arg(commit_log)
                .arg(json.clone()),
        )
        .subcommand(import_command(json))
}

fn import_command(json: Arg) -> Command {
    let folder = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("DIR")
            .value_parser(value_parser!(PathBuf))
    };
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("import")
        .about("Makes a member's store from that of a RocketMQ broker, plain or DLedger")
        .arg(
            folder("from")
                .required(true)
                .help("Store folder of the stopped RocketMQ broker (storePathRootDir)"),
        )
        .arg(folder("from-commitlog").help(
            "Folder of its log, when it is neither commitlog/ nor dledger-ID/data below that",
        ))
        .arg(
            Arg::new("conf")
                .short('c')
                .long("configFile")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Configuration of the member whose store is made"),
        )
        .arg(flag("dry-run").help("Say what would be imported, and write nothing"))
        .arg(flag("committed-only").help(
            "Leave out DLedger entries beyond the committed index of its checkpoint, which may lag",
        ))
        .arg(flag("skip-damaged").help("Import what can be read around damaged places"))
        .arg(json)
}

#[cfg(test)]
mod tests;

//! The process of one seed: what it prints, and how it ends.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Simulation;
use crate::history::Violation;
use crate::os::{self, MS, Nanos, SECOND};
use crate::random::Random;
use crate::run::{Command, Flaw};

/// A task panicked.
pub(super) static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs a seed. Prints what is to be said about it.
pub fn run(command: &Command) -> ExitCode {
    let (seed, trace, flaw) = (command.seeds.start, command.trace, command.flaw);
    let base = ["/dev/shm", "/tmp"].into_iter().find(|dir| {
        let dir = std::path::Path::new(dir);
        tempfile::tempdir_in(dir).is_ok()
    });
    let folder = tempfile::tempdir_in(base.unwrap_or(".")).expect("a temporary folder");
    std::env::set_current_dir(folder.path()).expect("the temporary folder");
    std::panic::set_hook(Box::new(|info| {
        PANICKED.store(true, Ordering::Relaxed);
        println!("n{}: {info}", os::node() as i64);
    }));
    if trace {
        trace_members();
    }
    // A thread of its own: this one's hash maps have their keys already.
    let simulation = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || simulate(seed, trace, flaw));
    let failed = simulation.map(|thread| thread.join().unwrap_or(true));
    drop(std::io::stdout().flush());
    drop(folder);
    // Nothing of the members is needed any more; taking them down in order takes time.
    // SAFETY: ends the process.
    unsafe { libc::_exit(i32::from(failed.unwrap_or(true))) }
}

/// True when an invariant is broken.
fn simulate(seed: u64, trace: bool, flaw: Option<Flaw>) -> bool {
    let mut random = Random::new(seed);
    os::simulate(random.next());
    let mut simulation = Simulation::new(&mut random, trace, flaw);
    let outcome = simulation.go();
    let (delivered_digest, delivered) = simulation.network.digest();
    let failed = outcome.is_err();
    if let Err(Violation { invariant, what }) = outcome {
        println!("{:#?}", simulation.plan);
        println!(
            "seed {seed}: VIOLATION of {invariant} at {}: {what}",
            Time(os::now())
        );
    }
    let history = &simulation.history;
    simulation.counts.extend([
        ("entries", history.committed.len() as u64),
        ("terms", history.leaders.len() as u64),
        ("acknowledged", history.stored),
        ("refused", history.refused),
        ("unknown", history.unknown),
        ("reads", history.reads),
        ("virtual-ms", os::now() / MS),
        ("delivered", delivered),
    ]);
    let counts: Vec<String> = simulation
        .counts
        .iter()
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    println!(
        "seed {seed} {} {:016x}",
        counts.join(" "),
        simulation.digest ^ delivered_digest
    );
    // Its runtimes cannot be taken down when the thread-local parts of this thread are gone.
    std::mem::forget(simulation);
    failed
}

/// Has the members' own log printed, with virtual time.
fn trace_members() {
    struct Clock;
    impl tracing_subscriber::fmt::time::FormatTime for Clock {
        fn format_time(
            &self,
            out: &mut tracing_subscriber::fmt::format::Writer<'_>,
        ) -> fmt::Result {
            write!(out, "{} n{}", Time(os::now()), os::node() as i64)
        }
    }
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = format!("{},{filter}", raftmq_raft::LOG_FILTER);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Clock)
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stdout)
        .init();
}

/// Seconds.
pub(super) struct Time(pub(super) Nanos);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.6}", self.0 as f64 / SECOND as f64)
    }
}

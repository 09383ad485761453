//! Many seeds, each in a process of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Command as Process, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

const USAGE: &str = "usage: raftmq-sim SEED [--quiet] | FIRST..END; also --flaw \
    lying-disk|forgetful|two-leaders|forged|\
    overruled|gap|lost|scribbled|stuck";
/// Failures after which no more seeds are tried.
const FAILURES_MAX: usize = 20;
/// Lines shown of a failure.
const LINES: usize = 12;
/// A seed takes a fraction of a second.
const SECONDS_MAX: &str = "120";

/// Something wrong on purpose, with the members or with what the invariants are shown of them: they have to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// What is flushed is not kept.
    LyingDisk,
    /// Members that have forgotten what they acknowledged vote at once.
    Forgetful,
    /// Whoever follows is shown as a leader of its term.
    TwoLeaders,
    /// A member is shown with other entries than it has, of the same terms.
    Forged,
    /// The members are shown to have applied something else than the first of them did.
    Overruled,
    /// A queue is shown without its first message.
    Gap,
    /// A message is shown to be nowhere.
    Lost,
    /// A byte in the blank end of a member's segment is another one.
    Scribbled,
    /// Clients want more than anybody does for them.
    Stuck,
}

impl Flaw {
    const ALL: [Flaw; 9] = [
        Flaw::LyingDisk,
        Flaw::Forgetful,
        Flaw::TwoLeaders,
        Flaw::Forged,
        Flaw::Overruled,
        Flaw::Gap,
        Flaw::Lost,
        Flaw::Scribbled,
        Flaw::Stuck,
    ];

    fn word(self) -> &'static str {
        match self {
            Flaw::LyingDisk => "lying-disk",
            Flaw::Forgetful => "forgetful",
            Flaw::TwoLeaders => "two-leaders",
            Flaw::Forged => "forged",
            Flaw::Overruled => "overruled",
            Flaw::Gap => "gap",
            Flaw::Lost => "lost",
            Flaw::Scribbled => "scribbled",
            Flaw::Stuck => "stuck",
        }
    }

    /// Whether members do wrong; they are then given the power cuts in which it shows.
    pub fn is_in_members(self) -> bool {
        matches!(self, Flaw::LyingDisk | Flaw::Forgetful)
    }
}

/// What the program is asked to do.
pub struct Command {
    pub seeds: Range<u64>,
    /// One seed, in this process.
    pub is_one: bool,
    pub trace: bool,
    pub flaw: Option<Flaw>,
}

pub fn parse(arguments: &[&str]) -> Result<Command, &'static str> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| USAGE);
    let (what, mut options) = arguments.split_first().ok_or(USAGE)?;
    let (seeds, is_one) = match what.split_once("..") {
        Some((first, end)) => (number(first)?..number(end)?, false),
        None => (number(what)?..number(what)? + 1, true),
    };
    let mut command = Command {
        seeds,
        is_one,
        trace: true,
        flaw: None,
    };
    while let Some((option, rest)) = options.split_first() {
        options = rest;
        if *option == "--quiet" {
            command.trace = false;
            continue;
        }
        let (value, rest) = options.split_first().ok_or(USAGE)?;
        options = rest;
        match *option {
            "--flaw" => {
                let named = Flaw::ALL.into_iter().find(|flaw| flaw.word() == *value);
                command.flaw = Some(named.ok_or(USAGE)?);
            }
            _ => return Err(USAGE),
        }
    }
    Ok(command)
}

pub fn many(command: &Command) -> ExitCode {
    let begin = Instant::now();
    let seeds = &command.seeds;
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let totals = Mutex::new(BTreeMap::new());
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failures.lock().len() >= FAILURES_MAX {
                return;
            }
            match one(seed, command.flaw) {
                Ok(summary) => add(&mut totals.lock(), &summary),
                Err(why) => {
                    println!("seed {seed} FAILED; SIM_SEED={seed} shows it again\n{why}");
                    failures.lock().push(seed);
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(500) {
                println!("{done} seeds, {} s", begin.elapsed().as_secs());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let failures = failures.into_inner();
    let totals = totals.into_inner();
    let totals: Vec<String> = totals
        .iter()
        .map(|(name, total)| format!("{name} {total}"))
        .collect();
    println!("{}", totals.join(", "));
    println!(
        "{} seeds from {} in {:.1} s: {} failed {failures:?}",
        done.into_inner(),
        seeds.start,
        begin.elapsed().as_secs_f64(),
        failures.len()
    );
    ExitCode::from(u8::from(!failures.is_empty()))
}

/// Adds the `name=count` of a seed's summary.
fn add(totals: &mut BTreeMap<String, u64>, summary: &str) {
    for (name, count) in summary.split(' ').filter_map(|word| word.split_once('=')) {
        *totals.entry(name.to_owned()).or_default() += count.parse().unwrap_or(0);
    }
}

/// Runs a seed and returns its summary; `Err` has the last lines of what it said.
fn one(seed: u64, flaw: Option<Flaw>) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut process = Process::new("timeout");
    process
        .args(["-k", "5", SECONDS_MAX])
        .arg(program)
        .args([&seed.to_string(), "--quiet"])
        .stdin(Stdio::null());
    if let Some(flaw) = flaw {
        process.args(["--flaw", flaw.word()]);
    }
    let output = process.output().map_err(|error| error.to_string())?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Err(format!("{}\n{}", output.status, last.join("\n")))
}

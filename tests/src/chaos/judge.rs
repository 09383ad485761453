//! What a run must not have done to anybody: everything is read back, compared, and once more after all members were killed
//! and started again.

use std::time::Duration;

use anyhow::{Context, Result};

use super::group::{GROUP, Progress};
use super::ordered::check_order;
use crate::calls;
use crate::checker::{self, Evidence};
use crate::figures::{ms, say};
use crate::group::consume_all;
use crate::history::History;
use crate::readback::{Contents, read_topic, read_topic_of};
use crate::subject::Subject;
use crate::tail::{Observation, Tail};
use crate::wait::{wait_for, wait_ok};
use crate::wire::Connection;

/// After everything is well again, all members hold the same by then.
pub const CONVERGED_WITHIN: Duration = Duration::from_secs(30);

/// A topic and everybody who used it.
pub struct Stream {
    /// Name.
    pub topic: String,
    /// Queues.
    pub queues: i32,
    /// What its producers did.
    pub history: History,
    /// Those that read along, until they are judged.
    pub tail: Option<Tail>,
    /// One producer for each queue, in order.
    pub ordered: bool,
}

/// What was done during the run, once nobody does anything any more.
pub struct Work {
    /// The topics with messages.
    pub streams: Vec<Stream>,
    /// Topics made on the way.
    pub topics: Vec<String>,
    /// The consumer group on the first stream, by queue.
    pub progress: Vec<Progress>,
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub struct Findings {
    /// In the order in which they were found.
    pub list: Vec<String>,
}

impl Findings {
    /// Notes an error, and says it now.
    pub fn note<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let text = format!("{what}: {error:#}");
                say(format!("FINDING {text}"));
                self.list.push(text);
                None
            }
        }
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.note("judgement", Err::<(), _>(anyhow::anyhow!(what())));
        }
    }
}

/// Judges; the group serves, and nobody else is at work.
pub fn judge(subject: &mut dyn Subject, mut work: Work, findings: &mut Findings) -> Result<()> {
    let leader = subject.leader().context("find the leader")?;
    let mut read = Vec::new();
    for stream in &mut work.streams {
        let there = read_through(subject, leader, stream)?;
        let observed = stop_tail(stream, &there, findings);
        // Read after the consumers ended, so that all they saw has to be there: a late attempt may have been stored meanwhile.
        let contents = read_through(subject, leader, stream)?;
        judge_messages(stream, &contents, &observed, findings);
        read.push(contents);
    }
    for member in (0..subject.members()).filter(|member| *member != leader) {
        for (stream, contents) in work.streams.iter().zip(&read) {
            let same = wait_same(subject, member, stream, contents);
            findings.note(&format!("{} through n{member}", stream.topic), same);
        }
    }
    if let (Some(stream), Some(contents)) = (work.streams.first(), read.first()) {
        let within = CONVERGED_WITHIN + Duration::from_micros(100) * u32::try_from(contents.len())?;
        let nameservers = subject.nameserver_addresses();
        let consumed = consume_all(&nameservers, "CHAOS_PUSH", &stream.topic, contents, within);
        findings.note("a push group", consumed);
        judge_progress(&work.progress, findings);
        let kept = require_progress(subject, leader, stream, &work.progress);
        findings.note("saved offsets", kept);
    }
    let topics = require_topics(subject, &work.topics);
    findings.note("topics", topics);
    let identical = subject.require_identical(CONVERGED_WITHIN);
    if let Some(compared) = findings.note("replicas", identical) {
        say(format!("  {compared}"));
    }

    let all: Vec<usize> = (0..subject.members()).collect();
    subject.kill(&all)?;
    for member in all {
        subject.start_member(member)?;
    }
    subject.wait_serving().context("restart all members")?;
    let leader = subject.leader().context("find the leader")?;
    for (stream, contents) in work.streams.iter().zip(&read) {
        let same = wait_same(subject, leader, stream, contents);
        findings.note(&format!("{} after a restart of all", stream.topic), same);
    }
    if let Some(stream) = work.streams.first() {
        let kept = require_progress(subject, leader, stream, &work.progress);
        findings.note("saved offsets after a restart of all", kept);
    }
    let topics = require_topics(subject, &work.topics);
    findings.note("topics after a restart of all", topics);
    let identical = subject.require_identical(CONVERGED_WITHIN);
    findings.note("replicas after a restart of all", identical);
    let running = subject.require_running();
    findings.note("members", running);
    Ok(())
}

fn read_through(subject: &dyn Subject, member: usize, stream: &Stream) -> Result<Contents> {
    let addresses = subject.addresses();
    read_topic(&addresses[member], &stream.topic, stream.queues)
}

/// A member may need a moment to have what the leader has.
fn wait_same(
    subject: &dyn Subject,
    member: usize,
    stream: &Stream,
    contents: &Contents,
) -> Result<()> {
    let step = Duration::from_millis(200);
    wait_ok("the same messages", CONVERGED_WITHIN, step, || {
        let address = &subject.addresses()[member];
        let found = read_topic_of(address, &stream.topic, stream.queues)?;
        let differences = checker::check_unchanged(contents, &found);
        let first = differences.first().map(|finding| &finding.detail);
        anyhow::ensure!(
            found == *contents,
            "{} messages where {} are, {} of them differ: {first:?}",
            found.len(),
            contents.len(),
            differences.len(),
        );
        Ok(())
    })
}

/// Stops the consumers that read along once they have read what is there.
fn stop_tail(stream: &mut Stream, there: &Contents, findings: &mut Findings) -> Vec<Observation> {
    let Some(tail) = stream.tail.take() else {
        return Vec::new();
    };
    let stored = there.queues.values().map(|queue| queue.max);
    let stored = usize::try_from(stored.sum::<i64>()).unwrap_or(0);
    let (within, step) = (Duration::from_secs(60), Duration::from_millis(20));
    let what = "the consumers that read along to reach the end";
    let read = wait_for(what, within, step, || (tail.seen() >= stored).then_some(()));
    findings.note(&stream.topic, read);
    let (observed, complaints) = tail.stop_with_complaints();
    for complaint in complaints {
        findings.require(false, || format!("{} {complaint}", stream.topic));
    }
    observed
}

fn judge_messages(
    stream: &Stream,
    contents: &Contents,
    observed: &[Observation],
    findings: &mut Findings,
) {
    let verdict = stream.history.with(|sends| {
        checker::check(Evidence {
            sends,
            contents,
            observed,
        })
    });
    say(format!("  {}: {verdict}", stream.topic));
    findings.note(&stream.topic, verdict.require_clean());
    for (queue, held) in &contents.queues {
        findings.require(held.min == 0, || {
            format!("{} queue {queue} begins with {}", stream.topic, held.min)
        });
    }
    if stream.ordered {
        for finding in check_order(contents) {
            findings.require(false, || format!("{} {finding}", stream.topic));
        }
    }
}

fn judge_progress(progress: &[Progress], findings: &mut Findings) {
    let saves: usize = progress.iter().map(|one| one.saves).sum();
    let losses: usize = progress.iter().map(|one| one.losses).sum();
    let lost = progress.iter().map(|one| one.lost).max();
    let lost = lost.unwrap_or_default();
    say(format!(
        "  {GROUP}: {saves} offsets saved, {losses} times some were lost, those of {} at most",
        ms(lost)
    ));
    for (queue, one) in progress.iter().enumerate() {
        findings.require(one.losses == 0, || {
            format!(
                "{GROUP} queue {queue}: saved offsets of {} were lost",
                ms(one.lost)
            )
        });
        for complaint in &one.complaints {
            findings.require(false, || format!("{GROUP} {complaint}"));
        }
    }
}

/// What was acknowledged when everything was well is saved.
fn require_progress(
    subject: &dyn Subject,
    leader: usize,
    stream: &Stream,
    progress: &[Progress],
) -> Result<()> {
    let mut connection = Connection::open(&subject.addresses()[leader])?;
    for (queue, one) in (0..).zip(progress) {
        let saved = calls::query_offset(&mut connection, GROUP, &stream.topic, queue)?;
        anyhow::ensure!(
            saved >= one.last(),
            "{:?} was acknowledged last for queue {queue}, {saved:?} is saved",
            one.last()
        );
    }
    Ok(())
}

/// Every member knows every topic whose creation was acknowledged.
fn require_topics(subject: &dyn Subject, topics: &[String]) -> Result<()> {
    let step = Duration::from_millis(200);
    for topic in topics {
        for member in 0..subject.members() {
            wait_ok("the topics that were made", CONVERGED_WITHIN, step, || {
                let known = subject.has_topic(member, topic)?;
                anyhow::ensure!(known, "n{member} does not know {topic}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

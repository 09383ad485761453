//! Producers of published clients, beside ours: programs that send one message after the other and print a line for each.
//!
//! ```text
//! ACK seq started finished queue offset offsetMsgId
//! ERR seq started finished text
//! ```
//!
//! Times are CLOCK_MONOTONIC's nanoseconds. They end when their standard input does.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::calls::MessageId;
use crate::clock::Nanos;
use crate::figures::say;
use crate::history::{Ack, History, Key, Outcome, Send};
use crate::process::spawn_piped;
use crate::wait::wait_for;

/// What a producer sends, and where.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Where its files go.
    pub root: &'a Path,
    /// `host:port;host:port`.
    pub nameservers: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// The one queue it sends to.
    pub queue: i32,
    /// Its number in the history.
    pub producer: u32,
}

/// A running producer.
#[derive(Debug)]
pub struct Foreign {
    name: &'static str,
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Foreign {
    /// Starts a program that does `task`; what it prints goes to `history`.
    pub fn start(
        name: &'static str,
        mut command: Command,
        task: Task<'_>,
        history: &History,
    ) -> Result<Foreign> {
        let errors = task.root.join(format!("{name}-producer.err"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(errors).context("a file for a producer's errors")?);
        let mut child = spawn_piped(command).with_context(|| format!("start {name}"))?;
        let out = child.stdout.take().context("a producer's output")?;
        let history = history.clone();
        let (producer, queue) = (task.producer, task.queue);
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(std::io::Result::ok);
            // The published clients' logging may print about itself on the same stream.
            for line in lines.filter(|line| line.starts_with("ACK ") || line.starts_with("ERR ")) {
                match parse(&line, producer, queue) {
                    Ok(send) => history.add(send),
                    Err(error) => say(format!("the {name} producer said '{line}': {error:#}")),
                }
            }
        });
        Ok(Foreign {
            name,
            child,
            reader: Some(reader),
        })
    }

    /// Ends it after the send it is at, and waits until all its lines are in the history.
    pub fn stop(mut self) -> Result<()> {
        self.child.stdin = None; // the end of its input is the sign to stop
        wait_for(
            &format!("the {} producer to end", self.name),
            Duration::from_secs(20),
            Duration::from_millis(20),
            || self.child.try_wait().ok().flatten(),
        )?;
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            bail!(
                "the thread that reads the {} producer's output panicked",
                self.name
            );
        }
        Ok(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn parse(line: &str, producer: u32, asked: i32) -> Result<Send> {
    let mut words = line.splitn(5, ' ');
    let mut word = || words.next().context("too few words");
    let kind = word()?;
    let key = Key {
        producer,
        seq: word()?.parse()?,
    };
    let (started, finished) = (Nanos(word()?.parse()?), Nanos(word()?.parse()?));
    let rest = word()?;
    let outcome = match kind {
        "ACK" => {
            let mut words = rest.split(' ');
            let mut word = || words.next().context("too few words");
            let (queue, offset) = (word()?.parse()?, word()?.parse()?);
            Outcome::Acked(Ack {
                queue,
                offset,
                id: Some(MessageId::parse(word()?)?),
            })
        }
        "ERR" => Outcome::Unknown(rest.to_owned()),
        other => bail!("what is {other}?"),
    };
    Ok(Send {
        key,
        queue: asked,
        started,
        finished,
        attempts_max: 1,
        outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_a_producer() {
        let ack = parse("ACK 7 100 200 3 41 7F00000100002A9F000000000001E240", 9, 3).unwrap();
        assert_eq!(
            (ack.key, ack.started),
            (
                Key {
                    producer: 9,
                    seq: 7
                },
                Nanos(100)
            )
        );
        assert_eq!(ack.ack().map(|ack| (ack.queue, ack.offset)), Some((3, 41)));
        let failed = parse("ERR 8 300 400 MQBrokerException: CODE: 2 busy", 9, 3).unwrap();
        assert!(matches!(failed.outcome, Outcome::Unknown(words) if words.ends_with("busy")));
        assert!(parse("hello", 9, 3).is_err());
    }
}

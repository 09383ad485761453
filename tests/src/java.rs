//! A producer of the published Java client, beside ours.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::binaries::crate_dir;
use crate::calls::MessageId;
use crate::clock::Nanos;
use crate::figures::say;
use crate::history::{Ack, History, Key, Outcome, Send};
use crate::process::spawn_piped;
use crate::wait::wait_for;

/// The release whose client and servers are used.
pub const RELEASE: &str = "5.5.0";

/// A running Java producer.
#[derive(Debug)]
pub struct JavaProducer {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl JavaProducer {
    /// Starts a producer number `producer` that sends to one queue of `topic` and asks for the route every `poll`. `None`, said loudly, where there is no JDK
    /// or the published jars cannot be had.
    pub fn start(
        root: &Path,
        nameservers: &str,
        topic: &str,
        queue: i32,
        producer: u32,
        poll: Duration,
        history: &History,
    ) -> Result<Option<JavaProducer>> {
        if Command::new("javac").arg("-version").output().is_err() {
            say("SKIPPED: there is no JDK, so no Java producer runs beside ours");
            return Ok(None);
        }
        let Some(jars) = jars()? else {
            say(format!(
                "SKIPPED: the jars of RocketMQ {RELEASE} are neither cached nor to be fetched"
            ));
            return Ok(None);
        };
        let classes = root.join("classes");
        compile(&jars, &classes)?;
        let mut command = Command::new("java");
        command
            .args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Duser.home={}", root.display()))
            .arg("-cp")
            .arg(format!("{}:{}/*", classes.display(), jars.display()))
            .args(["AckedSends", nameservers, topic])
            .args([queue.to_string(), producer.to_string(), "1".to_owned()])
            .arg(poll.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                std::fs::File::create(root.join("java-producer.err")).context("java's stderr")?,
            );
        let mut child = spawn_piped(command).context("start java")?;
        let out = child.stdout.take().context("java's output")?;
        let history = history.clone();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(std::io::Result::ok);
            // The published client's logging prints about itself on the same stream.
            for line in lines.filter(|line| line.starts_with("ACK ") || line.starts_with("ERR ")) {
                match parse(&line, producer, queue) {
                    Ok(send) => history.add(send),
                    Err(error) => say(format!("java producer said '{line}': {error:#}")),
                }
            }
        });
        Ok(Some(JavaProducer {
            child,
            reader: Some(reader),
        }))
    }

    /// Ends it after the send it is at, and waits until all its lines are in the history.
    pub fn stop(mut self) -> Result<()> {
        self.child.stdin = None; // the end of its input is the sign to stop
        wait_for(
            "the Java producer to end",
            Duration::from_secs(20),
            Duration::from_millis(20),
            || self.child.try_wait().ok().flatten(),
        )?;
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            bail!("the thread that reads the Java producer's output panicked");
        }
        Ok(())
    }
}

impl Drop for JavaProducer {
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

fn compile(jars: &Path, classes: &Path) -> Result<()> {
    let source = crate_dir().join("cluster/java/AckedSends.java");
    let output = Command::new("javac")
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .arg("-d")
        .arg(classes)
        .arg(&source)
        .output()
        .context("run javac")?;
    ensure!(
        output.status.success(),
        "javac: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The folder of the published jars, shared with the compatibility tests; fetched by Maven when missing.
pub(crate) fn jars() -> Result<Option<PathBuf>> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let jars = Path::new(&home)
        .join(".cache/raftmq/java")
        .join(RELEASE)
        .join("lib");
    let there = || {
        jars.join(format!("rocketmq-client-{RELEASE}.jar"))
            .is_file()
    };
    if !there() {
        let pom = crate_dir().join(format!("compat/java/pom-{RELEASE}.xml"));
        let fetched = Command::new("mvn")
            .args(["--quiet", "--batch-mode", "-f"])
            .arg(pom)
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", jars.display()))
            .status();
        if !fetched.is_ok_and(|status| status.success()) || !there() {
            return Ok(None);
        }
    }
    Ok(Some(jars))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_the_java_producer() {
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

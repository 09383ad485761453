//! A producer of the published Java client, beside ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::crate_dir;
use crate::foreign::{Foreign, Task};
use crate::history::History;
use crate::suite::leave_out;

/// The release whose client and servers are used.
pub const RELEASE: &str = "5.5.0";

/// Fetches what a producer is made of, for those who are about to cut themselves off from the network. What fails here is told
/// by [`start`].
pub fn fetch() {
    jars().ok();
}

/// Starts a producer that asks for the route every `poll`. `None`, said loudly, where there is no JDK or the published jars
/// cannot be had.
pub fn start(task: Task<'_>, poll: Duration, history: &History) -> Result<Option<Foreign>> {
    if Command::new("javac").arg("-version").output().is_err() {
        leave_out("there is no JDK, so no Java producer runs beside ours")?;
        return Ok(None);
    }
    let Some(jars) = jars()? else {
        leave_out(format!(
            "the jars of RocketMQ {RELEASE} are neither cached nor to be fetched"
        ))?;
        return Ok(None);
    };
    let classes = task.root.join("classes");
    compile(&jars, &classes)?;
    let mut command = Command::new("java");
    command
        .args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Duser.home={}", task.root.display()))
        .arg("-cp")
        .arg(format!("{}:{}/*", classes.display(), jars.display()))
        .args(["AckedSends", task.nameservers, task.topic])
        .args([
            task.queue.to_string(),
            task.producer.to_string(),
            "1".to_owned(),
        ])
        .arg(poll.as_millis().to_string());
    Foreign::start("java", command, task, history).map(Some)
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

//! A producer of the published Go client, beside ours.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binaries::crate_dir;
use crate::foreign::{Foreign, Task};
use crate::history::History;
use crate::suite::leave_out;

/// Fetches what a producer is made of, for those who are about to cut themselves off from the network. What fails here is told
/// by [`start`].
pub fn fetch() {
    let mut command = Command::new("go");
    command.args(["mod", "download"]);
    let folder = crate_dir().join("compat/go");
    command.current_dir(folder).output().ok();
}

/// Starts a producer; it asks for the route every 30 s, as this client always does. `None`, said loudly, where there is no Go.
pub fn start(task: Task<'_>, history: &History) -> Result<Option<Foreign>> {
    if Command::new("go").arg("version").output().is_err() {
        leave_out("there is no Go, so no Go producer runs beside ours")?;
        return Ok(None);
    }
    let driver = task.root.join("go-driver");
    let output = Command::new("go")
        .current_dir(crate_dir().join("compat/go"))
        .args(["build", "-mod=readonly", "-o"])
        .arg(&driver)
        .arg(".")
        .output()
        .context("run go")?;
    ensure!(
        output.status.success(),
        "go build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut command = Command::new(driver);
    command
        .env("HOME", task.root)
        .args(["acked", "-namesrv", task.nameservers, "-topic", task.topic])
        .args(["-queue", &task.queue.to_string()])
        .args(["-producer", &task.producer.to_string()]);
    Foreign::start("go", command, task, history).map(Some)
}

//! Store folders that a member must not or cannot use: one line that says why, and a non-zero exit, at once.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use raftmq_tests::cluster::{Cluster, GROUP, Options};
use raftmq_tests::figures::say;
use raftmq_tests::process::spawn_piped;
use raftmq_tests::serial::turn;
use raftmq_tests::suite::leave_out;
use raftmq_tests::wait::wait_for;

use super::support::{require_service, start};

/// Starts a broker from `conf`, its log in a folder, and expects it to end by itself, unsuccessfully, having said one line
/// with all of `words` on its standard error.
pub(crate) fn require_start_refused(cluster: &Cluster, conf: &Path, words: &[&str]) -> Result<()> {
    if let Ok(mut text) = std::fs::read_to_string(conf) {
        text.push_str(&format!(
            "logDir={}\n",
            cluster.root().join("refused-logs").display()
        ));
        std::fs::write(conf, text).context("add the log folder to the conf")?;
    }
    let mut command: Command = cluster.broker_command(conf)?;
    let errors = cluster.root().join("refused.err");
    let file = std::fs::File::create(&errors).context("create a file for the errors")?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let mut child = spawn_piped(command).context("start a broker")?;
    let status = wait_for(
        "the broker to refuse to start",
        Duration::from_secs(15),
        Duration::from_millis(10),
        || child.try_wait().ok().flatten(),
    );
    if status.is_err() {
        // Errors mean that it has ended meanwhile.
        child.kill().ok();
        child.wait().ok();
    }
    let said = std::fs::read_to_string(&errors).context("read the errors")?;
    let status = status.with_context(|| format!("it said: {said}"))?;
    ensure!(!status.success(), "it ended with success and said: {said}");
    let code = status.code();
    ensure!(
        code.is_some(),
        "it was ended by a signal ({status}) and said: {said}"
    );
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    ensure!(
        lines.len() == 1,
        "exit {code:?}, not one line but {}:\n{said}",
        lines.len()
    );
    ensure!(!said.contains("panicked"), "it panicked: {said}");
    for word in words {
        ensure!(said.contains(word), "'{word}' is not in: {said}");
    }
    Ok(())
}

fn write(cluster: &Cluster, name: &str, conf: &str) -> Result<PathBuf> {
    let path = cluster.root().join(name);
    std::fs::write(&path, conf).context("write a conf")?;
    Ok(path)
}

/// The conf of a group of one whose store is `store`, with ports of its own.
fn conf_with_store(cluster: &mut Cluster, store: &Path) -> String {
    let member = &mut cluster.members[0];
    let own = std::mem::replace(&mut member.store, store.to_owned());
    let conf = cluster.conf_of(&cluster.members[0], GROUP);
    cluster.members[0].store = own;
    conf
}

/// A second process with the id, and so the Raft address, of a member that runs.
#[test]
fn a_second_member_with_the_same_id_is_refused() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let spare = raftmq_tests::ports::free_port()?;
    let store = cluster.root().join("twin");
    let conf = conf_with_store(&mut cluster, &store) + &format!("listenPort={spare}\n");
    let path = write(&cluster, "twin.conf", &conf)?;
    let raft_port = cluster.members[0].raft_port.to_string();
    require_start_refused(&cluster, &path, &[&raft_port])?;
    require_service(&mut cluster, "a second n0")?;
    cluster.passed()
}

/// A store that another process has open, with ports that do not collide.
#[test]
fn a_store_in_use_is_refused() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::single())?;
    let other = Cluster::prepare(Options::single())?;
    let folder = cluster.members[0].store.clone();
    let mut other = other;
    let conf = conf_with_store(&mut other, &folder);
    let path = write(&other, "in-use.conf", &conf)?;
    let shown = folder.display().to_string();
    require_start_refused(&other, &path, &[&shown])?;
    require_service(&mut cluster, "another process at its store")?;
    other.passed()?;
    cluster.passed()
}

/// The store of another group, or of another member of the same group, is not taken over.
#[test]
fn a_store_of_somebody_else_is_refused() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    cluster.kill_all();
    let conf = cluster.conf_of(&cluster.members[0], "AnotherGroup");
    let path = write(&cluster, "another-group.conf", &conf)?;
    require_start_refused(&cluster, &path, &[GROUP, "AnotherGroup"])?;

    let store = cluster.members[0].store.clone();
    let own = std::mem::replace(&mut cluster.members[1].store, store);
    let conf = cluster.conf_of(&cluster.members[1], GROUP);
    cluster.members[1].store = own;
    let path = write(&cluster, "another-member.conf", &conf)?;
    require_start_refused(&cluster, &path, &["n0", "n1"])?;

    let conf = cluster.conf_of(&cluster.members[0], GROUP) + "mappedFileSizeCommitLog=33554432\n";
    let path = write(&cluster, "another-size.conf", &conf)?;
    require_start_refused(&cluster, &path, &["33554432"])?;

    cluster.start_all()?;
    cluster.wait_serving()?;
    require_service(&mut cluster, "three attempts on their stores")?;
    cluster.passed()
}

/// A small file system of its own at `at`, unmounted on drop.
struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts; `None`, said loudly, where this process may not.
    fn tmpfs(at: &Path, options: &str) -> Result<Option<Mount>> {
        std::fs::create_dir_all(at).context("create a mount point")?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status()
            .context("run mount")?;
        if !status.success() {
            leave_out("no permission to mount, so no read-only or full file system is tried")?;
            return Ok(None);
        }
        Ok(Some(Mount { at: at.to_owned() }))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.at.as_os_str().as_bytes());
        if let Ok(path) = path {
            // SAFETY: a plain system call on a valid C string.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

#[test]
fn a_store_that_cannot_be_written_is_refused() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::prepare(Options::single())?;

    let file = cluster.root().join("a-file");
    std::fs::write(&file, "not a folder").context("write a file")?;
    for store in [file.clone(), file.join("below")] {
        let conf = conf_with_store(&mut cluster, &store);
        let path = write(&cluster, "file.conf", &conf)?;
        let shown = store.display().to_string();
        require_start_refused(&cluster, &path, &[&shown])?;
    }
    ensure!(std::fs::read_to_string(&file).is_ok_and(|text| text == "not a folder"));

    for (name, options) in [("read-only", "ro"), ("full", "size=1m")] {
        let at = cluster.root().join(name);
        let Some(_mount) = Mount::tmpfs(&at, options)? else {
            break;
        };
        let store = at.join("store");
        let conf = conf_with_store(&mut cluster, &store);
        let path = write(&cluster, "mounted.conf", &conf)?;
        let shown = at.display().to_string();
        require_start_refused(&cluster, &path, &[&shown])
            .with_context(|| format!("{name} store"))?;
    }
    cluster.passed()
}

/// A member whose store became full while it was down refuses to start; with room again, it starts with everything it had.
#[test]
fn a_store_that_became_full_comes_back_with_room() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = Cluster::prepare(Options::single())?;
    let at = cluster.root().join("small");
    // Room for the first segments and the state.
    let Some(_mount) = Mount::tmpfs(&at, "size=120m")? else {
        cluster.passed()?;
        return Ok(());
    };
    cluster.members[0].store = at.join("store");
    let conf = cluster.conf_of(&cluster.members[0], GROUP);
    std::fs::write(&cluster.members[0].conf, conf).context("write the conf")?;
    cluster.launch()?;
    cluster.create_topic(super::support::SERVED, 1)?;
    cluster.wait_topic(super::support::SERVED)?;
    require_service(&mut cluster, "a start on a small file system")?;
    cluster.kill_all();

    let ballast = at.join("ballast");
    fill(&ballast)?;
    cluster.start_member(0)?;
    // It may have reserved all that it needs, and start; or refuse in order. It must not hang or die by a signal.
    let started = cluster.wait_member(0);
    if started.is_err() {
        let process = cluster.members[0]
            .process
            .as_mut()
            .context("it was started")?;
        match process.wait_exit(Duration::from_secs(1)) {
            Ok(status) if status.code().is_some_and(|code| code != 0) => {
                say(format!(
                    "on a full file system the member ends with {status}"
                ));
            }
            Ok(status) => bail!("on a full file system the member ends with {status}"),
            Err(_) => bail!("on a full file system the member neither serves nor ends"),
        }
    }
    std::fs::remove_file(&ballast).context("make room")?;
    cluster.kill_all();
    cluster.start_all()?;
    cluster.wait_serving()?;
    require_service(&mut cluster, "room was made")?;
    // The processes end before the file system under them goes.
    cluster.kill_all();
    cluster.passed()
}

fn fill(path: &Path) -> Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).context("create the ballast")?;
    let block = [1_u8; 4096];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("fill the file system"),
        }
    }
}

//! `mqbroker` as a process: what it prints, what it refuses to start with, and bytes no client would send.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../raft/tests/support/ports.rs"]
mod ports;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ports::free_ports;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn mqbroker(folder: &Path, conf: &str, options: &[&str]) -> Command {
    let file = folder.join("broker.conf");
    std::fs::write(&file, conf).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqbroker"));
    command
        .arg("-c")
        .arg(file)
        .args(options)
        .env_remove("NAMESRV_ADDR")
        .env_remove("RUST_LOG");
    command
}

fn conf(port: u16, store: &Path) -> String {
    format!(
        "brokerName=b\nbrokerClusterName=c\nbrokerIP1=127.0.0.1\nlistenPort={port}\nbindAddress=127.0.0.1\n\
         enableDLegerCommitLog=true\ndLegerGroup=b\ndLegerSelfId=n0\ndLegerPeers=n0-127.0.0.1:{}\n\
         mappedFileSizeCommitLog=16777216\nstorePathRootDir={}\n",
        port + 1,
        store.display()
    )
}

/// Runs to its end, which has to come soon.
fn refused(mut command: Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running");
        }
        std::thread::yield_now();
    }
    child.wait_with_output().unwrap()
}

/// The last line on standard error, which is the reason.
fn reason(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}

/// A process that is stopped at the end.
struct Running(Child);

impl Running {
    /// Starts it and waits for its boot line.
    fn start(mut command: Command) -> (Running, String) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (Running(child), line)
    }

    fn signal(&mut self, name: &str) -> std::process::ExitStatus {
        Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.0.id().to_string())
            .status()
            .unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn prints_the_boot_line_of_the_original_and_stops_on_sigterm() {
    let folder = TempDir::new().unwrap();
    let port = free_ports();
    let conf = format!(
        "{}logDir={}\n",
        conf(port, &folder.path().join("s")),
        folder.path().join("logs").display()
    );
    let (mut running, line) = Running::start(mqbroker(
        folder.path(),
        &conf,
        &["-n", "127.0.0.1:1;127.0.0.1:2"],
    ));
    let wanted = format!(
        "The broker[b, 127.0.0.1:{port}] boot success. serializeType=JSON and name server is 127.0.0.1:1;127.0.0.1:2\n"
    );
    assert_eq!(line, wanted);
    assert!(running.signal("TERM").success());
    assert_eq!(
        std::fs::read_dir(folder.path().join("logs"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn prints_its_configuration() {
    let folder = TempDir::new().unwrap();
    let conf = conf(30911, folder.path());
    let all = mqbroker(folder.path(), &conf, &["-p"]).output().unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    for line in [
        "brokerName=b",
        "listenPort=30911",
        "flushDiskType=SYNC_FLUSH",
        "maxMessageSize=4194304",
    ] {
        assert!(all.lines().any(|printed| printed == line), "{line}");
    }
    let important = mqbroker(folder.path(), &conf, &["-m"]).output().unwrap();
    let important = String::from_utf8(important.stdout).unwrap();
    assert!(
        important.lines().count() < all.lines().count() && important.contains("brokerName=b\n")
    );
    let help = mqbroker(folder.path(), &conf, &["-h"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("-c"));
}

#[test]
fn refuses_configurations_that_would_be_unsafe() {
    let folder = TempDir::new().unwrap();
    let port = free_ports();
    let conf = conf(port, &folder.path().join("s"));
    for (change, part) in [
        ("dLegerSelfId=n5\n".to_owned(), "dLegerSelfId = 'n5'"),
        (format!("dLegerPeers=n0-127.0.0.1:{port}\n"), "collide"),
        (
            "dLegerPeers=n0-127.0.0.1:1;n0-127.0.0.1:2\n".to_owned(),
            "occurs twice",
        ),
        (
            "flushDiskType=MAYBE\n".to_owned(),
            "flushDiskType = 'MAYBE'",
        ),
        // A folder that cannot be written to, whoever runs the test.
        ("storePathRootDir=/proc/raftmq\n".to_owned(), "/proc/raftmq"),
        (
            "storePathRootDir=/dev/null/store\n".to_owned(),
            "/dev/null/store",
        ),
    ] {
        let output = refused(mqbroker(folder.path(), &format!("{conf}{change}"), &[]));
        let reason = reason(&output);
        assert!(
            reason.starts_with("mqbroker: ") && reason.contains(part),
            "{change}: {reason}"
        );
    }
    let output = refused(mqbroker(folder.path(), "", &["-c", "/nowhere/broker.conf"]));
    assert!(!output.status.success());
}

#[test]
fn refuses_ports_and_stores_that_are_not_its_own() {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("s");
    let port = free_ports();
    let (mut running, line) = Running::start(mqbroker(folder.path(), &conf(port, &store), &[]));
    assert!(line.contains("boot success"), "{line}");

    let locked = refused(mqbroker(folder.path(), &conf(free_ports(), &store), &[]));
    assert!(reason(&locked).contains("in use"), "{}", reason(&locked));
    let same_port =
        conf(port, &folder.path().join("other")).replace(&format!(":{}", port + 1), ":1");
    let same_port = same_port.replace(":1\n", &format!(":{}\n", free_ports()));
    let taken = refused(mqbroker(folder.path(), &same_port, &[]));
    assert!(
        reason(&taken).contains(&format!(":{port}")),
        "{}",
        reason(&taken)
    );
    assert!(running.signal("TERM").success());

    let other_group = conf(free_ports(), &store).replace("dLegerGroup=b", "dLegerGroup=else");
    let foreign = refused(mqbroker(folder.path(), &other_group, &[]));
    assert!(reason(&foreign).contains("else"), "{}", reason(&foreign));
}

/// Garbage, too long and cut off frames end their own connection and nothing else.
#[test]
fn survives_bytes_that_are_no_frames() {
    let folder = TempDir::new().unwrap();
    let port = free_ports();
    let (mut running, _) = Running::start(mqbroker(
        folder.path(),
        &conf(port, &folder.path().join("s")),
        &[],
    ));
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[0, 0, 0, 8, 0, 0, 0, 200, 1, 2, 3, 4],
        &[0, 0, 0, 8, 9, 0, 0, 4, 1, 2, 3, 4],
        &[0, 0, 0, 6, 0, 0, 0, 2, b'{', b'{'],
        &[0x16, 3, 1, 0, 0],
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A reset is as good an end as any.
        let read = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || read.is_err(), "{bytes:?}: {answer:?}");
    }
    let half_open = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let header = br#"{"code":28,"flag":0,"language":"JAVA","opaque":7,"version":479}"#;
    let mut frame = u32::try_from(header.len() + 4)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    frame.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
    frame.extend(header);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&frame[..20]).unwrap();
    stream.write_all(&frame[20..]).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("brokerActive"));
    drop(half_open);
    assert!(running.signal("TERM").success());
}

//! `mqnamesrv` as scripts use it: its options, its first line, its exit codes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

fn mqnamesrv() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqnamesrv"));
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null());
    command
}

/// Kills the process if a test fails half-way.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Starts it with a conf on a free port; returns the port.
fn start(conf: &std::path::Path) -> (Running, u16) {
    let mut child = Running(
        mqnamesrv()
            .arg("-c")
            .arg(conf)
            .arg("-n")
            .arg("ignored:1")
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let expected = "The Name Server boot success. serializeType=JSON, address 127.0.0.1:";
    let port = line
        .trim_end()
        .strip_prefix(expected)
        .unwrap_or_else(|| panic!("first line: {line:?}"));
    (child, port.parse().unwrap())
}

fn conf(folder: &std::path::Path, port: u16, more: &str) -> std::path::PathBuf {
    let path = folder.join("namesrv.conf");
    let kv = folder.join("kv.json");
    let text = format!(
        "bindAddress=127.0.0.1\nlistenPort={port}\nkvConfigPath={}\n{more}",
        kv.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn it_boots_logs_to_its_folder_and_ends_cleanly_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    let (mut child, _port) = start(&conf(
        folder.path(),
        0,
        &format!("logDir={}\nnoSuchKey=1\n", logs.display()),
    ));
    let killed = Command::new("kill")
        .arg("-TERM")
        .arg(child.0.id().to_string())
        .status()
        .unwrap();
    assert!(killed.success());
    assert!(child.0.wait().unwrap().success());
    let file = std::fs::read_dir(&logs)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = std::fs::read_to_string(file).unwrap();
    for expected in ["noSuchKey is not known", "boot success", "stopped"] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_port_in_use_is_one_line_and_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (_child, port) = start(&conf(folder.path(), 0, ""));
    let output = mqnamesrv()
        .arg("-c")
        .arg(conf(folder.path(), port, "logLevel=off\n"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[test]
fn a_missing_conf_is_one_line_and_a_failure() {
    let output = mqnamesrv()
        .args(["-c", "/nowhere/namesrv.conf"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.lines().count() == 1 && error.contains("/nowhere/namesrv.conf"),
        "{error}"
    );
}

#[test]
fn p_prints_all_keys_and_h_the_options() {
    let folder = tempfile::tempdir().unwrap();
    let output = mqnamesrv()
        .arg("-p")
        .arg("-c")
        .arg(conf(folder.path(), 12, "listenPrt=1\n"))
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line == "listenPort=12"), "{text}");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("listenPrt")
    );
    let mut help = mqnamesrv().arg("-h").spawn().unwrap();
    let mut text = String::new();
    help.stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(help.wait().unwrap().success());
    for option in ["-c", "--configFile", "-n", "-p", "-h"] {
        assert!(text.contains(option), "{option} is not in\n{text}");
    }
}

//! A star of network namespaces: this process's own is the router in the middle, clients and nameservers live in it, and
//! each member has one of its own at the end of a wire.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cluster::{Options, Site};
use crate::process::spawn_piped;

/// Where members find the nameserver; an address of the router.
const NAMESERVER: &str = "10.77.200.1";

/// Moves this process into a new network namespace and makes it a router.
pub fn enter() -> Result<()> {
    // SAFETY: a plain system call; this process has one thread so far.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if entered != 0 {
        return Err(std::io::Error::last_os_error()).context("unshare");
    }
    ip("link set lo up")?;
    ip(&format!("address add {NAMESERVER}/32 dev lo"))?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switch forwarding on")
}

fn ip(words: &str) -> Result<()> {
    run(Command::new("ip").args(words.split_whitespace()), words)
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("run ip {what}"))?;
    require_success(&output, what)
}

/// Has one process do what each line says, so that hardly any time is between them.
fn ip_at_once(lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip -batch")?;
    let mut input = child.stdin.take().context("the input of ip")?;
    input.write_all(lines.as_bytes()).context("tell ip")?;
    drop(input); // its end
    let output = child.wait_with_output().context("wait for ip -batch")?;
    require_success(&output, lines)
}

fn require_success(output: &Output, what: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {what}: {said}");
    Ok(())
}

/// A member's namespace, kept alive by a process that does nothing.
#[derive(Debug)]
struct End {
    keeper: Child,
    wire: String,
}

/// The wires of one cluster.
#[derive(Debug)]
pub struct Network {
    ends: Vec<End>,
}

/// A member's address, the same for clients and members.
pub fn host(member: usize) -> String {
    format!("10.77.{member}.2")
}

impl Network {
    /// Makes a namespace and a wire for each member.
    pub fn new(members: usize) -> Result<Network> {
        let mut network = Network { ends: Vec::new() };
        for member in 0..members {
            let mut keep = Command::new("unshare");
            keep.args(["-n", "sleep", "infinity"]).stdin(Stdio::null());
            let keeper = spawn_piped(keep).context("start a namespace")?;
            let (pid, wire) = (keeper.id(), format!("wire{member}"));
            network.ends.push(End {
                keeper,
                wire: wire.clone(),
            });
            let own = std::fs::read_link("/proc/self/ns/net").context("own namespace")?;
            crate::wait::wait_for(
                "a namespace",
                std::time::Duration::from_secs(5),
                std::time::Duration::from_millis(2),
                || {
                    let other = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
                    (other != own).then_some(())
                },
            )?;
            ip(&format!(
                "link add {wire} type veth peer name eth0 netns {pid}"
            ))?;
            ip(&format!("address add 10.77.{member}.1/30 dev {wire}"))?;
            ip(&format!("link set {wire} up"))?;
            for words in [
                "link set lo up".to_owned(),
                format!("address add {}/30 dev eth0", host(member)),
                "link set eth0 up".to_owned(),
                format!("route add default via 10.77.{member}.1"),
            ] {
                let mut command = Command::new("nsenter");
                command
                    .args(["-t", &pid.to_string(), "-n", "ip"])
                    .args(words.split_whitespace());
                run(&mut command, &words)?;
            }
        }
        Ok(network)
    }

    /// Options of a group whose members live at the ends.
    pub fn options(&self) -> Options {
        let site = |(member, end): (usize, &End)| Site {
            host: host(member),
            enter: ["nsenter", "-t", &end.keeper.id().to_string(), "-n"]
                .map(str::to_owned)
                .to_vec(),
        };
        Options {
            sites: self.ends.iter().enumerate().map(site).collect(),
            nameserver_host: NAMESERVER.to_owned(),
            ..Options::default()
        }
    }

    /// Drops everything that `from` sends to `to`, until healed. Nobody is told: packets vanish.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<()> {
        let (from, to) = (host(from), host(to));
        let rule = format!("priority 100 from {from} to {to} blackhole");
        ip(&format!("rule del {rule}")).ok(); // it may be cut already
        ip(&format!("rule add {rule}"))
    }

    /// Lets through again what [`Network::cut_one_way`] drops.
    pub fn mend_one_way(&self, from: usize, to: usize) -> Result<()> {
        let (from, to) = (host(from), host(to));
        let rule = format!("rule del priority 100 from {from} to {to} blackhole");
        ip(&rule).ok(); // it may be mended already
        Ok(())
    }

    /// Has the router itself take what the others send to a port of `member`, and what it answers: a socket here that claims
    /// their addresses gets it, see [`Links`](crate::link::Links). What is cut does not come as far.
    pub fn hand_over(&self, member: usize, port: u16) -> Result<()> {
        ip("route replace local default dev lo table 100")?;
        let to = host(member);
        for other in (0..self.ends.len()).filter(|other| *other != member) {
            let from = host(other);
            let (there, back) = (&self.ends[other].wire, &self.ends[member].wire);
            let ports = format!("ipproto tcp dport {port} lookup 100");
            ip(&format!(
                "rule add priority 200 from {from} to {to} iif {there} {ports}"
            ))?;
            let ports = format!("ipproto tcp sport {port} lookup 100");
            ip(&format!(
                "rule add priority 200 from {to} to {from} iif {back} {ports}"
            ))?;
        }
        Ok(())
    }

    /// Drops everything between two members.
    pub fn cut(&self, one: usize, other: usize) -> Result<()> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// Drops everything between a member and all others, at once. Nothing may be cut between them yet.
    pub fn cut_off(&self, member: usize) -> Result<()> {
        let mut rules = String::new();
        for other in (0..self.ends.len()).filter(|other| *other != member) {
            for (from, to) in [(member, other), (other, member)] {
                let (from, to) = (host(from), host(to));
                writeln!(rules, "rule add priority 100 from {from} to {to} blackhole")
                    .expect("writing to a string does not fail");
            }
        }
        ip_at_once(&rules)
    }

    /// Lets everything through again.
    pub fn heal(&self) -> Result<()> {
        // One rule goes each time, until there is none and the command fails.
        while ip("rule del priority 100").is_ok() {}
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.heal().ok(); // the namespaces go anyway
        while ip("rule del priority 200").is_ok() {}
        for end in &mut self.ends {
            end.keeper.kill().ok();
            end.keeper.wait().ok();
            // It goes with its other end, a moment after the namespace.
            ip(&format!("link del {}", end.wire)).ok();
        }
    }
}

//! Connections that are half open, half done, or never read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls;
use raftmq_tests::cluster::Options;
use raftmq_tests::figures::say;
use raftmq_tests::serial::turn;
use raftmq_tests::wait::pause;
use raftmq_tests::wire::Connection;

use super::support::{SERVED, require_service, start};

/// Hundreds of connections that say nothing, half a length, half a header or half a body, and stay.
#[test]
fn half_open_connections_cost_nobody_else() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let request = calls::send_request(SERVED, 0, "", &[b'x'; 10_000]).to_frame(1);
    let nameserver = cluster.nameserver_addresses();
    let mut held = Vec::new();
    for address in cluster.addresses().iter().chain([&nameserver]) {
        for sent in [0, 2, 4, 30, request.len() - 1] {
            for _ in 0..40 {
                let mut connection = Connection::open(address)?;
                connection.write_raw(&request[..sent])?;
                held.push(connection);
            }
        }
    }
    require_service(&mut cluster, "800 half-open connections")?;
    drop(held); // all at once
    require_service(&mut cluster, "800 connections that went")?;
    let leader = cluster.wait_leader()?;
    let mut connection = Connection::open(&cluster.members[leader].address())?;
    let max = calls::max_offset(&mut connection, SERVED, 0)?;
    ensure!(
        max == 6,
        "{max} messages: one of the unfinished sends was stored"
    );
    cluster.passed()
}

/// Clients that ask for gigabytes and read nothing: the answers must not pile up in the broker's memory.
#[test]
fn clients_that_never_read_are_bounded() -> Result<()> {
    let _turn = turn()?;
    const CLIENTS: usize = 8;
    const PULLS: usize = 400;
    let mut cluster = start(Options::default())?;
    let leader = cluster.wait_leader()?;
    let address = cluster.members[leader].address();
    let mut connection = Connection::open(&address)?;
    let large = calls::send_request(SERVED, 0, "", &vec![b'x'; 4 << 20]);
    let offset = calls::send(&mut connection, &large)?.offset;
    let before = cluster.private_bytes(leader)?;
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Connection::open(&address)?;
        for _ in 0..PULLS {
            let pull = calls::pull_request("Deaf", SERVED, 0, offset, Duration::ZERO);
            // Backpressure may reach this side, which is as it should be.
            if client
                .write_within(&pull, Duration::from_millis(200))
                .is_err()
            {
                break;
            }
        }
        held.push(client);
    }
    pause(Duration::from_secs(1)); // time to pile up
    let after = cluster.private_bytes(leader)?;
    say(format!(
        "{CLIENTS} clients that never read asked for {} MiB: private memory {} MiB before, {} MiB after",
        CLIENTS * PULLS * 4,
        before >> 20,
        after >> 20
    ));
    ensure!(
        after < before + (400 << 20),
        "private memory grew from {before} to {after} bytes for clients that do not read"
    );
    require_service(&mut cluster, "clients that never read")?;
    drop(held);
    require_service(&mut cluster, "clients that never read and went").context("afterwards")?;
    cluster.passed()
}

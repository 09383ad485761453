//! A nameserver believes nobody blindly.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls::{GroupAddresses, PATIENCE, request};
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::serial::turn;
use raftmq_tests::wait::wait_for;
use raftmq_tests::wire::Request;

use super::support::{require_answer, require_service, start};

fn register() -> Request {
    Request::new(request::REGISTER_BROKER)
        .field("brokerName", "Stranger")
        .field("brokerAddr", "127.0.0.1:1")
        .field("clusterName", "Strangers")
        .field("haServerAddr", "127.0.0.1:2")
        .field("brokerId", 0)
        .field("bodyCrc32", 0)
}

/// The group as the nameserver knows it once every member has registered.
fn all_registered(cluster: &Cluster) -> Result<GroupAddresses> {
    let step = Duration::from_millis(10);
    wait_for("every member to be registered", PATIENCE, step, || {
        let known = cluster.registered(0).ok()?;
        (known.len() == cluster.members.len()).then_some(known)
    })
}

#[test]
fn registrations_that_are_none_do_not_harm_the_routes() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let address = cluster.nameserver_addresses();
    let before = all_registered(&cluster)?;
    let deep = "[".repeat(500_000);
    for body in [
        "",
        "null",
        "[]",
        "{",
        "{\"topicConfigSerializeWrapper\":7}",
        deep.as_str(),
    ] {
        let shown: String = body.chars().take(20).collect();
        require_answer(
            &address,
            &register().body(body),
            &format!("registration {shown:?}"),
        )?;
        let compressed = register().field("compressed", true).body(body);
        require_answer(
            &address,
            &compressed,
            &format!("compressed registration {shown:?}"),
        )?;
    }
    for name in ["brokerName", "brokerAddr", "clusterName", "brokerId"] {
        let reply = require_answer(&address, &register().without(name), name)?;
        ensure!(
            reply.code != 0,
            "a registration without {name} was accepted"
        );
    }
    for id in ["x", "-1", "99999999999999999999"] {
        require_answer(
            &address,
            &register().with("brokerId", id),
            "a registration's id",
        )?;
    }
    let wrong = register().with("bodyCrc32", 12_345).body("{}");
    let reply = require_answer(&address, &wrong, "a registration with a wrong checksum")?;
    ensure!(
        reply.code != 0,
        "a registration with a wrong checksum was accepted"
    );
    let after = cluster.registered(0)?;
    ensure!(after == before, "the group was {before:?} and is {after:?}");
    require_service(&mut cluster, "bad registrations")?;
    cluster.passed()
}

/// A few hundred kilobytes that unpack to hundreds of megabytes: refused, and not unpacked in memory first.
#[test]
fn a_compressed_registration_that_explodes_is_refused() -> Result<()> {
    let _turn = turn()?;
    const UNPACKED: usize = 600 << 20;
    let mut cluster = start(Options::single())?;
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeroes = vec![0; 1 << 20];
    for _ in 0..UNPACKED / zeroes.len() {
        packer.write_all(&zeroes).context("pack zeroes")?;
    }
    let bomb = packer.finish().context("pack zeroes")?;
    ensure!(
        bomb.len() < 16 << 20,
        "the packed body must fit a frame: {} bytes",
        bomb.len()
    );
    let request = register().field("compressed", true).body(bomb);
    let address = cluster.nameserver_addresses();
    let reply = require_answer(&address, &request, "a body that explodes")?;
    ensure!(reply.code != 0, "a body that explodes was accepted");
    let process = cluster.nameservers[0].process.as_ref().context("it runs")?;
    let peak = process.peak_bytes()?;
    ensure!(
        peak < 300 << 20,
        "the nameserver took {peak} bytes of memory for it"
    );
    require_service(&mut cluster, "a body that explodes")?;
    cluster.passed()
}

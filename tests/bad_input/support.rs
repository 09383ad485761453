//! What the tests of this folder share.

use anyhow::{Context, Result, bail, ensure};
use raftmq_tests::calls::{self, PATIENCE};
use raftmq_tests::cluster::Cluster;
use raftmq_tests::wire::{Connection, Reply, Request};

/// The topic by which service is checked.
pub(crate) const SERVED: &str = "Served";

/// A group with the topic [`SERVED`].
pub(crate) fn start(options: raftmq_tests::cluster::Options) -> Result<Cluster> {
    let mut cluster = Cluster::start(options)?;
    cluster.create_topic(SERVED, 1)?;
    cluster.wait_topic(SERVED)?;
    Ok(cluster)
}

/// A message goes in through each member and comes out again, the nameserver knows the route, and no process has ended.
pub(crate) fn require_service(cluster: &mut Cluster, after: &str) -> Result<()> {
    serve(cluster).with_context(|| format!("after {after}"))
}

fn serve(cluster: &mut Cluster) -> Result<()> {
    cluster.require_running()?;
    for member in &cluster.members {
        let mut connection = Connection::open(&member.address())?;
        let request = calls::send_request(SERVED, 0, &calls::keys_property("served"), b"served");
        let sent = calls::send(&mut connection, &request)
            .with_context(|| format!("send through n{}", member.number))?;
        let pulled = calls::pull(
            &mut connection,
            "ServedGroup",
            SERVED,
            0,
            sent.offset,
            std::time::Duration::ZERO,
        )?;
        let first = pulled
            .records()?
            .first()
            .map(|record| (record.queue_offset, record.body_intact));
        ensure!(
            first == Some((sent.offset, true)),
            "n{}: sent at {}, read {first:?} (code {})",
            member.number,
            sent.offset,
            pulled.code
        );
    }
    let mut nameserver = Connection::open(&cluster.nameserver_addresses())?;
    calls::route_addresses(&mut nameserver, SERVED).context("ask for the route")?;
    cluster.require_running()
}

/// Expects a refusal with one of these codes, and words that say why.
pub(crate) fn require_refusal(reply: &Reply, codes: &[i32], what: &str) -> Result<()> {
    ensure!(
        codes.contains(&reply.code),
        "{what}: expected a code of {codes:?}, got {} '{}'",
        reply.code,
        reply.remark
    );
    ensure!(
        !reply.remark.trim().is_empty(),
        "{what}: code {} without a word",
        reply.code
    );
    Ok(())
}

/// Calls on a fresh connection to `address`; no reply at all is an error.
pub(crate) fn ask(address: &str, request: &Request) -> Result<Reply> {
    Connection::open(address)?.call(request, PATIENCE)
}

/// A request that may be answered in any way, as long as it is answered.
pub(crate) fn require_answer(address: &str, request: &Request, what: &str) -> Result<Reply> {
    match ask(address, request) {
        Ok(reply) => Ok(reply),
        Err(error) => bail!("{what}: no answer: {error:#}"),
    }
}

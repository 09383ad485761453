//! Well-formed frames with requests that make no sense: refused with the code and the words a client can use, nothing
//! stored, nothing lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls::{self, request, response};
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::serial::turn;
use raftmq_tests::wire::{Connection, Request};

use super::support::{SERVED, ask, require_answer, require_refusal, require_service, start};

const BODY_MAX: usize = 4 << 20;

/// The leader and a follower: what is refused must be refused in the same words wherever it arrives.
fn leader_and_follower(cluster: &mut Cluster) -> Result<[String; 2]> {
    let leader = cluster.wait_leader()?;
    Ok([leader, (leader + 1) % 3].map(|member| cluster.members[member].address()))
}

fn stored(cluster: &mut Cluster) -> Result<i64> {
    let leader = cluster.wait_leader()?;
    let mut connection = Connection::open(&cluster.members[leader].address())?;
    calls::max_offset(&mut connection, SERVED, 0)
}

/// Requests with good fields, each of which is then taken out or spoilt.
fn good_requests() -> Vec<(Request, &'static [&'static str])> {
    let update = Request::new(request::UPDATE_CONSUMER_OFFSET)
        .field("consumerGroup", "Fields")
        .field("topic", SERVED)
        .field("queueId", 0)
        .field("commitOffset", 0);
    let query = Request::new(request::QUERY_CONSUMER_OFFSET)
        .field("consumerGroup", "Fields")
        .field("topic", SERVED)
        .field("queueId", 0);
    let search = Request::new(request::SEARCH_OFFSET_BY_TIMESTAMP)
        .field("topic", SERVED)
        .field("queueId", 0)
        .field("timestamp", 0);
    let max = Request::new(request::GET_MAX_OFFSET)
        .field("topic", SERVED)
        .field("queueId", 0);
    let min = Request::new(request::GET_MIN_OFFSET)
        .field("topic", SERVED)
        .field("queueId", 0);
    let pull = calls::pull_request("Fields", SERVED, 0, 0, Duration::ZERO);
    let numbers_of_pull = &[
        "queueId",
        "queueOffset",
        "maxMsgNums",
        "sysFlag",
        "commitOffset",
        "suspendTimeoutMillis",
        "subVersion",
    ];
    let numbers_of_send = &[
        "defaultTopicQueueNums",
        "queueId",
        "sysFlag",
        "bornTimestamp",
        "flag",
    ];
    vec![
        (
            calls::send_request(SERVED, 0, "", b"x"),
            &["d", "e", "f", "g", "h"],
        ),
        (calls::send_request_v1(SERVED, 0, "", b"x"), numbers_of_send),
        (
            calls::batch_request(SERVED, 0, [("", "x")]),
            &["d", "e", "f", "g", "h"],
        ),
        (pull, numbers_of_pull),
        (update, &["queueId", "commitOffset"]),
        (query, &["queueId"]),
        (search, &["queueId", "timestamp"]),
        (max, &["queueId"]),
        (min, &["queueId"]),
    ]
}

/// Fields that RocketMQ's headers require.
fn required(request: &Request) -> Vec<String> {
    const OPTIONAL: [&str; 10] = [
        "i",
        "j",
        "k",
        "m",
        "properties",
        "reconsumeTimes",
        "unitMode",
        "batch",
        "subscription",
        "expressionType",
    ];
    let names = request.fields.iter().map(|(name, _)| name.clone());
    names
        .filter(|name| !OPTIONAL.contains(&name.as_str()))
        .collect()
}

#[test]
fn missing_and_non_numeric_fields_are_refused() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let addresses = leader_and_follower(&mut cluster)?;
    let before = stored(&mut cluster)?;
    for address in &addresses {
        for (good, numbers) in good_requests() {
            let code = good.code;
            for name in required(&good) {
                let reply = ask(address, &good.clone().without(&name))?;
                let what = format!("request {code} without {name}");
                require_refusal(&reply, &[response::SYSTEM_ERROR], &what)?;
            }
            for name in numbers {
                for bad in ["x", "", "1.5", "99999999999999999999", "0x10", " 1", "１"] {
                    let reply = ask(address, &good.clone().with(name, bad))?;
                    let what = format!("request {code} with {name} = '{bad}'");
                    require_refusal(&reply, &[response::SYSTEM_ERROR], &what)?;
                }
            }
            let bare = Request::new(code);
            let reply = ask(address, &bare)?;
            require_refusal(
                &reply,
                &[response::SYSTEM_ERROR],
                &format!("bare request {code}"),
            )?;
        }
    }
    ensure!(
        stored(&mut cluster)? == before,
        "a refused request was stored"
    );
    require_service(&mut cluster, "bad fields")?;
    cluster.passed()
}

#[test]
fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let addresses = leader_and_follower(&mut cluster)?;
    let body: Vec<u8> = (0..=BODY_MAX)
        .map(|at| u8::try_from(at % 251).unwrap_or(0))
        .collect();
    for address in &addresses {
        let mut connection = Connection::open(address)?;
        for form in [calls::send_request, calls::send_request_v1] {
            let sent = calls::send(&mut connection, &form(SERVED, 0, "", &body[..BODY_MAX]))
                .context("4 MiB exactly")?;
            let pulled = calls::pull(
                &mut connection,
                "Large",
                SERVED,
                0,
                sent.offset,
                Duration::ZERO,
            )?;
            let records = pulled.records()?;
            let read = records.first().context("the large message is not there")?;
            ensure!(
                read.body == &body[..BODY_MAX] && read.body_intact,
                "it reads differently"
            );

            let reply = ask(address, &form(SERVED, 0, "", &body))?;
            require_refusal(&reply, &[response::MESSAGE_ILLEGAL], "4 MiB and one byte")?;
        }
        // The limit of the whole batch is that of one message.
        let half = &body[..BODY_MAX / 2 + 1];
        let batch = calls::batch_request(SERVED, 0, [("", half), ("", half)]);
        let reply = ask(address, &batch)?;
        require_refusal(
            &reply,
            &[response::MESSAGE_ILLEGAL],
            "a batch over the limit",
        )?;
        let properties = calls::keys_property(&"k".repeat(32_768));
        let reply = ask(address, &calls::send_request(SERVED, 0, &properties, b"x"))?;
        require_refusal(
            &reply,
            &[response::MESSAGE_ILLEGAL],
            "properties over the limit",
        )?;
        // The longest that fits its 16-bit length.
        let properties = calls::keys_property(&"k".repeat(32_767 - 6 - 300));
        calls::send(
            &mut connection,
            &calls::send_request(SERVED, 0, &properties, b"x"),
        )
        .context("long properties")?;
    }
    require_service(&mut cluster, "large messages")?;
    cluster.passed()
}

#[test]
fn names_that_are_no_names_are_refused() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let addresses = leader_and_follower(&mut cluster)?;
    let long = [
        "t".repeat(128),
        "t".repeat(255),
        "t".repeat(256),
        "t".repeat(40_000),
    ];
    let mut names = vec![
        "",
        " ",
        "a/b",
        "/etc/passwd",
        "..",
        "../../up",
        ".",
        "a\\b",
        "a b",
        "a\u{1}b",
        "a\u{2}b",
        "a\nb",
        "a\0b",
        "a@b",
        "a:b",
        "a;b",
        "a,b",
        "*",
        "#",
        "thème",
        "主题",
        "\u{1F600}",
        "${jndi:x}",
    ];
    names.extend(long.iter().map(String::as_str));
    for address in &addresses {
        let mut connection = Connection::open(address)?;
        for name in &names {
            let shown: String = name.chars().take(20).collect();
            let reply = ask(address, &calls::send_request(name, 0, "", b"x"))?;
            let what = format!("a send to topic {shown:?} ({} bytes)", name.len());
            require_refusal(&reply, &[response::INVALID_PARAMETER], &what)?;
            let created = calls::create_topic(&mut connection, name, 1);
            ensure!(
                created.is_err(),
                "topic {shown:?} ({} bytes) was created",
                name.len()
            );
            let pull = calls::pull_request("Names", name, 0, 0, Duration::ZERO);
            let reply = require_answer(address, &pull, &format!("a pull from {shown:?}"))?;
            ensure!(
                reply.code != response::SUCCESS,
                "a pull from {shown:?}: {reply:?}"
            );
            // As a group: nothing is said about the code, but nothing may break.
            let pull = calls::pull_request(name, SERVED, 0, 0, Duration::ZERO);
            require_answer(address, &pull, &format!("a pull by group {shown:?}"))?;
            calls::update_offset(&mut connection, name, SERVED, 0, 1).ok();
            connection = Connection::open(address)?;
        }
        // The longest topic name that is one.
        let name = "t".repeat(127);
        calls::send(&mut connection, &calls::send_request(&name, 0, "", b"x"))
            .context("a topic of 127 characters")?;
    }
    require_service(&mut cluster, "bad names")?;
    // And they are not in anybody's way when the state is read again.
    cluster.kill_all();
    cluster.start_all()?;
    cluster.wait_serving()?;
    require_service(&mut cluster, "bad names and a restart")?;
    cluster.passed()
}

#[test]
fn an_unknown_topic_is_refused_when_auto_creation_is_off() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default().with("autoCreateTopicEnable", "false"))?;
    for address in leader_and_follower(&mut cluster)? {
        for request in [
            calls::send_request("Nowhere", 0, "", b"x"),
            calls::send_request_v1("Nowhere", 0, "", b"x"),
            calls::batch_request("Nowhere", 0, [("", "x")]),
            calls::pull_request("Fields", "Nowhere", 0, 0, Duration::ZERO),
        ] {
            let reply = ask(&address, &request)?;
            let what = format!("request {} for an unknown topic", request.code);
            require_refusal(&reply, &[response::TOPIC_NOT_EXIST], &what)?;
        }
    }
    let mut nameserver = Connection::open(&cluster.nameserver_addresses())?;
    ensure!(
        calls::route_addresses(&mut nameserver, "Nowhere").is_err(),
        "it has a route"
    );
    require_service(&mut cluster, "an unknown topic")?;
    cluster.passed()
}

#[test]
fn queues_and_offsets_out_of_range() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let addresses = leader_and_follower(&mut cluster)?;
    for address in &addresses {
        let mut connection = Connection::open(address)?;
        calls::send(&mut connection, &calls::send_request(SERVED, 0, "", b"x"))?;
        for queue in [1, 8, 1_000_000, i32::MAX] {
            let reply = ask(address, &calls::send_request(SERVED, queue, "", b"x"))?;
            require_refusal(
                &reply,
                &[response::INVALID_PARAMETER],
                &format!("send to {queue}"),
            )?;
            let batch = calls::batch_request(SERVED, queue, [("", "x")]);
            let reply = ask(address, &batch)?;
            require_refusal(
                &reply,
                &[response::INVALID_PARAMETER],
                &format!("batch to {queue}"),
            )?;
        }
        for queue in [1, 1_000_000, -1, i32::MIN, i32::MAX] {
            let pull = calls::pull_request("Range", SERVED, queue, 0, Duration::ZERO);
            let reply = ask(address, &pull)?;
            require_refusal(
                &reply,
                &[response::INVALID_PARAMETER],
                &format!("pull of {queue}"),
            )?;
            for code in [request::GET_MAX_OFFSET, request::GET_MIN_OFFSET] {
                let ask = Request::new(code)
                    .field("topic", SERVED)
                    .field("queueId", queue);
                require_answer(address, &ask, &format!("request {code} of queue {queue}"))?;
            }
        }
        pulls_out_of_range(&mut connection)?;
        offsets_out_of_range(&mut connection)?;
        counts_out_of_range(address)?;
    }
    require_service(&mut cluster, "numbers out of range")?;
    cluster.passed()
}

/// A pull outside of what there is says where to go on: inside of what there is.
fn pulls_out_of_range(connection: &mut Connection) -> Result<()> {
    let max = calls::max_offset(connection, SERVED, 0)?;
    for (offset, next) in [
        (-1, 0),
        (i64::MIN, 0),
        (max + 1, max),
        (max + 1_000_000_000, max),
        (i64::MAX, max),
    ] {
        let pulled = calls::pull(connection, "Range", SERVED, 0, offset, Duration::ZERO)
            .with_context(|| format!("pull at {offset}"))?;
        ensure!(
            (pulled.code, pulled.next) == (response::PULL_OFFSET_MOVED, next),
            "pull at {offset} of {max}: {pulled:?}"
        );
        // Also when it may wait: there is nothing to wait for.
        let pulled = calls::pull(
            connection,
            "Range",
            SERVED,
            0,
            offset,
            Duration::from_secs(2),
        )?;
        ensure!(
            pulled.code == response::PULL_OFFSET_MOVED,
            "held pull at {offset}: {pulled:?}"
        );
    }
    Ok(())
}

/// A saved offset that makes no sense is refused or kept; either way it is given back as a number, and a pull with it says
/// where to go on.
fn offsets_out_of_range(connection: &mut Connection) -> Result<()> {
    for offset in [-1, i64::MIN, i64::MAX] {
        let group = format!("Range{}", offset.unsigned_abs());
        let saved = calls::update_offset(connection, &group, SERVED, 0, offset);
        if let Err(error) = &saved {
            ensure!(error.is::<calls::Refusal>(), "offset {offset}: {error:#}");
        }
        let found = calls::query_offset(connection, &group, SERVED, 0)?;
        ensure!(
            if saved.is_ok() {
                found.is_some()
            } else {
                found.is_none()
            },
            "offset {offset} was {saved:?} and {found:?} is saved"
        );
    }
    Ok(())
}

fn counts_out_of_range(address: &str) -> Result<()> {
    let good = calls::pull_request("Range", SERVED, 0, 0, Duration::ZERO);
    for count in [0, -1, i32::MIN, i32::MAX] {
        let reply = require_answer(
            address,
            &good.clone().with("maxMsgNums", count),
            "a pull's count",
        )?;
        ensure!(
            reply.body.len() < 16 << 20,
            "{count} messages: {} bytes",
            reply.body.len()
        );
    }
    for bits in [-1, i32::MIN, i32::MAX, 4 | 1 << 30] {
        // Bit 1 may hold the pull: at offset 0 there is something, so it never waits.
        require_answer(
            address,
            &good.clone().with("sysFlag", bits),
            "a pull's flags",
        )?;
    }
    for hold in [-1, i64::MIN, i64::MAX] {
        let held = good
            .clone()
            .with("sysFlag", 6)
            .with("suspendTimeoutMillis", hold);
        require_answer(address, &held, "a pull's time to wait")?;
    }
    for expression in [
        "||",
        "a||",
        "(",
        "a && b",
        "TAGS is not null",
        &"x||".repeat(100_000),
    ] {
        let reply = require_answer(
            address,
            &good.clone().with("subscription", expression),
            "a pull's subscription",
        )?;
        ensure!(reply.is_response());
    }
    let sql = good
        .clone()
        .with("expressionType", "SQL92")
        .with("subscription", "a > (");
    let reply = require_answer(address, &sql, "a broken SQL filter")?;
    ensure!(
        reply.code != response::SUCCESS,
        "a broken SQL filter: {reply:?}"
    );
    let unknown = good.with("expressionType", "XPATH");
    let reply = require_answer(address, &unknown, "an unknown filter type")?;
    ensure!(
        reply.code != response::SUCCESS,
        "an unknown filter type: {reply:?}"
    );
    Ok(())
}

/// Batch bodies that lie about their items store nothing at all, not even the good items before the bad one.
#[test]
fn broken_batches_store_nothing() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let addresses = leader_and_follower(&mut cluster)?;
    let good = calls::batch_request(SERVED, 0, [("", "one"), ("", "two"), ("", "three")]);
    let size = good.body.len();
    let spoil = |at: usize, bytes: [u8; 4]| {
        let mut body = good.body.clone();
        body[at..at + 4].copy_from_slice(&bytes);
        body
    };
    let mut bodies = vec![
        ("empty", Vec::new()),
        ("zeroes", vec![0; 1_000]),
        ("ones", vec![0xff; 1_000]),
        ("an item size of 0", spoil(0, [0; 4])),
        ("a negative item size", spoil(0, [0xff; 4])),
        ("an item size beyond the end", spoil(25, [0, 1, 0, 0])),
        ("a body length beyond its item", spoil(16, [0, 0, 0, 200])),
        (
            "a negative body length",
            spoil(16, [0xff, 0xff, 0xff, 0xfe]),
        ),
    ];
    for cut in [1, 5, 19, size - 20, size - 1] {
        bodies.push(("cut short", good.body[..cut].to_vec()));
    }
    bodies.push(("an extra byte", [&good.body[..], b"x"].concat()));
    let before = stored(&mut cluster)?;
    for address in &addresses {
        for (what, body) in &bodies {
            let reply = ask(address, &good.clone().body(body.clone()))?;
            ensure!(
                reply.code != response::SUCCESS,
                "a batch with {what} was accepted"
            );
        }
        let after = stored(&mut cluster)?;
        ensure!(
            after == before,
            "{} messages of broken batches were stored",
            after - before
        );
    }
    ensure!(
        calls::send(&mut Connection::open(&addresses[0])?, &good)?
            .ids
            .len()
            == 3
    );
    require_service(&mut cluster, "broken batches")?;
    cluster.passed()
}

/// Bodies that should be JSON and are not.
#[test]
fn heartbeats_that_are_no_heartbeats() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let addresses = leader_and_follower(&mut cluster)?;
    let deep = "[".repeat(500_000);
    let endless = format!("{{\"clientID\":\"{}\"}}", "c".repeat(2_000_000));
    let bodies: [&[u8]; 10] = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{\"clientID\":7}",
        b"{\"clientID\":\"c\",\"consumerDataSet\":[{\"$ref\":\"$\"}]}",
        b"{\"clientID\":\"c\",\"consumerDataSet\":[null]}",
        b"\xff\xfe\xfd",
        deep.as_bytes(),
        endless.as_bytes(),
    ];
    for address in &addresses {
        for body in bodies {
            let request = Request::new(request::HEART_BEAT).body(body);
            let shown = String::from_utf8_lossy(&body[..body.len().min(30)]).into_owned();
            require_answer(address, &request, &format!("heartbeat {shown:?}"))?;
        }
        let ghost = calls::heartbeat_request("client", "no/such group", "../topic");
        require_answer(address, &ghost, "a heartbeat of an impossible group")?;
    }
    require_service(&mut cluster, "bad heartbeats")?;
    cluster.passed()
}

//! Bytes that are no frames, or frames that are no requests, on every port.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use raftmq_tests::calls::{PATIENCE, response};
use raftmq_tests::cluster::{Cluster, Options};
use raftmq_tests::serial::turn;
use raftmq_tests::wire::{Connection, FRAME_MAX, Request, frame};

use super::support::{require_service, start};

/// Bytes after which a connection is of no use any more: the server closes it (a TLS hello, too, as long as TLS is off).
fn hopeless() -> Vec<(&'static str, Vec<u8>)> {
    let mut noise = Vec::new();
    let mut state = 12_345_u32;
    for _ in 0..100_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push(state.to_be_bytes()[0]);
    }
    let header = br#"{"code":105,"flag":0,"language":"JAVA","opaque":1,"version":409}"#;
    let oversized = u32::try_from(FRAME_MAX + 1).expect("24 bits").to_be_bytes();
    let mut lying_header = frame(0, header, b"");
    lying_header[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    vec![
        ("noise", noise),
        (
            "an HTTP request",
            b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
        ),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(40),
        ),
        ("a length of 0", vec![0; 64]),
        (
            "a length of 3",
            [&3_u32.to_be_bytes()[..], &[0; 64]].concat(),
        ),
        ("a negative length", vec![0xff; 64]),
        (
            "a length over the limit",
            [&oversized[..], &[0; 64]].concat(),
        ),
        ("a header longer than its frame", lying_header),
        ("an unknown header encoding", frame(7, header, b"")),
        ("a header that is no JSON", frame(0, b"code=105", b"")),
        ("a header that is no object", frame(0, b"[105]", b"")),
        ("an empty header", frame(0, b"", b"")),
        ("a header cut in a string", frame(0, &header[..20], b"")),
        (
            "a header that is not UTF-8",
            frame(0, b"{\"code\":105,\"remark\":\"\xff\xfe\"}", b""),
        ),
        (
            "a header of a million brackets",
            frame(0, &b"[".repeat(1_000_000), b""),
        ),
        ("fields nested a million deep", {
            let open = [
                &b"{\"code\":105,\"extFields\":"[..],
                &b"{\"a\":".repeat(200_000),
            ]
            .concat();
            frame(0, &open, b"")
        }),
        ("a binary header cut short", frame(1, &[0, 105, 0], b"")),
        ("a binary header with a negative remark", {
            frame(
                1,
                &[
                    0, 105, 0, 1, 0x99, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
                ],
                b"",
            )
        }),
        ("a binary header with fields beyond its end", {
            let lengths = [0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
            frame(
                1,
                &[&[0, 105, 0, 1, 0x99, 0, 0, 0, 1, 0, 0, 0, 0][..], &lengths].concat(),
                b"",
            )
        }),
        (
            "a PROXY line without end",
            [&b"PROXY TCP4 "[..], &b"1".repeat(5_000)].concat(),
        ),
        ("a binary PROXY header with a lying length", {
            [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 64]].concat()
        }),
    ]
}

/// Every port that a member or a nameserver opens, with its name.
fn remoting_ports(cluster: &Cluster) -> Vec<(String, u16)> {
    let mut ports = Vec::new();
    for member in &cluster.members {
        ports.push((format!("client port of n{}", member.number), member.port));
        ports.push((format!("fast port of n{}", member.number), member.port - 2));
    }
    for nameserver in &cluster.nameservers {
        ports.push(("nameserver".to_owned(), nameserver.port));
    }
    ports
}

#[test]
fn garbage_on_a_remoting_port_closes_that_connection_only() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    for (port_name, port) in remoting_ports(&cluster) {
        let address = format!("127.0.0.1:{port}");
        let mut bystander = Connection::open(&address)?;
        let unknown = Request::new(9_999);
        for (what, bytes) in hopeless() {
            let mut connection = Connection::open(&address)?;
            // The server may close before it has taken everything.
            connection.write_raw(&bytes).ok();
            // For bytes that could still become a frame the end has to come from this side.
            connection.half_close().ok();
            ensure!(
                connection.is_closed(Duration::from_secs(5)),
                "{what} on the {port_name}: the connection stays open"
            );
            let reply = bystander
                .call(&unknown, PATIENCE)
                .with_context(|| format!("{port_name}, another connection, after {what}"))?;
            ensure!(
                reply.code == response::REQUEST_CODE_NOT_SUPPORTED,
                "{reply:?}"
            );
        }
        require_service(&mut cluster, &format!("garbage on the {port_name}"))?;
    }
    cluster.passed()
}

#[test]
fn garbage_on_the_raft_port_does_not_disturb_the_group() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let leader = cluster.wait_leader()?;
    let mut pieces = hopeless();
    // A good beginning of HTTP/2, then nonsense.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pieces.push((
        "an HTTP/2 preface and noise",
        [&preface[..], &b"\xa5".repeat(10_000)].concat(),
    ));
    pieces.push((
        "a frame of remoting",
        Request::new(105).field("topic", "T").to_frame(1),
    ));
    for member in 0..3 {
        let address = format!("127.0.0.1:{}", cluster.members[member].raft_port);
        for (_, bytes) in &pieces {
            let mut connection = Connection::open(&address)?;
            connection.write_raw(bytes).ok();
        }
        require_service(
            &mut cluster,
            &format!("garbage on the Raft port of n{member}"),
        )?;
    }
    ensure!(
        cluster.leader()? == leader,
        "garbage made the leader change"
    );
    cluster.passed()
}

/// Whole frames with odd contents: each is answered or ignored, and the connection goes on.
#[test]
fn odd_but_whole_frames_do_not_end_the_connection() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::default())?;
    let header = |text: &str| frame(0, text.as_bytes(), b"");
    let frames = [
        (
            "a response nobody waits for",
            header(r#"{"code":0,"flag":1,"language":"JAVA","opaque":77,"version":1}"#),
        ),
        (
            "a oneway request with an unknown code",
            header(r#"{"code":9999,"flag":2,"language":"JAVA","opaque":78,"version":1}"#),
        ),
        (
            "a oneway send without fields",
            header(r#"{"code":310,"flag":2,"language":"JAVA","opaque":79,"version":1}"#),
        ),
        (
            "an unknown language",
            header(r#"{"code":9999,"flag":2,"language":"COBOL","opaque":80,"version":1}"#),
        ),
        (
            "members that nobody knows",
            header(
                r#"{"code":9999,"flag":2,"language":"JAVA","opaque":81,"version":1,"x":{"y":[1,2]}}"#,
            ),
        ),
        ("every flag bit but the response's", {
            header(r#"{"code":9999,"flag":-2,"language":"JAVA","opaque":82,"version":1}"#)
        }),
    ];
    for (port_name, port) in remoting_ports(&cluster) {
        let mut connection = Connection::open(&format!("127.0.0.1:{port}"))?;
        for (what, bytes) in &frames {
            connection.write_raw(bytes)?;
            let reply = connection
                .call(&Request::new(9_999), PATIENCE)
                .with_context(|| format!("{what} on the {port_name}"))?;
            ensure!(
                reply.code == response::REQUEST_CODE_NOT_SUPPORTED,
                "{what} on the {port_name}: {reply:?}"
            );
        }
        // Unknown codes, also those that look like responses or are negative, are refused and never dropped.
        for code in [-1, 0, 1, 13, 4_711, 65_546, i32::MAX, i32::MIN] {
            let reply = connection
                .call(&Request::new(code), PATIENCE)
                .with_context(|| format!("code {code} on the {port_name}"))?;
            ensure!(
                reply.code == response::REQUEST_CODE_NOT_SUPPORTED,
                "code {code} on the {port_name}: {reply:?}"
            );
        }
    }
    require_service(&mut cluster, "odd frames")?;
    cluster.passed()
}

/// A frame that arrives byte by byte is as good as one that arrives whole, and so are many in one packet.
#[test]
fn frames_may_come_in_pieces_and_in_heaps() -> Result<()> {
    let _turn = turn()?;
    let mut cluster = start(Options::single())?;
    let mut connection = Connection::open(&cluster.members[0].address())?;
    for byte in Request::new(9_999).to_frame(1) {
        connection.write_raw(&[byte])?;
    }
    ensure!(connection.read(PATIENCE)?.opaque == 1);
    let heap: Vec<u8> = (2..1_002)
        .flat_map(|opaque| Request::new(9_999).to_frame(opaque))
        .collect();
    connection.write_raw(&heap)?;
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 1_000 {
        let reply = connection.read(PATIENCE)?;
        ensure!(
            answered.insert(reply.opaque),
            "{} was answered twice",
            reply.opaque
        );
    }
    require_service(&mut cluster, "pieces and heaps")?;
    cluster.passed()
}

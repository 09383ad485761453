//! The server as clients see it, well-behaved ones and others, through raw sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::*;
use raftmq_proto::code::response;
use raftmq_proto::frame::{RemotingCommand, SerializeType};
use raftmq_remoting::{ClientError, Server};

#[tokio::test]
async fn pipelined_requests_are_all_answered_with_their_own_number_and_body() {
    let (server, handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    let requests: Vec<_> = (0..1000)
        .map(|i| request(ECHO, i, format!("body {i}")))
        .collect();
    raw.send_all(&requests).await;
    for i in 0..1000 {
        let answer = raw.receive().await.unwrap();
        assert!(answer.is_response());
        assert_eq!((answer.code, answer.opaque), (response::SUCCESS, i));
        assert_eq!(answer.body.into_bytes(), format!("body {i}"));
    }
    assert_eq!(handler.handled.lock().len(), 1000);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_request_in_single_bytes_is_answered_in_its_own_encoding() {
    let (server, _handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    for serialize in [SerializeType::Json, SerializeType::RocketMq] {
        let mut command = request(ECHO, 7, "hi");
        command.serialize = serialize;
        for byte in command.encode() {
            raw.send(&[byte]).await;
        }
        assert_eq!(raw.receive().await.unwrap().serialize, serialize);
    }
}

#[tokio::test]
async fn answers_go_out_in_the_order_they_are_given() {
    let (server, handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[
        request(KEEP, 1, ""),
        request(KEEP, 2, ""),
        request(ECHO, 3, ""),
    ])
    .await;
    assert_eq!(raw.receive().await.unwrap().opaque, 3);
    let kept = std::mem::take(&mut *handler.kept.lock());
    for (_, responder) in kept.into_iter().rev() {
        // From a thread that no runtime knows of.
        std::thread::spawn(move || responder.reply(RemotingCommand::success()))
            .join()
            .unwrap();
    }
    assert_eq!(raw.receive().await.unwrap().opaque, 2);
    assert_eq!(raw.receive().await.unwrap().opaque, 1);
}

#[tokio::test]
async fn oneway_requests_are_never_answered() {
    let (server, handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    for code in [ECHO, DROP] {
        let mut oneway = request(code, 1, "");
        oneway.mark_oneway();
        raw.send_all(&[oneway]).await;
    }
    raw.send_all(&[request(ECHO, 2, "")]).await;
    assert_eq!(raw.receive().await.unwrap().opaque, 2);
    assert_eq!(handler.handled.lock().len(), 3);
    raw.expect_silence(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_dropped_responder_answers_system_error() {
    let (server, _handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[request(DROP, 5, "")]).await;
    let answer = raw.receive().await.unwrap();
    assert_eq!((answer.code, answer.opaque), (response::SYSTEM_ERROR, 5));
    assert!(answer.remark.unwrap().contains("dropped"));
}

#[tokio::test]
async fn bytes_that_are_no_frames_close_the_connection_and_only_that() {
    let (server, handler) = serve(options());
    let mut good = Raw::connect(server.local_addr()).await;
    let header_longer_than_frame = b"\0\0\0\x08\0\0\0\x05{}{}";
    let unknown_encoding = b"\0\0\0\x06\x07\0\0\x02{}";
    let broken_json = b"\0\0\0\x06\0\0\0\x02{[";
    let negative = b"\xff\xff\xff\xf0\0\0\0\x02{}";
    let oversized = b"\x01\0\0\x01\0\0\0\x02{}";
    let zero = b"\0\0\0\0\0\0\0\0\0\0";
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let noise = [0xa5; 4096];
    let tls = b"\x16\x03\x01\x02\0\x01\0";
    let bad: [&[u8]; 9] = [
        header_longer_than_frame,
        unknown_encoding,
        broken_json,
        negative,
        oversized,
        zero,
        http,
        &noise,
        tls,
    ];
    for bytes in bad {
        let mut raw = Raw::connect(server.local_addr()).await;
        raw.send(bytes).await;
        raw.expect_closed().await;
    }
    good.send_all(&[request(ECHO, 1, "")]).await;
    assert_eq!(good.receive().await.unwrap().opaque, 1);
    eventually("only the good connection is left", || {
        server.connections() == 1
    })
    .await;
    assert_eq!(handler.handled.lock().len(), 1);
}

#[tokio::test]
async fn good_requests_before_a_bad_frame_are_handled() {
    let (server, handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    let mut bytes = request(ECHO, 1, "").encode().to_vec();
    bytes.extend(b"\0\0\0\x01");
    raw.send(&bytes).await;
    while raw.receive().await.is_some() {}
    assert_eq!(handler.handled.lock().len(), 1);
}

#[tokio::test]
async fn the_largest_frame_passes_and_one_byte_more_does_not() {
    let frame_max = 1024 * 1024;
    let (server, _handler) = serve(raftmq_remoting::ServerOptions {
        frame_max,
        ..options()
    });
    let head = request(ECHO, 1, "").encode().len();
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[request(ECHO, 1, vec![1; frame_max - head])])
        .await;
    // The answer would be too long in turn, with its own header: it says so instead.
    let answer = raw.receive().await.unwrap();
    assert_eq!((answer.code, answer.opaque), (response::SYSTEM_ERROR, 1));
    assert!(answer.remark.unwrap().contains("1048576"));
    raw.send_all(&[request(ECHO, 1, vec![1; frame_max - head - 1000])])
        .await;
    assert_eq!(
        raw.receive().await.unwrap().body.len(),
        frame_max - head - 1000
    );

    let mut too_long = request(ECHO, 1, vec![1; frame_max - head + 1])
        .encode()
        .to_vec();
    too_long.truncate(64);
    raw.send(&too_long).await;
    raw.expect_closed().await;
}

#[tokio::test]
async fn a_truncated_frame_handles_nothing_and_leaves_nothing() {
    let (server, handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    let bytes = request(ECHO, 1, "body").encode();
    raw.send(&bytes[..bytes.len() - 1]).await;
    eventually("opened", || handler.opened.lock().len() == 1).await;
    drop(raw);
    eventually("closed", || handler.closed.lock().len() == 1).await;
    eventually("gone", || server.connections() == 0).await;
    assert!(handler.handled.lock().is_empty());
}

#[tokio::test]
async fn silent_connections_are_closed_before_and_after_their_first_request() {
    let idle = Duration::from_millis(700);
    let (server, handler) = serve(raftmq_remoting::ServerOptions { idle, ..options() });
    let mut silent = Raw::connect(server.local_addr()).await;
    let mut half = Raw::connect(server.local_addr()).await;
    half.send(b"\0\0").await;
    let mut once = Raw::connect(server.local_addr()).await;
    once.send_all(&[request(ECHO, 1, "")]).await;
    assert!(once.receive().await.is_some());
    silent.expect_closed().await;
    half.expect_closed().await;
    once.expect_closed().await;
    eventually("gone", || server.connections() == 0).await;
    assert_eq!(handler.opened.lock().len(), 2);
    assert_eq!(handler.closed.lock().len(), 2);
}

#[tokio::test]
async fn a_connection_with_traffic_is_not_idle() {
    let idle = Duration::from_millis(1500);
    let (server, _handler) = serve(raftmq_remoting::ServerOptions { idle, ..options() });
    let mut raw = Raw::connect(server.local_addr()).await;
    for i in 0..20 {
        raw.send_all(&[request(ECHO, i, "")]).await;
        assert!(raw.receive().await.is_some(), "closed after {i} requests");
        tokio::time::sleep(idle / 15).await;
    }
}

#[tokio::test]
async fn at_the_in_flight_limit_nothing_more_is_read_until_an_answer_is_out() {
    let (server, handler) = serve(raftmq_remoting::ServerOptions {
        in_flight_max: 3,
        ..options()
    });
    let mut raw = Raw::connect(server.local_addr()).await;
    let requests: Vec<_> = (0..10).map(|i| request(KEEP, i, "")).collect();
    raw.send_all(&requests).await;
    eventually("three are handled", || handler.kept.lock().len() == 3).await;
    raw.expect_silence(Duration::from_millis(50)).await;
    assert_eq!(handler.handled.lock().len(), 3);
    for handled in 4..=10 {
        let (_, responder) = handler.kept.lock().remove(0);
        responder.reply(RemotingCommand::success());
        assert!(raw.receive().await.is_some());
        eventually("one more is read", || {
            handler.handled.lock().len() == handled
        })
        .await;
    }
}

#[tokio::test]
async fn the_in_flight_limit_counts_bytes_too_but_lets_one_request_through() {
    let in_flight_bytes_max = 10_000;
    let (server, handler) = serve(raftmq_remoting::ServerOptions {
        in_flight_bytes_max,
        ..options()
    });
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[request(KEEP, 1, vec![0; 20_000]), request(KEEP, 2, "")])
        .await;
    eventually("the large one is handled", || {
        handler.kept.lock().len() == 1
    })
    .await;
    raw.expect_silence(Duration::from_millis(50)).await;
    assert_eq!(handler.handled.lock().len(), 1);
    handler.kept.lock().clear();
    assert_eq!(raw.receive().await.unwrap().opaque, 1);
    eventually("the next one is handled", || {
        handler.handled.lock().len() == 2
    })
    .await;
}

#[tokio::test]
async fn held_requests_do_not_count_up_to_their_own_limit() {
    let options = raftmq_remoting::ServerOptions {
        in_flight_max: 2,
        held_max: 5,
        ..options()
    };
    let (server, handler) = serve(options);
    let mut raw = Raw::connect(server.local_addr()).await;
    let requests: Vec<_> = (0..10).map(|i| request(HOLD, i, "")).collect();
    raw.send_all(&requests).await;
    // Five are held, two more count, the rest waits.
    eventually("seven are handled", || handler.kept.lock().len() == 7).await;
    raw.expect_silence(Duration::from_millis(50)).await;
    assert_eq!(handler.handled.lock().len(), 7);
    let kept = std::mem::take(&mut *handler.kept.lock());
    for (_, responder) in kept {
        responder.reply(RemotingCommand::success());
        assert!(raw.receive().await.is_some());
    }
    eventually("all are handled", || handler.handled.lock().len() == 10).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_paused_then_disconnected() {
    let options = raftmq_remoting::ServerOptions {
        in_flight_bytes_max: 1024 * 1024,
        write_stall: Duration::from_millis(200),
        ..options()
    };
    let (server, handler) = serve(options);
    let raw = Raw::connect(server.local_addr()).await;
    let (_read, mut write) = raw.stream.into_split();
    let requests: Vec<u8> = (0..2000)
        .flat_map(|i| request(LARGE, i, "").encode())
        .collect();
    use tokio::io::AsyncWriteExt;
    let _may_break = write.write_all(&requests).await;
    eventually("disconnected", || handler.closed.lock().len() == 1).await;
    // 2000 answers are 128 MiB; only what the socket buffers and the limit take was ever asked of the handler.
    assert!(
        handler.handled.lock().len() < 500,
        "{}",
        handler.handled.lock().len()
    );
    eventually("gone", || server.connections() == 0).await;
}

#[tokio::test]
async fn unsent_answers_are_bounded_when_they_complete_all_at_once() {
    let options = raftmq_remoting::ServerOptions {
        write_queue_bytes_max: 20 * 1024 * 1024,
        ..options()
    };
    let (server, handler) = serve(options);
    let mut raw = Raw::connect(server.local_addr()).await;
    let requests: Vec<_> = (0..100).map(|i| request(HOLD, i, "")).collect();
    raw.send_all(&requests).await;
    eventually("all are held", || handler.kept.lock().len() == 100).await;
    let kept = std::mem::take(&mut *handler.kept.lock());
    for (_, responder) in kept {
        responder.reply(RemotingCommand::success().with_body(vec![0; 1024 * 1024]));
    }
    eventually("disconnected", || handler.closed.lock().len() == 1).await;
    eventually("gone", || server.connections() == 0).await;
}

#[tokio::test]
async fn proxy_headers_name_the_client() {
    let (server, handler) = serve(options());
    let mut v1 = Raw::connect(server.local_addr()).await;
    v1.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5").await;
    v1.send(b"6324 9876\r\n").await;
    v1.send_all(&[request(ECHO, 1, "")]).await;
    assert!(v1.receive().await.is_some());
    let mut v2 = Raw::connect(server.local_addr()).await;
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    bytes.extend([192, 0, 2, 9, 192, 0, 2, 2, 0, 99, 0x26, 0x94]);
    bytes.extend(request(ECHO, 1, "").encode());
    v2.send(&bytes).await;
    assert!(v2.receive().await.is_some());
    let peers: Vec<_> = handler
        .opened
        .lock()
        .iter()
        .map(|c| c.peer().to_string())
        .collect();
    assert_eq!(peers, ["192.0.2.1:56324", "192.0.2.9:99"]);
    let mut twice = Raw::connect(server.local_addr()).await;
    twice.send(b"PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n").await;
    twice.expect_closed().await;
}

#[tokio::test]
async fn the_server_can_ask_its_client_and_both_number_their_requests_themselves() {
    let (server, handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[request(KEEP, 1, "")]).await;
    eventually("opened", || handler.kept.lock().len() == 1).await;
    let connection = handler.opened.lock()[0].clone();
    let asked = connection.clone();
    let asking =
        tokio::spawn(async move { asked.request(RemotingCommand::request(307), SOON).await });
    let question = raw.receive().await.unwrap();
    assert_eq!(
        (question.code, question.opaque, question.is_response()),
        (307, 1, false)
    );
    // The client's request 1 is answered while the server's request 1 waits.
    handler
        .kept
        .lock()
        .pop()
        .unwrap()
        .1
        .reply(RemotingCommand::success());
    let answer = raw.receive().await.unwrap();
    assert!(answer.is_response() && answer.opaque == 1);
    let mut reply = RemotingCommand::failure(206, "no");
    reply.opaque = 1;
    raw.send_all(&[reply]).await;
    assert_eq!(asking.await.unwrap().unwrap().code, 206);

    connection
        .send_oneway(RemotingCommand::request(40))
        .unwrap();
    let notice = raw.receive().await.unwrap();
    assert!(notice.is_oneway() && notice.code == 40);
}

#[tokio::test]
async fn requests_to_a_client_that_goes_away_fail_at_once() {
    let (server, handler) = serve(options());
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[request(KEEP, 1, "")]).await;
    eventually("opened", || handler.kept.lock().len() == 1).await;
    let connection = handler.opened.lock()[0].clone();
    let asking = {
        let connection = connection.clone();
        tokio::spawn(async move {
            connection
                .request(RemotingCommand::request(307), 6 * SOON)
                .await
        })
    };
    assert!(raw.receive().await.is_some());
    drop(raw);
    let failed = tokio::time::timeout(SOON, asking).await.unwrap().unwrap();
    assert!(
        matches!(failed, Err(ClientError::Closed { .. })),
        "{failed:?}"
    );
    eventually("closed", || {
        handler.closed.lock().as_slice() == [connection.id()]
    })
    .await;
    assert!(!connection.is_open());
    assert_eq!(connection.pending_requests(), 0);
    assert!(matches!(
        connection.send_oneway(RemotingCommand::request(40)),
        Err(ClientError::Closed { .. })
    ));
    // An answer to a client that is gone goes nowhere, quietly.
    handler
        .kept
        .lock()
        .pop()
        .unwrap()
        .1
        .reply(RemotingCommand::success());
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_until_one_ends() {
    let (server, _handler) = serve(raftmq_remoting::ServerOptions {
        connections_max: 1,
        ..options()
    });
    let first = Raw::connect(server.local_addr()).await;
    eventually("accepted", || server.connections() == 1).await;
    let mut second = Raw::connect(server.local_addr()).await;
    second.expect_closed().await;
    drop(first);
    eventually("gone", || server.connections() == 0).await;
    let mut third = Raw::connect(server.local_addr()).await;
    third.send_all(&[request(ECHO, 1, "")]).await;
    assert!(third.receive().await.is_some());
}

#[tokio::test]
async fn shutdown_answers_what_is_in_flight_and_closes_everything() {
    let (server, handler) = serve(options());
    let address = server.local_addr();
    let mut raw = Raw::connect(address).await;
    let mut silent = Raw::connect(address).await;
    raw.send_all(&[request(KEEP, 1, ""), request(HOLD, 2, "")])
        .await;
    eventually("both are handled", || handler.kept.lock().len() == 2).await;
    let stopping = tokio::spawn(async move { server.shutdown().await });
    silent.expect_closed().await;
    let (_, responder) = handler.kept.lock().remove(0);
    responder.reply(RemotingCommand::success());
    assert_eq!(raw.receive().await.unwrap().opaque, 1);
    raw.expect_closed().await;
    drop((raw, silent));
    tokio::time::timeout(SOON, stopping).await.unwrap().unwrap();
    assert_eq!(handler.closed.lock().len(), 1);
    // The port is free again.
    let again = raftmq_remoting::ServerOptions {
        bind: address,
        ..options()
    };
    drop(serve(again));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let drain = Duration::from_millis(100);
    let (server, handler) = serve(raftmq_remoting::ServerOptions { drain, ..options() });
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[request(KEEP, 1, "")]).await;
    eventually("handled", || handler.kept.lock().len() == 1).await;
    tokio::time::timeout(SOON, server.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_panic_in_the_handler_ends_its_connection_only() {
    let (server, handler) = serve(options());
    let mut other = Raw::connect(server.local_addr()).await;
    let mut raw = Raw::connect(server.local_addr()).await;
    raw.send_all(&[request(PANIC, 1, "")]).await;
    while raw.receive().await.is_some() {}
    eventually("closed", || handler.closed.lock().len() == 1).await;
    eventually("gone", || server.connections() == 1).await;
    other.send_all(&[request(ECHO, 1, "")]).await;
    assert!(other.receive().await.is_some());
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let (server, handler) = serve(options());
    let taken = raftmq_remoting::ServerOptions {
        bind: server.local_addr(),
        ..options()
    };
    let error = Server::bind(taken, handler).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

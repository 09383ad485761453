//! The client pool against our server and against raw sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use raftmq_proto::frame::RemotingCommand;
use raftmq_remoting::{Client, ClientError, ClientOptions, Handler, ServerOptions};
use tokio::net::TcpListener;

fn client() -> Client {
    Client::new(ClientOptions::default())
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn echo(body: &str) -> RemotingCommand {
    request(ECHO, 0, body)
}

#[tokio::test]
async fn concurrent_requests_share_one_connection_and_get_their_own_answers() {
    let (server, handler) = serve(ServerOptions {
        bind: "127.0.0.1:0".parse().unwrap(),
        ..options()
    });
    let address = server.local_addr().to_string();
    let client = client();
    let asking: Vec<_> = (0..500)
        .map(|i| {
            let (client, address) = (client.clone(), address.clone());
            tokio::spawn(async move {
                let answer = client
                    .invoke(&address, echo(&i.to_string()), SOON)
                    .await
                    .unwrap();
                assert_eq!(answer.body.into_bytes(), i.to_string());
            })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!(handler.opened.lock().len(), 1);
    assert_eq!(
        client
            .connection(&address)
            .await
            .unwrap()
            .pending_requests(),
        0
    );
}

#[tokio::test]
async fn answers_out_of_order_find_their_requests() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let mut raw = Raw::new(listener.accept().await.unwrap().0);
        let mut answers = Vec::new();
        for _ in 0..3 {
            let asked = raw.receive().await.unwrap();
            let mut answer = RemotingCommand::success().with_body(asked.body.clone());
            answer.reply_to(&asked.meta());
            answers.insert(0, answer);
        }
        // Somebody else's answer in between is ignored.
        let mut stray = RemotingCommand::success();
        stray.opaque = 4711;
        answers.insert(1, stray);
        raw.send_all(&answers).await;
        raw
    });
    let client = client();
    let address = address.to_string();
    let (one, two, three) = tokio::join!(
        client.invoke(&address, echo("one"), SOON),
        client.invoke(&address, echo("two"), SOON),
        client.invoke(&address, echo("three"), SOON),
    );
    for (answer, body) in [(one, "one"), (two, "two"), (three, "three")] {
        assert_eq!(answer.unwrap().body.into_bytes(), body);
    }
    drop(server.await.unwrap());
}

#[tokio::test]
async fn a_timeout_removes_the_entry_and_the_late_answer_harms_nobody() {
    let (server, handler) = serve(options());
    let address = server.local_addr().to_string();
    let client = client();
    let after = Duration::from_millis(50);
    let late = client.invoke(&address, request(KEEP, 0, ""), after).await;
    match late {
        Err(error @ ClientError::Timeout { .. }) => {
            assert!(!error.is_unsent());
            assert!(error.to_string().contains("within 50 ms"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let connection = client.connection(&address).await.unwrap();
    assert_eq!(connection.pending_requests(), 0);
    handler
        .kept
        .lock()
        .pop()
        .unwrap()
        .1
        .reply(RemotingCommand::success());
    let answer = client
        .invoke(&address, echo("still works"), SOON)
        .await
        .unwrap();
    assert_eq!(answer.body.into_bytes(), "still works");
    assert_eq!(handler.opened.lock().len(), 1);
}

#[tokio::test]
async fn a_dropped_future_leaves_no_entry() {
    let (server, handler) = serve(options());
    let client = client();
    let connection = client
        .connection(&server.local_addr().to_string())
        .await
        .unwrap();
    let asking = {
        let connection = connection.clone();
        tokio::spawn(async move { connection.request(request(KEEP, 0, ""), SOON).await })
    };
    eventually("asked", || handler.kept.lock().len() == 1).await;
    asking.abort();
    eventually("forgotten", || connection.pending_requests() == 0).await;
}

#[tokio::test]
async fn a_closed_connection_fails_all_requests_at_once_and_the_next_one_connects_anew() {
    let (server, handler) = serve(options());
    let address = server.local_addr().to_string();
    let client = client();
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (client, address) = (client.clone(), address.clone());
            tokio::spawn(async move {
                client
                    .invoke(&address, request(KEEP, 0, ""), 6 * SOON)
                    .await
            })
        })
        .collect();
    eventually("all asked", || handler.kept.lock().len() == 20).await;
    let started = Instant::now();
    handler.opened.lock()[0].close();
    for asked in asking {
        let failed = asked.await.unwrap();
        assert!(
            matches!(failed, Err(ClientError::Closed { .. })),
            "{failed:?}"
        );
    }
    assert!(started.elapsed() < SOON);
    assert!(client.invoke(&address, echo("again"), SOON).await.is_ok());
    assert_eq!(handler.opened.lock().len(), 2);
}

#[tokio::test]
async fn a_refused_connect_fails_everyone_who_waits_and_is_tried_again() {
    let (listener, address) = listener().await;
    drop(listener);
    let client = client();
    let address = address.to_string();
    let (one, two) = tokio::join!(
        client.invoke(&address, echo(""), SOON),
        client.invoke_oneway(&address, echo(""), SOON),
    );
    for failed in [one.map(|_| ()), two] {
        let error = failed.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
        assert!(error.is_unsent());
        assert!(error.to_string().contains(&address));
    }
    let bind = address.parse().unwrap();
    let (_server, _handler) = serve(ServerOptions { bind, ..options() });
    assert!(client.invoke(&address, echo(""), SOON).await.is_ok());
}

#[tokio::test]
async fn an_unresolvable_name_is_a_connect_error() {
    let failed = client().invoke("no port here", echo(""), SOON).await;
    assert!(
        matches!(failed, Err(ClientError::Connect { .. })),
        "{failed:?}"
    );
}

#[tokio::test]
async fn the_timeout_covers_the_connect() {
    // A full backlog: the system drops further connects without an answer.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    loop {
        let connecting = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(200), connecting).await {
            Ok(stream) => fill.push(stream.unwrap()),
            Err(_full) => break,
        }
    }
    let started = Instant::now();
    let failed = client()
        .invoke(&address.to_string(), echo(""), Duration::from_millis(100))
        .await;
    assert!(
        matches!(failed, Err(ClientError::Connect { .. })),
        "{failed:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn requests_in_flight_and_unsent_bytes_are_bounded() {
    let (listener, address) = listener().await;
    let options = ClientOptions {
        in_flight_max: 2,
        write_queue_bytes_max: 4 * 1024 * 1024,
        ..ClientOptions::default()
    };
    let client = Client::new(options);
    let connection = client.connection(&address.to_string()).await.unwrap();
    let _unread = listener.accept().await.unwrap();
    let waiting = [(); 2].map(|()| {
        let connection = connection.clone();
        tokio::spawn(async move { connection.request(echo(""), SOON).await })
    });
    eventually("two wait", || connection.pending_requests() == 2).await;
    let refused = connection.request(echo(""), SOON).await;
    assert!(
        matches!(
            refused,
            Err(ClientError::TooManyInFlight {
                value: 2,
                limit: 2,
                ..
            })
        ),
        "{refused:?}"
    );

    let full = (0..100).find_map(|_| {
        connection
            .send_oneway(request(ECHO, 0, vec![0; 1024 * 1024]))
            .err()
    });
    let full = full.expect("the peer takes nothing");
    assert!(
        matches!(
            full,
            ClientError::TooManyInFlight {
                what: "unsent bytes",
                ..
            }
        ),
        "{full:?}"
    );
    assert!(connection.is_open());
    let too_large = connection.send_oneway(request(ECHO, 0, vec![0; 17 * 1024 * 1024]));
    assert!(
        matches!(too_large, Err(ClientError::TooLarge { .. })),
        "{too_large:?}"
    );
    drop(waiting);
}

#[tokio::test]
async fn requests_of_the_server_go_to_the_handler() {
    let (server, on_server) = serve(options());
    let on_client = Arc::new(Scripted::default());
    let client = client().with_handler(Arc::clone(&on_client) as Arc<dyn Handler>);
    client
        .connection(&server.local_addr().to_string())
        .await
        .unwrap();
    client
        .invoke(&server.local_addr().to_string(), echo(""), SOON)
        .await
        .unwrap();
    let connection = on_server.opened.lock()[0].clone();
    let answer = connection
        .request(echo("from the server"), SOON)
        .await
        .unwrap();
    assert_eq!(answer.body.into_bytes(), "from the server");
    connection.send_oneway(echo("notice")).unwrap();
    eventually("notice handled", || on_client.handled.lock().len() == 2).await;
    drop(client);
    eventually("told of the end", || on_client.closed.lock().len() == 1).await;
}

#[tokio::test]
async fn without_a_handler_requests_of_the_server_are_answered_not_supported() {
    let (server, on_server) = serve(options());
    let client = client();
    client
        .invoke(&server.local_addr().to_string(), echo(""), SOON)
        .await
        .unwrap();
    let connection = on_server.opened.lock()[0].clone();
    let answer = connection
        .request(RemotingCommand::request(307), SOON)
        .await
        .unwrap();
    assert_eq!(
        answer.code,
        raftmq_proto::code::response::REQUEST_CODE_NOT_SUPPORTED
    );
    assert_eq!(
        answer.remark.as_deref(),
        Some(" request type 307 not supported")
    );
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_forgotten() {
    let (server, handler) = serve(options());
    let address = server.local_addr().to_string();
    let options = ClientOptions {
        idle: Duration::from_millis(700),
        ..ClientOptions::default()
    };
    let client = Client::new(options);
    client.invoke(&address, echo(""), SOON).await.unwrap();
    eventually("closed", || handler.closed.lock().len() == 1).await;
    client.invoke(&address, echo(""), SOON).await.unwrap();
    client.close(&address);
    client.invoke(&address, echo(""), SOON).await.unwrap();
    client.close_all();
    eventually("all closed", || handler.closed.lock().len() == 3).await;
}

#[tokio::test]
async fn dropping_the_client_closes_its_connections() {
    let (server, handler) = serve(options());
    let client = client();
    client
        .invoke(&server.local_addr().to_string(), echo(""), SOON)
        .await
        .unwrap();
    let clone = client.clone();
    drop(client);
    clone
        .invoke(&server.local_addr().to_string(), echo(""), SOON)
        .await
        .unwrap();
    assert_eq!(handler.opened.lock().len(), 1);
    drop(clone);
    eventually("closed", || server.connections() == 0).await;
}

#[tokio::test]
async fn garbage_from_the_server_fails_the_request_at_once() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let mut raw = Raw::new(listener.accept().await.unwrap().0);
        raw.receive().await.unwrap();
        raw.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        raw.expect_closed().await;
    });
    let failed = client()
        .invoke(&address.to_string(), echo(""), 6 * SOON)
        .await;
    assert!(
        matches!(failed, Err(ClientError::Closed { .. })),
        "{failed:?}"
    );
    server.await.unwrap();
}

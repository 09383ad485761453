//! Ports for members under test.

use std::net::TcpListener;

/// A port that is free together with the two below it and the one above.
pub(crate) fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let others = [port.checked_add(1), port.checked_sub(2)];
        let free = |port: Option<u16>| {
            port.is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        };
        if others.into_iter().all(free) {
            return port;
        }
    }
}

//! Ports for members under test.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that is free together with the two below it and the one above, and that no other test of this process is given.
/// All lie below the range from which the system takes the ports of outgoing connections.
pub(crate) fn free_ports() -> u16 {
    const FIRST: u16 = 10_000;
    const SPAN: u16 = 4_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % u32::from(SPAN)).unwrap();
    loop {
        let step = NEXT.fetch_add(4, Ordering::Relaxed);
        let port = FIRST + (offset.wrapping_add(step) % SPAN) / 4 * 4 + 2;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (port - 2..=port + 1).all(free) {
            return port;
        }
    }
}

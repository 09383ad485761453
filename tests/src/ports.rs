//! Free ports below the range from which the system takes the ports of outgoing connections: a port of a killed broker
//! must still be free when the broker is started again.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

const FIRST: u16 = 14_000;
const LAST: u16 = 30_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port `p` such that `p` and `p - 2` are free: a broker also listens two below its listen port.
pub fn free_port() -> Result<u16> {
    let span = LAST - FIRST;
    // Several runs on one machine start at different places.
    let offset = u16::try_from(std::process::id() % 1_000).unwrap_or(0) * 13;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Steps of four keep `p - 2` clear of every other port handed out.
        let port = FIRST + (offset.wrapping_add(step).wrapping_mul(4)) % span + 2;
        if is_free(port) && is_free(port - 2) {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {LAST}")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

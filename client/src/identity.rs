//! Who this client is: the address it reports and the id under which brokers register it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

/// The address this machine would use towards the network, 127.0.0.1 when it has none.
#[must_use]
pub fn local_ip() -> IpAddr {
    // Connecting a UDP socket sends nothing: it only asks the kernel which source address it would
    // pick. The target is from the documentation range, so that no real host is named.
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    match probe() {
        Ok(ip) if !ip.is_unspecified() => ip,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// `ip@pid#nanos`, the form of RocketMQ's default instance name; distinct for each call.
#[must_use]
pub fn new_client_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    // Two instances made within one tick of a coarse clock must still differ.
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
        .wrapping_add(SEQUENCE.fetch_add(1, Ordering::Relaxed));
    format!("{}@{}#{}", local_ip(), std::process::id(), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_differ_and_have_java_s_form() {
        let first = new_client_id();
        assert_ne!(first, new_client_id());
        let (ip, rest) = first.split_once('@').unwrap();
        assert!(ip.parse::<IpAddr>().is_ok());
        let (pid, nanos) = rest.split_once('#').unwrap();
        assert_eq!(pid.parse::<u32>().unwrap(), std::process::id());
        assert!(nanos.parse::<u64>().is_ok());
    }
}

//! Message ids.
//!
//! An *offset message id* names the broker that stored a message and its physical offset; a
//! *unique key* is made by the client that sends it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::read::Reader;

/// Why a text is not an offset message id.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IdError {
    /// Neither 32 nor 56 digits.
    #[error("message id of {len} characters, expected 32 or 56 hexadecimal digits")]
    Length {
        /// Characters in the text.
        len: usize,
    },
    /// A character that is not a hexadecimal digit.
    #[error("message id with a character that is not a hexadecimal digit")]
    NotHex,
    /// The port is beyond 65535.
    #[error("message id with port {port}")]
    Port {
        /// The port found.
        port: u32,
    },
}

/// The id of a stored message: 32 hexadecimal digits, 56 with an IPv6 address.
pub fn offset_message_id(store_host: SocketAddr, physical_offset: u64) -> String {
    let mut id = String::with_capacity(56);
    push_ip(&mut id, store_host.ip());
    push_hex(&mut id, &u32::from(store_host.port()).to_be_bytes());
    push_hex(&mut id, &physical_offset.to_be_bytes());
    id
}

/// Takes an offset message id apart: store host and physical offset.
///
/// # Errors
/// When the text is not such an id; unique keys have the same length but rarely parse.
pub fn parse_offset_message_id(id: &str) -> Result<(SocketAddr, u64), IdError> {
    let len = id.chars().count();
    if id.len() != 32 && id.len() != 56 {
        return Err(IdError::Length { len });
    }
    let mut bytes = [0u8; 28];
    for (byte, digits) in bytes.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        let digit = |digit: &u8| (*digit as char).to_digit(16);
        let mut digits = digits.iter().map(digit);
        let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
            return Err(IdError::NotHex);
        };
        *byte = u8::try_from(high * 16 + low).unwrap_or(u8::MAX);
    }
    let mut read = Reader::new(&bytes);
    let ip = if id.len() == 32 {
        read.array::<4>().map(|ip| IpAddr::V4(Ipv4Addr::from(ip)))
    } else {
        read.array::<16>().map(|ip| IpAddr::V6(Ipv6Addr::from(ip)))
    };
    let (Some(ip), Some(port), Some(offset)) = (ip, read.u32(), read.u64()) else {
        return Err(IdError::Length { len });
    };
    let port = u16::try_from(port).ok().ok_or(IdError::Port { port })?;
    Ok((SocketAddr::new(ip, port), offset))
}

/// The parts of a unique key; only their combination has to be unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueIdParts {
    /// Address of the client's machine.
    pub ip: IpAddr,
    /// Low 16 bits of the process id.
    pub pid: u16,
    /// Any number that tells apart what shares a process (Java: hash of the class loader).
    pub seed: u32,
    /// Milliseconds since the start of the month; tools read the send time from it.
    pub since_month_start_ms: u32,
    /// Counts the messages of the process.
    pub counter: u16,
}

/// A unique key: 32 hexadecimal digits, 56 with an IPv6 address.
pub fn unique_id(parts: &UniqueIdParts) -> String {
    let mut id = String::with_capacity(56);
    push_ip(&mut id, parts.ip);
    push_hex(&mut id, &parts.pid.to_be_bytes());
    push_hex(&mut id, &parts.seed.to_be_bytes());
    push_hex(&mut id, &parts.since_month_start_ms.to_be_bytes());
    push_hex(&mut id, &parts.counter.to_be_bytes());
    id
}

fn push_ip(id: &mut String, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => push_hex(id, &ip.octets()),
        IpAddr::V6(ip) => push_hex(id, &ip.octets()),
    }
}

fn push_hex(id: &mut String, bytes: &[u8]) {
    let digit = |nibble: u8| {
        char::from_digit(nibble.into(), 16)
            .unwrap_or('0')
            .to_ascii_uppercase()
    };
    for byte in bytes {
        id.push(digit(byte >> 4));
        id.push(digit(byte & 15));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_offset_message_id() {
        let host: SocketAddr = "127.0.0.1:10911".parse().unwrap();
        let id = offset_message_id(host, 123_456);
        assert_eq!(id, "7F00000100002A9F000000000001E240");
        assert_eq!(parse_offset_message_id(&id), Ok((host, 123_456)));
        assert_eq!(
            parse_offset_message_id(&id.to_lowercase()),
            Ok((host, 123_456))
        );
    }

    #[test]
    fn what_is_no_id_is_refused() {
        assert_eq!(
            parse_offset_message_id("7F"),
            Err(IdError::Length { len: 2 })
        );
        assert_eq!(
            parse_offset_message_id(&"é".repeat(16)),
            Err(IdError::NotHex)
        );
        assert_eq!(
            parse_offset_message_id(&"G".repeat(32)),
            Err(IdError::NotHex)
        );
        assert_eq!(
            parse_offset_message_id(&"F".repeat(56)),
            Err(IdError::Port { port: u32::MAX })
        );
    }

    #[test]
    fn unique_id_has_javas_layout() {
        let parts = UniqueIdParts {
            ip: "10.1.2.3".parse().unwrap(),
            pid: 0xABCD,
            seed: 0x0102_0304,
            since_month_start_ms: 0x1122_3344,
            counter: 7,
        };
        assert_eq!(unique_id(&parts), "0A010203ABCD01020304112233440007");
        let v6 = UniqueIdParts {
            ip: "fe80::1".parse().unwrap(),
            ..parts
        };
        assert_eq!(unique_id(&v6).len(), 56);
    }

    proptest! {
        #[test]
        fn offset_message_ids_round_trip(ip in any::<IpAddr>(), port in any::<u16>(), offset in any::<u64>()) {
            let host = SocketAddr::new(ip.to_canonical(), port);
            let id = offset_message_id(SocketAddr::new(ip, port), offset);
            prop_assert_eq!(parse_offset_message_id(&id), Ok((host, offset)));
        }

        #[test]
        fn any_text_parses_without_panic(text in ".{0,60}", hex in "[0-9a-fA-F]{56}") {
            prop_assert!(parse_offset_message_id(&text).is_err() || text.len() >= 32);
            drop(parse_offset_message_id(&hex));
            drop(parse_offset_message_id(&hex[..32]));
        }
    }
}

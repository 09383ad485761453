//! What a client's connection begins with: frames, a PROXY protocol header before them, or TLS.
//!
//! A load balancer may put one HAProxy header (version 1 text or version 2 binary) in front of the client's bytes. No
//! frame can begin like one: read as a frame length, its first bytes are far above the frame limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V1_START: &[u8] = b"PROXY ";
/// The longest version 1 header, with its line end.
const V1_MAX: usize = 107;
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Preface {
    /// Too few bytes to tell.
    NeedMore,
    /// Frames, from the first byte on.
    Plain,
    /// A TLS handshake.
    Tls,
    /// A PROXY header of `length` bytes, which names the client unless the proxy speaks for itself.
    Proxied {
        source: Option<SocketAddr>,
        length: usize,
    },
    /// It begins like a PROXY header and is none.
    Bad(&'static str),
}

/// Looks at the first bytes of a connection.
pub(crate) fn detect(bytes: &[u8]) -> Preface {
    match bytes.first() {
        None => Preface::NeedMore,
        Some(&TLS_HANDSHAKE) => Preface::Tls,
        Some(_) if begins(bytes, V1_START) => version_1(bytes),
        Some(_) if begins(bytes, V2_START) => version_2(bytes),
        Some(_) => Preface::Plain,
    }
}

/// Whether the bytes there are so far agree with `start`.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 56324 9876\r\n`
fn version_1(bytes: &[u8]) -> Preface {
    let Some(end) = bytes.iter().take(V1_MAX).position(|b| *b == b'\n') else {
        return match bytes.len() < V1_MAX {
            true => Preface::NeedMore,
            false => Preface::Bad("PROXY line without an end"),
        };
    };
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let Some(line) = line.and_then(|line| std::str::from_utf8(line).ok()) else {
        return Preface::Bad("PROXY line is not text ended by CR LF");
    };
    let length = end + 1;
    let mut words = line.split(' ').skip(1);
    match words.next() {
        Some("UNKNOWN") => Preface::Proxied {
            source: None,
            length,
        },
        Some("TCP4" | "TCP6") => {
            let address: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
            let port: Option<u16> = words.nth(1).and_then(|word| word.parse().ok());
            match address.zip(port) {
                Some(source) => Preface::Proxied {
                    source: Some(source.into()),
                    length,
                },
                None => Preface::Bad("PROXY line without a source address and port"),
            }
        }
        _ => Preface::Bad("PROXY line of an unknown protocol"),
    }
}

/// | offset | size | field |
/// |---|---|---|
/// | 0 | 12 | signature |
/// | 12 | 1 | version 2 in the high half; command in the low: 0 local (the proxy itself), 1 proxied |
/// | 13 | 1 | address family and transport: 0x11 TCP over IPv4, 0x21 TCP over IPv6 |
/// | 14 | 2 | length of what follows |
/// | 16 | 12 or 36 | source and destination address, source and destination port; then extensions |
fn version_2(bytes: &[u8]) -> Preface {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED) else {
        return Preface::NeedMore;
    };
    let [.., command, family, high, low] = fixed else {
        return Preface::NeedMore;
    };
    let addresses = match rest.get(..usize::from(u16::from_be_bytes([*high, *low]))) {
        Some(addresses) => addresses,
        None => return Preface::NeedMore,
    };
    let length = V2_FIXED + addresses.len();
    let source = match (command, family) {
        (0x20, _) => None,
        (0x21, 0x11) => match source_address::<4, 8>(addresses) {
            Some((ip, port)) => Some((Ipv4Addr::from(ip), port).into()),
            None => return Preface::Bad("PROXY header too short for IPv4 addresses"),
        },
        (0x21, 0x21) => match source_address::<16, 32>(addresses) {
            Some((ip, port)) => Some((Ipv6Addr::from(ip), port).into()),
            None => return Preface::Bad("PROXY header too short for IPv6 addresses"),
        },
        (0x21, _) => None,
        _ => return Preface::Bad("PROXY header of an unknown version or command"),
    };
    Preface::Proxied { source, length }
}

/// Address of `IP` bytes at the start, port at `PORT_AT` (behind both addresses).
fn source_address<const IP: usize, const PORT_AT: usize>(bytes: &[u8]) -> Option<([u8; IP], u16)> {
    // The destination port must be there as well.
    let ports = bytes.get(PORT_AT..PORT_AT + 4)?;
    Some((
        *bytes.first_chunk()?,
        u16::from_be_bytes(*ports.first_chunk()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxied(source: &str, length: usize) -> Preface {
        Preface::Proxied {
            source: Some(source.parse().unwrap()),
            length,
        }
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut bytes = V2_START.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
        bytes.extend(addresses);
        bytes
    }

    #[test]
    fn frames_and_tls_are_told_apart() {
        assert_eq!(detect(b""), Preface::NeedMore);
        assert_eq!(detect(b"\0\0\0\x10"), Preface::Plain);
        assert_eq!(detect(b"\x16\x03\x01"), Preface::Tls);
        assert_eq!(detect(b"PRO"), Preface::NeedMore);
        assert_eq!(detect(b"PROM"), Preface::Plain);
    }

    #[test]
    fn version_1_names_the_client() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 9876\r\n\0\0\0\x10";
        assert_eq!(detect(line), proxied("192.0.2.1:56324", line.len() - 4));
        assert_eq!(detect(&line[..20]), Preface::NeedMore);
        assert_eq!(
            detect(b"PROXY TCP6 ::1 ::2 5 6\r\n"),
            proxied("[::1]:5", 24)
        );
        let unknown = b"PROXY UNKNOWN ff 1\r\n";
        assert_eq!(
            detect(unknown),
            Preface::Proxied {
                source: None,
                length: unknown.len()
            }
        );
        for bad in [
            &b"PROXY TCP4 192.0.2.1 192.0.2.2 no 9876\r\n"[..],
            b"PROXY TCP4 192.0.2.1\r\n",
            b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
            b"PROXY UNKNOWN\n",
            &[b"PROXY ".as_slice(), &[b'x'; 200]].concat(),
        ] {
            assert!(matches!(detect(bad), Preface::Bad(_)), "{bad:?}");
        }
    }

    #[test]
    fn version_2_names_the_client() {
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x26, 0x94];
        assert_eq!(
            detect(&v2(0x21, 0x11, &four)),
            proxied("192.0.2.1:56324", 28)
        );
        let extended = [four.as_slice(), &[3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(
            detect(&v2(0x21, 0x11, &extended)),
            proxied("192.0.2.1:56324", 35)
        );
        let mut six = [0; 36];
        (six[15], six[33]) = (1, 5);
        assert_eq!(detect(&v2(0x21, 0x21, &six)), proxied("[::1]:5", 52));
        assert_eq!(
            detect(&v2(0x20, 0, &[])),
            Preface::Proxied {
                source: None,
                length: 16
            }
        );
        assert_eq!(detect(&v2(0x21, 0x11, &four)[..27]), Preface::NeedMore);
        assert!(matches!(
            detect(&v2(0x21, 0x11, &four[..11])),
            Preface::Bad(_)
        ));
        assert!(matches!(detect(&v2(0x31, 0x11, &four)), Preface::Bad(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(
            start in prop_oneof![Just(V1_START.to_vec()), Just(V2_START.to_vec()), Just(Vec::new())],
            rest in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let bytes = [start, rest].concat();
            if let Preface::Proxied { length, .. } = detect(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}

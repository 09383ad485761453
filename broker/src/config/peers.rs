//! The member list of a group, as `dLegerPeers` spells it: `n0-host:port;n1-[::1]:port`.
//!
//! The id ends at the first `-`, the port starts after the last `:`, so host names may hold both characters.

use std::fmt;

/// One member of the group as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The number in the id: 0 for `n0`. The member's broker id as a follower is this plus one.
    pub id: u64,
    /// DNS name or address, IPv6 without brackets.
    pub host: String,
    /// The Raft port, 1..=65535.
    pub port: u16,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "n{}-[{}]:{}", self.id, self.host, self.port)
        } else {
            write!(f, "n{}-{}:{}", self.id, self.host, self.port)
        }
    }
}

/// Reads an id such as `n0`.
///
/// # Errors
/// A text that says what is wrong with it and what is allowed.
pub fn parse_id(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('n').filter(|digits| {
        !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit())
    });
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("id '{text}' is not allowed: write n and a number, such as n0"))
}

/// Reads the whole list.
///
/// # Errors
/// A text that names the offending part: an item that is not `id-host:port`, an id or an address that occurs twice,
/// a port outside 1..=65535, an empty list.
pub fn parse(text: &str) -> Result<Vec<PeerAddress>, String> {
    let mut peers: Vec<PeerAddress> = Vec::new();
    for item in text
        .split(';')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let peer = parse_one(item)?;
        if let Some(other) = peers.iter().find(|other| other.id == peer.id) {
            return Err(format!(
                "id n{} occurs twice: '{other}' and '{peer}'",
                peer.id
            ));
        }
        let taken = |other: &&PeerAddress| {
            other.port == peer.port && other.host.eq_ignore_ascii_case(&peer.host)
        };
        if let Some(other) = peers.iter().find(taken) {
            return Err(format!(
                "'{other}' and '{peer}' share one address: each member needs its own"
            ));
        }
        peers.push(peer);
    }
    if peers.is_empty() {
        return Err("names no member: write n0-host:port;n1-host:port;…".to_owned());
    }
    Ok(peers)
}

fn parse_one(item: &str) -> Result<PeerAddress, String> {
    let shape =
        || format!("'{item}' is not allowed: write id-host:port, such as n0-127.0.0.1:40911");
    let (id, address) = item.split_once('-').ok_or_else(shape)?;
    let id = parse_id(id.trim())?;
    let (host, port) = address.rsplit_once(':').ok_or_else(shape)?;
    let port = match port.trim().parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => {
            return Err(format!(
                "port '{port}' in '{item}' is not allowed: 1 to 65535"
            ));
        }
    };
    Ok(PeerAddress {
        id,
        host: parse_host(host.trim()).ok_or_else(shape)?,
        port,
    })
}

fn parse_host(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        inner.parse::<std::net::Ipv6Addr>().ok()?;
        return Some(inner.to_owned());
    }
    // Without brackets a second colon would make the end of the address ambiguous.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && host.chars().all(plain)).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(id: u64, host: &str, port: u16) -> PeerAddress {
        PeerAddress {
            id,
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn reads_stock_dns_dashed_and_ipv6_hosts() {
        let peers =
            parse("n0-127.0.0.1:40911; n1-rmq-raft-1.rmq-headless.svc:40911;n12-[::1]:40913;");
        assert_eq!(
            peers,
            Ok(vec![
                peer(0, "127.0.0.1", 40911),
                peer(1, "rmq-raft-1.rmq-headless.svc", 40911),
                peer(12, "::1", 40913),
            ])
        );
    }

    #[test]
    fn refuses_what_is_unsafe_and_says_why() {
        for (text, part) in [
            ("", "no member"),
            ("n0-a:1;n0-b:2", "occurs twice"),
            ("n0-a:1;n1-A:1", "share one address"),
            ("node-1-a:1", "id 'node'"),
            ("n0-a:0", "port '0'"),
            ("n0-a:70000", "port '70000'"),
            ("n0-a", "id-host:port"),
            ("n0:40911", "id-host:port"),
            ("n0-::1:40911", "id-host:port"),
            ("n0-[::1:40911", "id-host:port"),
            ("n0-a b:1", "id-host:port"),
            ("n-a:1", "id 'n'"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn takes_any_text(text in "\\PC*") {
            if let Ok(peers) = parse(&text) {
                let again: Vec<String> = peers.iter().map(ToString::to_string).collect();
                prop_assert_eq!(parse(&again.join(";")), Ok(peers));
            }
        }
    }
}

//! Who really sent it, when proxies stand in between.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

/// The client's address: the peer's, or, when the peer is a trusted proxy, the rightmost address of `X-Forwarded-For`
/// (else of `Forwarded`, RFC 7239) that is not a trusted proxy itself. Everything left of it is the client's own say.
///
/// Header lines come in their order. When both headers are there and tell different stories, one of them was passed
/// through from the client, and nobody knows which: then it is nobody's address, `0.0.0.0`. The proxy's own would let
/// anybody who adds a header pass for it, which `server.allowed_sources` may name.
pub fn client_address<'h>(
    peer: IpAddr,
    forwarded_for: impl Iterator<Item = &'h [u8]>,
    forwarded: impl Iterator<Item = &'h [u8]>,
    trusted: &[IpNet],
) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusts(trusted, peer) {
        return peer;
    }
    let legacy: Vec<_> = forwarded_for.flat_map(|line| line.split(|b| *b == b',')).map(address).collect();
    let standard: Vec<_> = forwarded.flat_map(elements).collect();
    match (walk(peer, &legacy, trusted), walk(peer, &standard, trusted)) {
        (client, _) if standard.is_empty() => client,
        (_, client) if legacy.is_empty() => client,
        (one, other) if one == other => one,
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// Whether an address is one of the trusted proxies.
pub fn trusts(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// From the nearest hop to the farthest one, as long as each is named by one that is trusted.
fn walk(peer: IpAddr, hops: &[Option<IpAddr>], trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        match hop {
            Some(address) if trusts(trusted, client) => client = *address,
            _ => break,
        }
    }
    client
}

/// The `for` addresses of one `Forwarded` line; a line with an unbalanced quote names none that can be believed.
fn elements(line: &[u8]) -> Vec<Option<IpAddr>> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = line.split(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return true,
            _ => {}
        }
        false
    });
    let hops: Vec<_> = parts.map(for_pair).collect();
    if quoted { vec![None] } else { hops }
}

fn for_pair(element: &[u8]) -> Option<IpAddr> {
    let mut values = element.split(|byte| *byte == b';').filter_map(|pair| {
        let (name, value) = pair.trim_ascii().split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    });
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    address(value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value))
}

/// An address as proxies write it, with or without port and brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bracketed {
        Some(inside) => IpAddr::V6(inside.parse().ok()?),
        None => text.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRUSTED: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

    fn client(peer: &str, forwarded_for: &[&str], forwarded: &[&str]) -> String {
        let trusted = TRUSTED.map(|network| network.parse().unwrap());
        let lines = |lines: &[&str]| lines.iter().map(|l| l.as_bytes().to_vec()).collect::<Vec<_>>();
        let (legacy, standard) = (lines(forwarded_for), lines(forwarded));
        let address = client_address(
            peer.parse().unwrap(),
            legacy.iter().map(Vec::as_slice),
            standard.iter().map(Vec::as_slice),
            &trusted,
        );
        address.to_string()
    }

    #[test]
    fn headers_count_only_from_a_trusted_proxy() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"], &[]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"], &[]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"], &[]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[], &[]), "10.0.0.1");
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client_whatever_the_client_put_before_it() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"], &[]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.7"], &[]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &[]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &["10.9.9.9, 198.51.100.7"], &[]), "198.51.100.7");
    }

    #[test]
    fn a_hop_that_is_no_address_ends_the_walk() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7, unknown"], &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], &[]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""], &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7,"], &[]), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7:443"], &[]), "198.51.100.7");
        assert_eq!(client("fd00::1", &["[2001:db8::7]:443"], &[]), "2001:db8::7");
        assert_eq!(client("fd00::1", &["[2001:db8::7]"], &[]), "2001:db8::7");
        assert_eq!(client("fd00::1", &["2001:db8::7"], &[]), "2001:db8::7");
    }

    #[test]
    fn the_standard_header_is_understood_too() {
        assert_eq!(client("10.0.0.1", &[], &["for=203.0.113.9, for=198.51.100.7;proto=https"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[], &["proto=https;FOR=\"[2001:db8::7]:4711\""]), "2001:db8::7");
        assert_eq!(client("10.0.0.1", &[], &["for=203.0.113.9;by=\"a,b\""]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[], &["for=203.0.113.9, for=_hidden"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[], &["for=203.0.113.9;for=198.51.100.7"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[], &["for=203.0.113.9;by=\"x, for=198.51.100.7"]), "10.0.0.1");
    }

    #[test]
    fn two_headers_that_disagree_are_not_believed() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"], &["for=198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"], &["for=203.0.113.9"]), "0.0.0.0");
    }

    proptest! {
        #[test]
        fn nothing_a_client_sends_moves_what_the_proxy_appended(
            claimed in proptest::collection::vec("[ -~]{0,40}", 0..4),
            seen: [u8; 4],
        ) {
            let seen = IpAddr::from(seen);
            prop_assume!(!trusts(&TRUSTED.map(|network| network.parse().unwrap()), seen));
            let mut lines: Vec<&str> = claimed.iter().map(String::as_str).collect();
            let appended = seen.to_string();
            lines.push(&appended);
            prop_assert_eq!(client("10.0.0.1", &lines, &[]), appended.clone());
            let joined = lines.join(",");
            prop_assert_eq!(client("10.0.0.1", &[&joined], &[]), appended);
        }

        #[test]
        fn no_header_panics(lines: Vec<Vec<u8>>) {
            let lines = || lines.iter().map(Vec::as_slice);
            client_address(IpAddr::from([10, 0, 0, 1]), lines(), lines(), &TRUSTED.map(|n| n.parse().unwrap()));
        }
    }
}

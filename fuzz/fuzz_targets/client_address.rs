//! `X-Forwarded-For` and `Forwarded`: nothing panics, nobody is believed but trusted proxies, and what a client sends
//! never moves what the proxy appended.
//!
//! Lines of the input are header lines; those that begin with `F` are `Forwarded`.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use kitepush::webhook::door::proxies::{client_address, trusts};
use libfuzzer_sys::fuzz_target;

static TRUSTED: LazyLock<[IpNet; 2]> =
    LazyLock::new(|| ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")));

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fuzz_target!(|data: &[u8]| {
    let lines = || data.split(|byte| *byte == b'\n');
    let legacy = || lines().filter(|line| !line.starts_with(b"F"));
    let standard = || lines().filter_map(|line| line.strip_prefix(b"F"));

    assert_eq!(client_address(STRANGER, legacy(), standard(), &*TRUSTED), STRANGER);
    let client = client_address(PROXY, legacy(), standard(), &*TRUSTED);
    assert_eq!(client, client.to_canonical());

    let seen: &[u8] = b"198.51.100.7";
    let expected: IpAddr = IpAddr::from([198, 51, 100, 7]);
    assert!(!trusts(&*TRUSTED, expected));
    assert_eq!(client_address(PROXY, legacy().chain([seen]), [].into_iter(), &*TRUSTED), expected);
    let appended: &[u8] = b"for=198.51.100.7";
    assert_eq!(client_address(PROXY, [].into_iter(), standard().chain([appended]), &*TRUSTED), expected);
});

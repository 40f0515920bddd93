//! The HTTP client of `send` and `healthcheck`.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};

/// How a server's certificate is judged.
pub(super) enum Trust {
    /// By the system's authorities.
    System,
    /// By these authorities.
    Only(Vec<Certificate>),
    /// Not at all: nothing is told to the server and nothing it says is believed but a status.
    Anybody,
}

/// A client for one URL.
pub(super) fn new(url: &Url, trust: Trust, timeout: Duration) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .timeout(timeout)
        .user_agent(concat!("kitepush/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder = match trust {
        Trust::Only(authorities) => builder.tls_certs_only(authorities),
        Trust::Anybody => builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true),
        // Plain HTTP works on a system without a bundle of authorities too.
        Trust::System if url.scheme() == "http" => builder.tls_certs_only([]),
        Trust::System => builder,
    };
    builder.build().context("cannot set up TLS; on a system without a bundle of authorities, name one")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// What went wrong, down to its cause: reqwest's own text stops at "error sending request".
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Seconds since the Unix epoch.
pub(super) fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

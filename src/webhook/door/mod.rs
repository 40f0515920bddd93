//! The door's guards: who may knock at all, and how often in vain.

pub mod failures;
pub mod meta;
pub mod proxies;
pub mod sources;

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderName, X_FORWARDED_FOR};
use ipnet::IpNet;

use super::refusal::Refusal;
use failures::Failures;
use sources::Sources;

/// Knows addresses and nothing of signatures.
pub struct Door {
    trusted_proxies: Vec<IpNet>,
    sources: Arc<Sources>,
    failures: Failures,
}

impl Door {
    /// With nobody limited yet.
    pub fn new(trusted_proxies: Vec<IpNet>, sources: Arc<Sources>) -> Self {
        Self { trusted_proxies, sources, failures: Failures::default() }
    }

    /// The address that a request came from, behind the trusted proxies.
    pub fn client(&self, request: &HttpRequest) -> IpAddr {
        // Without a peer there is no network: a request made by a test.
        let peer = request.peer_addr().map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.ip());
        if self.trusted_proxies.is_empty() {
            return peer.to_canonical();
        }
        let lines = |name: HeaderName| request.headers().get_all(name).map(|value| value.as_bytes());
        proxies::client_address(peer, lines(X_FORWARDED_FOR), lines(FORWARDED), &self.trusted_proxies)
    }

    /// Whether `client` may send at all.
    ///
    /// # Errors
    ///
    /// [`Refusal::SourceNotAllowed`].
    pub fn admit(&self, client: IpAddr) -> Result<(), Refusal> {
        if self.sources.allow(client) { Ok(()) } else { Err(Refusal::SourceNotAllowed) }
    }

    /// A request of `client` failed.
    ///
    /// # Errors
    ///
    /// [`Refusal::RateLimited`] when it was one too many.
    pub fn failed(&self, client: IpAddr) -> Result<(), Refusal> {
        self.failures.count(client).map_err(Refusal::RateLimited)
    }
}

//! `server.allowed_sources`: the addresses that may send webhooks.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;

use crate::config::AllowedSource;

/// Which addresses may send. The lock is held to clone or replace an `Arc`.
#[derive(Debug)]
pub struct Sources {
    fixed: Vec<IpNet>,
    /// Buildkite's own list; absent when the configuration does not name it.
    buildkite: Option<RwLock<Arc<[IpNet]>>>,
}

impl Sources {
    /// From `server.allowed_sources`; an empty list allows everybody. Buildkite's list is empty until it was read.
    pub fn new(allowed: &[AllowedSource]) -> Self {
        let fixed = allowed.iter().filter_map(|source| match source {
            AllowedSource::Network(network) => Some(*network),
            AllowedSource::Buildkite => None,
        });
        let buildkite = allowed.contains(&AllowedSource::Buildkite).then(|| RwLock::new(Arc::from([])));
        Self { fixed: fixed.collect(), buildkite }
    }

    /// Whether an address may send.
    pub fn allow(&self, address: IpAddr) -> bool {
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        match &self.buildkite {
            None => self.fixed.is_empty() || within(&self.fixed),
            Some(_) => within(&self.fixed) || within(&self.buildkite()),
        }
    }

    /// Whether Buildkite's list is asked for.
    pub const fn follow_buildkite(&self) -> bool {
        self.buildkite.is_some()
    }

    /// Buildkite's list as last read.
    pub fn buildkite(&self) -> Arc<[IpNet]> {
        match &self.buildkite {
            Some(list) => Arc::clone(&list.read().unwrap_or_else(PoisonError::into_inner)),
            None => Arc::from([]),
        }
    }

    /// Takes a newly read list of Buildkite's.
    pub fn replace_buildkite(&self, networks: Vec<IpNet>) {
        if let Some(list) = &self.buildkite {
            *list.write().unwrap_or_else(PoisonError::into_inner) = networks.into();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_list_allows_everybody_and_any_other_only_those_it_names() {
        let address = IpAddr::from([192, 0, 2, 7]);
        assert!(Sources::new(&[]).allow(address));
        assert!(Sources::new(&[AllowedSource::Network(network("192.0.2.0/24"))]).allow(address));
        assert!(!Sources::new(&[AllowedSource::Network(network("198.51.100.0/24"))]).allow(address));
    }

    #[test]
    fn buildkites_list_allows_nobody_until_it_was_read() {
        let sources = Sources::new(&[AllowedSource::Buildkite, AllowedSource::Network(network("10.0.0.0/8"))]);
        let address = IpAddr::from([192, 0, 2, 7]);
        assert!(!sources.allow(address) && sources.allow(IpAddr::from([10, 0, 0, 1])));
        sources.replace_buildkite(vec![network("192.0.2.0/24")]);
        assert!(sources.allow(address));
    }
}

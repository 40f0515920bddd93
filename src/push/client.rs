//! The HTTP client: one connection pool, made anew when a file of its `tls_config` changes.

use std::time::Duration;

use reqwest::{Proxy, Url, redirect};

use super::failure::Failure;
use super::tls::{self, Material};
use crate::config::TlsConfig;

/// How long a connection may take to be made, within the time for the whole.
const CONNECT: Duration = Duration::from_secs(5);
/// Shorter than the shortest idle time-out of common proxies (60 s), longer than the usual interval.
const IDLE: Duration = Duration::from_secs(50);

/// The way to one server: TLS, proxy, time-outs.
pub(super) struct Connection {
    tls: TlsConfig,
    proxy: Option<Url>,
    needs_tls: bool,
    timeout: Duration,
    /// The key of the settings, for messages: `push.http` or `push.http.oauth2`.
    section: &'static str,
    current: Option<([u8; 32], reqwest::Client)>,
    /// Why the current client is not of the newest files.
    stale: Option<String>,
}

impl Connection {
    /// Nothing is read or connected yet.
    pub(super) fn new(url: &Url, tls: TlsConfig, proxy: Option<Url>, timeout: Duration, section: &'static str) -> Self {
        let needs_tls = url.scheme() == "https" || proxy.as_ref().is_some_and(|proxy| proxy.scheme() == "https");
        Self { tls, proxy, needs_tls, timeout, section, current: None, stale: None }
    }

    /// The client of the files as they are now. When they cannot be used, the client of their last good state, and
    /// [`Connection::stale`] says why.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] when there has been no good state yet.
    pub(super) fn client(&mut self) -> Result<reqwest::Client, Failure> {
        match self.renewed() {
            Ok(client) => {
                self.stale = None;
                Ok(client)
            }
            Err(why) => {
                let why = format!("{}.tls_config.{why}", self.section);
                let Some((_, client)) = &self.current else { return Err(Failure::Misconfigured(why)) };
                self.stale = Some(format!("{why}; the certificates of before stay in use"));
                Ok(client.clone())
            }
        }
    }

    /// Why the client in use is not of the newest files, if so.
    pub(super) fn stale(&self) -> Option<&str> {
        self.stale.as_deref()
    }

    /// What an error of a request means.
    pub(super) fn failure(&self, error: &reqwest::Error, peer: &str) -> Failure {
        Failure::of_request(error, peer, self.timeout, &format!("{}.tls_config", self.section))
    }

    fn renewed(&mut self) -> Result<reqwest::Client, String> {
        if !self.needs_tls {
            if let Some((_, client)) = &self.current {
                return Ok(client.clone());
            }
            let client = self.built(tls::unused()?)?;
            return Ok(self.current.insert(([0; 32], client)).1.clone());
        }
        let material = Material::read(&self.tls)?;
        match &self.current {
            Some((fingerprint, client)) if *fingerprint == material.fingerprint => Ok(client.clone()),
            _ => {
                let client = self.built(tls::client(&self.tls, &material)?)?;
                Ok(self.current.insert((material.fingerprint, client)).1.clone())
            }
        }
    }

    fn built(&self, tls: rustls::ClientConfig) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A redirected PUT would become a GET, or push to where nobody meant it to go.
            .redirect(redirect::Policy::none())
            .referer(false)
            .http1_only()
            // The time-out of the whole is around the request, so that it covers fetching a token too.
            .connect_timeout(CONNECT.min(self.timeout / 2))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("kitepush/", env!("CARGO_PKG_VERSION")))
            // As Prometheus does: proxy_url and nothing else; the environment of a service is nobody's choice.
            .no_proxy();
        if let Some(proxy) = &self.proxy {
            let proxy = Proxy::all(proxy.clone()).map_err(|_| "proxy_url cannot be used".to_owned())?;
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| error.without_url().to_string())
    }
}

//! Buildkite's own list of source addresses: read from its meta API once a day, the last good one kept on disk.
//!
//! `GET https://api.buildkite.com/v2/meta` answers `{"webhook_ips": ["192.0.2.0/24", …]}` (Buildkite docs,
//! `apis/rest_api/meta`), and asks to be re-read daily.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use reqwest::Client;
use reqwest::redirect::Policy;
use serde::Deserialize;
use tokio::time::sleep;

use super::sources::Sources;
use crate::health::{Health, Part};

/// Where Buildkite publishes its addresses.
pub const META_URL: &str = "https://api.buildkite.com/v2/meta";

const REFRESH: Duration = Duration::from_secs(24 * 3600);
const TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure: doubled each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));
/// Bytes. The answer has a few hundred.
const LARGEST: usize = 64 << 10;

/// Keeps [`Sources`] up to date.
pub struct Follower {
    sources: Arc<Sources>,
    health: Arc<Health>,
    client: Client,
    url: String,
    file: Option<PathBuf>,
}

impl Follower {
    /// Reads from `url`, and keeps the list beside the state file, if there is one.
    ///
    /// # Errors
    ///
    /// When no HTTPS client can be made.
    pub fn new(
        sources: Arc<Sources>,
        health: Arc<Health>,
        url: &str,
        state_file: Option<&Path>,
    ) -> reqwest::Result<Self> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .user_agent(concat!("kitepush/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let file = state_file.map(|path| path.with_extension("sources.json"));
        Ok(Self { sources, health, client, url: url.to_owned(), file })
    }

    /// Takes the list kept on disk, or else waits for one try to read it. Returns how long [`Self::follow`] may pause
    /// before it reads for the first time.
    pub async fn start(&self) -> Duration {
        if self.restore() {
            return Duration::ZERO;
        }
        if self.refresh().await { REFRESH } else { RETRY.0 }
    }

    fn restore(&self) -> bool {
        let Some(file) = &self.file else { return false };
        match fs::read(file) {
            Ok(bytes) => match parse(&bytes) {
                Ok(networks) => {
                    self.sources.replace_buildkite(networks);
                    return true;
                }
                Err(error) => tracing::warn!(file = %file.display(), %error, "kept source addresses are of no use"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %file.display(), %error, "kept source addresses cannot be read"),
        }
        false
    }

    /// Reads the list again and again.
    pub async fn follow(self, pause: Duration) {
        sleep(pause).await;
        let (mut retry, longest) = RETRY;
        loop {
            if self.refresh().await {
                retry = RETRY.0;
                sleep(REFRESH).await;
            } else {
                sleep(retry).await;
                retry = (2 * retry).min(longest);
            }
        }
    }

    async fn refresh(&self) -> bool {
        match self.read().await {
            Ok(networks) => {
                tracing::debug!(networks = networks.len(), "source addresses of Buildkite read");
                self.keep(&networks);
                self.sources.replace_buildkite(networks);
                self.health.works(Part::Sources);
                true
            }
            Err(error) => {
                let kept = match self.sources.buildkite().len() {
                    0 => "until it can be read, Buildkite's addresses are refused",
                    _ => "the list read before stays",
                };
                let why =
                    format!("cannot read the addresses of server.allowed_sources from {}: {error:#}; {kept}", self.url);
                if self.health.degraded(Part::Sources, &why) {
                    tracing::error!("{why}");
                }
                false
            }
        }
    }

    async fn read(&self) -> anyhow::Result<Vec<IpNet>> {
        let mut answer = self.client.get(&self.url).send().await.map_err(reqwest::Error::without_url)?;
        if !answer.status().is_success() {
            bail!("it answers {}", answer.status());
        }
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST {
                bail!("its answer is longer than {LARGEST} bytes");
            }
        }
        parse(&body)
    }

    /// The new list takes the place of the old one in one step. Without it a restart has to ask again, no more.
    fn keep(&self, networks: &[IpNet]) {
        let Some(file) = &self.file else { return };
        let networks: Vec<_> = networks.iter().map(IpNet::to_string).collect();
        let list = serde_json::json!({ "webhook_ips": networks }).to_string();
        let new = file.with_extension("json.new");
        if let Err(error) = fs::write(&new, list).and_then(|()| fs::rename(&new, file)) {
            tracing::warn!(file = %file.display(), %error, "cannot keep the source addresses");
        }
    }
}

fn parse(body: &[u8]) -> anyhow::Result<Vec<IpNet>> {
    #[derive(Deserialize)]
    struct Meta {
        webhook_ips: Vec<String>,
    }
    let meta: Meta = serde_json::from_slice(body).context("not the answer of a meta API")?;
    let network = |text: &String| {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.with_context(|| format!("{text:?} is no address range"))
    };
    let networks: Vec<_> = meta.webhook_ips.iter().map(network).collect::<Result<_, _>>()?;
    if networks.is_empty() || networks.iter().any(|network| network.prefix_len() == 0) {
        bail!("webhook_ips is empty, or allows everybody");
    }
    Ok(networks)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::config::AllowedSource;

    /// Answers one request after the other.
    fn meta_api(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v2/meta", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let _ = socket.read(&mut [0; 4096]).unwrap();
                socket.write_all(answer.as_bytes()).unwrap();
            }
        });
        url
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    fn follower(url: &str, state: Option<&Path>) -> Follower {
        // The first one installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let sources = Arc::new(Sources::new(&[AllowedSource::Buildkite]));
        Follower::new(sources, Arc::default(), url, state).unwrap()
    }

    fn allows(follower: &Follower) -> bool {
        follower.sources.allow(IpAddr::from([192, 0, 2, 7]))
    }

    #[tokio::test]
    async fn the_list_is_read_and_kept_for_a_start_without_buildkite() {
        let dir = tempfile::TempDir::new().unwrap();
        let state = dir.path().join("state.db");
        let url = meta_api(vec![ok(r#"{"webhook_ips": ["192.0.2.0/24", "2001:db8::1"]}"#)]);
        let first = follower(&url, Some(&state));
        first.start().await;
        assert!(allows(&first) && first.health.troubles().is_empty());

        let second = follower("http://127.0.0.1:1/", Some(&state));
        second.start().await;
        assert!(allows(&second));
    }

    #[tokio::test]
    async fn a_failure_leaves_the_last_good_list_in_place_and_says_so() {
        let bad = ["{}", r#"{"webhook_ips": []}"#, r#"{"webhook_ips": ["0.0.0.0/0"]}"#, r#"{"webhook_ips": ["x"]}"#];
        let mut answers = vec![ok(r#"{"webhook_ips": ["192.0.2.7"]}"#)];
        answers.extend(bad.map(ok));
        answers.push("HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned());
        answers.push(ok(&" ".repeat(LARGEST + 1)));
        let url = meta_api(answers.clone());
        let follower = follower(&url, None);
        assert!(follower.refresh().await);
        for _ in 1..answers.len() {
            assert!(!follower.refresh().await && allows(&follower));
            assert!(follower.health.troubles()[&Part::Sources].contains("stays"));
        }
    }

    #[tokio::test]
    async fn without_any_list_nobody_is_let_in() {
        let follower = follower("http://127.0.0.1:1/", None);
        follower.start().await;
        assert!(!allows(&follower));
        assert!(follower.health.troubles()[&Part::Sources].contains("refused"));
    }
}

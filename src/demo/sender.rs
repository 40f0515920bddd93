//! Buildkite's part: signs and posts the deliveries of the day, in disorder and some of them twice, and a few that
//! somebody forged.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Client;
use sha2::Sha256;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::history::History;
use super::servers::Servers;

/// Requests in flight at most.
const WORKERS: usize = 6;
/// How often a delivery is posted that is not answered 200, before the demo gives up.
const TRIES: usize = 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// After so many deliveries somebody sends one that is signed with another secret.
const FORGE_EVERY: usize = 400;

/// What has been sent, and how it was answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Requests to send, repetitions and forgeries included.
    pub(super) planned: usize,
    /// Requests answered as they should be.
    pub(super) answered: usize,
    /// Deliveries that were planned more than once, the first time not counted.
    pub(super) repeated: usize,
    /// Forgeries answered 401 (or 429, once there are many).
    pub(super) refused: usize,
    /// The slowest answer.
    pub(super) slowest: Duration,
    failure: Option<String>,
}

impl Progress {
    pub(super) fn is_over(&self) -> bool {
        self.answered == self.planned
    }
}

/// The tasks that send.
pub(super) struct Sender {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    posts: Vec<Post>,
    next: AtomicUsize,
    progress: Mutex<Progress>,
    begin: Instant,
    window: Duration,
    client: Client,
    url: String,
    secret: String,
}

struct Post {
    event: &'static str,
    body: Bytes,
    is_forged: bool,
}

impl Sender {
    /// Sends the day evenly over `window`, in the disorder that `seed` makes.
    pub(super) fn start(history: &History, seed: u64, window: Duration, servers: &Servers) -> Self {
        let bodies: Vec<Bytes> = history.deliveries.iter().map(|delivery| delivery.body.clone().into()).collect();
        let order = history.disorder(seed);
        let mut posts = Vec::with_capacity(order.len() + order.len() / FORGE_EVERY + 1);
        for (position, &index) in order.iter().enumerate() {
            let post =
                |is_forged| Post { event: history.deliveries[index].event, body: bodies[index].clone(), is_forged };
            if position % FORGE_EVERY == FORGE_EVERY / 2 {
                posts.push(post(true));
            }
            posts.push(post(false));
        }
        let progress =
            Progress { planned: posts.len(), repeated: order.len() - history.deliveries.len(), ..Progress::default() };
        let shared = Arc::new(Shared {
            posts,
            next: AtomicUsize::new(0),
            progress: Mutex::new(progress),
            begin: Instant::now(),
            window,
            client: servers.client(),
            url: servers.webhook_url(),
            secret: servers.secret().to_owned(),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..WORKERS {
            tasks.spawn(Arc::clone(&shared).work());
        }
        Self { shared, tasks }
    }

    /// How far it is.
    ///
    /// # Errors
    ///
    /// A delivery was refused for good, or a forgery was not.
    pub(super) fn progress(&self) -> anyhow::Result<Progress> {
        let progress = self.shared.progress().clone();
        match progress.failure {
            Some(failure) => bail!(failure),
            None => Ok(progress),
        }
    }

    /// Sends nothing more.
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Shared {
    async fn work(self: Arc<Self>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(post) = self.posts.get(index) else { return };
            let share = index as f64 / self.posts.len() as f64;
            sleep_until(self.begin + self.window.mul_f64(share)).await;
            if let Err(failure) = self.deliver(post).await {
                self.progress().failure = Some(format!("{failure:#}"));
                return;
            }
        }
    }

    async fn deliver(&self, post: &Post) -> anyhow::Result<()> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let begin = Instant::now();
            let secret = if post.is_forged { "not the secret" } else { &self.secret };
            let request = self
                .client
                .post(&self.url)
                .header("content-type", "application/json")
                .header("user-agent", "Buildkite-Request")
                .header("x-buildkite-event", post.event)
                .header("x-buildkite-signature", sign(secret, jiff::Timestamp::now().as_second(), &post.body))
                .body(post.body.clone());
            match request.send().await.map(|response| response.status().as_u16()) {
                Ok(200) if post.is_forged => bail!("kitepush took a {} with a forged signature", post.event),
                Ok(401 | 429) if post.is_forged => {
                    let mut progress = self.progress();
                    progress.answered += 1;
                    progress.refused += 1;
                    return Ok(());
                }
                Ok(200) => {
                    let mut progress = self.progress();
                    progress.answered += 1;
                    progress.slowest = progress.slowest.max(begin.elapsed());
                    return Ok(());
                }
                Ok(status) => last = format!("answered {status}"),
                Err(error) => last = format!("{error:?}"),
            }
            sleep(PAUSE).await;
        }
        bail!("kitepush did not take a {} in {TRIES} tries: {last}", post.event)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `X-Buildkite-Signature` header, from the words of Buildkite's docs: HMAC-SHA256 of timestamp, a dot and the body.
fn sign(secret: &str, timestamp: i64, body: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    let code: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("timestamp={timestamp},signature={code}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn signs_as_buildkite_does() {
        // Made with: printf '1642080837.{}' | openssl dgst -sha256 -hmac secret
        let header = super::sign("secret", 1_642_080_837, b"{}");
        assert_eq!(
            header,
            "timestamp=1642080837,signature=04710e0f9691659ad0fd510e2b410eb8d64a9e777b2eb9a97204d3df9119b84c"
        );
    }
}

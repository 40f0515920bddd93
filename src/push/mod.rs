//! The way out: a fresh snapshot of all totals to the Pushgateway, again and again, on a thread of its own.
//!
//! | file | what lives there |
//! |---|---|
//! | `run` | the loop: restore, push, look for a second writer, stop |
//! | `schedule` | when to push next |
//! | `target` | the Pushgateway: its URLs, what its answers mean |
//! | `groups` | what it says that it holds |
//! | `failure` | why a push failed, and what to mend |
//! | `second_writer` | whether somebody else writes our group |
//! | `client`, `tls`, `credentials`, `oauth2` | `push.http`, as Prometheus' `http_config` |

mod client;
mod credentials;
mod failure;
mod groups;
mod hidden;
mod oauth2;
mod run;
mod schedule;
mod second_writer;
mod target;
mod tls;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{oneshot, watch};

pub use failure::Failure;
pub use groups::{GroupsError, Kind, RestoredFamily, RestoredMetric, RestoredValue, parse_groups};

use crate::config::Push;
use crate::health::{Health, Part};
use crate::metrics::Exposition;
use crate::metrics::own::Own;
use run::Run;
use target::Gateway;

/// Takes in what an earlier run left on the gateway: `Some` with the families of this instance's own group (which may
/// be empty), `None` when there is no such group. It is called on a thread that may block, and returns when the totals
/// are part of every later snapshot: nothing is pushed before. After an error (why) it is called again later; after
/// `Ok` never again.
pub type TakeIn = Box<dyn FnMut(Option<Vec<RestoredFamily>>) -> Result<(), String> + Send>;

/// Starts the loop that pushes.
pub struct Pusher;

/// The running loop.
pub struct Handle {
    stop: watch::Sender<Option<tokio::time::Instant>>,
    ended: oneshot::Receiver<FinalPush>,
}

/// How the final push ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalPush {
    /// The gateway has everything.
    Accepted,
    /// It has not; why. Already logged.
    Failed(String),
}

impl Pusher {
    /// Starts pushing `exposition` as `config` says. With `take_in`, the first push waits until that has what an
    /// earlier run left on the gateway.
    ///
    /// Trouble of the gateway, of the network or with a file is not an error here: it shows in `health` and `own`,
    /// and the loop goes on.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] for a configuration that could never work, such as no `push.url`, or when the
    /// system has no thread left.
    pub fn start(
        exposition: Arc<impl Exposition>,
        own: Arc<Own>,
        health: Arc<Health>,
        config: &Push,
        take_in: Option<TakeIn>,
    ) -> Result<Handle, Failure> {
        let gateway = Gateway::new(config)?;
        let run = Run::new(exposition, own, health.clone(), gateway, config, take_in);
        let (stop, stopped) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let cannot = |error: std::io::Error| Failure::Misconfigured(format!("cannot start the push thread: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let body = move || {
            let ran = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run.until(stopped))));
            let last = ran.unwrap_or_else(|_| {
                let why = "the push loop ended by a bug: restart kitepush and report it";
                tracing::error!(why);
                health.degraded(Part::Gateway, why);
                FinalPush::Failed(why.to_owned())
            });
            // Nobody may be listening any more.
            let _ = end.send(last);
            // A snapshot that still waits for a disk is not waited for.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("push".to_owned()).spawn(body).map_err(cannot)?;
        Ok(Handle { stop, ended })
    }
}

impl Handle {
    /// Ends the loop with a final push that has until `deadline`. A push in flight gets a moment to end and is then
    /// abandoned. Returns by `deadline`, whatever hangs.
    pub async fn stop(self, deadline: Instant) -> FinalPush {
        // The loop may have ended by a bug, which `ended` tells.
        let _ = self.stop.send(Some(deadline.into()));
        match tokio::time::timeout_at(deadline.into(), self.ended).await {
            Ok(Ok(last)) => last,
            Ok(Err(_)) => FinalPush::Failed("the push loop is gone".to_owned()),
            Err(_) => FinalPush::Failed("the final push did not end in time".to_owned()),
        }
    }
}

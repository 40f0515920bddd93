//! The loop: restore, then push in turn, and once more at the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, error, info, warn};

use super::failure::Failure;
use super::schedule::Schedule;
use super::second_writer::{QUEUE, Sighting, Watch};
use super::target::{Accepted, Earlier, Target};
use super::{FinalPush, TakeIn};
use crate::config::{self, Push, PushFormat};
use crate::health::{Health, Part};
use crate::metrics::encoding::{Compression, Encoded, Format, encode};
use crate::metrics::own::{Own, PushOutcome};
use crate::metrics::{Exposition, Snapshot};

/// What a push in flight is given when the process is to stop; at most a quarter of what there is.
const GRACE: Duration = Duration::from_secs(1);
/// Kept from the final push for telling how it went.
const MARGIN: Duration = Duration::from_millis(50);
/// Different troubles that are logged between two times without any.
const LOGGED: usize = 32;

/// Everything that the loop has.
pub(super) struct Run<E, T> {
    exposition: Arc<E>,
    own: Arc<Own>,
    health: Arc<Health>,
    target: T,
    format: Format,
    compression: Compression,
    self_metrics: bool,
    schedule: Schedule,
    watch: Watch,
    restore: Restore,
    logged: HashSet<String>,
}

/// How far the totals of an earlier run have come.
enum Restore {
    Done,
    Waiting(TakeIn),
    /// Being taken in. Never dropped before it ended, or what was taken in could be taken in twice.
    Taking(JoinHandle<(TakeIn, Result<(), String>)>),
    /// Taking it in panicked: whether it is in, nobody knows.
    Lost,
}

#[derive(Clone, Copy)]
enum Which {
    Regular,
    Final,
}

impl<E: Exposition, T: Target> Run<E, T> {
    pub(super) fn new(
        exposition: Arc<E>,
        own: Arc<Own>,
        health: Arc<Health>,
        target: T,
        config: &Push,
        take_in: Option<TakeIn>,
    ) -> Self {
        Self {
            exposition,
            own,
            health,
            target,
            format: match config.format {
                PushFormat::Protobuf => Format::Protobuf,
                PushFormat::Text => Format::Text,
            },
            compression: match config.compression {
                config::Compression::Gzip => Compression::Gzip,
                config::Compression::None => Compression::None,
            },
            self_metrics: config.self_metrics,
            schedule: Schedule::new(config.interval),
            watch: Watch::new(config.interval),
            restore: take_in.map_or(Restore::Done, Restore::Waiting),
            logged: HashSet::new(),
        }
    }

    /// Runs until `stop` holds a deadline or is closed, then pushes a last time before that deadline.
    pub(super) async fn until(mut self, mut stop: watch::Receiver<Option<Instant>>) -> FinalPush {
        let mut resting = stop.clone();
        let deadline = {
            let mut cycle = std::pin::pin!(self.cycle(&mut resting));
            // Closed without a deadline: whoever started this is gone and waits for nothing.
            let told = async { stop.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline) };
            let deadline = tokio::select! {
                // The cycle ends by itself only when it was told to stop, too: its own waiting may hear it first.
                () = &mut cycle => None,
                deadline = told => Some(deadline),
            };
            match deadline {
                None => *stop.borrow(),
                Some(deadline) => {
                    let left = deadline.map_or(Duration::ZERO, |at| at - Instant::now());
                    // Usually it ends within this, and the gateway does not see two pushes at once.
                    let _ = timeout(GRACE.min(left / 4), cycle).await;
                    deadline
                }
            }
        };
        let deadline = deadline.unwrap_or_else(Instant::now);
        let last = self.last(deadline).await;
        match &last {
            FinalPush::Accepted => info!("final push accepted"),
            FinalPush::Failed(why) => warn!(why, "final push failed; the gateway keeps what it was pushed before"),
        }
        last
    }

    /// Restores, then pushes in turn, until `stop`.
    async fn cycle(&mut self, stop: &mut watch::Receiver<Option<Instant>>) {
        loop {
            let started = Instant::now();
            let pause = match self.restored().await {
                Ok(()) => break,
                Err(failure) => self.schedule.failed(&failure, rand::random()),
            };
            if told_within(stop, started + pause).await {
                return;
            }
        }
        loop {
            let started = Instant::now();
            let pause = match self.turn().await {
                Ok(()) => self.schedule.succeeded(rand::random()),
                Err(failure) => {
                    let pause = self.schedule.failed(&failure, rand::random());
                    debug!(%failure, ?pause, "push failed");
                    pause
                }
            };
            if told_within(stop, started + pause).await {
                return;
            }
        }
    }

    async fn last(&mut self, deadline: Instant) -> FinalPush {
        let deadline = deadline - MARGIN;
        let whole = async {
            self.restored().await?;
            self.push(Which::Final).await
        };
        match timeout_at(deadline, whole).await {
            Ok(Ok(_)) => FinalPush::Accepted,
            Ok(Err(failure)) => FinalPush::Failed(failure.to_string()),
            Err(_) => FinalPush::Failed("not done in time".to_owned()),
        }
    }

    /// Takes in what an earlier run left, if that is still to be done. It can be cancelled at any await and goes on
    /// where it was.
    async fn restored(&mut self) -> Result<(), Failure> {
        if matches!(self.restore, Restore::Done) {
            return Ok(());
        }
        match self.restore_step().await {
            Ok(()) => {
                self.schedule.succeeded(0.0);
                self.logged.clear();
                self.health.works(Part::Gateway);
                if self.health.works(Part::Restore) {
                    info!("the totals of an earlier run are read back: pushes begin");
                }
                Ok(())
            }
            Err(failure) => {
                let why = format!("pushes wait until the totals of an earlier run are read back: {failure}");
                self.log_once(&why);
                self.health.degraded(Part::Restore, why);
                if failure.is_passing() {
                    self.health.degraded(Part::Gateway, failure.to_string());
                }
                Err(failure)
            }
        }
    }

    async fn restore_step(&mut self) -> Result<(), Failure> {
        if matches!(self.restore, Restore::Waiting(_)) {
            let families = match self.target.earlier().await? {
                Earlier::Group(families) => {
                    info!(families = families.len(), "an earlier run left its totals on the gateway");
                    Some(families)
                }
                Earlier::Nothing => {
                    info!("the gateway has no group of this instance yet: totals begin at zero");
                    None
                }
                Earlier::NoApi(status) => {
                    warn!(status, "push.url has no /api/v1/metrics: totals begin at zero");
                    None
                }
            };
            if let Restore::Waiting(mut take_in) = std::mem::replace(&mut self.restore, Restore::Lost) {
                self.restore = Restore::Taking(spawn_blocking(move || {
                    let taken = take_in(families);
                    (take_in, taken)
                }));
            }
        }
        let lost =
            || Failure::Misconfigured("taking them in failed by a bug: restart kitepush and report it".to_owned());
        let Restore::Taking(taking) = &mut self.restore else { return Err(lost()) };
        let ended = taking.await;
        let (next, result) = match ended {
            Ok((_, Ok(()))) => (Restore::Done, Ok(())),
            Ok((take_in, Err(why))) => (Restore::Waiting(take_in), Err(Failure::Unreachable(why))),
            Err(_) => (Restore::Lost, Err(lost())),
        };
        self.restore = next;
        result
    }

    /// One push, and a look for a second writer around it when one is due.
    async fn turn(&mut self) -> Result<(), Failure> {
        if self.watch.before_push() {
            let push_time = self.look().await;
            match self.watch.is_before(push_time, Instant::now()) {
                Sighting::Another => self.second_writer(),
                Sighting::Gone => {
                    if self.health.works(Part::SecondWriter) {
                        info!("no other process has pushed to this group for ten minutes");
                    }
                }
                Sighting::Nothing => {}
            }
        }
        let pushed = self.push(Which::Regular).await;
        if self.watch.after_push(pushed.as_ref().ok().copied(), Instant::now()) {
            if let Ok(Accepted::Queued) = pushed {
                sleep(QUEUE).await;
            }
            let push_time = self.look().await;
            self.watch.is_after(push_time);
        }
        pushed.map(|_| ())
    }

    /// The group's push time. Not to know it is no trouble worth more than a line for the curious.
    async fn look(&mut self) -> Option<f64> {
        self.target.push_time().await.unwrap_or_else(|failure| {
            debug!(%failure, "cannot look for a second writer");
            None
        })
    }

    fn second_writer(&mut self) {
        self.own.anomalies.with_label_values(&["second_writer"]).inc();
        let why = "another process pushes to the same group, so that totals jump back and forth: \
                   give each kitepush its own push.instance, and stop what is left of an earlier one";
        if self.health.degraded(Part::SecondWriter, why) {
            error!("{why}");
        }
    }

    async fn push(&mut self, which: Which) -> Result<Accepted, Failure> {
        let (snapshot, mut encoded) = match self.taken(which).await {
            Ok(taken) => taken,
            Err(failure) => {
                self.failing(&failure);
                return Err(failure);
            }
        };
        let left_out: Vec<String> = encoded.left_out.drain(..).map(|flaw| flaw.to_string()).collect();
        let (size, plain_bytes) = (encoded.body.len(), encoded.plain_bytes);
        let started = Instant::now();
        let result = self.target.put(encoded).await;
        let took = started.elapsed();
        self.own.push_seconds.observe(took.as_secs_f64());
        self.own.push_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        match &result {
            Ok(_) => {
                debug!(size, plain_bytes, ?took, "pushed");
                self.own.push(PushOutcome::Ok);
                let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                self.own.last_push.set(since_epoch.as_secs_f64());
                let exposition = self.exposition.clone();
                // It may block as taking one may. A panic in there is told by its hook, and changes nothing here.
                let _ = spawn_blocking(move || exposition.exposed(&snapshot)).await;
                self.working(&left_out);
            }
            Err(failure) => {
                self.own.push(failure.outcome());
                if failure.is_passing() {
                    let exposition = self.exposition.clone();
                    let _ = spawn_blocking(move || exposition.interrupted()).await;
                }
                self.failing(failure);
            }
        }
        result
    }

    /// A fresh snapshot, encoded, on a thread that may block.
    async fn taken(&self, which: Which) -> Result<(E::Snapshot, Encoded), Failure> {
        let exposition = self.exposition.clone();
        let own = self.self_metrics.then(|| self.own.clone());
        let (format, compression) = (self.format, self.compression);
        let taken = spawn_blocking(move || {
            let snapshot = match which {
                Which::Regular => exposition.snapshot(),
                Which::Final => exposition.final_snapshot(),
            };
            let own = own.map(|own| own.gather()).unwrap_or_default();
            let encoded = encode(snapshot.families().chain(own), format, compression);
            encoded.map(|encoded| (snapshot, encoded))
        });
        let bug = |what: String| Failure::Misconfigured(format!("no snapshot could be made, by a bug: {what}"));
        match taken.await {
            Ok(taken) => taken.map_err(|error| bug(error.to_string())),
            Err(error) => Err(bug(error.to_string())),
        }
    }

    fn failing(&mut self, failure: &Failure) {
        let why = failure.to_string();
        self.log_once(&why);
        self.health.degraded(Part::Gateway, why);
    }

    fn working(&mut self, left_out: &[String]) {
        let complaint = self.target.complaint();
        let complaints: Vec<_> = complaint.iter().chain(left_out).map(String::as_str).collect();
        if complaints.is_empty() {
            self.logged.clear();
            if self.health.works(Part::Gateway) {
                info!("pushes to the gateway work again");
            }
            return;
        }
        let why = complaints.join("; ");
        self.log_once(&why);
        if !left_out.is_empty() {
            self.own.anomalies.with_label_values(&["invalid_family"]).inc();
        }
        self.health.degraded(Part::Gateway, format!("pushes work, but {why}"));
    }

    /// Each trouble is logged once, until there was a time without any.
    fn log_once(&mut self, why: &str) {
        if self.logged.len() < LOGGED && self.logged.insert(why.to_owned()) {
            warn!("{why}");
        }
    }
}

/// Waits until `until`, or until told to stop, which it says.
async fn told_within(stop: &mut watch::Receiver<Option<Instant>>, until: Instant) -> bool {
    let told = async {
        // Closed is told as well.
        let _ = stop.wait_for(Option::is_some).await;
    };
    tokio::select! {
        () = told => true,
        () = sleep_until(until) => false,
    }
}

#[cfg(test)]
mod tests;

//! Another process that pushes to the same group, the mistake that turned 30 builds into 721.
//!
//! The gateway's `push_time_seconds` of the group is read right after a push of ours and again right before the next.
//! If it grew in between, somebody else pushed. Both readings are the gateway's own clock and unaffected by ours, and
//! nothing has to be added to what is pushed. The readings come from `/api/v1/metrics`, which names groups exactly and
//! is read by the restore anyway; it costs the gateway as much as a push does, so that one pair a minute, or one in four
//! pushes, is enough. A stranger in step with us, whose push always falls between ours and our first reading, does not
//! stay so, because the schedule jitters.

use std::time::Duration;

use tokio::time::Instant;

use super::target::Accepted;

/// From one pair of readings to the next: this many intervals.
const PUSHES: u32 = 4;
/// But no longer than this.
const EVERY: Duration = Duration::from_secs(60);
/// After that long without another push the trouble is over.
const QUIET: Duration = Duration::from_secs(600);
/// How long a gateway that queues pushes unchecked is given to store one.
pub(super) const QUEUE: Duration = Duration::from_secs(1);

/// What is known of other writers.
#[derive(Debug)]
pub(super) struct Watch {
    every: Duration,
    /// Whether the last attempt was accepted. One that failed may still be stored later, and is not a stranger's.
    steady: bool,
    looked: Option<Instant>,
    /// The group's push time right after our last push, when that was looked at.
    ours: Option<f64>,
    seen: Option<Instant>,
}

/// What a reading says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// Somebody else pushed since our last push.
    Another,
    /// Nobody has for long, after somebody had.
    Gone,
    /// Nothing new.
    Nothing,
}

impl Watch {
    /// For pushes `interval` apart.
    pub(super) fn new(interval: Duration) -> Self {
        Self { every: EVERY.min(interval.saturating_mul(PUSHES)), steady: false, looked: None, ours: None, seen: None }
    }

    /// Whether the group's push time is to be read now, before a push.
    pub(super) fn before_push(&self) -> bool {
        self.ours.is_some()
    }

    /// The group's push time as it is before a push; `None` when it could not be read.
    pub(super) fn is_before(&mut self, push_time: Option<f64>, now: Instant) -> Sighting {
        match (self.ours.take(), push_time) {
            // A time that went back is a gateway that restarted with what it had saved.
            (Some(ours), Some(theirs)) if theirs > ours => {
                self.seen = Some(now);
                Sighting::Another
            }
            _ if self.seen.is_some_and(|seen| now - seen >= QUIET) => {
                self.seen = None;
                Sighting::Gone
            }
            _ => Sighting::Nothing,
        }
    }

    /// A push ended. Whether the group's push time is to be read now.
    pub(super) fn after_push(&mut self, accepted: Option<Accepted>, now: Instant) -> bool {
        let was_steady = std::mem::replace(&mut self.steady, accepted.is_some());
        let due = was_steady && self.steady && self.looked.is_none_or(|looked| now - looked >= self.every);
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// The group's push time as our push made it; `None` when it could not be read.
    pub(super) fn is_after(&mut self, push_time: Option<f64>) {
        self.ours = push_time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_push_time_that_grew_between_two_pushes_of_ours_is_anothers() {
        let mut watch = Watch::new(Duration::from_secs(15));
        assert!(!watch.before_push());
        assert!(!watch.after_push(Some(Accepted::Stored), Instant::now()), "one push proves nothing of the one before");
        assert!(watch.after_push(Some(Accepted::Stored), Instant::now()));
        watch.is_after(Some(100.0));
        assert!(watch.before_push());
        assert_eq!(watch.is_before(Some(100.0), Instant::now()), Sighting::Nothing);
        assert!(!watch.after_push(Some(Accepted::Stored), Instant::now()), "once a minute is enough");
        tokio::time::advance(EVERY).await;
        assert!(watch.after_push(Some(Accepted::Stored), Instant::now()));
        watch.is_after(Some(160.0));
        assert_eq!(watch.is_before(Some(160.5), Instant::now()), Sighting::Another);
        tokio::time::advance(QUIET).await;
        assert_eq!(watch.is_before(None, Instant::now()), Sighting::Gone);
        assert_eq!(watch.is_before(None, Instant::now()), Sighting::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_that_failed_and_was_stored_later_is_not_anothers() {
        let mut watch = Watch::new(Duration::from_secs(15));
        assert!(!watch.after_push(None, Instant::now()));
        assert!(!watch.after_push(Some(Accepted::Stored), Instant::now()));
        assert!(watch.after_push(Some(Accepted::Stored), Instant::now()));
        watch.is_after(Some(5.0));
        assert_eq!(watch.is_before(Some(3.0), Instant::now()), Sighting::Nothing, "a gateway restarted");
    }
}

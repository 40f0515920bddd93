//! When to push next: the interval while all is well, longer and longer with jitter while it is not.

use std::time::Duration;

use super::failure::Failure;

/// A failing gateway is asked at least this often: the longer of that and the interval.
const LONGEST: Duration = Duration::from_secs(120);
/// The pauses grow to at most that many intervals.
const INTERVALS: u32 = 8;
/// A failing gateway is asked no more often than this, or than the interval if that is shorter.
const SHORTEST: Duration = Duration::from_secs(1);

/// Exponential backoff with full jitter: many kitepushes that lose one gateway do not come back to it as one.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    failures: u32,
}

impl Schedule {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// From the start of a push that succeeded to the start of the next: the interval, or up to a tenth less, so that
    /// no two kitepushes stay in step; `random` is in `0.0..1.0`.
    pub(super) fn succeeded(&mut self, random: f64) -> Duration {
        self.failures = 0;
        self.interval.mul_f64(1.0 - random / 10.0)
    }

    /// From a failure to the next attempt; `random` is in `0.0..1.0`.
    ///
    /// What passes by itself is tried again after up to 1, 2, 4, 8 intervals. What the gateway refused, or what is
    /// configured wrongly, fails the same way again: that goes to the slow pace at once.
    pub(super) fn failed(&mut self, failure: &Failure, random: f64) -> Duration {
        let longest = self.interval.saturating_mul(INTERVALS).min(LONGEST.max(self.interval));
        if !failure.is_passing() {
            self.failures = self.failures.saturating_add(1);
            return longest.mul_f64(0.5 + random / 2.0);
        }
        let up_to = self.interval.saturating_mul(2_u32.saturating_pow(self.failures)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let least = SHORTEST.min(self.interval);
        least + up_to.saturating_sub(least).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    #[test]
    fn what_passes_is_tried_after_growing_pauses_up_to_a_cap() {
        let mut schedule = Schedule::new(INTERVAL);
        let away = Failure::Unreachable(String::new());
        let pauses: Vec<u64> = (0..6).map(|_| schedule.failed(&away, 1.0).as_secs()).collect();
        assert_eq!(pauses, [15, 30, 60, 120, 120, 120]);
        assert_eq!(schedule.failed(&away, 0.0), SHORTEST);
        assert_eq!(schedule.succeeded(0.0), INTERVAL);
        assert!(schedule.succeeded(0.999) > Duration::from_secs(13));
        assert_eq!(schedule.failed(&away, 1.0), INTERVAL);
    }

    #[test]
    fn what_was_refused_goes_to_the_slow_pace_at_once() {
        let mut schedule = Schedule::new(INTERVAL);
        let refused = Failure::Rejected(String::new());
        assert_eq!(schedule.failed(&refused, 0.0), Duration::from_secs(60));
        assert_eq!(schedule.failed(&refused, 1.0), Duration::from_secs(120));
    }

    #[test]
    fn a_long_interval_is_never_shortened_and_a_short_one_never_stretched_far() {
        let away = Failure::Timeout(String::new());
        let mut long = Schedule::new(Duration::from_secs(600));
        assert_eq!(long.failed(&away, 1.0), Duration::from_secs(600));
        let mut short = Schedule::new(Duration::from_millis(100));
        (0..20).for_each(|_| assert!(short.failed(&away, 1.0) <= Duration::from_millis(800)));
        assert_eq!(short.failed(&away, 0.0), Duration::from_millis(100));
    }
}

//! The log of refused requests: the first of a kind in each second in full, the others as a number. An attack must not
//! fill a disk.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::refusal::Refusal;
use super::signature::Disbelief;
use crate::event::Timestamp;
use crate::metrics::own::Rejection;

/// One line per reason and second.
#[derive(Debug, Default)]
pub struct ReasonLog {
    reasons: [Sample; Rejection::ALL.len()],
}

#[derive(Debug, Default)]
struct Sample {
    second: AtomicI64,
    suppressed: AtomicU64,
}

impl Sample {
    /// How many were suppressed since the last line; `None` to suppress this one too.
    fn take(&self, second: i64) -> Option<u64> {
        let last = self.second.load(Relaxed);
        if last == second || self.second.compare_exchange(last, second, Relaxed, Relaxed).is_err() {
            self.suppressed.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Relaxed))
    }
}

impl ReasonLog {
    /// Notes a refusal: its reason, the address, the skew of the clocks; never what the request held.
    pub fn note(&self, refusal: &Refusal, rejection: Rejection, client: IpAddr, now: Timestamp) {
        let Some(suppressed) = self.reasons[rejection as usize].take(now.as_millis().div_euclid(1000)) else {
            return;
        };
        let skew = match refusal {
            Refusal::Unbelieved(Disbelief::TimestampStale { skew } | Disbelief::TimestampFuture { skew }) => {
                Some(*skew)
            }
            _ => None,
        };
        let reason = rejection.as_str();
        tracing::warn!(reason, %client, skew_seconds = skew, suppressed, why = %refusal, "webhook refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_others_there_were() {
        let sample = Sample::default();
        let lines: Vec<_> = [1, 1, 1, 2, 2, 3].into_iter().map(|second| sample.take(second)).collect();
        assert_eq!(lines, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}

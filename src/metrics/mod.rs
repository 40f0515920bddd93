//! From deltas to series: the catalogue, labels, values, and how they are exposed.
//!
//! **Zero-hold.** Prometheus sees an increase only between two samples of a series, so a series that begins at 1 has no
//! first increase. A new counter or histogram is therefore shown as zeros until it has been shown so for
//! `push.zero_hold` without interruption, and only then as it is. That the hold is over is committed before the value is
//! shown: a restart in between must never show zeros again after a value.

pub mod catalogue;
pub mod encoding;
pub mod labels;
pub mod own;
mod recent;
pub mod series;
pub mod snapshot;
pub mod source;
pub mod value;

use prometheus::proto::MetricFamily;

/// What is exposed, to a gateway or to a scrape: a fresh and consistent copy of all totals at one moment.
pub trait Exposition: Send + Sync + 'static {
    /// A copy of the moment, cheap enough to make for every push.
    type Snapshot: Snapshot;

    /// Takes the copy. Blocks while series whose hold has ended are noted in the store: call it from a thread that may.
    fn snapshot(&self) -> Self::Snapshot;

    /// Takes the copy for the last push of a process that stops. It may show what a regular one still holds back, when
    /// nobody could show it later.
    fn final_snapshot(&self) -> Self::Snapshot {
        self.snapshot()
    }

    /// Says that the gateway accepted that snapshot (200 or 202), or that a scrape was served with it.
    fn exposed(&self, snapshot: &Self::Snapshot);

    /// Says that the gateway was away: what it accepted before may be gone from it, or could not be scraped.
    fn interrupted(&self) {}
}

/// One consistent copy of all totals.
pub trait Snapshot: Send + 'static {
    /// Hands out the families one by one, in the order of the catalogue, so that never all of them are in memory at once.
    fn families(&self) -> impl Iterator<Item = MetricFamily>;
}

//! From deltas to series: the catalogue, labels, values, and how they are exposed.

pub mod encoding;
pub mod own;

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
}

/// One consistent copy of all totals.
pub trait Snapshot: Send + 'static {
    /// Hands out the families one by one, in the order of the catalogue, so that never all of them are in memory at once.
    fn families(&self) -> impl Iterator<Item = MetricFamily>;
}

//! The rooms behind the door: what counts, what pushes, and how the two are opened and closed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use crate::admin::{OwnOnly, Scrape};
use crate::config::{Config, Problems};
use crate::event::Timestamp;
use crate::health::Health;
use crate::ledger::{Ledger, Total, writer};
use crate::metrics::catalogue::Catalogue;
use crate::metrics::labels::Labeler;
use crate::metrics::own::Own;
use crate::metrics::value::{Histogram, Value};
use crate::push::{Pusher, RestoredFamily, RestoredValue, TakeIn};
use crate::webhook::door::meta::META_URL;
use crate::webhook::payload::Extract;

/// What happens after the last delivery was answered: commit, final push. Returns by the deadline, whatever hangs.
pub type Ending = Box<dyn FnOnce(Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The rooms behind the door: what counts and what pushes.
pub struct Rooms {
    /// Counts.
    pub ledger: Ledger,
    /// What the configuration reads from bodies.
    pub extract: Extract,
    /// What `/metrics` of the admin listener serves.
    pub scrape: Arc<dyn Scrape>,
    /// Called last.
    pub ending: Ending,
    /// Where Buildkite publishes its addresses.
    pub meta_url: String,
}

impl Rooms {
    /// Opens the ledger, and starts pushing when there is a gateway. Call it within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the configuration contradicts the catalogue, or the state file cannot be had.
    pub fn open(config: &Config, own: &Arc<Own>, health: &Arc<Health>) -> anyhow::Result<Self> {
        let catalogue = Arc::new(Catalogue::new(&config.families, &config.labels).map_err(Problems)?);
        let labeler = Labeler::new(&config.labels).map_err(|problem| Problems(vec![problem]))?;
        let extract = Extract { extra: catalogue.extra() };
        let start = writer::start(config, catalogue, labeler, Arc::clone(own), Arc::clone(health));
        let start = start.context("state.path")?;
        tokio::spawn(start.ticker.run());
        let ledger = start.ledger;
        let (scrape, pusher): (Arc<dyn Scrape>, _) = if config.push.url.is_some() {
            let take_in = (!start.has_history).then(|| take_in(ledger.clone()));
            let exposition = Arc::new(ledger.clone());
            let pusher = Pusher::start(exposition, Arc::clone(own), Arc::clone(health), &config.push, take_in)?;
            (Arc::new(OwnOnly), Some(pusher))
        } else {
            (Arc::new(ledger.clone()), None)
        };
        let last = ledger.clone();
        let ending: Ending = Box::new(move |end| {
            Box::pin(async move {
                // What cannot be committed by then is not committed later either.
                if timeout_at(end.into(), last.stop()).await.is_err() {
                    tracing::error!("the ledger did not commit in time");
                }
                if let Some(pusher) = pusher {
                    // Says itself how it went.
                    pusher.stop(end).await;
                }
            })
        });
        Ok(Self { ledger, extract, scrape, ending, meta_url: META_URL.to_owned() })
    }
}

/// Adds what an earlier run left on the gateway to a ledger without history.
fn take_in(ledger: Ledger) -> TakeIn {
    Box::new(move |families| {
        let Some(families) = families else {
            tracing::warn!("the gateway holds no totals of an earlier run of this instance: they start at zero");
            return Ok(());
        };
        let totals: Vec<_> = families.into_iter().flat_map(totals).collect();
        tracing::info!(series = totals.len(), "totals of an earlier run taken in from the gateway");
        Handle::current().block_on(ledger.add(totals));
        Ok(())
    })
}

/// What is a total; gauges of the moment come back with the next events.
fn totals(family: RestoredFamily) -> Vec<Total> {
    let RestoredFamily { name, metrics, .. } = family;
    let value = |value| match value {
        RestoredValue::Counter(count) => Some(Value::Counter(whole(count))),
        RestoredValue::Gauge(seconds) if name.ends_with("_timestamp_seconds") => {
            Some(Value::Time(Some(Timestamp::from_millis((seconds * 1000.0).round() as i64))))
        }
        RestoredValue::Gauge(_) => None,
        RestoredValue::Histogram { sum, count, buckets } => {
            Some(Value::Histogram(Box::new(histogram(sum, count, &buckets))))
        }
    };
    let total = |metric: crate::push::RestoredMetric| {
        Some(Total { family: name.clone(), labels: metric.labels, value: value(metric.value)? })
    };
    metrics.into_iter().filter_map(total).collect()
}

/// From buckets that count everything below their bound to buckets that count their own.
fn histogram(sum: f64, count: u64, buckets: &[(f64, u64)]) -> Histogram {
    let mut histogram = Histogram::new(buckets.iter().map(|(bound, _)| *bound).collect());
    let mut below = 0;
    for (own, up_to) in histogram.counts.iter_mut().zip(buckets.iter().map(|(_, up_to)| *up_to).chain([count])) {
        *own = up_to.saturating_sub(below);
        below = up_to.max(below);
    }
    histogram.sum_millis = whole(sum * 1000.0);
    histogram
}

/// Negative and absurd numbers are not ours.
fn whole(number: f64) -> u64 {
    number.round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulative_buckets_become_buckets_of_their_own() {
        let histogram = histogram(12.002, 5, &[(1.0, 2), (5.0, 4)]);
        assert_eq!(*histogram.counts, [2, 2, 1]);
        assert_eq!((histogram.count(), histogram.sum_millis), (5, 12002));
    }
}

//! The rooms behind the door, wired: the ledger, the push loop, and what an earlier run left on the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use tokio::time::timeout_at;

use super::{Ending, Rooms};
use crate::admin::{OwnOnly, Scrape};
use crate::config::{Config, Problem};
use crate::event::Timestamp;
use crate::health::Health;
use crate::ledger::{Ledger, Total, writer};
use crate::metrics::catalogue::{Catalogue, FAMILIES, Kind};
use crate::metrics::labels::Labeler;
use crate::metrics::own::Own;
use crate::metrics::value::{Histogram, Value};
use crate::push::{FinalPush, Pusher, RestoredFamily, RestoredValue, TakeIn};
use crate::webhook::door::meta::META_URL;
use crate::webhook::payload::Extract;

impl Rooms {
    /// Opens the state file, takes up what it holds, and starts pushing. Call it within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the configuration contradicts the catalogue, or the state file cannot be had.
    pub fn open(config: &Config, own: &Arc<Own>, health: &Arc<Health>) -> anyhow::Result<Self> {
        let lines = |problems: Vec<Problem>| {
            anyhow!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        };
        let catalogue = Arc::new(Catalogue::new(&config.families, &config.labels).map_err(lines)?);
        let labeler = Labeler::new(&config.labels).map_err(|problem| lines(vec![problem]))?;
        let extract = Extract { extra: catalogue.extra() };
        let started = writer::start(config, catalogue, labeler, Arc::clone(own), Arc::clone(health))
            .map_err(|error| anyhow!("state.path: {error}"))?;
        // Ends with the ledger.
        tokio::spawn(started.ticker.run());
        let ledger = started.ledger;

        let mut scrape: Arc<dyn Scrape> = Arc::new(ledger.clone());
        let mut pusher = None;
        if config.push.url.is_some() {
            scrape = Arc::new(OwnOnly);
            let take_in = (!started.is_restored).then(|| take_in(ledger.clone()));
            let exposition = Arc::new(ledger.clone());
            let (own, health) = (Arc::clone(own), Arc::clone(health));
            pusher = Some(
                Pusher::start(exposition, own, health, &config.push, take_in).map_err(|why| anyhow!("push: {why}"))?,
            );
        }
        let full = ledger.clone();
        let last = ledger.clone();
        let is_kept = config.state.path.is_some();
        let ending: Ending = Box::new(move |deadline: Instant| {
            Box::pin(async move {
                if timeout_at(deadline.into(), last.stop()).await.is_err() {
                    tracing::error!("the store did not take the last commit in time");
                }
                if let Some(pusher) = pusher
                    && let FinalPush::Failed(why) = pusher.stop(deadline).await
                {
                    let then = if is_kept {
                        "the totals are pushed after the next start"
                    } else {
                        "what was counted since the last push is lost"
                    };
                    tracing::warn!(why, "the final push failed; {then}");
                }
            })
        });
        Ok(Self {
            ledger,
            queue_full: Box::new(move || full.is_full()),
            extract,
            scrape,
            ending,
            meta_url: META_URL.to_owned(),
        })
    }
}

/// Adds what an earlier run left on the gateway to what has been counted since.
fn take_in(ledger: Ledger) -> TakeIn {
    Box::new(move |families| {
        let totals: Vec<Total> = families.into_iter().flatten().flat_map(totals).collect();
        let series = totals.len();
        ledger.add(totals).map_err(|error| error.to_string())?;
        if series > 0 {
            tracing::info!(series, "totals of an earlier run are taken from the gateway");
        }
        Ok(())
    })
}

/// The totals of a family; none of what is not ours, or what only says what was in flight then.
fn totals(family: RestoredFamily) -> Vec<Total> {
    let Some(known) = FAMILIES.iter().find(|known| known.name == family.name) else { return Vec::new() };
    let total =
        |(labels, value): (BTreeMap<String, String>, Value)| Total { family: family.name.clone(), labels, value };
    family
        .metrics
        .into_iter()
        .filter_map(|metric| Some((metric.labels, value_of(known.kind, known.is_moment(), &metric.value)?)))
        .map(total)
        .collect()
}

fn value_of(kind: Kind, is_moment: bool, value: &RestoredValue) -> Option<Value> {
    match (kind, value) {
        (Kind::Counter, RestoredValue::Counter(count)) => Some(Value::Counter(*count as u64)),
        (Kind::Histogram(_), RestoredValue::Histogram { sum, count, buckets }) => {
            let mut below = 0;
            let cumulative = buckets.iter().map(|(_, at_most)| *at_most).chain([*count]);
            let counts = cumulative
                .map(|at_most| {
                    let alone = at_most.saturating_sub(below);
                    below = at_most;
                    alone
                })
                .collect();
            let bounds = buckets.iter().map(|(bound, _)| *bound).collect();
            Some(Value::Histogram(Box::new(Histogram { bounds, counts, sum_millis: millis(*sum) })))
        }
        (Kind::Gauge, RestoredValue::Gauge(seconds)) if is_moment => {
            Some(Value::Time(Some(Timestamp::from_millis(millis(*seconds) as i64))))
        }
        _ => None,
    }
}

/// Sums and moments are whole milliseconds, and a float that was made of them gives them back exactly.
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

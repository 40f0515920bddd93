//! A push loop with totals that a test sets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kitepush::config::{Environment, Loaded, Push};
use kitepush::health::{Health, Part};
use kitepush::metrics::own::Own;
use kitepush::metrics::{Exposition, Snapshot};
use kitepush::push::{FinalPush, Handle, Pusher, TakeIn};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::eventually;

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Families that a test sets, and whether they were accepted.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) families: Mutex<Vec<MetricFamily>>,
    pub(crate) exposed: Mutex<usize>,
}

pub(crate) struct Copied(Vec<MetricFamily>);

impl Snapshot for Copied {
    fn families(&self) -> impl Iterator<Item = MetricFamily> {
        self.0.iter().cloned()
    }
}

impl Exposition for Totals {
    type Snapshot = Copied;

    fn snapshot(&self) -> Copied {
        Copied(self.families.lock().unwrap().clone())
    }

    fn exposed(&self, _: &Copied) {
        *self.exposed.lock().unwrap() += 1;
    }
}

pub(crate) fn family(name: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::new();
    family.set_name(name.to_owned());
    family.set_help("Help with \\ and \n and \"quotes\".".to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(crate) fn labelled(labels: &[(&str, &str)]) -> Metric {
    let mut metric = Metric::new();
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::new();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    metric.set_label(labels.iter().map(pair).collect());
    metric
}

pub(crate) fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = Counter::new();
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

pub(crate) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = Gauge::new();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

pub(crate) fn histogram(labels: &[(&str, &str)], sum: f64, count: u64, buckets: &[(f64, u64)]) -> Metric {
    let mut metric = labelled(labels);
    let mut histogram = Histogram::new();
    histogram.set_sample_sum(sum);
    histogram.set_sample_count(count);
    let bucket = |(bound, below): &(f64, u64)| {
        let mut bucket = Bucket::new();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*below);
        bucket
    };
    histogram.set_bucket(buckets.iter().map(bucket).collect());
    metric.set_histogram(histogram);
    metric
}

/// `push` of a configuration; `yaml` goes below `push:`, each line indented by two.
pub(crate) fn config(url: &str, yaml: &str) -> Push {
    let text = format!("push:\n  url: {url}\n  instance: a\n  interval: 1s\n  timeout: 2s\n{yaml}");
    let mut push = Loaded::parse(Some(("test.yml", &text)), &Environment::default()).finish().unwrap().push;
    push.interval = Duration::from_millis(200);
    push
}

/// A running loop and what it shows.
pub(crate) struct Pushing {
    handle: Handle,
    pub(crate) totals: Arc<Totals>,
    pub(crate) health: Arc<Health>,
    pub(crate) own: Arc<Own>,
}

impl Pushing {
    pub(crate) fn start(config: &Push, families: Vec<MetricFamily>) -> Self {
        Self::start_with(config, families, None)
    }

    pub(crate) fn start_with(config: &Push, families: Vec<MetricFamily>, take_in: Option<TakeIn>) -> Self {
        let totals = Arc::new(Totals { families: Mutex::new(families), ..Totals::default() });
        let (own, health) = (Arc::new(Own::new("test", "test")), Arc::new(Health::default()));
        let handle = Pusher::start(totals.clone(), own.clone(), health.clone(), config, take_in).unwrap();
        Self { handle, totals, health, own }
    }

    /// Waits until the gateway accepted a push that was taken after now.
    pub(crate) fn wait_for_push(&self) {
        let before = *self.totals.exposed.lock().unwrap();
        eventually("two accepted pushes", SOON, || (*self.totals.exposed.lock().unwrap() >= before + 2).then_some(()));
    }

    /// Waits for trouble with the gateway, and says what it is.
    pub(crate) fn trouble(&self) -> String {
        eventually("trouble with the gateway", SOON, || self.health.troubles().remove(&Part::Gateway))
    }

    pub(crate) fn pushes(&self, outcome: &str) -> f64 {
        let families = self.own.gather();
        let family = families.iter().find(|family| family.name() == "kitepush_pushes_total").unwrap();
        let of = |metric: &&Metric| metric.get_label().iter().any(|label| label.value() == outcome);
        family.get_metric().iter().find(of).unwrap().get_counter().value()
    }

    pub(crate) fn stop(self, limit: Duration) -> FinalPush {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.handle.stop(Instant::now() + limit))
    }
}

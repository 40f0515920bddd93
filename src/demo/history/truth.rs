//! What kitepush must show after a set of deliveries, kept by a model of its own.
//!
//! The simulation knows what happened, so each delivery carries its effects: what the counting rules say that it
//! tells, each under the key that makes it count once. The truth of any selection of deliveries is the sum of their
//! distinct effects. Nothing here is shared with the ledger: two roads to one number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Delivery;
use crate::event::Timestamp;

/// Upper bounds of the waits, seconds.
const WAITS: &[u64] = &[1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
/// Upper bounds of everything else that lasts, seconds.
const DURATIONS: &[u64] = &[10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];

/// The families that the truth speaks of. Gauges of what is in flight are not among them: once everything of a
/// [`super::History`] has arrived, those are zero.
pub const FAMILIES: &[&str] = &[
    "buildkite_builds_scheduled_total",
    "buildkite_builds_started_total",
    "buildkite_builds_failing_total",
    "buildkite_builds_finished_total",
    "buildkite_builds_rebuilt_total",
    "buildkite_build_duration_seconds",
    "buildkite_build_wait_seconds",
    "buildkite_build_time_to_failing_seconds",
    "buildkite_build_blocked_seconds",
    "buildkite_build_last_finished_timestamp_seconds",
    "buildkite_jobs_scheduled_total",
    "buildkite_jobs_started_total",
    "buildkite_jobs_finished_total",
    "buildkite_jobs_activated_total",
    "buildkite_job_duration_seconds",
    "buildkite_job_wait_seconds",
    "buildkite_job_concurrency_wait_seconds",
    "buildkite_job_failures_total",
    "buildkite_job_retries_total",
    "buildkite_job_flaky_recoveries_total",
    "buildkite_job_promised_failures_total",
    "buildkite_agents_transitions_total",
    "buildkite_agents_registrations_blocked_total",
];

/// One series: a family and its labels. Empty labels are left out, as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The family's name.
    pub family: &'static str,
    /// The labels that are not empty.
    pub labels: BTreeMap<&'static str, String>,
}

impl Series {
    pub(super) fn new(family: &'static str, labels: &[(&'static str, &str)]) -> Self {
        let labels = labels.iter().filter(|(_, value)| !value.is_empty());
        Self { family, labels: labels.map(|&(name, value)| (name, value.to_owned())).collect() }
    }
}

/// The true content of one histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// How many observations.
    pub count: u64,
    /// Their sum in milliseconds, exact.
    pub sum_millis: i64,
    /// Upper bound in seconds → observations up to and including it: cumulative, as Prometheus counts.
    pub buckets: BTreeMap<u64, u64>,
}

impl Distribution {
    fn new(family: &str) -> Self {
        let bounds = if family.ends_with("_wait_seconds") { WAITS } else { DURATIONS };
        Self { count: 0, sum_millis: 0, buckets: bounds.iter().map(|&bound| (bound, 0)).collect() }
    }

    fn observe(&mut self, millis: i64) {
        self.count += 1;
        self.sum_millis += millis;
        for (&bound, count) in &mut self.buckets {
            *count += u64::from(millis <= i64::try_from(bound).unwrap_or(i64::MAX).saturating_mul(1000));
        }
    }
}

/// What one delivery tells about one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Effect {
    /// Whatever carries this key again says the same thing again.
    pub(super) once: String,
    pub(super) series: Series,
    pub(super) value: Value,
    /// A ledger without history that was born after this time leaves the effect to the entity's own start event.
    pub(super) needs_history_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    One,
    Observed { millis: i64 },
    Latest(Timestamp),
}

/// Expected totals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Counters.
    pub counters: BTreeMap<Series, u64>,
    /// Histograms.
    pub histograms: BTreeMap<Series, Distribution>,
    /// `buildkite_build_last_finished_timestamp_seconds`.
    pub latest: BTreeMap<Series, Timestamp>,
}

impl Truth {
    /// What a ledger must hold after any permutation and repetition of `deliveries`.
    ///
    /// `born` is when a ledger *without history* began, by its clock; `None` stands for a ledger that has been there
    /// since before the first build. As long as each build and job that started has its own start event among the
    /// deliveries, `born` makes no difference.
    pub fn of<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>, born: Option<Timestamp>) -> Self {
        let mut truth = Self::default();
        let mut seen = BTreeSet::new();
        for effect in deliveries.into_iter().flat_map(|delivery| &delivery.effects) {
            let before_birth = |since| born.is_some_and(|born| since < born);
            if effect.needs_history_since.is_some_and(before_birth) || !seen.insert(effect.once.as_str()) {
                continue;
            }
            truth.add(effect);
        }
        truth
    }

    fn add(&mut self, effect: &Effect) {
        let series = effect.series.clone();
        match effect.value {
            Value::One => *self.counters.entry(series).or_default() += 1,
            Value::Observed { millis } => {
                let empty = || Distribution::new(effect.series.family);
                self.histograms.entry(series).or_insert_with(empty).observe(millis);
            }
            Value::Latest(time) => {
                let latest = self.latest.entry(series).or_insert(time);
                *latest = time.max(*latest);
            }
        }
    }

    /// The same truth under a configuration that gives a label value another name.
    pub fn renamed(&self, label: &str, names: &BTreeMap<String, String>) -> Self {
        let rename = |series: &Series| {
            let mut series = series.clone();
            for (name, value) in &mut series.labels {
                if let Some(new) = names.get(value).filter(|_| *name == label) {
                    value.clone_from(new);
                }
            }
            series
        };
        Self {
            counters: self.counters.iter().map(|(series, value)| (rename(series), *value)).collect(),
            histograms: self.histograms.iter().map(|(series, value)| (rename(series), value.clone())).collect(),
            latest: self.latest.iter().map(|(series, value)| (rename(series), *value)).collect(),
        }
    }

    /// Every sample as Prometheus shows it, histograms taken apart, under the keys that [`sample_key`] makes.
    pub fn samples(&self) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        for (series, value) in &self.counters {
            samples.insert(key_of(series, "", None), *value as f64);
        }
        for (series, time) in &self.latest {
            samples.insert(key_of(series, "", None), time.as_seconds());
        }
        for (series, distribution) in &self.histograms {
            samples.insert(key_of(series, "_count", None), distribution.count as f64);
            samples.insert(key_of(series, "_sum", None), distribution.sum_millis as f64 / 1000.0);
            samples.insert(key_of(series, "_bucket", Some("+Inf")), distribution.count as f64);
            for (bound, count) in &distribution.buckets {
                samples.insert(key_of(series, "_bucket", Some(&bound.to_string())), *count as f64);
            }
        }
        samples
    }

    /// Where `seen` is not this truth. `seen` may hold zeros that the truth does not speak of (series created
    /// beforehand) and families that it does not know; nothing else.
    pub fn differences(&self, seen: &BTreeMap<String, f64>) -> Vec<Difference> {
        let expected = self.samples();
        let known = |key: &str| FAMILIES.iter().any(|family| belongs(key, family));
        let strangers = seen.iter().filter(|(key, _)| !expected.contains_key(*key) && known(key));
        expected
            .iter()
            .map(|(key, value)| (key, *value, seen.get(key).copied()))
            .chain(strangers.map(|(key, value)| (key, 0.0, Some(*value))))
            .filter(|(_, expected, seen)| (expected - seen.unwrap_or(0.0)).abs() > 1e-6)
            .map(|(sample, expected, seen)| Difference { sample: sample.clone(), expected, seen })
            .collect()
    }

    /// The sum of a counter over all its series that carry these labels.
    pub fn total(&self, family: &str, labels: &[(&str, &str)]) -> u64 {
        let carries = |series: &Series| {
            series.family == family
                && labels.iter().all(|(name, value)| series.labels.get(name).is_some_and(|v| v == value))
        };
        self.counters.iter().filter(|(series, _)| carries(series)).map(|(_, value)| value).sum()
    }
}

/// A sample that is not what it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its key, see [`sample_key`].
    pub sample: String,
    /// What the truth says.
    pub expected: f64,
    /// What was seen, if it was there.
    pub seen: Option<f64>,
}

/// One spelling for a sample, whatever it was read from: `name{label="value",…}`, labels sorted, empty ones left out.
/// The caller leaves out what its source adds (`job`, `instance`, `__name__`).
pub fn sample_key<'a>(name: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let labels: BTreeMap<_, _> = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut key = format!("{name}{{");
    for (index, (label, value)) in labels.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(key, "{comma}{label}={value:?}");
    }
    key.push('}');
    key
}

fn key_of(series: &Series, suffix: &str, le: Option<&str>) -> String {
    let labels = series.labels.iter().map(|(name, value)| (*name, value.as_str()));
    sample_key(&format!("{}{suffix}", series.family), labels.chain(le.map(|bound| ("le", bound))))
}

fn belongs(key: &str, family: &str) -> bool {
    let rest = key.strip_prefix(family).and_then(|rest| rest.split('{').next());
    rest.is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
}

//! The rules and the series without a server: what a body counts, and what a restart takes up again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kitepush::config::{Family, Labels};
use kitepush::demo::history::truth::sample_key;
use kitepush::event::{Event, Timestamp};
use kitepush::ledger::Entity;
use kitepush::ledger::fact::Fact;
use kitepush::ledger::in_flight::InFlight;
use kitepush::ledger::rules::{Book, Delta, Housekeeping, Settings};
use kitepush::ledger::store::{Batch, Loader, Sqlite, Store as _};
use kitepush::metrics::Snapshot as _;
use kitepush::metrics::catalogue::Catalogue;
use kitepush::metrics::labels::Labeler;
use kitepush::metrics::series::{Held, SeriesTable, StoredSeries};
use kitepush::webhook::payload::{self, Extract};
use prometheus::proto::{MetricFamily, MetricType};

pub(crate) const SETTINGS: Settings = Settings {
    retention: Duration::from_secs(7 * 24 * 3600),
    max_records: 100_000,
    in_flight_expiry: Duration::from_secs(24 * 3600),
};

/// A ledger in a test's own hands.
pub(crate) struct Counting {
    pub(crate) book: Book,
    pub(crate) table: SeriesTable,
    pub(crate) delta: Delta,
    extract: Extract,
    file: Option<(PathBuf, Sqlite)>,
    newest: Timestamp,
}

pub(crate) fn table(families: &BTreeMap<String, Family>, labels: &Labels) -> (SeriesTable, Extract) {
    let catalogue = Catalogue::new(families, labels).unwrap();
    let extract = Extract { extra: catalogue.extra() };
    let labeler = Labeler::new(labels).unwrap();
    (SeriesTable::new(Arc::new(catalogue), labeler, labels.limits.clone(), Duration::ZERO), extract)
}

impl Counting {
    /// With the default catalogue and no hold, born at that time.
    pub(crate) fn born(at: Timestamp) -> Self {
        Self::configured(at, &BTreeMap::new(), &Labels::default())
    }

    pub(crate) fn configured(at: Timestamp, families: &BTreeMap<String, Family>, labels: &Labels) -> Self {
        let (table, extract) = table(families, labels);
        Self { book: Book::new(SETTINGS, at), table, delta: Delta::default(), extract, file: None, newest: at }
    }

    /// The same with a state file.
    pub(crate) fn with_file(mut self, path: PathBuf, now: Timestamp) -> Self {
        let (mut store, opened) = Sqlite::open(&path, now).unwrap();
        self.book.born(opened.born_at);
        store.load(&[], &mut self).unwrap();
        self.table.loaded();
        self.file = Some((path, store));
        self
    }

    /// Forgets everything but the file.
    pub(crate) fn restarted(mut self) -> Self {
        let (path, store) = self.file.take().unwrap();
        drop(store);
        Self::born(self.newest).with_file(path, self.newest)
    }

    pub(crate) fn apply(&mut self, event: &Event, now: Timestamp) {
        self.newest = now;
        self.delta.clear();
        self.book.apply(event, now, &mut self.delta);
        self.table.record(event, &self.delta, now);
    }

    pub(crate) fn receive(&mut self, body: &str, now: Timestamp) {
        let event = payload::parse(body.as_bytes(), &self.extract).unwrap();
        self.apply(&event, now);
    }

    pub(crate) fn tick(&mut self, now: Timestamp) -> Housekeeping {
        self.newest = now;
        self.book.tick(now)
    }

    pub(crate) fn commit(&mut self) {
        let facts = self.book.take_facts();
        let in_flight = self.book.take_in_flight_changes();
        let (series, removed) = self.table.unsaved();
        let removed = removed.to_vec();
        let batch = Batch { facts: &facts, in_flight: &in_flight, series: &series, removed: &removed, restored: false };
        self.file.as_mut().unwrap().1.commit(&batch).unwrap();
        self.table.saved();
    }

    pub(crate) fn families(&mut self) -> Vec<MetricFamily> {
        let now = self.newest;
        self.table.set_in_flight(self.book.in_flight(), now);
        self.table.publish();
        self.table.snapshot(Held::AsZeros).families().collect()
    }

    /// Every sample, under the keys of the simulated truth.
    pub(crate) fn samples(&mut self) -> BTreeMap<String, f64> {
        samples(&self.families())
    }
}

impl Loader for Counting {
    fn begin(&mut self, rows: usize, newest: Timestamp) {
        self.book.reserve(rows);
        self.newest = newest;
    }

    fn fact(&mut self, fact: Fact) {
        self.book.restore(&fact, self.newest);
    }

    fn in_flight(&mut self, entity: Entity, entry: InFlight) {
        self.book.restore_in_flight(entity, entry);
    }

    fn series(&mut self, series: StoredSeries) -> bool {
        self.table.load(&series)
    }
}

pub(crate) fn samples(families: &[MetricFamily]) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for family in families {
        for metric in family.get_metric() {
            let mut add = |ending: &str, le: Option<String>, value: f64| {
                let name = format!("{}{ending}", family.name());
                let labels = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
                let le = le.as_deref().map(|le| ("le", le));
                samples.insert(sample_key(&name, labels.chain(le)), value);
            };
            match family.get_field_type() {
                MetricType::COUNTER => add("", None, metric.get_counter().value()),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    for bucket in histogram.get_bucket() {
                        add("_bucket", Some(bucket.upper_bound().to_string()), bucket.cumulative_count() as f64);
                    }
                    add("_bucket", Some("+Inf".to_owned()), histogram.get_sample_count() as f64);
                    add("_sum", None, histogram.get_sample_sum());
                    add("_count", None, histogram.get_sample_count() as f64);
                }
                _ => add("", None, metric.get_gauge().value()),
            }
        }
    }
    samples
}

//! A copy of all series at one moment, and the `MetricFamily`s that it is encoded from.

use std::sync::Arc;

use prometheus::proto;

use super::catalogue::{Catalogue, FamilyId, Kind};
use super::series::LabelValues;
use super::value::{Histogram, Value};

/// One series as it is shown.
#[derive(Debug)]
pub struct Shown {
    /// Its row's id.
    pub id: i64,
    /// Its label values.
    pub labels: LabelValues,
    /// Its value.
    pub value: Value,
    /// Whether it is in its hold.
    pub held: bool,
}

/// All series at one moment.
#[derive(Debug)]
pub struct Copy {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) families: Vec<(FamilyId, Vec<Shown>)>,
}

impl super::Snapshot for Copy {
    fn families(&self) -> impl Iterator<Item = proto::MetricFamily> {
        self.families.iter().filter(|(_, shown)| !shown.is_empty()).map(|(id, shown)| self.family(*id, shown))
    }
}

impl Copy {
    /// How many series.
    pub fn len(&self) -> usize {
        self.families.iter().map(|(_, shown)| shown.len()).sum()
    }

    /// How many exposition lines.
    pub fn samples(&self) -> usize {
        self.families.iter().map(|(id, shown)| shown.len() * self.catalogue.get(*id).samples_per_series()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.families.iter().all(|(_, shown)| shown.is_empty())
    }

    fn family(&self, id: FamilyId, shown: &[Shown]) -> proto::MetricFamily {
        let configured = self.catalogue.get(id);
        let mut family = proto::MetricFamily::default();
        family.set_name(configured.family.name.to_owned());
        family.set_help(configured.family.help.to_owned());
        family.set_field_type(match configured.family.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Histogram(_) => proto::MetricType::HISTOGRAM,
            Kind::Gauge => proto::MetricType::GAUGE,
        });
        let names = configured.labels.iter().map(|label| &*label.name);
        let metrics = shown.iter().map(|shown| {
            let own = names.clone().zip(shown.labels.iter().map(|value| &**value));
            let constant = self.catalogue.constant.iter().map(|(name, value)| (&**name, &**value));
            let labels = own.chain(constant).map(|(name, value)| {
                let mut pair = proto::LabelPair::default();
                pair.set_name(name.to_owned());
                pair.set_value(value.to_owned());
                pair
            });
            let mut metric = proto::Metric::from_label(labels.collect());
            match &shown.value {
                Value::Counter(count) => {
                    let mut counter = proto::Counter::default();
                    counter.set_value(*count as f64);
                    metric.set_counter(counter);
                }
                Value::Histogram(histogram) => metric.set_histogram(proto_histogram(histogram)),
                Value::Gauge(value) => metric.set_gauge(gauge(*value)),
                Value::Dated { millis, .. } => metric.set_gauge(gauge(*millis as f64 / 1000.0)),
                Value::Time(time) => metric.set_gauge(gauge(time.map_or(0.0, |time| time.as_seconds()))),
            }
            metric
        });
        family.set_metric(metrics.collect());
        family
    }
}

fn gauge(value: f64) -> proto::Gauge {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    gauge
}

fn proto_histogram(histogram: &Histogram) -> proto::Histogram {
    let mut cumulative = 0;
    let buckets = histogram.bounds.iter().zip(&histogram.counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_cumulative_count(cumulative);
        bucket.set_upper_bound(*bound);
        bucket
    });
    let mut made = proto::Histogram::default();
    made.set_bucket(buckets.collect());
    made.set_sample_count(histogram.count());
    made.set_sample_sum(histogram.sum_millis as f64 / 1000.0);
    made
}

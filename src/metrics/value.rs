//! The value of a series: whole numbers only, so that sums do not depend on the order of what was added.

use std::sync::Arc;

use crate::event::Timestamp;

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// How often.
    Counter(u64),
    /// How long, how often.
    Histogram(Box<Histogram>),
    /// How many now.
    Gauge(f64),
    /// What is known of one build, and as of when by the payload: a later telling replaces it.
    Dated {
        /// Thousandths.
        millis: i64,
        /// The newest time in the body that told it.
        as_of: Timestamp,
    },
    /// A moment; a series without one is not shown.
    Time(Option<Timestamp>),
}

/// A value as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// A counter's value, a histogram's count; a gauge or a moment in thousandths.
    pub count: i64,
    /// A histogram's sum.
    pub sum_millis: i64,
    /// A histogram's buckets, each alone, with the one beyond all bounds.
    pub buckets: Vec<u64>,
}

impl Value {
    /// For the store.
    pub fn numbers(&self) -> Numbers {
        let count = |count: u64| Numbers { count: count.try_into().unwrap_or(i64::MAX), ..Numbers::default() };
        match self {
            Self::Counter(value) => count(*value),
            Self::Histogram(histogram) => Numbers {
                sum_millis: histogram.sum_millis.try_into().unwrap_or(i64::MAX),
                buckets: histogram.counts.to_vec(),
                ..count(histogram.count())
            },
            Self::Gauge(value) => Numbers { count: (value * 1000.0).round() as i64, ..Numbers::default() },
            Self::Dated { millis, as_of } => {
                Numbers { count: *millis, sum_millis: as_of.as_millis(), ..Numbers::default() }
            }
            Self::Time(time) => Numbers { count: time.map_or(0, Timestamp::as_millis), ..Numbers::default() },
        }
    }

    /// Takes the numbers of the store. False when they do not fit this kind of value.
    pub fn set(&mut self, numbers: &Numbers) -> bool {
        let unsigned = |number: i64| number.max(0).unsigned_abs();
        match self {
            Self::Counter(count) => *count = unsigned(numbers.count),
            Self::Histogram(histogram) => {
                if numbers.buckets.len() != histogram.counts.len() {
                    return false;
                }
                histogram.counts.copy_from_slice(&numbers.buckets);
                histogram.sum_millis = unsigned(numbers.sum_millis);
            }
            Self::Gauge(value) => *value = numbers.count as f64 / 1000.0,
            Self::Dated { millis, as_of } => {
                *millis = numbers.count;
                *as_of = Timestamp::from_millis(numbers.sum_millis);
            }
            Self::Time(time) => *time = (numbers.count > 0).then(|| Timestamp::from_millis(numbers.count)),
        }
        true
    }

    /// Whether both are of one kind and one set of buckets.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Histogram(a), Self::Histogram(b)) => a.bounds == b.bounds,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Whether nothing has been counted.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Counter(count) => *count == 0,
            Self::Histogram(histogram) => histogram.count() == 0,
            Self::Gauge(value) => *value == 0.0,
            Self::Dated { .. } => false,
            Self::Time(time) => time.is_none(),
        }
    }

    /// Adds what another run counted; of moments the greatest counts.
    pub fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(count), Self::Counter(more)) => *count += more,
            (Self::Histogram(histogram), Self::Histogram(more)) => histogram.add(more),
            (Self::Time(time), Self::Time(other)) => *time = (*time).max(*other),
            _ => {}
        }
    }
}

/// Counts of durations by bucket, and their exact sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending, without +Inf.
    pub bounds: Arc<[f64]>,
    /// How many fell into each bucket alone (not cumulative), the last beyond all bounds.
    pub counts: Box<[u64]>,
    /// Milliseconds.
    pub sum_millis: u64,
}

impl Histogram {
    /// Empty.
    pub fn new(bounds: Arc<[f64]>) -> Self {
        let counts = vec![0; bounds.len() + 1].into();
        Self { bounds, counts, sum_millis: 0 }
    }

    /// Adds a duration.
    pub fn observe(&mut self, millis: u64) {
        let seconds = millis as f64 / 1000.0;
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum_millis = self.sum_millis.saturating_add(millis);
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds the durations of another one of the same bounds.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_millis = self.sum_millis.saturating_add(other.sum_millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::new([1.0, 5.0].into());
        for millis in [0, 1000, 1001, 5000, 5001] {
            histogram.observe(millis);
        }
        assert_eq!(*histogram.counts, [2, 2, 1]);
        assert_eq!((histogram.count(), histogram.sum_millis), (5, 12002));
    }
}

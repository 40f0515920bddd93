//! What the Pushgateway says that it holds: `GET /api/v1/metrics`, read as a stream, of which one group is kept.
//!
//! The answer holds every group of everybody who uses that gateway and cannot be filtered, so nothing is kept of the
//! others. Object keys come sorted by name, which puts families before the group's `labels`: whose they are is taken
//! from the labels of the first metric, which repeat the group's. The JSON is an outsider's and is read so: a shape
//! that is not expected is an error in the own group and nothing at all in another one.

use std::collections::BTreeMap;
use std::io::Read;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One family of the own group, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoredFamily {
    /// The name.
    pub name: String,
    /// The type.
    pub kind: Kind,
    /// Every series of it; each `value` is of the family's kind.
    pub metrics: Vec<RestoredMetric>,
}

/// The type of a family. Summaries and untyped families are not kitepush's and not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the word that it stands for")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoredMetric {
    /// The labels without those of the group.
    pub labels: BTreeMap<String, String>,
    /// What the gateway held, bit for bit.
    pub value: RestoredValue,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum RestoredValue {
    /// A counter's total.
    Counter(f64),
    /// A gauge.
    Gauge(f64),
    /// A histogram.
    Histogram {
        /// The sum of what was observed.
        sum: f64,
        /// How many were observed.
        count: u64,
        /// (upper bound, how many were at most that), ascending, without `+Inf`, which is `count`.
        buckets: Vec<(f64, u64)>,
    },
}

/// The answer is not what the Pushgateway's API says: a proxy's page, another server, or a cut connection.
#[derive(Debug, thiserror::Error)]
#[error("not the metrics API of a Pushgateway: {0}")]
pub struct GroupsError(#[from] serde_json::Error);

/// Finds the group whose labels are exactly `job` and `instance` in a whole answer.
///
/// `None`: there is no such group, or nothing was ever stored in it (a rejected push leaves an empty group behind).
///
/// # Errors
///
/// [`GroupsError`] when it is not JSON of that API, or when the own group is malformed.
pub fn parse_groups(body: &[u8], job: &str, instance: &str) -> Result<Option<Vec<RestoredFamily>>, GroupsError> {
    let own = read_groups(body, &Query { job, instance, wanted: Wanted::Families })?;
    Ok(own.filter(|group| group.push_time > 0.0).map(|group| group.families))
}

/// What to read of the answer.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub(super) job: &'a str,
    pub(super) instance: &'a str,
    pub(super) wanted: Wanted,
}

/// How much of the own group is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Families,
    PushTime,
}

/// The own group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) families: Vec<RestoredFamily>,
    /// When the gateway last stored a push to this group: seconds since the Unix epoch by the gateway's clock; 0: never.
    pub(super) push_time: f64,
}

/// As [`parse_groups`], from a stream.
pub(super) fn read_groups(reader: impl Read, query: &Query<'_>) -> Result<Option<Group>, GroupsError> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    let found = Shaped(Answer(query)).deserialize(&mut json)?;
    json.end()?;
    found.ok_or_else(|| serde_json::Error::custom("no \"data\" array").into())
}

/// How one place of the answer is read when it has the expected shape; any other shape gives the default.
trait Shape<'de>: Sized {
    type Out: Default;

    fn text(self, _text: &str) -> Self::Out {
        Self::Out::default()
    }

    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Out, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Out::default())
    }

    fn seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Out, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::Out::default())
    }
}

struct Shaped<S>(S);

impl<'de, S: Shape<'de>> DeserializeSeed<'de> for Shaped<S> {
    type Value = S::Out;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape<'de>> Visitor<'de> for Shaped<S> {
    type Value = S::Out;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<S::Out, E> {
        Ok(S::Out::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<S::Out, E> {
        Ok(S::Out::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<S::Out, E> {
        Ok(S::Out::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<S::Out, E> {
        Ok(S::Out::default())
    }

    fn visit_unit<E>(self) -> Result<S::Out, E> {
        Ok(S::Out::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<S::Out, E> {
        Ok(self.0.text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<S::Out, A::Error> {
        self.0.map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<S::Out, A::Error> {
        self.0.seq(seq)
    }
}

/// A string, or nothing.
struct Text;

impl Shape<'_> for Text {
    type Out = Option<String>;

    fn text(self, text: &str) -> Option<String> {
        Some(text.to_owned())
    }
}

/// An object of strings: labels, or a histogram's buckets. `None` when one of them is anything else.
struct Texts<K>(PhantomData<K>);

impl<'de, K: FromIterator<(String, String)> + Default> Shape<'de> for Texts<K> {
    type Out = Option<K>;

    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<K>, A::Error> {
        let mut pairs = Vec::new();
        let mut whole = true;
        while let Some(key) = map.next_key::<String>()? {
            match map.next_value_seed(Shaped(Text))? {
                Some(text) => pairs.push((key, text)),
                None => whole = false,
            }
        }
        Ok(whole.then(|| pairs.into_iter().collect()))
    }
}

/// The whole answer. The outer `Option`: whether there was a `data` array. The inner one: whether the own group was in it.
struct Answer<'q>(&'q Query<'q>);

impl<'de> Shape<'de> for Answer<'_> {
    type Out = Option<Option<Group>>;

    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Out, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" {
                found = map.next_value_seed(Shaped(Groups(self.0)))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct Groups<'q>(&'q Query<'q>);

impl<'de> Shape<'de> for Groups<'_> {
    type Out = Option<Option<Group>>;

    fn seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Out, A::Error> {
        let mut own = None;
        while let Some(group) = seq.next_element_seed(Shaped(OneGroup(self.0)))? {
            own = own.or(group);
        }
        Ok(Some(own))
    }
}

struct OneGroup<'q>(&'q Query<'q>);

impl<'de> Shape<'de> for OneGroup<'_> {
    type Out = Option<Group>;

    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Out, A::Error> {
        let query = self.0;
        let (mut own, mut other) = (false, false);
        let mut group = Group::default();
        let mut malformed = None;
        while let Some(key) = map.next_key::<String>()? {
            // A family may be called `labels` and shadow the group's; then it is not a group of ours.
            if key == "labels" {
                let labels = map.next_value_seed(Shaped(Texts::<BTreeMap<_, _>>(PhantomData)))?;
                own = labels.is_some_and(|labels| {
                    labels.len() == 2
                        && labels.get("job").is_some_and(|job| job == query.job)
                        && labels.get("instance").is_some_and(|instance| instance == query.instance)
                });
                other = !own;
            } else if other || key == "last_push_successful" || key == "push_failure_time_seconds" {
                map.next_value::<IgnoredAny>()?;
            } else if query.wanted == Wanted::Families || key == "push_time_seconds" {
                match map.next_value_seed(Shaped(Family { name: &key, query }))? {
                    Outcome::Foreign => other = true,
                    Outcome::Skipped => {}
                    Outcome::Malformed(what) => {
                        malformed.get_or_insert_with(|| format!("family {key:?}: {what}"));
                    }
                    Outcome::Family(family) if key == "push_time_seconds" => {
                        if let Some(RestoredMetric { value: RestoredValue::Gauge(time), .. }) = family.metrics.first() {
                            group.push_time = *time;
                        }
                    }
                    Outcome::Family(family) => group.families.push(family),
                }
                if other {
                    group.families = Vec::new();
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        match malformed {
            _ if !own => Ok(None),
            Some(what) => Err(A::Error::custom(what)),
            None => Ok(Some(group)),
        }
    }
}

/// What became of a family while its group's labels are not known yet.
enum Outcome {
    Family(RestoredFamily),
    /// Of another group.
    Foreign,
    /// Of a type that is not restored.
    Skipped,
    Malformed(&'static str),
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Malformed("not an object")
    }
}

struct Family<'q> {
    name: &'q str,
    query: &'q Query<'q>,
}

impl<'de> Shape<'de> for Family<'_> {
    type Out = Outcome;

    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outcome, A::Error> {
        let mut kind = None;
        let mut metrics = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "type" => kind = map.next_value_seed(Shaped(Text))?,
                "metrics" => match map.next_value_seed(Shaped(Metrics(self.query)))? {
                    RawMetrics::Own(raw) => metrics = Some(raw),
                    RawMetrics::Malformed => {}
                    RawMetrics::Foreign => {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(Outcome::Foreign);
                    }
                },
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let kind = match kind.as_deref() {
            Some("COUNTER") => Kind::Counter,
            Some("GAUGE") => Kind::Gauge,
            Some("HISTOGRAM") => Kind::Histogram,
            Some(_) => return Ok(Outcome::Skipped),
            None => return Ok(Outcome::Malformed("no \"type\"")),
        };
        let Some(metrics) = metrics else { return Ok(Outcome::Malformed("no \"metrics\"")) };
        let metrics: Option<Vec<_>> = metrics.into_iter().map(|raw| raw.restored(kind)).collect();
        Ok(match metrics {
            Some(metrics) => Outcome::Family(RestoredFamily { name: self.name.to_owned(), kind, metrics }),
            None => Outcome::Malformed("a metric has no value of its type"),
        })
    }
}

#[derive(Default)]
enum RawMetrics {
    Own(Vec<RawMetric>),
    Foreign,
    #[default]
    Malformed,
}

struct Metrics<'q>(&'q Query<'q>);

impl<'de> Shape<'de> for Metrics<'_> {
    type Out = RawMetrics;

    fn seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawMetrics, A::Error> {
        let mut metrics = Vec::new();
        while let Some(metric) = seq.next_element_seed(Shaped(OneMetric))? {
            let of = |label| metric.labels.get(label).map(String::as_str);
            if of("job") != Some(self.0.job) || of("instance") != Some(self.0.instance) {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(RawMetrics::Foreign);
            }
            metrics.push(metric);
        }
        Ok(RawMetrics::Own(metrics))
    }
}

/// A metric before its type is known.
#[derive(Default)]
struct RawMetric {
    labels: BTreeMap<String, String>,
    value: Option<String>,
    sum: Option<String>,
    count: Option<String>,
    buckets: Option<Vec<(String, String)>>,
}

struct OneMetric;

impl<'de> Shape<'de> for OneMetric {
    type Out = RawMetric;

    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMetric, A::Error> {
        let mut metric = RawMetric::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "labels" => metric.labels = map.next_value_seed(Shaped(Texts(PhantomData)))?.unwrap_or_default(),
                "value" => metric.value = map.next_value_seed(Shaped(Text))?,
                "sum" => metric.sum = map.next_value_seed(Shaped(Text))?,
                "count" => metric.count = map.next_value_seed(Shaped(Text))?,
                "buckets" => metric.buckets = map.next_value_seed(Shaped(Texts(PhantomData)))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(metric)
    }
}

impl RawMetric {
    fn restored(mut self, kind: Kind) -> Option<RestoredMetric> {
        self.labels.retain(|name, _| name != "job" && name != "instance");
        let number = |text: Option<String>| text?.parse::<f64>().ok();
        let value = match kind {
            Kind::Counter => RestoredValue::Counter(number(self.value)?),
            Kind::Gauge => RestoredValue::Gauge(number(self.value)?),
            Kind::Histogram => {
                let mut buckets = Vec::new();
                for (bound, below) in self.buckets.unwrap_or_default() {
                    let bound: f64 = bound.parse().ok()?;
                    if bound.is_nan() {
                        return None;
                    }
                    if bound != f64::INFINITY {
                        buckets.push((bound, integer(&below)?));
                    }
                }
                buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
                RestoredValue::Histogram { sum: number(self.sum)?, count: integer(&self.count?)?, buckets }
            }
        };
        Some(RestoredMetric { labels: self.labels, value })
    }
}

/// A count, which other versions of the gateway may write as a float.
fn integer(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let float: f64 = text.parse().ok()?;
        // The cast saturates, which is right for a count beyond what a u64 holds.
        (float >= 0.0 && float.fract() == 0.0).then_some(float as u64)
    })
}

#[cfg(test)]
mod tests;

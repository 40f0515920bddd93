//! What a gateway and a Prometheus hold, under the keys of the simulated truth.

use std::collections::BTreeMap;

use kitepush::demo::history::truth::sample_key;
use serde_json::Value;

use super::http;
use super::server::{Server, query};

/// Every sample that the gateway holds of an instance, histograms taken apart, without those of kitepush itself.
pub(crate) fn held(gateway: &Server, instance: &str) -> BTreeMap<String, f64> {
    let answer = http::get(&gateway.url("/api/v1/metrics")).unwrap().json();
    let groups = answer["data"].as_array().unwrap();
    let group = groups.iter().find(|group| group["labels"]["instance"] == instance);
    let families = group.and_then(Value::as_object).into_iter().flatten();
    let mut samples = BTreeMap::new();
    for (name, family) in families.filter(|(name, _)| name.starts_with("buildkite_")) {
        for metric in family["metrics"].as_array().unwrap() {
            let labels = labels(&metric["labels"]);
            let mut add = |ending: &str, le: Option<&str>, value: &Value| {
                let labels = labels.iter().copied().chain(le.map(|le| ("le", le)));
                samples.insert(sample_key(&format!("{name}{ending}"), labels), number(value));
            };
            match metric["buckets"].as_object() {
                None => add("", None, &metric["value"]),
                Some(buckets) => {
                    buckets.iter().for_each(|(le, count)| add("_bucket", Some(le), count));
                    add("_bucket", Some("+Inf"), &metric["count"]);
                    add("_count", None, &metric["count"]);
                    add("_sum", None, &metric["sum"]);
                }
            }
        }
    }
    samples
}

/// The same of what Prometheus answers to a query for instant vectors.
pub(crate) fn scraped(prometheus: &Server, promql: &str) -> BTreeMap<String, f64> {
    let series = query(prometheus, promql);
    series
        .iter()
        .map(|series| {
            let name = series["metric"]["__name__"].as_str().unwrap_or_default();
            (sample_key(name, labels(&series["metric"])), number(&series["value"][1]))
        })
        .collect()
}

fn labels(labels: &Value) -> Vec<(&str, &str)> {
    let own = |name: &str| !matches!(name, "job" | "instance" | "__name__");
    let labels = labels.as_object().unwrap().iter().filter(|(name, _)| own(name));
    labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

/// Both write numbers as strings, to lose nothing.
fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

/// What went back between two looks, of what never may: counters, and counts of histograms.
pub(crate) fn gone_back(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<String> {
    let never = |key: &str| ["_total{", "_count{", "_bucket{", "_sum{"].iter().any(|part| key.contains(part));
    let back = before.iter().filter(|(key, value)| never(key) && after.get(*key).unwrap_or(&0.0) < value);
    back.map(|(key, value)| format!("{key}: {value} → {:?}", after.get(key))).collect()
}

//! `state`, `labels`, `families`. Family names and label sources are checked against the catalogue, elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{DAY, Findings, MINUTE, SECOND};
use crate::config::scalar::duration;
use crate::config::{Config, Family};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// What a branch becomes that is none of those kept; a kept name must not look like one.
const BRANCH_CLASSES: [&str; 4] = ["pull_request", "tag", "merge_queue", "other"];
/// What becomes of a value that is over a limit.
const OVERFLOW: &str = "_overflow";
/// Bytes: room for every word of ours and of Buildkite's.
const SHORTEST_VALUE: usize = 24;

pub(super) fn state(config: &Config, found: &mut Findings) {
    let state = &config.state;
    if let Some(path) = &state.path {
        let text = path.to_string_lossy();
        if text.starts_with(":memory:") || text.starts_with("file:") {
            found.add("state.path", format!("must be the path of a file, is {text}; leave it out for memory only"));
        } else if text.ends_with('/') {
            found.add("state.path", format!("must be a file, not a directory, is {text}; add state.db"));
        }
    }
    found.duration("state.retention", state.retention, SECOND, YEAR);
    let tolerance = config.auth.tolerance;
    if state.retention >= SECOND && state.retention < 2 * tolerance {
        let bound = duration(2 * tolerance);
        let message = format!("must be at least twice auth.tolerance ({bound}), is {}", duration(state.retention));
        found.add("state.retention", format!("{message}; else a replayed delivery could count again"));
    }
    found.number("state.max_records", state.max_records, 1, 1_000_000_000);
    found.number("state.max_backlog", state.max_backlog, 0, 100_000_000);
    found.duration("state.in_flight_expiry", state.in_flight_expiry, SECOND, YEAR);
}

pub(super) fn labels(config: &Config, found: &mut Findings) {
    let labels = &config.labels;
    for (index, pattern) in labels.branches.keep.iter().enumerate() {
        let key = format!("labels.branches.keep[{index}]");
        let literal = pattern.trim_start_matches(['^', '(']).trim_end_matches([')', '$']);
        if pattern.is_empty() {
            found.add(key, "must not be empty");
        } else if BRANCH_CLASSES.contains(&literal) || literal == OVERFLOW {
            found.add(key, format!("must not be {literal}, a word of kitepush's own for a class of branches"));
        } else if let Err(error) = regex::Regex::new(&format!("^(?:{pattern})$")) {
            // The last line of the error says what is wrong, those before it draw where.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            found.add(key, format!("must be a regular expression, is {pattern}: {reason}"));
        }
    }
    let limits = &labels.limits;
    for (section, names) in [("clusters", &labels.clusters), ("cluster_queues", &labels.cluster_queues)] {
        for (id, name) in names {
            let key = format!("labels.{section}.{id}");
            if name == OVERFLOW {
                found.add(key, format!("must not be {OVERFLOW}, a word of kitepush's own"));
            } else {
                found.text(&key, name, limits.value_bytes);
            }
        }
    }
    constant(&labels.constant, limits.value_bytes, found);
    found.number("labels.recent_builds.per_pipeline", labels.recent_builds.per_pipeline, 0, 1000);
    found.number("labels.limits.samples", limits.samples, 1, 100_000_000);
    found.number("labels.limits.samples_per_family", limits.samples_per_family, 1, 100_000_000);
    found.number("labels.limits.values_per_label", limits.values_per_label, 1, 1_000_000);
    found.number("labels.limits.value_bytes", limits.value_bytes, SHORTEST_VALUE, 65_536);
    if !labels.series_ttl.is_zero() {
        let push = &config.push;
        let exposed = (push.zero_hold + push.interval + push.scrape_interval).max(MINUTE);
        if labels.series_ttl < exposed {
            let ttl = duration(labels.series_ttl);
            let message = format!("must be 0s (never) or at least {}, is {ttl}", duration(exposed));
            found.add("labels.series_ttl", format!("{message}; else a series is gone before Prometheus has seen it"));
        }
    }
}

fn constant(labels: &BTreeMap<String, String>, value_bytes: usize, found: &mut Findings) {
    for (name, value) in labels {
        let key = format!("labels.constant.{name}");
        let mut chars = name.chars();
        let valid = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            found.add(key, "must be a label name: letters, digits and _, not beginning with a digit");
        } else if matches!(name.as_str(), "le" | "quantile" | "job" | "instance") || name.starts_with("__") {
            found.add(key, "is a label name that Prometheus or the Pushgateway uses itself; take another one");
        } else {
            found.text(&key, value, value_bytes);
        }
    }
}

pub(super) fn families(config: &Config, found: &mut Findings) {
    for (name, family) in &config.families {
        let key = format!("families.{name}");
        list(&format!("{key}.labels"), &family.labels, found);
        list(&format!("{key}.drop_labels"), &family.drop_labels, found);
        if let Some(both) = family.labels.iter().find(|label| family.drop_labels.contains(label)) {
            found.add(format!("{key}.drop_labels"), format!("must not drop {both}, which {key}.labels adds"));
        }
        buckets(&format!("{key}.buckets"), family, found);
    }
}

fn list(key: &str, labels: &[String], found: &mut Findings) {
    for (index, label) in labels.iter().enumerate() {
        if label.is_empty() {
            found.add(format!("{key}[{index}]"), "must not be empty");
        } else if labels[..index].contains(label) {
            found.add(format!("{key}[{index}]"), format!("names {label} a second time"));
        }
    }
}

fn buckets(key: &str, family: &Family, found: &mut Findings) {
    let Some(buckets) = &family.buckets else { return };
    if buckets.is_empty() {
        found.add(key, "must have at least one upper bound; leave it out for those of the catalogue");
    } else if buckets.len() > 100 {
        found.add(key, format!("must have at most 100 upper bounds, has {}", buckets.len()));
    } else if let Some(bound) = buckets.iter().find(|bound| !bound.is_finite()) {
        found.add(key, format!("must be finite, has {bound}; +Inf is there by itself"));
    } else if buckets[0] <= 0.0 {
        found.add(key, format!("must be above 0 seconds, has {}", buckets[0]));
    } else if let Some(pair) = buckets.windows(2).find(|pair| pair[0] >= pair[1]) {
        found.add(key, format!("must increase strictly, has {} after {}", pair[1], pair[0]));
    }
}

pub(super) fn warnings(config: &Config, found: &mut Findings) {
    let (state, labels) = (&config.state, &config.labels);
    if state.retention < DAY {
        let retention = duration(state.retention);
        let message = format!("is {retention}: a delivery repeated later than that counts again; 168h is the default");
        found.add("state.retention", message);
    }
    if state.path.is_none() && config.push.url.is_none() {
        found.add("state.path", "is not set, and neither is push.url: a restart loses all totals");
    }
    if !labels.series_ttl.is_zero() && labels.series_ttl < DAY {
        let message = "a series that comes back starts at zero again, and totals over a longer time read too low";
        found.add("labels.series_ttl", format!("is {}: {message}", duration(labels.series_ttl)));
    }
    if labels.limits.samples > 1_000_000 {
        let message = "a push of that size takes seconds, and the gateway checks all of it each time";
        found.add("labels.limits.samples", format!("is {}: {message}", labels.limits.samples));
    }
}

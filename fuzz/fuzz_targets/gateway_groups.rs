//! What the gateway says that it holds: nothing panics, and what is taken of it is of the own group and sound.
#![no_main]

use kitepush::push::{RestoredValue, parse_groups};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(Some(families)) = parse_groups(body, "buildkite", "kitepush-0") else { return };
    for family in families {
        for metric in family.metrics {
            assert!(!metric.labels.contains_key("job") && !metric.labels.contains_key("instance"));
            if let RestoredValue::Histogram { buckets, .. } = metric.value {
                assert!(buckets.iter().all(|(bound, _)| !bound.is_nan() && *bound != f64::INFINITY));
                assert!(buckets.is_sorted_by(|(a, _), (b, _)| a.total_cmp(b).is_le()));
            }
        }
    }
});

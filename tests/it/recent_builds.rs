//! The last builds of each pipeline, by commit: any order of arrival, any restart.

use std::collections::BTreeMap;

use kitepush::config::Labels;
use kitepush::event::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use crate::support::counting::Counting;

fn labels(per_pipeline: usize) -> Labels {
    let mut labels = Labels::default();
    labels.recent_builds.per_pipeline = per_pipeline;
    labels
}

fn counting(labels: &Labels) -> Counting {
    Counting::configured(Timestamp::from_millis(0), &BTreeMap::new(), labels)
}

fn body(pipeline: &str, number: u64, event: &str, state: &str) -> String {
    let times = match event {
        "build.scheduled" => json!({"scheduled_at": "2026-01-01T00:00:00.000Z"}),
        "build.running" => {
            json!({"scheduled_at": "2026-01-01T00:00:00.000Z", "started_at": "2026-01-01T00:01:00.000Z"})
        }
        _ => json!({
            "scheduled_at": "2026-01-01T00:00:00.000Z", "started_at": "2026-01-01T00:01:00.000Z",
            "finished_at": format!("2026-01-01T01:{:02}:00.500Z", number % 60),
        }),
    };
    let mut build = json!({
        "id": format!("{pipeline}-{number}"), "number": number, "state": state, "branch": "main", "commit": format!("c{number}"),
    });
    build.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
    json!({
        "event": event, "organization": {"slug": "acme"}, "build": build,
        "pipeline": {"slug": pipeline, "default_branch": "main"},
    })
    .to_string()
}

/// Number, state and duration of what is shown of a pipeline.
fn shown(counting: &mut Counting, pipeline: &str) -> BTreeMap<u64, (String, Option<f64>)> {
    let families = counting.families();
    let mut shown = BTreeMap::new();
    for name in ["buildkite_recent_build_info", "buildkite_recent_build_duration_seconds"] {
        for metric in families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric()) {
            let label = |name: &str| metric.get_label().iter().find(|l| l.name() == name).unwrap().value().to_owned();
            if label("pipeline") != pipeline {
                continue;
            }
            let number = label("number").parse().unwrap();
            assert_eq!(label("commit"), format!("c{number}"));
            let build: &mut (String, Option<f64>) = shown.entry(number).or_default();
            build.0 = label("state");
            let value = metric.get_gauge().value();
            if name.ends_with("info") { assert_eq!(value, 1.0) } else { build.1 = Some(value) }
        }
    }
    shown
}

const EVENTS: [(&str, &str); 3] =
    [("build.scheduled", "scheduled"), ("build.running", "running"), ("build.finished", "failed")];

#[test]
fn the_highest_numbers_stay_and_a_new_state_replaces_the_old() {
    let mut counting = counting(&labels(2));
    for number in 1..=4 {
        for (event, state) in EVENTS {
            counting.receive(&body("web", number, event, state), Timestamp::from_millis(1));
            assert_eq!(shown(&mut counting, "web")[&number].0, state);
        }
    }
    counting.receive(&body("web", 5, "build.running", "running"), Timestamp::from_millis(1));
    counting.receive(&body("web", 1, "build.running", "running"), Timestamp::from_millis(1));
    let expected = BTreeMap::from([(4, ("failed".to_owned(), Some(3780.5))), (5, ("running".to_owned(), None))]);
    assert_eq!(shown(&mut counting, "web"), expected);
}

#[test]
fn there_is_no_overflow_of_builds_only_room_or_none() {
    let mut labels = labels(50);
    labels.limits.samples_per_family = 20;
    labels.limits.values_per_label = 2;
    let mut counting = counting(&labels);
    for pipeline in ["a", "b", "c"] {
        for number in 1..=30 {
            counting.receive(&body(pipeline, number, "build.finished", "passed"), Timestamp::from_millis(1));
        }
    }
    let families = counting.families();
    for family in families.iter().filter(|family| family.name().starts_with("buildkite_recent_")) {
        assert!((10..=20).contains(&family.get_metric().len()), "{}", family.get_metric().len());
        let pairs = family.get_metric().iter().flat_map(|metric| metric.get_label());
        assert!(pairs.clone().all(|pair| pair.value() != "_overflow"));
        assert!(pairs.clone().all(|pair| pair.value() != "c"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_a_restart_show_the_same(
        order in Just((0..24_usize).collect::<Vec<_>>()).prop_shuffle(), cut in 0_usize..24, lowered in 1_usize..4,
    ) {
        let deliveries: Vec<String> =
            (1..=8).flat_map(|number| EVENTS.map(|(event, state)| body("web", number, event, state))).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut first = counting(&labels(3)).with_file(path.clone(), now);
        for index in &order[..cut] {
            first.receive(&deliveries[*index], now);
        }
        first.commit();
        drop(first);
        let mut second = counting(&labels(3)).with_file(path.clone(), now);
        for index in &order[cut..] {
            second.receive(&deliveries[*index], now);
        }
        let expected = |keep: u64| -> BTreeMap<u64, (String, Option<f64>)> {
            (9 - keep..=8).map(|number| (number, ("failed".to_owned(), Some(3540.5 + 60.0 * number as f64)))).collect()
        };
        prop_assert_eq!(shown(&mut second, "web"), expected(3));
        second.commit();
        drop(second);
        // Fewer are kept from now on: the highest, and the others leave the store too.
        let mut third = counting(&labels(lowered)).with_file(path.clone(), now);
        prop_assert_eq!(shown(&mut third, "web"), expected(lowered as u64));
        third.commit();
        drop(third);
        let mut fourth = counting(&labels(3)).with_file(path, now);
        prop_assert_eq!(shown(&mut fourth, "web"), expected(lowered as u64));
    }
}

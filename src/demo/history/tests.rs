#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use super::truth::{FAMILIES, sample_key};
use super::*;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn day(seed: u64) -> History {
    History::generate(seed, Size::DAY, START)
}

#[test]
fn a_seed_makes_the_same_day_again() {
    let (one, two) = (day(7), day(7));
    assert_eq!(one.deliveries, two.deliveries);
    assert_ne!(one.truth, day(8).truth);
}

#[test]
fn a_day_lies_in_the_ten_hours_before_its_start() {
    for seed in 0..12 {
        let history = day(seed);
        let (first, last) = (history.deliveries.first().unwrap(), history.deliveries.last().unwrap());
        assert!(first.at.as_millis() >= START.as_millis() - 10 * HOUR, "seed {seed}");
        assert!(last.at < START, "seed {seed} ends {} ms after its start", last.at.millis_since(START));
        assert!(history.deliveries.is_sorted_by_key(|delivery| delivery.at));
    }
}

#[test]
fn bodies_are_those_of_buildkite() {
    let history = day(1);
    let mut job_sizes = Vec::new();
    for delivery in &history.deliveries {
        let body: serde_json::Value = serde_json::from_str(&delivery.body).unwrap();
        assert_eq!(body["event"], delivery.event);
        let family = delivery.event.split('.').next().unwrap();
        assert!(body[family].is_object(), "{}", delivery.event);
        if family == "job" || family == "build" {
            assert!(body["build"]["url"].as_str().unwrap().contains("/organizations/tidewater/pipelines/"));
            assert!(body["pipeline"]["slug"].is_string());
        }
        if delivery.event == "job.finished" && body["job"]["type"] == "script" {
            job_sizes.push(delivery.body.len());
        }
    }
    let mean = job_sizes.iter().sum::<usize>() / job_sizes.len();
    assert!((4_000..6_500).contains(&mean), "a job.finished has {mean} bytes on average");
}

#[test]
fn every_body_is_an_event_to_the_parser() {
    use crate::webhook::payload;
    for delivery in &day(4).deliveries {
        let event = payload::parse(delivery.body.as_bytes(), &payload::Extract::default()).unwrap();
        assert_eq!(event.name.as_str(), delivery.event);
        assert_eq!(&*event.organization, "tidewater", "{}", delivery.event);
    }
}

#[test]
fn what_two_deliveries_tell_under_one_key_is_one_thing() {
    for seed in 0..8 {
        let history = day(seed);
        let mut told: BTreeMap<&str, &Effect> = BTreeMap::new();
        for effect in history.deliveries.iter().flat_map(|delivery| &delivery.effects) {
            let before = told.entry(&effect.once).or_insert(effect);
            assert_eq!((&before.series, before.value), (&effect.series, effect.value), "seed {seed}: {}", effect.once);
        }
    }
}

#[test]
fn birth_during_the_day_changes_nothing_when_every_start_arrives() {
    for seed in 0..8 {
        let history = day(seed);
        assert_eq!(Truth::of(&history.deliveries, Some(START)), history.truth, "seed {seed}");
    }
}

#[test]
fn everything_happens_in_some_day() {
    let mut events = BTreeSet::new();
    let mut families = BTreeSet::new();
    let mut words = BTreeSet::new();
    for seed in 0..12 {
        let history = day(seed);
        events.extend(history.deliveries.iter().map(|delivery| delivery.event));
        families.extend(history.truth.counters.keys().map(|series| series.family));
        families.extend(history.truth.histograms.keys().map(|series| series.family));
        families.extend(history.truth.latest.keys().map(|series| series.family));
        let labels = history.truth.counters.keys().flat_map(|series| &series.labels);
        words.extend(labels.map(|(name, value)| format!("{name}={value}")));
    }
    for event in crate::event::EventName::ALL {
        let is_about_the_service = matches!(event.as_str(), "ping" | "unknown");
        assert!(is_about_the_service || events.contains(event.as_str()), "no {}", event.as_str());
    }
    for family in FAMILIES {
        assert!(families.contains(family), "no {family}");
    }
    for word in [
        "state=passed",
        "state=failed",
        "state=canceled",
        "state=blocked",
        "state=skipped",
        "state=unknown",
        "state=expired",
        "state=timed_out",
        "state=broken",
        "type=script",
        "type=trigger",
        "type=waiter",
        "soft_failed=true",
        "retry_type=automatic",
        "retry_type=manual",
        "exit_status=-1",
        "branch=main",
        "branch=trunk",
        "branch=pull_request",
        "branch=merge_queue",
        "branch=tag",
        "branch=other",
        "queue=default",
    ] {
        assert!(words.contains(word), "no {word}");
    }
}

#[test]
fn the_truth_of_a_part_is_that_of_its_deliveries() {
    let history = day(3);
    let part = || history.deliveries.iter().filter(|delivery| delivery.event != "job.started");
    let truth = Truth::of(part(), None);
    assert_eq!(truth.total("buildkite_jobs_started_total", &[]), 0);
    let waits = |truth: &Truth| -> u64 {
        let of_family = truth.histograms.iter().filter(|(series, _)| series.family == "buildkite_job_wait_seconds");
        of_family.map(|(_, distribution)| distribution.count).sum()
    };
    assert_eq!(waits(&truth), waits(&history.truth), "a lost start does not lose the wait");
    assert_eq!(waits(&Truth::of(part(), Some(START))), 0, "but a ledger without history leaves it to the start");
}

#[test]
fn a_disorder_brings_everything_and_some_of_it_twice() {
    let history = day(5);
    let order = history.disorder(5);
    let distinct: BTreeSet<usize> = order.iter().copied().collect();
    assert_eq!(distinct.len(), history.deliveries.len());
    assert!(order.len() > history.deliveries.len() + history.deliveries.len() / 20);
    assert!(!order.is_sorted());
    assert_eq!(order, history.disorder(5));
    let shuffled = order.iter().map(|&index| &history.deliveries[index]);
    assert_eq!(Truth::of(shuffled, None), history.truth);
}

#[test]
fn a_wrong_number_and_a_stranger_are_differences_and_a_zero_is_not() {
    let truth = day(2).truth;
    let mut seen = truth.samples();
    assert_eq!(truth.differences(&seen), []);
    let finished = |pipeline| sample_key("buildkite_builds_finished_total", [("pipeline", pipeline), ("state", "")]);
    assert_eq!(finished("p"), "buildkite_builds_finished_total{pipeline=\"p\"}");
    seen.insert(finished("created-beforehand"), 0.0);
    seen.insert("kitepush_samples{}".to_owned(), 12.0);
    assert_eq!(truth.differences(&seen), []);
    seen.insert(finished("invented"), 1.0);
    let (lost, value) = seen.iter().find(|(key, value)| key.contains("_total") && **value > 0.0).unwrap();
    let (lost, value) = (lost.clone(), *value);
    seen.remove(&lost);
    let differences = truth.differences(&seen);
    assert_eq!(differences.len(), 2);
    assert!(differences.iter().any(|d| d.sample == lost && d.expected == value && d.seen.is_none()));
}

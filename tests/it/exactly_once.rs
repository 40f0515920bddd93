//! The promise of the numbers, held against an independent account of simulated CI days: any order, any repetition,
//! a restart anywhere, lost deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kitepush::demo::history::truth::Truth;
use kitepush::demo::history::{History, Size};
use kitepush::event::{Event, Subject, Timestamp};
use kitepush::webhook::payload::{self, Extract};
use proptest::prelude::*;

use crate::support::counting::Counting;

const END: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// The deliveries arrive at one a millisecond from here on.
const ARRIVALS: i64 = 1_790_000_000_000;

fn after(millis: usize) -> Timestamp {
    Timestamp::from_millis(ARRIVALS + millis as i64)
}

/// A ledger that has been there since before the first build.
fn old() -> Counting {
    Counting::born(Timestamp::from_millis(0))
}

fn assert_true(truth: &Truth, seen: &BTreeMap<String, f64>) {
    let differences = truth.differences(seen);
    assert!(differences.is_empty(), "{} differences, the first: {:#?}", differences.len(), differences.first());
}

fn assert_nothing_in_flight(counting: &mut Counting) {
    for (sample, value) in counting.samples() {
        let is_gauge = ["_running{", "_waiting{", "_blocked{"].iter().any(|part| sample.contains(part));
        assert!(!is_gauge || value == 0.0, "{sample} {value}");
        assert!(!sample.contains("oldest_waiting"), "{sample} {value}");
    }
    let left: Vec<_> = counting.book.in_flight().iter().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_day_in_order_counts_as_its_own_account_says() {
    for seed in 0..6 {
        let history = History::generate(seed, Size::DAY, END);
        let mut counting = old();
        for (at, delivery) in history.deliveries.iter().enumerate() {
            counting.receive(&delivery.body, after(at));
        }
        assert_true(&history.truth, &counting.samples());
        assert_nothing_in_flight(&mut counting);
        let late = after(Duration::from_secs(3600).as_millis() as usize);
        assert_eq!(counting.tick(late).missing, [""; 0], "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_any_repetition_count_the_same(seed in 0_u64..1000, size in 1_usize..8, order in any::<u64>()) {
        let history = History::generate(seed, Size::builds(size), END);
        let mut in_order = old();
        for (at, delivery) in history.deliveries.iter().enumerate() {
            in_order.receive(&delivery.body, after(at));
        }
        let expected = in_order.samples();
        let mut shuffled = old();
        let mut arrivals: Vec<usize> = (0..history.deliveries.len()).flat_map(|at| [at, at, at]).collect();
        shuffle(&mut arrivals, order);
        arrivals.truncate(arrivals.len() * 2 / 3);
        // Everything at least once.
        let missing: Vec<usize> = (0..history.deliveries.len()).filter(|at| !arrivals.contains(at)).collect();
        arrivals.extend(missing);
        for (at, index) in arrivals.iter().enumerate() {
            shuffled.receive(&history.deliveries[*index].body, after(at));
        }
        let seen = shuffled.samples();
        // The order decides which series exist beforehand as zeros, and nothing else.
        for key in expected.keys().chain(seen.keys()) {
            let (a, b) = (expected.get(key).unwrap_or(&0.0), seen.get(key).unwrap_or(&0.0));
            prop_assert!((a - b).abs() < 1e-9, "{key}: {a} in order, {b} shuffled");
        }
        assert_true(&history.truth, &seen);
        assert_nothing_in_flight(&mut shuffled);
        let late = after(Duration::from_secs(3600).as_millis() as usize);
        prop_assert_eq!(shuffled.tick(late).missing.len(), 0);
    }

    #[test]
    fn lost_deliveries_change_nothing_else_and_lost_starts_are_missed(
        seed in 0_u64..1000, size in 1_usize..8, order in any::<u64>(), lost_percent in 1_u64..40,
    ) {
        let history = History::generate(seed, Size::builds(size), END);
        let mut dice = order;
        let arrived: Vec<_> = history.deliveries.iter().filter(|_| next(&mut dice) % 100 >= lost_percent).collect();
        let expected = Truth::of(arrived.iter().copied(), None);
        let mut counting = old();
        let mut indices: Vec<usize> = (0..arrived.len()).collect();
        shuffle(&mut indices, order);
        for (at, index) in indices.iter().enumerate() {
            counting.receive(&arrived[*index].body, after(at));
        }
        assert_true(&expected, &counting.samples());
        let late = after(Duration::from_secs(3600).as_millis() as usize);
        let missed: BTreeMap<&str, usize> = counting.tick(late).missing.into_iter().fold(BTreeMap::new(), |mut sum, event| {
            *sum.entry(event).or_default() += 1;
            sum
        });
        let events = arrived.iter().map(|delivery| payload::parse(delivery.body.as_bytes(), &Extract::default()).unwrap());
        prop_assert_eq!(missed, lost_starts(&events.collect::<Vec<_>>()));
        prop_assert_eq!(counting.tick(after(7_200_000)).missing.len(), 0);
    }

    #[test]
    fn a_restart_anywhere_changes_no_total(
        seed in 0_u64..1000, size in 1_usize..6, order in any::<u64>(), cuts in prop::collection::vec(0.0..1.0, 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let history = History::generate(seed, Size::builds(size), END);
        let mut arrivals = history.disorder(order);
        shuffle(&mut arrivals, order);
        let cuts: BTreeSet<usize> = cuts.iter().map(|cut| (cut * arrivals.len() as f64) as usize).collect();
        let mut counting = old().with_file(folder.path().join("state.db"), Timestamp::from_millis(0));
        for (at, index) in arrivals.iter().enumerate() {
            counting.receive(&history.deliveries[*index].body, after(at));
            if cuts.contains(&at) {
                counting.commit();
                counting = counting.restarted();
            }
        }
        assert_true(&history.truth, &counting.samples());
        assert_nothing_in_flight(&mut counting);
    }
}

/// What must be missed, read off the bodies: ends with a start time whose own start event did not arrive.
fn lost_starts(events: &[Event]) -> BTreeMap<&'static str, usize> {
    let (mut build_starts, mut build_ends) = (BTreeSet::new(), BTreeSet::new());
    let (mut job_starts, mut job_ends) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        match (&event.subject, event.name.as_str()) {
            (Subject::Build(build), "build.running") => {
                build_starts.insert((build.id.to_string(), build.started_at));
            }
            (Subject::Build(build), "build.finished") if build.started_at.is_some() => {
                build_ends.insert((build.id.to_string(), build.started_at));
            }
            (Subject::Job(job, _), "job.started") => {
                job_starts.insert(job.id.to_string());
            }
            (Subject::Job(job, _), "job.finished") if job.started_at.is_some() && job.kind.as_str() == "script" => {
                job_ends.insert(job.id.to_string());
            }
            _ => {}
        }
    }
    let counts = [
        ("build.running", build_ends.difference(&build_starts).count()),
        ("job.started", job_ends.difference(&job_starts).count()),
    ];
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// SplitMix64: an order that a failing case can name by one number.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for at in (1..items.len()).rev() {
        items.swap(at, (next(&mut state) % (at as u64 + 1)) as usize);
    }
}

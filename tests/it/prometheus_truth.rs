//! What a real Prometheus stored, sample by sample, against what happened: its increases are the events, although most
//! series have one event only and kitepush is killed again and again.

use std::collections::BTreeMap;

use kitepush::demo::history::truth::sample_key;

use crate::support::builds::{build_finished, finished_key, key};
use crate::support::eventually;
use crate::support::holding::{held, scraped};
use crate::support::kitepush::{LIMIT, Setup};
use crate::support::sender::Sender;
use crate::support::server::{Server, prometheus, pushgateway, query};

/// Pipelines with one event, with three, with ten.
const PIPELINES: [(usize, usize); 3] = [(240, 1), (20, 3), (10, 10)];

/// When kitepush is killed, wave by wave.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// Before anybody has seen the new series.
    AfterTheAnswers,
    /// The gateway shows the new series.
    Exposed,
    /// The gateway shows the new series as they are.
    Released,
}

const WAVES: [Moment; 6] = [
    Moment::Exposed,
    Moment::AfterTheAnswers,
    Moment::Exposed,
    Moment::Released,
    Moment::Exposed,
    Moment::AfterTheAnswers,
];

#[test]
fn with_zero_hold_prometheus_sees_every_event_although_kitepush_is_killed_in_the_middle_of_holds() {
    let seen = seen_by_prometheus("4s");
    assert!(seen.kills_in_hold >= 3, "{} kills in the middle of a hold", seen.kills_in_hold);
    assert_eq!(seen.resets, [""; 0], "values that went back");
    assert_eq!(seen.lost, [""; 0], "series whose increase is not the truth");
}

#[test]
fn without_zero_hold_it_misses_most_events_that_are_alone_so_that_the_test_above_can_fail() {
    let seen = seen_by_prometheus("0s");
    let alone = seen.lost.iter().filter(|key| key.contains("-of-1-")).count();
    assert!(alone * 100 >= PIPELINES[0].0 * 60, "only {alone} of {} are missed", PIPELINES[0].0);
}

struct Seen {
    lost: Vec<String>,
    resets: Vec<String>,
    kills_in_hold: usize,
}

fn seen_by_prometheus(zero_hold: &str) -> Seen {
    // Wave → bodies; pipeline → how many events it has.
    let mut waves = vec![Vec::new(); WAVES.len()];
    let mut truth = BTreeMap::new();
    for (pipelines, events) in PIPELINES {
        for at in 0..pipelines {
            let pipeline = format!("one-of-{events}-{at}");
            for event in 0..events {
                waves[(at + event) % WAVES.len()].push((pipeline.clone(), build_finished(&pipeline, event)));
            }
            truth.insert(pipeline, events as f64);
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let gateway = pushgateway();
    let prometheus = prometheus(&[gateway.address]);
    let setup = Setup::pushing_to(gateway.address).with_state(&folder.path().join("state.db"));
    let setup = setup.with("push.zero_hold", zero_hold);
    let mut kitepush = setup.start();
    let mut kills_in_hold = 0;
    for (moment, wave) in WAVES.into_iter().zip(&waves) {
        let sender = Sender::default();
        sender.aim(kitepush.webhook);
        sender.send(&wave.iter().map(|(_, body)| body.as_str()).collect::<Vec<_>>());
        let newest = finished_key(&wave[0].0);
        if moment != Moment::AfterTheAnswers {
            let shown = eventually("the new series on the gateway", LIMIT, || {
                let value = held(&gateway, "a").get(&newest).copied()?;
                (moment == Moment::Exposed || value > 0.0).then_some(value)
            });
            kills_in_hold += usize::from(shown == 0.0);
        }
        kitepush.kill();
        kitepush = setup.start();
    }

    let is_whole = |samples: &BTreeMap<String, f64>| {
        truth.iter().all(|(pipeline, events)| samples.get(&finished_key(pipeline)) == Some(events))
    };
    eventually("the truth on the gateway", LIMIT, || is_whole(&held(&gateway, "a")).then_some(()));
    eventually("the truth in Prometheus", LIMIT, || {
        is_whole(&scraped(&prometheus, "buildkite_builds_finished_total")).then_some(())
    });

    let mut seen = Seen { lost: Vec::new(), resets: Vec::new(), kills_in_hold };
    let families = [
        ("buildkite_builds_finished_total", "", 1.0),
        ("buildkite_build_duration_seconds_count", "", 1.0),
        ("buildkite_build_duration_seconds_bucket", "300", 1.0),
        ("buildkite_build_duration_seconds_sum", "", 256.909),
    ];
    for (name, le, each) in families {
        let increments = raw_increments(&prometheus, name, &mut seen.resets);
        for (pipeline, events) in &truth {
            let key = key(name, pipeline, le);
            let increase = increments.get(&key).copied().unwrap_or(0.0);
            if (increase - events * each).abs() > 1e-6 {
                seen.lost.push(format!("{key}: {increase} of {}", events * each));
            }
        }
    }
    // Of one family only, to count series and not samples.
    if zero_hold == "0s" {
        seen.lost.retain(|key| key.starts_with("buildkite_builds_finished_total"));
    }
    seen
}

/// The sum of what each series grew by from one stored sample to the next.
fn raw_increments(prometheus: &Server, family: &str, resets: &mut Vec<String>) -> BTreeMap<String, f64> {
    let mut increments = BTreeMap::new();
    for series in query(prometheus, &format!("{family}[1h]")) {
        let labels = series["metric"].as_object().unwrap().iter();
        let own = |name: &str| !matches!(name, "job" | "instance" | "__name__");
        let labels = labels.filter(|(name, _)| own(name)).map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        let key = sample_key(family, labels);
        let samples = series["values"].as_array().unwrap();
        let values: Vec<f64> = samples.iter().map(|sample| sample[1].as_str().unwrap().parse().unwrap()).collect();
        let steps = values.windows(2).map(|pair| pair[1] - pair[0]);
        if steps.clone().any(|step| step < 0.0) {
            resets.push(format!("{key}: {values:?}"));
        }
        increments.insert(key, steps.filter(|step| *step > 0.0).sum());
    }
    increments
}

//! Whatever a sender with a valid signature writes into whatever field: series, label values and memory stay within the
//! configured bounds, every event is counted somewhere, and everybody can read the outcome.

use std::collections::{BTreeMap, BTreeSet};

use kitepush::config::{Family, Labels, Limits};
use kitepush::event::Timestamp;
use kitepush::ledger::rules::Value as Counted;
use kitepush::metrics::encoding::{Compression, Encoded, Format, encode};
use kitepush::metrics::series::OVERFLOW;
use prometheus::proto::{MetricFamily, MetricType};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::counting::Counting;
use crate::support::server::{assert_promtool_is_content, prometheus, pushgateway, query};
use crate::support::{eventually, http, pushing::SOON};

const BORN: Timestamp = Timestamp::from_millis(0);

/// As small as they may be: every stream reaches them.
fn small() -> (BTreeMap<String, Family>, Labels) {
    let mut labels = Labels {
        limits: Limits { samples: 420, samples_per_family: 50, values_per_label: 5, value_bytes: 24 },
        ..Labels::default()
    };
    labels.recent_builds.per_pipeline = 3;
    let with = |labels: &[&str]| Family {
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..Family::default()
    };
    let families = BTreeMap::from([
        ("buildkite_builds_finished_total".to_owned(), with(&["creator", "meta_data.team", "source"])),
        ("buildkite_jobs_started_total".to_owned(), with(&["step_key", "env.TIER"])),
    ]);
    (families, labels)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{1,3}",
        2 => "\\PC{0,40}",
        2 => "(?s).{0,40}",
        1 => "[\\x00-\\x1f\\x7f\\u{80}-\\u{9f}\\u{2028}\\u{feff}]{1,6}",
        1 => "[🪁👩‍🚀é\u{10ffff}]{1,30}",
        1 => Just(String::new()),
        1 => Just("x".repeat(10_240)),
        1 => Just("é".repeat(5_120)),
        1 => Just(OVERFLOW.to_owned()),
        1 => prop::sample::select(vec!["a\"b", "a\\", "a\nb", "{le=\"1\"} 1 2", "# TYPE x", "main:main", "refs/heads/a b", "\0", "\r\n"])
            .prop_map(str::to_owned),
    ]
}

fn state() -> impl Strategy<Value = String> {
    prop_oneof![3 => prop::sample::select(vec!["passed", "failed", "running", "scheduled"]).prop_map(str::to_owned), 1 => text()]
}

prop_compose! {
    /// A body with such text wherever Buildkite sends text.
    fn body()(
        kind in 0_usize..12,
        texts in prop::collection::vec(text(), 18),
        states in [state(), state()],
        id in 0_u32..40,
        number in prop::option::of(0_u64..30),
        flags in any::<[bool; 4]>(),
        time in 0_u32..100,
    ) -> String {
        const EVENTS: [&str; 12] = [
            "build.scheduled", "build.running", "build.failing", "build.finished", "build.finished", "build.skipped",
            "job.scheduled", "job.started", "job.finished", "job.finished", "agent.connected", "agent.lost",
        ];
        let at = |seconds: u32| format!("2026-01-01T00:{:02}:{:02}.123Z", (time + seconds) / 60 % 60, (time + seconds) % 60);
        let t = |at: usize| texts[at].as_str();
        let pull_request = if flags[0] { json!({"id": t(0)}) } else { Value::Null };
        json!({
            "event": EVENTS[kind],
            "organization": {"slug": t(1)},
            "build": {
                "id": format!("build {id} {}", t(17)), "number": number, "state": states[0], "blocked": flags[1], "source": t(2),
                "branch": t(3), "commit": t(4), "tag": if flags[2] { json!(t(5)) } else { Value::Null },
                "pull_request": pull_request, "creator": {"name": t(6)},
                "created_at": at(0), "scheduled_at": at(1), "started_at": at(2), "finished_at": at(9), "failing_at": at(5),
                "meta_data": {"team": t(7)}, "env": {"TIER": t(8)}, "rebuilt_from": {"id": "x"},
            },
            "pipeline": {"slug": format!("p{}", t(9)), "default_branch": t(10)},
            "job": {
                "id": format!("job {id} {}", t(17)), "type": if flags[3] { "script" } else { t(11) }, "state": states[1],
                "step_key": t(12), "agent_query_rules": [format!("queue={}", t(13))], "cluster_id": t(14),
                "exit_status": id, "signal_reason": t(15), "retry_source": {"retry_type": t(16)},
                "scheduled_at": at(1), "runnable_at": at(1), "started_at": at(3), "finished_at": at(8),
                "concurrency_wait_time_ms": 1500,
            },
            "agent": {"id": format!("agent {id}"), "queue": t(13)},
        })
        .to_string()
    }
}

/// What the rules said must be counted, by family: increments and observations.
type Expected = BTreeMap<&'static str, u64>;

fn receive(counting: &mut Counting, bodies: &[String]) -> Expected {
    let mut expected = Expected::new();
    for (at, body) in bodies.iter().enumerate() {
        counting.receive(body, Timestamp::from_millis(1_800_000_000_000 + at as i64));
        for effect in &counting.delta.effects {
            if !matches!(effect.value, Counted::Greatest(_)) {
                *expected.entry(kitepush::metrics::catalogue::FAMILIES[effect.family as usize].name).or_default() += 1;
            }
        }
    }
    expected
}

fn counted(families: &[MetricFamily]) -> Expected {
    let mut counted = Expected::new();
    for family in families {
        let known = kitepush::metrics::catalogue::FAMILIES.iter().find(|known| known.name == family.name()).unwrap();
        let sum = family.get_metric().iter().map(|metric| match family.get_field_type() {
            MetricType::HISTOGRAM => metric.get_histogram().get_sample_count(),
            MetricType::COUNTER => metric.get_counter().value() as u64,
            _ => 0,
        });
        match sum.sum() {
            0 => {}
            sum => _ = counted.insert(known.name, sum),
        }
    }
    counted
}

fn lines(family: &MetricFamily) -> usize {
    let histogram = |buckets: usize| if buckets == 0 { 1 } else { buckets + 3 };
    family.get_metric().iter().map(|metric| histogram(metric.get_histogram().get_bucket().len())).sum()
}

fn assert_bounded(families: &[MetricFamily], limits: &Limits) {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut all = 0;
    for family in families {
        let lines = lines(family);
        assert!(lines <= limits.samples_per_family, "{}: {lines}", family.name());
        all += lines;
        for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            assert!(pair.value().len() <= limits.value_bytes, "{pair:?}");
            // Of those the number of builds is bounded.
            if !["commit", "build_id", "number"].contains(&pair.name()) && pair.value() != OVERFLOW {
                values.entry(pair.name()).or_default().insert(pair.value());
            }
        }
    }
    assert!(all <= limits.samples, "{all}");
    for (label, values) in values {
        assert!(values.len() <= limits.values_per_label, "{label}: {values:?}");
    }
}

fn encoded(families: Vec<MetricFamily>, format: Format) -> Encoded {
    let encoded = encode(families.into_iter(), format, Compression::None).unwrap();
    assert_eq!(encoded.left_out, []);
    encoded
}

fn hostile() -> Counting {
    let (families, labels) = small();
    Counting::configured(BORN, &families, &labels)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_in_any_field_stays_within_the_bounds_and_every_event_is_counted(
        bodies in prop::collection::vec(body(), 1..250),
    ) {
        let mut counting = hostile();
        let expected = receive(&mut counting, &bodies);
        let families = counting.families();
        let (_, labels) = small();
        assert_bounded(&families, &labels.limits);
        prop_assert_eq!(counted(&families), expected);
        for (_, entry) in counting.book.in_flight().iter() {
            let strings = [Some(&entry.organization), Some(&entry.pipeline), entry.queue.as_ref(), entry.cluster_id.as_ref()];
            prop_assert!(strings.into_iter().flatten().all(|text| text.len() <= 128));
        }
        for fact in counting.book.take_facts() {
            prop_assert!(fact.word.is_none_or(|word| word.len() <= 128));
        }
        // Text has a form only when there is something to say.
        let text = String::from_utf8(encoded(families, Format::Text).body).unwrap();
        if !text.is_empty() {
            assert_promtool_is_content(&text);
        }
        // The same again after a restart: what had a series keeps it.
        let before = counting.samples();
        let (stored, _) = counting.table.unsaved();
        let mut again = hostile();
        for series in &stored {
            prop_assert!(again.table.load(series), "{series:?}");
        }
        again.table.loaded();
        let gauge = |key: &String| ["_running{", "_waiting{", "_blocked{", "oldest_waiting"].iter().any(|part| key.contains(part));
        let totals = |samples: BTreeMap<String, f64>| -> BTreeMap<_, _> { samples.into_iter().filter(|(key, _)| !gauge(key)).collect() };
        prop_assert_eq!(totals(before), totals(again.samples()));
    }
}

/// Streams as the property makes them, the same each time.
fn streams(count: usize) -> Vec<Vec<String>> {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    (0..count).map(|_| prop::collection::vec(body(), 250).new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn a_real_gateway_takes_hostile_labels_in_both_formats_and_a_real_prometheus_reads_them() {
    let gateway = pushgateway();
    let prometheus = prometheus(&[gateway.address]);
    let streams = streams(6);
    assert!(streams.iter().flatten().any(|body| body.contains("\\u0000")));
    for (at, bodies) in streams.iter().enumerate() {
        let mut counting = hostile();
        receive(&mut counting, bodies);
        let families = counting.families();
        let samples: usize = families.iter().map(lines).sum();
        for format in [Format::Text, Format::Protobuf] {
            let encoded = encoded(families.clone(), format);
            let job = format!("hostile-{at}-{format:?}");
            let url = gateway.url(&format!("/metrics/job/{job}"));
            let answer = http::request("PUT", &url, &[("Content-Type", encoded.content_type)], &encoded.body).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            // Every line of it, and not a scrape that fails at the first odd one.
            eventually("the samples in Prometheus", SOON, || {
                let found = query(&prometheus, &format!("count({{job=\"{job}\", __name__=~\"buildkite_.*\"}})"));
                let count: usize = found.first()?["value"][1].as_str()?.parse().ok()?;
                (count == samples).then_some(())
            });
        }
    }
    assert_eq!(query(&prometheus, "min_over_time(up[5m])")[0]["value"][1], "1");
}

/// Opt-in labels give way first, then branch, queue, pipeline; state last.
#[test]
fn what_gives_way_first_is_what_matters_least() {
    let (_, mut labels) = small();
    labels.limits = Limits { samples: 100_000, samples_per_family: 100, values_per_label: 1_000_000, value_bytes: 24 };
    let families = BTreeMap::from([(
        "buildkite_jobs_finished_total".to_owned(),
        Family { labels: vec!["step_key".to_owned(), "branch".to_owned()], ..Family::default() },
    )]);
    labels.branches.keep = vec![".*".to_owned()];
    let mut counting = Counting::configured(BORN, &families, &labels);
    let mut seen = Vec::new();
    for at in 0..400 {
        let body = json!({
            "event": "job.finished",
            "organization": {"slug": "acme"},
            "build": {"id": format!("b{at}"), "state": "passed", "branch": format!("branch-{at}")},
            "pipeline": {"slug": format!("pipeline-{at}")},
            "job": {"id": format!("j{at}"), "type": "manual", "state": format!("state-{at}"), "step_key": format!("step-{at}"),
                "agent_query_rules": [format!("queue=queue-{at}")]},
        });
        counting.receive(&body.to_string(), Timestamp::from_millis(1_800_000_000_000 + at));
        let families = counting.families();
        let family = families.iter().find(|family| family.name() == "buildkite_jobs_finished_total").unwrap();
        let is_new =
            |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|l| l.value() == format!("state-{at}"));
        let over: Vec<String> = family.get_metric().iter().rev().find(is_new).map_or_else(
            || vec!["all".to_owned()],
            |metric| metric.get_label().iter().filter(|l| l.value() == OVERFLOW).map(|l| l.name().to_owned()).collect(),
        );
        if seen.last() != Some(&over) {
            seen.push(over);
        }
        assert!(lines(family) <= 100);
    }
    let names: Vec<Vec<&str>> = seen.iter().map(|over| over.iter().map(String::as_str).collect()).collect();
    let wanted: [&[&str]; 6] = [
        &[],
        &["step_key"],
        &["step_key", "branch"],
        &["queue", "buildkite_cluster", "step_key", "branch"],
        &["pipeline", "queue", "buildkite_cluster", "step_key", "branch"],
        &["organization", "pipeline", "buildkite_cluster", "queue", "step_key", "branch"],
    ];
    for (found, wanted) in names.iter().zip(wanted) {
        let sorted = |names: &[&str]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(sorted(found), sorted(wanted), "{names:?}");
    }
    assert_eq!(names.last().unwrap(), &["all"]);
}

/// Also when the limit has been lowered since.
#[test]
fn a_value_that_had_a_series_keeps_it_and_a_value_without_series_takes_no_room() {
    let finished = |pipeline: &str, at: i64| {
        json!({
            "event": "build.finished", "organization": {"slug": "acme"}, "pipeline": {"slug": pipeline, "default_branch": "main"},
            "build": {"id": format!("{pipeline} {at}"), "state": "passed", "branch": "main"},
        })
        .to_string()
    };
    let mut labels = Labels::default();
    let mut counting = Counting::configured(BORN, &BTreeMap::new(), &labels);
    for pipeline in ["a", "b", "c"] {
        counting.receive(&finished(pipeline, 0), Timestamp::from_millis(1));
    }
    let (stored, _) = counting.table.unsaved();
    labels.limits.values_per_label = 2;
    let mut counting = Counting::configured(BORN, &BTreeMap::new(), &labels);
    assert!(stored.iter().all(|series| counting.table.load(series)));
    counting.table.loaded();
    for pipeline in ["a", "b", "c", "d", "e"] {
        counting.receive(&finished(pipeline, 1), Timestamp::from_millis(2));
    }
    let finished_of = |counting: &mut Counting, pipeline: &str| {
        let key = format!("pipeline=\"{pipeline}\"");
        let samples = counting.samples();
        let own = samples
            .iter()
            .filter(|(sample, _)| sample.starts_with("buildkite_builds_finished_total") && sample.contains(&key));
        own.map(|(_, value)| *value).sum::<f64>()
    };
    let own = ["a", "b", "c", "d", "e", OVERFLOW].map(|pipeline| finished_of(&mut counting, pipeline));
    assert_eq!(own, [2.0, 2.0, 2.0, 0.0, 0.0, 2.0]);
    let overflows = counting.table.take_overflows();
    assert!(overflows.contains(&("buildkite_builds_finished_total", 2)), "{overflows:?}");

    // Everything untouched for a day goes, and new values have room again.
    let (_, labels) = small();
    let day = 24 * 3600 * 1000;
    let mut counting = Counting::configured(BORN, &BTreeMap::new(), &labels);
    for round in 0..3 {
        for at in 0..5 {
            counting.receive(&finished(&format!("pipeline-{round}-{at}"), 0), Timestamp::from_millis(round * 2 * day));
        }
        assert_eq!(finished_of(&mut counting, "pipeline-0-0"), if round == 0 { 1.0 } else { 0.0 });
        assert_eq!(
            counting.table.take_overflows().iter().filter(|(family, _)| *family == "buildkite_pipeline_info").count(),
            0
        );
        counting.table.saved();
        counting
            .table
            .expire(Timestamp::from_millis((round * 2 + 2) * day), std::time::Duration::from_millis(day as u64));
        assert_eq!(counting.table.samples(), 0);
    }
}

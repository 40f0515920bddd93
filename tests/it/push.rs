//! The push loop and a real Pushgateway.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kitepush::health::Part;
use kitepush::push::{FinalPush, Kind, RestoredFamily, RestoredMetric, RestoredValue, TakeIn};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use crate::support::pushing::{Pushing, SOON, config, counter, family, gauge, histogram};
use crate::support::server::{
    Ready, Server, assert_promtool_is_content, prometheus, pushgateway, pushgateway_again, query,
};
use crate::support::stub::{Reply, Stub};
use crate::support::{eventually, http};

const HOSTILE: &str = "a\"b\\c\nd{}=,#\t'\u{7f}\r 🪁 \u{202e}ü";

fn a_total(value: f64) -> Vec<MetricFamily> {
    vec![family("a_total", MetricType::COUNTER, vec![counter(&[("branch", HOSTILE)], value)])]
}

#[test]
fn both_formats_with_and_without_compression_reach_prometheus_with_hostile_labels() {
    let gateway = pushgateway();
    let prometheus = prometheus(&[gateway.address]);
    let mut running = Vec::new();
    for (at, format) in ["protobuf", "text"].into_iter().enumerate() {
        for compression in ["gzip", "none"] {
            let mut config = config(&gateway.url(""), &format!("  format: {format}\n  compression: {compression}\n"));
            config.job = "a/b 🪁".to_owned();
            config.instance = Some(format!("{format}/{compression}?{HOSTILE}"));
            let mut families = a_total(1.0 + at as f64);
            let buckets = [(0.1, 1), (1.0, 2), (1e6, 3)];
            families.push(family("h_seconds", MetricType::HISTOGRAM, vec![histogram(&[], 2.5, 4, &buckets)]));
            families.push(family("g", MetricType::GAUGE, vec![gauge(&[], -0.5), gauge(&[("a", "")], 1e-300)]));
            families.push(family("empty", MetricType::GAUGE, Vec::new()));
            running.push((config.instance.clone().unwrap(), Pushing::start(&config, families)));
        }
    }
    for (instance, pushing) in &running {
        pushing.wait_for_push();
        assert!(pushing.health.troubles().is_empty(), "{instance}: {:?}", pushing.health.troubles());
    }
    let exposition = http::get(&gateway.url("/metrics")).unwrap().text();
    assert_promtool_is_content(&exposition);
    assert!(exposition.contains("kitepush_pushes_total"), "{exposition}");
    let seen = eventually("four series in Prometheus", SOON, || {
        let seen = query(&prometheus, "a_total");
        (seen.len() == 4).then_some(seen)
    });
    for (instance, _) in &running {
        let series = seen.iter().find(|series| series["metric"]["instance"] == instance.as_str()).unwrap();
        assert_eq!(series["metric"]["branch"], HOSTILE);
        assert_eq!(series["metric"]["job"], "a/b 🪁");
        assert_eq!(series["value"][1], if instance.starts_with("text") { "2" } else { "1" });
    }
    let counts = query(&prometheus, "sum by (le) (h_seconds_bucket)");
    let counts: BTreeMap<_, _> = counts.iter().map(|s| (s["metric"]["le"].as_str().unwrap(), &s["value"][1])).collect();
    assert_eq!(
        format!("{counts:?}"),
        r#"{"+Inf": String("16"), "0.1": String("4"), "1": String("8"), "1e+06": String("12")}"#
    );
}

#[test]
fn a_gateway_below_a_path_that_does_not_check_takes_pushes_too() {
    let gateway = Server::start("prometheus-pushgateway", Ready::Path("/some/path/-/ready"), |address, _| {
        vec![
            format!("--web.listen-address={address}"),
            "--persistence.file=".to_owned(),
            "--push.disable-consistency-check".to_owned(),
            "--web.route-prefix=/some/path".to_owned(),
        ]
    });
    let mut config = config(&gateway.url("/some/path/"), "");
    config.instance = Some(String::new());
    let pushing = Pushing::start(&config, a_total(3.0));
    pushing.wait_for_push();
    let exposition = http::get(&gateway.url("/some/path/metrics")).unwrap().text();
    assert!(exposition.contains("instance=\"\",job=\"buildkite\"} 3\n"), "{exposition}");
}

#[test]
fn a_gateway_that_was_away_gets_everything_when_it_is_back() {
    let gateway = pushgateway();
    let address = gateway.address;
    let pushing = Pushing::start(&config(&gateway.url(""), ""), a_total(1.0));
    pushing.wait_for_push();
    drop(gateway);
    let trouble = pushing.trouble();
    assert!(trouble.contains("cannot connect") && trouble.contains(&address.to_string()), "{trouble}");
    *pushing.totals.families.lock().unwrap() = a_total(42.0);
    let failures = eventually("some failures", SOON, || Some(pushing.pushes("unreachable")).filter(|n| *n >= 3.0));
    let gateway = pushgateway_again(address);
    pushing.wait_for_push();
    assert!(pushing.health.troubles().is_empty());
    assert!(pushing.pushes("unreachable") < failures + 20.0);
    assert!(http::get(&gateway.url("/metrics")).unwrap().text().contains("job=\"buildkite\"} 42\n"));
}

#[test]
fn a_gateway_that_hangs_is_a_timeout_and_does_not_hold_up_a_stop() {
    let gateway = Stub::start(|_| Reply::Hang);
    let pushing = Pushing::start(&config(&gateway.url(), ""), a_total(1.0));
    let trouble = pushing.trouble();
    assert_eq!(trouble, format!("no answer from {} within 2s", gateway.address));
    assert!(pushing.pushes("timeout") >= 1.0);
    let began = Instant::now();
    let last = pushing.stop(Duration::from_millis(1500));
    assert!(matches!(last, FinalPush::Failed(_)), "{last:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_stop_makes_a_final_push_with_the_newest_totals() {
    let gateway = pushgateway();
    let mut config = config(&gateway.url(""), "  self_metrics: false\n");
    config.interval = Duration::from_secs(3600);
    let pushing = Pushing::start(&config, a_total(1.0));
    eventually("the first push", SOON, || (*pushing.totals.exposed.lock().unwrap() == 1).then_some(()));
    *pushing.totals.families.lock().unwrap() = a_total(2.0);
    assert_eq!(pushing.stop(Duration::from_secs(5)), FinalPush::Accepted);
    let exposition = http::get(&gateway.url("/metrics")).unwrap().text();
    assert!(exposition.contains("job=\"buildkite\"} 2\n"), "{exposition}");
    assert!(!exposition.contains("kitepush_"), "{exposition}");
}

#[test]
fn a_refused_push_is_reported_with_the_gateways_words_and_not_repeated_at_once() {
    let gateway = pushgateway();
    let other = "# TYPE a_total gauge\na_total 1\n";
    let put = http::request("PUT", &gateway.url("/metrics/job/other"), &[], other.as_bytes()).unwrap();
    assert_eq!(put.status, 200);
    let mut config = config(&gateway.url(""), "");
    config.interval = Duration::from_secs(1);
    let pushing = Pushing::start(&config, a_total(1.0));
    let trouble = pushing.trouble();
    assert!(trouble.starts_with("the gateway refused the push with 400: pushed metrics are invalid"), "{trouble}");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(pushing.pushes("rejected"), 1.0);
}

#[test]
fn a_redirect_is_not_followed_and_says_what_to_do() {
    let elsewhere = Stub::start(|_| Reply::status(200));
    let to = format!("{}/pushed", elsewhere.url());
    let gateway = Stub::start(move |_| Reply::Answer(308, vec![("Location", to.clone())], String::new()));
    let pushing = Pushing::start(&config(&gateway.url(), ""), a_total(1.0));
    let trouble = pushing.trouble();
    assert!(trouble.contains("308, a redirect to http://") && trouble.contains("push.url"), "{trouble}");
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn two_thousand_random_values_come_back_bit_by_bit() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut float = || loop {
        let float = f64::from_bits(random());
        if float.is_finite() {
            return float;
        }
    };
    let names: Vec<String> = (0..1000).map(|at| format!("{at} {HOSTILE}")).collect();
    let counters = names.iter().map(|name| counter(&[("x", name)], float().abs())).collect();
    let gauges = names.iter().map(|name| gauge(&[("x", name), ("y", "")], float())).collect();
    let mut bounds: Vec<f64> = (0..12).map(|_| float()).collect();
    bounds.sort_by(f64::total_cmp);
    let histograms = names.iter().map(|name| {
        let step = float().to_bits() >> 16;
        let buckets: Vec<_> = bounds.iter().zip(1..).map(|(bound, at)| (*bound, at * (step >> 4))).collect();
        histogram(&[("x", name)], float(), buckets[11].1 + 3, &buckets)
    });
    let families = vec![
        family("c_total", MetricType::COUNTER, counters),
        family("g", MetricType::GAUGE, gauges),
        family("h", MetricType::HISTOGRAM, histograms.collect()),
    ];
    for format in ["protobuf", "text"] {
        let gateway = pushgateway();
        let config = config(&gateway.url(""), &format!("  format: {format}\n  self_metrics: false\n"));
        let other =
            http::request("PUT", &gateway.url("/metrics/job/buildkite/instance/a/env/x"), &[], b"z 1\n").unwrap();
        assert_eq!(other.status, 200);
        let pushing = Pushing::start(&config, families.clone());
        pushing.wait_for_push();
        drop(pushing);

        let taken = Arc::new(Mutex::new(None));
        let take = taken.clone();
        let take_in: TakeIn = Box::new(move |families| {
            *take.lock().unwrap() = Some(families);
            Ok(())
        });
        let again = Pushing::start_with(&config, Vec::new(), Some(take_in));
        let taken = eventually("the restore", SOON, || taken.lock().unwrap().take()).unwrap();
        drop(again);
        let expected: Vec<RestoredFamily> = families.iter().map(restored).collect();
        for (taken, expected) in taken.iter().zip(&expected) {
            assert_eq!((&taken.name, taken.kind, taken.metrics.len()), (&expected.name, expected.kind, 1000));
            for metric in &expected.metrics {
                assert!(taken.metrics.iter().any(|taken| bits(taken) == bits(metric)), "{format}: {metric:?}");
            }
        }
        assert_eq!(taken.len(), 3);
    }
}

/// As the restore should see a family.
fn restored(family: &MetricFamily) -> RestoredFamily {
    let metric = |metric: &Metric| RestoredMetric {
        labels: metric.get_label().iter().map(|l| (l.name().to_owned(), l.value().to_owned())).collect(),
        value: match family.get_field_type() {
            MetricType::COUNTER => RestoredValue::Counter(metric.get_counter().value()),
            MetricType::GAUGE => RestoredValue::Gauge(metric.get_gauge().value()),
            _ => {
                let h = metric.get_histogram();
                let buckets = h.get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count())).collect();
                RestoredValue::Histogram { sum: h.get_sample_sum(), count: h.get_sample_count(), buckets }
            }
        },
    };
    RestoredFamily {
        name: family.name().to_owned(),
        kind: match family.get_field_type() {
            MetricType::COUNTER => Kind::Counter,
            MetricType::GAUGE => Kind::Gauge,
            _ => Kind::Histogram,
        },
        metrics: family.get_metric().iter().map(metric).collect(),
    }
}

/// Equal only when bit by bit: 0.0 is not -0.0 here.
fn bits(metric: &RestoredMetric) -> (&BTreeMap<String, String>, Vec<u64>) {
    let bits = match &metric.value {
        RestoredValue::Counter(value) | RestoredValue::Gauge(value) => vec![value.to_bits()],
        RestoredValue::Histogram { sum, count, buckets } => {
            let buckets = buckets.iter().flat_map(|(bound, below)| [bound.to_bits(), *below]);
            [sum.to_bits(), *count].into_iter().chain(buckets).collect()
        }
    };
    (&metric.labels, bits)
}

#[test]
fn pushes_wait_for_the_restore_until_the_gateway_says_that_there_is_no_group() {
    let gateway = pushgateway();
    let address = gateway.address;
    drop(gateway);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let take = taken.clone();
    let take_in: TakeIn = Box::new(move |families| {
        take.lock().unwrap().push(families);
        Ok(())
    });
    let pushing = Pushing::start_with(&config(&format!("http://{address}"), ""), a_total(1.0), Some(take_in));
    let trouble = eventually("degraded", SOON, || pushing.health.troubles().remove(&Part::Restore));
    assert!(trouble.contains("cannot connect"), "{trouble}");
    assert_eq!((taken.lock().unwrap().len(), *pushing.totals.exposed.lock().unwrap()), (0, 0));
    let _gateway = pushgateway_again(address);
    pushing.wait_for_push();
    assert_eq!(*taken.lock().unwrap(), [None]);
    assert!(pushing.health.troubles().is_empty(), "{:?}", pushing.health.troubles());
}

#[test]
fn a_target_without_that_api_is_pushed_to_all_the_same() {
    let target = Stub::start(|request| Reply::status(if request.method == "PUT" { 200 } else { 404 }));
    let take_in: TakeIn = Box::new(|families| families.map_or(Ok(()), |_| Err("there was none".to_owned())));
    let pushing = Pushing::start_with(&config(&target.url(), ""), a_total(1.0), Some(take_in));
    pushing.wait_for_push();
    let put = target.seen().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(put.path, "/metrics/job@base64/YnVpbGRraXRl/instance@base64/YQ");
    assert_eq!(put.header("content-encoding"), Some("gzip"));
    assert!(put.header("content-type").unwrap().contains("encoding=delimited"));
}

#[test]
fn two_writers_of_one_group_both_see_each_other() {
    let gateway = pushgateway();
    let config = config(&gateway.url(""), "");
    let alone = Pushing::start(&config, a_total(1.0));
    (0..3).for_each(|_| alone.wait_for_push());
    assert!(alone.health.troubles().is_empty(), "{:?}", alone.health.troubles());
    let pair = [Pushing::start(&config, a_total(1.0)), Pushing::start(&config, a_total(7.0))];
    drop(alone);
    for writer in &pair {
        let trouble = eventually("a sighting", SOON, || writer.health.troubles().remove(&Part::SecondWriter));
        assert!(trouble.contains("push.instance"), "{trouble}");
        let anomalies = writer.own.anomalies.with_label_values(&["second_writer"]).get();
        assert!(anomalies >= 1);
    }
}

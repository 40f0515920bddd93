//! The main job, end to end: every fixture, signed by OpenSSL, becomes what a real Prometheus answers.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use kitepush::event::{EventName, Timestamp};

use crate::support::counting::Counting;
use crate::support::eventually;
use crate::support::holding::scraped;
use crate::support::http;
use crate::support::kitepush::{Kitepush, LIMIT, Setup};
use crate::support::server::{assert_promtool_is_content, prometheus, pushgateway, query};
use crate::support::service::{Answer, SECRET, exchange, now, post};

/// All fixtures by name.
fn fixtures() -> BTreeMap<String, Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/webhook-fixtures");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let bodies = files.filter(|file| file.extension().is_some_and(|ending| ending == "json"));
    bodies.map(|file| (file.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&file).unwrap())).collect()
}

/// The signature as `openssl dgst` makes it.
fn signed_by_openssl(timestamp: i64, body: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-r", "-hmac", SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[timestamp.to_string().as_bytes(), b".", body].concat()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("timestamp={timestamp},signature={}", said.split(' ').next().unwrap())
}

fn send(kitepush: &Kitepush, body: &[u8]) -> Answer {
    let signature = signed_by_openssl(now(), body);
    let headers = [("X-Buildkite-Signature", signature.as_str()), ("Content-Type", "application/json")];
    exchange(kitepush.webhook, &post(&headers, body))
}

#[test]
fn every_fixture_becomes_what_prometheus_answers() {
    let (gateway, folder) = (pushgateway(), tempfile::tempdir().unwrap());
    let prometheus = prometheus(&[gateway.address]);
    let mut expected = Counting::born(Timestamp::now());
    let kitepush = Setup::pushing_to(gateway.address).with_state(&folder.path().join("state.db")).start();

    let mut sent: BTreeMap<String, f64> = BTreeMap::new();
    // Backwards, so that a skipped build is told as build.skipped before it is told as build.finished.
    for (name, body) in fixtures().into_iter().rev() {
        let answer = send(&kitepush, &body);
        if name.starts_with("invalid-") {
            assert_eq!(answer.status, 400, "{name}: {answer:?}");
            continue;
        }
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert_eq!(answer.body.contains("ignored"), name.starts_with("unknown-"), "{name}: {answer:?}");
        let text = String::from_utf8(body).unwrap();
        let event = serde_json::from_str::<serde_json::Value>(&text).unwrap()["event"].as_str().unwrap().to_owned();
        *sent.entry(EventName::from_word(&event).as_str().to_owned()).or_default() += 1.0;
        expected.receive(&text, Timestamp::now());
    }

    let expected = expected.samples();
    let mut differences = Vec::new();
    let differ = |seen: &BTreeMap<String, f64>| -> Vec<String> {
        // A gauge that went up and down again is a zero, one that nobody looked at meanwhile is absent.
        let value = |samples: &BTreeMap<String, f64>, key| samples.get(key).copied().unwrap_or(0.0);
        let keys = expected.keys().chain(seen.keys().filter(|key| !expected.contains_key(*key)));
        let unlike = keys.filter(|key| value(&expected, *key) != value(seen, *key));
        unlike.map(|key| format!("{key}: {}, not {}", value(seen, key), value(&expected, key))).collect()
    };
    let began = std::time::Instant::now();
    while began.elapsed() < LIMIT {
        differences = differ(&scraped(&prometheus, "{__name__=~\"buildkite_.+\"}"));
        if differences.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(
        differences.is_empty(),
        "{} differences: {:#?}",
        differences.len(),
        &differences[..differences.len().min(9)]
    );

    // Told by the bodies themselves, whatever our rules make of them.
    let by_event = |promql: &str| -> BTreeMap<String, f64> {
        let series = query(&prometheus, promql);
        let of = |s: &serde_json::Value| {
            (s["metric"]["event"].as_str().unwrap().to_owned(), s["value"][1].as_str().unwrap().parse().unwrap())
        };
        series.iter().map(of).collect()
    };
    eventually("all webhooks counted", LIMIT, || {
        (by_event("sum by (event) (kitepush_webhooks_total) > 0") == sent).then_some(())
    });
    let accepted = by_event("sum by (event) (kitepush_webhooks_total{outcome=\"accepted\"}) > 0");
    for event in EventName::ALL {
        assert_eq!(accepted.contains_key(event.as_str()), *event != EventName::Unknown, "{event:?}");
    }
    assert_eq!(by_event("kitepush_webhooks_total{outcome=\"ignored\"} > 0"), BTreeMap::from([("unknown".into(), 2.0)]));
    for (promql, value) in [
        ("sum(buildkite_builds_finished_total{state=\"quarantined\"})", "1"),
        ("sum(buildkite_builds_finished_total{state=\"skipped\"})", "1"),
        ("sum(buildkite_agents_registrations_blocked_total)", "1"),
        ("sum(buildkite_job_promised_failures_total)", "2"),
    ] {
        assert_eq!(query(&prometheus, promql)[0]["value"][1], value, "{promql}");
    }
    assert_promtool_is_content(&http::get(&gateway.url("/metrics")).unwrap().text());
    assert_eq!(kitepush.readiness().0, "ready");
}

#[test]
fn what_is_no_event_gets_a_clear_answer_and_leaves_the_process_healthy() {
    let kitepush = Setup::new().start();
    for (name, body) in fixtures().into_iter().filter(|(name, _)| name.starts_with("invalid-")) {
        let answer = send(&kitepush, &body);
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert!(["body_malformed", "event_malformed"].contains(&answer.code().as_str()), "{name}: {answer:?}");
    }
    let fixtures = fixtures();
    let pre_2016 = send(&kitepush, &fixtures["invalid-pre-2016"]).body;
    assert!(pre_2016.contains("event"), "{pre_2016}");
    let wrong_type = send(&kitepush, &fixtures["invalid-build-id-number"]).body;
    assert!(wrong_type.contains("build.id"), "{wrong_type}");
    let good = &fixtures["build-finished"];
    for end in [0, 1, good.len() / 2, good.len() - 1] {
        assert_eq!(send(&kitepush, &good[..end]).status, 400, "{end} bytes");
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{{\"event\":\"ping\",\"x\":{}1{}}}", open.repeat(10_000), close.repeat(10_000));
        let answer = send(&kitepush, deep.as_bytes());
        assert_eq!((answer.status, answer.code().as_str()), (400, "body_malformed"), "{answer:?}");
    }
    let mut long = good.clone();
    long.resize(1 << 20, b' ');
    assert_eq!(send(&kitepush, &long).status, 200, "exactly 1 MiB");
    long.push(b' ');
    let answer = send(&kitepush, &long);
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{answer:?}");

    assert_eq!(kitepush.readiness().0, "ready");
    assert_eq!(kitepush.ask("/healthz").status, 200);
    assert_eq!(send(&kitepush, &fixtures["ping"]).status, 200);
    assert_eq!(kitepush.logged("panic"), 0, "{}", kitepush.log());
    kitepush.stop();
}

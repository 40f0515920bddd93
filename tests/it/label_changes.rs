//! Labels, buckets and limits change between two runs, and a real Prometheus watches.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::server::{Ready, Server, prometheus, pushgateway, query};
use crate::support::service::{SECRET, signed};
use crate::support::{eventually, http};

const LIMIT: Duration = Duration::from_secs(60);

fn kitepush(gateway: &Server, state: &Path, more: &str) -> Server {
    let config = format!(
        "auth: {{secrets: ['{SECRET}']}}\nadmin: {{listen: '127.0.0.1:0'}}\nstate: {{path: '{}'}}\n\
         push: {{url: 'http://{}', instance: a, interval: 1s, scrape_interval: 1s, zero_hold: 2500ms}}\n{more}",
        state.display(),
        gateway.address
    );
    Server::start(env!("CARGO_BIN_EXE_kitepush"), Ready::Path("/healthz"), |address, directory| {
        let file = directory.join("kitepush.yaml");
        std::fs::write(&file, format!("server: {{listen: '{address}'}}\n{config}")).unwrap();
        vec!["serve".to_owned(), "--config".to_owned(), file.display().to_string()]
    })
}

fn finish(kitepush: &Server, pipeline: &str, number: u32) {
    let body = json!({
        "event": "build.finished", "organization": {"slug": "acme"},
        "pipeline": {"slug": pipeline, "default_branch": "main"},
        "build": {
            "id": format!("{pipeline} {number}"), "number": number, "state": "passed", "branch": "main",
            "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:45Z",
            "creator": {"name": "Kit"}, "rebuilt_from": {"id": "x"},
        },
    })
    .to_string();
    let headers = [("Content-Type", "application/json"), ("X-Buildkite-Signature", &signed(body.as_bytes()))];
    let answer = http::request("POST", &kitepush.url("/webhook"), &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn what_was_reconfigured_starts_again_at_zero_and_all_else_goes_on() {
    let (gateway, folder) = (pushgateway(), tempfile::tempdir().unwrap());
    let prometheus = prometheus(&[gateway.address]);
    let state = folder.path().join("state.db");
    let value =
        |promql: &str| -> Option<f64> { query(&prometheus, promql).first()?["value"][1].as_str()?.parse().ok() };
    let becomes = |promql: &str, wanted: f64| {
        eventually(&format!("{promql} to be {wanted}"), LIMIT, || (value(promql)? == wanted).then_some(()));
    };

    let first = kitepush(&gateway, &state, "");
    for number in 1..=2 {
        finish(&first, "web", number);
    }
    finish(&first, "api", 1);
    becomes("buildkite_builds_finished_total{pipeline=\"web\", state=\"passed\"}", 2.0);
    becomes("buildkite_builds_finished_total{pipeline=\"api\", state=\"passed\"}", 1.0);
    becomes("sum(buildkite_build_duration_seconds_count)", 3.0);
    becomes("sum(buildkite_builds_rebuilt_total)", 3.0);
    assert!(!first.log().contains("reconfigured"), "{}", first.log());
    drop(first);

    let second = kitepush(
        &gateway,
        &state,
        "labels: {limits: {values_per_label: 1}}\nfamilies:\n  buildkite_build_duration_seconds: {buckets: [60, 600]}\n  \
         buildkite_builds_rebuilt_total: {labels: [creator]}\n",
    );
    finish(&second, "web", 3);
    finish(&second, "new", 1);
    finish(&second, "newer", 1);

    // Reconfigured: zero under a new hold, which Prometheus sees as one reset, and then what came since.
    becomes("buildkite_build_duration_seconds_count{pipeline=\"web\"}", 1.0);
    becomes("buildkite_build_duration_seconds_bucket{pipeline=\"web\", le=\"60\"}", 1.0);
    becomes("resets(buildkite_build_duration_seconds_count{pipeline=\"web\"}[5m])", 1.0);
    becomes("min_over_time(buildkite_build_duration_seconds_count{pipeline=\"_overflow\"}[5m])", 0.0);
    becomes("buildkite_builds_rebuilt_total{pipeline=\"web\", creator=\"Kit\"}", 1.0);
    // All else goes on; who had a series keeps it although the limit is lower now, and who is new shares one.
    becomes("buildkite_builds_finished_total{pipeline=\"web\", state=\"passed\"}", 3.0);
    becomes("buildkite_builds_finished_total{pipeline=\"api\", state=\"passed\"}", 1.0);
    becomes("sum(buildkite_builds_finished_total{pipeline=\"_overflow\"})", 2.0);
    becomes("sum(resets(buildkite_builds_finished_total[5m]))", 0.0);
    becomes("kitepush_series_overflow_total{family=\"buildkite_builds_finished_total\"}", 2.0);

    let log = second.log();
    let says =
        |what: &str, family: &str| log.lines().filter(|line| line.contains(what) && line.contains(family)).count();
    for family in ["buildkite_build_duration_seconds", "buildkite_builds_rebuilt_total"] {
        assert_eq!(says("reconfigured", family), 1, "{log}");
    }
    assert_eq!(says("reconfigured", "buildkite_builds_finished_total"), 0, "{log}");
    assert_eq!(says("a limit of labels.limits is reached", "buildkite_builds_finished_total"), 1, "{log}");
}

//! A branch name made to break things, kept as a label: from the webhook to Prometheus in both formats.

use serde_json::json;

use crate::support::builds::body;
use crate::support::eventually;
use crate::support::http;
use crate::support::kitepush::{LIMIT, Setup};
use crate::support::server::{assert_promtool_is_content, prometheus, pushgateway, query};

#[test]
fn a_hostile_branch_of_ten_kilobytes_is_stored_and_scraped_in_both_formats() {
    let quotes = "\"'`\\\"\\\\ \\n\n\r\n\t{}=,#$ # HELP x\nx 1\n\u{1}\u{7f}\u{2028}\u{202e}🪁👩‍👩‍👧 ü\u{301} {{.}} <b>";
    let branch = format!("{}end", quotes.repeat(10 * 1024 / quotes.len() + 1));
    assert!(branch.len() > 10 * 1024);
    let gateway = pushgateway();
    let prometheus = prometheus(&[gateway.address]);
    let running: Vec<_> = ["protobuf", "text"]
        .into_iter()
        .map(|format| {
            let setup = Setup::pushing_to(gateway.address).with("push.format", format).with("push.instance", format);
            let setup = setup.with("labels.branches", json!({"keep": ["(?s).*"]}));
            let kitepush = setup.with("labels.limits", json!({"value_bytes": 16384})).start();
            let hostile = body("p", 1, |body| body["build"]["branch"] = branch.as_str().into());
            assert_eq!(kitepush.take(hostile), "accepted");
            (format, kitepush)
        })
        .collect();
    for (format, kitepush) in &running {
        let promql = format!("buildkite_builds_finished_total{{instance=\"{format}\"}} == 1");
        let series = eventually("the series in Prometheus", LIMIT, || query(&prometheus, &promql).pop());
        assert_eq!(series["metric"]["branch"], branch.as_str(), "{format}");
        let buckets = query(&prometheus, &format!("buildkite_build_duration_seconds_bucket{{instance=\"{format}\"}}"));
        assert_eq!(buckets.len(), 11, "{format}");
        assert_eq!(kitepush.readiness().0, "ready");
    }
    let up = query(&prometheus, "min_over_time(up[5m])");
    assert_eq!(up[0]["value"][1], "1", "no scrape failed");
    let exposition = http::get(&gateway.url("/metrics")).unwrap().text();
    assert_promtool_is_content(&exposition);
}

//! The estimate: that it says of memory and pushes what is measured, and that the worked examples hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use kitepush::cli::cardinality::{BYTES_PER_BUCKET, BYTES_PER_SERIES, PUSH_BYTES_PER_SAMPLE};
use kitepush::config::{Family, Labels};
use kitepush::event::Timestamp;
use kitepush::metrics::Snapshot as _;
use kitepush::metrics::catalogue::FAMILIES;
use kitepush::metrics::encoding::{Compression, Format, encode};
use kitepush::metrics::series::Held;
use serde_json::json;

use crate::support::counting::Counting;

fn kitepush(arguments: &[&str], config: &str) -> (bool, String) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/examples").join(config);
    let (command, options) = arguments.split_first().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kitepush"))
        .arg(command)
        .arg("--config")
        .arg(file)
        .args(options)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn the_worked_examples_are_valid_and_fit() {
    let examples: [(&str, &[&str]); 4] = [
        ("monorepo.yaml", &["--pipelines", "1", "--branches", "40", "--queues", "6", "--values", "30"]),
        ("many-pipelines.yaml", &["--pipelines", "500", "--branches", "3", "--queues", "8"]),
        ("per-commit.yaml", &["--pipelines", "1", "--branches", "4", "--queues", "3"]),
        ("organizations.yaml", &["--pipelines", "120", "--branches", "4", "--queues", "9"]),
    ];
    for (config, options) in examples {
        let (ok, said) = kitepush(&["check", "--no-files"], config);
        assert!(ok, "{config}: {said}");
        let (ok, said) = kitepush(&[&["cardinality"], options].concat(), config);
        assert!(ok && said.contains("| **all** |"), "{config}: {said}");
        assert!(!said.contains("sparse too") && !said.contains("dense and sparse"), "{config}: {said}");
    }
}

/// Only this family, without limits worth the name, with that many series.
fn table_of(family: &str, series: usize) -> Counting {
    let off = Family { enabled: false, ..Family::default() };
    let families: BTreeMap<String, Family> = FAMILIES
        .iter()
        .filter(|known| known.name != family)
        .map(|known| (known.name.to_owned(), off.clone()))
        .collect();
    let mut labels = Labels::default();
    labels.limits.samples = 100_000_000;
    labels.limits.samples_per_family = 100_000_000;
    labels.limits.values_per_label = 1_000_000;
    let mut counting = Counting::configured(Timestamp::from_millis(0), &families, &labels);
    let event = if family.contains("started") { "job.started" } else { "job.finished" };
    for at in 0..series {
        let body = json!({
            "event": event, "organization": {"slug": "acme"},
            "pipeline": {"slug": format!("some-service-{}", at / 100)},
            "job": {"id": format!("{at}"), "type": "script", "state": "passed", "agent_query_rules": [format!("queue=linux-{}", at % 100)],
                "started_at": "2026-01-01T00:00:00Z", "finished_at": format!("2026-01-01T00:{:02}:00Z", at % 59)},
        });
        counting.receive(&body.to_string(), Timestamp::from_millis(1));
    }
    // Records and rows are the ledger's, not the series'.
    counting.book = kitepush::ledger::rules::Book::new(crate::support::counting::SETTINGS, Timestamp::from_millis(0));
    counting.table.saved();
    counting.table.publish();
    counting
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// In a process of its own: what other tests allocate is not to be seen.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn measure() {
    const SERIES: usize = 20_000;
    drop(table_of("buildkite_jobs_started_total", 1000));
    let before = resident();
    let counters = table_of("buildkite_jobs_started_total", SERIES);
    let copy = counters.table.snapshot(Held::AsZeros);
    let plain = resident() - before;
    let before = resident();
    let histograms = table_of("buildkite_job_duration_seconds", SERIES);
    let copies = histograms.table.snapshot(Held::AsZeros);
    let with_buckets = resident() - before;
    assert_eq!((copy.samples(), copies.samples()), (SERIES, SERIES * 13));
    println!("series {}", plain / SERIES);
    println!("bucket {}", (with_buckets.saturating_sub(plain)) / SERIES / 10);
    for (name, format, compression) in [
        ("protobuf + gzip", Format::Protobuf, Compression::Gzip),
        ("protobuf", Format::Protobuf, Compression::None),
        ("text", Format::Text, Compression::None),
    ] {
        let bytes = encode(copies.families().chain(copy.families()), format, compression).unwrap().body.len();
        println!("{name} {}", bytes as f64 / (SERIES * 14) as f64);
    }
}

#[test]
fn what_a_series_costs_is_what_the_estimate_says() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "cardinality::measure", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let measured = |name: &str| -> f64 {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("{name} "))?.parse().ok());
        line.unwrap_or_else(|| panic!("no {name}: {said}"))
    };
    let near = |name: &str, constant: f64| {
        let ratio = measured(name) / constant;
        // A little above what is measured, so that nobody is surprised; far above would be no estimate.
        assert!((0.4..1.1).contains(&ratio), "{name}: {} measured, {constant} claimed\n{said}", measured(name));
    };
    near("series", BYTES_PER_SERIES as f64);
    near("bucket", BYTES_PER_BUCKET as f64);
    for (name, bytes) in PUSH_BYTES_PER_SAMPLE {
        near(name, bytes);
    }
}

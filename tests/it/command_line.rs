//! The commands at the ends of a pipe: what they print, and what when nobody takes it.

use std::fs::File;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::binary::{Binary, configured, kitepush};
use crate::support::service::SECRET;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_nobody_takes_is_an_error_and_no_panic() {
    let directory = configured("{}");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let secret = secret.to_str().unwrap();
    for arguments in [
        &["sign", "--secret-file", secret][..],
        // Nobody listens there.
        &["send", "--secret-file", secret, "--url", "http://127.0.0.1:1/webhook", "--ping"],
        &["metrics"],
        &["check", "--no-files"],
        &["cardinality"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = kitepush(arguments).stdout(Stdio::from(full)).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("error: No space left on device") && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn programs_get_every_family_that_people_do() {
    let printed = |format: &str| kitepush(&["metrics", "--format", format]).output().unwrap().stdout;
    let families: Vec<Value> = serde_json::from_slice(&printed("json")).unwrap();
    let mut names: Vec<_> = families.iter().map(|family| family["name"].as_str().unwrap().to_owned()).collect();
    let text = String::from_utf8(printed("markdown")).unwrap();
    let mut shown: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect();
    names.sort();
    shown.sort();
    assert_eq!(names, shown);
    for name in ["buildkite_build_duration_seconds", "kitepush_build_info", "process_resident_memory_bytes"] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}

#[test]
fn every_line_of_a_json_log_is_json_warnings_too() {
    let directory = configured(&format!(
        "{{server: {{listen: '127.0.0.1:0'}}, admin: {{listen: '127.0.0.1:0'}}, auth: {{secrets: ['{SECRET}']}}, \
         log: {{format: json}}}}"
    ));
    let log = Binary::serve(directory.path()).stop();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let warned = |line: &Value| line["level"] == "WARN" && line.to_string().contains("auth.secrets: ");
    assert!(lines.iter().any(warned), "{log}");
}

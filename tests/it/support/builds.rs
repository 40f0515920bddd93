//! Finished builds by the dozen: the body of a fixture, each with an id and a pipeline of its own.

use kitepush::demo::history::truth::sample_key;
use serde_json::Value;

/// A `build.finished` of pipeline `pipeline`, passed after 256.909 s; builds differ by `number`.
pub(crate) fn build_finished(pipeline: &str, number: usize) -> String {
    body(pipeline, number, |_| {})
}

/// The same with a change.
pub(crate) fn body(pipeline: &str, number: usize, change: impl FnOnce(&mut Value)) -> String {
    let fixture = include_bytes!("../../../webhook-fixtures/build-finished.json");
    let mut body: Value = serde_json::from_slice(fixture).unwrap();
    let url = format!("https://api.buildkite.com/v2/organizations/harborline/pipelines/{pipeline}");
    body["pipeline"]["slug"] = pipeline.into();
    body["build"]["id"] = format!("{pipeline}-{number}").into();
    body["build"]["number"] = number.into();
    body["build"]["url"] = format!("{url}/builds/{number}").into();
    body["pipeline"]["url"] = url.into();
    change(&mut body);
    body.to_string()
}

/// The key of `buildkite_builds_finished_total` of what [`build_finished`] makes.
pub(crate) fn finished_key(pipeline: &str) -> String {
    key("buildkite_builds_finished_total", pipeline, "")
}

/// The key of one of its samples by the labels pipeline, branch and state; `le` of a bucket, else empty.
pub(crate) fn key(name: &str, pipeline: &str, le: &str) -> String {
    let labels = [("organization", "harborline"), ("pipeline", pipeline), ("branch", "main"), ("state", "passed")];
    sample_key(name, labels.into_iter().chain([("le", le)]))
}

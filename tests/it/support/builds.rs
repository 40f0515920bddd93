//! Finished builds by the dozen: the body of a fixture, each with an id and a pipeline of its own.

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
    let labels = [("organization", "harborline"), ("pipeline", pipeline), ("branch", "main"), ("state", "passed")];
    kitepush::demo::history::truth::sample_key("buildkite_builds_finished_total", labels)
}

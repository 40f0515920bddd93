//! One row per mistake in `families` and `labels` that only the catalogue can judge: the YAML, and the line that the
//! real `kitepush check` prints. What the configuration judges by itself has its rows beside it.

use std::process::Command;

fn check(yaml: &str) -> (Option<i32>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kitepush.yaml");
    std::fs::write(&file, yaml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kitepush"))
        .args(["check", "--no-files", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let errors = said.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned);
    (output.status.code(), errors.collect())
}

const FINISHED: &str = "families: {buildkite_builds_finished_total: ";
const JOBS: &str = "families: {buildkite_jobs_finished_total: ";

#[test]
fn every_mistake_is_one_line_that_names_the_key_and_the_mend() {
    let unbounded = |label: &str, kind: &str| {
        format!(
            "{label} would make a new series of this {kind} for nearly every build, and Prometheus would never see any of \
             them grow; to query by commit or build set labels.recent_builds.per_pipeline"
        )
    };
    let secret = |word: &str| {
        format!(
            "a variable whose name contains {word} may hold a secret and is never made a label; pass the value as build \
             meta-data and use meta_data.<key>"
        )
    };
    let rows: Vec<(String, &str, String)> = vec![
        (
            "families: {buildkite_build_finished_total: {}}".into(),
            "families.buildkite_build_finished_total",
            "there is no such family; the nearest is buildkite_builds_finished_total (`kitepush metrics` lists all)".into(),
        ),
        (
            "families: {kitepush_pushes_total: {}}".into(),
            "families.kitepush_pushes_total",
            "there is no such family; the nearest is ".into(),
        ),
        (
            format!("{FINISHED}{{labels: [sorce]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "sorce is not a label source; the nearest is source; allowed are organization, pipeline, branch".into(),
        ),
        (
            format!("{FINISHED}{{labels: [job]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "job is not a label source; the nearest is".into(),
        ),
        (
            format!("{FINISHED}{{labels: [__name__]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "__name__ is not a label source; the nearest is".into(),
        ),
        (
            format!("{FINISHED}{{labels: [pipeline]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "this family has a label named pipeline already".into(),
        ),
        (
            format!("{FINISHED}{{labels: [BUILDKITE_BRANCH]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "this family has a label named branch already".into(),
        ),
        (
            format!("{FINISHED}{{labels: [meta_data.team-name, meta_data.team_name]}}}}"),
            "families.buildkite_builds_finished_total.labels[1]",
            "this family has a label named meta_data_team_name already".into(),
        ),
        (
            format!("{FINISHED}{{labels: [meta_data.]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "meta_data. needs a key, for example meta_data.team".into(),
        ),
        (
            format!("{FINISHED}{{labels: ['env.*']}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "env. needs the exact name of one variable, for example env.DEPLOY_TIER".into(),
        ),
        (format!("{FINISHED}{{labels: [env.NPM_TOKEN]}}}}"), "families.buildkite_builds_finished_total.labels[0]", secret("TOKEN")),
        (format!("{FINISHED}{{labels: [env.aws_secret_id]}}}}"), "families.buildkite_builds_finished_total.labels[0]", secret("SECRET")),
        (format!("{FINISHED}{{labels: [env.API_KEY]}}}}"), "families.buildkite_builds_finished_total.labels[0]", secret("KEY")),
        (format!("{FINISHED}{{labels: [env.DbPassword]}}}}"), "families.buildkite_builds_finished_total.labels[0]", secret("PASSWORD")),
        (
            format!("{FINISHED}{{labels: [commit]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            unbounded("commit", "counter"),
        ),
        (
            format!("{FINISHED}{{labels: [env.BUILDKITE_COMMIT]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            unbounded("commit", "counter"),
        ),
        (
            "families: {buildkite_job_duration_seconds: {labels: [BUILDKITE_BUILD_ID]}}".into(),
            "families.buildkite_job_duration_seconds.labels[0]",
            unbounded("build_id", "histogram"),
        ),
        (
            "families: {buildkite_job_duration_seconds: {labels: [number]}}".into(),
            "families.buildkite_job_duration_seconds.labels[0]",
            unbounded("number", "histogram"),
        ),
        (
            format!("{JOBS}{{labels: [BUILDKITE_JOB_ID]}}}}"),
            "families.buildkite_jobs_finished_total.labels[0]",
            unbounded("BUILDKITE_JOB_ID", "family"),
        ),
        (
            format!("{FINISHED}{{labels: [step_key]}}}}"),
            "families.buildkite_builds_finished_total.labels[0]",
            "step_key is only for families about jobs".into(),
        ),
        (
            "families: {buildkite_agents_transitions_total: {labels: [pipeline]}}".into(),
            "families.buildkite_agents_transitions_total.labels[0]",
            "pipeline is only for families about builds or jobs".into(),
        ),
        (
            "families: {buildkite_job_wait_seconds: {labels: [state]}}".into(),
            "families.buildkite_job_wait_seconds.labels[0]",
            "state is only for families of what finished, which have it".into(),
        ),
        (
            "families: {buildkite_jobs_running: {labels: [pipeline]}}".into(),
            "families.buildkite_jobs_running.labels[0]",
            "the labels of this family are fixed".into(),
        ),
        (
            "families: {buildkite_jobs_running: {drop_labels: [queue]}}".into(),
            "families.buildkite_jobs_running.drop_labels",
            "the labels of this family are fixed: it shows entry by entry; set enabled: false to drop it whole".into(),
        ),
        (
            "{labels: {recent_builds: {per_pipeline: 5}}, families: {buildkite_recent_build_info: {drop_labels: [number]}}}".into(),
            "families.buildkite_recent_build_info.drop_labels",
            "the labels of this family are fixed".into(),
        ),
        (
            format!("{FINISHED}{{drop_labels: [queue]}}}}"),
            "families.buildkite_builds_finished_total.drop_labels[0]",
            "queue is not a label of this family; it has organization, pipeline, branch, state".into(),
        ),
        (
            format!("{FINISHED}{{buckets: [1, 2]}}}}"),
            "families.buildkite_builds_finished_total.buckets",
            "only histograms have buckets; this family is a counter".into(),
        ),
        (
            "families: {buildkite_job_wait_seconds: {buckets: [5, 1]}}".into(),
            "families.buildkite_job_wait_seconds.buckets",
            "must increase strictly, has 1 after 5".into(),
        ),
        (
            "labels: {constant: {pipeline: a}}".into(),
            "labels.constant.pipeline",
            "buildkite_builds_scheduled_total has a label of that name already; choose another".into(),
        ),
        (
            "labels: {constant: {instance: a}}".into(),
            "labels.constant.instance",
            "is a label name that Prometheus or the Pushgateway uses itself; take another one".into(),
        ),
        (
            "labels: {branches: {keep: ['(main']}}".into(),
            "labels.branches.keep[0]",
            "must be a regular expression, is (main: unclosed group".into(),
        ),
        ("labels: {limits: {samples: 0}}".into(), "labels.limits.samples", "must be at least 1, is 0".into()),
        (
            "labels: {limits: {samples: 100}}".into(),
            "labels.limits.samples",
            "must be at least 119, one series of each family as configured, is 100; switch families off or use fewer buckets"
                .into(),
        ),
        (
            "labels: {limits: {samples_per_family: 14}}".into(),
            "labels.limits.samples_per_family",
            "must be at least 15, one series of buildkite_job_concurrency_wait_seconds, is 14".into(),
        ),
        ("labels: {limits: {values_per_label: 0}}".into(), "labels.limits.values_per_label", "must be at least 1, is 0".into()),
    ];
    for (yaml, key, message) in rows {
        let (code, errors) = check(&yaml);
        assert_eq!(code, Some(1), "{yaml}: {errors:?}");
        let [line] = errors.as_slice() else { panic!("{yaml}: {errors:?}") };
        assert!(line.starts_with(&format!("{key}: {message}")), "{yaml}:\n{line}\n{key}: {message}");
        assert!(line.len() < 450, "{line}");
    }
}

#[test]
fn the_names_that_people_know_are_accepted_wherever_a_source_is_named() {
    let yaml = "families:
  buildkite_builds_started_total: {labels: [BUILDKITE_SOURCE, env.BUILDKITE_BUILD_CREATOR, env.DEPLOY_TIER, meta_data.team]}
  buildkite_job_duration_seconds: {labels: [BUILDKITE_STEP_KEY, BUILDKITE_BRANCH], drop_labels: [BUILDKITE_PIPELINE_SLUG]}
";
    assert_eq!(check(yaml), (Some(0), vec![]));
}

//! The `pipeline` object: the longest part of a body, and the same in all deliveries of a pipeline.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Cluster;
use super::body::{Stamp, pipeline_url, rules};
use super::organization::{PIPELINES, Recipe, SLUG, Stage};
use crate::event::Timestamp;

#[derive(Serialize)]
struct Pipeline<'a> {
    id: &'a str,
    url: String,
    web_url: String,
    name: &'a str,
    description: Option<&'a str>,
    slug: &'a str,
    repository: String,
    cluster_id: Option<&'a str>,
    branch_configuration: Option<&'a str>,
    default_branch: &'a str,
    skip_queued_branch_builds: bool,
    skip_queued_branch_builds_filter: Option<&'a str>,
    cancel_running_branch_builds: bool,
    cancel_running_branch_builds_filter: Option<&'a str>,
    provider: Provider,
    builds_url: String,
    badge_url: &'a str,
    created_at: Stamp,
    env: BTreeMap<&'a str, &'a str>,
    scheduled_builds_count: u32,
    running_builds_count: u32,
    scheduled_jobs_count: u32,
    running_jobs_count: u32,
    waiting_jobs_count: u32,
    visibility: &'a str,
    tags: Vec<&'a str>,
    steps: Vec<PipelineStep<'a>>,
}

/// The JSON of one pipeline.
pub(super) fn write(recipe: &Recipe, id: &str, clusters: &[Cluster]) -> String {
    let cluster_id = recipe.cluster.map(|cluster| clusters[cluster].id.as_str());
    // Only maps with keys that are not strings and failing writers can fail here.
    serde_json::to_string(&Pipeline::new(recipe, id, cluster_id)).unwrap_or_default()
}

impl<'a> Pipeline<'a> {
    fn new(recipe: &'a Recipe, id: &'a str, cluster_id: Option<&'a str>) -> Self {
        let url = pipeline_url(recipe.slug);
        Self {
            id,
            web_url: format!("https://buildkite.com/{SLUG}/{}", recipe.slug),
            name: recipe.name,
            description: recipe.description,
            slug: recipe.slug,
            repository: format!("git@github.com:{SLUG}/{}.git", recipe.slug),
            cluster_id,
            branch_configuration: None,
            default_branch: recipe.default_branch,
            skip_queued_branch_builds: true,
            skip_queued_branch_builds_filter: None,
            cancel_running_branch_builds: false,
            cancel_running_branch_builds_filter: None,
            provider: Provider::new(recipe.slug),
            builds_url: format!("{url}/builds"),
            badge_url: "https://badge.buildkite.com/58b3da999635d0ad2daae5f784e56d264343eb02526f129bfb.svg",
            created_at: Stamp(Timestamp::from_millis(1_615_198_495_201), recipe.clock),
            env: BTreeMap::from([("CI_IMAGE", "2026-09"), ("FORCE_COLOR", "1")]),
            // Stale in real deliveries too: nobody may count on these.
            scheduled_builds_count: 0,
            running_builds_count: 1,
            scheduled_jobs_count: 0,
            running_jobs_count: 2,
            waiting_jobs_count: 1,
            visibility: "private",
            tags: vec!["demo"],
            steps: recipe.stages.iter().flat_map(PipelineStep::of).collect(),
            url,
        }
    }
}

#[derive(Serialize)]
struct Provider {
    id: &'static str,
    settings: ProviderSettings,
    webhook_url: &'static str,
}

#[derive(Serialize)]
struct ProviderSettings {
    trigger_mode: &'static str,
    build_pull_requests: bool,
    pull_request_branch_filter_enabled: bool,
    skip_builds_for_existing_commits: bool,
    skip_pull_request_builds_for_existing_commits: bool,
    build_pull_request_forks: bool,
    build_pull_request_ready_for_review: bool,
    prefix_pull_request_fork_branch_names: bool,
    build_branches: bool,
    build_tags: bool,
    cancel_deleted_branch_builds: bool,
    publish_commit_status: bool,
    publish_commit_status_per_step: bool,
    separate_pull_request_statuses: bool,
    publish_blocked_as_pending: bool,
    filter_enabled: bool,
    repository: String,
}

impl Provider {
    fn new(slug: &str) -> Self {
        Self {
            id: "github",
            settings: ProviderSettings {
                trigger_mode: "code",
                build_pull_requests: true,
                pull_request_branch_filter_enabled: false,
                skip_builds_for_existing_commits: false,
                skip_pull_request_builds_for_existing_commits: true,
                build_pull_request_forks: true,
                build_pull_request_ready_for_review: true,
                prefix_pull_request_fork_branch_names: true,
                build_branches: true,
                build_tags: true,
                cancel_deleted_branch_builds: false,
                publish_commit_status: true,
                publish_commit_status_per_step: false,
                separate_pull_request_statuses: false,
                publish_blocked_as_pending: false,
                filter_enabled: false,
                repository: format!("{SLUG}/{slug}"),
            },
            webhook_url: "https://webhook.buildkite.com/deliver/e2304b6e00fe07bfdcea682491f030bc2f74a7475f1508ca91",
        }
    }
}

#[derive(Serialize)]
struct PipelineStep<'a> {
    r#type: &'a str,
    name: Option<&'a str>,
    command: Option<&'a str>,
    artifact_paths: &'a str,
    branch_configuration: &'a str,
    env: BTreeMap<&'a str, &'a str>,
    timeout_in_minutes: Option<u32>,
    agent_query_rules: Vec<String>,
    concurrency: Option<u32>,
    parallelism: Option<usize>,
}

impl<'a> PipelineStep<'a> {
    fn of(stage: &'a Stage) -> Vec<Self> {
        let plain = |r#type, name| Self {
            r#type,
            name,
            command: None,
            artifact_paths: "",
            branch_configuration: "",
            env: BTreeMap::new(),
            timeout_in_minutes: None,
            agent_query_rules: Vec::new(),
            concurrency: None,
            parallelism: None,
        };
        match stage {
            Stage::Steps(steps) => steps
                .iter()
                .map(|step| Self {
                    command: Some(step.command),
                    timeout_in_minutes: Some(60),
                    agent_query_rules: rules(step),
                    parallelism: (step.parallelism > 1).then_some(step.parallelism),
                    ..plain("script", Some(step.name))
                })
                .collect(),
            Stage::Wait => vec![plain("waiter", None)],
            Stage::Block(label) => vec![plain("manual", Some(label))],
            Stage::Trigger { pipeline, .. } => vec![plain("trigger", Some(PIPELINES[*pipeline].name))],
        }
    }
}

//! From the facts of a build to its deliveries: each with the body of its moment and with what the counting rules make
//! of it.

use std::collections::BTreeMap;

use super::Delivery;
use super::body::{self, Body, Creator, Person, Stamp};
use super::facts::{Branch, Build, Job, Kind, Moment, Seen};
use super::organization::{Organization, PIPELINES, QUEUES, SLUG};
use super::rules::Rules;
use crate::event::Timestamp;

/// What changes while a build runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) state: &'static str,
    pub(super) blocked: bool,
    pub(super) started_at: Option<Timestamp>,
    pub(super) failing_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
}

/// Which part of its life a body shows a job in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting,
    Running,
    Promised,
    Over,
}

/// Appends the deliveries of a build; `moments` are in order.
pub(super) fn tell(
    organization: &Organization,
    build: &Build,
    jobs: &[Job],
    moments: &[(i64, Moment)],
    deliveries: &mut Vec<Delivery>,
) {
    let mut view = View { state: "scheduled", blocked: false, started_at: None, failing_at: None, finished_at: None };
    for &(at, moment) in moments {
        let mut rules = Rules::new(organization, build);
        let (event, job) = match moment {
            Moment::Scheduled => {
                rules.build_scheduled();
                ("build.scheduled", None)
            }
            Moment::Running { started_at } => {
                let started_at = build.time(started_at);
                view =
                    View { state: "running", blocked: false, started_at: Some(started_at), finished_at: None, ..view };
                rules.build_started(started_at);
                ("build.running", None)
            }
            Moment::Failing { failing_at } => {
                let failing_at = build.time(failing_at);
                view = View { state: "failing", failing_at: Some(failing_at), ..view };
                rules.build_failing(failing_at, view.started_at);
                ("build.failing", None)
            }
            Moment::Finished { state, finished_at, blocked, seen } => {
                let finished_at = finished_at.map(|at| build.time(at));
                view = match seen {
                    Seen::Finished => View { state, blocked, finished_at, ..view },
                    Seen::RunningAgain => View { state: "running", blocked, finished_at: None, ..view },
                };
                rules.build_finished(&view);
                ("build.finished", None)
            }
            Moment::Skipped { event } => {
                view.state = "skipped";
                rules.build_skipped();
                (event, None)
            }
            Moment::JobScheduled(index) => {
                rules.job_scheduled(&jobs[index]);
                ("job.scheduled", Some((&jobs[index], Phase::Waiting)))
            }
            Moment::JobStarted(index) => {
                rules.job_started(&jobs[index]);
                ("job.started", Some((&jobs[index], Phase::Running)))
            }
            Moment::JobPromised(index) => {
                rules.job_promised(&jobs[index]);
                ("job.promised_exit_status", Some((&jobs[index], Phase::Promised)))
            }
            Moment::JobFinished(index) => {
                rules.job_finished(&jobs[index]);
                ("job.finished", Some((&jobs[index], Phase::Over)))
            }
            Moment::JobActivated { job, resumed } => {
                if resumed {
                    view = View { state: "running", blocked: false, finished_at: None, ..view };
                }
                rules.job_activated(&jobs[job], view.finished_at);
                ("job.activated", Some((&jobs[job], Phase::Over)))
            }
        };
        rules.every_delivery(event, &view, job);
        let mut body = Body::new(event);
        if let Some((job, phase)) = job {
            body = body.part("job", &job_body(organization, build, job, phase));
        }
        let body = body.part("build", &build_body(build, &view));
        let body = body.text("pipeline", &organization.pipeline_bodies[build.pipeline]).end();
        deliveries.push(Delivery {
            event,
            at: Timestamp::from_millis(at),
            subject: job.map_or(&build.id, |(job, _)| &job.id).clone(),
            body,
            effects: rules.effects,
        });
    }
}

fn build_body<'a>(build: &'a Build, view: &View) -> body::Build<'a> {
    let recipe = build.recipe();
    let stamp = |time: Timestamp| Stamp(time, recipe.clock);
    let (url, web_url) = build_urls(build.pipeline, build.number);
    body::Build {
        id: &build.id,
        url,
        web_url,
        number: build.number,
        state: view.state,
        blocked: view.blocked,
        blocked_state: if view.blocked { "passed" } else { "" },
        message: build.message,
        commit: &build.commit,
        branch: build.branch.name(recipe),
        tag: match &build.branch {
            Branch::Tag(tag) => Some(tag),
            _ => None,
        },
        source: build.source,
        author: None,
        creator: build.creator.map(|name| Creator::new(name, recipe.clock)),
        created_at: stamp(build.time(build.created_at)),
        scheduled_at: stamp(build.time(build.scheduled_at)),
        started_at: view.started_at.map(stamp),
        failing_at: view.failing_at.map(stamp),
        finished_at: view.finished_at.map(stamp),
        meta_data: BTreeMap::from([("release-train", "2026.46")]),
        pull_request: match &build.branch {
            Branch::PullRequest { number, .. } => Some(body::PullRequest {
                id: number.to_string(),
                base: recipe.default_branch,
                repository: format!("git://github.com/{SLUG}/{}.git", recipe.slug),
            }),
            _ => None,
        },
        merge_queue: match &build.branch {
            Branch::MergeQueue { has_object: true, .. } => {
                Some(body::MergeQueue { base_branch: recipe.default_branch })
            }
            _ => None,
        },
        rebuilt_from: build.rebuilt_from.as_ref().map(|(id, number)| another_build(id, *number, build.pipeline)),
        triggered_from: build.triggered_from.as_ref().map(|(id, number, pipeline)| body::TriggeredFrom {
            build_id: id,
            build_number: *number,
            build_pipeline_slug: PIPELINES[*pipeline].slug,
        }),
    }
}

fn job_body<'a>(organization: &'a Organization, build: &'a Build, job: &'a Job, phase: Phase) -> body::Job<'a> {
    let stamp = |at: i64| Stamp(build.time(at), build.recipe().clock);
    let (build_url, build_web_url) = build_urls(build.pipeline, build.number);
    let web_url = format!("{build_web_url}#{}", job.id);
    let ended = phase == Phase::Over && !job.outcome.stale;
    let state = match phase {
        Phase::Waiting => "scheduled",
        Phase::Running | Phase::Promised => "running",
        Phase::Over => job.outcome.state,
    };
    match &job.kind {
        Kind::Script { step, index } => {
            let outcome = job.outcome;
            let job_url = format!("{build_url}/jobs/{}", job.id);
            let promised = (phase != Phase::Waiting && phase != Phase::Running).then_some(job.promised_at).flatten();
            body::Job::Script(Box::new(body::Script {
                id: &job.id,
                r#type: "script",
                name: step.name,
                step_key: step.key,
                group_key: None,
                agent_query_rules: body::rules(step),
                state,
                web_url,
                log_url: format!("{job_url}/log"),
                raw_log_url: format!("{job_url}/log.txt"),
                artifacts_url: format!("{job_url}/artifacts"),
                build_url,
                command: step.command,
                soft_failed: ended && outcome.soft_failed,
                exit_status: outcome.exit_status.filter(|_| ended),
                signal: outcome.signal.filter(|_| ended),
                signal_reason: outcome.signal_reason.filter(|_| ended),
                broken_reason: (outcome.state == "broken").then_some("a step that this step depends on failed"),
                artifact_paths: "",
                agent: job
                    .agent
                    .filter(|_| phase != Phase::Waiting)
                    .map(|agent| body::Agent::new(&organization.agents[agent], "connected", build.recipe().clock)),
                created_at: stamp(job.created_at),
                scheduled_at: job.runnable_at.map(stamp),
                runnable_at: job.runnable_at.map(stamp),
                started_at: job.started_at.filter(|_| phase != Phase::Waiting).map(stamp),
                finished_at: ended.then(|| stamp(job.finished_at)),
                expired_at: (ended && outcome.state == "expired").then(|| stamp(job.finished_at)),
                retried: false,
                retried_in_job_id: None,
                retries_count: job.retry.as_ref().map(|retry| retry.count),
                retry_source: job.retry.as_ref().map(|retry| body::RetrySource {
                    job_id: &retry.of,
                    retry_type: retry.kind,
                    retried_by: (retry.kind == "manual").then_some(ROLE),
                }),
                retry_type: None,
                parallel_group_index: (step.parallelism > 1).then_some(*index),
                parallel_group_total: (step.parallelism > 1).then_some(step.parallelism),
                matrix: None,
                cluster_id: QUEUES[step.queue].1.map(|cluster| organization.clusters[cluster].id.as_str()),
                cluster_queue_id: QUEUES[step.queue].1.map(|_| organization.queue_ids[step.queue].as_str()),
                concurrency_wait_time_ms: job.concurrency_wait.filter(|_| ended),
                promised_exit_status: promised.and(outcome.exit_status),
                promised_exit_status_at: promised.map(stamp),
            }))
        }
        Kind::Trigger { pipeline, asynchronous, triggered } => body::Job::Trigger(Box::new(body::Trigger {
            id: &job.id,
            r#type: "trigger",
            name: PIPELINES[*pipeline].name,
            state,
            build_url,
            web_url,
            created_at: stamp(job.created_at),
            scheduled_at: stamp(job.created_at),
            runnable_at: stamp(job.created_at),
            started_at: stamp(job.started_at.unwrap_or(job.created_at)),
            finished_at: ended.then(|| stamp(job.finished_at)),
            r#async: *asynchronous,
            triggered_build: Some(another_build(&triggered.0, triggered.1, *pipeline)),
        })),
        Kind::Manual { label } => body::Job::Manual(body::Manual {
            id: &job.id,
            r#type: "manual",
            label,
            state,
            web_url: None,
            unblocked_by: ROLE,
            unblocked_at: stamp(job.finished_at),
            unblockable: false,
            unblock_url: format!("{build_url}/jobs/{}/unblock", job.id),
        }),
        Kind::Waiter => body::Job::Waiter { id: &job.id, r#type: "waiter", state },
    }
}

/// Who unblocks and retries: a role.
const ROLE: Person<'static> = Person { id: "75fb4225-3833-4860-8ca7-061c0654ce4b", name: "release-captain" };

fn another_build(id: &str, number: u64, pipeline: usize) -> body::TriggeredBuild<'_> {
    let (url, web_url) = build_urls(pipeline, number);
    body::TriggeredBuild { id, number, url, web_url }
}

/// The API's address and that of the page.
fn build_urls(pipeline: usize, number: u64) -> (String, String) {
    let slug = PIPELINES[pipeline].slug;
    let url = format!("{}/builds/{number}", body::pipeline_url(slug));
    (url, format!("https://buildkite.com/{SLUG}/{slug}/builds/{number}"))
}

//! The counting rules once more, straight from their wording: which effects a delivery has.

use super::facts::{Build, Job, Kind};
use super::organization::{Organization, QUEUES, SLUG};
use super::tell::{Phase, View};
use super::truth::{Effect, Series, Value};
use crate::event::Timestamp;

/// Collects the effects of one delivery.
pub(super) struct Rules<'a> {
    organization: &'a Organization,
    build: &'a Build,
    pub(super) effects: Vec<Effect>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(organization: &'a Organization, build: &'a Build) -> Self {
        Self { organization, build, effects: Vec::new() }
    }

    pub(super) fn build_scheduled(&mut self) {
        let source = self.build.source;
        let once = format!("build.scheduled {}", self.build.id);
        self.one(once, self.of_build("buildkite_builds_scheduled_total", &[("source", source)]));
    }

    pub(super) fn build_started(&mut self, started_at: Timestamp) {
        let once = format!("build.running {} {}", self.build.id, started_at.as_millis());
        self.one(once, self.of_build("buildkite_builds_started_total", &[]));
    }

    pub(super) fn build_failing(&mut self, failing_at: Timestamp, started_at: Option<Timestamp>) {
        let once = format!("build.failing {} {}", self.build.id, failing_at.as_millis());
        self.one(once.clone(), self.of_build("buildkite_builds_failing_total", &[]));
        let series = self.of_pipeline("buildkite_build_time_to_failing_seconds", &[]);
        self.lasted(once, series, started_at, Some(failing_at));
    }

    /// Whatever the body of a `build.finished` shows.
    pub(super) fn build_finished(&mut self, view: &View) {
        let state = match view.state {
            "running" => "unknown",
            "canceled" => "canceled",
            _ if view.blocked => "blocked",
            state => state,
        };
        let end = view.finished_at.map(Timestamp::as_millis);
        let once = format!("build.finished {} {state} {end:?}", self.build.id);
        self.one(once.clone(), self.of_build("buildkite_builds_finished_total", &[("state", state)]));
        if let Some(finished_at) = view.finished_at {
            let series = self.of_build("buildkite_build_last_finished_timestamp_seconds", &[("state", state)]);
            self.push(format!("{once} latest"), series, Value::Latest(finished_at), None);
        }
        if matches!(state, "passed" | "failed" | "canceled") {
            let series = self.of_build("buildkite_build_duration_seconds", &[("state", state)]);
            self.lasted(once, series, view.started_at, view.finished_at);
        }
    }

    pub(super) fn build_skipped(&mut self) {
        let once = format!("build.skipped {}", self.build.id);
        self.one(once, self.of_build("buildkite_builds_finished_total", &[("state", "skipped")]));
    }

    pub(super) fn job_scheduled(&mut self, job: &Job) {
        let labels = self.queue_of(job, Phase::Waiting);
        let series = self.of_pipeline("buildkite_jobs_scheduled_total", &labels);
        self.one(format!("job.scheduled {}", job.id), series);
    }

    pub(super) fn job_started(&mut self, job: &Job) {
        let labels = self.queue_of(job, Phase::Running);
        self.one(format!("job.started {}", job.id), self.of_pipeline("buildkite_jobs_started_total", &labels));
    }

    pub(super) fn job_promised(&mut self, job: &Job) {
        let series = self.of_pipeline("buildkite_job_promised_failures_total", &[]);
        self.one(format!("job.promised {}", job.id), series);
    }

    /// The block step was unblocked; `blocked_at` is the end of the blocked build, when the body still says it.
    pub(super) fn job_activated(&mut self, job: &Job, blocked_at: Option<Timestamp>) {
        let once = format!("job.activated {}", job.id);
        self.one(once.clone(), self.of_pipeline("buildkite_jobs_activated_total", &[]));
        let unblocked_at = self.build.time(job.finished_at);
        let series = self.of_pipeline("buildkite_build_blocked_seconds", &[]);
        self.lasted(once, series, blocked_at, Some(unblocked_at));
    }

    pub(super) fn job_finished(&mut self, job: &Job) {
        let once = format!("job.finished {}", job.id);
        let outcome = job.outcome;
        let state = if outcome.stale { "unknown" } else { outcome.state };
        let [cluster, queue] = self.queue_of(job, Phase::Over);
        let kind = match job.kind {
            Kind::Script { .. } => "script",
            Kind::Trigger { .. } => "trigger",
            Kind::Manual { .. } => "manual",
            Kind::Waiter => "waiter",
        };
        let soft_failed = if outcome.soft_failed { "true" } else { "false" };
        let labels = [cluster, queue, ("type", kind), ("state", state), ("soft_failed", soft_failed)];
        self.one(once.clone(), self.of_pipeline("buildkite_jobs_finished_total", &labels));
        if kind != "script" || outcome.stale {
            return;
        }
        let started_at = job.started_at.map(|at| self.build.time(at));
        let finished_at = self.build.time(job.finished_at);
        let series = self.of_pipeline("buildkite_job_duration_seconds", &[cluster, queue, ("state", state)]);
        self.lasted(once.clone(), series, started_at, Some(finished_at));
        if let Some(millis) = job.concurrency_wait {
            let series = self.of_pipeline("buildkite_job_concurrency_wait_seconds", &[]);
            self.push(format!("{once} concurrency"), series, Value::Observed { millis }, None);
        }
        if outcome.is_failure() {
            let exit_status = outcome.exit_status.map(|status| status.to_string()).unwrap_or_default();
            let reason = outcome.signal_reason.unwrap_or_default();
            let labels = [cluster, queue, ("exit_status", exit_status.as_str()), ("signal_reason", reason)];
            self.one(format!("{once} failure"), self.of_pipeline("buildkite_job_failures_total", &labels));
        }
        if job.retry.is_some() && state == "passed" {
            let series = self.of_pipeline("buildkite_job_flaky_recoveries_total", &[]);
            self.one(format!("{once} recovery"), series);
        }
    }

    /// What any delivery tells of its subject, whatever the event: waits, retries, rebuilds. The build inside a job's
    /// body may be older or newer than the event, so it tells nothing.
    pub(super) fn every_delivery(&mut self, event: &str, view: &View, job: Option<(&Job, Phase)>) {
        let of_build = event.starts_with("build.");
        if let Some(started_at) = view.started_at.filter(|_| of_build) {
            let once = format!("build.wait {} {}", self.build.id, started_at.as_millis());
            let series = self.of_build("buildkite_build_wait_seconds", &[]);
            let scheduled_at = self.build.time(self.build.scheduled_at);
            if let Some(millis) = between(scheduled_at, started_at) {
                let needs = (event != "build.running").then_some(started_at);
                self.push(once, series, Value::Observed { millis }, needs);
            }
        }
        if of_build && self.build.rebuilt_from.is_some() {
            let once = format!("build.rebuilt {}", self.build.id);
            self.one(once, self.of_pipeline("buildkite_builds_rebuilt_total", &[]));
        }
        let Some((job, phase)) = job else { return };
        let started_at = job.started_at.filter(|_| phase != Phase::Waiting).map(|at| self.build.time(at));
        let needs = started_at.filter(|_| event != "job.started");
        if let (Kind::Script { .. }, Some(started_at), Some(runnable_at)) = (&job.kind, started_at, job.runnable_at) {
            let series = self.of_pipeline("buildkite_job_wait_seconds", &self.queue_of(job, phase));
            if let Some(millis) = between(self.build.time(runnable_at), started_at) {
                self.push(format!("job.wait {}", job.id), series, Value::Observed { millis }, needs);
            }
        }
        if let Some(retry) = &job.retry {
            let series = self.of_pipeline("buildkite_job_retries_total", &[("retry_type", retry.kind)]);
            self.push(format!("job.retry {}", job.id), series, Value::One, needs);
        }
    }

    /// The labels `buildkite_cluster` and `queue`, by what the body of that phase shows.
    fn queue_of(&self, job: &Job, phase: Phase) -> [(&'static str, &'a str); 2] {
        let (queue, cluster) = match job.kind {
            Kind::Script { step, .. } => {
                let (name, cluster, _) = QUEUES[step.queue];
                let shown = step.has_rule || (job.agent.is_some() && phase != Phase::Waiting);
                (if shown { name } else { "default" }, cluster)
            }
            _ => ("default", self.build.recipe().cluster),
        };
        let cluster = cluster.map_or("", |cluster| self.organization.clusters[cluster].id.as_str());
        [("buildkite_cluster", cluster), ("queue", queue)]
    }

    fn of_pipeline(&self, family: &'static str, labels: &[(&'static str, &str)]) -> Series {
        let mut all = vec![("organization", SLUG), ("pipeline", self.build.recipe().slug)];
        all.extend_from_slice(labels);
        Series::new(family, &all)
    }

    fn of_build(&self, family: &'static str, labels: &[(&'static str, &str)]) -> Series {
        let mut all = vec![("branch", self.build.branch.label(self.build.recipe()))];
        all.extend_from_slice(labels);
        self.of_pipeline(family, &all)
    }

    fn one(&mut self, once: String, series: Series) {
        self.push(once, series, Value::One, None);
    }

    fn lasted(&mut self, once: String, series: Series, from: Option<Timestamp>, to: Option<Timestamp>) {
        if let Some(millis) = from.zip(to).and_then(|(from, to)| between(from, to)) {
            self.push(format!("{once} lasted"), series, Value::Observed { millis }, None);
        }
    }

    fn push(&mut self, once: String, series: Series, value: Value, needs_history_since: Option<Timestamp>) {
        self.effects.push(Effect { once, series, value, needs_history_since });
    }
}

/// How long from one time of a payload to another: nothing when that is negative by a second or more, for then one of
/// them is wrong; zero when it is negative by less, for Buildkite truncates.
fn between(from: Timestamp, to: Timestamp) -> Option<i64> {
    let millis = to.millis_since(from);
    (millis > -1000).then_some(millis.max(0))
}

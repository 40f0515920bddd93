//! What is true of one build and its jobs, before anybody tells it.

use super::organization::{Clock, PIPELINES, Recipe, Step};
use crate::event::Timestamp;

/// A build, without what changes while it runs.
#[derive(Debug)]
pub(super) struct Build {
    pub(super) id: String,
    pub(super) number: u64,
    /// Index into [`PIPELINES`].
    pub(super) pipeline: usize,
    pub(super) branch: Branch,
    pub(super) source: &'static str,
    pub(super) creator: Option<&'static str>,
    pub(super) message: &'static str,
    pub(super) commit: String,
    pub(super) created_at: i64,
    pub(super) scheduled_at: i64,
    /// Id and number.
    pub(super) rebuilt_from: Option<(String, u64)>,
    /// Id, number and pipeline of the build with the trigger step.
    pub(super) triggered_from: Option<(String, u64, usize)>,
}

impl Build {
    pub(super) fn recipe(&self) -> &'static Recipe {
        &PIPELINES[self.pipeline]
    }

    /// A time as the bodies of this build's pipeline can say it.
    pub(super) fn time(&self, millis: i64) -> Timestamp {
        Timestamp::from_millis(match self.recipe().clock {
            Clock::Millis => millis,
            Clock::Seconds => millis - millis.rem_euclid(1000),
        })
    }
}

/// Where a build's commit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Branch {
    Default,
    Feature(String),
    /// With a `pull_request` object.
    PullRequest {
        branch: String,
        number: u32,
    },
    /// The branch of a fork, with its owner's prefix and no `pull_request` object.
    Fork(String),
    Tag(String),
    /// With or without the `merge_queue` object.
    MergeQueue {
        branch: String,
        has_object: bool,
    },
}

impl Branch {
    /// `build.branch`.
    pub(super) fn name<'a>(&'a self, recipe: &'a Recipe) -> &'a str {
        match self {
            Self::Default => recipe.default_branch,
            Self::Feature(name) | Self::Fork(name) | Self::Tag(name) => name,
            Self::PullRequest { branch, .. } | Self::MergeQueue { branch, .. } => branch,
        }
    }

    /// The label, with no `labels.branches.keep`.
    pub(super) fn label<'a>(&'a self, recipe: &'a Recipe) -> &'a str {
        match self {
            Self::Default => recipe.default_branch,
            Self::Feature(_) => "other",
            Self::PullRequest { .. } | Self::Fork(_) => "pull_request",
            Self::Tag(_) => "tag",
            Self::MergeQueue { .. } => "merge_queue",
        }
    }
}

/// A job; all times in milliseconds since the epoch.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) created_at: i64,
    pub(super) runnable_at: Option<i64>,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: i64,
    pub(super) outcome: Outcome,
    pub(super) retry: Option<Retry>,
    /// Index of the agent that ran it.
    pub(super) agent: Option<usize>,
    pub(super) concurrency_wait: Option<i64>,
    /// When it promised its failing exit status.
    pub(super) promised_at: Option<i64>,
}

/// `job.type`, with what only that type has.
#[derive(Debug)]
pub(super) enum Kind {
    Script {
        step: &'static Step,
        /// Position in its parallel group.
        index: usize,
    },
    Trigger {
        pipeline: usize,
        asynchronous: bool,
        /// Id and number of the triggered build.
        triggered: (String, u64),
    },
    Manual {
        label: &'static str,
    },
    Waiter,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) state: &'static str,
    pub(super) exit_status: Option<i64>,
    pub(super) signal: Option<&'static str>,
    pub(super) signal_reason: Option<&'static str>,
    pub(super) soft_failed: bool,
    /// The delivery shows a later version of the job, which is not at its end.
    pub(super) stale: bool,
}

impl Outcome {
    pub(super) const PASSED: Self = Self {
        state: "passed",
        exit_status: Some(0),
        signal: None,
        signal_reason: None,
        soft_failed: false,
        stale: false,
    };
    /// Canceled before it started.
    pub(super) const CANCELED: Self = Self { state: "canceled", exit_status: None, ..Self::PASSED };
    /// Canceled while it ran.
    pub(super) const STOPPED: Self = Self {
        state: "canceled",
        exit_status: Some(255),
        signal: Some("SIGTERM"),
        signal_reason: Some("cancel"),
        ..Self::PASSED
    };
    pub(super) const EXPIRED: Self = Self { state: "expired", exit_status: None, ..Self::PASSED };
    pub(super) const BROKEN: Self = Self { state: "broken", exit_status: None, ..Self::PASSED };
    pub(super) const TIMED_OUT: Self = Self { state: "timed_out", exit_status: Some(255), ..Self::PASSED };
    /// Its agent was lost.
    pub(super) const LOST: Self = Self { state: "failed", exit_status: Some(-1), ..Self::PASSED };
    pub(super) const STALE: Self = Self { state: "running", exit_status: None, stale: true, ..Self::PASSED };
    /// What waiters say at their end.
    pub(super) const FINISHED: Self = Self { state: "finished", exit_status: None, ..Self::PASSED };

    pub(super) const fn failed(exit_status: i64) -> Self {
        Self { state: "failed", exit_status: Some(exit_status), ..Self::PASSED }
    }

    /// Whether it is one of `buildkite_job_failures_total`.
    pub(super) fn is_failure(&self) -> bool {
        !self.soft_failed && matches!(self.state, "failed" | "timed_out" | "expired" | "broken")
    }
}

/// `job.retry_source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) of: String,
    pub(super) kind: &'static str,
    pub(super) count: u32,
}

/// What becomes of a build at one moment. Jobs by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Scheduled,
    Running { started_at: i64 },
    Failing { failing_at: i64 },
    Finished { state: &'static str, finished_at: Option<i64>, blocked: bool, seen: Seen },
    Skipped { event: &'static str },
    JobScheduled(usize),
    JobStarted(usize),
    JobPromised(usize),
    JobFinished(usize),
    JobActivated { job: usize, resumed: bool },
}

/// Which version of a finished build the delivery shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The one that finished.
    Finished,
    /// A later one, running again.
    RunningAgain,
}

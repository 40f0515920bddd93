//! Label values: what an event says, made bounded and readable by the configured policy.

use std::borrow::Cow;
use std::collections::BTreeMap;

use regex::RegexSet;

use super::source::Source;
use crate::config;
use crate::config::Problem;
use crate::event::{Build, Event, Job, Subject};
use crate::ledger::in_flight::InFlight;

/// What `queue` is when nothing names one.
pub const DEFAULT_QUEUE: &str = "default";

/// The classes that branches fall into, besides a default branch's own name and kept names.
pub const BRANCH_CLASSES: [&str; 4] = ["pull_request", "tag", "merge_queue", "other"];

/// The policy: kept branches and configured names.
#[derive(Clone, Debug, Default)]
pub struct Labeler {
    keep: RegexSet,
    clusters: BTreeMap<String, String>,
    cluster_queues: BTreeMap<String, String>,
}

/// What effects of one event share.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The event.
    pub event: &'a Event,
    /// The value of `state`, where it is not the body's own word.
    pub state: Option<&'a str>,
    /// The value of `soft_failed`, where it is not the body's own.
    pub soft_failed: Option<bool>,
}

impl Labeler {
    /// From `labels`.
    ///
    /// # Errors
    ///
    /// When a kept branch is no regular expression; the configuration's own validation says so earlier.
    pub fn new(labels: &config::Labels) -> Result<Self, Problem> {
        let anchored = labels.branches.keep.iter().map(|pattern| format!("^(?:{pattern})$"));
        let keep = RegexSet::new(anchored).map_err(|error| Problem::new("labels.branches.keep", error.to_string()))?;
        Ok(Self { keep, clusters: labels.clusters.clone(), cluster_queues: labels.cluster_queues.clone() })
    }

    /// The value of a label, before any limit.
    pub fn value<'a>(&'a self, source: &Source, context: &Context<'a>) -> Cow<'a, str> {
        let event = context.event;
        let (job, build) = match &event.subject {
            Subject::Build(build) => (None, Some(&**build)),
            Subject::Job(job, build) => (Some(&**job), Some(&**build)),
            Subject::Agent(_) | Subject::RegistrationBlocked { .. } | Subject::Nothing => (None, None),
        };
        match source {
            Source::Organization => (&*event.organization).into(),
            Source::Queue => match (&event.subject, job) {
                (_, Some(job)) => self.queue(job.queue.as_deref(), job.cluster_queue_id.as_deref()).into(),
                (Subject::Agent(agent), _) => agent.queue.as_deref().unwrap_or(DEFAULT_QUEUE).into(),
                _ => DEFAULT_QUEUE.into(),
            },
            Source::AgentEvent => event.name.as_str().into(),
            Source::State => match (context.state, job, build) {
                (Some(state), ..) => state.into(),
                (None, Some(job), _) => (&*job.state).into(),
                (None, None, Some(build)) => (&*build.state).into(),
                (None, None, None) => "".into(),
            },
            Source::SoftFailed => {
                let soft_failed = context.soft_failed.or(job.map(|job| job.soft_failed));
                soft_failed.map_or("", |soft| if soft { "true" } else { "false" }).into()
            }
            source => match (self.of_job(source, job), build) {
                (Some(value), _) => value,
                (None, Some(build)) => self.of_build(source, build),
                (None, None) => "".into(),
            },
        }
    }

    fn of_job<'a>(&'a self, source: &Source, job: Option<&'a Job>) -> Option<Cow<'a, str>> {
        let job = job?;
        Some(match source {
            Source::Cluster => self.cluster(job.cluster_id.as_deref()).into(),
            Source::JobType => job.kind.as_str().into(),
            Source::ExitStatus => job.exit_status.map_or("".into(), |status| status.to_string().into()),
            Source::SignalReason => job.signal_reason.as_deref().unwrap_or_default().into(),
            Source::RetryType => job.retry.as_ref().map_or("", |retry| retry.as_str()).into(),
            Source::StepKey => job.step_key.as_deref().unwrap_or_default().into(),
            _ => return None,
        })
    }

    fn of_build<'a>(&'a self, source: &Source, build: &'a Build) -> Cow<'a, str> {
        match source {
            Source::Pipeline => (&*build.pipeline.slug).into(),
            Source::Branch => self.branch(build).into(),
            Source::BuildSource => build.source.as_deref().unwrap_or_default().into(),
            Source::DefaultBranch => (&*build.pipeline.default_branch).into(),
            Source::Creator => build.creator.as_deref().unwrap_or_default().into(),
            Source::Commit => (&*build.commit).into(),
            Source::BuildId => (&*build.id.0).into(),
            Source::BuildNumber => build.number.map_or("".into(), |number| number.to_string().into()),
            Source::Extra(wanted) => {
                build.extra.iter().find(|(source, _)| source == wanted).map_or("", |(_, value)| value).into()
            }
            _ => "".into(),
        }
    }

    /// The class of a build's branch. A fork's branch that happens to be named like the default branch, or like a kept
    /// one, is still a pull request; so is any branch with an owner prefix, which no branch of the repository can have.
    pub fn branch<'a>(&self, build: &'a Build) -> &'a str {
        let name = &*build.branch;
        if build.pull_request || name.contains(':') {
            "pull_request"
        } else if build.tagged {
            "tag"
        } else if build.merge_queue {
            "merge_queue"
        } else if !name.is_empty()
            && (name == &*build.pipeline.default_branch || self.keep.is_match(name))
            && !BRANCH_CLASSES.contains(&name)
        {
            name
        } else {
            "other"
        }
    }

    fn queue<'a>(&'a self, name: Option<&'a str>, cluster_queue_id: Option<&str>) -> &'a str {
        name.or_else(|| self.cluster_queues.get(cluster_queue_id?).map(String::as_str)).unwrap_or(DEFAULT_QUEUE)
    }

    fn cluster<'a>(&'a self, id: Option<&'a str>) -> &'a str {
        id.map_or("", |id| self.clusters.get(id).map_or(id, String::as_str))
    }

    /// The value of a label of a gauge.
    pub fn in_flight<'a>(&'a self, source: &Source, entry: &'a InFlight) -> &'a str {
        match source {
            Source::Organization => &entry.organization,
            Source::Pipeline => &entry.pipeline,
            Source::Cluster => self.cluster(entry.cluster_id.as_deref()),
            Source::Queue => self.queue(entry.queue.as_deref(), entry.cluster_queue_id.as_deref()),
            _ => "",
        }
    }
}

//! Every `buildkite_*` family: name, type, labels, buckets, help; and the catalogue as a configuration makes it.
//!
//! Names that others own are never used here: `buildkite_total_*` and `buildkite_queues_*` (buildkite-agent-metrics),
//! `buildkite_agent_*` (the agent), `buildkite_{scheduler,monitor,limiter,deduper,job_watcher,completion_watcher}_*`
//! (agent-stack-k8s).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::source::{Label, Source};
use crate::config;
use crate::config::Problem;
use crate::event::ExtraSource;

/// Seconds. From "an agent was free" to half a working day in the queue: where a wait starts to hurt is between 30 s
/// and 5 min, so most bounds are there.
pub const WAIT_BUCKETS: &[f64] = &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0];

/// Seconds. A lint job takes ten, a release two hours; a factor of about two between bounds keeps a p95 within its
/// bucket's width at ten buckets a series.
pub const DURATION_BUCKETS: &[f64] = &[10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0];

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Goes up by one per counted event.
    Counter,
    /// Durations, with these default bounds in seconds.
    Histogram(&'static [f64]),
    /// What is now.
    Gauge,
}

impl Kind {
    /// Prometheus' word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Histogram(_) => "histogram",
            Self::Gauge => "gauge",
        }
    }
}

/// What the events of a family are about, which decides the labels that it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Builds.
    Build,
    /// Jobs, each with its build.
    Job,
    /// Agents.
    Agent,
    /// Pipelines, queues or an organization as they are now: their labels are fixed.
    Now,
    /// Single builds: the families that may name commits and ids.
    OneBuild,
}

/// One family of the catalogue, as it is without configuration.
#[derive(Debug)]
pub struct Family {
    /// Its place in [`FAMILIES`].
    pub id: FamilyId,
    /// Its name in Prometheus.
    pub name: &'static str,
    /// Counter, histogram or gauge.
    pub kind: Kind,
    /// What it is about.
    pub about: About,
    /// Its labels; `organization` is always the first.
    pub labels: &'static [Source],
    /// One sentence for people who read `/metrics`.
    pub help: &'static str,
}

impl Family {
    /// Whether its value is a moment, of which the greatest or the least counts.
    pub fn is_moment(&self) -> bool {
        matches!(self.id, FamilyId::BuildLastFinished | FamilyId::JobOldestWaiting)
    }
}

macro_rules! families {
    ($($id:ident $name:literal $kind:expr, $about:ident, [$($label:ident),*], $help:literal;)*) => {
        /// A family's place in [`FAMILIES`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the table below says what each is")]
        pub enum FamilyId { $($id,)* }

        /// The catalogue.
        pub static FAMILIES: &[Family] = &[$(Family {
            id: FamilyId::$id,
            name: $name,
            kind: $kind,
            about: About::$about,
            labels: &[Source::Organization, $(Source::$label),*],
            help: $help,
        },)*];
    };
}

const WAIT: Kind = Kind::Histogram(WAIT_BUCKETS);
const DURATION: Kind = Kind::Histogram(DURATION_BUCKETS);

families! {
    BuildsScheduled "buildkite_builds_scheduled_total" Kind::Counter, Build, [Pipeline, Branch, BuildSource],
        "Builds scheduled.";
    BuildsStarted "buildkite_builds_started_total" Kind::Counter, Build, [Pipeline, Branch],
        "Builds started; a build that was unblocked or retried and starts anew has started twice.";
    BuildsFailing "buildkite_builds_failing_total" Kind::Counter, Build, [Pipeline, Branch],
        "Builds in which a job failed while others still ran.";
    BuildsFinished "buildkite_builds_finished_total" Kind::Counter, Build, [Pipeline, Branch, State],
        "Builds finished, by state; blocked and skipped are states, unknown is a delivery that no longer knew it.";
    BuildsRebuilt "buildkite_builds_rebuilt_total" Kind::Counter, Build, [Pipeline],
        "Builds that rebuild another one.";
    BuildDuration "buildkite_build_duration_seconds" DURATION, Build, [Pipeline, Branch, State],
        "From a build's start to its end, of builds that passed, failed or were canceled.";
    BuildWait "buildkite_build_wait_seconds" WAIT, Build, [Pipeline, Branch],
        "From a build's scheduling to its start.";
    BuildTimeToFailing "buildkite_build_time_to_failing_seconds" DURATION, Build, [Pipeline],
        "From a build's start to the first failure in it.";
    BuildBlocked "buildkite_build_blocked_seconds" DURATION, Build, [Pipeline],
        "How long a build was blocked until somebody unblocked it.";
    BuildsRunning "buildkite_builds_running" Kind::Gauge, Now, [Pipeline],
        "Builds that run now.";
    BuildsBlocked "buildkite_builds_blocked" Kind::Gauge, Now, [Pipeline],
        "Builds that wait for somebody to unblock them now.";
    BuildLastFinished "buildkite_build_last_finished_timestamp_seconds" Kind::Gauge, Build, [Pipeline, Branch, State],
        "When a build last finished, since the Unix epoch; the greatest time seen.";
    PipelineInfo "buildkite_pipeline_info" Kind::Gauge, Now, [Pipeline, DefaultBranch],
        "Always 1; the labels say what the pipeline's default branch is.";
    JobsScheduled "buildkite_jobs_scheduled_total" Kind::Counter, Job, [Pipeline, Cluster, Queue],
        "Jobs scheduled to run on an agent.";
    JobsStarted "buildkite_jobs_started_total" Kind::Counter, Job, [Pipeline, Cluster, Queue],
        "Jobs that an agent started.";
    JobsFinished "buildkite_jobs_finished_total" Kind::Counter, Job,
        [Pipeline, Cluster, Queue, JobType, State, SoftFailed],
        "Jobs finished, by type and state; a retry is a job of its own.";
    JobsActivated "buildkite_jobs_activated_total" Kind::Counter, Job, [Pipeline],
        "Block steps that somebody unblocked.";
    JobDuration "buildkite_job_duration_seconds" DURATION, Job, [Pipeline, Cluster, Queue, State],
        "From a command job's start to its end.";
    JobWait "buildkite_job_wait_seconds" WAIT, Job, [Pipeline, Cluster, Queue],
        "From the moment a command job could run to its start on an agent.";
    JobConcurrencyWait "buildkite_job_concurrency_wait_seconds" WAIT, Job, [Pipeline],
        "How long a command job waited for its concurrency group.";
    JobFailures "buildkite_job_failures_total" Kind::Counter, Job,
        [Pipeline, Cluster, Queue, ExitStatus, SignalReason],
        "Command jobs that failed, timed out, expired or broke; neither canceled nor soft-failed ones.";
    JobRetries "buildkite_job_retries_total" Kind::Counter, Job, [Pipeline, RetryType],
        "Jobs that retry another one.";
    JobFlakyRecoveries "buildkite_job_flaky_recoveries_total" Kind::Counter, Job, [Pipeline],
        "Retries that passed.";
    JobPromisedFailures "buildkite_job_promised_failures_total" Kind::Counter, Job, [Pipeline],
        "Jobs that announced a failing exit status before their end.";
    JobsWaiting "buildkite_jobs_waiting" Kind::Gauge, Now, [Cluster, Queue],
        "Jobs that wait for an agent now.";
    JobsRunning "buildkite_jobs_running" Kind::Gauge, Now, [Cluster, Queue],
        "Jobs that run now.";
    JobOldestWaiting "buildkite_job_oldest_waiting_timestamp_seconds" Kind::Gauge, Now, [Cluster, Queue],
        "Since when the job that waits longest could run, since the Unix epoch; absent when nothing waits.";
    AgentsTransitions "buildkite_agents_transitions_total" Kind::Counter, Agent, [Queue, AgentEvent],
        "Agents that connected, were lost, disconnected or stopped, by event.";
    AgentsRegistrationsBlocked "buildkite_agents_registrations_blocked_total" Kind::Counter, Now, [],
        "Agent registrations refused because of their address.";
    RecentBuildInfo "buildkite_recent_build_info" Kind::Gauge, OneBuild,
        [Pipeline, Branch, Commit, BuildId, BuildNumber, State],
        "Always 1; one of the last builds of a pipeline.";
    RecentBuildDuration "buildkite_recent_build_duration_seconds" Kind::Gauge, OneBuild,
        [Pipeline, Branch, Commit, BuildId, BuildNumber, State],
        "From start to end of one of the last builds of a pipeline.";
}

/// A family as configured.
#[derive(Clone, Debug)]
pub struct Configured {
    /// What it is without configuration.
    pub family: &'static Family,
    /// Whether anything is counted and exposed for it.
    pub enabled: bool,
    /// Its labels in order, the constant ones not among them.
    pub labels: Arc<[Label]>,
    /// Upper bounds in seconds, ascending, without +Inf; empty unless it is a histogram.
    pub buckets: Arc<[f64]>,
}

impl Configured {
    /// Exposition lines of one series: a histogram has its buckets, +Inf, sum and count.
    pub fn samples_per_series(&self) -> usize {
        match self.family.kind {
            Kind::Histogram(_) => self.buckets.len() + 3,
            Kind::Counter | Kind::Gauge => 1,
        }
    }

    /// What must stay the same for stored totals to stay comparable: labels and buckets, in words.
    pub fn layout(&self, constant: &[(Arc<str>, Arc<str>)]) -> String {
        let mut layout = String::new();
        for label in self.labels.iter() {
            layout.push_str(&label.name);
            layout.push('=');
            layout.push_str(&label.source.to_string());
            layout.push(' ');
        }
        for (name, value) in constant {
            layout.push_str(&format!("{name}={value:?} "));
        }
        for bound in self.buckets.iter() {
            layout.push_str(&format!("{bound} "));
        }
        layout.truncate(layout.trim_end().len());
        layout
    }
}

/// The catalogue as configured.
#[derive(Clone, Debug)]
pub struct Catalogue {
    families: Vec<Configured>,
    /// Labels that every family gets: name and value.
    pub constant: Vec<(Arc<str>, Arc<str>)>,
    /// How many builds of each pipeline have series of their own.
    pub recent_builds: usize,
}

impl Catalogue {
    /// Applies `families` and `labels` to the defaults.
    ///
    /// # Errors
    ///
    /// Every mistake, each with its key and what is allowed.
    pub fn new(families: &BTreeMap<String, config::Family>, labels: &config::Labels) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        for name in families.keys() {
            if !FAMILIES.iter().any(|family| family.name == name) {
                let nearest = nearest(name, FAMILIES.iter().map(|family| family.name));
                problems.push(Problem::new(
                    format!("families.{name}"),
                    format!("there is no such family; the nearest is {nearest} (`kitepush metrics` lists all)"),
                ));
            }
        }
        let recent_builds = labels.recent_builds.per_pipeline > 0;
        let configured = FAMILIES
            .iter()
            .map(|family| match families.get(family.name) {
                Some(settings) => configure(family, settings, recent_builds, &mut problems),
                None => Configured {
                    family,
                    enabled: family.about != About::OneBuild || recent_builds,
                    labels: family.labels.iter().cloned().map(Label::new).collect(),
                    buckets: default_buckets(family),
                },
            })
            .collect::<Vec<_>>();
        for name in labels.constant.keys() {
            if let Some(taken) = configured.iter().find(|c| c.labels.iter().any(|label| *label.name == **name)) {
                problems.push(Problem::new(
                    format!("labels.constant.{name}"),
                    format!("{} has a label of that name already; choose another", taken.family.name),
                ));
            }
        }
        too_small(&configured, &labels.limits, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let constant = labels.constant.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into()));
        let recent_builds = labels.recent_builds.per_pipeline;
        Ok(Self { families: configured, constant: constant.collect(), recent_builds })
    }

    /// A family as configured.
    pub fn get(&self, id: FamilyId) -> &Configured {
        &self.families[id as usize]
    }

    /// All families, in order, the disabled ones too.
    pub fn iter(&self) -> impl Iterator<Item = &Configured> {
        self.families.iter()
    }

    /// The `meta_data` and `env` sources that any family asks for.
    pub fn extra(&self) -> Vec<ExtraSource> {
        let mut extra: Vec<_> = self
            .families
            .iter()
            .filter(|configured| configured.enabled)
            .flat_map(|configured| configured.labels.iter())
            .filter_map(|label| match &label.source {
                Source::Extra(extra) => Some(extra.clone()),
                _ => None,
            })
            .collect();
        extra.sort();
        extra.dedup();
        extra
    }
}

fn default_buckets(family: &Family) -> Arc<[f64]> {
    match family.kind {
        Kind::Histogram(bounds) => bounds.into(),
        Kind::Counter | Kind::Gauge => Arc::new([]),
    }
}

fn configure(
    family: &'static Family,
    settings: &config::Family,
    recent_builds: bool,
    problems: &mut Vec<Problem>,
) -> Configured {
    let key = |rest: String| format!("families.{}.{rest}", family.name);
    let mut labels: Vec<Label> = family.labels.iter().cloned().map(Label::new).collect();
    for (index, name) in settings.drop_labels.iter().enumerate() {
        let dropped = Source::parse(name).ok();
        match labels.iter().position(|label| Some(&label.source) == dropped.as_ref() || *label.name == **name) {
            Some(at) => {
                labels.remove(at);
            }
            None => {
                let allowed: Vec<_> = labels.iter().map(|label| label.name.to_string()).collect();
                problems.push(Problem::new(
                    key(format!("drop_labels[{index}]")),
                    format!("{name} is not a label of this family; it has {}", allowed.join(", ")),
                ));
            }
        }
    }
    if matches!(family.about, About::Now | About::OneBuild) && !settings.drop_labels.is_empty() {
        problems.push(Problem::new(
            key("drop_labels".to_owned()),
            "the labels of this family are fixed: it shows entry by entry; set enabled: false to drop it whole",
        ));
    }
    for (index, name) in settings.labels.iter().enumerate() {
        let key = key(format!("labels[{index}]"));
        let source = match Source::parse(name) {
            Ok(source) => source,
            Err(why) => {
                problems.push(Problem::new(key, why));
                continue;
            }
        };
        if let Err(why) = source.allowed_on(family) {
            problems.push(Problem::new(key, why));
            continue;
        }
        let label = Label::new(source);
        if labels.iter().any(|other| other.name == label.name) {
            problems.push(Problem::new(key, format!("this family has a label named {} already", label.name)));
            continue;
        }
        labels.push(label);
    }
    let buckets: Arc<[f64]> = match (&settings.buckets, family.kind) {
        (Some(bounds), Kind::Histogram(_)) => bounds.as_slice().into(),
        (Some(_), _) => {
            let message = format!("only histograms have buckets; this family is a {}", family.kind.as_str());
            problems.push(Problem::new(key("buckets".to_owned()), message));
            Arc::new([])
        }
        (None, _) => default_buckets(family),
    };
    let enabled = settings.enabled && (family.about != About::OneBuild || recent_builds);
    Configured { family, enabled, labels: labels.into(), buckets }
}

/// Every family must have room for the one series in which everything is over: what is counted is counted somewhere.
fn too_small(families: &[Configured], limits: &config::Limits, problems: &mut Vec<Problem>) {
    let enabled = || families.iter().filter(|configured| configured.enabled);
    let all: usize = enabled().map(Configured::samples_per_series).sum();
    if limits.samples < all {
        let message = format!(
            "must be at least {all}, one series of each family as configured, is {}; switch families off or use fewer \
             buckets",
            limits.samples
        );
        problems.push(Problem::new("labels.limits.samples", message));
    }
    if let Some(largest) = enabled().max_by_key(|configured| configured.samples_per_series())
        && limits.samples_per_family < largest.samples_per_series()
    {
        let message = format!(
            "must be at least {}, one series of {}, is {}",
            largest.samples_per_series(),
            largest.family.name,
            limits.samples_per_family
        );
        problems.push(Problem::new("labels.limits.samples_per_family", message));
    }
}

/// The candidate that looks most like `name`.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    candidates
        .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))
        .unwrap_or_default()
}

//! Where a label's value comes from: the names that a configuration may use, and where each may stand.

use std::fmt;
use std::sync::Arc;

use super::catalogue::{About, Family, nearest};
use crate::event::ExtraSource;

/// A label of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The label's name in Prometheus.
    pub name: Arc<str>,
    /// Where its value comes from.
    pub source: Source,
}

impl Label {
    /// A label with the name that belongs to its source.
    pub fn new(source: Source) -> Self {
        Self { name: source.label_name().into(), source }
    }
}

/// Where a label's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The organization's slug.
    Organization,
    /// The pipeline's slug.
    Pipeline,
    /// The branch's class, see [`super::labels`].
    Branch,
    /// `build.source`.
    BuildSource,
    /// Buildkite's word for a state, or blocked, skipped, unknown as the counting rules say.
    State,
    /// The queue.
    Queue,
    /// The configured name of the cluster, else its id.
    Cluster,
    /// `job.type`.
    JobType,
    /// `job.soft_failed`.
    SoftFailed,
    /// `job.exit_status`.
    ExitStatus,
    /// `job.signal_reason`.
    SignalReason,
    /// `retry_source.retry_type`.
    RetryType,
    /// An `agent.*` event.
    AgentEvent,
    /// `pipeline.default_branch`.
    DefaultBranch,
    /// `job.step_key`.
    StepKey,
    /// `build.creator.name`.
    Creator,
    /// `build.commit`.
    Commit,
    /// `build.id`.
    BuildId,
    /// `build.number`.
    BuildNumber,
    /// `meta_data.<key>` and `env.<KEY>`.
    Extra(ExtraSource),
}

/// A source as a configuration may name it.
#[derive(Debug)]
pub struct Known {
    /// Its own name, and that of the label.
    pub name: &'static str,
    /// The variables that people know from their pipelines (Buildkite docs, `pipelines/environment_variables`).
    pub aliases: &'static [&'static str],
    /// What its values are.
    pub means: &'static str,
    /// The source.
    pub source: Source,
}

macro_rules! names {
    ($($source:ident $name:literal [$($alias:literal),*] $means:literal;)*) => {
        /// Every source that has a fixed name.
        pub const NAMES: &[Known] =
            &[$(Known { name: $name, aliases: &[$($alias),*], means: $means, source: Source::$source },)*];
    };
}

names! {
    Organization "organization" ["BUILDKITE_ORGANIZATION_SLUG"]
        "the organization's slug";
    Pipeline "pipeline" ["BUILDKITE_PIPELINE_SLUG"]
        "the pipeline's slug";
    Branch "branch" ["BUILDKITE_BRANCH"]
        "the class of the branch: `pull_request`, `tag`, `merge_queue`, the default branch's name, a name of `labels.branches.keep`, or `other`";
    BuildSource "source" ["BUILDKITE_SOURCE"]
        "what made the build: `webhook`, `api`, `ui`, `schedule`, `trigger_job`, …";
    State "state" []
        "Buildkite's word for the state";
    Queue "queue" ["BUILDKITE_AGENT_META_DATA_QUEUE"]
        "the queue's name";
    Cluster "buildkite_cluster" ["BUILDKITE_CLUSTER_ID"]
        "the name in `labels.clusters`, else the cluster's id, else empty";
    JobType "type" []
        "the job's type: `script`, `trigger`, `manual`, `waiter`";
    SoftFailed "soft_failed" []
        "`true` or `false`";
    ExitStatus "exit_status" ["BUILDKITE_COMMAND_EXIT_STATUS"]
        "the command's exit status; -1 when the agent was lost";
    SignalReason "signal_reason" []
        "why a signal ended the job";
    RetryType "retry_type" ["BUILDKITE_RETRY_TYPE"]
        "who retried: `automatic`, `manual`";
    AgentEvent "event" []
        "the agent's event";
    DefaultBranch "default_branch" ["BUILDKITE_PIPELINE_DEFAULT_BRANCH"]
        "the pipeline's default branch";
    StepKey "step_key" ["BUILDKITE_STEP_KEY"]
        "the step's key";
    Creator "creator" ["BUILDKITE_BUILD_CREATOR", "BUILDKITE_BUILD_AUTHOR"]
        "the name of who made the build";
    Commit "commit" ["BUILDKITE_COMMIT"]
        "the commit: only in the families of `labels.recent_builds`";
    BuildId "build_id" ["BUILDKITE_BUILD_ID"]
        "the build's id: only in the families of `labels.recent_builds`";
    BuildNumber "number" ["BUILDKITE_BUILD_NUMBER"]
        "the build's number: only in the families of `labels.recent_builds`";
}

/// Parts of variable names that look as if the value were a secret.
const SECRET_WORDS: &[&str] = &["TOKEN", "SECRET", "KEY", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL"];

/// What people may know from their pipelines and what would make a series for every job, agent or build.
const UNBOUNDED: &[&str] = &[
    "job_id",
    "agent_id",
    "BUILDKITE_JOB_ID",
    "BUILDKITE_AGENT_ID",
    "BUILDKITE_AGENT_NAME",
    "BUILDKITE_BUILD_URL",
    "BUILDKITE_MESSAGE",
    "BUILDKITE_PULL_REQUEST",
    "BUILDKITE_TAG",
];

impl Source {
    /// From a name in a configuration.
    ///
    /// # Errors
    ///
    /// What is wrong with the name and what is allowed.
    pub fn parse(name: &str) -> Result<Self, String> {
        if let Some(known) = NAMES.iter().find(|known| known.name == name || known.aliases.contains(&name)) {
            return Ok(known.source.clone());
        }
        if let Some(key) = name.strip_prefix("meta_data.") {
            if key.is_empty() {
                return Err("meta_data. needs a key, for example meta_data.team".to_owned());
            }
            return Ok(Self::Extra(ExtraSource::MetaData(key.into())));
        }
        if UNBOUNDED.contains(&name.strip_prefix("env.").unwrap_or(name)) {
            return Err(format!("{name} {}", unbounded("family")));
        }
        if let Some(key) = name.strip_prefix("env.") {
            if key.is_empty() || key.contains('*') {
                return Err("env. needs the exact name of one variable, for example env.DEPLOY_TIER".to_owned());
            }
            // What Buildkite sets is in the body itself, and says what the policy for labels makes of it.
            if let Some(known) = NAMES.iter().find(|known| known.aliases.contains(&key)) {
                return Ok(known.source.clone());
            }
            let upper = key.to_ascii_uppercase();
            if let Some(word) = SECRET_WORDS.iter().find(|word| upper.contains(*word)) {
                return Err(format!(
                    "a variable whose name contains {word} may hold a secret and is never made a label; pass the value \
                     as build meta-data and use meta_data.<key>"
                ));
            }
            return Ok(Self::Extra(ExtraSource::Env(key.into())));
        }
        let known = NAMES.iter().flat_map(|known| std::iter::once(&known.name).chain(known.aliases)).copied();
        let own: Vec<_> = NAMES.iter().filter(|known| known.source.fits() != "none").map(|known| known.name).collect();
        Err(format!(
            "{name} is not a label source; the nearest is {}; allowed are {}, meta_data.<key>, env.<KEY> and the \
             BUILDKITE_* names that `kitepush metrics --sources` lists",
            nearest(name, known),
            own.join(", ")
        ))
    }

    /// Whether a configuration may add this label to `family`.
    ///
    /// # Errors
    ///
    /// Why not, and what to do instead.
    pub fn allowed_on(&self, family: &Family) -> Result<(), String> {
        let about = family.about;
        if about == About::Now || about == About::OneBuild {
            return Err("the labels of this family are fixed".to_owned());
        }
        if self.tells_builds_apart() {
            return Err(format!("{self} {}", unbounded(family.kind.as_str())));
        }
        let fits = match self.fits() {
            "all" => true,
            "builds, jobs" => matches!(about, About::Build | About::Job),
            "jobs, agents" => matches!(about, About::Job | About::Agent),
            "jobs" => about == About::Job,
            "agents" => about == About::Agent,
            _ => false,
        };
        match self {
            _ if fits => Ok(()),
            Self::State => Err("state is only for families of what finished, which have it".to_owned()),
            _ => Err(format!("{self} is only for families about {}", self.fits().replace(", ", " or "))),
        }
    }

    /// What a family must be about to get this label, in words; `none` when no configuration can add it.
    pub const fn fits(&self) -> &'static str {
        match self {
            Self::Organization => "all",
            Self::Pipeline
            | Self::Branch
            | Self::BuildSource
            | Self::Creator
            | Self::DefaultBranch
            | Self::Extra(_) => "builds, jobs",
            Self::Queue => "jobs, agents",
            Self::Cluster
            | Self::JobType
            | Self::SoftFailed
            | Self::ExitStatus
            | Self::SignalReason
            | Self::RetryType
            | Self::StepKey => "jobs",
            Self::AgentEvent => "agents",
            Self::State | Self::Commit | Self::BuildId | Self::BuildNumber => "none",
        }
    }

    /// The label's name: the source's own name, with what Prometheus does not take replaced by `_`.
    pub fn label_name(&self) -> String {
        match self {
            Self::Extra(ExtraSource::MetaData(key)) => format!("meta_data_{}", plain(key)),
            Self::Extra(ExtraSource::Env(key)) => format!("env_{}", plain(key)),
            other => other.to_string(),
        }
    }

    /// Whether each build has a value of its own.
    pub const fn tells_builds_apart(&self) -> bool {
        matches!(self, Self::Commit | Self::BuildId | Self::BuildNumber)
    }

    /// In which order values give way when a limit is reached: the smallest first, opt-in labels before all others.
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Extra(_) | Self::Creator | Self::StepKey | Self::BuildSource => 0,
            Self::Commit | Self::BuildId | Self::BuildNumber => 0,
            Self::Branch | Self::DefaultBranch => 1,
            Self::Queue | Self::Cluster => 2,
            Self::Pipeline => 3,
            Self::Organization => 4,
            Self::ExitStatus | Self::SignalReason | Self::RetryType => 5,
            Self::State | Self::JobType | Self::SoftFailed | Self::AgentEvent => 6,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extra(ExtraSource::MetaData(key)) => write!(f, "meta_data.{key}"),
            Self::Extra(ExtraSource::Env(key)) => write!(f, "env.{key}"),
            other => {
                let name = NAMES.iter().find(|known| known.source == *other).map_or("", |known| known.name);
                f.write_str(name)
            }
        }
    }
}

fn unbounded(kind: &str) -> String {
    format!(
        "would make a new series of this {kind} for nearly every build, and Prometheus would never see any of them \
         grow; to query by commit or build set labels.recent_builds.per_pipeline"
    )
}

fn plain(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

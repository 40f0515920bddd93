//! The domain: what happened at Buildkite, in kitepush's own types.
//!
//! [`crate::webhook`] makes an [`Event`] of Buildkite's JSON; [`crate::ledger`] counts it. The types keep Buildkite's
//! words: a state is the word that Buildkite sent, also when it is one that we have never seen.

use std::fmt;

/// A point in time from a payload or a clock: milliseconds since the Unix epoch, UTC.
///
/// Milliseconds are what Buildkite sends at best. Whole numbers keep sums of durations exact and independent of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From the system clock.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, as Prometheus shows times.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Milliseconds from `earlier` to `self`; negative when `self` is the earlier one.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` moved by a duration into the past.
    pub fn minus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// An id as Buildkite sent it: a UUID today, opaque to us.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(pub Box<str>);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One authentic webhook delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Which of Buildkite's events.
    pub name: EventName,
    /// The organization's slug, from the API URLs of the body; empty when the body names none.
    pub organization: Box<str>,
    /// When it happened, by the payload's own clock; agent events carry no such time.
    pub occurred_at: Option<Timestamp>,
    /// What it happened to.
    pub subject: Subject,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// `build.*`.
    Build(Box<Build>),
    /// `job.*`, with the build that the job belongs to.
    Job(Box<Job>, Box<Build>),
    /// `agent.*`.
    Agent(Agent),
    /// `cluster_token.registration_blocked`.
    RegistrationBlocked {
        /// SHA-256 of the body: these events carry neither a time nor an id of their own.
        body: [u8; 32],
    },
    /// `ping`, and events that we do not know: accepted, and nothing else.
    Nothing,
}

macro_rules! event_names {
    ($($variant:ident = $word:literal,)*) => {
        /// The documented webhook events (Buildkite docs, `apis/webhooks/pipelines`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is the word that it stands for")]
        pub enum EventName { $($variant,)* Unknown }

        impl EventName {
            /// Every name, `unknown` last.
            pub const ALL: &'static [EventName] = &[$(EventName::$variant,)* EventName::Unknown];

            /// From the `event` field of a body.
            pub fn from_word(word: &str) -> Self {
                match word { $($word => Self::$variant,)* _ => Self::Unknown }
            }

            /// The word Buildkite sends, and the label value of `kitepush_webhooks_total`; `unknown` for all others.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* Self::Unknown => "unknown" }
            }
        }
    };
}

event_names! {
    Ping = "ping",
    BuildScheduled = "build.scheduled",
    BuildRunning = "build.running",
    BuildFailing = "build.failing",
    BuildFinished = "build.finished",
    BuildSkipped = "build.skipped",
    JobScheduled = "job.scheduled",
    JobStarted = "job.started",
    JobFinished = "job.finished",
    JobActivated = "job.activated",
    JobPromisedExitStatus = "job.promised_exit_status",
    AgentConnected = "agent.connected",
    AgentLost = "agent.lost",
    AgentDisconnected = "agent.disconnected",
    AgentStopping = "agent.stopping",
    AgentStopped = "agent.stopped",
    AgentBlocked = "agent.blocked",
    RegistrationBlocked = "cluster_token.registration_blocked",
}

/// A build as it stood when the body was made, which may be later than the event (Buildkite docs, webhooks).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Build {
    /// `build.id`.
    pub id: Id,
    /// `build.number`, counted up per pipeline.
    pub number: Option<u64>,
    /// `build.state`, Buildkite's own word.
    pub state: Box<str>,
    /// `build.blocked`: waits for somebody to unblock it, while its state says `passed`.
    pub blocked: bool,
    /// `build.source`: `webhook`, `api`, `ui`, `schedule`, `trigger_job`, …
    pub source: Option<Box<str>>,
    /// `build.branch`.
    pub branch: Box<str>,
    /// `build.commit`: not always a hash.
    pub commit: Box<str>,
    /// Whether `build.tag` names a tag.
    pub tagged: bool,
    /// Whether `build.pull_request` is an object.
    pub pull_request: bool,
    /// Whether it was made by a merge queue.
    pub merge_queue: bool,
    /// Whether `build.rebuilt_from` names another build.
    pub rebuilt: bool,
    /// `build.creator.name`, else `build.author`'s.
    pub creator: Option<Box<str>>,
    /// `build.created_at`.
    pub created_at: Option<Timestamp>,
    /// `build.scheduled_at`.
    pub scheduled_at: Option<Timestamp>,
    /// `build.started_at`.
    pub started_at: Option<Timestamp>,
    /// `build.failing_at`; never cleared, also not when the build goes on to pass.
    pub failing_at: Option<Timestamp>,
    /// `build.finished_at`.
    pub finished_at: Option<Timestamp>,
    /// The pipeline of the build.
    pub pipeline: Pipeline,
    /// Values of the configured `meta_data.<key>` and `env.<KEY>` sources, by source.
    pub extra: Vec<(ExtraSource, Box<str>)>,
}

/// A value that only a configuration can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExtraSource {
    /// `build.meta_data.<key>`.
    MetaData(Box<str>),
    /// `build.env.<KEY>`, else `pipeline.env.<KEY>`.
    Env(Box<str>),
}

/// The pipeline of a build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pipeline {
    /// `pipeline.slug`, else the slug in `build.url`.
    pub slug: Box<str>,
    /// `pipeline.default_branch`; empty when the body has none.
    pub default_branch: Box<str>,
}

/// A job as it stood when the body was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// `job.id`; a retry is a new job with a new id.
    pub id: Id,
    /// `job.type`.
    pub kind: JobKind,
    /// `job.state`, Buildkite's own word.
    pub state: Box<str>,
    /// `job.step_key`.
    pub step_key: Option<Box<str>>,
    /// The queue by `agent.queue`, else the job's `queue=` rule, else the agent's `queue=` meta-data.
    pub queue: Option<Box<str>>,
    /// `job.cluster_queue_id`.
    pub cluster_queue_id: Option<Box<str>>,
    /// `job.cluster_id`, else the pipeline's.
    pub cluster_id: Option<Box<str>>,
    /// `job.soft_failed`.
    pub soft_failed: bool,
    /// `job.exit_status`; -1 when the agent was lost.
    pub exit_status: Option<i64>,
    /// `job.signal_reason`.
    pub signal_reason: Option<Box<str>>,
    /// `job.retry_source`: this job retries another one.
    pub retry: Option<RetryType>,
    /// `job.concurrency_wait_time_ms`, in milliseconds.
    pub concurrency_wait_millis: Option<i64>,
    /// `job.created_at`.
    pub created_at: Option<Timestamp>,
    /// `job.scheduled_at`.
    pub scheduled_at: Option<Timestamp>,
    /// `job.runnable_at`.
    pub runnable_at: Option<Timestamp>,
    /// `job.started_at`.
    pub started_at: Option<Timestamp>,
    /// `job.finished_at`.
    pub finished_at: Option<Timestamp>,
    /// `job.unblocked_at`, on `manual` jobs.
    pub unblocked_at: Option<Timestamp>,
    /// `job.expired_at`, on jobs that no agent took in time.
    pub expired_at: Option<Timestamp>,
    /// `job.promised_exit_status`.
    pub promised_exit_status: Option<i64>,
    /// `job.promised_exit_status_at`.
    pub promised_at: Option<Timestamp>,
}

/// `job.type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JobKind {
    /// A command, run by an agent.
    #[default]
    Script,
    /// Starts a build of another pipeline.
    Trigger,
    /// A block step.
    Manual,
    /// A wait step.
    Waiter,
    /// What Buildkite adds next.
    Other(Box<str>),
}

impl JobKind {
    /// Buildkite's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Script => "script",
            Self::Trigger => "trigger",
            Self::Manual => "manual",
            Self::Waiter => "waiter",
            Self::Other(word) => word,
        }
    }
}

/// `retry_source.retry_type`: who retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryType {
    /// The step's `retry: automatic` rules.
    Automatic,
    /// Somebody.
    Manual,
    /// What Buildkite adds next; empty when it does not say.
    Other(Box<str>),
}

impl RetryType {
    /// Buildkite's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
            Self::Other(word) => word,
        }
    }
}

/// An agent and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// `agent.id`.
    pub id: Id,
    /// The queue by `agent.queue`, else the agent's `queue=` meta-data.
    pub queue: Option<Box<str>>,
    /// SHA-256 of the body: agent events carry no time, so the body tells a repeated delivery from a second event.
    pub body: [u8; 32],
}

impl Default for Id {
    fn default() -> Self {
        Self("".into())
    }
}

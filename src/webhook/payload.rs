//! Buildkite's JSON → [`Event`].
//!
//! Tolerant exactly where real bodies demand it: two formats of time, null almost everywhere, an exit status of any
//! numeric shape, authors that are strings or objects. Everything else of a wrong type is an error with the field's
//! path. Fields that nothing counts are skipped unread, so a new one never breaks a delivery.
//!
//! Messages name fields and what was expected, never what a body holds.

mod fields;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::event::{
    Agent, Build, Event, EventName, ExtraSource, Id, Job, JobKind, Pipeline, RetryType, Subject, Timestamp,
};
use fields::{ExitStatus, Named, Object, Presence, QueueRule, ResourceUrl, Time};

/// `serde_json`'s own limit, applied to the fields that we skip too.
const MAX_DEPTH: usize = 128;

/// Bytes of a text that are kept: far beyond every real one, so that deliveries that wait for a slow disk stay small.
const MAX_TEXT: usize = 16_384;

/// What a configuration asks for beyond the fields that every event has.
#[derive(Clone, Debug, Default)]
pub struct Extract {
    /// `meta_data.<key>` and `env.<KEY>` sources.
    pub extra: Vec<ExtraSource>,
}

/// Why an authentic body is not an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON, or nested deeper than 128.
    #[error("{0}")]
    Body(String),
    /// JSON, but not a Buildkite event: the field's path and what is wrong with it.
    #[error("{path}: {message}")]
    Event {
        /// For example `build.id`.
        path: String,
        /// What is wrong and what to do.
        message: String,
    },
}

impl PayloadError {
    fn event(path: &str, message: impl Into<String>) -> Self {
        Self::Event { path: path.to_owned(), message: message.into() }
    }
}

/// Parses a verified body.
///
/// # Errors
///
/// [`PayloadError`], with the path of the field.
pub fn parse(body: &[u8], extract: &Extract) -> Result<Event, PayloadError> {
    // Fields that are skipped are not looked at, but their bytes are.
    let text = std::str::from_utf8(body).map_err(|_| PayloadError::Body("the body is not UTF-8".to_owned()))?;
    check_depth(body)?;
    match serde_json::from_str::<Object<Body<'_>>>(text) {
        Ok(parsed) => parsed.0.into_event(body, extract),
        Err(_) => explain(text),
    }
}

/// The slow way, for bodies that did not parse: an event that we do not know may use our field names for other things,
/// and everything else deserves the path of its mistake.
fn explain(text: &str) -> Result<Event, PayloadError> {
    #[derive(Deserialize)]
    struct Head {
        event: Box<str>,
    }
    if let Ok(Object(head)) = serde_json::from_str::<Object<Head>>(text)
        && !head.event.is_empty()
        && EventName::from_word(&head.event) == EventName::Unknown
    {
        return Ok(Event {
            name: EventName::Unknown,
            organization: "".into(),
            occurred_at: None,
            subject: Subject::Nothing,
        });
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let error = match serde_path_to_error::deserialize::<_, Object<Body<'_>>>(&mut deserializer) {
        Err(error) => error,
        Ok(_) => return Err(PayloadError::Body("the body goes on after its JSON object ends".to_owned())),
    };
    let path = error.path().to_string();
    let error = error.into_inner();
    if !error.is_data() {
        return Err(PayloadError::Body(format!(
            "the body is not JSON (line {}, column {})",
            error.line(),
            error.column()
        )));
    }
    let text = error.to_string();
    // "invalid type: string "…", expected …": what was found is body content, what was expected is ours.
    let message = match text.rfind("expected ") {
        Some(at) if text.starts_with("invalid ") => &text[at..],
        _ => &text,
    };
    let message =
        message.replace("expected u64", "expected a whole number").replace("expected f64", "expected a number");
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    let path = match (path.as_str(), missing) {
        (".", None) => "body".to_owned(),
        (".", Some(field)) => field.to_owned(),
        (parent, Some(field)) => format!("{parent}.{field}"),
        (path, None) => path.to_owned(),
    };
    Err(PayloadError::Event { path, message })
}

/// Refuses what is nested deeper than [`MAX_DEPTH`], also inside of fields that the parser skips.
fn check_depth(body: &[u8]) -> Result<(), PayloadError> {
    // Nothing with so few brackets can be too deep; real bodies end here.
    let brackets = body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if brackets <= MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(PayloadError::Body(format!("the body is nested deeper than {MAX_DEPTH} levels")));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Body<'a> {
    event: Option<Box<str>>,
    #[serde(borrow)]
    build: Option<Object<BuildBody<'a>>>,
    #[serde(borrow)]
    pipeline: Option<Object<PipelineBody<'a>>>,
    job: Option<Object<JobBody>>,
    agent: Option<Object<AgentBody>>,
    organization: Option<Object<OrganizationBody>>,
    cluster_token: Option<Object<ClusterTokenBody>>,
    project: Option<Presence>,
}

#[derive(Deserialize)]
struct BuildBody<'a> {
    id: Box<str>,
    url: Option<ResourceUrl>,
    number: Option<u64>,
    state: Option<Box<str>>,
    blocked: Option<bool>,
    source: Option<Box<str>>,
    branch: Option<Box<str>>,
    commit: Option<Box<str>>,
    tag: Option<Box<str>>,
    #[serde(default)]
    pull_request: Presence,
    #[serde(default)]
    merge_queue: Presence,
    #[serde(default)]
    rebuilt_from: Presence,
    #[serde(default)]
    creator: Named,
    #[serde(default)]
    author: Named,
    #[serde(default)]
    created_at: Time,
    #[serde(default)]
    scheduled_at: Time,
    #[serde(default)]
    started_at: Time,
    #[serde(default)]
    failing_at: Time,
    #[serde(default)]
    finished_at: Time,
    #[serde(borrow)]
    meta_data: Option<&'a RawValue>,
    #[serde(borrow)]
    env: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PipelineBody<'a> {
    slug: Option<Box<str>>,
    url: Option<ResourceUrl>,
    default_branch: Option<Box<str>>,
    cluster_id: Option<Box<str>>,
    #[serde(borrow)]
    env: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct JobBody {
    id: Box<str>,
    #[serde(rename = "type")]
    kind: Option<Box<str>>,
    state: Option<Box<str>>,
    step_key: Option<Box<str>>,
    #[serde(default)]
    agent_query_rules: QueueRule,
    agent: Option<Object<AgentOfJob>>,
    cluster_id: Option<Box<str>>,
    cluster_queue_id: Option<Box<str>>,
    soft_failed: Option<bool>,
    #[serde(default)]
    exit_status: ExitStatus,
    signal_reason: Option<Box<str>>,
    retry_source: Option<Object<RetrySource>>,
    concurrency_wait_time_ms: Option<f64>,
    #[serde(default)]
    created_at: Time,
    #[serde(default)]
    scheduled_at: Time,
    #[serde(default)]
    runnable_at: Time,
    #[serde(default)]
    started_at: Time,
    #[serde(default)]
    finished_at: Time,
    #[serde(default)]
    unblocked_at: Time,
    #[serde(default)]
    expired_at: Time,
    #[serde(default)]
    promised_exit_status: ExitStatus,
    #[serde(default)]
    promised_exit_status_at: Time,
}

#[derive(Deserialize)]
struct AgentOfJob {
    queue: Option<Box<str>>,
    #[serde(default)]
    meta_data: QueueRule,
}

#[derive(Deserialize)]
struct RetrySource {
    retry_type: Option<Box<str>>,
}

#[derive(Deserialize)]
struct AgentBody {
    id: Box<str>,
    url: Option<ResourceUrl>,
    queue: Option<Box<str>>,
    #[serde(default)]
    meta_data: QueueRule,
}

#[derive(Deserialize)]
struct OrganizationBody {
    slug: Option<Box<str>>,
}

#[derive(Deserialize)]
struct ClusterTokenBody {
    url: Option<ResourceUrl>,
}

impl Body<'_> {
    fn into_event(mut self, body: &[u8], extract: &Extract) -> Result<Event, PayloadError> {
        let Some(word) = self.event.take() else {
            return Err(PayloadError::event(
                "event",
                if self.project.is_some() {
                    "missing: this is the form of webhooks from before 2016 (`project` instead of `pipeline`); create a \
                     new webhook in Buildkite's notification services"
                } else {
                    "missing field `event`"
                },
            ));
        };
        if word.is_empty() {
            return Err(PayloadError::event("event", "expected the name of an event, found an empty string"));
        }
        let name = EventName::from_word(&word);
        let organization = self.organization.and_then(|Object(organization)| organization.slug);
        use EventName as E;
        let (occurred_at, organization, subject) = match name {
            E::Ping | E::Unknown => (None, organization, Subject::Nothing),
            E::RegistrationBlocked => {
                let of_url = self.cluster_token.and_then(|Object(token)| token.url).and_then(|url| url.organization);
                let subject = Subject::RegistrationBlocked { body: Sha256::digest(body).into() };
                (None, organization.or(of_url), subject)
            }
            E::BuildScheduled | E::BuildRunning | E::BuildFailing | E::BuildFinished | E::BuildSkipped => {
                let build = self.build.ok_or_else(|| PayloadError::event("build", "missing field `build`"))?;
                let (build, of_url) = build_of(Some(build), self.pipeline, extract)?;
                let at = match name {
                    E::BuildScheduled => build.scheduled_at.or(build.created_at),
                    E::BuildRunning => build.started_at,
                    E::BuildFailing => build.failing_at,
                    _ => build.finished_at,
                };
                (at, organization.or(of_url), Subject::Build(Box::new(build)))
            }
            E::JobScheduled | E::JobStarted | E::JobFinished | E::JobActivated | E::JobPromisedExitStatus => {
                let Object(job) = self.job.ok_or_else(|| PayloadError::event("job", "missing field `job`"))?;
                let cluster = self.pipeline.as_mut().and_then(|Object(pipeline)| pipeline.cluster_id.take());
                let (build, of_url) = build_of(self.build, self.pipeline, extract)?;
                let job = job_of(job, cluster)?;
                let at = match name {
                    E::JobScheduled => job.scheduled_at.or(job.created_at),
                    E::JobStarted => job.started_at,
                    E::JobActivated => job.unblocked_at,
                    E::JobPromisedExitStatus => job.promised_at,
                    _ => job.finished_at.or(job.expired_at),
                };
                (at, organization.or(of_url), Subject::Job(Box::new(job), Box::new(build)))
            }
            E::AgentConnected
            | E::AgentLost
            | E::AgentDisconnected
            | E::AgentStopping
            | E::AgentStopped
            | E::AgentBlocked => {
                let Object(agent) = self.agent.ok_or_else(|| PayloadError::event("agent", "missing field `agent`"))?;
                let of_url = agent.url.and_then(|url| url.organization);
                let agent = Agent {
                    id: id("agent.id", agent.id)?,
                    queue: agent.queue.and_then(filled).or(agent.meta_data.0).map(short),
                    body: Sha256::digest(body).into(),
                };
                (None, organization.or(of_url), Subject::Agent(agent))
            }
        };
        Ok(Event { name, organization: short(organization.unwrap_or_default()), occurred_at, subject })
    }
}

/// The build with its pipeline, and the organization's slug from the URLs of either.
fn build_of(
    build: Option<Object<BuildBody<'_>>>,
    pipeline: Option<Object<PipelineBody<'_>>>,
    extract: &Extract,
) -> Result<(Build, Option<Box<str>>), PayloadError> {
    let (build, pipeline) = (build.map(|Object(build)| build), pipeline.map(|Object(pipeline)| pipeline));
    let of_build = build.as_ref().and_then(|b| b.url.clone()).unwrap_or_default();
    let of_pipeline = pipeline.as_ref().and_then(|p| p.url.clone()).unwrap_or_default();
    let organization = of_pipeline.organization.or(of_build.organization);
    let extra = if extract.extra.is_empty() {
        Vec::new()
    } else {
        fields::extra(
            &extract.extra,
            build.as_ref().and_then(|b| b.meta_data),
            [build.as_ref().and_then(|b| b.env), pipeline.as_ref().and_then(|p| p.env)],
        )
    };
    let (slug, default_branch) = match pipeline {
        Some(pipeline) => (pipeline.slug, pipeline.default_branch),
        None => (None, None),
    };
    let slug = slug.and_then(filled).or(of_pipeline.pipeline).or(of_build.pipeline).ok_or_else(|| {
        PayloadError::event("pipeline.slug", "missing, and `build.url` does not name the pipeline either")
    })?;
    let pipeline = Pipeline { slug: short(slug), default_branch: short(default_branch.unwrap_or_default()) };
    let Some(build) = build else {
        return Ok((Build { pipeline, extra, ..Build::default() }, organization));
    };
    let branch = short(build.branch.unwrap_or_default());
    let build = Build {
        id: id("build.id", build.id)?,
        number: build.number,
        state: build.state.map(short).ok_or_else(|| PayloadError::event("build.state", "missing field `state`"))?,
        blocked: build.blocked.unwrap_or_default(),
        source: build.source.map(short),
        commit: short(build.commit.unwrap_or_default()),
        tagged: build.tag.and_then(filled).is_some(),
        pull_request: build.pull_request.0,
        merge_queue: build.merge_queue.0 || branch.starts_with("gh-readonly-queue/"),
        branch,
        rebuilt: build.rebuilt_from.0,
        creator: build.creator.0.or(build.author.0).map(short),
        created_at: build.created_at.0,
        scheduled_at: build.scheduled_at.0,
        started_at: build.started_at.0,
        failing_at: build.failing_at.0,
        finished_at: build.finished_at.0,
        pipeline,
        extra,
    };
    Ok((build, organization))
}

fn job_of(job: JobBody, cluster_of_pipeline: Option<Box<str>>) -> Result<Job, PayloadError> {
    let (agent_queue, meta_queue) = match job.agent {
        Some(Object(agent)) => (agent.queue.and_then(filled), agent.meta_data.0),
        None => (None, None),
    };
    Ok(Job {
        id: id("job.id", job.id)?,
        kind: match job.kind.as_deref() {
            None | Some("script") => JobKind::Script,
            Some("trigger") => JobKind::Trigger,
            Some("manual") => JobKind::Manual,
            Some("waiter") => JobKind::Waiter,
            Some(word) => JobKind::Other(short(word.into())),
        },
        state: job.state.map(short).ok_or_else(|| PayloadError::event("job.state", "missing field `state`"))?,
        step_key: job.step_key.map(short),
        queue: agent_queue.or(job.agent_query_rules.0).or(meta_queue).map(short),
        cluster_queue_id: job.cluster_queue_id.map(short),
        cluster_id: job.cluster_id.or(cluster_of_pipeline).map(short),
        soft_failed: job.soft_failed.unwrap_or_default(),
        exit_status: job.exit_status.0,
        signal_reason: job.signal_reason.map(short),
        retry: job.retry_source.map(|Object(source)| match source.retry_type.as_deref() {
            Some("automatic") => RetryType::Automatic,
            Some("manual") => RetryType::Manual,
            word => RetryType::Other(short(word.unwrap_or_default().into())),
        }),
        concurrency_wait_millis: job.concurrency_wait_time_ms.map(|millis| millis as i64),
        created_at: job.created_at.0,
        scheduled_at: job.scheduled_at.0,
        runnable_at: job.runnable_at.0,
        started_at: job.started_at.0,
        finished_at: job.finished_at.0,
        unblocked_at: job.unblocked_at.0,
        expired_at: job.expired_at.0,
        promised_exit_status: job.promised_exit_status.0,
        promised_at: job.promised_exit_status_at.0,
    })
}

fn id(path: &str, text: Box<str>) -> Result<Id, PayloadError> {
    match filled(text) {
        Some(text) if text.len() > MAX_TEXT => {
            Err(PayloadError::event(path, format!("expected an id of at most {MAX_TEXT} bytes")))
        }
        Some(text) => Ok(Id(text)),
        None => Err(PayloadError::event(path, "expected an id, found an empty string")),
    }
}

/// The text itself, or of one that no pipeline, branch or queue can have its beginning.
fn short(text: Box<str>) -> Box<str> {
    if text.len() <= MAX_TEXT { text } else { text[..text.floor_char_boundary(MAX_TEXT)].into() }
}

fn filled(text: Box<str>) -> Option<Box<str>> {
    (!text.is_empty()).then_some(text)
}

/// Both formats that Buildkite has used: `2020-09-20T03:24:38.888Z` and `2018-11-01 15:03:16 UTC`.
///
/// Fractions finer than a millisecond are cut off.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let parsed = match text.strip_suffix(" UTC") {
        Some(civil) => {
            let civil: jiff::civil::DateTime = civil.parse().ok()?;
            jiff::tz::Offset::UTC.to_timestamp(civil).ok()?
        }
        None => text.parse::<jiff::Timestamp>().ok()?,
    };
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}

#[cfg(test)]
mod tests;

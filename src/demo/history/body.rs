//! Bodies as Buildkite writes them: its field order, compact, about 5 KB for a job.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

use super::organization::{Clock, QUEUES, SLUG, Step};
use crate::event::Timestamp;

/// A time in one of Buildkite's two spellings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp(pub(super) Timestamp, pub(super) Clock);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Times of a simulated day lie far within jiff's range.
        let time = jiff::Timestamp::from_millisecond(self.0.as_millis()).unwrap_or_default();
        match self.1 {
            Clock::Millis => write!(f, "{}", time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")),
            Clock::Seconds => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
        }
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A whole body as it grows, part by part in the order of the wire.
pub(super) struct Body(String);

impl Body {
    pub(super) fn new(event: &str) -> Self {
        Self(format!("{{\"event\":{event:?}"))
    }

    pub(super) fn part(self, name: &str, value: &impl Serialize) -> Self {
        // Only maps with keys that are not strings and failing writers can fail here.
        self.text(name, &serde_json::to_string(value).unwrap_or_default())
    }

    /// A part that is JSON already.
    pub(super) fn text(mut self, name: &str, json: &str) -> Self {
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, ",{name:?}:{json}");
        self
    }

    /// Every body ends with who made the webhook.
    pub(super) fn end(self) -> String {
        let mut body = self.part("sender", &Person { id: "5b0a6b5c-7a53-4c0e-9d0e-6f4f0f3f0a11", name: "ci-admin" }).0;
        body.push('}');
        body
    }
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Person<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct Creator<'a> {
    id: &'a str,
    name: &'a str,
    email: String,
    avatar_url: String,
    created_at: Stamp,
}

impl<'a> Creator<'a> {
    /// Bots and roles, never people.
    pub(super) fn new(name: &'a str, clock: Clock) -> Self {
        Self {
            id: "0c7d2f3e-93a8-4d27-8b1f-2f6d0a6f5e44",
            name,
            email: format!("{name}@{SLUG}.example"),
            avatar_url: "https://www.gravatar.com/avatar/9e6b6cf2a5d24a1f8e7c30b1d4f5a6b7".to_owned(),
            created_at: Stamp(Timestamp::from_millis(1_546_500_000_000), clock),
        }
    }
}

/// The shapes of a job differ by type, as in Buildkite's API.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Job<'a> {
    Script(Box<Script<'a>>),
    Trigger(Box<Trigger<'a>>),
    Manual(Manual<'a>),
    Waiter { id: &'a str, r#type: &'a str, state: &'a str },
}

#[derive(Serialize)]
pub(super) struct Script<'a> {
    pub(super) id: &'a str,
    pub(super) r#type: &'static str,
    pub(super) name: &'a str,
    pub(super) step_key: &'a str,
    pub(super) group_key: Option<&'a str>,
    pub(super) agent_query_rules: Vec<String>,
    pub(super) state: &'a str,
    pub(super) build_url: String,
    pub(super) web_url: String,
    pub(super) log_url: String,
    pub(super) raw_log_url: String,
    pub(super) artifacts_url: String,
    pub(super) command: &'a str,
    pub(super) soft_failed: bool,
    pub(super) exit_status: Option<i64>,
    pub(super) signal: Option<&'a str>,
    pub(super) signal_reason: Option<&'a str>,
    pub(super) broken_reason: Option<&'a str>,
    pub(super) artifact_paths: &'a str,
    pub(super) agent: Option<Agent<'a>>,
    pub(super) created_at: Stamp,
    pub(super) scheduled_at: Option<Stamp>,
    pub(super) runnable_at: Option<Stamp>,
    pub(super) started_at: Option<Stamp>,
    pub(super) finished_at: Option<Stamp>,
    pub(super) expired_at: Option<Stamp>,
    pub(super) retried: bool,
    pub(super) retried_in_job_id: Option<&'a str>,
    pub(super) retries_count: Option<u32>,
    pub(super) retry_source: Option<RetrySource<'a>>,
    pub(super) retry_type: Option<&'a str>,
    pub(super) parallel_group_index: Option<usize>,
    pub(super) parallel_group_total: Option<usize>,
    pub(super) matrix: Option<&'a str>,
    pub(super) cluster_id: Option<&'a str>,
    pub(super) cluster_queue_id: Option<&'a str>,
    pub(super) concurrency_wait_time_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) promised_exit_status: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) promised_exit_status_at: Option<Stamp>,
}

#[derive(Serialize)]
pub(super) struct RetrySource<'a> {
    pub(super) job_id: &'a str,
    pub(super) retry_type: &'a str,
    pub(super) retried_by: Option<Person<'a>>,
}

#[derive(Serialize)]
pub(super) struct Trigger<'a> {
    pub(super) id: &'a str,
    pub(super) r#type: &'static str,
    pub(super) name: &'a str,
    pub(super) state: &'a str,
    pub(super) build_url: String,
    pub(super) web_url: String,
    pub(super) created_at: Stamp,
    pub(super) scheduled_at: Stamp,
    pub(super) runnable_at: Stamp,
    pub(super) started_at: Stamp,
    pub(super) finished_at: Option<Stamp>,
    pub(super) r#async: bool,
    pub(super) triggered_build: Option<TriggeredBuild<'a>>,
}

#[derive(Serialize)]
pub(super) struct TriggeredBuild<'a> {
    pub(super) id: &'a str,
    pub(super) number: u64,
    pub(super) url: String,
    pub(super) web_url: String,
}

#[derive(Serialize)]
pub(super) struct Manual<'a> {
    pub(super) id: &'a str,
    pub(super) r#type: &'static str,
    pub(super) label: &'a str,
    pub(super) state: &'a str,
    pub(super) web_url: Option<&'a str>,
    pub(super) unblocked_by: Person<'a>,
    pub(super) unblocked_at: Stamp,
    pub(super) unblockable: bool,
    pub(super) unblock_url: String,
}

#[derive(Serialize)]
pub(super) struct Build<'a> {
    pub(super) id: &'a str,
    pub(super) url: String,
    pub(super) web_url: String,
    pub(super) number: u64,
    pub(super) state: &'a str,
    pub(super) blocked: bool,
    pub(super) blocked_state: &'a str,
    pub(super) message: &'a str,
    pub(super) commit: &'a str,
    pub(super) branch: &'a str,
    pub(super) tag: Option<&'a str>,
    pub(super) source: &'a str,
    pub(super) author: Option<&'a str>,
    pub(super) creator: Option<Creator<'a>>,
    pub(super) created_at: Stamp,
    pub(super) scheduled_at: Stamp,
    pub(super) started_at: Option<Stamp>,
    pub(super) failing_at: Option<Stamp>,
    pub(super) finished_at: Option<Stamp>,
    pub(super) meta_data: BTreeMap<&'a str, &'a str>,
    pub(super) pull_request: Option<PullRequest<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) merge_queue: Option<MergeQueue<'a>>,
    pub(super) rebuilt_from: Option<TriggeredBuild<'a>>,
    pub(super) triggered_from: Option<TriggeredFrom<'a>>,
}

#[derive(Serialize)]
pub(super) struct PullRequest<'a> {
    pub(super) id: String,
    pub(super) base: &'a str,
    pub(super) repository: String,
}

#[derive(Serialize)]
pub(super) struct MergeQueue<'a> {
    pub(super) base_branch: &'a str,
}

#[derive(Serialize)]
pub(super) struct TriggeredFrom<'a> {
    pub(super) build_id: &'a str,
    pub(super) build_number: u64,
    pub(super) build_pipeline_slug: &'a str,
}

#[derive(Serialize)]
pub(super) struct Agent<'a> {
    pub(super) id: &'a str,
    pub(super) url: String,
    pub(super) web_url: String,
    pub(super) name: &'a str,
    pub(super) connection_state: &'a str,
    pub(super) ip_address: &'a str,
    pub(super) hostname: String,
    pub(super) user_agent: &'a str,
    pub(super) version: &'a str,
    pub(super) creator: Option<Person<'a>>,
    pub(super) created_at: Stamp,
    pub(super) job: Option<&'a str>,
    pub(super) last_job_finished_at: Option<Stamp>,
    pub(super) priority: u32,
    /// Agents of clusters say it; the others only in their meta-data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queue: Option<&'a str>,
    pub(super) meta_data: Vec<String>,
}

impl<'a> Agent<'a> {
    pub(super) fn new(agent: &'a super::organization::Agent, state: &'a str, clock: Clock) -> Self {
        let (queue, cluster, _) = QUEUES[agent.queue];
        Self {
            id: &agent.id,
            url: format!("https://api.buildkite.com/v2/organizations/{SLUG}/agents/{}", agent.id),
            web_url: format!("https://buildkite.com/organizations/{SLUG}/agents/{}", agent.id),
            name: &agent.name,
            connection_state: state,
            ip_address: "192.0.2.17",
            hostname: format!("{}.ci.{SLUG}.example", agent.name),
            user_agent: "buildkite-agent/3.112.0 (linux; amd64)",
            version: "3.112.0",
            creator: None,
            created_at: Stamp(Timestamp::from_millis(agent.connected_at), clock),
            job: None,
            last_job_finished_at: None,
            priority: 0,
            queue: cluster.map(|_| queue),
            meta_data: vec![format!("queue={queue}"), "os=linux".to_owned(), "image=2026-09".to_owned()],
        }
    }
}

#[derive(Serialize)]
pub(super) struct ClusterToken<'a> {
    pub(super) id: &'a str,
    pub(super) description: &'a str,
    pub(super) allowed_ip_addresses: &'a str,
    pub(super) url: &'a str,
    pub(super) created_at: Stamp,
}

/// `agent_query_rules` of a step.
pub(super) fn rules(step: &Step) -> Vec<String> {
    step.has_rule.then(|| format!("queue={}", QUEUES[step.queue].0)).into_iter().collect()
}

/// The API URL of a pipeline: where the organization's slug stands.
pub(super) fn pipeline_url(slug: &str) -> String {
    format!("https://api.buildkite.com/v2/organizations/{SLUG}/pipelines/{slug}")
}

//! What Prometheus answers: the numbers for the screen, and every sample for the verdict.

use std::collections::BTreeMap;

use reqwest::Client;
use serde::Deserialize;

use super::history::truth::{Difference, Truth, sample_key};
use super::servers::Servers;

/// Asks one Prometheus.
pub(super) struct Answers {
    client: Client,
    url: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    #[error("Prometheus does not answer: {0}")]
    Unanswered(#[from] reqwest::Error),
    #[error("Prometheus' answer to {query} is not understood: {cause}")]
    Nonsense { query: String, cause: serde_json::Error },
}

/// What Prometheus knew at one moment.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Webhooks by outcome.
    pub(super) outcomes: BTreeMap<String, f64>,
    /// Requests that were refused.
    pub(super) rejections: f64,
    /// Pushes that the gateway took.
    pub(super) pushes: f64,
    /// Exposition lines of the last push.
    pub(super) samples: f64,
    /// Seconds since the last push.
    pub(super) push_age: Option<f64>,
    /// By pipeline and state.
    pub(super) builds: BTreeMap<String, BTreeMap<String, f64>>,
    /// p95 of the duration by pipeline, seconds.
    pub(super) durations: BTreeMap<String, f64>,
    /// By queue.
    pub(super) queues: BTreeMap<String, Queue>,
    /// Finished builds that Prometheus saw as increases, as `rate()` and `increase()` need them.
    pub(super) increases: f64,
    /// Where the samples are not yet, or not, the truth.
    pub(super) differences: Vec<Difference>,
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Jobs that started.
    pub(super) jobs: f64,
    /// Their wait, seconds.
    pub(super) p50: f64,
    pub(super) p95: f64,
    /// Now.
    pub(super) waiting: f64,
    pub(super) running: f64,
}

/// Without the extrapolation that `increase()` does: a difference of samples that are really there.
const INCREASES: &str = "sum(buildkite_builds_finished_total - min_over_time(buildkite_builds_finished_total[1h]))";

#[derive(Deserialize)]
struct Envelope {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Row>,
}

/// One series of an instant vector.
#[derive(Deserialize)]
struct Row {
    metric: BTreeMap<String, String>,
    /// Time and value.
    value: (f64, String),
}

impl Row {
    fn number(&self) -> f64 {
        self.value.1.parse().unwrap_or(f64::NAN)
    }
}

/// The PromQL of a quantile: rates or totals first, sums after.
pub(super) fn quantile(quantile: f64, what: &str, by: &str) -> String {
    format!("histogram_quantile({quantile}, sum by ({by}, le) (buildkite_{what}_seconds_bucket))")
}

impl State {
    /// All builds that finished, whatever their state.
    pub(super) fn finished(&self) -> f64 {
        self.builds.values().flat_map(|states| states.values()).fold(0.0, |sum, count| sum + count)
    }
}

impl Answers {
    pub(super) fn new(servers: &Servers) -> Self {
        Self { client: servers.client(), url: servers.query_url() }
    }

    /// Everything at once.
    pub(super) async fn pull(&self, truth: &Truth) -> Result<State, PullError> {
        let mut state = State {
            outcomes: self.by("outcome", "sum by (outcome) (kitepush_webhooks_total)").await?,
            rejections: self.one("sum(kitepush_webhook_rejections_total)").await?.unwrap_or_default(),
            pushes: self.one("sum(kitepush_pushes_total{outcome=\"ok\"})").await?.unwrap_or_default(),
            samples: self.one("sum(kitepush_samples)").await?.unwrap_or_default(),
            push_age: self.one("time() - max(push_time_seconds)").await?,
            durations: self.by("pipeline", &quantile(0.95, "build_duration", "pipeline")).await?,
            increases: self.one(INCREASES).await?.unwrap_or_default(),
            ..State::default()
        };
        for row in self.ask("sum by (pipeline, state) (buildkite_builds_finished_total)").await? {
            if let (Some(pipeline), Some(build_state)) = (row.metric.get("pipeline"), row.metric.get("state")) {
                state.builds.entry(pipeline.clone()).or_default().insert(build_state.clone(), row.number());
            }
        }
        for (queue, jobs) in self.by("queue", "sum by (queue) (buildkite_job_wait_seconds_count)").await? {
            state.queues.entry(queue).or_default().jobs = jobs;
        }
        for (queue, seconds) in self.by("queue", &quantile(0.5, "job_wait", "queue")).await? {
            state.queues.entry(queue).or_default().p50 = seconds;
        }
        for (queue, seconds) in self.by("queue", &quantile(0.95, "job_wait", "queue")).await? {
            state.queues.entry(queue).or_default().p95 = seconds;
        }
        for (queue, jobs) in self.by("queue", "sum by (queue) (buildkite_jobs_waiting)").await? {
            state.queues.entry(queue).or_default().waiting = jobs;
        }
        for (queue, jobs) in self.by("queue", "sum by (queue) (buildkite_jobs_running)").await? {
            state.queues.entry(queue).or_default().running = jobs;
        }
        let samples = self.ask("{__name__=~\"buildkite_.+\"}").await?;
        state.differences = truth.differences(&samples.iter().map(|row| (key(row), row.number())).collect());
        Ok(state)
    }

    async fn by(&self, label: &str, query: &str) -> Result<BTreeMap<String, f64>, PullError> {
        let rows = self.ask(query).await?;
        Ok(rows.iter().filter_map(|row| Some((row.metric.get(label)?.clone(), row.number()))).collect())
    }

    async fn one(&self, query: &str) -> Result<Option<f64>, PullError> {
        Ok(self.ask(query).await?.first().map(Row::number))
    }

    async fn ask(&self, query: &str) -> Result<Vec<Row>, PullError> {
        let request = self.client.post(&self.url).header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(format!("query={}", super::servers::percent_encode(query))).send().await?;
        let body = response.error_for_status()?.bytes().await?;
        let envelope: Envelope =
            serde_json::from_slice(&body).map_err(|cause| PullError::Nonsense { query: query.to_owned(), cause })?;
        Ok(envelope.data.result)
    }
}

/// The spelling that the truth uses, without what the push added.
fn key(row: &Row) -> String {
    let name = row.metric.get("__name__").map_or("", String::as_str);
    let labels = row.metric.iter().map(|(label, value)| (label.as_str(), value.as_str()));
    sample_key(name, labels.filter(|(label, _)| !matches!(*label, "__name__" | "job" | "instance")))
}

//! Deliveries to load a server with: the fixtures' bodies, each with ids, names and times of its own.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// One job as real bodies were captured, about 5 KB, and its build.
pub(crate) const JOB_FINISHED: &str = include_str!("../../webhook-fixtures/job-finished-after-build-finished.json");
pub(crate) const BUILD_FINISHED: &str = include_str!("../../webhook-fixtures/build-finished-before-its-last-job.json");

/// A build of one job from its scheduling to its end, in the order of a calm day.
pub(crate) const STORY: [&str; 6] = [
    include_str!("../../webhook-fixtures/build-scheduled.json"),
    include_str!("../../webhook-fixtures/build-running.json"),
    include_str!("../../webhook-fixtures/job-scheduled.json"),
    include_str!("../../webhook-fixtures/job-started.json"),
    include_str!("../../webhook-fixtures/job-finished.json"),
    include_str!("../../webhook-fixtures/build-finished.json"),
];

/// How many different names there are of each kind; 1: always the fixture's own.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Spread {
    #[arg(long, default_value_t = 20)]
    pub(crate) pipelines: u64,
    #[arg(long, default_value_t = 5)]
    pub(crate) queues: u64,
    #[arg(long, default_value_t = 1)]
    pub(crate) branches: u64,
    #[arg(long, default_value_t = 1)]
    pub(crate) states: u64,
    #[arg(long, default_value_t = 1)]
    pub(crate) steps: u64,
}

impl Spread {
    /// As many names as deliveries.
    pub(crate) const ALL: Self =
        Self { pipelines: u64::MAX, queues: u64::MAX, branches: u64::MAX, states: u64::MAX, steps: u64::MAX };
}

enum Part {
    Text(String),
    Job,
    Build,
    Pipeline(String),
    Queue(String),
    Branch(String),
    State(String),
    Step(String),
}

/// A fixture cut at everything that makes a delivery distinct.
pub(crate) struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// The times in the fixture are moved so that `epoch`, one of its own, becomes `now`: what began before the ledger
    /// was born would count less.
    pub(crate) fn new(fixture: &str, epoch: Timestamp, now: Timestamp) -> Self {
        // A job that asks for no queue would always run in the same one.
        let fixture = fixture.replacen("\"agent_query_rules\":[]", "\"agent_query_rules\":[\"queue=default\"]", 1);
        let body: Value = serde_json::from_str(&fixture).expect("fixtures are JSON");
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let mut parts = vec![Part::Text(moved(&fixture, &body, now.duration_since(epoch)))];
        let mut cut = |needle: Option<String>, part: &dyn Fn(String) -> Part, frame: (&str, &str)| {
            if let Some(needle) = needle {
                parts = std::mem::take(&mut parts).into_iter().flat_map(|p| split(p, &needle, part, frame)).collect();
            }
        };
        let quote = ("\"", "\"");
        cut(text("/job/id"), &|_| Part::Job, ("", ""));
        cut(text("/build/id"), &|_| Part::Build, ("", ""));
        cut(text("/pipeline/slug"), &Part::Pipeline, ("", ""));
        cut(text("/build/branch"), &Part::Branch, ("\"branch\":\"", "\""));
        let about = if body.get("job").is_some() { "job" } else { "build" };
        let state = text(&format!("/{about}/state"));
        // The first state in a body is that of its subject.
        let word = state.clone();
        cut(state, &Part::State, ("\"state\":\"", "\""));
        cut(text("/job/step_key"), &Part::Step, quote);
        let rule = text("/job/agent_query_rules/0");
        cut(rule.and_then(|rule| rule.strip_prefix("queue=").map(str::to_owned)), &Part::Queue, ("queue=", "\""));
        let mut template = Self { parts };
        template.keep_later_states(word.as_deref().unwrap_or_default());
        template
    }

    fn keep_later_states(&mut self, word: &str) {
        let mut seen = false;
        for part in &mut self.parts {
            if matches!(part, Part::State(_)) && std::mem::replace(&mut seen, true) {
                *part = Part::Text(word.to_owned());
            }
        }
    }

    /// Writes the body of the `number`th delivery; those of one number share their ids.
    pub(crate) fn render(&self, number: u64, spread: &Spread, body: &mut String) {
        body.clear();
        // Every pipeline has every queue, unless there are as many of both as deliveries.
        let turn = if spread.queues == u64::MAX { number } else { number / spread.pipelines };
        for part in &self.parts {
            match part {
                Part::Text(text) => body.push_str(text),
                Part::Job => uuid(2 * number, body),
                Part::Build => uuid(2 * number + 1, body),
                Part::Pipeline(own) => name(own, number, spread.pipelines, body),
                Part::Queue(own) => name(own, turn, spread.queues, body),
                Part::Branch(own) => name(own, number, spread.branches, body),
                Part::State(own) => name(own, number, spread.states, body),
                Part::Step(own) => name(own, number, spread.steps, body),
            }
        }
    }
}

fn name(own: &str, number: u64, of: u64, body: &mut String) {
    body.push_str(own);
    if of > 1 {
        let _ = write!(body, "-{}", number % of);
    }
}

/// Looks as random as a real one.
fn uuid(number: u64, body: &mut String) {
    let mut mixed = [0_u64; 2];
    for (salt, half) in mixed.iter_mut().enumerate() {
        // splitmix64
        let mut z = (2 * number + salt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *half = z ^ (z >> 31);
    }
    let [a, b] = mixed;
    let _ = write!(
        body,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    );
}

fn split(part: Part, needle: &str, make: &dyn Fn(String) -> Part, (before, after): (&str, &str)) -> Vec<Part> {
    let Part::Text(text) = part else { return vec![part] };
    let framed = format!("{before}{needle}{after}");
    let mut parts = Vec::new();
    for (at, piece) in text.split(&framed).enumerate() {
        if at > 0 {
            parts.push(Part::Text(before.to_owned()));
            parts.push(make(needle.to_owned()));
            parts.push(Part::Text(after.to_owned()));
        }
        parts.push(Part::Text(piece.to_owned()));
    }
    parts
}

/// The times of job and build, `by` later.
fn moved(fixture: &str, body: &Value, by: SignedDuration) -> String {
    let objects = ["job", "build"].into_iter().filter_map(|name| body.get(name)?.as_object());
    let times = objects.flatten().filter(|(key, _)| key.ends_with("_at")).filter_map(|(_, value)| value.as_str());
    times.fold(fixture.to_owned(), |text, time| {
        let later = time.parse::<Timestamp>().expect("fixtures hold times") + by;
        text.replace(&format!("\"{time}\""), &format!("\"{}\"", later.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")))
    })
}

/// The first time in a fixture: when its build was made.
pub(crate) fn epoch(fixture: &str) -> Timestamp {
    let body: Value = serde_json::from_str(fixture).expect("fixtures are JSON");
    let created = body.pointer("/build/created_at").and_then(Value::as_str).expect("fixtures hold times");
    created.parse().expect("fixtures hold times")
}

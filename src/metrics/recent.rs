//! Which builds have series of their own: of each pipeline those with the highest numbers.
//!
//! What is shown of a build is the latest that any of its events said, by the times in the bodies, so the order of
//! arrival does not matter. Everything can be read off the series again, so a restart needs no further memory.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::series::{LabelValues, Place};
use crate::event::{Build, EventName, Timestamp};

/// States whose duration is shown: the same that `buildkite_build_duration_seconds` observes.
const TIMED: [&str; 3] = ["passed", "failed", "canceled"];

/// Where the labels stand in the two families, which cannot be configured otherwise.
pub(super) const ORGANIZATION: usize = 0;
pub(super) const PIPELINE: usize = 1;
const BRANCH: usize = 2;
const COMMIT: usize = 3;
const ID: usize = 4;
const NUMBER: usize = 5;
const STATE: usize = 6;

/// A build as one of its events told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The newest time in the body.
    pub(super) as_of: Timestamp,
    /// The label values of its series.
    pub(super) labels: LabelValues,
    /// From start to end, when both are known.
    pub(super) millis: Option<i64>,
}

impl Told {
    fn key(&self) -> Option<(u64, &str)> {
        Some((self.labels.get(NUMBER)?.parse().ok()?, self.labels.get(ID)?))
    }

    /// What decides between two tellings: time, then how far the build had come, then the rest, so that any two of them
    /// have a later one.
    fn age(&self) -> (Timestamp, u8, [&str; 3], Option<i64>) {
        let label = |at: usize| self.labels.get(at).map_or("", |value| &**value);
        (self.as_of, progress(label(STATE)), [label(STATE), label(BRANCH), label(COMMIT)], self.millis)
    }
}

fn progress(state: &str) -> u8 {
    match state {
        "creating" | "scheduled" | "waiting" => 0,
        "running" => 1,
        "failing" => 2,
        "canceling" => 3,
        "blocked" => 4,
        _ => 5,
    }
}

/// What the label `state` says of a build: Buildkite's own word, but for what only the event or a flag tells.
pub(super) fn state_of(name: EventName, build: &Build) -> &str {
    match &*build.state {
        _ if name == EventName::BuildSkipped => "skipped",
        state if name == EventName::BuildFinished && build.blocked && state != "canceled" => "blocked",
        state => state,
    }
}

/// The newest time in a body; the epoch when it has none.
pub(super) fn as_of(build: &Build) -> Timestamp {
    let times = [build.created_at, build.scheduled_at, build.started_at, build.failing_at, build.finished_at];
    times.into_iter().flatten().max().unwrap_or(Timestamp::from_millis(0))
}

/// From start to end. Buildkite truncates some times to seconds: what is negative by less than one is zero.
pub(super) fn millis_of(state: &str, build: &Build) -> Option<i64> {
    let millis = build.finished_at?.millis_since(build.started_at?);
    (TIMED.contains(&state) && millis > -1000).then_some(millis.max(0))
}

/// A build that is shown, and where.
#[derive(Debug)]
struct Entry {
    told: Told,
    places: Vec<Place>,
}

/// What is to be done for a telling.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: something later is known, or builds with higher numbers fill the pipeline's room.
    Ignore,
    /// Show it, after these series are gone: those of the build before, or of the build that it takes the room of.
    Show(Vec<Place>),
}

/// The builds that are shown, by organization and pipeline.
#[derive(Debug, Default)]
pub(super) struct Recent {
    per_pipeline: usize,
    /// Each list ascends by number.
    pipelines: HashMap<[Arc<str>; 2], Vec<Entry>>,
}

impl Recent {
    pub(super) fn new(per_pipeline: usize) -> Self {
        Self { per_pipeline, pipelines: HashMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.per_pipeline == 0
    }

    /// Judges a telling, and forgets what it replaces.
    pub(super) fn judge(&mut self, told: &Told) -> Verdict {
        let Some((key, builds)) = told.key().zip(pipeline_of(told)) else { return Verdict::Ignore };
        let Some(builds) = self.pipelines.get_mut(&builds) else { return Verdict::Show(Vec::new()) };
        match builds.binary_search_by(|entry| entry.told.key().cmp(&Some(key))) {
            Ok(at) if builds[at].told.age().cmp(&told.age()) != Ordering::Less => Verdict::Ignore,
            Ok(at) => Verdict::Show(builds.remove(at).places),
            Err(0) if builds.len() >= self.per_pipeline => Verdict::Ignore,
            Err(_) if builds.len() >= self.per_pipeline => Verdict::Show(builds.remove(0).places),
            Err(_) => Verdict::Show(Vec::new()),
        }
    }

    /// Remembers where a telling is shown.
    pub(super) fn shown(&mut self, told: Told, places: Vec<Place>) {
        let Some((key, pipeline)) = told.key().zip(pipeline_of(&told)) else { return };
        let builds = self.pipelines.entry(pipeline).or_default();
        if let Err(at) = builds.binary_search_by(|entry| entry.told.key().cmp(&Some(key))) {
            builds.insert(at, Entry { told, places });
        }
    }

    /// Takes up a stored series; returns the series that there is no more room for.
    pub(super) fn restore(&mut self, told: Told, place: Place) -> Vec<Place> {
        let Some((key, pipeline)) = told.key().zip(pipeline_of(&told)) else { return vec![place] };
        let builds = self.pipelines.entry(pipeline).or_default();
        match builds.binary_search_by(|entry| entry.told.key().cmp(&Some(key))) {
            Ok(at) => {
                builds[at].told.millis = builds[at].told.millis.or(told.millis);
                builds[at].places.push(place);
            }
            Err(at) => builds.insert(at, Entry { told, places: vec![place] }),
        }
        if builds.len() > self.per_pipeline { builds.remove(0).places } else { Vec::new() }
    }

    /// Forgets builds that have lost a series.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Place) -> bool) {
        for builds in self.pipelines.values_mut() {
            builds.retain(|entry| entry.places.iter().any(&is_there));
            builds.iter_mut().for_each(|entry| entry.places.retain(&is_there));
        }
        self.pipelines.retain(|_, builds| !builds.is_empty());
    }
}

fn pipeline_of(told: &Told) -> Option<[Arc<str>; 2]> {
    Some([told.labels.get(ORGANIZATION)?.clone(), told.labels.get(PIPELINE)?.clone()])
}

//! Builds: a build can start, fail and finish more than once, so most rules are keyed by a time.

use super::super::entity::{Entity, EntityKind};
use super::super::fact::{Fact, Rules};
use super::super::in_flight::{InFlight, Phase};
use super::super::records::BuildEnd;
use super::{Book, Delta, Effect, Value, WORD_BYTES, newest};
use crate::event::{Build, Event, EventName, Timestamp};
use crate::metrics::catalogue::FamilyId;
use crate::metrics::own::Outcome;
use crate::metrics::series::cut;

/// Build states that are known and not an end (Buildkite docs, `pipelines/configure/build_states`): a `build.finished`
/// that carries one is stale. A word that we do not know is taken as an end.
const NOT_TERMINAL: &[&str] = &["scheduled", "running", "blocked", "canceling", "waiting", "failing", "creating"];

/// States whose duration is observed.
const TIMED: &[&str] = &["passed", "failed", "canceled"];

impl Book {
    pub(super) fn apply_build(&mut self, event: &Event, build: &Build, now: Timestamp, delta: &mut Delta) {
        let entity = Entity::new(EntityKind::Build, &build.id.0);
        let is_own_start = event.name == EventName::BuildRunning;
        let may_look_back = is_own_start || self.has_history(build.started_at);
        let end = (event.name == EventName::BuildFinished).then(|| end_of(build, now));
        let (record, hour_began) = self.records.touch(entity, now);

        // Rules without a time, rules keyed by `started_at`, and the one keyed by the event's own time: a row each.
        let mut untimed = Rules::default();
        let mut by_start = Rules::default();
        let mut by_end = None;
        match event.name {
            EventName::BuildScheduled if record.once(Rules::SCHEDULED) => {
                untimed.insert(Rules::SCHEDULED);
                delta.count(FamilyId::BuildsScheduled);
            }
            EventName::BuildRunning if record.insert(Rules::STARTED, build.started_at, "") => {
                by_start.insert(Rules::STARTED);
                delta.count(FamilyId::BuildsStarted);
            }
            EventName::BuildFailing if record.insert(Rules::FAILING, build.failing_at, "") => {
                by_end = Some((Rules::FAILING, build.failing_at, None));
                delta.count(FamilyId::BuildsFailing);
                delta.observe(
                    FamilyId::BuildTimeToFailing,
                    build.started_at,
                    build.failing_at,
                    "negative_time_to_failing",
                );
            }
            EventName::BuildSkipped => {
                if record.once(Rules::SKIPPED) {
                    untimed.insert(Rules::SKIPPED);
                    delta.count(FamilyId::BuildsFinished);
                }
                delta.state = Some("skipped");
                last_finished(build, delta);
            }
            EventName::BuildFinished => {
                let end = end.unwrap_or(End { state: "unknown", at: now, kind: BuildEnd::Stale });
                if end.state == "skipped" {
                    if record.once(Rules::SKIPPED) {
                        untimed.insert(Rules::SKIPPED);
                        delta.count(FamilyId::BuildsFinished);
                    }
                    last_finished(build, delta);
                } else if record.insert(Rules::FINISHED, build.finished_at, end.state) {
                    let rules = match build.finished_at {
                        Some(_) => Rules::FINISHED,
                        None => Rules(Rules::FINISHED.0 | Rules::UNTIMED.0),
                    };
                    by_end = Some((rules, Some(build.finished_at.unwrap_or(end.at)), Some(end.state)));
                    if end.kind != BuildEnd::Terminal {
                        delta.state = Some(if end.kind == BuildEnd::Blocked { "blocked" } else { "unknown" });
                    }
                    delta.count(FamilyId::BuildsFinished);
                    last_finished(build, delta);
                    if TIMED.contains(&end.state) {
                        delta.observe(
                            FamilyId::BuildDuration,
                            build.started_at,
                            build.finished_at,
                            "negative_duration",
                        );
                    }
                }
            }
            _ => {}
        }
        if may_look_back
            && build.scheduled_at.is_some()
            && build.started_at.is_some()
            && record.insert(Rules::WAIT, build.started_at, "")
        {
            by_start.insert(Rules::WAIT);
            delta.observe(FamilyId::BuildWait, build.scheduled_at, build.started_at, "negative_wait");
        }
        if build.rebuilt && record.once(Rules::REBUILT) {
            untimed.insert(Rules::REBUILT);
            delta.count(FamilyId::BuildsRebuilt);
        }

        if untimed.is_empty() && by_start.is_empty() && by_end.is_none() {
            self.seen_again(entity, hour_began, now, delta);
        } else {
            let stale = by_end.is_some() && end.as_ref().is_some_and(|end| end.kind == BuildEnd::Stale);
            delta.outcome = Some(if stale { Outcome::Stale } else { Outcome::Accepted });
        }
        if !untimed.is_empty() {
            let at = build.scheduled_at.filter(|_| untimed.contains(Rules::SCHEDULED));
            self.note(entity, untimed, at, None, now);
        }
        if !by_start.is_empty() {
            self.note(entity, by_start, build.started_at, None, now);
        }
        if let Some((rules, at, word)) = by_end {
            let finished = rules.contains(Rules::FINISHED);
            let started_at = build.started_at.filter(|_| finished);
            let word: Option<Box<str>> = word.map(Into::into);
            self.facts.push(Fact { entity, rules, at, started_at, word, counted_at: now });
            if finished {
                self.await_start(entity, started_at, now);
                // The row is keyed by `finished_at`; a stale end stands later.
                if let Some(end) = end.filter(|end| at.is_some_and(|at| at < end.at)) {
                    self.note(entity, Rules::ENDED, Some(end.at), None, now);
                }
            }
        }
        self.follow_build(entity, event, build, end, now, delta);
    }

    /// Keeps the running and blocked gauges. What a build is now follows from the greatest times at which it started,
    /// ended and was unblocked, so the order of arrival does not matter.
    fn follow_build(
        &mut self,
        entity: Entity,
        event: &Event,
        build: &Build,
        end: Option<End<'_>>,
        now: Timestamp,
        delta: &mut Delta,
    ) {
        let Some(record) = self.records.find_mut(&entity) else { return };
        match event.name {
            EventName::BuildRunning | EventName::BuildFailing => {
                let started_at = build.started_at.or_else(|| newest_of(build));
                // The body may be later than the event, and know the end already.
                if let Some(started_at) = started_at.filter(|at| build.finished_at.is_none_or(|end| end < *at)) {
                    let more = record.more();
                    more.started_at = more.started_at.max(started_at);
                }
            }
            EventName::BuildFinished => {
                if let Some(end) = &end {
                    record.end_build(end.at, end.kind);
                    if end.kind == BuildEnd::Terminal {
                        self.in_flight.close_waiting(&entity, end.at);
                    }
                }
            }
            _ => return,
        }
        self.settle(entity, event, build, now, delta);
    }

    /// Opens, keeps or closes the entry of a build according to its record.
    fn settle(&mut self, entity: Entity, event: &Event, build: &Build, now: Timestamp, delta: &mut Delta) {
        let Some(record) = self.records.find(&entity) else { return };
        let ended_at = record.ended_at;
        let target = record.build().and_then(|more| {
            if more.started_at > ended_at {
                Some((Phase::BuildRunning, more.started_at))
            } else if more.end_is_blocked && more.unblocked_at < ended_at {
                Some((Phase::BuildBlocked, ended_at))
            } else {
                None
            }
        });
        let current = self.in_flight.get(&entity).map(|entry| (entry.phase, entry.since));
        match target {
            None => {
                self.in_flight.close(&entity);
            }
            Some(target) if current == Some(target) => {}
            Some((phase, since)) => {
                let entry = InFlight {
                    phase,
                    since,
                    arrived_at: now,
                    build: None,
                    organization: event.organization.clone(),
                    pipeline: build.pipeline.slug.clone(),
                    cluster_id: None,
                    queue: None,
                    cluster_queue_id: None,
                };
                self.open(entity, entry, delta);
            }
        }
    }

    /// A block step of the build was unblocked: whatever blocked it before then does so no longer.
    pub(super) fn unblock(&mut self, entity: Entity, unblocked_at: Timestamp, now: Timestamp) {
        let (record, _) = self.records.touch(entity, now);
        let more = record.more();
        if unblocked_at <= more.unblocked_at {
            return;
        }
        more.unblocked_at = unblocked_at;
        if let Some(entry) = self.in_flight.get(&entity)
            && entry.phase == Phase::BuildBlocked
            && entry.since <= unblocked_at
        {
            self.in_flight.close(&entity);
        }
        self.note(entity, Rules::UNBLOCKED, Some(unblocked_at), None, now);
    }
}

/// How a `build.finished` counts.
#[derive(Clone, Copy)]
struct End<'a> {
    state: &'a str,
    at: Timestamp,
    kind: BuildEnd,
}

fn end_of(build: &Build, now: Timestamp) -> End<'_> {
    let (state, kind) = match &*build.state {
        "canceled" => ("canceled", BuildEnd::Terminal),
        _ if build.blocked => ("blocked", BuildEnd::Blocked),
        state if NOT_TERMINAL.contains(&state) => ("unknown", BuildEnd::Stale),
        state => (cut(state, WORD_BYTES), BuildEnd::Terminal),
    };
    let newest = newest_of(build).unwrap_or(now);
    let at = if kind == BuildEnd::Stale { newest } else { build.finished_at.unwrap_or(newest) };
    End { state, at, kind }
}

fn newest_of(build: &Build) -> Option<Timestamp> {
    newest([build.created_at, build.scheduled_at, build.started_at, build.failing_at, build.finished_at])
}

fn last_finished(build: &Build, delta: &mut Delta) {
    if let Some(at) = build.finished_at {
        delta.effects.push(Effect { family: FamilyId::BuildLastFinished, value: Value::Greatest(at) });
    }
}

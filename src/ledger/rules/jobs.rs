//! Jobs: each rule once per id. A retry is a new job.

use super::super::entity::{Entity, EntityKind};
use super::super::fact::{Fact, Rules};
use super::super::in_flight::{InFlight, Phase};
use super::super::records::NEVER;
use super::{Book, Delta, WORD_BYTES, newest};
use crate::event::{Build, Event, EventName, Job, JobKind, Timestamp};
use crate::metrics::catalogue::FamilyId;
use crate::metrics::own::Outcome;
use crate::metrics::series::cut;

/// Job states that are known and not an end (Buildkite docs, `apis/rest_api/jobs`): a `job.finished` that carries one
/// is stale. A word that we do not know is taken as an end.
const NOT_TERMINAL: &[&str] = &[
    "pending",
    "waiting",
    "blocked",
    "limited",
    "limiting",
    "scheduled",
    "assigned",
    "accepted",
    "running",
    "timing_out",
    "canceling",
    "reserved",
    "platform_limited",
];

/// States that count as a failure, unless the step may fail softly.
const FAILURES: &[&str] = &["failed", "timed_out", "expired", "broken"];

impl Book {
    pub(super) fn apply_job(&mut self, event: &Event, job: &Job, build: &Build, now: Timestamp, delta: &mut Delta) {
        let entity = Entity::new(EntityKind::Job, &job.id.0);
        let is_script = job.kind == JobKind::Script;
        let is_own_start = event.name == EventName::JobStarted;
        let may_look_back = is_own_start || self.has_history(job.started_at);
        let (record, hour_began) = self.records.touch(entity, now);

        let mut counted = Rules::default();
        let mut at = None;
        let mut stale = false;
        match event.name {
            EventName::JobScheduled if record.once(Rules::SCHEDULED) => {
                counted.insert(Rules::SCHEDULED);
                at = job.scheduled_at;
                delta.count(FamilyId::JobsScheduled);
            }
            EventName::JobStarted if record.once(Rules::STARTED) => {
                counted.insert(Rules::STARTED);
                at = job.started_at;
                delta.count(FamilyId::JobsStarted);
            }
            EventName::JobFinished if record.once(Rules::FINISHED) => {
                counted.insert(Rules::FINISHED);
                stale = NOT_TERMINAL.contains(&&*job.state);
                if stale {
                    delta.state = Some("unknown");
                }
                at = Some(end_of(job, stale).unwrap_or(now));
                if job.finished_at.is_none() {
                    counted.insert(Rules::UNTIMED);
                }
                delta.count(FamilyId::JobsFinished);
                finished(job, is_script, delta);
            }
            EventName::JobActivated if record.once(Rules::ACTIVATED) => {
                counted.insert(Rules::ACTIVATED);
                at = job.unblocked_at;
                delta.count(FamilyId::JobsActivated);
                // A build that is no longer blocked may have finished again since: that is another end.
                let blocked_at = build.finished_at.filter(|at| build.blocked || Some(*at) <= job.unblocked_at);
                delta.observe(FamilyId::BuildBlocked, blocked_at, job.unblocked_at, "negative_blocked_time");
            }
            EventName::JobPromisedExitStatus if record.once(Rules::PROMISED) => {
                counted.insert(Rules::PROMISED);
                at = job.promised_at;
                // A promise of success is no failure; without a number Buildkite would not have sent it.
                if job.promised_exit_status != Some(0) {
                    delta.count(FamilyId::JobPromisedFailures);
                }
            }
            _ => {}
        }
        if is_script
            && may_look_back
            && job.runnable_at.is_some()
            && job.started_at.is_some()
            && record.once(Rules::WAIT)
        {
            counted.insert(Rules::WAIT);
            delta.observe(FamilyId::JobWait, job.runnable_at, job.started_at, "negative_wait");
        }
        if job.retry.is_some() && may_look_back && record.once(Rules::RETRY) {
            counted.insert(Rules::RETRY);
            delta.count(FamilyId::JobRetries);
        }

        if counted.is_empty() {
            self.seen_again(entity, hour_began, now, delta);
        } else {
            let started_at = job.started_at.filter(|_| is_script && counted.contains(Rules::FINISHED));
            self.facts.push(Fact {
                entity,
                rules: counted,
                at,
                started_at,
                word: word_of(job, counted, delta),
                counted_at: now,
            });
            delta.outcome = Some(if stale { Outcome::Stale } else { Outcome::Accepted });
            if counted.contains(Rules::FINISHED) {
                self.await_start(entity, started_at, now);
            }
        }
        self.follow_job(entity, event, job, build, now, delta);
    }

    /// Keeps the waiting and running gauges.
    fn follow_job(
        &mut self,
        entity: Entity,
        event: &Event,
        job: &Job,
        build: &Build,
        now: Timestamp,
        delta: &mut Delta,
    ) {
        let build_entity = (!build.id.0.is_empty()).then(|| Entity::new(EntityKind::Build, &build.id.0));
        let (phase, since) = match event.name {
            EventName::JobScheduled if job.started_at.is_none() => {
                (Phase::JobWaiting, job.runnable_at.or(job.scheduled_at).or(job.created_at))
            }
            EventName::JobStarted => (Phase::JobRunning, job.started_at.or_else(|| newest_of(job))),
            EventName::JobFinished => {
                let stale = NOT_TERMINAL.contains(&&*job.state);
                let ended_at = end_of(job, stale).unwrap_or(now);
                if let Some(record) = self.records.find_mut(&entity) {
                    record.ended_at = record.ended_at.max(ended_at);
                }
                self.in_flight.close(&entity);
                return;
            }
            EventName::JobActivated => {
                if let (Some(build), Some(unblocked_at)) = (build_entity, job.unblocked_at) {
                    self.unblock(build, unblocked_at, now);
                }
                return;
            }
            _ => return,
        };
        let Some(since) = since else { return };
        if job.finished_at.is_some() {
            return;
        }
        let Some(record) = self.records.find(&entity) else { return };
        if since <= record.ended_at {
            return;
        }
        if phase == Phase::JobWaiting {
            let build_ended_at = build_entity
                .and_then(|build| self.records.find(&build)?.build().map(|more| more.terminal_at))
                .unwrap_or(NEVER);
            if since <= build_ended_at || record.once.contains(Rules::STARTED) {
                return;
            }
        }
        // A repeat does not make an entry younger: its expiry runs from the first arrival.
        if self.in_flight.get(&entity).is_some_and(|entry| entry.phase == phase) {
            return;
        }
        let entry = InFlight {
            phase,
            since,
            arrived_at: now,
            build: build_entity,
            organization: event.organization.clone(),
            pipeline: "".into(),
            cluster_id: job.cluster_id.clone(),
            queue: job.queue.clone(),
            cluster_queue_id: job.cluster_queue_id.clone(),
        };
        self.open(entity, entry, delta);
    }
}

/// What a `job.finished` counts beyond itself.
fn finished(job: &Job, is_script: bool, delta: &mut Delta) {
    if job.state.as_ref() == "passed" && job.retry.is_some() {
        delta.count(FamilyId::JobFlakyRecoveries);
    }
    if !is_script {
        return;
    }
    delta.observe(FamilyId::JobDuration, job.started_at, job.finished_at, "negative_duration");
    if let Some(millis) = job.concurrency_wait_millis {
        let zero = Some(Timestamp::from_millis(0));
        delta.observe(FamilyId::JobConcurrencyWait, zero, Some(Timestamp::from_millis(millis)), "negative_wait");
    }
    if FAILURES.contains(&&*job.state) && !job.soft_failed {
        delta.count(FamilyId::JobFailures);
    }
}

/// The time at which a job ended: `finished_at`; of a stale end, or without one, the newest time in its body.
fn end_of(job: &Job, stale: bool) -> Option<Timestamp> {
    if stale { newest_of(job) } else { job.finished_at.or_else(|| newest_of(job)) }
}

fn newest_of(job: &Job) -> Option<Timestamp> {
    newest([
        job.created_at,
        job.scheduled_at,
        job.runnable_at,
        job.started_at,
        job.finished_at,
        job.unblocked_at,
        job.expired_at,
        job.promised_at,
    ])
}

/// The state that a finish was counted with, for `explain`.
fn word_of(job: &Job, counted: Rules, delta: &Delta) -> Option<Box<str>> {
    counted.contains(Rules::FINISHED).then(|| delta.state.unwrap_or(cut(&job.state, WORD_BYTES)).into())
}

//! The counting rules: [`apply`](Book::apply) takes an event and says what it changes. No I/O, no clock of its own.
//!
//! Each verified delivery yields at most one effect per rule, whatever the order, and however often it arrives. What
//! the rules leave open is decided here, at the rule:
//!
//! * A body of a `job.*` event holds its build too, but only events of the build itself count for the build: the
//!   embedded copy may be older or newer than the event.
//! * A start is missing only of what has a `started_at`, and of jobs only where Buildkite sends a start: type
//!   `script`. What started before the ledger was born is not missed.
//! * Without a `finished_at` an end stands at the newest time in its body.

mod agents;
mod builds;
mod jobs;

use std::collections::VecDeque;
use std::time::Duration;

use super::entity::{Entity, EntityKind};
use super::fact::{Fact, Rules};
use super::in_flight::{InFlight, InFlights, Phase};
use super::records::Records;
use crate::event::{Event, EventName, Subject, Timestamp};
use crate::metrics::catalogue::FamilyId;
use crate::metrics::own::Outcome;
use crate::metrics::series::cut;

/// A start that has not arrived this long after the end is missing.
const MISSING_AFTER: Duration = Duration::from_secs(5 * 60);

/// Buildkite truncates some times to whole seconds: what is negative by less than this is zero.
const TRUNCATION_MILLIS: i64 = 1000;

/// Bytes of a state that are told apart and stored; Buildkite's own words are shorter.
const WORD_BYTES: usize = 128;

/// Bytes of a name or id that an entry keeps: enough to find any cluster or queue in the configuration.
const NAME_BYTES: usize = 128;

/// What one event changes.
#[derive(Debug, Default)]
pub struct Delta {
    /// What became of the delivery.
    pub outcome: Option<Outcome>,
    /// The value of the label `state`, where it is not the word in the body.
    pub state: Option<&'static str>,
    /// What the metrics count.
    pub effects: Vec<Effect>,
    /// Contradictions found, for `kitepush_anomalies_total{kind}`.
    pub anomalies: Vec<&'static str>,
}

impl Delta {
    /// Empties it for the next event, keeping its memory.
    pub fn clear(&mut self) {
        self.outcome = None;
        self.state = None;
        self.effects.clear();
        self.anomalies.clear();
    }

    fn count(&mut self, family: FamilyId) {
        self.effects.push(Effect { family, value: Value::One });
    }

    /// Observes the time from one moment to another, if both are known. `kind` names the anomaly if it is negative.
    fn observe(&mut self, family: FamilyId, from: Option<Timestamp>, to: Option<Timestamp>, kind: &'static str) {
        let (Some(from), Some(to)) = (from, to) else { return };
        match to.millis_since(from) {
            millis if millis <= -TRUNCATION_MILLIS => self.anomalies.push(kind),
            millis => self.effects.push(Effect { family, value: Value::Millis(millis.max(0).unsigned_abs()) }),
        }
    }
}

/// What a family gets from an event; its labels come from the event and [`Delta::state`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Which family.
    pub family: FamilyId,
    /// What it gets.
    pub value: Value,
}

/// What a family gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A counter goes up by one.
    One,
    /// A histogram observes a duration in milliseconds.
    Millis(u64),
    /// A gauge becomes this time, if it is greater.
    Greatest(Timestamp),
}

/// What the rules need from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `state.retention`.
    pub retention: Duration,
    /// `state.max_records`.
    pub max_records: usize,
    /// `state.in_flight_expiry`.
    pub in_flight_expiry: Duration,
}

/// Everything that the rules remember.
#[derive(Debug)]
pub struct Book {
    settings: Settings,
    /// When a ledger without history began: what started before may have been counted by nobody, or by a forgotten
    /// predecessor.
    born_at: Timestamp,
    records: Records,
    in_flight: InFlights,
    /// Ends whose start has not arrived, by arrival: entity, `started_at`, when to give up.
    awaited: VecDeque<Awaited>,
    /// Rows to store, since the last [`Book::take_facts`].
    facts: Vec<Fact>,
}

#[derive(Debug)]
struct Awaited {
    entity: Entity,
    started_at: Timestamp,
    until: Timestamp,
}

/// What [`Book::tick`] found.
#[derive(Debug, Default, PartialEq)]
pub struct Housekeeping {
    /// Starts that are missing, by event.
    pub missing: Vec<&'static str>,
    /// Entries that left the gauges.
    pub expired: Vec<Phase>,
}

impl Book {
    /// An empty one.
    pub fn new(settings: Settings, born_at: Timestamp) -> Self {
        Self {
            settings,
            born_at,
            records: Records::default(),
            in_flight: InFlights::default(),
            awaited: VecDeque::new(),
            facts: Vec::new(),
        }
    }

    /// Applies every rule to an event that arrived at `now`. Adds to `delta`, which is to be empty.
    pub fn apply(&mut self, event: &Event, now: Timestamp, delta: &mut Delta) {
        match &event.subject {
            Subject::Build(build) => self.apply_build(event, build, now, delta),
            Subject::Job(job, build) => self.apply_job(event, job, build, now, delta),
            Subject::Agent(agent) => self.apply_agent(event, agent, now, delta),
            Subject::RegistrationBlocked { body } => self.apply_registration(body, now, delta),
            Subject::Nothing => {
                let known = event.name != EventName::Unknown;
                delta.outcome = Some(if known { Outcome::Accepted } else { Outcome::Ignored });
            }
        }
        if self.records.len() > self.settings.max_records {
            let in_flight = &self.in_flight;
            let evicted = self.records.evict(self.settings.max_records, |entity| in_flight.get(entity).is_some());
            delta.anomalies.extend(std::iter::repeat_n("record_evicted", evicted));
        }
    }

    /// What time alone brings: missing starts, expired entries, forgotten records. Call it about once a second.
    pub fn tick(&mut self, now: Timestamp) -> Housekeeping {
        let mut found = Housekeeping::default();
        while self.awaited.front().is_some_and(|awaited| awaited.until <= now) {
            let Some(Awaited { entity, started_at, .. }) = self.awaited.pop_front() else { break };
            if let Some(event) = self.give_up(entity, started_at, now) {
                found.missing.push(event);
            }
        }
        for (entity, entry) in self.in_flight.expire(now, self.settings.in_flight_expiry) {
            found.expired.push(entry.phase);
            self.note_expiry(entity, &entry, now);
        }
        // A few thousand a second are far more than arrive, and far too few to be felt.
        let in_flight = &self.in_flight;
        self.records.prune(now.minus(self.settings.retention), 5000, |entity| in_flight.get(entity).is_some());
        found
    }

    fn give_up(&mut self, entity: Entity, started_at: Timestamp, now: Timestamp) -> Option<&'static str> {
        let record = self.records.find_mut(&entity)?;
        let is_build = entity.kind() == Some(EntityKind::Build);
        let (is_new, event) = if is_build {
            let came = record.has(Rules::STARTED, Some(started_at), "");
            (!came && record.insert(Rules::MISSING, Some(started_at), ""), EventName::BuildRunning)
        } else {
            let came = record.once.contains(Rules::STARTED);
            (!came && record.once(Rules::MISSING), EventName::JobStarted)
        };
        is_new.then(|| {
            self.note(entity, Rules::MISSING, Some(started_at), None, now);
            event.as_str()
        })
    }

    /// An expired entry must not be opened again by a late repeat of the event that opened it.
    fn note_expiry(&mut self, entity: Entity, entry: &InFlight, now: Timestamp) {
        let Some(record) = self.records.find_mut(&entity) else { return };
        let rule = if entry.phase == Phase::BuildBlocked {
            let more = record.more();
            more.unblocked_at = more.unblocked_at.max(entry.since);
            Rules::UNBLOCKED
        } else {
            record.ended_at = record.ended_at.max(entry.since);
            Rules::ENDED
        };
        self.note(entity, rule, Some(entry.since), None, now);
    }

    /// Adds a row for the store.
    fn note(&mut self, entity: Entity, rules: Rules, at: Option<Timestamp>, word: Option<&str>, now: Timestamp) {
        self.facts.push(Fact { entity, rules, at, started_at: None, word: word.map(Into::into), counted_at: now });
    }

    /// Waits for the start of what ended.
    fn await_start(&mut self, entity: Entity, started_at: Option<Timestamp>, now: Timestamp) {
        // Beyond this many ends in five minutes nobody is missed: memory has a bound.
        let has_room = self.awaited.len() < self.settings.max_records;
        if let Some(started_at) = started_at.filter(|at| *at >= self.born_at && has_room) {
            let until = Timestamp::from_millis(now.as_millis().saturating_add(MISSING_AFTER.as_millis() as i64));
            self.awaited.push_back(Awaited { entity, started_at, until });
        }
    }

    /// Opens an entry unless the table is so full that remembering more would break the bound on records.
    fn open(&mut self, entity: Entity, mut entry: InFlight, delta: &mut Delta) {
        let names = [Some(&mut entry.organization), Some(&mut entry.pipeline)];
        let others = [entry.cluster_id.as_mut(), entry.queue.as_mut(), entry.cluster_queue_id.as_mut()];
        for name in names.into_iter().chain(others).flatten() {
            if name.len() > NAME_BYTES {
                *name = cut(name, NAME_BYTES).into();
            }
        }
        if self.in_flight.len() >= self.settings.max_records / 2 && self.in_flight.get(&entity).is_none() {
            delta.anomalies.push("in_flight_full");
        } else {
            self.in_flight.open(entity, entry);
        }
    }

    /// Whether a wait or a retry of something that started at `started_at` may be counted from an event that is not
    /// its own start event: the rule "no history".
    fn has_history(&self, started_at: Option<Timestamp>) -> bool {
        started_at.is_none_or(|at| at >= self.born_at)
    }

    /// Takes up a stored row again. Rows come in the order in which they were stored.
    pub fn restore(&mut self, fact: &Fact, newest: Timestamp) {
        self.records.restore(fact);
        // Only what was counted shortly before the stop can still be waited for; all else has its own row.
        if fact.rules.contains(Rules::FINISHED)
            && newest.millis_since(fact.counted_at) < 2 * MISSING_AFTER.as_millis() as i64
        {
            self.await_start(fact.entity, fact.started_at, fact.counted_at);
        }
    }

    /// Makes room for that many records.
    pub fn reserve(&mut self, records: usize) {
        self.records.reserve(records);
    }

    /// Takes up a stored in-flight entry again.
    pub fn restore_in_flight(&mut self, entity: Entity, entry: InFlight) {
        self.in_flight.restore(entity, entry);
    }

    /// Rows to store, added since the last call.
    pub fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    /// How many rows there are to take.
    pub fn facts(&self) -> usize {
        self.facts.len()
    }

    /// In-flight entries to store: changed ones with their entry, ended ones without.
    pub fn take_in_flight_changes(&mut self) -> Vec<(Entity, Option<InFlight>)> {
        self.in_flight.take_changed().into_iter().map(|entity| (entity, self.in_flight.get(&entity).cloned())).collect()
    }

    /// What is in flight, when anything changed since the last call.
    pub fn changed_in_flight(&mut self) -> Option<&InFlights> {
        self.in_flight.take_stale_gauges().then_some(&self.in_flight)
    }

    /// What is in flight.
    pub fn in_flight(&self) -> &InFlights {
        &self.in_flight
    }

    /// What is remembered.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Takes up the birth of the ledger that the store remembers.
    pub fn born(&mut self, at: Timestamp) {
        self.born_at = at;
    }

    /// When it began.
    pub fn born_at(&self) -> Timestamp {
        self.born_at
    }
}

/// The newest of some times.
fn newest<const N: usize>(times: [Option<Timestamp>; N]) -> Option<Timestamp> {
    times.into_iter().flatten().max()
}

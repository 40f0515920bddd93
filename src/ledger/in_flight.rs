//! Builds and jobs that have begun and not ended: what the running, waiting and blocked gauges show.

use std::collections::HashMap;
use std::time::Duration;

use super::entity::Entity;
use crate::event::Timestamp;

/// Blocked builds wait for people, and people have weekends: expired this long after their arrival.
const BLOCKED_EXPIRY: Duration = Duration::from_secs(30 * 24 * 3600);

/// What an entry waits for; the word is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// A build that runs.
    BuildRunning,
    /// A build that somebody must unblock.
    BuildBlocked,
    /// A job that waits for an agent.
    JobWaiting,
    /// A job that an agent runs.
    JobRunning,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::BuildRunning, Self::BuildBlocked, Self::JobWaiting, Self::JobRunning];

    /// The `kind` of `kitepush_in_flight`, and the stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BuildRunning => "build_running",
            Self::BuildBlocked => "build_blocked",
            Self::JobWaiting => "job_waiting",
            Self::JobRunning => "job_running",
        }
    }

    /// From the stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// How long an entry may stay after its arrival.
    pub fn expiry(self, configured: Duration) -> Duration {
        match self {
            Self::BuildBlocked => BLOCKED_EXPIRY.max(configured),
            _ => configured,
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    /// What it waits for.
    pub phase: Phase,
    /// Since when by the payload: `started_at`, `runnable_at`, or the blocked build's `finished_at`.
    pub since: Timestamp,
    /// Arrival of the event that opened it.
    pub arrived_at: Timestamp,
    /// Of a job: its build.
    pub build: Option<Entity>,
    /// `organization`.
    pub organization: Box<str>,
    /// `pipeline`, of builds; empty on jobs.
    pub pipeline: Box<str>,
    /// `job.cluster_id`, of jobs.
    pub cluster_id: Option<Box<str>>,
    /// The queue by name, of jobs.
    pub queue: Option<Box<str>>,
    /// `job.cluster_queue_id`.
    pub cluster_queue_id: Option<Box<str>>,
}

/// All entries.
#[derive(Debug, Default)]
pub struct InFlights {
    entries: HashMap<Entity, InFlight>,
    waiting_of_build: HashMap<Entity, Vec<Entity>>,
    changed: Vec<Entity>,
    stale_gauges: bool,
}

impl InFlights {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of an entity.
    pub fn get(&self, entity: &Entity) -> Option<&InFlight> {
        self.entries.get(entity)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&Entity, &InFlight)> {
        self.entries.iter()
    }

    /// Opens an entry, in place of what the entity had.
    pub fn open(&mut self, entity: Entity, entry: InFlight) {
        self.unlink(&entity);
        if entry.phase == Phase::JobWaiting
            && let Some(build) = entry.build
        {
            self.waiting_of_build.entry(build).or_default().push(entity);
        }
        self.entries.insert(entity, entry);
        self.note(entity);
    }

    /// Ends an entry; returns what it was.
    pub fn close(&mut self, entity: &Entity) -> Option<InFlight> {
        self.unlink(entity);
        let entry = self.entries.remove(entity)?;
        self.note(*entity);
        Some(entry)
    }

    /// Ends the waiting jobs of a build that ended for good at `ended_at`, but for those that could run only later:
    /// retries made after the end.
    pub fn close_waiting(&mut self, build: &Entity, ended_at: Timestamp) {
        let jobs = self.waiting_of_build.get(build).cloned().unwrap_or_default();
        for job in jobs {
            if self.entries.get(&job).is_some_and(|entry| entry.since <= ended_at) {
                self.close(&job);
            }
        }
    }

    /// Ends what has been here for too long; returns it.
    pub fn expire(&mut self, now: Timestamp, expiry: Duration) -> Vec<(Entity, InFlight)> {
        let expired: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.arrived_at < now.minus(entry.phase.expiry(expiry)))
            .map(|(entity, _)| *entity)
            .collect();
        expired.into_iter().filter_map(|entity| Some((entity, self.close(&entity)?))).collect()
    }

    /// Takes up a stored entry again.
    pub fn restore(&mut self, entity: Entity, entry: InFlight) {
        self.open(entity, entry);
        self.changed.clear();
    }

    /// The entities whose entry changed since the last call, for the store.
    pub fn take_changed(&mut self) -> Vec<Entity> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// Whether any entry changed since the last call, for the gauges.
    pub fn take_stale_gauges(&mut self) -> bool {
        std::mem::take(&mut self.stale_gauges)
    }

    fn note(&mut self, entity: Entity) {
        self.changed.push(entity);
        self.stale_gauges = true;
    }

    fn unlink(&mut self, entity: &Entity) {
        let Some(entry) = self.entries.get(entity) else { return };
        if let Some(build) = entry.build
            && let Some(jobs) = self.waiting_of_build.get_mut(&build)
        {
            jobs.retain(|job| job != entity);
            if jobs.is_empty() {
                self.waiting_of_build.remove(&build);
            }
        }
    }
}

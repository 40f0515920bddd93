//! One record per build, job or agent: every key already counted for it, in as few bytes as it takes.
//!
//! A million records are the default bound, so a record is 40 bytes in a slab, its index a table of slot numbers, and
//! only builds (which can start and finish more than once) carry more.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::{HashTable, hash_table::Entry};

use super::entity::Entity;
use super::fact::{Fact, Rules, fingerprint};
use crate::event::Timestamp;

/// "Never": smaller than every time in a payload.
pub(super) const NEVER: Timestamp = Timestamp::from_millis(i64::MIN);

/// Keys that one build or agent is remembered with, the newest: fifty starts and ends, or 256 events of an agent. No
/// sender can make a record grow without end.
const MOST_KEYS: usize = 256;

const HOUR_MILLIS: i64 = 3_600_000;

/// The slot of a record.
pub type Slot = u32;

/// What is remembered of one entity.
#[derive(Debug)]
pub struct Record {
    entity: Entity,
    /// Rules that apply once per id.
    pub(super) once: Rules,
    /// Arrival of its last event, in hours since the Unix epoch.
    last_hour: u32,
    /// The greatest time at which it ended.
    pub(super) ended_at: Timestamp,
    build: Option<Box<BuildRecord>>,
}

/// What is remembered of a build, or of an agent, beyond that.
#[derive(Debug)]
pub(super) struct BuildRecord {
    /// The greatest time at which it started.
    pub(super) started_at: Timestamp,
    /// The greatest time at which somebody unblocked it.
    pub(super) unblocked_at: Timestamp,
    /// The greatest time at which it ended for good, neither blocked nor stale.
    pub(super) terminal_at: Timestamp,
    /// Whether it was blocked at the greatest time at which it ended.
    pub(super) end_is_blocked: bool,
    keys: Vec<u64>,
}

impl Default for BuildRecord {
    fn default() -> Self {
        Self { started_at: NEVER, unblocked_at: NEVER, terminal_at: NEVER, end_is_blocked: false, keys: Vec::new() }
    }
}

impl Record {
    pub(super) fn more(&mut self) -> &mut BuildRecord {
        self.build.get_or_insert_default()
    }

    pub(super) fn build(&self) -> Option<&BuildRecord> {
        self.build.as_deref()
    }

    /// Notes a key of a rule that can apply more than once; false when it was there already.
    pub(super) fn insert(&mut self, rule: Rules, at: Option<Timestamp>, word: &str) -> bool {
        let key = fingerprint(rule, at, word);
        let keys = &mut self.more().keys;
        let new = !keys.contains(&key);
        if new {
            if keys.len() >= MOST_KEYS {
                keys.remove(0);
            }
            keys.push(key);
        }
        new
    }

    pub(super) fn has(&self, rule: Rules, at: Option<Timestamp>, word: &str) -> bool {
        self.build.as_ref().is_some_and(|more| more.keys.contains(&fingerprint(rule, at, word)))
    }

    /// Sets a rule that applies once per id; false when it was set already.
    pub(super) fn once(&mut self, rule: Rules) -> bool {
        let new = !self.once.contains(rule);
        self.once.insert(rule);
        new
    }

    /// A build ended: for good, blocked, or at a time that only a stale body tells.
    pub(super) fn end_build(&mut self, at: Timestamp, end: BuildEnd) {
        let ended_before = self.ended_at;
        self.ended_at = self.ended_at.max(at);
        let more = self.more();
        let blocked = end == BuildEnd::Blocked;
        if at > ended_before {
            more.end_is_blocked = blocked;
        } else if at == ended_before {
            more.end_is_blocked &= blocked;
        }
        if end == BuildEnd::Terminal {
            more.terminal_at = more.terminal_at.max(at);
        }
    }
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuildEnd {
    /// For good, as far as one can know.
    Terminal,
    /// It waits for somebody to unblock it.
    Blocked,
    /// The body no longer knew how.
    Stale,
}

/// All records.
#[derive(Debug, Default)]
pub struct Records {
    index: HashTable<Slot>,
    slots: Vec<Record>,
    free: Vec<Slot>,
    /// Slots by the hour in which they were filed; each slot stands in exactly one list. A record whose last event is
    /// younger than its list is filed anew when the list is looked at, so that an event costs nothing here.
    by_hour: BTreeMap<u32, VecDeque<Slot>>,
}

/// SipHash with fixed keys would let a sender choose ids that collide; ids come with a valid signature, but a table is
/// cheap to protect.
fn hash(entity: &Entity) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::OnceLock;
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new).hash_one(entity)
}

fn hour(now: Timestamp) -> u32 {
    u32::try_from(now.as_millis() / HOUR_MILLIS).unwrap_or(0)
}

impl Records {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Makes room for that many, so that a load does not grow the tables step by step.
    pub fn reserve(&mut self, records: usize) {
        let Self { index, slots, .. } = self;
        index.reserve(records, |slot| hash(&slots[*slot as usize].entity));
        slots.reserve(records);
    }

    /// The record of an entity, if there is one.
    pub fn find(&self, entity: &Entity) -> Option<&Record> {
        let slot = self.slot(entity)?;
        Some(&self.slots[slot as usize])
    }

    fn slot(&self, entity: &Entity) -> Option<Slot> {
        self.index.find(hash(entity), |slot| self.slots[*slot as usize].entity == *entity).copied()
    }

    pub(super) fn find_mut(&mut self, entity: &Entity) -> Option<&mut Record> {
        let slot = self.slot(entity)?;
        Some(&mut self.slots[slot as usize])
    }

    /// The record of an entity, made if need be, its age starting anew. The second value says whether an hour has
    /// begun since its last event, so that even an event that counts nothing must be noted in the store.
    pub(super) fn touch(&mut self, entity: Entity, now: Timestamp) -> (&mut Record, bool) {
        let now = hour(now);
        let Self { index, slots, free, by_hour } = self;
        let entry = index.entry(
            hash(&entity),
            |slot| slots[*slot as usize].entity == entity,
            |slot| hash(&slots[*slot as usize].entity),
        );
        let (slot, is_new) = match entry {
            Entry::Occupied(occupied) => (*occupied.get(), false),
            Entry::Vacant(vacant) => {
                let record = Record { entity, once: Rules::default(), last_hour: now, ended_at: NEVER, build: None };
                let slot = match free.pop() {
                    Some(slot) => {
                        slots[slot as usize] = record;
                        slot
                    }
                    None => {
                        slots.push(record);
                        // The configuration keeps max_records below 2^31.
                        (slots.len() - 1) as Slot
                    }
                };
                vacant.insert(slot);
                by_hour.entry(now).or_default().push_back(slot);
                (slot, true)
            }
        };
        let record = &mut slots[slot as usize];
        let stale = !is_new && record.last_hour < now;
        record.last_hour = record.last_hour.max(now);
        (record, stale)
    }

    /// Takes up a stored row again.
    pub fn restore(&mut self, fact: &Fact) {
        let (record, _) = self.touch(fact.entity, fact.counted_at);
        let at = fact.at.unwrap_or(NEVER);
        let rules = fact.rules;
        let word = fact.word.as_deref().unwrap_or_default();
        match fact.entity.kind() {
            Some(super::EntityKind::Build) => {
                record.once.insert(Rules(rules.0 & (Rules::SCHEDULED.0 | Rules::REBUILT.0 | Rules::SKIPPED.0)));
                for rule in [Rules::STARTED, Rules::WAIT, Rules::MISSING, Rules::FAILING] {
                    if rules.contains(rule) {
                        record.insert(rule, fact.at, "");
                    }
                }
                if rules.contains(Rules::STARTED) {
                    let more = record.more();
                    more.started_at = more.started_at.max(at);
                }
                if rules.contains(Rules::FINISHED) {
                    let key = fact.at.filter(|_| !rules.contains(Rules::UNTIMED));
                    record.insert(Rules::FINISHED, key, word);
                    record.end_build(
                        at,
                        match word {
                            "blocked" => BuildEnd::Blocked,
                            "unknown" => BuildEnd::Stale,
                            _ => BuildEnd::Terminal,
                        },
                    );
                }
                if rules.contains(Rules::ENDED) {
                    record.ended_at = record.ended_at.max(at);
                }
                if rules.contains(Rules::UNBLOCKED) {
                    let more = record.more();
                    more.unblocked_at = more.unblocked_at.max(at);
                }
            }
            Some(super::EntityKind::Agent) => {
                record.insert(Rules::AGENT, None, word);
            }
            _ => {
                record.once.insert(rules.without(Rules::SEEN));
                if rules.contains(Rules::FINISHED) || rules.contains(Rules::ENDED) {
                    record.ended_at = record.ended_at.max(at);
                }
            }
        }
    }

    /// Drops records whose last event is older than `oldest`, at most `most` in one call so that nobody waits for it.
    /// `keep` names those that must stay. Returns how many were dropped, and whether there may be more.
    pub fn prune(&mut self, oldest: Timestamp, most: usize, keep: impl Fn(&Entity) -> bool) -> (usize, bool) {
        let oldest = hour(oldest);
        let mut dropped = 0;
        for _ in 0..most {
            let Some(mut list) = self.by_hour.first_entry().filter(|entry| *entry.key() < oldest) else {
                return (dropped, false);
            };
            let Some(slot) = list.get_mut().pop_front() else {
                list.remove();
                continue;
            };
            if self.drop_or_refile(slot, oldest, &keep) {
                dropped += 1;
            }
        }
        (dropped, true)
    }

    /// Drops the records that are longest without an event until there is room below `max`. Returns how many.
    pub fn evict(&mut self, max: usize, keep: impl Fn(&Entity) -> bool) -> usize {
        let mut dropped = 0;
        // Bounded, so that one event never pays for a table full of what must be kept.
        let mut looks = 1000;
        while self.len() > max && looks > 0 {
            looks -= 1;
            let Some(mut list) = self.by_hour.first_entry() else { break };
            let hour = *list.key();
            let Some(slot) = list.get_mut().pop_front() else {
                list.remove();
                continue;
            };
            if self.drop_or_refile(slot, hour.saturating_add(1), &keep) {
                dropped += 1;
            }
        }
        dropped
    }

    fn drop_or_refile(&mut self, slot: Slot, oldest: u32, keep: &impl Fn(&Entity) -> bool) -> bool {
        let record = &mut self.slots[slot as usize];
        let entity = record.entity;
        let file_under = match (record.last_hour >= oldest, keep(&entity)) {
            (true, _) => record.last_hour,
            (false, true) => oldest,
            (false, false) => {
                if let Ok(found) = self.index.find_entry(hash(&entity), |other| *other == slot) {
                    found.remove();
                }
                // Only the index says which slots are in use; what else the slot held is given back.
                record.build = None;
                self.free.push(slot);
                return true;
            }
        };
        self.by_hour.entry(file_under).or_default().push_back(slot);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::EntityKind;
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(hours * HOUR_MILLIS)
    }

    fn job(id: usize) -> Entity {
        Entity::new(EntityKind::Job, &format!("job {id}"))
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Record>(), 40);
    }

    #[test]
    fn age_runs_from_the_last_event() {
        let mut records = Records::default();
        for id in 0..10 {
            records.touch(job(id), at(1));
        }
        records.touch(job(3), at(5));
        assert_eq!(records.prune(at(3), 100, |_| false), (9, false));
        assert!(records.find(&job(3)).is_some());
        assert_eq!(records.prune(at(6), 100, |_| false), (1, false));
        assert!(records.is_empty());
    }

    #[test]
    fn the_first_to_come_is_the_first_to_go_within_an_hour_too() {
        let mut records = Records::default();
        for id in 0..14 {
            records.touch(job(id), at(1));
            records.evict(10, |entity| *entity == job(2));
        }
        let left: Vec<_> = (0..14).filter(|id| records.find(&job(*id)).is_some()).collect();
        assert_eq!(left, [2, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    }

    #[test]
    fn what_is_in_flight_stays_and_the_oldest_go_first() {
        let mut records = Records::default();
        for id in 0..10 {
            records.touch(job(id), at(id as i64));
        }
        assert_eq!(records.evict(5, |entity| *entity == job(0)), 5);
        let left: Vec<_> = (0..10).filter(|id| records.find(&job(*id)).is_some()).collect();
        assert_eq!(left, [0, 6, 7, 8, 9]);
        assert_eq!(records.evict(0, |_| true), 0);
    }
}

//! Agents: their events carry no time, so the hash of the body tells a repeated delivery from a second event.

use super::super::entity::{Entity, EntityKind};
use super::super::fact::Rules;
use super::{Book, Delta};
use crate::event::{Agent, Event, Timestamp};
use crate::metrics::catalogue::FamilyId;
use crate::metrics::own::Outcome;

impl Book {
    pub(super) fn apply_agent(&mut self, event: &Event, agent: &Agent, now: Timestamp, delta: &mut Delta) {
        let entity = Entity::new(EntityKind::Agent, &agent.id.0);
        let [a, b, c, d, e, f, g, h, ..] = agent.body;
        let word = format!("{} {:016x}", event.name.as_str(), u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        let (record, hour_began) = self.records.touch(entity, now);
        if record.insert(Rules::AGENT, None, &word) {
            self.note(entity, Rules::AGENT, None, Some(&word), now);
            delta.count(FamilyId::AgentsTransitions);
            delta.outcome = Some(Outcome::Accepted);
        } else {
            self.seen_again(entity, hour_began, now, delta);
        }
    }

    pub(super) fn apply_registration(&mut self, body: &[u8; 32], now: Timestamp, delta: &mut Delta) {
        let entity = Entity::of_body(EntityKind::Registration, body);
        let (record, hour_began) = self.records.touch(entity, now);
        if record.once(Rules::AGENT) {
            self.note(entity, Rules::AGENT, None, None, now);
            delta.count(FamilyId::AgentsRegistrationsBlocked);
            delta.outcome = Some(Outcome::Accepted);
        } else {
            self.seen_again(entity, hour_began, now, delta);
        }
    }

    /// Nothing new: a duplicate. Its arrival is noted once an hour, so that the record's age survives a restart.
    pub(super) fn seen_again(&mut self, entity: Entity, hour_began: bool, now: Timestamp, delta: &mut Delta) {
        delta.outcome = Some(Outcome::Duplicate);
        if hour_began {
            self.note(entity, Rules::SEEN, None, None, now);
        }
    }
}

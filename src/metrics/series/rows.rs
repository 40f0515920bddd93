//! Where series are: a slab of rows for each family, found by their label values.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::{LabelValues, OVERFLOW, Place, Row, SeriesTable};
use crate::event::Timestamp;
use crate::metrics::catalogue::{FamilyId, Kind};
use crate::metrics::value::{Histogram, Value};

#[derive(Debug, Default)]
pub(super) struct FamilyRows {
    index: HashTable<u32>,
    pub(super) rows: Vec<Option<Row>>,
    free: Vec<u32>,
    pub(super) samples: usize,
    pub(super) has_overflow_row: bool,
}

impl SeriesTable {
    pub(super) fn find(&self, family: FamilyId, values: &[&str]) -> Option<u32> {
        let rows = &self.families[family as usize];
        let is = |row: &Row| row.labels.iter().map(|value| &**value).eq(values.iter().copied());
        let found = rows.index.find(self.hash(values), |at| rows.rows[*at as usize].as_ref().is_some_and(is));
        found.copied()
    }

    fn hash(&self, values: &[&str]) -> u64 {
        self.hasher.hash_one(values)
    }

    pub(super) fn insert(&mut self, family: FamilyId, values: &[&str], now: Timestamp) -> u32 {
        let configured = self.catalogue.get(family);
        let is_gauge = configured.family.kind == Kind::Gauge;
        let labels: LabelValues =
            values.iter().enumerate().map(|(label, value)| self.gate.take(family, label, value)).collect();
        let value = self.zero(family);
        let row = Row {
            id: self.next_id,
            labels,
            shown: value.clone(),
            value,
            released: is_gauge || self.hold.is_zero(),
            shown_released: false,
            held_since: None,
            touched_at: now,
            is_new: true,
            dirty: false,
            unshown: false,
        };
        self.next_id += 1;
        let at = self.place(family, row);
        self.changed((family, at));
        at
    }

    fn place(&mut self, family: FamilyId, row: Row) -> u32 {
        let cost = self.catalogue.get(family).samples_per_series();
        let values: Vec<&str> = row.labels.iter().map(|value| &**value).collect();
        let is_last_resort = values.iter().all(|value| *value == OVERFLOW);
        let hash = self.hash(&values);
        let hasher = &self.hasher;
        let FamilyRows { index, rows, free, samples, has_overflow_row } = &mut self.families[family as usize];
        let at = match free.pop() {
            Some(at) => {
                rows[at as usize] = Some(row);
                at
            }
            None => {
                rows.push(Some(row));
                (rows.len() - 1) as u32
            }
        };
        index.insert_unique(hash, at, |at| {
            let labels = rows[*at as usize].as_ref().map(|row| row.labels.clone());
            let values: Vec<&str> = labels.iter().flat_map(|labels| labels.iter().map(|value| &**value)).collect();
            hasher.hash_one(values.as_slice())
        });
        *samples += cost;
        self.samples += cost;
        if is_last_resort && !*has_overflow_row {
            *has_overflow_row = true;
            self.reserve = self.reserve.saturating_sub(cost);
        }
        at
    }

    /// What a series begins with.
    pub(super) fn zero(&self, family: FamilyId) -> Value {
        let configured = self.catalogue.get(family);
        match (configured.family.kind, family) {
            (Kind::Counter, _) => Value::Counter(0),
            (Kind::Histogram(_), _) => Value::Histogram(Box::new(Histogram::new(configured.buckets.clone()))),
            (Kind::Gauge, FamilyId::RecentBuildInfo | FamilyId::RecentBuildDuration) => {
                Value::Dated { millis: 0, as_of: Timestamp::from_millis(0) }
            }
            (Kind::Gauge, FamilyId::PipelineInfo) => Value::Gauge(1.0),
            (Kind::Gauge, _) if configured.family.is_moment() => Value::Time(None),
            (Kind::Gauge, _) => Value::Gauge(0.0),
        }
    }

    pub(in crate::metrics) fn remove(&mut self, (family, at): Place) {
        let Some(row) = self.families[family as usize].rows[at as usize].take() else { return };
        let values: Vec<&str> = row.labels.iter().map(|value| &**value).collect();
        let hash = self.hash(&values);
        let cost = self.catalogue.get(family).samples_per_series();
        let rows = &mut self.families[family as usize];
        if let Ok(found) = rows.index.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        rows.free.push(at);
        rows.samples -= cost;
        self.samples -= cost;
        if rows.has_overflow_row && values.iter().all(|value| *value == OVERFLOW) {
            rows.has_overflow_row = false;
            self.reserve += cost;
        }
        self.gate.give_back(family, &row.labels);
        self.removed.push(row.id);
    }

    pub(in crate::metrics) fn row(&self, (family, at): Place) -> Option<&Row> {
        self.families[family as usize].rows.get(at as usize)?.as_ref()
    }

    pub(in crate::metrics) fn row_mut(&mut self, (family, at): Place) -> Option<&mut Row> {
        self.families[family as usize].rows.get_mut(at as usize)?.as_mut()
    }

    /// Notes that the store and the next snapshot must learn of a row.
    pub(in crate::metrics) fn changed(&mut self, place: Place) {
        self.show_later(place);
        let Some(row) = self.row_mut(place) else { return };
        if !std::mem::replace(&mut row.dirty, true) {
            self.dirty.push(place);
        }
    }

    /// Notes that the next snapshot must learn of a row.
    pub(super) fn show_later(&mut self, place: Place) {
        let Some(row) = self.row_mut(place) else { return };
        if !std::mem::replace(&mut row.unshown, true) {
            self.unshown.push(place);
        }
    }
}

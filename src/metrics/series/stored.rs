//! Series in the store, and totals that an earlier run left on the gateway.

use std::collections::BTreeMap;

use super::{Place, Row, SeriesTable};
use crate::event::Timestamp;
use crate::metrics::catalogue::{FAMILIES, FamilyId};
use crate::metrics::value::{Numbers, Value};

/// What the store keeps of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSeries {
    /// The row's id.
    pub id: i64,
    /// The family's name.
    pub family: String,
    /// Label names and values, as a JSON object; empty when the row is known to be in the store already.
    pub labels: String,
    /// Its value.
    pub numbers: Numbers,
    /// Whether its hold is over.
    pub released: bool,
    /// When it last changed.
    pub touched_at: Timestamp,
}

impl SeriesTable {
    /// What the store does not have yet: changed series, and ids of removed ones. Stays until [`SeriesTable::saved`].
    pub fn unsaved(&self) -> (Vec<StoredSeries>, &[i64]) {
        let stored = |place: &Place| Some(self.stored(place.0, self.row(*place)?));
        (self.dirty.iter().filter_map(stored).collect(), &self.removed)
    }

    fn stored(&self, family: FamilyId, row: &Row) -> StoredSeries {
        let configured = self.catalogue.get(family);
        let labels = if row.is_new {
            let pairs = configured.labels.iter().map(|label| &*label.name).zip(row.labels.iter().map(|value| &**value));
            let object: serde_json::Map<String, serde_json::Value> =
                pairs.map(|(name, value)| (name.to_owned(), value.into())).collect();
            serde_json::Value::Object(object).to_string()
        } else {
            String::new()
        };
        StoredSeries {
            id: row.id,
            family: configured.family.name.to_owned(),
            labels,
            numbers: row.value.numbers(),
            released: row.released,
            touched_at: row.touched_at,
        }
    }

    /// The store has what [`SeriesTable::unsaved`] gave.
    pub fn saved(&mut self) {
        for place in std::mem::take(&mut self.dirty) {
            if let Some(row) = self.row_mut(place) {
                row.dirty = false;
                row.is_new = false;
            }
        }
        self.removed.clear();
    }

    /// Everything has been loaded: the store has what this table has, but for what there was no more room for.
    pub fn loaded(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        self.saved();
        self.removed = removed;
        self.publish();
    }

    /// Takes up a stored series again. False when its family is not configured like that any more.
    pub fn load(&mut self, stored: &StoredSeries) -> bool {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&stored.labels).unwrap_or_default();
        let labels = |name: &str| object.get(name).and_then(|value| value.as_str());
        self.next_id = self.next_id.max(stored.id + 1);
        let Some(place) = self.load_row(&stored.family, object.len(), labels, stored.touched_at) else { return false };
        let Some(row) = self.row_mut(place) else { return false };
        if !row.value.set(&stored.numbers) {
            return false;
        }
        row.id = stored.id;
        row.released |= stored.released;
        row.is_new = false;
        self.restore_build(place)
    }

    /// Adds totals that an earlier run left on the gateway. False when the family is not configured like that any more.
    pub fn add(&mut self, family: &str, labels: &BTreeMap<String, String>, value: &Value, now: Timestamp) -> bool {
        let constant = self.catalogue.constant.clone();
        let own = labels.len().saturating_sub(constant.len());
        if !constant.iter().all(|(name, value)| labels.get(&**name).map(String::as_str) == Some(value)) {
            return false;
        }
        let get = |name: &str| labels.get(name).map(String::as_str);
        // The gateway leaves out empty labels.
        let Some(place) = self.load_row(family, own, |name| Some(get(name).unwrap_or("")), now) else { return false };
        let Some(row) = self.row_mut(place) else { return false };
        if !row.value.is_like(value) {
            return false;
        }
        row.value.add(value);
        // What is not zero has been shown to Prometheus.
        row.released |= !value.is_zero();
        self.changed(place);
        true
    }

    fn load_row<'a>(
        &mut self,
        family: &str,
        labels: usize,
        get: impl Fn(&str) -> Option<&'a str>,
        now: Timestamp,
    ) -> Option<Place> {
        let family = FAMILIES.iter().find(|known| known.name == family)?.id;
        let configured = self.catalogue.get(family);
        if !configured.enabled || labels > configured.labels.len() {
            return None;
        }
        let values: Option<Vec<&str>> = configured.labels.iter().map(|label| get(&label.name)).collect();
        let values = values?;
        // A value that had a series of its own keeps it: what is loaded does not pass the gate again.
        let at = match self.find(family, &values) {
            Some(at) => at,
            None => self.insert(family, &values, now),
        };
        if family == FamilyId::PipelineInfo
            && let Some(row) = self.row((family, at))
            && let [organization, pipeline, ..] = &*row.labels
        {
            let key = (organization.clone(), pipeline.clone());
            self.default_branches.insert(key, at);
        }
        Some((family, at))
    }
}

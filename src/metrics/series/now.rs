//! Gauges of what is now: builds and jobs in flight, and the pipelines' default branches.

use std::collections::HashMap;
use std::sync::Arc;

use super::gate::Admitted;
use super::{SeriesTable, cut};
use crate::event::Timestamp;
use crate::ledger::in_flight::{InFlights, Phase};
use crate::metrics::catalogue::FamilyId;
use crate::metrics::labels::Context;
use crate::metrics::value::Value;

/// Which gauges follow which entries.
const GAUGES: [(FamilyId, Phase); 5] = [
    (FamilyId::BuildsRunning, Phase::BuildRunning),
    (FamilyId::BuildsBlocked, Phase::BuildBlocked),
    (FamilyId::JobsWaiting, Phase::JobWaiting),
    (FamilyId::JobsRunning, Phase::JobRunning),
    (FamilyId::JobOldestWaiting, Phase::JobWaiting),
];

impl SeriesTable {
    /// Sets the gauges of what is in flight.
    pub fn set_in_flight(&mut self, in_flight: &InFlights, now: Timestamp) {
        let labeler = Arc::clone(&self.labeler);
        let catalogue = Arc::clone(&self.catalogue);
        for (family, phase) in GAUGES {
            let configured = catalogue.get(family);
            if !configured.enabled {
                continue;
            }
            let zero = self.zero(family);
            let mut now_is: HashMap<u32, Value> = HashMap::new();
            let mut over = 0;
            let mut values: Vec<&str> = Vec::with_capacity(configured.labels.len());
            for (_, entry) in in_flight.iter().filter(|(_, entry)| entry.phase == phase) {
                values.clear();
                let labels = configured.labels.iter().map(|label| labeler.in_flight(&label.source, entry));
                values.extend(labels.map(|value| cut(value, self.limits.value_bytes)));
                let Admitted { row, is_over } = self.find_or_admit(family, &values, now);
                over += u64::from(is_over);
                match now_is.entry(row).or_insert_with(|| zero.clone()) {
                    Value::Gauge(count) => *count += 1.0,
                    Value::Time(oldest) => *oldest = Some(oldest.map_or(entry.since, |oldest| oldest.min(entry.since))),
                    _ => {}
                }
            }
            // The same entries come again each time: only more of them are news.
            let before = self.overflowing.insert(family, over).unwrap_or_default();
            self.overflows[family as usize] += over.saturating_sub(before);
            for at in 0..self.families[family as usize].rows.len() {
                let place = (family, at as u32);
                let value = now_is.remove(&place.1).unwrap_or_else(|| zero.clone());
                if let Some(row) = self.row_mut(place).filter(|row| row.value != value) {
                    row.value = value;
                    row.touched_at = now;
                    self.show_later(place);
                }
            }
        }
    }

    pub(super) fn note_default_branch(&mut self, context: &Context<'_>, now: Timestamp) {
        let family = FamilyId::PipelineInfo;
        let Some(Admitted { row: at, is_over }) = self.row_of(family, context, now) else { return };
        self.overflows[family as usize] += u64::from(is_over);
        let Some(row) = self.row_mut((family, at)) else { return };
        // Not worth a write of its own; `labels.series_ttl` goes by it.
        row.touched_at = now;
        let [organization, pipeline, ..] = &*row.labels else { return };
        let key = (organization.clone(), pipeline.clone());
        match self.default_branches.insert(key, at) {
            Some(before) if before == at => {}
            Some(before) => self.remove((family, before)),
            None => {}
        }
    }
}

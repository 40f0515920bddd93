//! The series of single builds, see [`crate::metrics::recent`].

use std::sync::Arc;

use super::{LabelValues, Place, SeriesTable, cut};
use crate::event::{Build, Event, Timestamp};
use crate::metrics::catalogue::FamilyId;
use crate::metrics::labels::Context;
use crate::metrics::recent::{Told, Verdict, as_of, millis_of, state_of};
use crate::metrics::value::Value;

const INFO: FamilyId = FamilyId::RecentBuildInfo;
const DURATION: FamilyId = FamilyId::RecentBuildDuration;

impl SeriesTable {
    /// Shows what an event says of its build. Where there is no room for all of it, nothing is shown: a build without
    /// its name would help nobody.
    pub(super) fn show_build(&mut self, event: &Event, build: &Build, now: Timestamp) {
        if self.recent.is_empty() || build.number.is_none() {
            return;
        }
        let state = state_of(event.name, build);
        let context = Context { event, state: Some(state), soft_failed: None };
        let labels: LabelValues = self
            .catalogue
            .get(INFO)
            .labels
            .iter()
            .map(|label| Arc::from(cut(&self.labeler.value(&label.source, &context), self.limits.value_bytes)))
            .collect();
        let told = Told { as_of: as_of(build), labels, millis: millis_of(state, build) };
        let Verdict::Show(places) = self.recent.judge(&told) else { return };
        for place in places {
            self.remove(place);
        }
        let values: Vec<&str> = told.labels.iter().map(|value| &**value).collect();
        let mut shown: Vec<Place> = Vec::with_capacity(2);
        for (family, millis) in [(INFO, Some(1000)), (DURATION, told.millis)] {
            let Some(millis) = millis.filter(|_| self.catalogue.get(family).enabled) else { continue };
            let Some(at) = self.admit_whole(family, &values, now) else {
                if family == INFO {
                    return;
                }
                continue;
            };
            if let Some(row) = self.row_mut((family, at)) {
                row.value = Value::Dated { millis, as_of: told.as_of };
                row.touched_at = now;
            }
            self.changed((family, at));
            shown.push((family, at));
        }
        if !shown.is_empty() {
            self.recent.shown(told, shown);
        }
    }

    /// Takes up a stored series. False when there is no room for it any more.
    pub(super) fn restore_build(&mut self, place: Place) -> bool {
        let Some(row) = self.row(place) else { return false };
        let Value::Dated { millis, as_of } = row.value else { return true };
        let told = Told { as_of, labels: row.labels.clone(), millis: (place.0 == DURATION).then_some(millis) };
        let gone = self.recent.restore(told, place);
        let stays = !gone.contains(&place);
        for place in gone {
            self.remove(place);
        }
        stays
    }
}

//! What is shown of a series: what has been committed, or zeros while its hold lasts.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Place, Row, SeriesTable};
use crate::event::Timestamp;
use crate::metrics::catalogue::{About, FAMILIES, FamilyId, Kind};
use crate::metrics::snapshot::{Copy, Shown};
use crate::metrics::value::Value;

/// Whether series in their hold are shown as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// As zeros.
    AsZeros,
    /// As they are: the last push of a ledger that keeps nothing.
    AsTheyAre,
}

impl SeriesTable {
    /// Shows everything that has been counted so far.
    pub fn publish(&mut self) {
        for place in std::mem::take(&mut self.unshown) {
            if let Some(row) = self.row_mut(place) {
                row.unshown = false;
                row.shown.clone_from(&row.value);
                row.shown_released = row.released;
            }
        }
    }

    /// Shows what a crash may take back: gauges. Of counters and histograms nothing that the store does not have.
    pub fn publish_gauges(&mut self) {
        let is_gauge = |(family, _): &Place| self.catalogue.get(*family).family.kind == Kind::Gauge;
        let (gauges, totals) = std::mem::take(&mut self.unshown).into_iter().partition(is_gauge);
        self.unshown = gauges;
        self.publish();
        self.unshown = totals;
    }

    /// Ends the holds that have lasted long enough. True when there was one, so that the store must know.
    pub fn release_due(&mut self, now: Instant) -> bool {
        let hold = self.hold;
        let mut due = Vec::new();
        for family in FAMILIES {
            for (at, row) in self.families[family.id as usize].rows.iter().enumerate() {
                let is_due =
                    |row: &&Row| !row.released && row.held_since.is_some_and(|since| now.duration_since(since) >= hold);
                if row.as_ref().filter(is_due).is_some() {
                    due.push((family.id, at as u32));
                }
            }
        }
        for place in &due {
            if let Some(row) = self.row_mut(*place) {
                row.released = true;
            }
            self.changed(*place);
        }
        !due.is_empty()
    }

    /// Takes back releases that the store could not note. What it noted earlier stays: a value that has been shown must
    /// not become zeros again.
    pub fn unrelease(&mut self) {
        for place in self.dirty.clone() {
            if let Some(row) = self.row_mut(place)
                && row.held_since.is_some()
                && !row.shown_released
            {
                row.released = false;
            }
        }
    }

    /// What was shown as zeros may be gone, or nobody could scrape it: holds that are not over begin anew.
    pub fn interrupted(&mut self) {
        for row in self.families.iter_mut().flat_map(|family| family.rows.iter_mut().flatten()) {
            if !row.released {
                row.held_since = None;
            }
        }
    }

    /// A copy of what may be shown.
    pub fn snapshot(&self, held: Held) -> Copy {
        let families = FAMILIES
            .iter()
            .map(|family| {
                let rows = self.families[family.id as usize].rows.iter().flatten();
                let shown = rows.filter(|row| row.shown != Value::Time(None)).map(|row| {
                    let hide = !row.shown_released && held == Held::AsZeros;
                    let value = if hide { self.zero(family.id) } else { row.shown.clone() };
                    Shown { id: row.id, labels: row.labels.clone(), value, held: !row.shown_released }
                });
                (family.id, shown.collect())
            })
            .collect();
        Copy { catalogue: self.catalogue.clone(), families }
    }

    /// What was shown as zeros has been shown: holds run from now.
    pub fn exposed(&mut self, copy: &Copy, now: Instant) {
        for (family, shown) in &copy.families {
            let ids: HashSet<i64> = shown.iter().filter(|shown| shown.held).map(|shown| shown.id).collect();
            if ids.is_empty() {
                continue;
            }
            for row in self.families[*family as usize].rows.iter_mut().flatten() {
                if ids.contains(&row.id) {
                    row.held_since.get_or_insert(now);
                }
            }
        }
    }

    /// Removes series that have not changed for `ttl`; they start again at zero under a new hold. Gauges of what is in
    /// flight go with them only when they show nothing.
    pub fn expire(&mut self, now: Timestamp, ttl: Duration) {
        let oldest = now.minus(ttl);
        for family in FAMILIES {
            let is_gauge = family.kind == Kind::Gauge && family.about == About::Now;
            let follows_in_flight = is_gauge && family.id != FamilyId::PipelineInfo;
            for at in 0..self.families[family.id as usize].rows.len() as u32 {
                let place = (family.id, at);
                let is_over = |row: &Row| {
                    let is_in_flight = follows_in_flight && !row.value.is_zero();
                    row.touched_at < oldest && !row.dirty && !is_in_flight
                };
                if self.row(place).is_some_and(is_over) {
                    self.remove(place);
                }
            }
        }
        self.default_branches.retain(|_, at| {
            self.families[FamilyId::PipelineInfo as usize].rows.get(*at as usize).is_some_and(Option::is_some)
        });
        let families = &self.families;
        self.recent
            .retain(|(family, at)| families[*family as usize].rows.get(*at as usize).is_some_and(Option::is_some));
    }

    /// Exposition lines of all series.
    pub fn samples(&self) -> usize {
        self.samples
    }
}

//! The gate: how many values a label may have, how many samples a family, and what gives way when there is no room.
//!
//! Values give way in the order of [`Source::rank`], with a tenth of each limit kept for the coarser series that this
//! makes, and one series a family always kept for the case that everything is over.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{OVERFLOW, SeriesTable};
use crate::event::Timestamp;
use crate::metrics::catalogue::{Catalogue, FamilyId};
use crate::metrics::source::Source;

/// A row, and whether a limit made `_overflow` of any of its values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub(super) row: u32,
    pub(super) is_over: bool,
}

/// What the gate must know of a label of a family, worked out once.
#[derive(Debug)]
struct Rule {
    /// Where the values of this label name are, the same for all families that have it; `None` for labels that tell
    /// single builds apart: their number is bounded by that of the builds.
    values: Option<usize>,
    /// The level from which on it is `_overflow`; the first is 1.
    gives_way_at: usize,
    source: Source,
}

/// The rules, and the distinct values of each label name.
#[derive(Debug)]
pub(super) struct Gate {
    families: Vec<Vec<Rule>>,
    levels: Vec<usize>,
    /// Each value with the number of series that carry it, so that a value of no series takes no room.
    values: Vec<HashMap<Arc<str>, usize>>,
}

impl Gate {
    pub(super) fn new(catalogue: &Catalogue) -> Self {
        let mut names: Vec<&str> = Vec::new();
        let mut levels = Vec::new();
        let mut families = Vec::new();
        for configured in catalogue.iter() {
            let mut ranks: Vec<u8> = configured.labels.iter().map(|label| label.source.rank()).collect();
            ranks.sort_unstable();
            ranks.dedup();
            levels.push(ranks.len());
            let rules = configured.labels.iter().map(|label| Rule {
                values: (!label.source.tells_builds_apart()).then(|| {
                    names.iter().position(|name| *name == &*label.name).unwrap_or_else(|| {
                        names.push(&label.name);
                        names.len() - 1
                    })
                }),
                gives_way_at: ranks.partition_point(|rank| *rank < label.source.rank()) + 1,
                source: label.source.clone(),
            });
            families.push(rules.collect());
        }
        Self { families, levels, values: names.iter().map(|_| HashMap::new()).collect() }
    }

    /// A value as all series share it, counted as carried by one more.
    pub(super) fn take(&mut self, family: FamilyId, label: usize, value: &str) -> Arc<str> {
        let Some(at) = self.families[family as usize][label].values else { return value.into() };
        let values = &mut self.values[at];
        if let Some((value, carriers)) = values.get_key_value_mut(value) {
            *carriers += 1;
            return value.clone();
        }
        let value: Arc<str> = value.into();
        values.insert(value.clone(), 1);
        value
    }

    /// A series that carried these values is gone.
    pub(super) fn give_back(&mut self, family: FamilyId, values: &[Arc<str>]) {
        for (rule, value) in self.families[family as usize].iter().zip(values) {
            let Some(known) = rule.values.map(|at| &mut self.values[at]) else { continue };
            if let Some(carriers) = known.get_mut(value) {
                *carriers -= 1;
                if *carriers == 0 {
                    known.remove(value);
                }
            }
        }
    }

    /// Makes `_overflow` of values that are new and one too many for their label. True if there was one.
    fn bound(&self, family: FamilyId, values: &mut [&str], most: usize) -> bool {
        let rules = &self.families[family as usize];
        let mut is_over = false;
        let mut pipeline_is_over = false;
        for (rule, value) in rules.iter().zip(values.iter_mut()) {
            let Some(known) = rule.values.map(|at| &self.values[at]) else { continue };
            // `_overflow` itself stands beside the values that the limit counts.
            let full = || known.len() - usize::from(known.contains_key(OVERFLOW)) >= most;
            if *value != OVERFLOW && known.len() >= most && !known.contains_key(*value) && full() {
                *value = OVERFLOW;
                is_over = true;
                pipeline_is_over |= rule.source == Source::Pipeline;
            }
        }
        if pipeline_is_over {
            // Whose default branch it is can no longer be said.
            let of_pipeline = rules.iter().zip(values).filter(|(rule, _)| rule.source == Source::DefaultBranch);
            of_pipeline.for_each(|(_, value)| *value = OVERFLOW);
        }
        is_over
    }

    /// Makes `_overflow` of the values that give way at this level.
    fn coarsen(&self, family: FamilyId, values: &mut [&str], level: usize) {
        for (rule, value) in self.families[family as usize].iter().zip(values) {
            if rule.gives_way_at <= level {
                *value = OVERFLOW;
            }
        }
    }
}

impl SeriesTable {
    /// The row of these values, or of those that stand for them when a limit is reached; made if need be.
    pub(super) fn find_or_admit(&mut self, family: FamilyId, values: &[&str], now: Timestamp) -> Admitted {
        match self.find(family, values) {
            Some(row) => Admitted { row, is_over: false },
            None => self.admit(family, values, now),
        }
    }

    fn admit(&mut self, family: FamilyId, values: &[&str], now: Timestamp) -> Admitted {
        let mut values = values.to_vec();
        let mut is_over = self.gate.bound(family, &mut values, self.limits.values_per_label);
        let levels = self.gate.levels[family as usize];
        let mut level = 0;
        loop {
            // At the last level everything is over, and for that series there is room always.
            let found = if level > 0 || is_over { self.find(family, &values) } else { None };
            if found.is_some() || level == levels || self.fits_at(family, level, levels) {
                let row = found.unwrap_or_else(|| self.insert(family, &values, now));
                return Admitted { row, is_over };
            }
            level += 1;
            is_over = true;
            self.gate.coarsen(family, &mut values, level);
        }
    }

    /// The row of these values, made if there is room for it as it is: for series that say nothing without their
    /// values.
    pub(in crate::metrics) fn admit_whole(&mut self, family: FamilyId, values: &[&str], now: Timestamp) -> Option<u32> {
        if let Some(row) = self.find(family, values) {
            return Some(row);
        }
        let mut bounded = values.to_vec();
        let is_over = self.gate.bound(family, &mut bounded, self.limits.values_per_label);
        (!is_over && self.fits(family)).then(|| self.insert(family, values, now))
    }

    /// Whether one more series of full detail fits.
    pub(super) fn fits(&self, family: FamilyId) -> bool {
        self.fits_at(family, 0, 1)
    }

    fn fits_at(&self, family: FamilyId, level: usize, levels: usize) -> bool {
        let rows = &self.families[family as usize];
        let cost = self.catalogue.get(family).samples_per_series();
        let own_reserve = if rows.has_overflow_row { 0 } else { cost };
        // From nine tenths at full detail to everything when all labels have given way.
        let share = |limit: usize| limit - limit / 10 + limit / 10 * level / levels.max(1);
        rows.samples + cost + own_reserve <= share(self.limits.samples_per_family)
            && self.samples + cost + self.reserve <= share(self.limits.samples)
    }
}

/// The longest beginning of `value` that is at most `bytes` long and whole characters.
pub fn cut(value: &str, bytes: usize) -> &str {
    if value.len() <= bytes {
        return value;
    }
    // A character has four bytes at most.
    let end = (bytes.saturating_sub(3)..=bytes).rev().find(|end| value.is_char_boundary(*end));
    &value[..end.unwrap_or(0)]
}

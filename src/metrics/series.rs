//! Series and their values. Everything that becomes a label value passes the one gate in here, so that no input can
//! make more series than the limits allow.
//!
//! Each series has two values: what has been counted, and what is shown. The second becomes the first when the store
//! has committed it, so that a push never shows what a crash could take back.

mod builds;
mod gate;
mod now;
mod rows;
mod shown;
mod stored;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::DefaultHashBuilder;

use super::catalogue::{Catalogue, Configured, FAMILIES, FamilyId};
use super::labels::{Context, Labeler};
use super::recent::Recent;
use super::value::Value;
use crate::config::Limits;
use crate::event::{Event, Subject, Timestamp};
use crate::ledger::rules::{Delta, Effect, Value as Counted};
use gate::{Admitted, Gate};
use rows::FamilyRows;

pub use gate::cut;
pub use shown::Held;
pub use stored::StoredSeries;

/// What a value becomes that is over a limit.
pub const OVERFLOW: &str = "_overflow";

/// The label values of a series, in the order of its family's labels.
pub type LabelValues = Arc<[Arc<str>]>;

/// A series' place: family and row.
pub(super) type Place = (FamilyId, u32);

/// One series.
#[derive(Debug)]
pub struct Row {
    /// Its id in the store.
    pub id: i64,
    /// Its label values.
    pub labels: LabelValues,
    /// What has been counted.
    pub value: Value,
    /// What may be shown: what has been committed.
    pub shown: Value,
    /// Whether its hold is over, see [`super`].
    pub released: bool,
    /// Whether it may be shown as it is: the store knows that its hold is over.
    pub shown_released: bool,
    /// When it was first shown as zeros, by this process.
    pub held_since: Option<Instant>,
    /// When it last changed.
    pub touched_at: Timestamp,
    is_new: bool,
    dirty: bool,
    unshown: bool,
}

/// All series of all families.
#[derive(Debug)]
pub struct SeriesTable {
    catalogue: Arc<Catalogue>,
    labeler: Arc<Labeler>,
    limits: Limits,
    hold: Duration,
    families: Vec<FamilyRows>,
    gate: Gate,
    samples: usize,
    /// Samples kept free for the series in which everything is over: one a family.
    reserve: usize,
    next_id: i64,
    dirty: Vec<Place>,
    unshown: Vec<Place>,
    removed: Vec<i64>,
    overflows: Vec<u64>,
    /// Of each gauge of what is in flight: how many entries were over a limit when it was last set.
    overflowing: HashMap<FamilyId, u64>,
    recent: Recent,
    default_branches: HashMap<(Arc<str>, Arc<str>), u32>,
    hasher: DefaultHashBuilder,
}

impl SeriesTable {
    /// Without any series. `hold` is `push.zero_hold`.
    pub fn new(catalogue: Arc<Catalogue>, labeler: Labeler, limits: Limits, hold: Duration) -> Self {
        let reserve = catalogue.iter().filter(|family| family.enabled).map(Configured::samples_per_series).sum();
        let gate = Gate::new(&catalogue);
        let recent = Recent::new(catalogue.recent_builds);
        Self {
            catalogue,
            labeler: Arc::new(labeler),
            limits,
            hold,
            families: FAMILIES.iter().map(|_| FamilyRows::default()).collect(),
            gate,
            samples: 0,
            reserve,
            next_id: 1,
            dirty: Vec::new(),
            unshown: Vec::new(),
            removed: Vec::new(),
            overflows: vec![0; FAMILIES.len()],
            overflowing: HashMap::new(),
            recent,
            default_branches: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Counts what an event changes.
    pub fn record(&mut self, event: &Event, delta: &Delta, now: Timestamp) {
        let context = Context { event, state: delta.state, soft_failed: None };
        let before = self.next_id;
        for effect in &delta.effects {
            self.apply(&context, effect, now);
        }
        let (Subject::Build(build) | Subject::Job(_, build)) = &event.subject else { return };
        if !build.pipeline.default_branch.is_empty() {
            self.note_default_branch(&context, now);
        }
        if self.next_id != before {
            self.pre_create(event, now);
        }
        if let Subject::Build(build) = &event.subject {
            self.show_build(event, build, now);
        }
    }

    fn apply(&mut self, context: &Context<'_>, effect: &Effect, now: Timestamp) {
        let Some(Admitted { row, is_over }) = self.row_of(effect.family, context, now) else { return };
        self.overflows[effect.family as usize] += u64::from(is_over);
        let place = (effect.family, row);
        let Some(row) = self.row_mut(place) else { return };
        match (&mut row.value, effect.value) {
            (Value::Counter(count), Counted::One) => *count += 1,
            (Value::Histogram(histogram), Counted::Millis(millis)) => histogram.observe(millis),
            (Value::Time(time), Counted::Greatest(at)) if time.is_none_or(|time| time < at) => *time = Some(at),
            _ => return,
        }
        row.touched_at = now;
        self.changed(place);
    }

    /// The first event of a pipeline creates the finished series of the usual states for the labels that it brings, so
    /// that the first failure is an increase from zero and not a series that was not there before.
    fn pre_create(&mut self, event: &Event, now: Timestamp) {
        let family = match &event.subject {
            Subject::Build(_) => FamilyId::BuildsFinished,
            Subject::Job(..) => FamilyId::JobsFinished,
            _ => return,
        };
        for state in ["passed", "failed", "canceled"] {
            let context = Context { event, state: Some(state), soft_failed: Some(false) };
            if self.fits(family) {
                self.row_of(family, &context, now);
            }
        }
    }

    /// The row of a family for an event, made if need be; `None` when the family is switched off.
    fn row_of(&mut self, family: FamilyId, context: &Context<'_>, now: Timestamp) -> Option<Admitted> {
        let catalogue = self.catalogue.clone();
        let configured = catalogue.get(family);
        if !configured.enabled {
            return None;
        }
        let labeler = Arc::clone(&self.labeler);
        let bytes = self.limits.value_bytes;
        let count = configured.labels.len();
        if count > MAX_LABELS {
            let values: Vec<Cow<'_, str>> =
                configured.labels.iter().map(|label| labeler.value(&label.source, context)).collect();
            let cuts: Vec<&str> = values.iter().map(|value| cut(value, bytes)).collect();
            return Some(self.find_or_admit(family, &cuts, now));
        }
        // Labels of a family are few, and their values borrowed from the event: nothing is allocated as a rule.
        let mut values: [Cow<'_, str>; MAX_LABELS] = std::array::from_fn(|_| Cow::Borrowed(""));
        for (value, label) in values.iter_mut().zip(configured.labels.iter()) {
            *value = labeler.value(&label.source, context);
        }
        let mut cuts: [&str; MAX_LABELS] = [""; MAX_LABELS];
        for (cut_value, value) in cuts.iter_mut().zip(&values) {
            *cut_value = cut(value, bytes);
        }
        Some(self.find_or_admit(family, &cuts[..count], now))
    }

    /// How often a limit made `_overflow` of a value, by family, since the last call.
    pub fn take_overflows(&mut self) -> Vec<(&'static str, u64)> {
        let counts = FAMILIES.iter().zip(&mut self.overflows);
        counts.filter(|(_, count)| **count > 0).map(|(family, count)| (family.name, std::mem::take(count))).collect()
    }
}
/// Families have six labels at most by default; more come from configuration only.
const MAX_LABELS: usize = 8;

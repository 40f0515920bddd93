//! Series and their values. Everything that becomes a label value passes the one gate in here, so that no input can
//! make more series than the limits allow.
//!
//! Each series has two values: what has been counted, and what is shown. The second becomes the first when the store
//! has committed it, so that a push never shows what a crash could take back.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::catalogue::{Catalogue, Configured, FAMILIES, FamilyId, Kind};
use super::labels::{Context, Labeler};
use super::value::{Histogram, Numbers, Value};
use crate::config::Limits;
use crate::event::{Event, Subject, Timestamp};
use crate::ledger::in_flight::{InFlights, Phase};
use crate::ledger::rules::{Delta, Effect, Value as Counted};

/// What a value becomes that is over a limit.
pub const OVERFLOW: &str = "_overflow";

/// The label values of a series, in the order of its family's labels.
pub type LabelValues = Arc<[Arc<str>]>;

/// A series' place: family and row.
type Place = (FamilyId, u32);

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

#[derive(Debug, Default)]
struct FamilyRows {
    index: HashTable<u32>,
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    samples: usize,
    has_overflow_row: bool,
}

/// All series of all families.
#[derive(Debug)]
pub struct SeriesTable {
    catalogue: Arc<Catalogue>,
    labeler: Arc<Labeler>,
    limits: Limits,
    hold: Duration,
    families: Vec<FamilyRows>,
    /// The distinct values of each label, shared by all series that carry them.
    values: HashMap<Arc<str>, HashSet<Arc<str>>>,
    samples: usize,
    /// Samples kept free for the series in which everything is over: one a family.
    reserve: usize,
    next_id: i64,
    dirty: Vec<Place>,
    unshown: Vec<Place>,
    removed: Vec<i64>,
    overflows: Vec<u64>,
    default_branches: HashMap<(Arc<str>, Arc<str>), u32>,
    hasher: DefaultHashBuilder,
}

impl SeriesTable {
    /// Without any series. `hold` is `push.zero_hold`.
    pub fn new(catalogue: Arc<Catalogue>, labeler: Labeler, limits: Limits, hold: Duration) -> Self {
        let reserve = catalogue.iter().filter(|family| family.enabled).map(Configured::samples_per_series).sum();
        Self {
            catalogue,
            labeler: Arc::new(labeler),
            limits,
            hold,
            families: FAMILIES.iter().map(|_| FamilyRows::default()).collect(),
            values: HashMap::new(),
            samples: 0,
            reserve,
            next_id: 1,
            dirty: Vec::new(),
            unshown: Vec::new(),
            removed: Vec::new(),
            overflows: vec![0; FAMILIES.len()],
            default_branches: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Counts what an event changes.
    pub fn record(&mut self, event: &Event, delta: &Delta, now: Timestamp) {
        let context = Context { event, state: delta.state };
        let before = self.next_id;
        for effect in &delta.effects {
            self.apply(&context, effect, now);
        }
        if let Subject::Build(build) | Subject::Job(_, build) = &event.subject {
            if !build.pipeline.default_branch.is_empty() {
                self.note_default_branch(&context, now);
            }
            if self.next_id != before {
                self.pre_create(event, now);
            }
        }
    }

    fn apply(&mut self, context: &Context<'_>, effect: &Effect, now: Timestamp) {
        let Some(row) = self.row_of(effect.family, context, now) else { return };
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
        let mut hard = event.clone();
        if let Subject::Job(job, _) = &mut hard.subject {
            job.soft_failed = false;
        }
        for state in ["passed", "failed", "canceled"] {
            let context = Context { event: &hard, state: Some(state) };
            if self.fits(family) {
                self.row_of(family, &context, now);
            }
        }
    }

    /// Sets the gauges of what is in flight.
    pub fn set_in_flight(&mut self, in_flight: &InFlights, now: Timestamp) {
        const GAUGES: [(FamilyId, Phase); 5] = [
            (FamilyId::BuildsRunning, Phase::BuildRunning),
            (FamilyId::BuildsBlocked, Phase::BuildBlocked),
            (FamilyId::JobsWaiting, Phase::JobWaiting),
            (FamilyId::JobsRunning, Phase::JobRunning),
            (FamilyId::JobOldestWaiting, Phase::JobWaiting),
        ];
        for (family, phase) in GAUGES {
            if !self.catalogue.get(family).enabled {
                continue;
            }
            let zero = self.zero(family);
            let mut now_is: HashMap<u32, Value> = HashMap::new();
            for (_, entry) in in_flight.iter().filter(|(_, entry)| entry.phase == phase) {
                let configured = self.catalogue.get(family).labels.clone();
                let labels: Vec<String> =
                    configured.iter().map(|label| self.labeler.in_flight(&label.source, entry).to_owned()).collect();
                let values: Vec<&str> = labels.iter().map(|value| cut(value, self.limits.value_bytes)).collect();
                let row = self.find_or_admit(family, &values, now);
                match now_is.entry(row).or_insert_with(|| zero.clone()) {
                    Value::Gauge(count) => *count += 1.0,
                    Value::Time(oldest) => *oldest = Some(oldest.map_or(entry.since, |oldest| oldest.min(entry.since))),
                    _ => {}
                }
            }
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

    fn note_default_branch(&mut self, context: &Context<'_>, now: Timestamp) {
        let family = FamilyId::PipelineInfo;
        let Some(at) = self.row_of(family, context, now) else { return };
        let Some(row) = self.row((family, at)) else { return };
        let [organization, pipeline, ..] = &*row.labels else { return };
        let key = (organization.clone(), pipeline.clone());
        match self.default_branches.insert(key, at) {
            Some(before) if before == at => {}
            Some(before) => self.remove((family, before)),
            None => {}
        }
    }

    /// The row of a family for an event, made if need be; `None` when the family is switched off.
    fn row_of(&mut self, family: FamilyId, context: &Context<'_>, now: Timestamp) -> Option<u32> {
        let catalogue = self.catalogue.clone();
        let configured = catalogue.get(family);
        if !configured.enabled {
            return None;
        }
        // Labels of a family are few; their values are borrowed from the event.
        let mut owned: [Cow<'_, str>; MAX_LABELS] = std::array::from_fn(|_| Cow::Borrowed(""));
        let many: Vec<Cow<'_, str>>;
        let labeler = Arc::clone(&self.labeler);
        let count = configured.labels.len();
        let values: &[Cow<'_, str>] = if count <= MAX_LABELS {
            for (value, label) in owned.iter_mut().zip(configured.labels.iter()) {
                *value = labeler.value(&label.source, context);
            }
            &owned[..count]
        } else {
            many = configured.labels.iter().map(|label| labeler.value(&label.source, context)).collect();
            &many
        };
        let mut cuts: [&str; MAX_LABELS] = [""; MAX_LABELS];
        let row = if count <= MAX_LABELS {
            for (cut_value, value) in cuts.iter_mut().zip(values) {
                *cut_value = cut(value, self.limits.value_bytes);
            }
            self.find_or_admit(family, &cuts[..count], now)
        } else {
            let cuts: Vec<&str> = values.iter().map(|value| cut(value, self.limits.value_bytes)).collect();
            self.find_or_admit(family, &cuts, now)
        };
        Some(row)
    }

    fn find_or_admit(&mut self, family: FamilyId, values: &[&str], now: Timestamp) -> u32 {
        match self.find(family, values) {
            Some(row) => row,
            None => self.admit(family, values, now),
        }
    }

    fn find(&self, family: FamilyId, values: &[&str]) -> Option<u32> {
        let rows = &self.families[family as usize];
        let is = |row: &Row| row.labels.iter().map(|value| &**value).eq(values.iter().copied());
        let found = rows.index.find(self.hash(values), |at| rows.rows[*at as usize].as_ref().is_some_and(is));
        found.copied()
    }

    fn hash(&self, values: &[&str]) -> u64 {
        self.hasher.hash_one(values)
    }

    /// The gate: makes a series for values that have none, or finds the one that stands for them when a limit is
    /// reached. Values give way in the order of [`super::source::Source::rank`], with a tenth of the limit kept for the coarser
    /// series that this makes.
    fn admit(&mut self, family: FamilyId, values: &[&str], now: Timestamp) -> u32 {
        let catalogue = self.catalogue.clone();
        let configured = catalogue.get(family);
        let mut values: Vec<&str> = values.to_vec();
        let mut over = false;
        for (value, label) in values.iter_mut().zip(configured.labels.iter()) {
            let full =
                |values: &HashSet<Arc<str>>| values.len() >= self.limits.values_per_label && !values.contains(*value);
            if *value != OVERFLOW && self.values.get(&label.name).is_some_and(full) {
                *value = OVERFLOW;
                over = true;
            }
        }
        let mut ranks: Vec<u8> = configured.labels.iter().map(|label| label.source.rank()).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let levels = ranks.len();
        for level in 0..=levels {
            if level > 0 {
                over = true;
                for (value, label) in values.iter_mut().zip(configured.labels.iter()) {
                    if label.source.rank() <= ranks[level - 1] {
                        *value = OVERFLOW;
                    }
                }
            }
            let found = self.find(family, &values);
            if found.is_some() || level == levels || self.fits_at(family, level, levels) {
                if over {
                    self.overflows[family as usize] += 1;
                }
                return found.unwrap_or_else(|| self.insert(family, &values, now));
            }
        }
        0
    }

    /// Whether one more series of full detail fits.
    fn fits(&self, family: FamilyId) -> bool {
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

    fn insert(&mut self, family: FamilyId, values: &[&str], now: Timestamp) -> u32 {
        let configured = self.catalogue.get(family);
        let cost = configured.samples_per_series();
        let is_last_resort = values.iter().all(|value| *value == OVERFLOW);
        let labels: LabelValues = configured
            .labels
            .iter()
            .zip(values)
            .map(|(label, value)| intern(&mut self.values, &label.name, value))
            .collect();
        let value = self.zero(family);
        let is_gauge = configured.family.kind == Kind::Gauge;
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
        let rows = &mut self.families[family as usize];
        if is_last_resort && !rows.has_overflow_row {
            rows.has_overflow_row = true;
            self.reserve = self.reserve.saturating_sub(cost);
        }
        self.changed((family, at));
        at
    }

    fn place(&mut self, family: FamilyId, row: Row) -> u32 {
        let cost = self.catalogue.get(family).samples_per_series();
        let values: Vec<&str> = row.labels.iter().map(|value| &**value).collect();
        let hash = self.hash(&values);
        let hasher = &self.hasher;
        let FamilyRows { index, rows, free, samples, .. } = &mut self.families[family as usize];
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
        at
    }

    fn zero(&self, family: FamilyId) -> Value {
        let configured = self.catalogue.get(family);
        match configured.family.kind {
            Kind::Counter => Value::Counter(0),
            Kind::Histogram(_) => Value::Histogram(Box::new(Histogram::new(configured.buckets.clone()))),
            Kind::Gauge if configured.family.is_moment() => Value::Time(None),
            Kind::Gauge => match family {
                FamilyId::PipelineInfo | FamilyId::RecentBuildInfo => Value::Gauge(1.0),
                _ => Value::Gauge(0.0),
            },
        }
    }

    /// Removes series that have not changed for `ttl`; they start again at zero under a new hold. Gauges of what is in
    /// flight go with them only when they show nothing.
    pub fn expire(&mut self, now: Timestamp, ttl: Duration) {
        let oldest = now.minus(ttl);
        for family in FAMILIES {
            for at in 0..self.families[family.id as usize].rows.len() as u32 {
                let place = (family.id, at);
                let is_over = |row: &Row| {
                    row.touched_at < oldest && !row.dirty && !matches!(row.value, Value::Gauge(count) if count > 0.0)
                };
                if self.row(place).is_some_and(is_over) {
                    self.remove(place);
                }
            }
        }
        self.default_branches.retain(|_, at| {
            self.families[FamilyId::PipelineInfo as usize].rows.get(*at as usize).is_some_and(Option::is_some)
        });
        for values in self.values.values_mut() {
            values.retain(|value| Arc::strong_count(value) > 1);
        }
    }

    fn remove(&mut self, (family, at): Place) {
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
        self.removed.push(row.id);
    }

    fn row(&self, (family, at): Place) -> Option<&Row> {
        self.families[family as usize].rows.get(at as usize)?.as_ref()
    }

    fn row_mut(&mut self, (family, at): Place) -> Option<&mut Row> {
        self.families[family as usize].rows.get_mut(at as usize)?.as_mut()
    }

    fn changed(&mut self, place: Place) {
        self.show_later(place);
        let Some(row) = self.row_mut(place) else { return };
        if !std::mem::replace(&mut row.dirty, true) {
            self.dirty.push(place);
        }
    }

    fn show_later(&mut self, place: Place) {
        let Some(row) = self.row_mut(place) else { return };
        if !std::mem::replace(&mut row.unshown, true) {
            self.unshown.push(place);
        }
    }

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
        true
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
    pub fn snapshot(&self, held: Held) -> super::snapshot::Copy {
        let families = FAMILIES
            .iter()
            .map(|family| {
                let rows = self.families[family.id as usize].rows.iter().flatten();
                let shown = rows.filter(|row| row.shown != Value::Time(None)).map(|row| {
                    let hide = !row.shown_released && held == Held::AsZeros;
                    let value = if hide { self.zero(family.id) } else { row.shown.clone() };
                    super::snapshot::Shown { id: row.id, labels: row.labels.clone(), value, held: !row.shown_released }
                });
                (family.id, shown.collect())
            })
            .collect();
        super::snapshot::Copy { catalogue: self.catalogue.clone(), families }
    }

    /// What was shown as zeros has been shown: holds run from now.
    pub fn exposed(&mut self, copy: &super::snapshot::Copy, now: Instant) {
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

    /// Exposition lines of all series.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// How often a limit made `_overflow` of a value, by family, since the last call.
    pub fn take_overflows(&mut self) -> Vec<(&'static str, u64)> {
        let counts = FAMILIES.iter().zip(&mut self.overflows);
        counts.filter(|(_, count)| **count > 0).map(|(family, count)| (family.name, std::mem::take(count))).collect()
    }
}

/// Whether series in their hold are shown as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// As zeros.
    AsZeros,
    /// As they are: the last push of a ledger that keeps nothing.
    AsTheyAre,
}

/// Families have six labels at most by default; more come from configuration only.
const MAX_LABELS: usize = 8;

fn intern(values: &mut HashMap<Arc<str>, HashSet<Arc<str>>>, label: &Arc<str>, value: &str) -> Arc<str> {
    let known = values.entry(label.clone()).or_default();
    match known.get(value) {
        Some(value) => value.clone(),
        None => {
            let value: Arc<str> = value.into();
            known.insert(value.clone());
            value
        }
    }
}

/// The longest beginning of `value` that is at most `bytes` long and whole characters.
fn cut(value: &str, bytes: usize) -> &str {
    &value[..value.floor_char_boundary(bytes)]
}

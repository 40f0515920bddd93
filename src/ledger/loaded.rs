//! From the state file to what the ledger holds in memory.

use std::path::Path;

use tracing::{error, warn};

use super::entity::Entity;
use super::fact::Fact;
use super::in_flight::InFlight;
use super::rules::Book;
use super::store::{Loader, Sqlite, StoreError};
use crate::event::Timestamp;
use crate::health::{Health, Part};
use crate::metrics::catalogue::Catalogue;
use crate::metrics::series::{SeriesTable, StoredSeries};

/// What the ledger knows once its file is read.
pub(super) struct Loaded {
    pub(super) book: Book,
    pub(super) table: SeriesTable,
    /// When the newest row was written; until there is one, now.
    pub(super) newest: Timestamp,
}

impl Loader for Loaded {
    fn begin(&mut self, rows: usize, newest: Timestamp) {
        // A record has one row at least, two or three as a rule.
        self.book.reserve(rows / 2);
        self.newest = newest;
    }

    fn fact(&mut self, fact: Fact) {
        self.book.restore(&fact, self.newest);
    }

    fn in_flight(&mut self, entity: Entity, entry: InFlight) {
        self.book.restore_in_flight(entity, entry);
    }

    fn series(&mut self, series: StoredSeries) -> bool {
        self.table.load(&series)
    }
}

/// Opens the file and reads it; one that turns out to be damaged is set aside and begun anew. True with it: the store has
/// taken up what earlier runs left on the gateway.
pub(super) fn open(
    path: &Path,
    catalogue: &Catalogue,
    health: &Health,
    now: Timestamp,
    empty: impl Fn() -> Loaded,
) -> Result<(Sqlite, Loaded, bool), StoreError> {
    let layouts: Vec<(String, String)> =
        catalogue.iter().map(|family| (family.family.name.to_owned(), family.layout(&catalogue.constant))).collect();
    let (mut store, mut opened) = Sqlite::open(path, now)?;
    let mut loaded = empty();
    loaded.book.born(opened.born_at);
    let changed = match store.load(&layouts, &mut loaded) {
        Ok(changed) => changed,
        Err(StoreError::Damaged { .. }) => {
            opened = store.begin_anew(now)?;
            loaded = empty();
            store.load(&layouts, &mut loaded)?
        }
        Err(error) => return Err(error),
    };
    loaded.table.loaded();
    if let Some(aside) = &opened.set_aside {
        let why = format!("the state file was damaged; it was set aside as {} and a new one begun", aside.display());
        error!("{why}: totals go on from what the gateway holds");
        health.degraded(Part::Store, why);
    }
    for family in changed {
        warn!(family, "labels or buckets of this family were reconfigured: its totals start again at zero");
    }
    Ok((store, loaded, opened.is_restored))
}

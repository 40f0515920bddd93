//! Where the ledger keeps what it must not forget. A small interface, so that a store shared by several replicas can
//! take SQLite's place one day.

mod foreign;
mod lock;
mod sqlite;

use std::path::PathBuf;

use super::entity::Entity;
use super::fact::Fact;
use super::in_flight::InFlight;
use crate::event::Timestamp;
use crate::metrics::series::StoredSeries;

pub use sqlite::{Opened, Reader, Sqlite};

/// What one transaction adds. Totals are absolute, so a transaction whose outcome is unknown can be repeated.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Rows to add.
    pub facts: &'a [Fact],
    /// Entries to set, or to take away.
    pub in_flight: &'a [(Entity, Option<InFlight>)],
    /// Series to set.
    pub series: &'a [StoredSeries],
    /// Series to take away, by id.
    pub removed: &'a [i64],
    /// Whether the series hold what earlier runs left on the gateway: that is added once.
    pub restored: bool,
}

/// Keeps batches. Used by one thread.
pub trait Store: Send {
    /// Whether it keeps anything: if not, there is nothing to commit.
    fn keeps(&self) -> bool {
        true
    }

    /// Makes a batch durable, whole or not at all.
    ///
    /// # Errors
    ///
    /// When it did not, or may not have: repeat it later, after [`Store::reopen`].
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), StoreError>;

    /// Starts anew after an error.
    ///
    /// # Errors
    ///
    /// When the store is still away.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// Forgets some rows of entities that are no longer alive: a small step, so that nobody waits for it.
    ///
    /// # Errors
    ///
    /// When the store did not take it; nothing is lost then.
    fn prune(&mut self, is_alive: &dyn Fn(&Entity) -> bool) -> Result<(), StoreError>;
}

/// What a store gives back at the start, in the order in which it was kept.
pub trait Loader {
    /// About how many records and rows there are, and the arrival of the newest one.
    fn begin(&mut self, rows: usize, newest: Timestamp);
    /// A row.
    fn fact(&mut self, fact: Fact);
    /// An entry.
    fn in_flight(&mut self, entity: Entity, entry: InFlight);
    /// A series; false when nothing is configured that it belongs to, so that the store forgets it.
    fn series(&mut self, series: StoredSeries) -> bool;
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the database says no.
    #[error("{path}: {reason}", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// In SQLite's or the system's words.
        reason: String,
    },
    /// Another process has it.
    #[error("{path}: another kitepush is using this file; give each its own state.path", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot do what a database needs.
    #[error(
        "{path}: this file system has no working locks or shared memory ({reason}); state.path needs a local disk or a \
         block volume, not NFS or another network file system",
        path = path.display()
    )]
    FileSystem {
        /// The file.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// A later major version wrote it.
    #[error(
        "{path}: written by a later kitepush (its format is {found}, this one knows {known}); run that version, or \
         give this one another state.path",
        path = path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Somebody else's.
    #[error("{path}: {what}; it is left alone: name another file, or move it away", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is not.
        what: String,
    },
    /// Not a database any more.
    #[error("{path}: damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In SQLite's words.
        reason: String,
    },
}

/// Keeps nothing: what is counted lives as long as the process, and is read back from the gateway.
#[derive(Debug)]
pub struct Memory;

impl Store for Memory {
    fn keeps(&self) -> bool {
        false
    }

    fn commit(&mut self, _: &Batch<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn prune(&mut self, _: &dyn Fn(&Entity) -> bool) -> Result<(), StoreError> {
        Ok(())
    }
}

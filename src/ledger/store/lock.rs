//! One process a file: a lock file beside the database. SQLite's own locks would let two processes take turns, and both
//! would push.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Held as long as it lives; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a database.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let path = beside(database, "lock");
        let refused = |error: std::io::Error| StoreError::Refused { path: path.clone(), reason: error.to_string() };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: database.to_owned() }),
            Err(TryLockError::Error(error)) => {
                Err(StoreError::FileSystem { path: database.to_owned(), reason: format!("flock: {error}") })
            }
        }
    }
}

/// The path with an ending added.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

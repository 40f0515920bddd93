//! One process a file: a lock file beside the database. SQLite's own locks would let two processes take turns, and both
//! would push.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Held as long as it lives; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of a database.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let path = beside(database, "lock");
        let refused = |error: std::io::Error| StoreError::Refused { path: path.clone(), reason: error.to_string() };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: database.to_owned() }),
            Err(TryLockError::Error(error)) => {
                Err(StoreError::FileSystem { path: database.to_owned(), reason: format!("flock: {error}") })
            }
        }
    }
}

impl Drop for Lock {
    /// Closing alone would not do while a child that was just forked holds a copy of the descriptor.
    fn drop(&mut self) {
        // The kernel gives it back with the last copy anyway.
        let _ = self.file.unlock();
    }
}

/// The path with an ending added.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

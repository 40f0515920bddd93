//! Whose file is it? `state.path` may be mistyped: what somebody else's program or hand wrote is neither moved nor
//! written to.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use super::StoreError;
use super::lock::beside;

/// "kite", so that `file` and people can tell.
pub(super) const APPLICATION_ID: i32 = 0x6b69_7465;
/// Where a database has its application id, big-endian.
const PLACE: std::ops::Range<usize> = 68..72;

/// Refuses what is neither new, nor of the application, nor was ever locked by it: only what was once a state file can
/// be a damaged one.
pub(super) fn refuse(path: &Path) -> Result<(), StoreError> {
    let foreign = |what: &str| Err(StoreError::Foreign { path: path.to_owned(), what: what.to_owned() });
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if !metadata.is_file() {
        return foreign("not a file");
    }
    if metadata.len() == 0 || beside(path, "lock").exists() {
        return Ok(());
    }
    let mut head = [0; PLACE.end];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    if read.is_ok() && head[PLACE] == APPLICATION_ID.to_be_bytes() {
        return Ok(());
    }
    foreign("not a state file of kitepush")
}

//! Each delivery counts once, whatever the order, and however often it arrives.
//!
//! [`rules`] are pure: an event and a time in, a delta out. [`writer`] is the one thread that applies them, commits
//! them to the [`store`] and answers; [`Ledger`] is the handle that everybody else has. Without a store there is no
//! commit to wait for, and the handle applies them itself.

pub mod entity;
pub mod fact;
pub mod in_flight;
mod loaded;
pub mod records;
pub mod rules;
pub mod store;
pub mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as blocking};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use entity::{Entity, EntityKind};

use crate::event::{Event, Timestamp};
use crate::metrics::Exposition;
use crate::metrics::own::{Outcome, Own};
use crate::metrics::series::{Held, SeriesTable};
use crate::metrics::snapshot::Copy;
use crate::metrics::value::Value;
use writer::{Command, Writer};

/// How long a delivery may wait for its commit; Buildkite itself gives up after about five seconds.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a snapshot waits for the ledger to note what it releases; then it shows what was noted before.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle to the ledger; clones share it. When the last one is dropped the ledger commits and ends.
#[derive(Clone)]
pub struct Ledger {
    commands: mpsc::Sender<Command>,
    table: Arc<Mutex<SeriesTable>>,
    own: Arc<Own>,
    /// The writer, when it keeps nothing: waking its thread for each event would cost more than to count it here.
    here: Option<Arc<Mutex<Writer>>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

/// The ledger did not commit an event within four seconds, or its queue or backlog is full. The sender should repeat
/// the delivery: it will be counted exactly once, also when the commit came through after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not committed within 4 s")]
pub struct Overloaded;

/// Totals of an earlier run were not added: the ledger has ended, or its disk refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot take up totals now")]
pub struct NotAdded;

/// A total that an earlier run left on the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    /// The family's name.
    pub family: String,
    /// Its labels, without those of the group.
    pub labels: BTreeMap<String, String>,
    /// What had been counted.
    pub value: Value,
}

impl Ledger {
    /// Counts an event and waits until it is committed, for [`COMMIT_TIMEOUT`] at most.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when it could not be queued or was not committed in time.
    pub async fn record(&self, event: Event, received_at: Timestamp) -> Result<Outcome, Overloaded> {
        if let Some(writer) = &self.here {
            return lock(writer).count(&event, received_at);
        }
        let (answer, answered) = oneshot::channel();
        let command = Command::Record { event: Box::new(event), received_at, answer };
        let committed = async {
            self.commands.send(command).await.map_err(|_| Overloaded)?;
            self.own.queue_length.set(self.waiting());
            answered.await.map_err(|_| Overloaded)?
        };
        tokio::time::timeout(COMMIT_TIMEOUT, committed).await.unwrap_or(Err(Overloaded))
    }

    /// Whether a delivery would have to wait for a place in the queue.
    pub fn is_full(&self) -> bool {
        self.commands.capacity() == 0
    }

    fn waiting(&self) -> i64 {
        (self.commands.max_capacity() - self.commands.capacity()) as i64
    }

    /// Adds totals that an earlier run left on the gateway. Blocks until they are committed.
    ///
    /// # Errors
    ///
    /// When the ledger has ended, or its disk refuses: nothing is added then.
    pub fn add(&self, totals: Vec<Total>) -> Result<(), NotAdded> {
        let (answer, answered) = oneshot::channel();
        self.commands.blocking_send(Command::Add { totals, answer }).map_err(|_| NotAdded)?;
        answered.blocking_recv().unwrap_or(Err(NotAdded))
    }

    /// Commits what has arrived and ends the ledger's thread; later deliveries are [`Overloaded`].
    pub async fn stop(&self) {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Command::Stop { answer }).await.is_ok() {
            let _ = answered.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, SeriesTable> {
        lock(&self.table)
    }

    fn copy(&self, held: Held) -> Copy {
        let copy = self.lock().snapshot(held);
        self.own.samples.set(copy.samples() as i64);
        copy
    }
}

impl Exposition for Ledger {
    type Snapshot = Copy;

    fn snapshot(&self) -> Copy {
        let (answer, answered) = blocking::sync_channel(1);
        if self.commands.try_send(Command::Refresh { answer }).is_ok() {
            let _ = answered.recv_timeout(REFRESH_TIMEOUT);
        }
        self.copy(Held::AsZeros)
    }

    /// Without a state file the last push is all that remains, so it shows everything.
    fn final_snapshot(&self) -> Copy {
        if self.here.is_some() { self.copy(Held::AsTheyAre) } else { self.snapshot() }
    }

    fn exposed(&self, snapshot: &Copy) {
        if !snapshot.is_empty() {
            self.lock().exposed(snapshot, Instant::now());
        }
    }

    fn interrupted(&self) {
        self.lock().interrupted();
    }
}

/// A panic while the table was locked leaves it as it was between two series: usable. So is the writer, which only one
/// that keeps nothing shares.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

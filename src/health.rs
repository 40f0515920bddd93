//! What works and what does not, for readiness: each room reports its own parts, [`crate::admin`] shows them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the process is in its life. Only [`Stage::Serving`] is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not yet able to take a webhook.
    Starting,
    /// Taking webhooks.
    Serving,
    /// Told to stop.
    Stopping,
}

/// A part that can be in trouble while webhooks are still taken and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Pushes to the gateway.
    Gateway,
    /// The totals of an earlier run, read back from the gateway.
    Restore,
    /// Another process that pushes to the same group.
    SecondWriter,
    /// The ledger's file.
    Store,
    /// Certificates and keys of the listeners.
    Certificate,
    /// Webhook secrets.
    Secrets,
    /// Buildkite's list of source addresses.
    Sources,
}

impl Part {
    /// The key in the readiness text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Restore => "restore",
            Self::SecondWriter => "second_writer",
            Self::Store => "store",
            Self::Certificate => "certificate",
            Self::Secrets => "secrets",
            Self::Sources => "sources",
        }
    }
}

/// Shared by everybody as an `Arc<Health>`. The lock is held for a map operation, never across an await.
#[derive(Debug)]
pub struct Health {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    stage: Stage,
    troubles: BTreeMap<Part, String>,
}

impl Default for Health {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { stage: Stage::Starting, troubles: BTreeMap::new() }) }
    }
}

impl Health {
    /// Where the process is.
    pub fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// The process has come to `stage`.
    pub fn enter(&self, stage: Stage) {
        self.lock().stage = stage;
    }

    /// `part` is in trouble; true when it was not already, so that the caller logs once.
    pub fn degraded(&self, part: Part, why: impl Into<String>) -> bool {
        self.lock().troubles.insert(part, why.into()).is_none()
    }

    /// `part` works; true when it was in trouble, so that the caller logs once.
    pub fn works(&self, part: Part) -> bool {
        self.lock().troubles.remove(&part).is_some()
    }

    /// The parts in trouble, each with what is wrong and what to do.
    pub fn troubles(&self) -> BTreeMap<Part, String> {
        self.lock().troubles.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

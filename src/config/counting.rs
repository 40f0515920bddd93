//! `state`, `labels` and `families`: what is remembered and how finely it is told apart.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::setting::settings;

const HOUR: u64 = 3600;

settings! {
    /// `state`: the ledger's file and its bounds.
    State {
        /// SQLite file; default none: memory only, totals restored from the gateway.
        path: Option<PathBuf> = None,
        /// How long a build, job or agent is remembered after its last event; default 168 h.
        retention: Duration = Duration::from_secs(168 * HOUR),
        /// How many of them are remembered; default 1000000.
        max_records: usize = 1_000_000,
        /// How many events are counted in memory while the disk refuses; default 100000.
        max_backlog: usize = 100_000,
        /// When a build or job whose end never arrived leaves the gauges; default 24 h.
        in_flight_expiry: Duration = Duration::from_secs(24 * HOUR),
    }
}

settings! {
    /// `labels`: what label values become.
    Labels {
        /// Branch names.
        branches: Branches = Branches::default(),
        /// `cluster_id` → the name shown as `buildkite_cluster`; default none.
        clusters: BTreeMap<String, String> = BTreeMap::new(),
        /// `cluster_queue_id` → the name shown as `queue`; default none.
        cluster_queues: BTreeMap<String, String> = BTreeMap::new(),
        /// Labels with one value that every family gets; default none.
        constant: BTreeMap<String, String> = BTreeMap::new(),
        /// The families that tell builds apart.
        recent_builds: RecentBuilds = RecentBuilds::default(),
        /// What bounds cardinality.
        limits: Limits = Limits::default(),
        /// When a series without events is forgotten; default 0 s, never.
        series_ttl: Duration = Duration::ZERO,
    }
}

settings! {
    /// `labels.branches`.
    Branches {
        /// Anchored regular expressions of the branch names that are kept as they are; default none.
        keep: Vec<String> = Vec::new(),
    }
}

settings! {
    /// `labels.recent_builds`.
    RecentBuilds {
        /// How many builds of each pipeline have series of their own; default 0, none.
        per_pipeline: usize = 0,
    }
}

settings! {
    /// `labels.limits`.
    Limits {
        /// Samples (exposition lines) in all; default 200000.
        samples: usize = 200_000,
        /// Samples of one family; default 100000.
        samples_per_family: usize = 100_000,
        /// Distinct values of one label, of all families together, `_overflow` beside them; default 1000.
        values_per_label: usize = 1000,
        /// Length of a label value in bytes; default 128.
        value_bytes: usize = 128,
    }
}

settings! {
    /// `families.<name>`: one metric family.
    Family {
        /// Whether it exists; default true.
        enabled: bool = true,
        /// Opt-in labels that it gets; default none.
        labels: Vec<String> = Vec::new(),
        /// Default labels that it loses; default none.
        drop_labels: Vec<String> = Vec::new(),
        /// Upper bounds of a histogram's buckets in seconds; default those of the catalogue.
        buckets: Option<Vec<f64>> = None,
    }
}

//! What kitepush says about itself: the `kitepush_*` families. They start at zero with the process.

use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    proto::{MetricFamily, MetricType},
};

use crate::event::EventName;

/// Seconds; a request is answered within 4 s or refused.
const HANDLING_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Seconds; deliveries have been hours late.
const DELAY_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0];

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is the word that it stands for")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The label value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What became of an authentic delivery; also the `outcome` of the 200's body.
    Outcome {
        Accepted = "accepted",
        Duplicate = "duplicate",
        Ignored = "ignored",
        Stale = "stale",
    }
}

words! {
    /// Why a request was refused.
    Rejection {
        SignatureMissing = "signature_missing",
        SignatureMalformed = "signature_malformed",
        SignatureMismatch = "signature_mismatch",
        TimestampStale = "timestamp_stale",
        TimestampFuture = "timestamp_future",
        TokenMissing = "token_missing",
        TokenMismatch = "token_mismatch",
        SourceNotAllowed = "source_not_allowed",
        RateLimited = "rate_limited",
        TooLarge = "too_large",
        Timeout = "timeout",
        Method = "method",
        ContentType = "content_type",
        BodyMalformed = "body_malformed",
        EventMalformed = "event_malformed",
        Overloaded = "overloaded",
    }
}

words! {
    /// How a push to the gateway ended.
    PushOutcome {
        Ok = "ok",
        Rejected = "rejected",
        Unreachable = "unreachable",
        Timeout = "timeout",
        Misconfigured = "misconfigured",
    }
}

/// Kinds of `kitepush_anomalies_total`.
const ANOMALIES: [&str; 8] = [
    "negative_wait",
    "negative_duration",
    "negative_time_to_failing",
    "negative_blocked_time",
    "record_evicted",
    "in_flight_full",
    "second_writer",
    "invalid_family",
];

/// What a family of [`Own`] is, whether it has series yet or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Prometheus' word for its type.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<String>,
    /// What it says.
    pub help: String,
}

/// A registry that also knows what was registered: it shows no family that has no series yet.
#[derive(Default)]
struct Families {
    registry: Registry,
    described: Mutex<Vec<Described>>,
}

impl Families {
    fn add(&self, family: impl Collector + 'static) -> prometheus::Result<()> {
        let kinds: Vec<_> =
            family.collect().iter().map(|family| (family.name().to_owned(), family.get_field_type())).collect();
        let described: Vec<_> = family
            .desc()
            .into_iter()
            .map(|desc| Described {
                name: desc.fq_name.clone(),
                kind: kinds.iter().find(|(name, _)| *name == desc.fq_name).map_or("gauge", |(_, kind)| match kind {
                    MetricType::COUNTER => "counter",
                    MetricType::HISTOGRAM => "histogram",
                    _ => "gauge",
                }),
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            })
            .collect();
        self.registry.register(Box::new(family))?;
        self.described.lock().unwrap_or_else(PoisonError::into_inner).extend(described);
        Ok(())
    }
}

/// The `kitepush_*` families, shared by everybody as an `Arc<Own>`.
///
/// Counters whose labels are known beforehand exist from the start, so that their first increment is seen.
pub struct Own {
    families: Families,
    webhooks: Vec<IntCounter>,
    rejections: Vec<IntCounter>,
    pushes: Vec<IntCounter>,
    /// `kitepush_webhook_delivery_delay_seconds`.
    pub delivery_delay: Histogram,
    /// `kitepush_webhook_handling_seconds`.
    pub handling: Histogram,
    /// `kitepush_secret_matches_total{secret}`.
    pub secret_matches: IntCounterVec,
    /// `kitepush_ledger_commits_total{outcome}`: `ok`, `failed`.
    pub commits: IntCounterVec,
    /// `kitepush_ledger_commit_seconds`.
    pub commit_seconds: Histogram,
    /// `kitepush_ledger_queue_length`.
    pub queue_length: IntGauge,
    /// `kitepush_ledger_records`.
    pub records: IntGauge,
    /// `kitepush_ledger_backlog_events`.
    pub backlog: IntGauge,
    /// `kitepush_in_flight{kind}`.
    pub in_flight: IntGaugeVec,
    /// `kitepush_in_flight_expired_total{kind}`.
    pub in_flight_expired: IntCounterVec,
    /// `kitepush_events_missing_total{event}`.
    pub events_missing: IntCounterVec,
    /// `kitepush_anomalies_total{kind}`.
    pub anomalies: IntCounterVec,
    /// `kitepush_samples`: exposition lines of the `buildkite_*` families.
    pub samples: IntGauge,
    /// `kitepush_series_overflow_total{family}`.
    pub series_overflow: IntCounterVec,
    /// `kitepush_push_seconds`.
    pub push_seconds: Histogram,
    /// `kitepush_push_size_bytes`: of the last body sent, after compression.
    pub push_size: IntGauge,
    /// `kitepush_last_push_timestamp_seconds`: of the last push that the gateway accepted.
    pub last_push: Gauge,
    /// `kitepush_last_event_timestamp_seconds`: arrival of the last authentic event.
    pub last_event: Gauge,
}

impl Own {
    /// All families, at zero.
    #[expect(clippy::expect_used, reason = "names and labels are literals; a test makes one")]
    pub fn new(version: &str, revision: &str) -> Self {
        let families = Families::default();
        let made = |result: prometheus::Result<IntCounterVec>| result.expect("literal names are valid");
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = made(IntCounterVec::new(Opts::new(name, help), labels));
            register(&families, &vec);
            vec
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("literal names are valid");
            register(&families, &gauge);
            gauge
        };
        let seconds = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help).expect("literal names are valid");
            register(&families, &gauge);
            gauge
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(opts).expect("literal names are valid");
            register(&families, &histogram);
            histogram
        };

        let webhooks = counters(
            "kitepush_webhooks_total",
            "Authentic deliveries, by event and by what became of them.",
            &["event", "outcome"],
        );
        let rejections = counters("kitepush_webhook_rejections_total", "Requests refused, by reason.", &["reason"]);
        let pushes = counters("kitepush_pushes_total", "Pushes to the gateway, by how they ended.", &["outcome"]);
        let build_info = GaugeVec::new(
            Opts::new("kitepush_build_info", "Always 1; the labels say which kitepush this is."),
            &["version", "revision"],
        )
        .expect("literal names are valid");
        register(&families, &build_info);
        build_info.with_label_values(&[version, revision]).set(1.0);
        families.add(prometheus::process_collector::ProcessCollector::for_self()).expect("registered once");

        let in_flight = IntGaugeVec::new(
            Opts::new("kitepush_in_flight", "Builds and jobs that have begun and not ended, by kind."),
            &["kind"],
        )
        .expect("literal names are valid");
        register(&families, &in_flight);
        let own = Self {
            webhooks: EventName::ALL
                .iter()
                .flat_map(|event| Outcome::ALL.iter().map(move |outcome| (event, outcome)))
                .map(|(event, outcome)| webhooks.with_label_values(&[event.as_str(), outcome.as_str()]))
                .collect(),
            rejections: Rejection::ALL.iter().map(|r| rejections.with_label_values(&[r.as_str()])).collect(),
            pushes: PushOutcome::ALL.iter().map(|o| pushes.with_label_values(&[o.as_str()])).collect(),
            delivery_delay: histogram(
                "kitepush_webhook_delivery_delay_seconds",
                "From the payload's own time of the event to its arrival.",
                DELAY_BUCKETS,
            ),
            handling: histogram(
                "kitepush_webhook_handling_seconds",
                "From the head of an authentic delivery to its answer, the commit included.",
                HANDLING_BUCKETS,
            ),
            secret_matches: counters(
                "kitepush_secret_matches_total",
                "Deliveries verified, by the short id of the secret that matched.",
                &["secret"],
            ),
            commits: counters("kitepush_ledger_commits_total", "Transactions of the ledger, by outcome.", &["outcome"]),
            commit_seconds: histogram(
                "kitepush_ledger_commit_seconds",
                "How long a transaction of the ledger took, the sync to disk included.",
                HANDLING_BUCKETS,
            ),
            queue_length: gauge("kitepush_ledger_queue_length", "Deliveries that wait for the ledger."),
            records: gauge("kitepush_ledger_records", "Builds, jobs and agents that the ledger remembers."),
            backlog: gauge(
                "kitepush_ledger_backlog_events",
                "Events counted in memory only, because the disk refuses.",
            ),
            in_flight,
            in_flight_expired: counters(
                "kitepush_in_flight_expired_total",
                "Builds and jobs whose end never arrived, by kind.",
                &["kind"],
            ),
            events_missing: counters(
                "kitepush_events_missing_total",
                "Webhooks that must have been lost: the end arrived and the start did not, by event.",
                &["event"],
            ),
            anomalies: counters("kitepush_anomalies_total", "Contradictions in what arrived, by kind.", &["kind"]),
            samples: gauge("kitepush_samples", "Exposition lines of the buildkite_* families."),
            series_overflow: counters(
                "kitepush_series_overflow_total",
                "Label values that a limit turned into _overflow, by family.",
                &["family"],
            ),
            push_seconds: histogram("kitepush_push_seconds", "How long a push took.", HANDLING_BUCKETS),
            push_size: gauge("kitepush_push_size_bytes", "Size of the last push, after compression."),
            last_push: seconds(
                "kitepush_last_push_timestamp_seconds",
                "When the gateway last accepted a push, since the Unix epoch.",
            ),
            last_event: seconds(
                "kitepush_last_event_timestamp_seconds",
                "When the last authentic event arrived, since the Unix epoch.",
            ),
            families,
        };
        for outcome in ["ok", "failed"] {
            own.commits.with_label_values(&[outcome]);
        }
        for kind in ANOMALIES {
            own.anomalies.with_label_values(&[kind]);
        }
        own
    }

    /// Counts an authentic delivery.
    pub fn webhook(&self, event: EventName, outcome: Outcome) {
        self.webhooks[event as usize * Outcome::ALL.len() + outcome as usize].inc();
    }

    /// Counts a refused request.
    pub fn rejection(&self, reason: Rejection) {
        self.rejections[reason as usize].inc();
    }

    /// Counts a push.
    pub fn push(&self, outcome: PushOutcome) {
        self.pushes[outcome as usize].inc();
    }

    /// Adds a family of another room to what is exposed, once.
    ///
    /// # Errors
    ///
    /// When a family of that name is there already.
    pub fn register(&self, family: impl Collector + 'static) -> prometheus::Result<()> {
        self.families.add(family)
    }

    /// What every registered family is, sorted by name.
    pub fn described(&self) -> Vec<Described> {
        let mut described = self.families.described.lock().unwrap_or_else(PoisonError::into_inner).clone();
        described.sort_by(|a, b| a.name.cmp(&b.name));
        described
    }

    /// The families as they stand, `process_*` included, sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.families.registry.gather()
    }
}

#[expect(clippy::expect_used, reason = "names are literals; a test makes one")]
fn register(families: &Families, family: &(impl Collector + Clone + 'static)) {
    families.add(family.clone()).expect("each name stands once");
}

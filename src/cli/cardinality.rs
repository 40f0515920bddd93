//! `kitepush cardinality`.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::anyhow;
use clap::Args;

use super::{ConfigFile, Files};
use crate::config::Limits;
use crate::metrics::catalogue::{About, Catalogue, Configured, Kind};
use crate::metrics::source::Source;

/// Bytes of memory for one series of a counter or gauge: row, index, labels, and the copy that a push makes.
/// Measured: 266, see `what_a_series_costs_is_what_the_estimate_says` in tests/it/cardinality.rs.
pub const BYTES_PER_SERIES: usize = 280;
/// The same for each bucket of a histogram, of which there are up to three copies while a push is made.
/// Measured there: 49.
pub const BYTES_PER_BUCKET: usize = 55;
/// Bytes of a pushed sample. Measured there: 1.0 gzipped for series that look alike (2 to 3 on a real gateway's mix),
/// 26 and 147 with label values of usual length.
pub const PUSH_BYTES_PER_SAMPLE: [(&str, f64); 3] = [("protobuf + gzip", 2.0), ("protobuf", 28.0), ("text", 150.0)];

/// Values that are Buildkite's to have, for each pipeline: as many as there can well be, and as many as most have.
const STATES_OF_BUILDS: Count = Count(6, 3);
const TIMED_STATES: Count = Count(3, 2);
const STATES_OF_JOBS: Count = Count(7, 3);
/// Of type, state and soft_failed together: most of their combinations do not exist.
const ENDS_OF_JOBS: Count = Count(14, 4);
const SOURCES: Count = Count(5, 2);
const EXITS: Count = Count(8, 2);
const RETRIES: Count = Count(2, 1);
const AGENT_EVENTS: Count = Count(6, 4);

#[derive(Args, Debug)]
pub(super) struct Cardinality {
    #[command(flatten)]
    config: ConfigFile,
    /// Pipelines in all.
    #[arg(long, default_value_t = 200)]
    pipelines: usize,
    /// Values of the label branch that a pipeline has: its default branch, pull_request, other, kept names.
    #[arg(long, default_value_t = 5)]
    branches: usize,
    /// Queues in all.
    #[arg(long, default_value_t = 10)]
    queues: usize,
    /// Values that each opt-in label (step_key, creator, meta_data, env) has in a pipeline.
    #[arg(long, default_value_t = 10)]
    values: usize,
}

/// How many there are, dense and sparse.
#[derive(Clone, Copy, Debug)]
struct Count(usize, usize);

impl Count {
    fn times(self, other: Self) -> Self {
        Self(self.0.saturating_mul(other.0), self.1.saturating_mul(other.1))
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0), self.1.saturating_add(other.1))
    }

    fn map(self, change: impl Fn(usize) -> usize) -> Self {
        Self(change(self.0), change(self.1))
    }
}

impl Cardinality {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let config = self.config.load(Files::LeftAlone)?;
        let catalogue = Catalogue::new(&config.families, &config.labels).map_err(|problems| anyhow!("{problems:?}"))?;
        let text = self.table(&catalogue, &config.labels.limits);
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }

    fn table(&self, catalogue: &Catalogue, limits: &Limits) -> String {
        let mut text = format!(
            "Pipelines: {}, branches of each: {}, queues in all: {}. Dense: every pipeline has everything that there can well \
             be, on every queue.\nSparse: two branches, two queues and the usual states for each pipeline.\n\n",
            self.pipelines, self.branches, self.queues
        );
        text.push_str(
            "| family | labels | series dense | sparse | samples dense | sparse |\n|---|---|---:|---:|---:|---:|\n",
        );
        let (mut samples, mut bytes) = (Count(0, 0), Count(0, 0));
        let mut over = Vec::new();
        for configured in catalogue.iter().filter(|configured| configured.enabled) {
            let cost = configured.samples_per_series();
            let wanted = self.series(configured, catalogue.recent_builds);
            // What is over gives way and is not lost: the limit is what there is then.
            let most = (limits.samples_per_family / cost).max(1);
            let series = wanted.map(|series| series.min(most));
            if wanted.0 > most {
                over.push(format!(
                    "{} ({})",
                    configured.family.name,
                    if wanted.1 > most { "sparse too" } else { "dense" }
                ));
            }
            let buckets = configured.buckets.len();
            samples = samples.plus(series.map(|series| series * cost));
            bytes = bytes.plus(series.map(|series| series * (BYTES_PER_SERIES + buckets * BYTES_PER_BUCKET)));
            let labels: Vec<_> = configured.labels.iter().map(|label| &*label.name).collect();
            let Count(dense, sparse) = series;
            let _ = writeln!(
                text,
                "| `{}` | {} | {dense} | {sparse} | {} | {} |",
                configured.family.name,
                labels.join(", "),
                dense * cost,
                sparse * cost
            );
        }
        let wanted = samples;
        samples = samples.map(|samples| samples.min(limits.samples));
        let share = |part: usize, all: usize, of: usize| (of as u128 * part as u128 / all.max(1) as u128) as usize;
        bytes = Count(share(samples.0, wanted.0, bytes.0), share(samples.1, wanted.1, bytes.1));
        let _ = writeln!(text, "| **all** | | | | **{}** | **{}** |\n", samples.0, samples.1);
        let _ = writeln!(text, "Memory here for these series: {} dense, {} sparse.", size(bytes.0), size(bytes.1));
        for (format, each) in PUSH_BYTES_PER_SAMPLE {
            let push = samples.map(|samples| (samples as f64 * each) as usize);
            let _ = writeln!(text, "A push as {format}: {} dense, {} sparse.", size(push.0), size(push.1));
        }
        if !over.is_empty() {
            let limit = limits.samples_per_family;
            let _ =
                writeln!(text, "\nOver labels.limits.samples_per_family ({limit}), cut off here: {}.", over.join(", "));
        }
        if wanted.0 > limits.samples {
            let which = if wanted.1 > limits.samples { "dense and sparse" } else { "dense" };
            let _ = writeln!(
                text,
                "\nOver labels.limits.samples ({}), cut off here: {which} would have {} and {}. What is over goes to \
                 _overflow.",
                limits.samples, wanted.0, wanted.1
            );
        }
        if self.pipelines > limits.values_per_label {
            let _ = writeln!(
                text,
                "\nMore pipelines than labels.limits.values_per_label ({}): the rest shares one _overflow.",
                limits.values_per_label
            );
        }
        text
    }

    /// Label sets of a family.
    fn series(&self, configured: &Configured, recent_builds: usize) -> Count {
        let family = configured.family;
        let has = |source: &Source| configured.labels.iter().any(|label| label.source == *source);
        let most = |values: usize| Count(values, values.min(2));
        if family.about == About::OneBuild {
            return Count(self.pipelines * recent_builds, self.pipelines * recent_builds);
        }
        let mut series = Count(1, 1);
        let per_pipeline = has(&Source::Pipeline);
        if per_pipeline {
            series = Count(self.pipelines, self.pipelines);
        }
        if has(&Source::Branch) {
            series = series.times(most(self.branches.max(1)));
        }
        // A queue belongs to one cluster, and a pipeline to one organization: neither makes series of its own.
        if has(&Source::Queue) {
            let queues = self.queues.max(1);
            series = series.times(if per_pipeline { most(queues) } else { Count(queues, queues) });
        }
        if has(&Source::State) {
            series = series.times(match (family.about, family.kind) {
                (_, Kind::Histogram(_)) => TIMED_STATES,
                (About::Job, _) if has(&Source::JobType) && has(&Source::SoftFailed) => ENDS_OF_JOBS,
                (About::Job, _) => STATES_OF_JOBS,
                _ => STATES_OF_BUILDS,
            });
        }
        for label in configured.labels.iter() {
            series = series.times(match label.source {
                Source::BuildSource => SOURCES,
                Source::ExitStatus => EXITS,
                Source::RetryType => RETRIES,
                Source::AgentEvent => AGENT_EVENTS,
                Source::StepKey | Source::Creator | Source::Extra(_) => Count(self.values, self.values.div_ceil(2)),
                _ => Count(1, 1),
            });
        }
        series
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

//! `kitepush totals`.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value};

use super::{ConfigFile, Files};
use crate::ledger::store::Reader;
use crate::metrics::catalogue::{FAMILIES, Kind};
use crate::metrics::series::StoredSeries;

#[derive(Args, Debug)]
pub(super) struct Totals {
    #[command(flatten)]
    config: ConfigFile,
    /// Only those of one pipeline.
    #[arg(long, value_name = "SLUG")]
    pipeline: Option<String>,
}

impl Totals {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let config = self.config.load(Files::LeftAlone)?;
        let Some(path) = &config.state.path else {
            bail!("state.path: there is none, so totals are in memory only; read them from /metrics or the gateway");
        };
        let series = Reader::open(path)?.series().context("state.path")?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut found = false;
        for series in series {
            let labels: Map<String, Value> = serde_json::from_str(&series.labels).unwrap_or_default();
            let pipeline = labels.get("pipeline").and_then(Value::as_str);
            if self.pipeline.is_some() && self.pipeline.as_deref() != pipeline {
                continue;
            }
            if let Some(value) = value_of(&series) {
                found = true;
                writeln!(out, "{}{} {value}", series.family, labels_of(&labels))?;
            }
        }
        out.flush()?;
        if let Some(pipeline) = self.pipeline.as_ref().filter(|_| !found) {
            bail!("nothing has been counted for the pipeline {pipeline}");
        }
        Ok(())
    }
}

/// The value in words; `None` for gauges, which are not totals.
fn value_of(series: &StoredSeries) -> Option<String> {
    let family = FAMILIES.iter().find(|family| family.name == series.family)?;
    let numbers = &series.numbers;
    let hold = if series.released { "" } else { "  (in its zero-hold: shown as 0)" };
    match family.kind {
        Kind::Counter => Some(format!("{}{hold}", numbers.count)),
        Kind::Histogram(_) => {
            let sum = numbers.sum_millis as f64 / 1000.0;
            let mean = if numbers.count == 0 { 0.0 } else { sum / numbers.count as f64 };
            Some(format!("count {} sum {sum} s mean {mean:.3} s{hold}", numbers.count))
        }
        Kind::Gauge => None,
    }
}

fn labels_of(labels: &Map<String, Value>) -> String {
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

//! `kitepush metrics`.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::{ConfigFile, Files};
use crate::metrics::catalogue::{Catalogue, Configured};

#[derive(Args, Debug)]
pub(super) struct Metrics {
    #[command(flatten)]
    config: ConfigFile,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

impl Metrics {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let config = self.config.load(Files::LeftAlone)?;
        let catalogue = Catalogue::new(&config.families, &config.labels).map_err(|problems| anyhow!("{problems:?}"))?;
        let text = match self.format {
            Format::Markdown => markdown(&catalogue),
            Format::Json => json(&catalogue)?,
        };
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

fn labels<'a>(catalogue: &'a Catalogue, configured: &'a Configured) -> impl Iterator<Item = &'a str> {
    let constant = catalogue.constant.iter().map(|(name, _)| &**name);
    configured.labels.iter().map(|label| &*label.name).chain(constant)
}

fn markdown(catalogue: &Catalogue) -> String {
    let mut text = String::from("| family | type | labels | buckets (s) | help |\n|---|---|---|---|---|\n");
    for configured in catalogue.iter().filter(|configured| configured.enabled) {
        let family = configured.family;
        let labels: Vec<_> = labels(catalogue, configured).collect();
        let buckets: Vec<_> = configured.buckets.iter().map(f64::to_string).collect();
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            family.name,
            family.kind.as_str(),
            labels.join(", "),
            buckets.join(", "),
            family.help
        );
    }
    text
}

fn json(catalogue: &Catalogue) -> anyhow::Result<String> {
    let families: Vec<_> = catalogue
        .iter()
        .filter(|configured| configured.enabled)
        .map(|configured| {
            let mut family = serde_json::json!({
                "name": configured.family.name,
                "type": configured.family.kind.as_str(),
                "labels": labels(catalogue, configured).collect::<Vec<_>>(),
                "help": configured.family.help,
            });
            if !configured.buckets.is_empty() {
                family["buckets"] = configured.buckets.iter().copied().collect();
            }
            family
        })
        .collect();
    Ok(serde_json::to_string_pretty(&families)? + "\n")
}

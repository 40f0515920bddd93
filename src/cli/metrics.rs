//! `kitepush metrics`.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::{ConfigFile, Files};
use crate::listener;
use crate::metrics::catalogue::{Catalogue, Configured};
use crate::metrics::own::{Described, Own};
use crate::metrics::source::NAMES;
use crate::tls::register_reloads;

#[derive(Args, Debug)]
pub(super) struct Metrics {
    #[command(flatten)]
    config: ConfigFile,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
    /// Instead, what `families.<name>.labels` can name: label sources, what each means, and the names of the
    /// environment variables that stand for it.
    #[arg(long)]
    sources: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

impl Metrics {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let text = if self.sources {
            match self.format {
                Format::Markdown => sources(),
                Format::Json => sources_json()?,
            }
        } else {
            let config = self.config.load(Files::LeftAlone)?;
            let catalogue =
                Catalogue::new(&config.families, &config.labels).map_err(|problems| anyhow!("{problems:?}"))?;
            match self.format {
                Format::Markdown => markdown(&catalogue) + "\n" + &own_markdown()?,
                Format::Json => json(&catalogue)?,
            }
        };
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

/// What kitepush says about itself, in every room.
fn own() -> anyhow::Result<Vec<Described>> {
    let own = Own::new(crate::VERSION, crate::REVISION);
    register_reloads(&own)?;
    listener::Metrics::register(&own)?;
    Ok(own.described())
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

fn own_markdown() -> anyhow::Result<String> {
    let mut text = String::from("| kitepush itself | type | labels | help |\n|---|---|---|---|\n");
    for Described { name, kind, labels, help } in own()? {
        let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    Ok(text)
}

fn json(catalogue: &Catalogue) -> anyhow::Result<String> {
    let counted = catalogue.iter().filter(|configured| configured.enabled).map(|configured| {
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
    });
    let own = own()?.into_iter().map(|Described { name, kind, labels, help }| {
        serde_json::json!({"name": name, "type": kind, "labels": labels, "help": help})
    });
    Ok(serde_json::to_string_pretty(&counted.chain(own).collect::<Vec<_>>())? + "\n")
}

fn sources() -> String {
    let mut text = String::from("| source | also accepted | means | can be added to |\n|---|---|---|---|\n");
    for known in NAMES {
        let aliases: Vec<_> = known.aliases.iter().map(|alias| format!("`{alias}`")).collect();
        let _ =
            writeln!(text, "| `{}` | {} | {} | {} |", known.name, aliases.join(", "), known.means, known.source.fits());
    }
    text.push_str(
        "| `meta_data.<key>` | | the build's meta-data of that key | builds, jobs |\n\
         | `env.<KEY>` | | that variable in the build's `env`, else in the pipeline's; one exact name, none that looks \
         like a secret | builds, jobs |\n",
    );
    text
}

fn sources_json() -> anyhow::Result<String> {
    let sources: Vec<_> = NAMES
        .iter()
        .map(|known| {
            serde_json::json!({
                "name": known.name,
                "aliases": known.aliases,
                "means": known.means,
                "fits": known.source.fits(),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&sources)? + "\n")
}

//! `kitepush metrics`.

use clap::{Args, ValueEnum};

use super::{ConfigFile, Files};

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
        let _config = self.config.load(Files::LeftAlone)?;
        anyhow::bail!("metrics is not available yet, in {:?} or otherwise", self.format)
    }
}

//! `kitepush totals`.

use clap::Args;

use super::{ConfigFile, Files};

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
        let _config = self.config.load(Files::LeftAlone)?;
        anyhow::bail!("totals is not available yet, of {:?} or all pipelines", self.pipeline)
    }
}

//! `kitepush check`.

use std::io::Write as _;

use clap::Args;

use super::{ConfigFile, Files};

#[derive(Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Do not open secret and certificate files: for a check away from where the service runs.
    #[arg(long)]
    no_files: bool,
}

impl Check {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let config = self.config.load(if self.no_files { Files::Elsewhere } else { Files::Opened })?;
        Ok(std::io::stdout().write_all(config.to_yaml().as_bytes())?)
    }
}

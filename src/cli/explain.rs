//! `kitepush explain`.

use clap::Args;

use super::{ConfigFile, Files};

#[derive(Args, Debug)]
pub(super) struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// The id of a build or job.
    id: String,
}

impl Explain {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let _config = self.config.load(Files::LeftAlone)?;
        anyhow::bail!("explain is not available yet, of {} or any other id", self.id)
    }
}

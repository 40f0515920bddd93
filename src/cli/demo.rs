//! `kitepush demo`.

use clap::Args;

#[derive(Args, Debug)]
pub(super) struct Demo {}

impl Demo {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        anyhow::bail!("demo is not available yet")
    }
}

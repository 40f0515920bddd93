//! `kitepush demo`.

use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "DEMO_SECONDS=20 in the environment ends it by itself, with 0 only if what PromQL answers \
                        equals the day that was sent.")]
pub(super) struct Demo {}

impl Demo {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        crate::demo::run()
    }
}

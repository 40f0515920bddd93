//! `kitepush serve`.

use super::{ConfigFile, Files};

pub(super) fn run(config: &ConfigFile) -> anyhow::Result<()> {
    let _config = config.load(Files::Opened)?;
    anyhow::bail!("serve is not available yet")
}

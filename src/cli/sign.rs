//! `kitepush sign`.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use secrecy::ExposeSecret as _;

use super::client::unix_now;
use crate::config::files;
use crate::webhook::signature;

#[derive(Args, Debug)]
pub(super) struct Sign {
    /// File with the webhook's token; a trailing newline is ignored.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// Seconds since the Unix epoch; the current time when left out.
    #[arg(long, value_name = "UNIX")]
    timestamp: Option<i64>,
}

impl Sign {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let secret = files::read_secret(&self.secret_file)?;
        let mut body = Vec::new();
        std::io::stdin().read_to_end(&mut body).context("cannot read the body from standard input")?;
        let timestamp = self.timestamp.unwrap_or_else(unix_now);
        Ok(super::say(signature::sign(secret.expose_secret(), timestamp, &body))?)
    }
}

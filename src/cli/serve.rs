//! `kitepush serve`.

use anyhow::Context as _;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{ConfigFile, Files};
use crate::app::Application;
use crate::telemetry;

pub(super) fn run(config: &ConfigFile) -> anyhow::Result<()> {
    let loaded = config.read(Files::Opened);
    let warnings = loaded.warnings().to_vec();
    // Without a configuration there is no log yet.
    let config = loaded.finish().inspect_err(|_| super::warn(&warnings))?;
    telemetry::start(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // One thread to start and stop the others: the listeners, the ledger and the push loop have their own.
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let signals = signals()?;
        let application = Application::build(&config).await?;
        application.run(after(signals.clone(), 1), after(signals, 2)).await
    })
}

/// How many times the process was told to stop.
fn signals() -> anyhow::Result<watch::Receiver<usize>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(counted)
}

async fn after(mut signals: watch::Receiver<usize>, number: usize) {
    // The sender lives as long as the runtime.
    let _ = signals.wait_for(|count| *count >= number).await;
}

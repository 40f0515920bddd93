//! Logs: to standard error, for people or for machines.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging as `log` says.
///
/// # Errors
///
/// When the process logs already.
pub fn start(log: &Log) -> Result<(), TryInitError> {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(targets(log.level))).try_init()
}

/// The level is for kitepush's own lines. Of others only warnings are of use, and of the HTTP server not even those: it
/// writes an error for every malformed request, and at the finer levels what stands in it.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    Targets::new()
        .with_default(level.min(Level::WARN))
        .with_target("kitepush", level)
        .with_target("actix_http", tracing::level_filters::LevelFilter::OFF)
}

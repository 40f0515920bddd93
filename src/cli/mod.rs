//! The commands and their options.

pub mod cardinality;
mod check;
mod client;
mod demo;
mod explain;
mod healthcheck;
mod metrics;
mod send;
mod serve;
mod sign;
mod totals;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Environment, Loaded, Problem, Problems, Warning, files};
use crate::metrics::catalogue::Catalogue;

static VERSION: LazyLock<String> = LazyLock::new(|| format!("{} (revision {})", crate::VERSION, crate::REVISION));

/// Receives Buildkite webhooks, counts what happened and pushes the counts to a Prometheus Pushgateway.
#[derive(Debug, Parser)]
#[command(name = "kitepush", version = VERSION.as_str(), max_term_width = 100)]
#[command(after_help = "Exit status: 0 when all went well, 1 on an error, 2 when the command line is wrong.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(ConfigFile),
    /// Validate the configuration and print what is in effect, secrets redacted.
    Check(check::Check),
    /// Print the X-Buildkite-Signature of the body on standard input.
    Sign(sign::Sign),
    /// Sign bodies with the current time and post them, as Buildkite does.
    Send(send::Send),
    /// Print the metrics as configured: name, type, labels, buckets, help.
    Metrics(metrics::Metrics),
    /// Estimate series, memory and the size of a push under this configuration.
    Cardinality(cardinality::Cardinality),
    /// Print the stored totals.
    Totals(totals::Totals),
    /// Print what was counted for a build or job, and when.
    Explain(explain::Explain),
    /// Exit 0 when the service is ready: for container probes.
    Healthcheck(healthcheck::Healthcheck),
    /// Show the whole thing on this machine: a Pushgateway, a Prometheus, kitepush and a simulated CI day.
    Demo(demo::Demo),
}

/// Runs the command that the arguments name, and says how it ended.
pub fn run() -> ExitCode {
    // Ends the process with 2, or 0 for --help and --version.
    let ended = match Cli::parse().command {
        Command::Serve(config) => serve::run(&config),
        Command::Check(check) => check.run(),
        Command::Sign(sign) => sign.run(),
        Command::Send(send) => send.run(),
        Command::Metrics(metrics) => metrics.run(),
        Command::Cardinality(cardinality) => cardinality.run(),
        Command::Totals(totals) => totals.run(),
        Command::Explain(explain) => explain.run(),
        Command::Healthcheck(healthcheck) => healthcheck.run(),
        Command::Demo(demo) => demo.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprintln!("error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Where the configuration comes from.
#[derive(Args, Clone, Debug)]
struct ConfigFile {
    /// YAML file; environment variables such as KITEPUSH__PUSH__URL come on top of it. Without a file: defaults and
    /// environment.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What a command wants of the secret and certificate files that a configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// To open them.
    Opened,
    /// To judge the configuration without them, because they are on another machine.
    Elsewhere,
    /// Nothing: it only looks, and repeats no warnings of `check` and `serve` either.
    LeftAlone,
}

impl ConfigFile {
    /// Reads and validates everything; warnings go to standard error, unless the command only looks.
    fn load(&self, files: Files) -> Result<Config, Problems> {
        let loaded = self.read(files);
        if files != Files::LeftAlone {
            warn(loaded.warnings());
        }
        loaded.finish()
    }

    fn read(&self, files: Files) -> Loaded {
        let loaded = Loaded::read(self.config.as_deref(), &Environment::of_process()).and(catalogue_problems);
        if files == Files::Opened { loaded.and(files::problems) } else { loaded }
    }
}

fn warn(warnings: &[Warning]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// Family names, label sources and label names that only the catalogue can judge.
fn catalogue_problems(config: &Config) -> Vec<Problem> {
    Catalogue::new(&config.families, &config.labels).err().unwrap_or_default()
}

/// Prints a line; an error when nobody reads it any more.
fn say(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// For commands that talk HTTP: one thread is plenty.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}

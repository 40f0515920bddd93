//! Every key of the configuration: loading, defaults, validation, redacted printing.
//!
//! One struct per concern, its fields named as the YAML keys are. Layers: defaults ← YAML file ← environment.

mod counting;
mod door;
pub mod files;
mod layers;
mod push;
mod scalar;
mod setting;
mod validate;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

pub use counting::{Branches, Family, Labels, Limits, RecentBuilds, State};
pub use door::{Admin, AdminAuth, AllowedSource, Auth, AuthMode, Server, ServerTls};
pub use layers::Environment;
pub use push::{
    Authorization, BasicAuth, Compression, Header, HttpConfig, OAuth2, ProxyUrl, Push, PushFormat, TlsConfig,
    TlsVersion,
};

use setting::{Setting as _, settings, words};

settings! {
    /// The whole configuration.
    Config {
        /// How much is refused that is possible but unwise; default `relaxed`.
        policy: Policy = Policy::Relaxed,
        /// The webhook listener.
        server: Server = Server::default(),
        /// The listener of `/metrics`, `/healthz` and `/readyz`.
        admin: Admin = Admin::default(),
        /// How a webhook proves that Buildkite sent it.
        auth: Auth = Auth::default(),
        /// The ledger's file and its bounds.
        state: State = State::default(),
        /// What label values become.
        labels: Labels = Labels::default(),
        /// Metric families by name; default none, all as the catalogue has them.
        families: BTreeMap<String, Family> = BTreeMap::new(),
        /// To the Pushgateway.
        push: Push = Push::default(),
        /// What is logged, and how.
        log: Log = Log::default(),
    }
}

words! {
    /// `policy`.
    Policy {
        /// Unwise settings are warned about.
        Relaxed = "relaxed",
        /// Unwise settings are refused, each with its safe alternative.
        Strict = "strict",
    }
}

settings! {
    /// `log`: to standard error.
    Log {
        /// Default `text`.
        format: LogFormat = LogFormat::Text,
        /// Default `info`.
        level: LogLevel = LogLevel::Info,
    }
}

words! {
    /// `log.format`.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// `log.level`.
    LogLevel {
        /// What stops a part from working.
        Error = "error",
        /// What somebody should look at.
        Warn = "warn",
        /// What happens.
        Info = "info",
        /// What explains what happens.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

/// A configuration as it was read, with all that is wrong with it.
#[derive(Debug)]
pub struct Loaded {
    config: Config,
    problems: Problems,
    warnings: Vec<Warning>,
    /// Whether the file was YAML: if not, nothing more can be said of the keys.
    whole: bool,
}

impl Loaded {
    /// Reads the file, if any, and the environment over it, and validates the result. Opens no other file.
    pub fn read(file: Option<&Path>, environment: &Environment) -> Self {
        match file.map(|path| (path.display().to_string(), layers::read_file(path))) {
            None => Self::parse(None, environment),
            Some((name, Ok(text))) => Self::parse(Some((&name, &text)), environment),
            Some((_, Err(problem))) => Self::broken(vec![problem]),
        }
    }

    /// As [`Loaded::read`], of a file's name and text.
    pub fn parse(file: Option<(&str, &str)>, environment: &Environment) -> Self {
        match layers::read(file, environment) {
            Err(problems) => Self::broken(problems),
            Ok((config, problems)) => {
                let warnings = environment.warnings().iter().cloned().chain(validate::warnings(&config)).collect();
                Self { config, problems: Problems(problems), warnings, whole: true }.and(validate::problems)
            }
        }
    }

    fn broken(problems: Vec<Problem>) -> Self {
        Self { config: Config::default(), problems: Problems(problems), warnings: Vec::new(), whole: false }
    }

    /// Adds the findings of a further check, but for keys that have a problem already.
    #[must_use]
    pub fn and(mut self, check: impl FnOnce(&Config) -> Vec<Problem>) -> Self {
        if self.whole {
            let known: Vec<_> = self.problems.0.iter().map(|problem| problem.key.clone()).collect();
            self.problems.0.extend(check(&self.config).into_iter().filter(|problem| !known.contains(&problem.key)));
        }
        self
    }

    /// What is possible but unwise.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The configuration, when nothing is wrong with it.
    ///
    /// # Errors
    ///
    /// All problems.
    pub fn finish(self) -> Result<Config, Problems> {
        if self.problems.0.is_empty() { Ok(self.config) } else { Err(self.problems) }
    }
}

impl Config {
    /// The effective configuration as YAML that loads again, secrets redacted.
    pub fn to_yaml(&self) -> String {
        let mut shown = self.clone();
        shown.push.instance = Some(self.push.instance_name());
        yaml::print(&shown.show())
    }
}

/// What is wrong with a key, and the mend. Shown as `push.interval: must be at least 1s, is 0s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its full path.
    pub key: String,
    /// What is wrong, what is allowed.
    pub message: String,
}

impl Problem {
    /// About a key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.key, self.message) }
    }
}

/// What is possible but unwise. Shown as a [`Problem`] is.
pub type Warning = Problem;

/// All that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

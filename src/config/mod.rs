//! Every key of the configuration: loading, defaults, validation, redacted printing.
//!
//! One struct per concern, its fields named as the YAML keys are. Layers: defaults ← YAML file ← environment.

mod counting;
mod door;
mod layers;
mod push;
mod setting;

use std::collections::BTreeMap;
use std::fmt;

pub use counting::{Branches, Family, Labels, Limits, RecentBuilds, State};
pub use door::{Admin, AdminAuth, AllowedSource, Auth, AuthMode, Server, ServerTls};
pub use push::{
    Authorization, BasicAuth, Compression, Header, HttpConfig, OAuth2, ProxyUrl, Push, PushFormat, TlsConfig,
    TlsVersion,
};

use setting::{settings, words};

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

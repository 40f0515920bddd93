//! `server`, `admin` and `auth`: who may come in, where and how.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use config::Value;
use ipnet::IpNet;
use secrecy::SecretString;
use yaml_rust2::Yaml;

use super::Problem;
use super::setting::{Setting, Shape, nearest, settings, shown, words};

settings! {
    /// `server`: the webhook listener.
    Server {
        /// Address and port; default `0.0.0.0:8080`.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
        /// Path that takes webhooks; default `/webhook`.
        path: String = "/webhook".to_owned(),
        /// Worker threads; default 0, one per core.
        workers: usize = 0,
        /// Greatest body in bytes; default 1048576.
        max_body_bytes: usize = 1 << 20,
        /// How long head and body together may take to arrive; default 5 s.
        read_timeout: Duration = Duration::from_secs(5),
        /// Connections in all; default 1024.
        max_connections: usize = 1024,
        /// Connections per source address; default 64.
        max_connections_per_address: usize = 64,
        /// Who may send; default empty, everybody with a valid signature.
        allowed_sources: Vec<AllowedSource> = Vec::new(),
        /// Proxies whose `X-Forwarded-For` is believed; default none.
        trusted_proxies: Vec<IpNet> = Vec::new(),
        /// How long readiness says 503 while webhooks are still accepted; default 0 s.
        shutdown_delay: Duration = Duration::ZERO,
        /// How long drain, commit and final push may take, all of them together; default 10 s.
        shutdown_timeout: Duration = Duration::from_secs(10),
        /// Certificate of the listener; default none, plain HTTP.
        tls: Option<ServerTls> = None,
    }
}

settings! {
    /// `server.tls` and `admin.tls`: PEM files, re-read when they change.
    ServerTls {
        /// Certificate chain, the listener's own first.
        cert_file: PathBuf = PathBuf::new(),
        /// Private key of `cert_file`.
        key_file: PathBuf = PathBuf::new(),
        /// Authorities of client certificates; default none, no client certificate is asked for.
        client_ca_file: Option<PathBuf> = None,
    }
}

settings! {
    /// `admin`: the listener of `/metrics`, `/healthz` and `/readyz`.
    Admin {
        /// Address and port; default `127.0.0.1:9860`.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 9860)),
        /// Whether a network policy or a proxy guards it; default false.
        isolated: bool = false,
        /// Certificate of the listener; default none, plain HTTP.
        tls: Option<ServerTls> = None,
        /// Who may read `/metrics`; default everybody. Health endpoints are always open.
        auth: Option<AdminAuth> = None,
    }
}

settings! {
    /// `admin.auth`, in the manner of Prometheus' web configuration file.
    AdminAuth {
        /// User name → bcrypt hash of the password; default none.
        basic_auth_users: BTreeMap<String, SecretString> = BTreeMap::new(),
        /// File with the bearer token; default none.
        bearer_token_file: Option<PathBuf> = None,
    }
}

settings! {
    /// `auth`: how a webhook proves that Buildkite sent it.
    Auth {
        /// What is asked for; default `signature`.
        mode: AuthMode = AuthMode::Signature,
        /// Files, or directories in which each regular non-dot file is a secret; a trailing newline is ignored.
        /// Default `/etc/kitepush/webhook`, and nothing when `secrets` are given.
        secret_files: Vec<PathBuf> = vec![PathBuf::from("/etc/kitepush/webhook")],
        /// Inline secrets, for trials; default none.
        secrets: Vec<SecretString> = Vec::new(),
        /// How far the signed time may be from ours, both ways; default 5 min.
        tolerance: Duration = Duration::from_secs(300),
    }
}

words! {
    /// `auth.mode`.
    AuthMode {
        /// `X-Buildkite-Signature`: an HMAC over time and body.
        Signature = "signature",
        /// `X-Buildkite-Token`: the secret in clear text.
        Token = "token",
        /// Either; a bad signature never falls back to a token.
        Any = "any",
    }
}

/// An entry of `server.allowed_sources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedSource {
    /// The `webhook_ips` of Buildkite's meta API.
    Buildkite,
    /// An address range.
    Network(IpNet),
}

impl Setting for AllowedSource {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let text = shown(value);
        if text == "buildkite" {
            return Some(Self::Buildkite);
        }
        let hint = nearest(&text, ["buildkite"].into_iter());
        if hint.is_empty() {
            IpNet::read(value, key, problems).map(Self::Network)
        } else {
            super::setting::refuse(problems, key, format!("must be an address range or buildkite, is {text}{hint}"))
        }
    }

    fn show(&self) -> Yaml {
        match self {
            Self::Buildkite => Yaml::String("buildkite".to_owned()),
            Self::Network(network) => network.show(),
        }
    }
}

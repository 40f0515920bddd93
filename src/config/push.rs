//! `push`: the Pushgateway and the way to it. `push.http` follows Prometheus' `http_config`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};
use secrecy::SecretString;
use url::Url;
use yaml_rust2::Yaml;

use super::Problem;
use super::setting::{Setting, Shape, nearest, settings, words};

settings! {
    /// `push`: to the Pushgateway.
    Push {
        /// The gateway's base URL; default none: pull only, from the admin listener's `/metrics`.
        url: Option<Url> = None,
        /// The group's `job`; default `buildkite`.
        job: String = "buildkite".to_owned(),
        /// The group's `instance`, stable across restarts; default the host name. See [`Push::instance_name`].
        instance: Option<String> = None,
        /// From one push to the next; default 15 s.
        interval: Duration = Duration::from_secs(15),
        /// For a whole push, connecting included; default 10 s.
        timeout: Duration = Duration::from_secs(10),
        /// Default `protobuf`, which a gateway never takes for whole when it was cut short.
        format: PushFormat = PushFormat::Protobuf,
        /// Default `gzip`.
        compression: Compression = Compression::Gzip,
        /// How often Prometheus scrapes the gateway, only to judge `zero_hold`; default 60 s.
        scrape_interval: Duration = Duration::from_secs(60),
        /// How long a new series is exposed as zeros, so that its first increment is seen; default 75 s, 0 s: not at all.
        zero_hold: Duration = Duration::from_secs(75),
        /// Whether `kitepush_*` are pushed too; default true.
        self_metrics: bool = true,
        /// Credentials, TLS, proxy and headers.
        http: HttpConfig = HttpConfig::default(),
    }
}

impl Push {
    /// `instance`, else the host name; empty when the host has none that is UTF-8.
    pub fn instance_name(&self) -> String {
        self.instance
            .clone()
            .unwrap_or_else(|| rustix::system::uname().nodename().to_str().unwrap_or_default().to_owned())
    }
}

words! {
    /// `push.format`.
    PushFormat {
        /// Length-delimited protobuf.
        Protobuf = "protobuf",
        /// The text format, for targets that only know that.
        Text = "text",
    }
}

words! {
    /// `push.compression`.
    Compression {
        /// `Content-Encoding: gzip`.
        Gzip = "gzip",
        /// None.
        None = "none",
    }
}

settings! {
    /// `push.http`: Prometheus' `http_config`. All files are re-read, so that short-lived tokens work.
    HttpConfig {
        /// User name and password; default none.
        basic_auth: Option<BasicAuth> = None,
        /// The `Authorization` header; default none.
        authorization: Option<Authorization> = None,
        /// Client credentials grant; default none.
        oauth2: Option<OAuth2> = None,
        /// Certificates; default the web's public authorities, no client certificate.
        tls_config: TlsConfig = TlsConfig::default(),
        /// Proxy; default none.
        proxy_url: Option<ProxyUrl> = None,
        /// Further headers by name; default none.
        headers: BTreeMap<String, Header> = BTreeMap::new(),
    }
}

settings! {
    /// `push.http.basic_auth`: one of each pair.
    BasicAuth {
        /// User name.
        username: Option<String> = None,
        /// File with the user name.
        username_file: Option<PathBuf> = None,
        /// Password.
        password: Option<SecretString> = None,
        /// File with the password.
        password_file: Option<PathBuf> = None,
    }
}

settings! {
    /// `push.http.authorization`.
    Authorization {
        /// The scheme; default `Bearer`.
        r#type: String = "Bearer".to_owned(),
        /// What follows the scheme.
        credentials: Option<SecretString> = None,
        /// File with what follows the scheme.
        credentials_file: Option<PathBuf> = None,
    }
}

settings! {
    /// `push.http.oauth2`: the client credentials grant of RFC 6749, section 4.4.
    OAuth2 {
        /// Client id.
        client_id: String = String::new(),
        /// Client secret.
        client_secret: Option<SecretString> = None,
        /// File with the client secret.
        client_secret_file: Option<PathBuf> = None,
        /// Scopes to ask for; default none.
        scopes: Vec<String> = Vec::new(),
        /// Where tokens are fetched.
        token_url: Option<Url> = None,
        /// Further parameters of the token request; default none.
        endpoint_params: BTreeMap<String, String> = BTreeMap::new(),
        /// Certificates for the token request.
        tls_config: TlsConfig = TlsConfig::default(),
        /// Proxy for the token request; default none.
        proxy_url: Option<ProxyUrl> = None,
    }
}

settings! {
    /// `tls_config`.
    TlsConfig {
        /// Authorities, instead of the web's public ones; default none.
        ca_file: Option<PathBuf> = None,
        /// Client certificate chain; default none.
        cert_file: Option<PathBuf> = None,
        /// Private key of `cert_file`.
        key_file: Option<PathBuf> = None,
        /// The name that the server's certificate must be valid for; default the host of the URL.
        server_name: Option<String> = None,
        /// Accepts every certificate; default false.
        insecure_skip_verify: bool = false,
        /// Default `TLS12`.
        min_version: TlsVersion = TlsVersion::Tls12,
    }
}

words! {
    /// `tls_config.min_version`.
    TlsVersion {
        /// TLS 1.2.
        Tls12 = "TLS12",
        /// TLS 1.3.
        Tls13 = "TLS13",
    }
}

/// A proxy's URL, which may carry a password: it is shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// The URL with its credentials.
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyUrl({:?})", self.show())
    }
}

impl Setting for ProxyUrl {
    const SHAPE: Shape = Shape::Value;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        Url::read(value, key, problems).map(Self)
    }

    fn show(&self) -> Yaml {
        self.0.show()
    }
}

/// The values of a header of `push.http.headers`.
///
/// `name: value` is the short form of `name: {values: [value]}`.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// Values.
    pub values: Vec<String>,
    /// Values that are not shown.
    pub secrets: Vec<SecretString>,
    /// Files of which each holds a value.
    pub files: Vec<PathBuf>,
}

impl Setting for Header {
    const SHAPE: Shape = Shape::Map;

    fn read(value: &Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        const KEYS: [&str; 3] = ["values", "secrets", "files"];
        let ValueKind::Table(table) = &value.kind else {
            return String::read(value, key, problems).map(|value| Self { values: vec![value], ..Self::default() });
        };
        let mut header = Self::default();
        let entries: BTreeMap<_, _> = table.iter().collect();
        for (name, value) in entries {
            let key = format!("{key}.{name}");
            match name.as_str() {
                "values" => header.values = Setting::read(value, &key, problems)?,
                "secrets" => header.secrets = Setting::read(value, &key, problems)?,
                "files" => header.files = Setting::read(value, &key, problems)?,
                _ => {
                    let hint = nearest(name, KEYS.into_iter());
                    problems.push(Problem::new(&key, format!("is not a known key{hint}")));
                }
            }
        }
        Some(header)
    }

    fn show(&self) -> Yaml {
        let entries = [("values", self.values.show()), ("secrets", self.secrets.show()), ("files", self.files.show())];
        Yaml::Hash(entries.into_iter().map(|(key, value)| (Yaml::String(key.to_owned()), value)).collect())
    }
}

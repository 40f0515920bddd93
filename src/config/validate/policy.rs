//! What `policy: strict` refuses and `relaxed` warns about.

use url::{Host, Url};

use crate::config::{AuthMode, Config};

/// A setting that is possible but unwise.
pub(super) struct Unwise {
    pub(super) key: &'static str,
    /// What it is, and why that is unwise.
    pub(super) what: String,
    /// The safe alternative.
    pub(super) instead: &'static str,
}

pub(super) fn unwise(config: &Config) -> Vec<Unwise> {
    let mut found = Vec::new();
    let mode = config.auth.mode;
    if mode != AuthMode::Signature {
        let what = format!("is {}, which takes a token that proves neither body nor time", mode.as_str());
        let instead = "use signature, and choose \"Send an HMAC signature\" in Buildkite's webhook settings";
        found.push(Unwise { key: "auth.mode", what, instead });
    }
    let oauth2 = config.push.http.oauth2.as_ref();
    for (key, url) in [
        ("push.url", config.push.url.as_ref()),
        ("push.http.oauth2.token_url", oauth2.and_then(|oauth2| oauth2.token_url.as_ref())),
    ] {
        if let Some(url) = url.filter(|url| url.scheme() == "http" && !is_near(url)) {
            let host = url.host_str().unwrap_or_default();
            let what = format!("is plain HTTP to {host}, across a network that others may read");
            found.push(Unwise { key, what, instead: "use https" });
        }
    }
    // A proxy elsewhere carries even what is meant for a near host across the network.
    for (key, proxy, url) in [
        ("push.http.proxy_url", config.push.http.proxy_url.as_ref(), config.push.url.as_ref()),
        (
            "push.http.oauth2.proxy_url",
            oauth2.and_then(|oauth2| oauth2.proxy_url.as_ref()),
            oauth2.and_then(|oauth2| oauth2.token_url.as_ref()),
        ),
    ] {
        let proxy = proxy.map(|proxy| proxy.expose()).filter(|proxy| proxy.scheme() == "http" && !is_near(proxy));
        if let (Some(proxy), Some("http")) = (proxy, url.map(Url::scheme)) {
            let host = proxy.host_str().unwrap_or_default();
            let what = format!("takes plain HTTP to {host}, across a network that others may read");
            found.push(Unwise { key, what, instead: "use https for what it leads to" });
        }
    }
    for (key, tls) in [
        ("push.http.tls_config.insecure_skip_verify", Some(&config.push.http.tls_config)),
        ("push.http.oauth2.tls_config.insecure_skip_verify", oauth2.map(|oauth2| &oauth2.tls_config)),
    ] {
        if tls.is_some_and(|tls| tls.insecure_skip_verify) {
            let what = "is true, which accepts every server".to_owned();
            found.push(Unwise { key, what, instead: "name the server's authority in tls_config.ca_file" });
        }
    }
    let admin = &config.admin;
    let certified = admin.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    if !admin.listen.ip().is_loopback() && admin.auth.is_none() && !certified && !admin.isolated {
        let what = format!("is {}, where anybody can read the metrics", admin.listen);
        let instead = "listen on 127.0.0.1, set admin.auth, or admin.isolated: true when a network policy guards it";
        found.push(Unwise { key: "admin.listen", what, instead });
    }
    found
}

/// Whether a host is this machine, or by its name a service of the same cluster.
fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            !name.contains('.') || name.ends_with(".svc") || name.ends_with(".svc.cluster.local")
        }
        None => false,
    }
}

//! `push`.

use std::time::Duration;

use url::Url;

use super::{Findings, HOUR, MINUTE, Required, SECOND};
use crate::config::scalar::duration;
use crate::config::{BasicAuth, Header, HttpConfig, OAuth2, Push, TlsConfig};

/// Headers that the client sets, or that have a key of their own.
const OWN_HEADERS: [(&str, &str); 9] = [
    ("authorization", "use push.http.authorization"),
    ("proxy-authorization", "put the credentials into push.http.proxy_url"),
    ("host", "it follows from push.url"),
    ("content-type", "it follows from push.format"),
    ("content-encoding", "it follows from push.compression"),
    ("content-length", "the client sets it"),
    ("transfer-encoding", "the client sets it"),
    ("connection", "the client sets it"),
    ("user-agent", "the client sets it"),
];

pub(super) fn push(push: &Push, found: &mut Findings) {
    if let Some(url) = &push.url {
        gateway(url, found);
    }
    found.text("push.job", &push.job, 1024);
    match &push.instance {
        Some(instance) => found.text("push.instance", instance, 1024),
        None if push.instance_name().is_empty() => {
            found.add("push.instance", "must be set, because this machine has no host name");
        }
        None => {}
    }
    found.duration("push.interval", push.interval, SECOND, HOUR);
    found.duration("push.timeout", push.timeout, Duration::from_millis(100), 5 * MINUTE);
    found.duration("push.scrape_interval", push.scrape_interval, SECOND, HOUR);
    found.duration("push.zero_hold", push.zero_hold, Duration::ZERO, 3 * HOUR);
    http(&push.http, found);
}

fn gateway(url: &Url, found: &mut Findings) {
    let key = "push.url";
    if !url.username().is_empty() || url.password().is_some() {
        found.add(key, "must not carry a user name or password; use push.http.basic_auth");
    } else if url.query().is_some() || url.fragment().is_some() {
        found.add(key, "must not have a query or fragment; it is the gateway's base URL");
    } else if url.path().trim_end_matches('/').ends_with("/metrics") || url.path().contains("/metrics/job") {
        found.add(key, "must be the gateway's base URL; /metrics/job/… is added to it");
    }
}

fn http(http: &HttpConfig, found: &mut Findings) {
    let schemes = [
        ("push.http.basic_auth", http.basic_auth.is_some()),
        ("push.http.authorization", http.authorization.is_some()),
        ("push.http.oauth2", http.oauth2.is_some()),
    ];
    let mut set = schemes.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key);
    if let Some(first) = set.next() {
        for other in set {
            found.add(other, format!("excludes {first}; keep one of them"));
        }
    }
    if let Some(auth) = &http.basic_auth {
        basic_auth(auth, found);
    }
    if let Some(auth) = &http.authorization {
        let section = "push.http.authorization";
        if auth.r#type.eq_ignore_ascii_case("basic") {
            found.add(format!("{section}.type"), "must not be Basic; use push.http.basic_auth");
        } else if !is_token(&auth.r#type) {
            found.add(format!("{section}.type"), "must be one word such as Bearer");
        }
        let pair = [("credentials", auth.credentials.is_some()), ("credentials_file", auth.credentials_file.is_some())];
        found.one_of(section, Required::Yes, pair);
    }
    if let Some(oauth2) = &http.oauth2 {
        client_credentials(oauth2, found);
    }
    tls("push.http.tls_config", &http.tls_config, found);
    for (name, header) in &http.headers {
        headers(name, header, found);
    }
}

fn basic_auth(auth: &BasicAuth, found: &mut Findings) {
    let section = "push.http.basic_auth";
    let names = [("username", auth.username.is_some()), ("username_file", auth.username_file.is_some())];
    found.one_of(section, Required::Yes, names);
    if auth.username.as_ref().is_some_and(|name| name.is_empty() || name.contains(':')) {
        found.add(format!("{section}.username"), "must be a user name without a colon");
    }
    let passwords = [("password", auth.password.is_some()), ("password_file", auth.password_file.is_some())];
    found.one_of(section, Required::No, passwords);
}

fn client_credentials(oauth2: &OAuth2, found: &mut Findings) {
    let section = "push.http.oauth2";
    if oauth2.client_id.is_empty() {
        found.add(format!("{section}.client_id"), "is missing");
    }
    match &oauth2.token_url {
        None => found.add(format!("{section}.token_url"), "is missing"),
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            let key = format!("{section}.token_url");
            found.add(key, format!("must not carry a user name or password; use {section}.client_secret_file"));
        }
        Some(_) => {}
    }
    let secrets = [
        ("client_secret", oauth2.client_secret.is_some()),
        ("client_secret_file", oauth2.client_secret_file.is_some()),
    ];
    found.one_of(section, Required::Yes, secrets);
    tls(&format!("{section}.tls_config"), &oauth2.tls_config, found);
}

fn tls(section: &str, tls: &TlsConfig, found: &mut Findings) {
    match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => found.add(format!("{section}.key_file"), format!("is missing beside {section}.cert_file")),
        (None, Some(_)) => found.add(format!("{section}.cert_file"), format!("is missing beside {section}.key_file")),
        _ => {}
    }
    if let Some(name) = &tls.server_name
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        found.add(format!("{section}.server_name"), format!("must be a host name or an IP address, is {name}"));
    }
}

fn headers(name: &str, header: &Header, found: &mut Findings) {
    let key = format!("push.http.headers.{name}");
    if !is_token(name) {
        return found.add(key, "must be a header name: letters, digits and -");
    }
    if let Some((_, instead)) = OWN_HEADERS.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
        return found.add(key, format!("cannot be set; {instead}"));
    }
    if header.values.is_empty() && header.secrets.is_empty() && header.files.is_empty() {
        found.add(&key, "must have values, secrets or files");
    }
    if header.values.iter().any(|value| value.chars().any(char::is_control)) {
        found.add(key, "must not contain control characters");
    }
}

/// A token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

pub(super) fn warnings(push: &Push, found: &mut Findings) {
    let seen = push.scrape_interval + push.interval;
    if push.zero_hold.is_zero() {
        found.add("push.zero_hold", "is 0s, so switched off: Prometheus does not see the first events of a new series");
    } else if push.zero_hold < seen {
        let (hold, seen) = (duration(push.zero_hold), duration(seen));
        let message = format!("is {hold}, shorter than push.scrape_interval plus push.interval ({seen})");
        found.add("push.zero_hold", format!("{message}: Prometheus may miss the first events of a new series"));
    }
    let Some(url) = &push.url else {
        let http = &push.http;
        if http.basic_auth.is_some() || http.authorization.is_some() || http.oauth2.is_some() {
            found.add("push.http", "has no effect without push.url");
        }
        return;
    };
    if push.timeout > push.interval {
        let (timeout, interval) = (duration(push.timeout), duration(push.interval));
        found.add("push.timeout", format!("is {timeout}, longer than push.interval ({interval}): pushes come late"));
    }
    if url.scheme() == "http" {
        let tls = &push.http.tls_config;
        if tls.ca_file.is_some() || tls.cert_file.is_some() || tls.server_name.is_some() {
            found.add("push.http.tls_config", format!("has no effect, because push.url is plain HTTP ({url})"));
        }
    }
}

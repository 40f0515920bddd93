//! `server`, `admin`, `auth`.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::{DAY, Findings, HOUR, MINUTE, SECOND};
use crate::config::scalar::duration;
use crate::config::setting::REDACTED;
use crate::config::{Admin, AllowedSource, Auth, Config, ServerTls};

const TENTH: Duration = Duration::from_millis(100);
/// Bytes: a single meta-data value of a build may reach 100 KB.
const ROOMY_BODY: usize = 128 << 10;

pub(super) fn server(config: &Config, found: &mut Findings) {
    let server = &config.server;
    path("server.path", &server.path, found);
    let (ours, admins) = (server.listen, config.admin.listen);
    let same_address = ours.ip() == admins.ip() || ours.ip().is_unspecified() || admins.ip().is_unspecified();
    if ours.port() == admins.port() && ours.port() != 0 && same_address {
        found.add("admin.listen", format!("must differ from server.listen ({ours}), is {admins}; take another port"));
    }
    found.number("server.workers", server.workers, 0, 1024);
    found.number("server.max_body_bytes", server.max_body_bytes, 1, 1 << 30);
    found.duration("server.read_timeout", server.read_timeout, TENTH, 5 * MINUTE);
    found.number("server.max_connections", server.max_connections, 1, 1 << 20);
    found.number("server.max_connections_per_address", server.max_connections_per_address, 1, 1 << 20);
    for (index, proxy) in server.trusted_proxies.iter().enumerate() {
        if proxy.prefix_len() == 0 {
            let key = format!("server.trusted_proxies[{index}]");
            found.add(key, format!("must not be {proxy}: everybody could claim any address; name the proxies"));
        }
    }
    found.duration("server.shutdown_delay", server.shutdown_delay, Duration::ZERO, 10 * MINUTE);
    found.duration("server.shutdown_timeout", server.shutdown_timeout, TENTH, 10 * MINUTE);
    tls("server.tls", server.tls.as_ref(), found);
}

fn path(key: &str, path: &str, found: &mut Findings) {
    if !path.starts_with('/') {
        found.add(key, format!("must start with /, is {path}"));
    } else if matches!(path, "/healthz" | "/readyz" | "/metrics") {
        found.add(key, format!("must not be {path}, which has a meaning of its own; take /webhook"));
    } else if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || "?#{}%\\".contains(*c)) {
        found.add(key, format!("must be letters, digits and punctuation as in /webhook, has {bad:?}"));
    }
}

fn tls(section: &str, tls: Option<&ServerTls>, found: &mut Findings) {
    let Some(tls) = tls else { return };
    for (name, file, other) in [("cert_file", &tls.cert_file, "key"), ("key_file", &tls.key_file, "certificate")] {
        if file.as_os_str().is_empty() {
            found.add(format!("{section}.{name}"), format!("is missing; a {other} alone serves no TLS"));
        }
    }
}

pub(super) fn admin(admin: &Admin, found: &mut Findings) {
    tls("admin.tls", admin.tls.as_ref(), found);
    let Some(auth) = &admin.auth else { return };
    if auth.basic_auth_users.is_empty() && auth.bearer_token_file.is_none() {
        found.add("admin.auth", "lets nobody in; set basic_auth_users or bearer_token_file, or leave it out");
    }
    for (user, hash) in &auth.basic_auth_users {
        let key = format!("admin.auth.basic_auth_users.{user}");
        if user.is_empty() || user.contains(':') {
            found.add(&key, "must be a user name without a colon");
        }
        if !is_bcrypt(hash.expose_secret()) {
            found.add(key, "must be a bcrypt hash of the password, as `htpasswd -nBC 10 \"\"` prints it");
        }
    }
}

/// `$2b$10$` and 53 characters of salt and hash; also what `check` prints instead.
fn is_bcrypt(hash: &str) -> bool {
    let parts: Vec<_> = hash.split('$').collect();
    let [_, "2a" | "2b" | "2x" | "2y", cost, rest] = parts.as_slice() else { return hash == REDACTED };
    cost.len() == 2
        && cost.parse().is_ok_and(|cost: u8| (4..=31).contains(&cost))
        && rest.len() == 53
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
}

pub(super) fn auth(auth: &Auth, found: &mut Findings) {
    if auth.secret_files.is_empty() && auth.secrets.is_empty() {
        found.add("auth.secret_files", "must name at least one file or directory that holds a webhook secret");
    }
    for (index, secret) in auth.secrets.iter().enumerate() {
        let (key, secret) = (format!("auth.secrets[{index}]"), secret.expose_secret());
        if secret.is_empty() {
            found.add(key, "must not be empty");
        } else if secret.trim() != secret {
            found.add(key, "must not begin or end with white space");
        }
    }
    found.duration("auth.tolerance", auth.tolerance, SECOND, DAY);
}

pub(super) fn warnings(config: &Config, found: &mut Findings) {
    let (server, auth) = (&config.server, &config.auth);
    if server.max_body_bytes < ROOMY_BODY {
        let message = format!("is {}, and real deliveries can be larger; 1048576 takes them", server.max_body_bytes);
        found.add("server.max_body_bytes", message);
    }
    if server.read_timeout > 30 * SECOND {
        let message = format!("is {}: slow connections hold their place that long", duration(server.read_timeout));
        found.add("server.read_timeout", message);
    }
    for (index, source) in server.allowed_sources.iter().enumerate() {
        if matches!(source, AllowedSource::Network(network) if network.prefix_len() == 0) {
            found.add(format!("server.allowed_sources[{index}]"), "allows every address");
        }
    }
    if !auth.secrets.is_empty() {
        found.add("auth.secrets", "stand in the configuration itself; use auth.secret_files for more than a trial");
    }
    for (index, secret) in auth.secrets.iter().enumerate() {
        if secret.expose_secret().len() < 16 {
            found.add(format!("auth.secrets[{index}]"), "is shorter than 16 bytes and may be guessed");
        }
    }
    if auth.tolerance > HOUR / 4 {
        let message = format!("is {}: a captured request can be replayed that long", duration(auth.tolerance));
        found.add("auth.tolerance", format!("{message}; Buildkite recommends 5m"));
    }
    let admin = &config.admin;
    if admin.auth.is_some() && admin.tls.is_none() && !admin.listen.ip().is_loopback() && !admin.isolated {
        found.add("admin.auth", "sends its credentials in clear text; set admin.tls");
    }
}

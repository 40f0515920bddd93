//! `push.http`: credentials, tokens, headers and proxies.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kitepush::health::Part;
use prometheus::proto::{MetricFamily, MetricType};

use crate::support::eventually;
use crate::support::pushing::{Pushing, SOON, config, counter, family};
use crate::support::stub::{Reply, Request, Stub};

fn totals() -> Vec<MetricFamily> {
    vec![family("a_total", MetricType::COUNTER, vec![counter(&[], 1.0)])]
}

/// A gateway that takes every push.
fn gateway() -> Stub {
    Stub::start(|_| Reply::status(200))
}

fn puts(stub: &Stub) -> Vec<Request> {
    stub.seen().into_iter().filter(|request| request.method == "PUT").collect()
}

/// A token server that counts its tokens; each lives that many seconds.
fn token_server(seconds: u32) -> (Stub, Arc<AtomicU32>) {
    let issued = Arc::new(AtomicU32::new(0));
    let count = issued.clone();
    let stub = Stub::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let body = format!(r#"{{"access_token": "token-{number}", "token_type": "Bearer", "expires_in": {seconds}}}"#);
        Reply::Answer(200, vec![("Content-Type", "application/json".to_owned())], body)
    });
    (stub, issued)
}

fn oauth2(gateway: &Stub, tokens: &Stub, more: &str) -> kitepush::config::Push {
    let yaml = format!(
        "  http:\n    oauth2:\n      client_id: 'kite:push'\n      client_secret: 's3cr&t'\n      token_url: {}/token\n{more}",
        tokens.url()
    );
    config(&gateway.url(), &yaml)
}

#[test]
fn a_token_is_fetched_once_used_while_it_lives_and_renewed_before_it_expires() {
    let gateway = gateway();
    let (tokens, issued) = token_server(4);
    let more = "      scopes: [push, metrics]\n      endpoint_params: {audience: 'https://gateway'}\n";
    let pushing = Pushing::start(&oauth2(&gateway, &tokens, more), totals());
    (0..3).for_each(|_| pushing.wait_for_push());
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    let asked = &tokens.seen()[0];
    assert_eq!(asked.text(), "grant_type=client_credentials&scope=push+metrics&audience=https%3A%2F%2Fgateway");
    // base64 of `kite%3Apush:s3cr%26t`
    assert_eq!(asked.header("authorization"), Some("Basic a2l0ZSUzQXB1c2g6czNjciUyNnQ="));
    eventually("a renewal", SOON, || (issued.load(Ordering::SeqCst) == 2).then_some(()));
    pushing.wait_for_push();
    let used: Vec<_> = puts(&gateway).iter().map(|put| put.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(used.first().unwrap(), "Bearer token-1");
    assert_eq!(used.last().unwrap(), "Bearer token-2");
    assert!(pushing.health.troubles().is_empty(), "{:?}", pushing.health.troubles());
}

#[test]
fn a_token_that_is_refused_is_dropped_and_replaced_at_once() {
    let refused = Arc::new(Mutex::new("Bearer none".to_owned()));
    let revoked = refused.clone();
    let gateway = Stub::start(move |request| {
        let valid = request.header("authorization") != Some(&revoked.lock().unwrap());
        Reply::status(if valid { 200 } else { 401 })
    });
    let (tokens, issued) = token_server(3600);
    let pushing = Pushing::start(&oauth2(&gateway, &tokens, ""), totals());
    pushing.wait_for_push();
    *refused.lock().unwrap() = "Bearer token-1".to_owned();
    pushing.wait_for_push();
    assert_eq!(issued.load(Ordering::SeqCst), 2);
    assert_eq!(pushing.pushes("misconfigured"), 0.0);
    assert!(pushing.health.troubles().is_empty(), "{:?}", pushing.health.troubles());
}

#[test]
fn a_server_that_wants_the_credentials_in_the_body_gets_them_there() {
    let gateway = gateway();
    let tokens = Stub::start(|request| {
        if request.text().contains("client_id=kite%3Apush&client_secret=s3cr%26t") {
            Reply::Answer(200, Vec::new(), r#"{"access_token": "t", "expires_in": "3600"}"#.to_owned())
        } else {
            Reply::Answer(401, Vec::new(), r#"{"error": "invalid_client"}"#.to_owned())
        }
    });
    let pushing = Pushing::start(&oauth2(&gateway, &tokens, ""), totals());
    pushing.wait_for_push();
    assert_eq!(puts(&gateway)[0].header("authorization"), Some("Bearer t"));
}

#[test]
fn a_refusal_of_the_token_server_is_told_without_our_secret() {
    let gateway = gateway();
    let tokens = Stub::start(|_| {
        let body = r#"{"error": "invalid_client", "error_description": "no client has s3cr&t"}"#;
        Reply::Answer(401, Vec::new(), body.to_owned())
    });
    let pushing = Pushing::start(&oauth2(&gateway, &tokens, ""), totals());
    let trouble = pushing.trouble();
    assert!(trouble.contains("401: invalid_client: no client has …"), "{trouble}");
    assert!(trouble.contains("push.http.oauth2") && !trouble.contains("s3cr"), "{trouble}");
    assert!(puts(&gateway).is_empty());
}

#[test]
fn a_token_file_is_read_again_for_each_push_and_its_last_content_outlives_it() {
    let gateway = gateway();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let yaml = format!("  http:\n    authorization: {{type: Token, credentials_file: {}}}\n", file.display());
    let pushing = Pushing::start(&config(&gateway.url(), &yaml), totals());
    let trouble = pushing.trouble();
    assert!(trouble.contains("token: No such file"), "{trouble}");
    assert!(puts(&gateway).is_empty());

    for token in ["first", "second"] {
        std::fs::write(&file, format!(" {token}\n")).unwrap();
        let used =
            || puts(&gateway).last().is_some_and(|put| put.header("authorization") == Some(&format!("Token {token}")));
        eventually("the new token in use", SOON, || used().then_some(()));
    }
    std::fs::remove_file(&file).unwrap();
    let trouble = eventually("trouble", SOON, || {
        pushing.health.troubles().remove(&Part::Gateway).filter(|trouble| trouble.contains("stays in use"))
    });
    assert!(!trouble.contains("second"), "{trouble}");
    pushing.wait_for_push();
    assert_eq!(puts(&gateway).last().unwrap().header("authorization"), Some("Token second"));
}

#[test]
fn headers_of_all_three_kinds_are_sent_and_a_proxy_is_gone_through() {
    let proxy = gateway();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("h"), "from file\n").unwrap();
    let yaml = format!(
        "  http:\n    proxy_url: http://us%20er:pa%20ss@{}\n    headers:\n      X-Scope-OrgID: ci\n      \
         X-More: {{values: [a], secrets: [b], files: [{}]}}\n",
        proxy.address,
        directory.path().join("h").display()
    );
    let mut config = config("http://gateway.invalid:9091/below", &yaml);
    config.interval = Duration::from_secs(1);
    let pushing = Pushing::start(&config, totals());
    pushing.wait_for_push();
    let put = &puts(&proxy)[0];
    assert_eq!(put.path, "http://gateway.invalid:9091/below/metrics/job@base64/YnVpbGRraXRl/instance@base64/YQ");
    assert_eq!(put.header("x-scope-orgid"), Some("ci"));
    let more: Vec<_> =
        put.headers.iter().filter(|(name, _)| name == "x-more").map(|(_, value)| value.as_str()).collect();
    assert_eq!(more, ["a", "b", "from file"]);
    // base64 of `us er:pa ss`
    assert_eq!(put.header("proxy-authorization"), Some("Basic dXMgZXI6cGEgc3M="));
}

#[test]
fn no_log_line_of_any_level_shows_a_secret() {
    let logs = logs();
    let tokens = Stub::start(|_| Reply::Answer(200, Vec::new(), r#"{"access_token": "planted-token"}"#.to_owned()));
    // It refuses at first, so that the way of errors is seen too.
    let mut refusals = 2;
    let proxy = Stub::start(move |_| {
        refusals -= 1;
        Reply::status(if refusals >= 0 { 401 } else { 200 })
    });
    let common = format!(
        "    proxy_url: http://user:planted-proxy@{}\n    headers: {{X-Secret: {{secrets: [planted-header]}}}}\n",
        proxy.address
    );
    for auth in [
        "basic_auth: {username: user, password: planted-password}".to_owned(),
        "authorization: {credentials: planted-bearer}".to_owned(),
        format!("oauth2: {{client_id: id, client_secret: planted-client, token_url: '{}'}}", tokens.url()),
    ] {
        let config = config("http://gateway.invalid", &format!("  http:\n    {auth}\n{common}"));
        assert!(!format!("{config:?}").contains("planted-"), "{config:?}");
        let pushing = Pushing::start(&config, totals());
        pushing.wait_for_push();
        pushing.stop(Duration::from_secs(2));
    }
    let broken = config("https://localhost:1", &format!("  http:\n{common}"));
    Pushing::start(&broken, totals()).trouble();
    let logs = String::from_utf8_lossy(&logs.lock().unwrap()).into_owned();
    assert!(logs.contains("gateway.invalid"), "nothing was captured");
    let shown: Vec<_> = logs.lines().filter(|line| line.contains("planted-")).collect();
    assert!(shown.is_empty(), "{shown:#?}");
}

/// Everything that is logged in this process from now on, at any level, by any crate.
fn logs() -> Arc<Mutex<Vec<u8>>> {
    let logs = Arc::new(Mutex::new(Vec::new()));
    let writer = Captured(logs.clone());
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    logs
}

#[derive(Clone)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

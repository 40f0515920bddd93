//! The admin listener.

use std::net::SocketAddr;

use kitepush::config::AdminAuth;

use crate::support::service::{Answer, PING, Service, config, exchange};

fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes())
}

#[test]
fn without_a_gateway_everything_is_scraped_here() {
    let service = Service::start(config());
    assert_eq!(service.deliver(include_bytes!("../../webhook-fixtures/build-finished.json")).status, 200);
    let scrape = service.ask("/metrics");
    assert_eq!(scrape.status, 200);
    assert_eq!(scrape.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for family in
        ["buildkite_builds_finished_total{", "kitepush_webhooks_total{", "process_open_fds ", "kitepush_build_info{"]
    {
        assert!(scrape.body.contains(&format!("\n{family}")), "{family}");
    }
}

#[test]
fn with_a_gateway_only_what_is_kitepushs_own_is_scraped_here() {
    let mut config = config();
    config.push.url = Some("http://127.0.0.1:1".parse().unwrap());
    config.server.shutdown_timeout = std::time::Duration::from_millis(200);
    let service = Service::start(config);
    assert_eq!(service.deliver(include_bytes!("../../webhook-fixtures/build-finished.json")).status, 200);
    let scrape = service.ask("/metrics").body;
    assert!(scrape.contains("\nkitepush_webhooks_total{") && !scrape.contains("\nbuildkite_"));
}

#[test]
fn paths_and_methods() {
    let service = Service::start(config());
    assert_eq!(service.ask("/healthz").status, 200);
    assert_eq!(service.ask("/readyz").body, r#"{"parts":{},"status":"ready"}"#);
    for path in ["/", "/webhook", "/metrics/", "/readyz/"] {
        let answer = service.ask(path);
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    let post = exchange(service.admin, b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(exchange(service.admin, b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
}

#[test]
fn auth_guards_metrics_and_leaves_health_open() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "scrape token\n").unwrap();
    let hash = bcrypt::hash("correct horse", 4).unwrap();
    let mut config = config();
    config.admin.auth = Some(AdminAuth {
        basic_auth_users: [("prometheus".to_owned(), hash.into())].into(),
        bearer_token_file: Some(token),
    });
    let service = Service::start(config);
    let refused = service.ask("/metrics");
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"));
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"kitepush\""));
    let ask =
        |authorization: &str| get(service.admin, "/metrics", &format!("Authorization: {authorization}\r\n")).status;
    // prometheus:correct horse, prometheus:wrong
    assert_eq!(ask("Basic cHJvbWV0aGV1czpjb3JyZWN0IGhvcnNl"), 200);
    assert_eq!(ask("Basic cHJvbWV0aGV1czp3cm9uZw=="), 401);
    assert_eq!(ask("Bearer scrape token"), 200);
    assert_eq!(ask("Bearer wrong"), 401);
    for open in ["/healthz", "/readyz"] {
        assert_eq!(service.ask(open).status, 200);
    }
    assert_eq!(service.deliver(PING).status, 200);
}

#[test]
fn a_scrape_is_compressed_when_asked() {
    let service = Service::start(config());
    let mut socket = crate::support::service::connect(service.admin);
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=1.0,deflate\r\n\r\n";
    std::io::Write::write_all(&mut socket, request).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut socket, &mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert!(std::str::from_utf8(&bytes[..end]).unwrap().contains("content-encoding: gzip"));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[end + 4..]), &mut text).unwrap();
    assert!(text.contains("kitepush_build_info"));
}

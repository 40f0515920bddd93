//! Real nginx (Debian's) before kitepush and behind it: as the checking proxy that a push goes through with a token, and
//! as the guard of `deploy/nginx`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kitepush::webhook::signature::sign;

use crate::support::binary::{Binary, configured};
use crate::support::certs::{Authority, Validity};
use crate::support::eventually;
use crate::support::server::{Ready, Server, pushgateway};
use crate::support::service::{Answer, PING, now};
use crate::support::stub::{Reply, Stub};

const SECRET: &str = "the secret of the nginx tests";
const SOON: Duration = Duration::from_secs(20);

/// nginx in the foreground, as an ordinary user would run it, with `http` as its `http` block.
fn nginx(mut http: impl FnMut(SocketAddr, &Path) -> String) -> Server {
    // Where Debian puts it, which is not in everybody's PATH.
    let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    Server::start(program, Ready::Connects, |address, directory| {
        let root = directory.display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name};\n"))
            .concat();
        // Of other users' workers nothing in a private directory can be read.
        let text = format!(
            "{} pid {root}/pid; error_log stderr; daemon off; worker_processes 1; events {{}}\n\
             http {{ access_log off;\n{paths}{} }}\n",
            if is_root() { "user root;" } else { "" },
            http(address, directory),
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let argument = |text: &str| text.to_owned();
        vec![
            argument("-p"),
            root.to_string(),
            argument("-e"),
            argument("stderr"),
            argument("-c"),
            file.display().to_string(),
        ]
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn pushing(directory: &Path, url: &str) -> Binary {
    let yaml = format!(
        "server: {{listen: '127.0.0.1:0', workers: 1, shutdown_timeout: 5s}}\n\
         admin: {{listen: '127.0.0.1:0'}}\n\
         auth: {{secrets: ['{SECRET}']}}\n\
         push:\n  url: '{url}'\n  instance: a\n  interval: 1s\n  timeout: 1s\n  zero_hold: 0s\n\
         \x20 http: {{authorization: {{credentials_file: '{}'}}}}\n",
        directory.join("tokens/token").display()
    );
    std::fs::write(directory.join("kitepush.yaml"), yaml).unwrap();
    Binary::serve(directory)
}

/// A token as a projected volume holds it: a link through `..data`, which is swapped.
fn project(directory: &Path, version: &str, token: &str) {
    use std::os::unix::fs::symlink;
    let volume = directory.join("tokens");
    std::fs::create_dir_all(volume.join(version)).unwrap();
    std::fs::write(volume.join(version).join("token"), token).unwrap();
    symlink(version, volume.join("..new")).unwrap();
    std::fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
    if std::fs::symlink_metadata(volume.join("token")).is_err() {
        symlink("..data/token", volume.join("token")).unwrap();
    }
}

fn pushes(binary: &Binary, outcome: &str) -> f64 {
    binary.metric(&format!("kitepush_pushes_total{{outcome=\"{outcome}\"}}"))
}

fn wait_for_pushes(binary: &Binary) {
    let before = pushes(binary, "ok");
    eventually("two pushes", SOON, || (pushes(binary, "ok") >= before + 2.0).then_some(()));
}

#[test]
fn a_push_passes_a_proxy_that_checks_its_token_and_goes_on_when_the_token_is_exchanged() {
    let gateway = pushgateway();
    let proxy = nginx(|address, _| {
        format!(
            "map $http_authorization $known {{ default 0; 'Bearer the-first-token' 1; 'Bearer the-second-token' 1; }}\n\
             map $http_authorization $is_new {{ default 0; 'Bearer the-second-token' 1; }}\n\
             server {{ listen {address};\n client_max_body_size 64m;\n \
             location = /newest {{ return 204; }}\n \
             location / {{ if ($known = 0) {{ return 401 'who are you'; }}\n proxy_set_header X-New $is_new;\n \
             proxy_pass http://{}; }} }}",
            gateway.address
        )
    });
    let directory = configured("");
    project(directory.path(), "..1", "nobodys-token\n");
    let binary = pushing(directory.path(), &proxy.url(""));
    let readiness = eventually("the refusal", SOON, || {
        let body = binary.ask("/readyz").body;
        body.contains("401").then_some(body)
    });
    assert!(readiness.contains("degraded") && readiness.contains("push.http"), "{readiness}");
    assert!(!readiness.contains("nobodys-token"), "{readiness}");

    assert_eq!(binary.deliver(SECRET, include_bytes!("../../webhook-fixtures/build-finished.json")).status, 200);
    project(directory.path(), "..2", "the-first-token\n");
    wait_for_pushes(&binary);
    assert!(binary.ask("/readyz").body.contains("\"ready\""));
    let refused = pushes(&binary, "misconfigured");
    project(directory.path(), "..3", "the-second-token");
    wait_for_pushes(&binary);
    wait_for_pushes(&binary);
    assert_eq!(pushes(&binary, "misconfigured"), refused, "no push was refused for the exchange");
    let held = crate::support::http::get(&gateway.url("/metrics")).unwrap().text();
    assert!(held.contains("buildkite_builds_finished_total{"), "{held}");
    binary.stop();
}

#[test]
fn a_short_lived_workload_token_is_read_again_before_each_push() {
    // Says of each token whether it is valid now, as a token review does.
    let valid = Arc::new(Mutex::new(vec!["Bearer workload-1".to_owned()]));
    let current = Arc::clone(&valid);
    let review = Stub::start(move |request| {
        let known = |token: &str| current.lock().unwrap().iter().any(|valid| valid == token);
        Reply::status(if request.header("authorization").is_some_and(known) { 204 } else { 401 })
    });
    let gateway = pushgateway();
    let proxy = nginx(|address, _| {
        format!(
            "server {{ listen {address};\n client_max_body_size 64m;\n \
             location / {{ auth_request /review; proxy_pass http://{}; }}\n \
             location = /review {{ internal; proxy_pass http://{}; proxy_pass_request_body off; \
             proxy_set_header Content-Length ''; }} }}",
            gateway.address, review.address
        )
    });
    let directory = configured("");
    project(directory.path(), "..1", "workload-1");
    let binary = pushing(directory.path(), &proxy.url(""));
    wait_for_pushes(&binary);
    for number in 2..5 {
        // The kubelet writes the next token while the old one still holds.
        let token = format!("Bearer workload-{number}");
        valid.lock().unwrap().push(token.clone());
        project(directory.path(), &format!("..{number}"), &token["Bearer ".len()..]);
        let used = || review.seen().last().is_some_and(|seen| seen.header("authorization") == Some(&token));
        eventually("the new token in use", SOON, || used().then_some(()));
        valid.lock().unwrap().retain(|valid| *valid == token);
        wait_for_pushes(&binary);
    }
    assert_eq!(pushes(&binary, "misconfigured"), 0.0, "no push was refused");
    binary.stop();
}

/// The files of `deploy/nginx` with the addresses of a test.
struct Guarded {
    nginx: Server,
    authority: Authority,
    binary: Binary,
    backends: Vec<Stub>,
}

fn guarded() -> Guarded {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx");
    let authority = Authority::new("the examples");
    let names = ["webhooks", "kitepush", "pushgateway", "grafana", "unknown"].map(|host| format!("{host}.example.com"));
    let pair = authority.sign("nginx", &names.each_ref().map(String::as_str), Validity::Now);
    let directory = configured(&format!(
        "server: {{listen: '127.0.0.1:0', workers: 1, trusted_proxies: [127.0.0.1], allowed_sources: [127.0.0.0/8]}}\n\
         admin: {{listen: '127.0.0.1:0'}}\nauth: {{secrets: ['{SECRET}']}}\n"
    ));
    let binary = Binary::serve(directory.path());
    // What oauth2-proxy says to nginx: 202 and a name for those with its cookie, else 401.
    let identity = Stub::start(|request| {
        if !request.path.starts_with("/oauth2/auth") {
            return Reply::Answer(200, Vec::new(), "the login page".to_owned());
        }
        match request.header("cookie") {
            Some("_oauth2_proxy=known") => {
                Reply::Answer(202, vec![("X-Auth-Request-Email", "ada@example.com".to_owned())], String::new())
            }
            _ => Reply::status(401),
        }
    });
    let backend = |name: &'static str| Stub::start(move |_| Reply::Answer(200, Vec::new(), name.to_owned()));
    let (gateway, grafana) = (backend("the gateway"), backend("grafana"));
    let nginx = nginx(|address, directory| {
        std::fs::copy(files.join("kitepush-identity.conf"), directory.join("kitepush-identity.conf")).unwrap();
        let mut text = std::fs::read_to_string(files.join("kitepush.conf")).unwrap();
        for (theirs, ours) in [
            ("listen 443 ssl", format!("listen {address} ssl")),
            ("server 127.0.0.1:8080", format!("server {}", binary.webhook)),
            ("server 127.0.0.1:9860", format!("server {}", binary.admin)),
            ("server 127.0.0.1:9091", format!("server {}", gateway.address)),
            ("server 127.0.0.1:3000", format!("server {}", grafana.address)),
            ("server 127.0.0.1:4180", format!("server {}", identity.address)),
            ("/etc/nginx/tls/tls.crt", pair.cert.display().to_string()),
            ("/etc/nginx/tls/tls.key", pair.key.display().to_string()),
        ] {
            assert!(text.contains(theirs), "{theirs}");
            text = text.replace(theirs, &ours);
        }
        text
    });
    Guarded { nginx, authority, binary, backends: vec![gateway, grafana, identity] }
}

impl Guarded {
    /// What curl gets; none when the connection was closed without an answer.
    fn ask(&self, host: &str, path: &str, arguments: &[&str]) -> Option<Answer> {
        let port = self.nginx.address.port();
        let output = Command::new("curl")
            .args(["-sS", "-i", "--http1.1", "--max-time", "20", "--cacert"])
            .arg(self.authority.file())
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .args(arguments)
            .arg(format!("https://{host}:{port}{path}"))
            .output()
            .expect("curl");
        output.status.success().then(|| crate::support::service::answer(&mut &output.stdout[..]))
    }
}

const KNOWN: [&str; 2] = ["-H", "Cookie: _oauth2_proxy=known"];

#[test]
fn the_anonymous_are_sent_to_the_login_and_the_known_are_let_through() {
    let guarded = guarded();
    for (host, path) in [("kitepush", "/metrics"), ("pushgateway", "/api/v1/metrics"), ("grafana", "/d/overview")] {
        let host = format!("{host}.example.com");
        for pretence in [
            &[][..],
            &["-H", "Cookie: _oauth2_proxy=forged"],
            &["-H", "X-Auth-Request-Email: ada@example.com", "-H", "X-WEBAUTH-USER: ada@example.com"],
            &["-H", "Authorization: Bearer anything"],
        ] {
            let answer = guarded.ask(&host, path, pretence).unwrap();
            assert_eq!(answer.status, 302, "{host}: {answer:?}");
            let location = answer.header("location").unwrap();
            assert_eq!(location, format!("https://{host}/oauth2/start?rd=https://{host}{path}"));
        }
        assert_eq!(guarded.ask(&host, path, &KNOWN).unwrap().status, 200, "{host}");
        // The question itself is not for browsers, the login is.
        assert_eq!(guarded.ask(&host, "/oauth2/auth", &KNOWN).unwrap().status, 404, "{host}");
        assert_eq!(guarded.ask(&host, "/oauth2/start", &[]).unwrap().body, "the login page", "{host}");
    }
    let metrics = guarded.ask("kitepush.example.com", "/metrics", &KNOWN).unwrap();
    assert!(metrics.body.contains("kitepush_build_info"));

    let [gateway, grafana, _] = &guarded.backends[..] else { panic!() };
    // Only the known got through, and nothing of their identity but the name for Grafana.
    assert_eq!((gateway.seen().len(), grafana.seen().len()), (1, 1));
    assert!(gateway.seen().iter().all(|seen| seen.header("cookie").is_none()));
    let pretending = [&KNOWN[..], &["-H", "X-WEBAUTH-USER: root"]].concat();
    assert_eq!(guarded.ask("grafana.example.com", "/", &pretending).unwrap().status, 200);
    let names: Vec<_> = grafana.seen().iter().map(|seen| seen.header("x-webauth-user").map(str::to_owned)).collect();
    assert_eq!(names, [Some("ada@example.com".to_owned()), Some("ada@example.com".to_owned())]);
    // Nobody changes the gateway from here.
    for method in ["PUT", "POST", "DELETE"] {
        let arguments = [&KNOWN[..], &["-X", method]].concat();
        assert_eq!(guarded.ask("pushgateway.example.com", "/metrics/job/x", &arguments).unwrap().status, 403);
    }
    assert_eq!(gateway.seen().len(), 1);
    guarded.binary.stop();
}

#[test]
fn the_webhook_path_is_direct_takes_post_only_and_is_all_there_is_on_its_host() {
    let guarded = guarded();
    let host = "webhooks.example.com";
    let body = format!("@{}", concat!(env!("CARGO_MANIFEST_DIR"), "/webhook-fixtures/ping.json"));
    let signature = format!("X-Buildkite-Signature: {}", sign(SECRET.as_bytes(), now(), PING));
    let delivery = ["-H", &signature, "-H", "Content-Type: application/json", "--data-binary", &body];
    let taken = guarded.ask(host, "/webhook", &delivery).unwrap();
    assert!(taken.status == 200 && taken.body.contains("outcome"), "{taken:?}");
    let forged = ["-H", "X-Buildkite-Signature: no", "-H", "Content-Type: application/json", "--data-binary", &body];
    assert_eq!(guarded.ask(host, "/webhook", &forged).unwrap().status, 401);
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(guarded.ask(host, "/webhook", &["-X", method]).unwrap().status, 405, "{method}");
    }
    for path in ["/", "/healthz", "/metrics", "/webhook/", "/webhook/x", "/oauth2/auth", "/oauth2/start"] {
        assert_eq!(guarded.ask(host, path, &KNOWN).unwrap().status, 404, "{path}");
    }
    // The host that nobody configured.
    assert_eq!(guarded.ask("unknown.example.com", "/webhook", &delivery), None);
    // What the sender says of its address is not passed on: 127.0.0.1 is allowed, what it claims would not be.
    let claiming =
        [&delivery[..], &["-H", "X-Forwarded-For: 198.51.100.7", "-H", "Forwarded: for=198.51.100.7"]].concat();
    assert_eq!(guarded.ask(host, "/webhook", &claiming).unwrap().status, 200);
    guarded.binary.stop();
}

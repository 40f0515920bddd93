//! The same silence on the way out: whole runs of the program against a gateway and a token server that repeat in every
//! error whatever they were sent, at the finest log level, and every complaint about a configuration.

use std::path::Path;
use std::time::Duration;

use kitepush::config::{Environment, Loaded};

use crate::support::binary::{Binary, configured, kitepush};
use crate::support::eventually;
use crate::support::stub::{Reply, Stub};

const SECRET: &str = "planted-webhook-secret-1";
const SOON: Duration = Duration::from_secs(20);

/// What must not be seen anywhere: all plants, and their forms in base64.
fn assert_no_plant(written: &str) {
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode("scraper:planted-password");
    let shown = |line: &&str| {
        line.contains("planted") || line.contains(basic.trim_end_matches('=')) || line.contains("cGxhbnRlZ")
    };
    assert_eq!(written.lines().filter(shown).collect::<Vec<_>>(), Vec::<&str>::new());
}

/// Answers everything with an error that holds the whole request.
fn echo(status: u16) -> Stub {
    Stub::start(move |request| {
        let headers: String = request.headers.iter().map(|(name, value)| format!("{name}: {value} ")).collect();
        let location = ("Location", format!("/elsewhere?{headers}"));
        Reply::Answer(status, vec![location], format!("you sent {} {headers}", request.path))
    })
}

/// The same as OAuth2 says it.
fn echoing_token_server() -> Stub {
    Stub::start(|request| {
        let headers: String = request.headers.iter().map(|(name, value)| format!("{name}: {value} ")).collect();
        let said = format!("you sent {headers} {}", request.text()).replace('"', "'");
        Reply::Answer(401, Vec::new(), format!("{{\"error\": \"invalid_client\", \"error_description\": \"{said}\"}}"))
    })
}

/// A body in which everything is planted but what logs may name.
fn body() -> String {
    let fixture = include_str!("../../webhook-fixtures/job-finished.json");
    let mut body: serde_json::Value = serde_json::from_str(fixture).unwrap();
    plant(&mut body, "");
    body.to_string()
}

fn plant(value: &mut serde_json::Value, path: &str) {
    const NAMED: [&str; 4] = ["/event", "/job/id", "/build/id", "/pipeline/slug"];
    match value {
        serde_json::Value::Object(map) => {
            map.iter_mut().for_each(|(key, value)| plant(value, &format!("{path}/{key}")));
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| plant(value, path)),
        serde_json::Value::String(text) => {
            let is_read =
                NAMED.contains(&path) || path.ends_with("_at") || path.ends_with("url") || path.ends_with("/state");
            if !is_read {
                *text = format!("planted {text}");
            }
        }
        _ => {}
    }
}

#[test]
fn nothing_secret_is_written_while_everything_on_the_way_out_fails() {
    let tokens = echoing_token_server();
    let given =
        Stub::start(|_| Reply::Answer(200, Vec::new(), r#"{"access_token": "planted-access-token"}"#.to_owned()));
    let directory = configured("");
    let path = |name: &str| directory.path().join(name).display().to_string();
    for (name, secret) in [("secret", SECRET), ("password", "planted-password"), ("bearer", "planted-bearer")] {
        std::fs::write(path(name), format!("{secret}\n")).unwrap();
    }
    let auths = [
        format!("basic_auth: {{username: scraper, password_file: '{}'}}", path("password")),
        "basic_auth: {username: scraper, password: planted-password}".to_owned(),
        format!("authorization: {{credentials_file: '{}'}}", path("bearer")),
        "authorization: {type: Token, credentials: planted-token}".to_owned(),
        format!("oauth2: {{client_id: id, client_secret: planted-client, token_url: '{}/t'}}", tokens.url()),
        format!("oauth2: {{client_id: id, client_secret: planted-client, token_url: '{}/t'}}", given.url()),
    ];
    let statuses = [401, 400, 403, 307, 500, 407];
    for (number, (auth, status)) in auths.iter().zip(statuses).enumerate() {
        let gateway = echo(status);
        // Half of them through a proxy, which hears the request in place of the gateway.
        let (url, proxy) = match number % 2 {
            0 => (gateway.url(), String::new()),
            _ => (
                "http://gateway.invalid".to_owned(),
                format!(", proxy_url: 'http://user:planted-proxy@{}'", gateway.address),
            ),
        };
        let format = ["text", "json"][number % 2];
        let yaml = format!(
            "server: {{listen: '127.0.0.1:0', workers: 1, shutdown_timeout: 2s}}\n\
             admin: {{listen: '127.0.0.1:0'}}\n\
             auth: {{secret_files: ['{}'], secrets: [planted-inline-secret]}}\n\
             state: {{path: '{}'}}\n\
             push:\n  url: '{url}'\n  instance: a\n  interval: 1s\n  timeout: 1s\n\
             \x20 http: {{{auth}{proxy}, headers: {{X-Key: {{secrets: [planted-header-1]}}}}}}\n\
             log: {{level: trace, format: {format}}}\n",
            path("secret"),
            path("state.db"),
        );
        assert_no_plant(&whole_run(directory.path(), &yaml));
    }
}

/// Everything that was written in a run: `check`, the log, answers, readiness, metrics, `explain`, Debug.
fn whole_run(directory: &Path, yaml: &str) -> String {
    let file = directory.join("kitepush.yaml");
    std::fs::write(&file, yaml).unwrap();
    let file = file.to_str().unwrap();
    let mut written = output(&["check", "--config", file]);
    assert!(written.contains("push:"), "{written}");
    let none: [(&str, &str); 0] = [];
    let loaded = Loaded::parse(Some(("kitepush.yaml", yaml)), &Environment::new(none));
    written.push_str(&format!("{loaded:?}\n{:?}\n", loaded.warnings()));

    let binary = Binary::serve(directory);
    let body = body();
    for body in [body.as_str(), &body[..body.len() - 9], "{\"event\":\"planted\",\"build\":{}}", "planted"] {
        for secret in [SECRET, "planted-other-secret-2"] {
            let answer = binary.deliver(secret, body.as_bytes());
            written.push_str(&format!("{}\n{}\n", answer.head, answer.body));
        }
    }
    let trouble = eventually("the trouble to be told", SOON, || {
        let body = binary.ask("/readyz").body;
        body.contains("degraded").then_some(body)
    });
    written.push_str(&format!("{trouble}\n"));
    // Its own metrics carry no secret either; the labels are the others' business, and pushed.
    written.push_str(&binary.ask("/metrics").body);
    let log = binary.stop();
    assert!(log.contains("webhook refused") && log.contains("stopped"), "{log}");
    written.push_str(&log);
    written
}

fn output(arguments: &[&str]) -> String {
    let output = kitepush(arguments).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn no_complaint_about_a_configuration_repeats_a_secret() {
    let mistakes = [
        "auth: {secrets: planted-scalar}",
        "auth: {secrets: {planted-key: planted}}",
        "auth: {secrets: [{a: planted}]}",
        "auth: {secrets: [planted], secret_files: 3}",
        "auth: {secret: planted}",
        "push: {http: {basic_auth: planted}}",
        "push: {http: {basic_auth: {username: u, password: [planted]}}}",
        "push: {http: {basic_auth: {username: u, passwort: planted}}}",
        "push: {http: {basic_auth: {username: u, password: planted, password_file: /p}}}",
        "push: {http: {authorization: {credentials: planted, credentials_file: /c}}}",
        "push: {http: {authorization: {credentials: \"planted\\nline\"}}}",
        "push: {http: {oauth2: {client_id: i, client_secret: {x: planted}, token_url: 'http://a'}}}",
        "push: {http: {oauth2: {client_id: i, client_secret: planted}}}",
        "push: {http: {proxy_url: 'planted'}}",
        "push: {http: {proxy_url: 'socks9://user:planted@proxy'}}",
        "push: {http: {proxy_url: ['http://user:planted@proxy']}}",
        "push: {url: 'http://user:planted@gateway'}",
        "push: {http: {headers: {X-Key: {secrets: planted}}}}",
        "push: {http: {headers: {X-Key: {secret: [planted]}}}}",
        "push: {http: {headers: {Authorization: {secrets: [planted]}}}}",
        "push: {http: {headers: {X-Key: {secrets: [\"planted\\nline\"]}}}}",
        "admin: {auth: {basic_auth_users: {u: planted}}}",
        "admin: {auth: {basic_auth_users: planted}}",
        "auth: {secrets: ['planted'\n  broken: [",
    ];
    for yaml in mistakes {
        let directory = configured(yaml);
        let file = directory.path().join("kitepush.yaml");
        for command in ["check", "serve"] {
            let said = output(&[command, "--config", file.to_str().unwrap()]);
            assert!(!said.is_empty(), "{yaml}");
            // A key is the user's word; a value is the secret.
            let said = said.replace("planted-key", "");
            assert!(!said.contains("planted"), "{yaml}\n{said}");
        }
    }
    for (variable, value) in [
        ("KITEPUSH__AUTH__SECRETS", "planted"),
        ("KITEPUSH__PUSH__HTTP__BASIC_AUTH__PASSWORD", "planted"),
        ("KITEPUSH__PUSH__HTTP__PROXY_URL", "http://user:planted@"),
        ("KITEPUSH__AUTH__SECRET", "planted"),
        ("KITEPUSH__PUSH__HTTP__HEADERS", "planted"),
    ] {
        let output = kitepush(&["check", "--no-files"]).env(variable, value).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.is_empty() && !said.contains("planted"), "{variable}\n{said}");
    }
}

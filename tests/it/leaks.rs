//! Nothing that is secret is ever written: the log at its finest, every answer, and what `check` prints.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use kitepush::webhook::signature::sign;

use crate::support::service::{PING, exchange, now, post};

const SECRET: &str = "planted-webhook-secret";
const CONTENT: &str = "planted-body-content";

fn kitepush(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kitepush"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn neither_secrets_nor_contents_of_bodies_show_in_logs_and_answers() {
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("token"), SECRET).unwrap();
        std::fs::write(path("bearer"), "planted-bearer").unwrap();
        let hash = bcrypt::hash("planted-password", 4).unwrap();
        let yaml = format!(
            "server: {{listen: '127.0.0.1:0', workers: 1}}\n\
             admin: {{listen: '127.0.0.1:0', auth: {{basic_auth_users: {{scraper: '{hash}'}}, bearer_token_file: '{}'}}}}\n\
             auth: {{mode: any, secret_files: ['{}'], secrets: ['planted-inline-secret']}}\n\
             state: {{path: '{}'}}\n\
             log: {{level: trace, format: {format}}}\n",
            path("bearer"),
            path("token"),
            path("state.db"),
        );
        std::fs::write(path("config.yaml"), yaml).unwrap();

        let checked = kitepush(&["check", "--config", &path("config.yaml")]).output().unwrap();
        assert!(checked.status.success());
        let mut written = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();

        let mut service = kitepush(&["serve", "--config", &path("config.yaml")]).spawn().unwrap();
        let mut log = BufReader::new(service.stderr.take().unwrap());
        let mut addresses = Vec::new();
        while addresses.len() < 2 {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended: {written}");
            if line.contains("serving") {
                let words = line.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
                addresses = words.filter_map(|word| word.parse().ok()).collect();
            }
            written.push_str(&line);
        }
        let [webhook, admin] = addresses[..] else { panic!("{written}") };

        let fixture = include_str!("../../webhook-fixtures/build-finished.json");
        let told = fixture.replace("\"message\":\"", &format!("\"message\":\"{CONTENT} "));
        let broken =
            format!("{{\"event\":\"build.finished\",\"build\":{{\"id\":\"{CONTENT}\",\"created_at\":\"{CONTENT}\"}}}}");
        let nonsense = format!("\"{CONTENT}");
        let unknown = format!("{{\"event\":\"{CONTENT}\"}}");
        for body in [told.as_bytes(), broken.as_bytes(), nonsense.as_bytes(), unknown.as_bytes(), PING] {
            for signature in [
                sign(SECRET.as_bytes(), now(), body),
                sign(SECRET.as_bytes(), now() - 1000, body),
                sign(SECRET.as_bytes(), now() + 1000, body),
                sign(b"other", now(), body),
                format!("timestamp={SECRET},signature={SECRET}"),
            ] {
                let answer = exchange(webhook, &post(&[("X-Buildkite-Signature", &signature)], body));
                written.push_str(&format!("{}\n{}\n", answer.head, answer.body));
            }
            for token in [SECRET, "planted-wrong-token"] {
                let answer = exchange(webhook, &post(&[("X-Buildkite-Token", token)], body));
                written.push_str(&format!("{}\n{}\n", answer.head, answer.body));
            }
        }
        let malformed = format!("POST /webhook HTTP/1.1\r\nX-Buildkite-Token: {SECRET}\r\n: {SECRET}\r\n\r\n");
        written.push_str(&exchange(webhook, malformed.as_bytes()).body);
        for authorization in ["Bearer planted-bearer", "Bearer planted-wrong", "Basic cGxhbnRlZDpwbGFudGVk"] {
            let request = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
            let answer = exchange(admin, request.as_bytes());
            written.push_str(&format!("{}\n{}\n", answer.head, answer.body));
        }

        let pid = rustix::process::Pid::from_child(&service);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        std::io::Read::read_to_string(&mut log, &mut written).unwrap();
        assert!(service.wait().unwrap().success());

        assert!(written.contains("timestamp_stale") && written.contains("stopped"), "{written}");
        let planted = written.lines().filter(|line| line.contains("planted") || line.contains(&hash[7..]));
        assert_eq!(planted.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}

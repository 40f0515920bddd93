//! `kitepush send`: what Buildkite does, from a terminal.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Certificate, Client, Url};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::client::{self, Trust, cause, unix_now};
use super::say;
use crate::config::files::{self, SecretBytes};
use crate::webhook::signature;

/// Longer than any answer takes: kitepush refuses after 4 s what it could not commit.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Args, Debug)]
pub(super) struct Send {
    /// Where webhooks are taken, for example http://127.0.0.1:8080/webhook.
    #[arg(long)]
    url: Url,
    /// File with the webhook's token; a trailing newline is ignored.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// PEM file with the authorities of the server's certificate, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send the ping that Buildkite sends when a webhook is saved.
    #[arg(long, conflicts_with = "bodies")]
    ping: bool,
    /// Files with one body each; - is standard input.
    #[arg(value_name = "BODY.json", required_unless_present = "ping")]
    bodies: Vec<PathBuf>,
}

/// How a post ended.
struct Ended {
    accepted: bool,
    latency: Duration,
}

impl Send {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if !matches!(self.url.scheme(), "http" | "https") {
            bail!("--url must begin with http:// or https://, is {}", self.url);
        }
        let secret = files::read_secret(&self.secret_file)?;
        // Everything is read before anything is sent: a name mistyped sends nothing.
        let bodies = if self.ping {
            vec![("ping".to_owned(), ping(&self.url).into_bytes())]
        } else {
            self.bodies.iter().map(|path| read(path)).collect::<anyhow::Result<_>>()?
        };
        let client = client::new(&self.url, self.trust()?, TIMEOUT)?;
        super::block_on(send_all(&client, &self.url, &secret, bodies))
    }

    fn trust(&self) -> anyhow::Result<Trust> {
        let Some(path) = &self.ca_file else { return Ok(Trust::System) };
        let authorities = files::read_certificates(path)?;
        let authorities: Result<_, _> = authorities.iter().map(|der| Certificate::from_der(der)).collect();
        Ok(Trust::Only(authorities.with_context(|| format!("{} has an invalid certificate", path.display()))?))
    }
}

fn read(path: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    let name = path.display().to_string();
    if name == "-" {
        let mut body = Vec::new();
        std::io::stdin().read_to_end(&mut body).context("cannot read the body from standard input")?;
        return Ok(("standard input".to_owned(), body));
    }
    let body = std::fs::read(path).with_context(|| format!("{name} cannot be read"))?;
    Ok((name, body))
}

async fn send_all(
    client: &Client,
    url: &Url,
    secret: &SecretBytes,
    bodies: Vec<(String, Vec<u8>)>,
) -> anyhow::Result<()> {
    let sent = bodies.len();
    let mut refused = 0;
    let mut latencies = Vec::with_capacity(sent);
    for (name, body) in bodies {
        let ended = send(client, url, secret, &name, body).await?;
        refused += usize::from(!ended.accepted);
        latencies.push(ended.latency);
    }
    latencies.sort();
    let (median, most) = (latencies[(sent - 1) / 2], latencies[sent - 1]);
    let accepted = sent - refused;
    say(format_args!("{sent} sent, {accepted} accepted; latency p50 {}, max {}", millis(median), millis(most)))?;
    match refused {
        0 => Ok(()),
        _ => bail!("{refused} of {sent} not accepted"),
    }
}

async fn send(client: &Client, url: &Url, secret: &SecretBytes, name: &str, body: Vec<u8>) -> io::Result<Ended> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        event: std::borrow::Cow<'a, str>,
    }
    /// A 200's or an error's body.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        outcome: Option<String>,
        error: Option<String>,
        message: Option<String>,
    }

    let signature = signature::sign(secret.expose_secret(), unix_now(), &body);
    let mut request =
        client.post(url.clone()).header("Content-Type", "application/json").header("X-Buildkite-Signature", signature);
    // A body that is no event is sent too: to see what is answered.
    if let Ok(Named { event }) = serde_json::from_slice(&body) {
        request = request.header("X-Buildkite-Event", event.as_ref());
    }
    let begun = Instant::now();
    let answered = async {
        let response = request.body(body).send().await?;
        Ok((response.status(), response.text().await?))
    }
    .await;
    let latency = begun.elapsed();
    let shown = millis(latency);
    let accepted = match answered {
        Ok((status, text)) => {
            let answer: Answer = serde_json::from_str(&text).unwrap_or_default();
            let what = answer.outcome.or(answer.error).unwrap_or_else(|| "no outcome".to_owned());
            let why = answer.message.map(|message| format!(": {message}")).unwrap_or_default();
            say(format_args!("{} {what:<10} {shown:>10}  {name}{why}", status.as_u16()))?;
            status.is_success()
        }
        Err(error) => {
            say(format_args!("--- {:<10} {shown:>10}  {name}: {}", "unreached", cause(&error)))?;
            false
        }
    };
    Ok(Ended { accepted, latency })
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// The body of a `ping`, as Buildkite sends it when a webhook is saved.
fn ping(url: &Url) -> String {
    let url = serde_json::Value::from(url.as_str());
    let api = "https://api.buildkite.com/v2/organizations/acme-inc";
    format!(
        concat!(
            r#"{{"event":"ping","service":{{"id":"0193a4c1-52e8-4f0b-9d57-6b0c2f8e7a14","provider":"webhook","#,
            r#""settings":{{"url":{url}}}}},"organization":{{"id":"0193a4c0-7d21-4c36-8a5e-f1e2d3c4b5a6","#,
            r#""graphql_id":"T3JnYW5pemF0aW9uLS0tMDE5M2E0YzAtN2QyMS00YzM2LThhNWUtZjFlMmQzYzRiNWE2","#,
            r#""url":"{api}","web_url":"https://buildkite.com/acme-inc","name":"ACME Inc","slug":"acme-inc","#,
            r#""agents_url":"{api}/agents","emojis_url":"{api}/emojis","created_at":"2021-02-03T20:34:10.486Z","#,
            r#""pipelines_url":"{api}/pipelines"}},"sender":{{"id":"0193a4c2-0e4b-4a97-b1d8-3c5f7e9a1b2d","#,
            r#""name":"kitepush send"}}}}"#,
        ),
        url = url,
        api = api,
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::Once;
    use std::thread::JoinHandle;

    use super::*;

    /// Head and body.
    type Request = (String, Vec<u8>);

    /// Answers one request after the other with these statuses; gives back what was asked.
    fn server(statuses: &'static [&'static str]) -> (Url, JoinHandle<Vec<Request>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/webhook", listener.local_addr().unwrap()).parse().unwrap();
        let answering = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for status in statuses {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    stream.read_line(&mut head).unwrap();
                }
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                requests.push((head, body));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
            requests
        });
        (url, answering)
    }

    fn sent(url: &Url, bodies: &[&str]) -> anyhow::Result<()> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| drop(rustls::crypto::aws_lc_rs::default_provider().install_default()));
        let client = client::new(url, Trust::System, TIMEOUT).unwrap();
        let bodies = bodies.iter().map(|body| ("body".to_owned(), body.as_bytes().to_vec())).collect();
        super::super::block_on(send_all(&client, url, &b"secret".to_vec().into(), bodies))
    }

    #[test]
    fn each_body_goes_out_signed_and_under_the_name_of_its_event() {
        let (url, answering) = server(&["200 OK", "200 OK"]);
        sent(&url, &[r#"{"event":"build.finished"}"#, "no event"]).unwrap();
        let requests = answering.join().unwrap();
        let header = |head: &str, name: &str| {
            let line = head.lines().find(|line| line.starts_with(name));
            line.map(|line| line.split_once(": ").unwrap().1.to_owned())
        };
        for (head, body) in &requests {
            let sent = header(head, "x-buildkite-signature").unwrap();
            let timestamp = sent["timestamp=".len()..].split(',').next().unwrap().parse().unwrap();
            assert_eq!(sent, signature::sign(b"secret", timestamp, body));
        }
        assert_eq!(header(&requests[0].0, "x-buildkite-event").unwrap(), "build.finished");
        assert_eq!(header(&requests[1].0, "x-buildkite-event"), None);
    }

    #[test]
    fn one_that_is_refused_or_unreachable_fails_the_command() {
        let (url, answering) = server(&["200 OK", "401 Unauthorized"]);
        assert_eq!(sent(&url, &["{}", "{}"]).unwrap_err().to_string(), "1 of 2 not accepted");
        answering.join().unwrap();
        assert_eq!(sent(&url, &["{}"]).unwrap_err().to_string(), "1 of 1 not accepted");
    }

    #[test]
    fn the_ping_is_json_with_the_url_that_it_is_sent_to() {
        let url = "http://127.0.0.1:8080/webhook?a=%22b%22".parse().unwrap();
        let body: serde_json::Value = serde_json::from_str(&ping(&url)).unwrap();
        assert_eq!(body["event"], "ping");
        assert_eq!(body["service"]["settings"]["url"], url.as_str());
        assert_eq!(body["organization"]["slug"], "acme-inc");
    }
}

//! The Pushgateway: one group, replaced as a whole by each push, and read back.

use std::future::Future;
use std::io::{self, BufReader, Read};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf, Bytes};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::client::Connection;
use super::credentials::{Age, Credentials};
use super::failure::{Failure, WORDS_BYTES, words_of};
use super::groups::{Group, Query, RestoredFamily, Wanted, read_groups};
use crate::config::Push;
use crate::metrics::encoding::Encoded;

/// More than this is not read of what a gateway says that it holds. Only the own group of it is ever in memory.
const GROUPS_BYTES: usize = 256 << 20;
/// The least time for reading them all back at the start, which no push waits behind but the first.
const RESTORE: Duration = Duration::from_secs(30);
/// Chunks that may wait for the parser.
const CHUNKS: usize = 4;

/// Where pushes go: the Pushgateway, or a test's.
pub(super) trait Target {
    /// Replaces the group by `exposition`.
    fn put(&mut self, exposition: Encoded) -> impl Future<Output = Result<Accepted, Failure>>;

    /// What an earlier run left in the group.
    fn earlier(&mut self) -> impl Future<Output = Result<Earlier, Failure>>;

    /// When the gateway last stored a push to the group, in seconds by its own clock; `None` when it cannot tell.
    fn push_time(&mut self) -> impl Future<Output = Result<Option<f64>, Failure>>;

    /// What is wrong although pushes work: files that could once be read and now cannot.
    fn complaint(&self) -> Option<String>;
}

/// How the gateway accepted a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// 200.
    Stored,
    /// 202: it does not check and stores a moment later.
    Queued,
}

/// What an earlier run left.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Earlier {
    /// The families of the group.
    Group(Vec<RestoredFamily>),
    /// There is no such group.
    Nothing,
    /// The target has no API that could tell; the status it answered.
    NoApi(u16),
}

/// A Pushgateway.
pub(super) struct Gateway {
    group: Url,
    api: Url,
    /// How messages call it: without credentials.
    peer: String,
    job: String,
    instance: String,
    timeout: Duration,
    connection: Connection,
    credentials: Credentials,
}

impl Gateway {
    /// The gateway of a configuration whose `push.url` is set. Nothing is read or connected yet.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] for a configuration that could never work.
    pub(super) fn new(config: &Push) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::Misconfigured(what.to_owned());
        let base = config.url.as_ref().ok_or_else(|| wrong("push.url is missing"))?;
        if config.job.is_empty() {
            return Err(wrong("push.job is empty, which the gateway refuses"));
        }
        let instance = config.instance_name();
        let proxy = config.http.proxy_url.as_ref().map(|proxy| proxy.expose().clone());
        let path = |segments: &[&str]| {
            let mut url = base.clone();
            url.set_query(None);
            url.set_fragment(None);
            url.path_segments_mut()
                .map_err(|()| wrong("push.url must be the base URL of a Pushgateway"))?
                .pop_if_empty()
                .extend(segments);
            Ok::<_, Failure>(url)
        };
        Ok(Self {
            group: path(&["metrics", "job@base64", &grouping(&config.job), "instance@base64", &grouping(&instance)])?,
            api: path(&["api", "v1", "metrics"])?,
            peer: match &proxy {
                Some(proxy) => format!("{} through the proxy {}", host(base), host(proxy)),
                None => host(base).to_owned(),
            },
            job: config.job.clone(),
            instance,
            timeout: config.timeout,
            connection: Connection::new(base, config.http.tls_config.clone(), proxy, config.timeout, "push.http"),
            credentials: Credentials::new(&config.http, config.timeout)?,
        })
    }

    /// Sends a request, with new credentials once more if a cached token was refused.
    async fn send(&mut self, method: Method, url: Url, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
        let client = self.connection.client()?;
        loop {
            let (credentials, age) = self.credentials.headers().await?;
            let mut headers = headers.clone();
            headers.extend(credentials);
            let request = client.request(method.clone(), url.clone()).headers(headers).body(body.clone());
            let sent = request.send().await;
            let response = sent.map_err(|error| self.connection.failure(&error, &self.peer))?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            self.credentials.refused();
            if age == Age::Fresh {
                return Ok(response);
            }
        }
    }

    async fn get(&mut self, wanted: Wanted) -> Result<Found, Failure> {
        let mut response = self.send(Method::GET, self.api.clone(), HeaderMap::new(), Bytes::new()).await?;
        match response.status() {
            StatusCode::OK => {}
            // 204 is what VictoriaMetrics answers to everything below its import path.
            status @ (StatusCode::NO_CONTENT
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED) => return Ok(Found::NoApi(status.as_u16())),
            _ => return Err(refusal(response, &self.credentials).await),
        }
        let (chunks, waiting) = mpsc::channel(CHUNKS);
        let (job, instance) = (self.job.clone(), self.instance.clone());
        let parser = tokio::task::spawn_blocking(move || {
            let query = Query { job: &job, instance: &instance, wanted };
            read_groups(BufReader::new(Chunks { waiting, current: Bytes::new() }), &query)
        });
        let mut size = 0;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.connection.failure(&error, &self.peer))? {
            size += chunk.len();
            if size > GROUPS_BYTES {
                return Err(Failure::Misconfigured(format!(
                    "{}/api/v1/metrics is longer than {} MiB: delete groups that nobody pushes to any more",
                    self.peer,
                    GROUPS_BYTES >> 20
                )));
            }
            if chunks.send(chunk).await.is_err() {
                break; // The parser has seen enough to know that it is wrong.
            }
        }
        drop(chunks);
        let parsed =
            parser.await.map_err(|error| Failure::Misconfigured(format!("cannot read the groups: {error}")))?;
        let group = parsed.map_err(|error| {
            let what = self.credentials.hide(&error.to_string());
            Failure::Misconfigured(words_of(format!("{}/api/v1/metrics is {what}", self.peer).as_bytes()))
        })?;
        Ok(group.map_or(Found::Nothing, Found::Group))
    }
}

/// The whole of a request, tokens included, under one time-out.
async fn in_time<T>(
    limit: Duration,
    peer: &str,
    whole: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, whole)
        .await
        .unwrap_or_else(|_| Err(Failure::Timeout(format!("no answer from {peer} within {limit:?}"))))
}

enum Found {
    Group(Group),
    Nothing,
    NoApi(u16),
}

impl Target for Gateway {
    async fn put(&mut self, exposition: Encoded) -> Result<Accepted, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(exposition.content_type));
        if let Some(encoding) = exposition.content_encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let (limit, peer) = (self.timeout, self.peer.clone());
        in_time(limit, &peer, async {
            // A body of known length: cut off in transit, it is seen to be.
            let body = Bytes::from(exposition.body);
            let response = self.send(Method::PUT, self.group.clone(), headers, body).await?;
            match response.status() {
                StatusCode::OK => Ok(Accepted::Stored),
                StatusCode::ACCEPTED => Ok(Accepted::Queued),
                _ => Err(refusal(response, &self.credentials).await),
            }
        })
        .await
    }

    async fn earlier(&mut self) -> Result<Earlier, Failure> {
        let (limit, peer) = (self.timeout.max(RESTORE), self.peer.clone());
        Ok(match in_time(limit, &peer, self.get(Wanted::Families)).await? {
            // A push that was refused leaves a group that never held anything.
            Found::Group(group) if group.push_time > 0.0 => Earlier::Group(group.families),
            Found::Group(_) | Found::Nothing => Earlier::Nothing,
            Found::NoApi(status) => Earlier::NoApi(status),
        })
    }

    async fn push_time(&mut self) -> Result<Option<f64>, Failure> {
        let (limit, peer) = (self.timeout, self.peer.clone());
        Ok(match in_time(limit, &peer, self.get(Wanted::PushTime)).await? {
            Found::Group(group) => Some(group.push_time),
            Found::Nothing | Found::NoApi(_) => None,
        })
    }

    fn complaint(&self) -> Option<String> {
        let all: Vec<_> = self
            .connection
            .stale()
            .into_iter()
            .chain(self.credentials.complaints().iter().map(String::as_str))
            .collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Host and port, and nothing else that a URL may hold.
fn host(url: &Url) -> &str {
    &url[url::Position::BeforeHost..url::Position::AfterPort]
}

/// A grouping value for the path. Plain values with a slash, even an escaped one, would silently become other labels.
fn grouping(value: &str) -> String {
    if value.is_empty() { "=".to_owned() } else { URL_SAFE_NO_PAD.encode(value) }
}

async fn refusal(mut response: Response, credentials: &Credentials) -> Failure {
    let mut words = Vec::new();
    // A body that breaks off has said enough.
    while let Ok(Some(chunk)) = response.chunk().await {
        words.extend_from_slice(&chunk[..chunk.len().min(WORDS_BYTES - words.len())]);
        if words.len() == WORDS_BYTES {
            break;
        }
    }
    // Without its query, in which logins hand tokens on.
    let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()?.split(['?', '#']).next());
    let location = location.map(|to| credentials.hide(to));
    let words = credentials.hide(&String::from_utf8_lossy(&words));
    Failure::of_status(response.status(), &words_of(words.as_bytes()), location.as_deref())
}

/// The chunks of a body as a reader, for a parser on a thread that may block.
struct Chunks {
    waiting: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.waiting.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.current.len());
        self.current.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

//! The client credentials grant (RFC 6749, section 4.4): a token, cached, renewed before it expires.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::client::Connection;
use super::credentials::{Age, Secret};
use super::failure::{Failure, words_of};
use super::hidden::{Hidden, pair};
use crate::config::OAuth2;

/// More than any token endpoint answers.
const ANSWER_BYTES: usize = 64 * 1024;
/// A token is renewed that long before it expires, or after three quarters of a short life.
const EARLY: Duration = Duration::from_secs(30);
/// For a token that does not say how long it lives.
const UNKNOWN_LIFE: Duration = Duration::from_secs(3600);

/// Where tokens come from, and the current one.
pub(super) struct TokenSource {
    client_id: String,
    client_secret: Secret,
    scopes: String,
    endpoint_params: BTreeMap<String, String>,
    url: Url,
    connection: Connection,
    place: Place,
    current: Option<Token>,
    hidden: Hidden,
}

/// Where the endpoint wants the client's credentials. The RFC demands the header of every server; some know only the
/// body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Body,
}

struct Token {
    value: SecretString,
    renew_at: Instant,
    expires_at: Instant,
}

/// What a token endpoint answers.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<SecretString>,
    /// Seconds; a number, or a string with some servers.
    expires_in: Option<serde_json::Value>,
    error: Option<String>,
    error_description: Option<String>,
}

impl TokenSource {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] when a key is missing.
    pub(super) fn new(config: &OAuth2, timeout: Duration) -> Result<Self, Failure> {
        let missing = |key: &str| Failure::Misconfigured(format!("push.http.oauth2.{key} is missing"));
        let url = config.token_url.clone().ok_or_else(|| missing("token_url"))?;
        let proxy = config.proxy_url.as_ref().map(|proxy| proxy.expose().clone());
        Ok(Self {
            client_id: config.client_id.clone(),
            client_secret: Secret::new(config.client_secret.as_ref(), config.client_secret_file.as_deref())
                .ok_or_else(|| missing("client_secret"))?,
            hidden: Hidden::new(proxy.as_ref()),
            scopes: config.scopes.join(" "),
            endpoint_params: config.endpoint_params.clone(),
            connection: Connection::new(&url, config.tls_config.clone(), proxy, timeout, "push.http.oauth2"),
            url,
            place: Place::Header,
            current: None,
        })
    }

    /// A token that has not expired. `complaints` hears of a renewal that failed while the old token still holds.
    ///
    /// # Errors
    ///
    /// When there is none and none can be had.
    pub(super) async fn token(&mut self, complaints: &mut Vec<String>) -> Result<(SecretString, Age), Failure> {
        let now = Instant::now();
        if let Some(token) = self.current.as_ref().filter(|token| now < token.renew_at) {
            return Ok((token.value.clone(), Age::Cached));
        }
        let failure = match self.fetch(complaints).await {
            Ok(token) => return Ok((self.current.insert(token).value.clone(), Age::Fresh)),
            Err(failure) => failure,
        };
        match self.current.as_ref().filter(|token| now < token.expires_at) {
            Some(token) => {
                complaints.push(format!("the token could not be renewed: {failure}"));
                Ok((token.value.clone(), Age::Cached))
            }
            None => Err(failure),
        }
    }

    /// Drops the token, because it was refused.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }

    async fn fetch(&mut self, complaints: &mut Vec<String>) -> Result<Token, Failure> {
        let secret = self.client_secret.read(complaints)?.clone();
        let fetched = self.ask(&secret, self.place).await;
        let other = match self.place {
            Place::Header => Place::Body,
            Place::Body => Place::Header,
        };
        // A server that does not look where we put the credentials says that the client or the request is invalid.
        let fetched = match fetched {
            Err(Refusal::Client(failure)) => match self.ask(&secret, other).await {
                Ok(token) => {
                    self.place = other;
                    Ok(token)
                }
                Err(_) => Err(failure),
            },
            Err(Refusal::Other(failure)) => Err(failure),
            Ok(token) => Ok(token),
        };
        if let Some(stale) = self.connection.stale() {
            complaints.push(stale.to_owned());
        }
        fetched
    }

    async fn ask(&mut self, secret: &SecretString, place: Place) -> Result<Token, Refusal> {
        let client = self.connection.client()?;
        let escaped = |text: &str| Zeroizing::new(byte_serialize(text.as_bytes()).collect::<String>());
        let (id, encoded) = (escaped(&self.client_id), escaped(secret.expose_secret()));
        let pair = pair(&id, &encoded);
        self.hidden.begin();
        [secret.expose_secret(), &encoded, &pair].into_iter().for_each(|secret| self.hidden.add(secret));
        let mut form = vec![("grant_type", "client_credentials")];
        if !self.scopes.is_empty() {
            form.push(("scope", &self.scopes));
        }
        form.extend(self.endpoint_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        match place {
            Place::Header => {
                let value = Zeroizing::new(format!("Basic {}", *pair));
                if let Ok(mut value) = HeaderValue::try_from(value.as_str()) {
                    value.set_sensitive(true);
                    request = request.header(AUTHORIZATION, value);
                }
            }
            Place::Body => {
                form.push(("client_id", &self.client_id));
                form.push(("client_secret", secret.expose_secret()));
            }
        }
        // From the request to the answer, so that a slow answer does not make the token look younger than it is.
        let asked = Instant::now();
        let peer = "the token endpoint";
        let sent = request.body(urlencoded(form)).send().await;
        let mut response = sent.map_err(|error| self.connection.failure(&error, peer))?;
        let status = response.status();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.connection.failure(&error, peer))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES {
                return Err(Failure::Misconfigured(format!("{peer} answers more than {ANSWER_BYTES} bytes")).into());
            }
        }
        token_of(status, &body, &self.hidden, asked)
    }
}

/// Whether it may help to put the credentials elsewhere.
enum Refusal {
    Client(Failure),
    Other(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

fn token_of(status: StatusCode, body: &[u8], hidden: &Hidden, asked: Instant) -> Result<Token, Refusal> {
    // Nothing of a body is shown but the two members that are made to be shown, and never what we sent.
    let answer = serde_json::from_slice::<Answer>(body).ok();
    if !status.is_success() {
        let said = answer.map_or_else(String::new, |answer| {
            let parts: Vec<_> = answer.error.into_iter().chain(answer.error_description).collect();
            format!(": {}", words_of(hidden.hide(&parts.join(": ")).as_bytes()))
        });
        let message = format!("the token endpoint answered {}{said}; look at push.http.oauth2", status.as_u16());
        return Err(match status {
            _ if status.is_server_error() => Refusal::Other(Failure::Unreachable(message)),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => Refusal::Client(Failure::Misconfigured(message)),
            _ => Refusal::Other(Failure::Misconfigured(message)),
        });
    }
    let no_token = || Failure::Misconfigured("the token endpoint answered without an access_token".to_owned());
    let answer = answer.ok_or_else(no_token)?;
    let value = answer.access_token.ok_or_else(no_token)?;
    let life = answer.expires_in.and_then(|life| match life {
        serde_json::Value::String(text) => text.parse().ok(),
        number => number.as_f64(),
    });
    let life = life.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(UNKNOWN_LIFE);
    // A year is for ever, and keeps the sums below far from overflow.
    let life = life.min(Duration::from_secs(365 * 24 * 3600));
    Ok(Token { value, renew_at: asked + (life - EARLY.min(life / 4)), expires_at: asked + life })
}

/// `application/x-www-form-urlencoded`.
fn urlencoded<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

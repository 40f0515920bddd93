//! The webhook listener's requests, check by check in the order of the README's table: verify the raw bytes, then
//! parse, then record, and answer 200 only after the commit.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ContentType, HeaderMap, HeaderValue};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use tokio::time::timeout_at;

use super::body::Room;
use super::claim::Claim;
use super::door::Door;
use super::payload::{self, Extract};
use super::reasons::ReasonLog;
use super::refusal::Refusal;
use super::secrets::Secrets;
use crate::config::AuthMode;
use crate::event::Timestamp;
use crate::ledger::Ledger;
use crate::listener::Slot;
use crate::metrics::own::{Outcome, Own};

/// Where load balancers ask whether the listener is there.
const HEALTH: &str = "/healthz";

/// What the handler needs, shared by all workers.
pub struct Webhook {
    /// `server.path`.
    pub path: String,
    /// `auth.mode`.
    pub mode: AuthMode,
    /// `auth.tolerance`.
    pub tolerance: Duration,
    /// `server.read_timeout`.
    pub read_timeout: Duration,
    /// What the configuration reads from bodies.
    pub extract: Extract,
    /// The active secrets.
    pub secrets: Arc<Secrets>,
    /// Who may knock.
    pub door: Door,
    /// Room for bodies, up to `server.max_body_bytes` each.
    pub room: Room,
    /// Counts.
    pub ledger: Ledger,
    /// `kitepush_*`.
    pub own: Arc<Own>,
    /// The log of refusals.
    pub reasons: ReasonLog,
}

/// Answers any request to the webhook listener.
pub async fn answer(webhook: Data<Webhook>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let slot = request.conn_data::<Slot>();
    if let Some(slot) = slot
        && !slot.head_arrived()
    {
        return webhook.refuse(&Refusal::Broken, &request);
    }
    match webhook.take(&request, payload, slot).await {
        Ok(answer) => answer,
        Err(refusal) => {
            if let Some(slot) = slot {
                slot.refused();
            }
            webhook.refuse(&refusal, &request)
        }
    }
}

impl Webhook {
    async fn take(
        &self,
        request: &HttpRequest,
        payload: Payload,
        slot: Option<&Slot>,
    ) -> Result<HttpResponse, Refusal> {
        let arrived = Instant::now();
        let received_at = Timestamp::now();
        if request.path() != self.path {
            return health(request);
        }
        if request.method() != Method::POST {
            return Err(Refusal::Method("POST"));
        }
        let client = self.door.client(request);
        self.door.admit(client)?;
        let deadline = slot.map_or(arrived, Slot::since) + self.read_timeout;
        let body = self.authentic_body(request, payload, client, received_at, deadline).await?;
        if let Some(slot) = slot {
            slot.body_arrived();
        }

        let event = payload::parse(&body, &self.extract).map_err(Refusal::Payload)?;
        // Up to a megabyte that nobody needs while the disk works.
        drop(body);
        let name = event.name;
        if let Some(occurred_at) = event.occurred_at {
            // Clocks differ: an event from the future arrived at once.
            let delay = received_at.millis_since(occurred_at).max(0);
            self.own.delivery_delay.observe(delay as f64 / 1000.0);
        }
        self.own.last_event.set(received_at.as_seconds());
        let recorded = self.ledger.record(event, received_at).await;
        self.own.handling.observe(arrived.elapsed().as_secs_f64());
        let outcome = recorded.map_err(|_| Refusal::Overloaded)?;
        self.own.webhook(name, outcome);
        tracing::debug!(event = name.as_str(), outcome = outcome.as_str(), "webhook taken");
        Ok(taken(outcome))
    }

    /// The body, once it is proven to come from Buildkite.
    async fn authentic_body(
        &self,
        request: &HttpRequest,
        payload: Payload,
        client: IpAddr,
        received_at: Timestamp,
        deadline: Instant,
    ) -> Result<Bytes, Refusal> {
        let now = received_at.as_millis().div_euclid(1000);
        let claim = Claim::read(self.mode, request.headers());
        // A claim that fails whatever the body is costs a limited address its answer before the body is read.
        let hopeless = claim.as_ref().map_or(true, |claim| claim.within(self.tolerance, now).is_err());
        if hopeless {
            self.door.failed(client)?;
        }
        let body = async {
            let read = self.room.read(payload, declared_length(request.headers()));
            let body = timeout_at(deadline.into(), read).await.map_err(|_| Refusal::Timeout)??;
            if !is_plain_json(request.headers()) {
                return Err(Refusal::ContentType);
            }
            let verified = claim.and_then(|claim| claim.verify(&self.secrets.active(), &body, self.tolerance, now));
            verified.map(|()| body).map_err(Refusal::Unbelieved)
        };
        match body.await {
            Err(refusal) if refusal.is_suspicious() && !hopeless => {
                Err(self.door.failed(client).err().unwrap_or(refusal))
            }
            verdict => verdict,
        }
    }

    fn refuse(&self, refusal: &Refusal, request: &HttpRequest) -> HttpResponse {
        if let Some(rejection) = refusal.rejection() {
            self.own.rejection(rejection);
            self.reasons.note(refusal, rejection, self.door.client(request), Timestamp::now());
        }
        refusal.response()
    }
}

fn health(request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    if request.path() != HEALTH {
        return Err(Refusal::NotFound);
    }
    match *request.method() {
        Method::GET | Method::HEAD => Ok(HttpResponse::Ok().finish()),
        _ => Err(Refusal::Method("GET, HEAD")),
    }
}

fn taken(outcome: Outcome) -> HttpResponse {
    let body = match outcome {
        Outcome::Accepted => "{\"outcome\": \"accepted\"}",
        Outcome::Duplicate => "{\"outcome\": \"duplicate\"}",
        Outcome::Ignored => "{\"outcome\": \"ignored\"}",
        Outcome::Stale => "{\"outcome\": \"stale\"}",
    };
    HttpResponse::Ok().insert_header(ContentType::json()).body(body)
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the body is JSON as it stands: parameters and absence are fine, an encoding is not, because the signature is
/// over the raw bytes and nothing here inflates what a stranger sends.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let json = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    headers.get_all(CONTENT_TYPE).all(json) && !headers.contains_key(CONTENT_ENCODING)
}

//! The admin listener: `/metrics`, `/healthz`, `/readyz`.

mod access;
mod readiness;

use std::io;
use std::sync::Arc;

use actix_web::http::header::{self, ContentType};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use prometheus::proto::MetricFamily;
use tokio::task::spawn_blocking;

pub use access::Access;

use crate::health::Health;
use crate::metrics::encoding::{Compression, Encoded, Format, encode};
use crate::metrics::own::Own;
use crate::metrics::{Exposition, Snapshot};

/// What a scrape gets beyond `kitepush_*` and `process_*`.
pub trait Scrape: Send + Sync {
    /// Encodes `own` and everything there is. Blocks: call it from a thread that may.
    ///
    /// # Errors
    ///
    /// When a family cannot be encoded.
    fn scrape(&self, own: Vec<MetricFamily>, compression: Compression) -> io::Result<Encoded>;
}

impl<E: Exposition> Scrape for E {
    fn scrape(&self, own: Vec<MetricFamily>, compression: Compression) -> io::Result<Encoded> {
        let snapshot = self.snapshot();
        let encoded = encode(own.into_iter().chain(snapshot.families()), Format::Text, compression)?;
        self.exposed(&snapshot);
        Ok(encoded)
    }
}

/// With `push.url`: the rest is on the gateway, and must not be counted twice.
pub struct OwnOnly;

impl Scrape for OwnOnly {
    fn scrape(&self, own: Vec<MetricFamily>, compression: Compression) -> io::Result<Encoded> {
        encode(own.into_iter(), Format::Text, compression)
    }
}

/// What the handler needs, shared by all workers.
pub struct Admin {
    /// Who may read `/metrics`.
    pub access: Access,
    /// What `/metrics` serves.
    pub scrape: Arc<dyn Scrape>,
    /// `kitepush_*` and `process_*`.
    pub own: Arc<Own>,
    /// What works.
    pub health: Arc<Health>,
    /// Whether the ledger's queue is full.
    pub queue_full: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Answers any request to the admin listener.
pub async fn answer(admin: Data<Admin>, request: HttpRequest) -> HttpResponse {
    let known = matches!(request.path(), "/metrics" | "/healthz" | "/readyz");
    if !known {
        return error(StatusCode::NOT_FOUND, "not_found", "Here are /metrics, /healthz and /readyz.");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method", "This path takes GET and HEAD.");
        answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.path() {
        "/healthz" => HttpResponse::Ok().finish(),
        "/readyz" => readiness::answer(&admin.health, (admin.queue_full)()),
        _ => match admin.access.check(request.headers()).await {
            // Who asks for the head only is not served a scrape, which would end holds.
            Ok(()) if request.method() == Method::HEAD => HttpResponse::Ok().finish(),
            Ok(()) => metrics(&admin, &request).await,
            Err(challenge) => {
                let mut answer = error(StatusCode::UNAUTHORIZED, "unauthorized", "admin.auth demands credentials.");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                answer
            }
        },
    }
}

async fn metrics(admin: &Admin, request: &HttpRequest) -> HttpResponse {
    let gzip = request
        .headers()
        .get_all(header::ACCEPT_ENCODING)
        .any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_gzip));
    let compression = if gzip { Compression::Gzip } else { Compression::None };
    let (scrape, own) = (Arc::clone(&admin.scrape), Arc::clone(&admin.own));
    let encoded = spawn_blocking(move || scrape.scrape(own.gather(), compression)).await;
    match encoded.map_err(io::Error::other).and_then(|encoded| encoded) {
        Ok(encoded) => {
            for flaw in &encoded.left_out {
                tracing::error!(%flaw, "a family is left out of the scrape; this is a bug");
            }
            let mut answer = HttpResponse::Ok();
            answer.insert_header((header::CONTENT_TYPE, encoded.content_type));
            answer.insert_header((header::VARY, "accept-encoding"));
            if let Some(coding) = encoded.content_encoding {
                answer.insert_header((header::CONTENT_ENCODING, coding));
            }
            answer.body(encoded.body)
        }
        Err(failure) => {
            tracing::error!(error = %failure, "cannot encode a scrape");
            error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The families cannot be encoded; see the log.")
        }
    }
}

/// Whether a coding is gzip, and not refused by a weight of zero.
fn is_gzip(coding: &[u8]) -> bool {
    let mut parts = coding.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let refused = |weight: &[u8]| weight.starts_with(b"q=0") && weight[3..].iter().all(|b| matches!(b, b'.' | b'0'));
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"gzip")) && !parts.any(refused)
}

fn error(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let body = serde_json::json!({ "error": code, "message": message }).to_string();
    HttpResponse::build(status).insert_header(ContentType::json()).body(body)
}

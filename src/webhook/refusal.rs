//! Why a request is refused: one enum, mapped to an answer and to a metric label.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType};

use super::payload::PayloadError;
use super::signature::Disbelief;
use crate::listener::{BROKEN, TIMEOUT};
use crate::metrics::own::Rejection;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another path than the webhook's.
    #[error("another path")]
    NotFound,
    /// Another method than the path takes; the `Allow` header's value.
    #[error("another method")]
    Method(&'static str),
    /// The sender's address is not in `server.allowed_sources`.
    #[error("the address is not in server.allowed_sources")]
    SourceNotAllowed,
    /// Not authentic, and neither were too many others from the same address. How long until the next one counts.
    #[error("too many failed requests from the address")]
    RateLimited(Duration),
    /// The body is longer than `server.max_body_bytes`.
    #[error("the body is longer than server.max_body_bytes")]
    TooLarge,
    /// Head and body took longer than `server.read_timeout`.
    #[error("head and body took longer than server.read_timeout")]
    Timeout,
    /// The body broke off, or its chunks are malformed.
    #[error("the body broke off")]
    Broken,
    /// Something else than plain JSON.
    #[error("a content type other than application/json, or a content encoding")]
    ContentType,
    /// Not authentic.
    #[error(transparent)]
    Unbelieved(Disbelief),
    /// Authentic, and not a Buildkite event.
    #[error(transparent)]
    Payload(PayloadError),
    /// Not committed in time, or no room to read it.
    #[error("overloaded")]
    Overloaded,
}

/// One for all 401s: which check failed is nobody's business but the operator's.
const UNAUTHORIZED: &str = "{\"error\":\"unauthorized\",\"message\":\"Not signed, or not as this receiver demands. \
                            Its log and kitepush_webhook_rejections_total say why.\"}";

impl Refusal {
    /// The label of `kitepush_webhook_rejections_total`; none for what is not a delivery at all.
    pub fn rejection(&self) -> Option<Rejection> {
        Some(match self {
            Self::NotFound => return None,
            Self::Method(_) => Rejection::Method,
            Self::SourceNotAllowed => Rejection::SourceNotAllowed,
            Self::RateLimited(_) => Rejection::RateLimited,
            Self::TooLarge => Rejection::TooLarge,
            Self::Timeout => Rejection::Timeout,
            Self::Broken | Self::Payload(PayloadError::Body(_)) => Rejection::BodyMalformed,
            Self::ContentType => Rejection::ContentType,
            Self::Unbelieved(disbelief) => match disbelief {
                Disbelief::SignatureMissing => Rejection::SignatureMissing,
                Disbelief::SignatureMalformed => Rejection::SignatureMalformed,
                Disbelief::SignatureMismatch => Rejection::SignatureMismatch,
                Disbelief::TimestampStale { .. } => Rejection::TimestampStale,
                Disbelief::TimestampFuture { .. } => Rejection::TimestampFuture,
                Disbelief::TokenMissing => Rejection::TokenMissing,
                Disbelief::TokenMismatch => Rejection::TokenMismatch,
            },
            Self::Payload(PayloadError::Event { .. }) => Rejection::EventMalformed,
            Self::Overloaded => Rejection::Overloaded,
        })
    }

    /// Whether it speaks against the address it came from: what the rate limit counts.
    pub fn is_suspicious(&self) -> bool {
        matches!(self, Self::TooLarge | Self::Timeout | Self::Broken | Self::ContentType | Self::Unbelieved(_))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::SourceNotAllowed => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::Payload(_) => StatusCode::BAD_REQUEST,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unbelieved(_) => StatusCode::UNAUTHORIZED,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer. Only a 400 says more than its kind: its sender is authentic.
    pub fn response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status());
        answer.insert_header(ContentType::json());
        let body = match self {
            Self::NotFound => "{\"error\":\"not_found\",\"message\":\"There is nothing at this path.\"}",
            Self::Method(allow) => {
                answer.insert_header((header::ALLOW, *allow));
                "{\"error\":\"method\",\"message\":\"This path does not take that method; see the Allow header.\"}"
            }
            Self::SourceNotAllowed => {
                "{\"error\":\"source_not_allowed\",\"message\":\"This address may not send webhooks here: \
                 server.allowed_sources.\"}"
            }
            Self::RateLimited(wait) => {
                answer.insert_header((header::RETRY_AFTER, wait.as_secs().max(1)));
                "{\"error\":\"rate_limited\",\"message\":\"Too many failed requests from this address. Authentic ones \
                 are taken as ever.\"}"
            }
            Self::TooLarge => {
                answer.force_close();
                "{\"error\":\"too_large\",\"message\":\"The body is longer than server.max_body_bytes.\"}"
            }
            Self::Timeout => {
                answer.force_close();
                TIMEOUT
            }
            Self::Broken => {
                answer.force_close();
                BROKEN
            }
            Self::ContentType => {
                "{\"error\":\"content_type\",\"message\":\"Send application/json without a content encoding.\"}"
            }
            Self::Unbelieved(_) => UNAUTHORIZED,
            Self::Payload(PayloadError::Body(message)) => return answer.body(json("body_malformed", message)),
            Self::Payload(error @ PayloadError::Event { .. }) => {
                return answer.body(json("event_malformed", &error.to_string()));
            }
            Self::Overloaded => {
                answer.insert_header((header::RETRY_AFTER, 1));
                "{\"error\":\"overloaded\",\"message\":\"Not committed in time. Send it again: it counts once.\"}"
            }
        };
        answer.body(body)
    }
}

fn json(code: &str, message: &str) -> String {
    serde_json::json!({ "error": code, "message": message }).to_string()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_fixed_body_is_json_with_a_code_and_a_message() {
        let refusals = [
            Refusal::NotFound,
            Refusal::Method("POST"),
            Refusal::SourceNotAllowed,
            Refusal::RateLimited(Duration::from_millis(300)),
            Refusal::TooLarge,
            Refusal::Timeout,
            Refusal::Broken,
            Refusal::ContentType,
            Refusal::Unbelieved(Disbelief::TokenMismatch),
            Refusal::Payload(PayloadError::Body("say \"why\"".to_owned())),
            Refusal::Payload(PayloadError::Event { path: "build.id".to_owned(), message: "is missing".to_owned() }),
            Refusal::Overloaded,
        ];
        for refusal in refusals {
            let answer = refusal.response();
            assert_eq!(answer.headers().get("content-type").unwrap(), "application/json");
            let body = actix_web::body::MessageBody::try_into_bytes(answer.into_body()).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body["error"].is_string() && body["message"].is_string(), "{body}");
        }
    }

    #[test]
    fn every_disbelief_gets_the_same_answer() {
        let answers = [
            Disbelief::SignatureMissing,
            Disbelief::SignatureMalformed,
            Disbelief::SignatureMismatch,
            Disbelief::TimestampStale { skew: -301 },
            Disbelief::TimestampFuture { skew: 301 },
            Disbelief::TokenMissing,
            Disbelief::TokenMismatch,
        ]
        .map(|disbelief| Refusal::Unbelieved(disbelief).response());
        for answer in answers {
            assert_eq!(answer.status(), 401);
            assert_eq!(actix_web::body::MessageBody::try_into_bytes(answer.into_body()).unwrap(), UNAUTHORIZED);
        }
    }
}

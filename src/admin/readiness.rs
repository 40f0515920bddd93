//! `/readyz`: whether kitepush can take a webhook, and what is in trouble while it can.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use serde_json::{Map, Value, json};

use crate::health::{Health, Stage};

/// 503 only while a webhook cannot be taken: a gateway that is away must not take kitepush out of its service.
pub(super) fn answer(health: &Health, queue_full: bool) -> HttpResponse {
    let troubles = health.troubles();
    let mut parts: Map<String, Value> =
        troubles.into_iter().map(|(part, why)| (part.as_str().to_owned(), Value::String(why))).collect();
    if queue_full {
        parts.insert("queue".to_owned(), Value::String("full: the disk does not keep up".to_owned()));
    }
    let (code, status) = match health.stage() {
        Stage::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Stage::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        Stage::Serving if queue_full => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Stage::Serving if parts.is_empty() => (StatusCode::OK, "ready"),
        Stage::Serving => (StatusCode::OK, "degraded"),
    };
    HttpResponse::build(code)
        .insert_header(ContentType::json())
        .body(json!({ "status": status, "parts": parts }).to_string())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use actix_web::body::MessageBody as _;

    use super::*;
    use crate::health::Part;

    fn ask(health: &Health, queue_full: bool) -> (u16, Value) {
        let answer = answer(health, queue_full);
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.into_body().try_into_bytes().unwrap()).unwrap())
    }

    #[test]
    fn only_what_keeps_webhooks_out_makes_it_unready() {
        let health = Health::default();
        assert_eq!(ask(&health, false), (503, json!({"status": "starting", "parts": {}})));
        health.enter(Stage::Serving);
        assert_eq!(ask(&health, false), (200, json!({"status": "ready", "parts": {}})));
        health.degraded(Part::Gateway, "connection refused");
        assert_eq!(
            ask(&health, false),
            (200, json!({"status": "degraded", "parts": {"gateway": "connection refused"}}))
        );
        assert_eq!(ask(&health, true).0, 503);
        health.enter(Stage::Stopping);
        assert_eq!(ask(&health, false).1["status"], "stopping");
    }
}

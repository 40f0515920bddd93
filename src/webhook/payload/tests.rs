#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const FIXTURES: [&str; 4] = [
    include_str!("../../../webhook-fixtures/job-finished.json"),
    include_str!("../../../webhook-fixtures/build-finished.json"),
    include_str!("../../../webhook-fixtures/agent-connected.json"),
    include_str!("../../../webhook-fixtures/ping.json"),
];

fn extract() -> Extract {
    Extract { extra: vec![ExtraSource::MetaData("release-train".into()), ExtraSource::Env("TARGET".into())] }
}

/// Every place of a document, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found)),
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(index, value)| places(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&body, &extract());
    }

    #[test]
    fn no_mutilated_body_panics(fixture in 0..FIXTURES.len(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut body = FIXTURES[fixture].as_bytes().to_vec();
        let (at, cut) = (at.index(body.len()), cut.index(body.len()));
        body[at] = byte;
        let _ = parse(&body, &extract());
        let _ = parse(&body[..cut], &extract());
    }

    #[test]
    fn whatever_stands_anywhere_is_taken_or_refused_without_repeating_it(
        fixture in 0..FIXTURES.len(), place: prop::sample::Index, kind in 0..8,
    ) {
        let mut body: Value = serde_json::from_str(FIXTURES[fixture]).unwrap();
        let mut all = Vec::new();
        places(&body, "", &mut all);
        let place = place.get(&all);
        *body.pointer_mut(place).unwrap() = match kind {
            0 => json!("planted"),
            1 => json!({"planted": "planted"}),
            2 => json!(["planted", {"planted": 1}]),
            3 => json!(4_711_471_147_114_711_u64),
            4 => json!(-4711.25),
            5 => json!("expected planted, expected planted"),
            6 => json!(true),
            _ => Value::Null,
        };
        if let Err(error) = parse(body.to_string().as_bytes(), &extract()) {
            let message = error.to_string();
            prop_assert!(!message.contains("planted") && !message.contains("4711"), "{message} at {place}");
            prop_assert!(message.len() < 400, "{message}");
        }
    }
}

#[test]
fn only_an_object_in_utf_8_with_the_name_of_an_event_is_one() {
    let message = |body: &[u8]| parse(body, &extract()).unwrap_err().to_string();
    assert_eq!(message(b"[\"x.y\"]"), "body: expected an object");
    assert_eq!(message(b"[\"ping\"]"), "body: expected an object");
    assert_eq!(message(b"{\"event\":\"x.y\",\"z\":\"\xff\"}"), "the body is not UTF-8");
    assert_eq!(message(b"{\"event\":\"\"}"), "event: expected the name of an event, found an empty string");
    let field = |name: &str, value: Value| {
        let mut body: Value = json!({});
        body["event"] = json!("build.finished");
        body["build"] = json!({"id": "b", "state": "passed"});
        body["pipeline"] = json!({"slug": "p"});
        *body.pointer_mut(name).unwrap() = value;
        message(body.to_string().as_bytes())
    };
    assert_eq!(field("/build", json!(["b"])), "build: expected an object");
    assert_eq!(field("/pipeline", json!(["p"])), "pipeline: expected an object");
    assert_eq!(
        field("/build", json!({"id": "b", "state": "passed", "number": "7"})),
        "build.number: expected a whole number"
    );
}

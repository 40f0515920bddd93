//! `X-Buildkite-Signature`: nothing panics, and whatever parses has exactly one of each part and means what it says.
#![no_main]

use std::time::Duration;

use kitepush::webhook::signature::{Key, Signature, sign, verify};
use libfuzzer_sys::fuzz_target;

const FIVE_MINUTES: Duration = Duration::from_secs(300);

fuzz_target!(|header: &[u8]| {
    let Ok(signature) = Signature::parse(header) else { return };
    let text = std::str::from_utf8(header).expect("what parses is text");
    assert_eq!(text.matches(',').count(), 1, "two parts and no more");
    assert_eq!(text.matches("timestamp=").count(), 1);
    assert_eq!(text.matches("signature=").count(), 1);
    let time = signature.timestamp();
    assert!(time >= 0);

    for now in [0, time, i64::MAX, i64::MIN, time.saturating_add(300), time.saturating_sub(300)] {
        let within = signature.within(FIVE_MINUTES, now);
        assert_eq!(within.is_ok(), time.abs_diff(now) <= 300, "{time} at {now}");
    }
    // Only the signature of this very key, time and body is the right one, and nobody guesses that.
    let key = Key::new(b"a secret that no corpus holds: 8d3f");
    assert!(verify([&key], &signature, text.as_bytes()).is_err());
    // The canonical form of an authentic one parses to the same.
    let canonical = sign(b"k", time, b"body");
    let parsed = Signature::parse(canonical.as_bytes()).expect("what we sign");
    assert_eq!(parsed.timestamp(), time);
    assert!(verify([&Key::new(b"k")], &parsed, b"body").is_ok());
});

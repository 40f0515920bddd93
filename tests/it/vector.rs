//! A signature on the edge of what is believed, over HTTP and by the real clock.

use kitepush::webhook::signature::sign;

use crate::support::kitepush::Setup;
use crate::support::service::{Answer, PING, SECRET, exchange, now, post};

/// Sends what `header` makes of the time and the body. The clock must not tick meanwhile: then it is asked again.
fn at_a_second(kitepush: &crate::support::kitepush::Kitepush, header: impl Fn(i64) -> (String, Vec<u8>)) -> Answer {
    loop {
        let before = now();
        let (signature, body) = header(before);
        let answer = exchange(kitepush.webhook, &post(&[("X-Buildkite-Signature", &signature)], &body));
        if now() == before {
            return answer;
        }
    }
}

fn signed(timestamp: i64) -> String {
    sign(SECRET.as_bytes(), timestamp, PING)
}

#[test]
fn each_mutation_of_a_good_signature_gets_401_and_the_same_body() {
    let kitepush = Setup::new().start();
    let flip = |bytes: &[u8], place: usize, bit: u32| {
        let mut bytes = bytes.to_vec();
        bytes[place] ^= 1 << bit;
        bytes
    };
    let code = |now: i64| signed(now).split_once("signature=").unwrap().1.to_owned();
    type Mutation<'a> = (&'a str, Box<dyn Fn(i64) -> (String, Vec<u8>) + 'a>);
    let whole = |header: String| (header, PING.to_vec());
    let mutations: Vec<Mutation<'_>> = vec![
        ("a bit of the body", Box::new(|now| (signed(now), flip(PING, PING.len() / 2, 0)))),
        ("the last bit of the body", Box::new(|now| (signed(now), flip(PING, PING.len() - 1, 7)))),
        ("the timestamp", Box::new(|now| whole(format!("timestamp={},signature={}", now - 1, code(now))))),
        ("a bit of the key", Box::new(|now| whole(sign(&flip(SECRET.as_bytes(), 3, 1), now, PING)))),
        (
            "a bit of the code",
            Box::new(|now| {
                let digit = u8::from_str_radix(&code(now)[63..], 16).unwrap() ^ 1;
                whole(format!("timestamp={now},signature={}{digit:x}", &code(now)[..63]))
            }),
        ),
        ("no signature", Box::new(|now| whole(format!("timestamp={now}")))),
        ("no timestamp", Box::new(|now| whole(format!("signature={}", code(now))))),
        ("two timestamps", Box::new(|now| whole(format!("timestamp={now},{}", signed(now))))),
        ("two signatures", Box::new(|now| whole(format!("{},signature={}", signed(now), code(now))))),
        ("swapped values", Box::new(|now| whole(format!("timestamp={},signature={now}", code(now))))),
        ("301 s old", Box::new(|now| whole(signed(now - 301)))),
        ("301 s in the future", Box::new(|now| whole(signed(now + 301)))),
    ];
    let missing = exchange(kitepush.webhook, &post(&[], PING));
    let token = exchange(kitepush.webhook, &post(&[("X-Buildkite-Token", SECRET)], PING));
    assert_eq!((missing.status, token.status), (401, 401));
    assert_eq!(missing.body, token.body);
    for (name, header) in mutations {
        let answer = at_a_second(&kitepush, header);
        assert_eq!((answer.status, &answer.body), (401, &missing.body), "{name}");
    }
    for skew in [-300, 0, 300] {
        assert_eq!(at_a_second(&kitepush, |now| whole(signed(now + skew))).status, 200, "{skew} s");
    }
}

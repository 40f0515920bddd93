//! Who sent it: Buildkite's signature over the raw body, or its token in clear text.
//!
//! Everything here is pure: keys, headers, body and the time come in as arguments. The scheme is that of the Buildkite
//! docs (`apis/webhooks`, "Webhook signature"): hex(HMAC-SHA256(token, timestamp + "." + raw body)), the timestamp being
//! the time of dispatch in whole seconds since the Unix epoch.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

type HmacSha256 = Hmac<Sha256>;

/// Says what the short id of a key is made of, so that it is no use for anything else.
const SHORT_ID_DOMAIN: &[u8] = b"kitepush secret id";
/// The same for the codes that tokens are compared by.
const TOKEN_DOMAIN: &[u8] = b"kitepush token ";

/// The longest run of digits that a timestamp may have: enough for any `i64` second of interest.
const MAX_DIGITS: usize = 18;

/// Why a request is not believed. The caller learns none of it: all of them are the same 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// A signature is needed and there is none.
    #[error("no X-Buildkite-Signature header")]
    SignatureMissing,
    /// Not exactly one `timestamp=<digits>` and one `signature=<64 hex digits>`.
    #[error("X-Buildkite-Signature is malformed")]
    SignatureMalformed,
    /// No active secret makes this signature.
    #[error("no active secret makes this signature")]
    SignatureMismatch,
    /// Signed longer ago than the tolerance: a replay, or a clock that is off.
    #[error("signed {} s ago, longer than the tolerance", -skew)]
    TimestampStale {
        /// Signed time minus ours, in seconds; negative.
        skew: i64,
    },
    /// Signed further ahead than the tolerance: one of the two clocks is off.
    #[error("signed {skew} s ahead of our clock, further than the tolerance")]
    TimestampFuture {
        /// Signed time minus ours, in seconds; positive.
        skew: i64,
    },
    /// A token is needed and there is none.
    #[error("no X-Buildkite-Token header")]
    TokenMissing,
    /// No active secret is this token.
    #[error("no active secret is this token")]
    TokenMismatch,
}

/// A parsed `X-Buildkite-Signature` header.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature<'h> {
    /// The digits as sent: they are part of what was signed, leading zeros included.
    digits: &'h str,
    timestamp: i64,
    code: [u8; 32],
}

impl fmt::Debug for Signature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").field("timestamp", &self.timestamp).finish_non_exhaustive()
    }
}

impl<'h> Signature<'h> {
    /// Parses the header strictly: exactly one `timestamp=<digits>` and one `signature=<64 hex digits>`, in either order,
    /// with spaces around them tolerated. A lenient parser is where signature checks go wrong.
    ///
    /// # Errors
    ///
    /// [`Disbelief::SignatureMalformed`].
    pub fn parse(header: &'h [u8]) -> Result<Self, Disbelief> {
        Self::parse_parts(header).ok_or(Disbelief::SignatureMalformed)
    }

    fn parse_parts(header: &'h [u8]) -> Option<Self> {
        let header = std::str::from_utf8(header).ok()?;
        let mut digits = None;
        let mut code = None;
        for part in header.split(',') {
            let (name, value) = part.trim_matches(' ').split_once('=')?;
            match name {
                "timestamp" if digits.is_none() => digits = Some(value),
                "signature" if code.is_none() => code = Some(decode_hex(value.as_bytes())?),
                _ => return None,
            }
        }
        let digits = digits.filter(|d| d.len() <= MAX_DIGITS && d.bytes().all(|b| b.is_ascii_digit()))?;
        Some(Self { digits, timestamp: digits.parse().ok()?, code: code? })
    }

    /// The signed time, in seconds since the Unix epoch.
    pub const fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// Whether it was signed within `tolerance` of `now` (seconds since the Unix epoch), both ways: exactly `tolerance`
    /// is in, a second more is out.
    ///
    /// # Errors
    ///
    /// [`Disbelief::TimestampStale`] or [`Disbelief::TimestampFuture`].
    pub fn within(&self, tolerance: Duration, now: i64) -> Result<(), Disbelief> {
        let skew = self.timestamp.saturating_sub(now);
        let tolerance = i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
        if skew < -tolerance {
            Err(Disbelief::TimestampStale { skew })
        } else if skew > tolerance {
            Err(Disbelief::TimestampFuture { skew })
        } else {
            Ok(())
        }
    }
}

/// One secret, prepared: the keyed state of HMAC-SHA256, cloned for each request. The secret itself is not kept, and
/// what is kept is cleared on drop.
pub struct Key {
    keyed: HmacSha256,
    /// A code of the secret under itself, to compare tokens with.
    blinded: Zeroizing<[u8; 32]>,
    id: ShortId,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id.as_str())
    }
}

/// Names a secret in metrics and logs without giving it away: eight hex digits, the same on every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId([u8; 8]);

impl ShortId {
    /// The eight hex digits.
    pub fn as_str(&self) -> &str {
        // Hex digits are always UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Key {
    /// Prepares a secret.
    pub fn new(secret: &[u8]) -> Self {
        let keyed = keyed(secret);
        let digest = keyed.clone().chain_update(SHORT_ID_DOMAIN).finalize().into_bytes();
        let mut id = [0; 8];
        encode_hex(&digest[..4], &mut id);
        let blinded = Zeroizing::new(blind(&keyed, secret).finalize().into_bytes().into());
        Self { keyed, blinded, id: ShortId(id) }
    }

    /// The name of this secret in metrics and logs.
    pub const fn id(&self) -> &ShortId {
        &self.id
    }

    fn signs(&self, digits: &str, body: &[u8], code: &[u8]) -> bool {
        let mut mac = self.keyed.clone();
        mac.update(digits.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.verify_slice(code).is_ok()
    }

    /// Two texts are compared by their codes under the same key, so that the time taken says nothing about where they
    /// differ.
    fn is(&self, token: &[u8]) -> bool {
        blind(&self.keyed, token).verify_slice(self.blinded.as_slice()).is_ok()
    }
}

/// The place in `keys` of the one that makes this signature over this body. Every key is tried, so that the time taken
/// does not tell which.
///
/// # Errors
///
/// [`Disbelief::SignatureMismatch`].
pub fn verify<'k>(
    keys: impl IntoIterator<Item = &'k Key>,
    signature: &Signature<'_>,
    body: &[u8],
) -> Result<usize, Disbelief> {
    let mut found = None;
    for (place, key) in keys.into_iter().enumerate() {
        if key.signs(signature.digits, body, &signature.code) {
            found = Some(place);
        }
    }
    found.ok_or(Disbelief::SignatureMismatch)
}

/// The place in `keys` of the one whose secret was sent as a token. Every key is tried, each in constant time.
///
/// # Errors
///
/// [`Disbelief::TokenMismatch`].
pub fn verify_token<'k>(keys: impl IntoIterator<Item = &'k Key>, token: &[u8]) -> Result<usize, Disbelief> {
    let mut found = None;
    for (place, key) in keys.into_iter().enumerate() {
        if key.is(token) {
            found = Some(place);
        }
    }
    found.ok_or(Disbelief::TokenMismatch)
}

/// The `X-Buildkite-Signature` value that Buildkite would send: for tests, `kitepush sign` and `kitepush send`.
pub fn sign(key: &[u8], timestamp: i64, body: &[u8]) -> String {
    let mac = keyed(key).chain_update(timestamp.to_string()).chain_update(b".").chain_update(body);
    let mut code = [0; 64];
    encode_hex(&mac.finalize().into_bytes(), &mut code);
    format!("timestamp={timestamp},signature={}", std::str::from_utf8(&code).unwrap_or_default())
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(secret: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(secret).expect("any length will do")
}

fn blind(keyed: &HmacSha256, text: &[u8]) -> HmacSha256 {
    keyed.clone().chain_update(TOKEN_DOMAIN).chain_update(text)
}

fn encode_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn decode_hex(hex: &[u8]) -> Option<[u8; 32]> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The one public positive vector: `TestValidatePayload` in buildkite/go-buildkite, `webhook_test.go`.
    const TOKEN: &[u8] = b"29b1ff5779c76bd48ba6705eb99ff970";
    const HEADER: &str =
        "timestamp=1642080837,signature=582d496ac2d869dd97a3101c4cda346288c49a742592daf582ec64c86449f79c";
    const CODE: &str = "582d496ac2d869dd97a3101c4cda346288c49a742592daf582ec64c86449f79c";
    const BODY: &[u8] = br#"{"event":"ping","service":{"id":"c9f8372d-c0cd-43dc-9274-768a875cf6ca","provider":"webhook","settings":{"url":"https://server.com/webhooks"}},"organization":{"id":"49801950-1df0-474f-bb56-ad6a930c5cb9","graphql_id":"T3JnYW5pemF0aW9uLS0tZTBmMzk3MgsTksGkxOWYtZTZjNzczZTJiYjEy","url":"https://api.buildkite.com/v2/organizations/acme-inc","web_url":"https://buildkite.com/acme-inc","name":"ACME Inc","slug":"acme-inc","agents_url":"https://api.buildkite.com/v2/organizations/acme-inc/agents","emojis_url":"https://api.buildkite.com/v2/organizations/acme-inc/emojis","created_at":"2021-02-03T20:34:10.486Z","pipelines_url":"https://api.buildkite.com/v2/organizations/acme-inc/pipelines"},"sender":{"id":"c9f8372d-c0cd-43dc-9269-bcbb7f308e3f","name":"ACME Man"}}"#;
    const SIGNED_AT: i64 = 1_642_080_837;
    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    fn check(secret: &[u8], header: &str, body: &[u8], now: i64) -> Result<(), Disbelief> {
        let signature = Signature::parse(header.as_bytes())?;
        signature.within(FIVE_MINUTES, now)?;
        verify([&Key::new(secret)], &signature, body).map(drop)
    }

    #[test]
    fn the_public_vector_verifies_and_is_what_we_would_sign() {
        assert_eq!(check(TOKEN, HEADER, BODY, SIGNED_AT), Ok(()));
        assert_eq!(sign(TOKEN, SIGNED_AT, BODY), HEADER);
    }

    #[test]
    fn one_flipped_bit_of_the_body_or_the_key_or_the_code_is_a_mismatch() {
        for bit in 0..8 {
            for place in [0, BODY.len() / 2, BODY.len() - 1] {
                let mut body = BODY.to_vec();
                body[place] ^= 1 << bit;
                assert_eq!(check(TOKEN, HEADER, &body, SIGNED_AT), Err(Disbelief::SignatureMismatch));
            }
            for place in 0..TOKEN.len() {
                let mut token = TOKEN.to_vec();
                token[place] ^= 1 << bit;
                assert_eq!(check(&token, HEADER, BODY, SIGNED_AT), Err(Disbelief::SignatureMismatch));
            }
        }
        let code = decode_hex(CODE.as_bytes()).unwrap();
        for place in 0..256 {
            let mut code = code;
            code[place / 8] ^= 1 << (place % 8);
            let signature = Signature { digits: "1642080837", timestamp: SIGNED_AT, code };
            assert_eq!(verify([&Key::new(TOKEN)], &signature, BODY), Err(Disbelief::SignatureMismatch));
        }
    }

    #[test]
    fn the_timestamp_is_signed_digit_by_digit() {
        let later = HEADER.replace("1642080837", "1642080838");
        assert_eq!(check(TOKEN, &later, BODY, SIGNED_AT), Err(Disbelief::SignatureMismatch));
        let padded = HEADER.replace("1642080837", "01642080837");
        assert_eq!(check(TOKEN, &padded, BODY, SIGNED_AT), Err(Disbelief::SignatureMismatch));
    }

    #[test]
    fn exactly_the_tolerance_is_in_and_a_second_more_is_out_both_ways() {
        assert_eq!(check(TOKEN, HEADER, BODY, SIGNED_AT + 300), Ok(()));
        assert_eq!(check(TOKEN, HEADER, BODY, SIGNED_AT - 300), Ok(()));
        assert_eq!(check(TOKEN, HEADER, BODY, SIGNED_AT + 301), Err(Disbelief::TimestampStale { skew: -301 }));
        assert_eq!(check(TOKEN, HEADER, BODY, SIGNED_AT - 301), Err(Disbelief::TimestampFuture { skew: 301 }));
    }

    #[test]
    fn order_is_free_and_spaces_around_the_parts_are_tolerated() {
        let swapped = format!("signature={CODE},timestamp=1642080837");
        let spaced = format!("  timestamp=1642080837 ,  signature={CODE} ");
        let upper = format!("timestamp=1642080837,signature={}", CODE.to_uppercase());
        for header in [swapped, spaced, upper] {
            assert_eq!(check(TOKEN, &header, BODY, SIGNED_AT), Ok(()), "{header}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let t = "timestamp=1642080837";
        let s = format!("signature={CODE}");
        let headers = [
            String::new(),
            " ".to_owned(),
            t.to_owned(),
            s.clone(),
            format!("{t},"),
            format!(",{t},{s}"),
            format!("{t},{s},"),
            format!("{t},{t},{s}"),
            format!("{t},{s},{s}"),
            format!("{t},{s},other=1"),
            format!("{t};{s}"),
            format!("{t} {s}"),
            format!("{t},signature={}", &CODE[1..]),
            format!("{t},signature={CODE}0"),
            format!("{t},signature={}g", &CODE[1..]),
            format!("{t},signature=sha256={CODE}"),
            format!("{t},signature= {CODE}"),
            format!("{t},signature =  {CODE}"),
            format!("{t},Signature={CODE}"),
            format!("{t}\t,{s}"),
            format!("timestamp=,{s}"),
            format!("timestamp=+1642080837,{s}"),
            format!("timestamp=-1642080837,{s}"),
            format!("timestamp=1642080837.0,{s}"),
            format!("timestamp=1e9,{s}"),
            format!("timestamp=0x61e02a85,{s}"),
            format!("timestamp=9999999999999999999,{s}"),
            format!("timestamp=\u{664}\u{665},{s}"),
        ];
        for header in headers {
            assert_eq!(Signature::parse(header.as_bytes()), Err(Disbelief::SignatureMalformed), "{header:?}");
        }
        assert_eq!(Signature::parse(b"timestamp=1,signature=\xff"), Err(Disbelief::SignatureMalformed));
    }

    #[test]
    fn any_of_several_secrets_will_do_and_the_one_that_matched_is_named() {
        let keys = [Key::new(b"old"), Key::new(TOKEN), Key::new(b"new")];
        let signature = Signature::parse(HEADER.as_bytes()).unwrap();
        assert_eq!(verify(&keys, &signature, BODY), Ok(1));
        assert!(verify(&keys[..1], &signature, BODY).is_err());
        assert!(verify([], &signature, BODY).is_err());
    }

    #[test]
    fn a_token_matches_itself_only() {
        let keys = [Key::new(b"first"), Key::new(TOKEN)];
        assert_eq!(verify_token(&keys, TOKEN), Ok(1));
        for sent in [&b""[..], b"firs", b"first\n", b"FIRST", &TOKEN[1..]] {
            assert_eq!(verify_token(&keys, sent), Err(Disbelief::TokenMismatch));
        }
    }

    #[test]
    fn the_short_id_is_stable_and_says_nothing_of_the_secret() {
        let key = Key::new(TOKEN);
        assert_eq!(key.id(), Key::new(TOKEN).id());
        assert_ne!(key.id(), Key::new(b"other").id());
        assert_eq!(key.id().as_str().len(), 8);
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id().as_str()));
    }

    proptest! {
        #[test]
        fn what_was_signed_verifies(
            secret: Vec<u8>,
            body: Vec<u8>,
            timestamp in 0..10_000_000_000i64,
            skew in -300..=300i64,
        ) {
            let header = sign(&secret, timestamp, &body);
            prop_assert_eq!(check(&secret, &header, &body, timestamp + skew), Ok(()));
        }

        #[test]
        fn nothing_else_verifies(secret: Vec<u8>, body: Vec<u8>, other: Vec<u8>, timestamp in 0..10_000_000_000i64) {
            prop_assume!(body != other);
            let header = sign(&secret, timestamp, &body);
            prop_assert_eq!(check(&secret, &header, &other, timestamp), Err(Disbelief::SignatureMismatch));
        }

        #[test]
        fn no_header_panics_and_what_parses_has_one_of_each(header: Vec<u8>) {
            if let Ok(signature) = Signature::parse(&header) {
                prop_assert!(signature.timestamp() >= 0);
            }
        }

        #[test]
        fn a_header_with_a_part_too_many_never_parses(extra in "[ -~]{0,20}", timestamp in 0..10_000_000_000i64) {
            let header = format!("{},{extra}", sign(b"k", timestamp, b""));
            prop_assert!(Signature::parse(header.as_bytes()).is_err());
        }
    }
}

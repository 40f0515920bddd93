//! What a request claims to prove its sender with, by the headers and `auth.mode`.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName};

use super::secrets::Active;
use super::signature::{Disbelief, Signature, verify, verify_token};
use crate::config::AuthMode;

const SIGNATURE: HeaderName = HeaderName::from_static("x-buildkite-signature");
const TOKEN: HeaderName = HeaderName::from_static("x-buildkite-token");

/// A claim that is still to be verified.
#[derive(Debug)]
pub enum Claim<'h> {
    /// From `X-Buildkite-Signature`.
    Signature(Signature<'h>),
    /// From `X-Buildkite-Token`.
    Token(&'h [u8]),
}

impl<'h> Claim<'h> {
    /// Reads the header that the mode asks for. In mode `any` a signature header decides alone: a bad one never falls
    /// back to a token.
    ///
    /// # Errors
    ///
    /// When the header is missing, stands twice, or is malformed.
    pub fn read(mode: AuthMode, headers: &'h HeaderMap) -> Result<Self, Disbelief> {
        let mut signatures = headers.get_all(SIGNATURE);
        let mut tokens = headers.get_all(TOKEN);
        match (mode, signatures.next(), tokens.next()) {
            (AuthMode::Signature | AuthMode::Any, Some(header), _) => match signatures.next() {
                None => Signature::parse(header.as_bytes()).map(Self::Signature),
                Some(_) => Err(Disbelief::SignatureMalformed),
            },
            (AuthMode::Token | AuthMode::Any, _, Some(header)) => match tokens.next() {
                None => Ok(Self::Token(header.as_bytes())),
                Some(_) => Err(Disbelief::TokenMismatch),
            },
            (AuthMode::Signature | AuthMode::Any, None, _) => Err(Disbelief::SignatureMissing),
            (AuthMode::Token, _, None) => Err(Disbelief::TokenMissing),
        }
    }

    /// Whether it was made within `tolerance` of `now`, in seconds since the Unix epoch. A token carries no time.
    ///
    /// # Errors
    ///
    /// See [`Signature::within`].
    pub fn within(&self, tolerance: Duration, now: i64) -> Result<(), Disbelief> {
        match self {
            Self::Signature(signature) => signature.within(tolerance, now),
            Self::Token(_) => Ok(()),
        }
    }

    /// Verifies the claim, and counts the secret that matched. The time comes second: only an authentic signature is
    /// worth being called stale.
    ///
    /// # Errors
    ///
    /// When no active secret matches, or outside the tolerance.
    pub fn verify(&self, secrets: &Active, body: &[u8], tolerance: Duration, now: i64) -> Result<(), Disbelief> {
        let place = match self {
            Self::Signature(signature) => verify(secrets.keys(), signature, body)?,
            Self::Token(token) => verify_token(secrets.keys(), token)?,
        };
        self.within(tolerance, now)?;
        secrets.matched(place);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::super::signature::sign;
    use super::{AuthMode, Claim, Disbelief, HeaderMap, HeaderName};

    const SIGNATURE: &str = "x-buildkite-signature";
    const TOKEN: &str = "x-buildkite-token";

    fn read(mode: AuthMode, headers: &[(&'static str, &str)]) -> Result<&'static str, Disbelief> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        Claim::read(mode, &map).map(|claim| match claim {
            Claim::Signature(_) => "signature",
            Claim::Token(_) => "token",
        })
    }

    #[test]
    fn the_mode_decides_which_header_counts() {
        let good = sign(b"k", 1, b"");
        let signature = (SIGNATURE, good.as_str());
        let bad = (SIGNATURE, "nonsense");
        let token = (TOKEN, "k");

        let mode = AuthMode::Signature;
        assert_eq!(read(mode, &[signature]), Ok("signature"));
        assert_eq!(read(mode, &[signature, token]), Ok("signature"));
        assert_eq!(read(mode, &[token]), Err(Disbelief::SignatureMissing));
        assert_eq!(read(mode, &[]), Err(Disbelief::SignatureMissing));

        let mode = AuthMode::Token;
        assert_eq!(read(mode, &[token]), Ok("token"));
        assert_eq!(read(mode, &[signature]), Err(Disbelief::TokenMissing));

        let mode = AuthMode::Any;
        assert_eq!(read(mode, &[signature, token]), Ok("signature"));
        assert_eq!(read(mode, &[token]), Ok("token"));
        assert_eq!(read(mode, &[bad, token]), Err(Disbelief::SignatureMalformed));
        assert_eq!(read(mode, &[(SIGNATURE, ""), token]), Err(Disbelief::SignatureMalformed));
        assert_eq!(read(mode, &[]), Err(Disbelief::SignatureMissing));
    }

    #[test]
    fn a_header_that_stands_twice_is_refused() {
        let good = sign(b"k", 1, b"");
        let twice = [(SIGNATURE, good.as_str()), (SIGNATURE, good.as_str())];
        for mode in [AuthMode::Signature, AuthMode::Any] {
            assert_eq!(read(mode, &twice), Err(Disbelief::SignatureMalformed));
        }
        assert_eq!(read(AuthMode::Token, &[(TOKEN, "k"), (TOKEN, "k")]), Err(Disbelief::TokenMismatch));
    }
}

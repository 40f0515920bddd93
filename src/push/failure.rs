//! Why a push failed, in words that say what to mend, and what the metrics call it.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::metrics::own::PushOutcome;

/// How much of an answer's text is read for a message, in bytes.
pub(super) const WORDS_BYTES: usize = 2048;
/// How much of it is shown, in characters.
const WORDS_CHARS: usize = 400;

/// Why a push, or a look at what the gateway holds, failed. The text is one line of bounded length without secrets, and
/// the same for the same trouble, so that it can be logged once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The gateway looked at the push and refused it: it would refuse the same again.
    #[error("{0}")]
    Rejected(String),
    /// No connection, a broken one, or a server error: it may be back any moment.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("{0}")]
    Timeout(String),
    /// Somebody has to change a configuration, here or there.
    #[error("{0}")]
    Misconfigured(String),
}

impl Failure {
    /// The label of `kitepush_pushes_total`.
    pub const fn outcome(&self) -> PushOutcome {
        match self {
            Self::Rejected(_) => PushOutcome::Rejected,
            Self::Unreachable(_) => PushOutcome::Unreachable,
            Self::Timeout(_) => PushOutcome::Timeout,
            Self::Misconfigured(_) => PushOutcome::Misconfigured,
        }
    }

    /// Whether trying again soon may help.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout(_))
    }

    /// An answer that is neither 200 nor 202. `words` is what the body said, `section` the keys that configure the
    /// connection.
    pub(super) fn of_status(status: StatusCode, words: &str, location: Option<&str>) -> Self {
        let said = if words.is_empty() { String::new() } else { format!(": {words}") };
        let code = status.as_u16();
        match status {
            StatusCode::UNAUTHORIZED => Self::Misconfigured(format!(
                "the gateway answered 401{said}; give it credentials in push.http (basic_auth, authorization or oauth2)"
            )),
            StatusCode::FORBIDDEN => Self::Misconfigured(format!(
                "the gateway answered 403{said}; the credentials in push.http may not push to this group"
            )),
            StatusCode::NOT_FOUND => Self::Misconfigured(format!(
                "the gateway answered 404{said}; push.url must be the base URL of a Pushgateway, with its path prefix if it has one"
            )),
            StatusCode::METHOD_NOT_ALLOWED => Self::Misconfigured(format!(
                "the gateway answered 405{said}; push.url does not lead to something that takes PUT, as a Pushgateway does"
            )),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Self::Misconfigured(format!(
                "the proxy answered 407{said}; put its user name and password into push.http.proxy_url"
            )),
            StatusCode::PAYLOAD_TOO_LARGE => Self::Rejected(format!(
                "answered 413{said}; a proxy before the gateway limits the size of a push: raise that limit"
            )),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Self::Unreachable(format!("the gateway answered {code}{said}"))
            }
            _ if status.is_redirection() => {
                let to = location.map(|to| format!(" to {}", words_of(to.as_bytes()))).unwrap_or_default();
                Self::Misconfigured(format!(
                    "the gateway answered {code}, a redirect{to}, which is not followed; put the final address into push.url"
                ))
            }
            _ if status.is_client_error() => Self::Rejected(format!("the gateway refused the push with {code}{said}")),
            _ if status.is_server_error() => Self::Unreachable(format!("the gateway answered {code}{said}")),
            _ => Self::Misconfigured(format!(
                "answered {code}, where a Pushgateway answers 200 or 202{said}; is push.url the base URL of one?"
            )),
        }
    }

    /// A request that got no answer. `peer` says who was asked, `timeout` how long at most, `section` is the key of the
    /// TLS settings.
    pub(super) fn of_request(error: &reqwest::Error, peer: &str, timeout: Duration, section: &str) -> Self {
        if let Some(tls) = causes(error).find_map(tls_error) {
            return Self::of_tls(tls, peer, section);
        }
        if error.is_connect() {
            let why = if error.is_timeout() { "no connection in time".to_owned() } else { root_cause(error) };
            return Self::Unreachable(format!("cannot connect to {peer}: {why}"));
        }
        if error.is_timeout() {
            return Self::Timeout(format!("no answer from {peer} within {timeout:?}"));
        }
        if error.is_builder() {
            return Self::Misconfigured(format!("cannot ask {peer}: {}", root_cause(error)));
        }
        Self::Unreachable(format!("the connection to {peer} broke: {}", root_cause(error)))
    }

    fn of_tls(error: &rustls::Error, peer: &str, section: &str) -> Self {
        use rustls::Error as Tls;
        let what = match error {
            Tls::InvalidCertificate(flaw) => match flaw {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate has expired: renew it".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "its certificate is not valid yet: look at the clocks".to_owned()
                }
                CertificateError::UnknownIssuer => format!(
                    "its certificate is self-signed or from an unknown issuer: put the authority that signed it into {section}.ca_file"
                ),
                CertificateError::NotValidForName => format!("its certificate is for another name: set {section}.server_name"),
                CertificateError::NotValidForNameContext { expected, presented } => format!(
                    "its certificate is for another name, not for {}: it is {}; set {section}.server_name if that is right",
                    expected.to_str(),
                    words_of(format!("valid for {}", presented.join(", ")).as_bytes()),
                ),
                CertificateError::Revoked => "its certificate is revoked".to_owned(),
                // webpki's word for a certificate of an authority that is used as a server's own, the shape of many
                // self-signed ones.
                other if other.to_string().contains("CaUsedAsEndEntity") => {
                    "its certificate is self-signed as an authority and cannot be used by a server: issue one for the server".to_owned()
                }
                other => format!("its certificate is not acceptable: {other}"),
            },
            Tls::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA | AlertDescription::CertificateUnknown | AlertDescription::CertificateExpired,
            ) => format!(
                "it refused our client certificate or misses one ({error}): look at {section}.cert_file and key_file"
            ),
            Tls::AlertReceived(AlertDescription::ProtocolVersion) | Tls::PeerIncompatible(_) => {
                format!("it speaks no TLS version that is allowed here ({error}): look at {section}.min_version")
            }
            Tls::InvalidMessage(InvalidMessage::InvalidContentType) => {
                "it does not speak TLS: use http:// or another port".to_owned()
            }
            other => format!("TLS failed: {other}"),
        };
        Self::Misconfigured(words_of(format!("{peer}: {what}").as_bytes()))
    }
}

/// An error and all that caused it. `io::Error` hides what it wraps from `source`, so that is unpacked here.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref()
}

/// The innermost cause: the outer ones repeat the URL.
fn root_cause(error: &reqwest::Error) -> String {
    let last = causes(error).last().map(ToString::to_string).unwrap_or_default();
    words_of(last.as_bytes())
}

/// Outside bytes as one line of bounded length: control characters and what reorders or breaks lines are escaped.
pub(super) fn words_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    for (at, char) in text.trim().chars().enumerate() {
        if at == WORDS_CHARS {
            shown.push('…');
            break;
        }
        match char {
            '\n' | '\r' | '\t' => shown.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(char.escape_unicode());
            }
            _ if char.is_control() => shown.extend(char.escape_unicode()),
            _ => shown.push(char),
        }
    }
    shown
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_words_are_one_bounded_line() {
        let hostile = format!("  bad\nname \u{1b}[31m \u{202e} {}", "x".repeat(5000));
        let shown = words_of(hostile.as_bytes());
        assert!(shown.starts_with("bad name \\u{1b}[31m \\u{202e} xxx"), "{shown}");
        assert!(shown.ends_with('…') && shown.len() < WORDS_BYTES);
        assert_eq!(words_of(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn each_status_is_called_by_its_name_and_says_what_to_do() {
        for (status, outcome, hint) in [
            (400, PushOutcome::Rejected, "refused the push with 400: some words"),
            (401, PushOutcome::Misconfigured, "push.http"),
            (403, PushOutcome::Misconfigured, "push.http"),
            (404, PushOutcome::Misconfigured, "push.url"),
            (405, PushOutcome::Misconfigured, "push.url"),
            (413, PushOutcome::Rejected, "raise that limit"),
            (429, PushOutcome::Unreachable, "429"),
            (307, PushOutcome::Misconfigured, "to /elsewhere"),
            (503, PushOutcome::Unreachable, "503"),
            (204, PushOutcome::Misconfigured, "push.url"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = Failure::of_status(status, "some words", Some("/elsewhere"));
            assert_eq!(failure.outcome(), outcome, "{failure}");
            assert!(failure.to_string().contains(hint), "{failure}");
        }
    }
}

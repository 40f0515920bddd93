//! What no message may show: the secrets that a request carried, should the other side repeat them in its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use url::form_urlencoded;

/// An end of a text that begins a secret is hidden too, from so many characters on: the text may be cut off there.
const TELLING: usize = 3;

/// The secrets of the newest request.
#[derive(Default)]
pub(super) struct Hidden {
    of_proxy: Vec<SecretString>,
    of_request: Vec<SecretString>,
}

impl Hidden {
    /// With the user name and password of a proxy, which go into every request.
    pub(super) fn new(proxy: Option<&Url>) -> Self {
        let mut hidden = Self::default();
        if let Some((proxy, password)) = proxy.and_then(|proxy| Some((proxy, proxy.password()?))) {
            let (user, decoded) = (decoded(proxy.username()), decoded(password));
            hidden.of_proxy = vec![password.into(), pair(&user, &decoded).as_str().into(), decoded.as_str().into()];
        }
        hidden
    }

    /// Forgets those of the request before.
    pub(super) fn begin(&mut self) {
        self.of_request.clear();
    }

    /// One more that the request carries.
    pub(super) fn add(&mut self, secret: &str) {
        self.of_request.push(secret.into());
    }

    /// A text without any of them.
    pub(super) fn hide(&self, text: &str) -> String {
        let mut secrets: Vec<&str> = self.of_proxy.iter().chain(&self.of_request).map(|s| s.expose_secret()).collect();
        secrets.retain(|secret| !secret.is_empty());
        // The longer ones first: one may hold another.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut shown = text.trim_end_matches('\u{fffd}').to_owned();
        for secret in secrets {
            shown = shown.replace(secret, "…");
            let begun = |end: &usize| secret.get(..*end).is_some_and(|begun| shown.ends_with(begun));
            let long = secret.char_indices().nth(TELLING).map_or(secret.len(), |(at, _)| at);
            if let Some(end) = (long..secret.len()).rev().find(begun) {
                shown.truncate(shown.len() - end);
                shown.push('…');
            }
        }
        shown
    }
}

/// `user:password` as `Authorization: Basic` has it.
pub(super) fn pair(user: &str, password: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    Zeroizing::new(STANDARD.encode(pair.as_bytes()))
}

/// Percent-decoded.
fn decoded(text: &str) -> Zeroizing<String> {
    let escaped = Zeroizing::new(text.replace('+', "%2B"));
    Zeroizing::new(form_urlencoded::parse(escaped.as_bytes()).map(|(name, _)| name.into_owned()).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hidden(secrets: &[&str]) -> Hidden {
        let mut hidden = Hidden::default();
        secrets.iter().for_each(|secret| hidden.add(secret));
        hidden
    }

    #[test]
    fn every_place_of_a_secret_is_hidden() {
        let hidden = hidden(&["s3cret", "s3cret-and-more", ""]);
        assert_eq!(hidden.hide("no s3cret, nor s3cret-and-more"), "no …, nor …");
        assert_eq!(hidden.hide("nothing of that"), "nothing of that");
    }

    #[test]
    fn a_secret_that_the_end_of_the_text_cuts_off_is_hidden_too() {
        let hidden = hidden(&["pässword"]);
        for end in ["päs", "pässwor", "päss\u{fffd}"] {
            assert_eq!(hidden.hide(&format!("you sent {end}")), "you sent …");
        }
        assert_eq!(hidden.hide("stop"), "stop");
    }

    #[test]
    fn a_proxys_credentials_are_hidden_in_every_form() {
        let hidden = Hidden::new(Some(&Url::parse("http://us%20er:pa%20ss@proxy:3128").unwrap()));
        assert_eq!(hidden.hide("pa%20ss, pa ss, Basic dXMgZXI6cGEgc3M="), "…, …, Basic …");
        assert_eq!(Hidden::new(Some(&Url::parse("http://proxy").unwrap())).hide("x"), "x");
    }
}

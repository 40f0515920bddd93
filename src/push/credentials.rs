//! `basic_auth`, `authorization`, `oauth2` and `headers` → headers of each request. Files are read again for each, so
//! that short-lived tokens work; while one cannot be read, what it last held stays in use.

use std::path::{Path, PathBuf};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::failure::Failure;
use super::hidden::{Hidden, pair};
use super::oauth2::TokenSource;
use crate::config::HttpConfig;

/// A secret given in place, or the file that holds it.
pub(super) enum Secret {
    /// Given in the configuration.
    Given(SecretString),
    /// Read anew for each request.
    File {
        /// Where.
        path: PathBuf,
        /// What it held when it could last be read.
        last: Option<SecretString>,
    },
}

impl Secret {
    /// From a pair of keys such as `password` and `password_file`.
    pub(super) fn new(given: Option<&SecretString>, file: Option<&Path>) -> Option<Self> {
        match (file, given) {
            (Some(path), _) => Some(Self::File { path: path.to_owned(), last: None }),
            (None, given) => given.cloned().map(Self::Given),
        }
    }

    /// The secret as it is now, white space around it removed. `complaints` hears of a file that cannot be read now.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] when the file could never be read.
    pub(super) fn read(&mut self, complaints: &mut Vec<String>) -> Result<&SecretString, Failure> {
        match self {
            Self::Given(secret) => Ok(secret),
            Self::File { path, last } => match (read_file(path), last) {
                (Ok(secret), last) => Ok(last.insert(secret)),
                (Err(why), Some(last)) => {
                    complaints.push(format!("{why}; what it held before stays in use"));
                    Ok(last)
                }
                (Err(why), None) => Err(Failure::Misconfigured(why)),
            },
        }
    }
}

fn read_file(path: &Path) -> Result<SecretString, String> {
    let content = std::fs::read_to_string(path).map(Zeroizing::new);
    let content = content.map_err(|error| format!("{}: {error}", path.display()))?;
    match content.trim() {
        "" => Err(format!("{}: is empty", path.display())),
        secret => Ok(secret.into()),
    }
}

/// What goes into the headers of every request to the gateway.
pub(super) struct Credentials {
    scheme: Scheme,
    headers: Vec<(HeaderName, Secret)>,
    complaints: Vec<String>,
    hidden: Hidden,
}

enum Scheme {
    None,
    Basic { username: Secret, password: Option<Secret> },
    Other { scheme: String, credentials: Secret },
    OAuth2(Box<TokenSource>),
}

impl Credentials {
    /// Nothing is read or fetched yet.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] for a header name that is none, or half a pair of keys.
    pub(super) fn new(http: &HttpConfig, timeout: std::time::Duration) -> Result<Self, Failure> {
        let missing = |key: &str| Failure::Misconfigured(format!("push.http.{key} is missing"));
        let scheme = if let Some(basic) = &http.basic_auth {
            let username = basic.username.clone().map(SecretString::from);
            Scheme::Basic {
                username: Secret::new(username.as_ref(), basic.username_file.as_deref())
                    .ok_or_else(|| missing("basic_auth.username"))?,
                password: Secret::new(basic.password.as_ref(), basic.password_file.as_deref()),
            }
        } else if let Some(other) = &http.authorization {
            Scheme::Other {
                scheme: other.r#type.clone(),
                credentials: Secret::new(other.credentials.as_ref(), other.credentials_file.as_deref())
                    .ok_or_else(|| missing("authorization.credentials"))?,
            }
        } else if let Some(oauth2) = &http.oauth2 {
            Scheme::OAuth2(Box::new(TokenSource::new(oauth2, timeout)?))
        } else {
            Scheme::None
        };
        let hidden = Hidden::new(http.proxy_url.as_ref().map(|proxy| proxy.expose()));
        let mut headers = Vec::new();
        for (name, header) in &http.headers {
            let name = HeaderName::try_from(name)
                .map_err(|_| Failure::Misconfigured(format!("push.http.headers: {name:?} is not a header name")))?;
            let given = header.values.iter().cloned().map(SecretString::from).chain(header.secrets.iter().cloned());
            headers.extend(given.map(|value| (name.clone(), Secret::Given(value))));
            let files = header.files.iter();
            headers.extend(files.map(|path| (name.clone(), Secret::File { path: path.clone(), last: None })));
        }
        Ok(Self { scheme, headers, complaints: Vec::new(), hidden })
    }

    /// The headers for the next request, and whether they carry a token that was fetched earlier.
    ///
    /// # Errors
    ///
    /// When a file was never readable or a token cannot be had.
    pub(super) async fn headers(&mut self) -> Result<(HeaderMap, Age), Failure> {
        self.complaints.clear();
        self.hidden.begin();
        let mut headers = HeaderMap::new();
        for (name, secret) in &mut self.headers {
            let value = secret.read(&mut self.complaints)?.expose_secret();
            self.hidden.add(value);
            headers.append(name.clone(), sensitive(value, name.as_str())?);
        }
        let mut age = Age::Fresh;
        let authorization = match &mut self.scheme {
            Scheme::None => return Ok((headers, age)),
            Scheme::Basic { username, password } => {
                let username = username.read(&mut self.complaints)?.expose_secret();
                let password = match password {
                    Some(password) => password.read(&mut self.complaints)?.expose_secret(),
                    None => "",
                };
                let pair = pair(username, password);
                self.hidden.add(password);
                self.hidden.add(&pair);
                Zeroizing::new(format!("Basic {}", *pair))
            }
            Scheme::Other { scheme, credentials } => {
                let credentials = credentials.read(&mut self.complaints)?.expose_secret();
                self.hidden.add(credentials);
                Zeroizing::new(format!("{scheme} {credentials}"))
            }
            Scheme::OAuth2(source) => {
                let (token, token_age) = source.token(&mut self.complaints).await?;
                age = token_age;
                self.hidden.add(token.expose_secret());
                Zeroizing::new(format!("Bearer {}", token.expose_secret()))
            }
        };
        headers.insert(AUTHORIZATION, sensitive(&authorization, "authorization")?);
        Ok((headers, age))
    }

    /// The gateway refused what [`Credentials::headers`] gave: a cached token is dropped.
    pub(super) fn refused(&mut self) {
        if let Scheme::OAuth2(source) = &mut self.scheme {
            source.forget();
        }
    }

    /// What the other side said, without the secrets that it was sent.
    pub(super) fn hide(&self, text: &str) -> String {
        self.hidden.hide(text)
    }

    /// What cannot be read although it once could.
    pub(super) fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

/// Whether credentials are as new as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Read or fetched for this request.
    Fresh,
    /// A token of an earlier request: when it is refused, a new one may not be.
    Cached,
}

/// A header value that no log shows.
fn sensitive(value: &str, name: &str) -> Result<HeaderValue, Failure> {
    let mut header = HeaderValue::try_from(value).map_err(|_| {
        Failure::Misconfigured(format!("the value for the header {name} holds characters that no header may have"))
    })?;
    header.set_sensitive(true);
    Ok(header)
}

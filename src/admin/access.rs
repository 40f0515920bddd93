//! `admin.auth`: basic authentication with bcrypt hashes, or a bearer token, as in Prometheus' web configuration file.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::config::AdminAuth;
use crate::config::files::{FileError, read_secret_text};

/// bcrypt costs a tenth of a second of a core on purpose; a flood of wrong passwords must not get all of them.
const CONCURRENT_HASHES: usize = 1;
/// Checked for users that do not exist, so that the time taken does not tell: a hash of cost 10 of nothing in use.
const NOBODY: &str = "$2b$10$7EqJtq98hPqEX7fNZaFWoOHiYwG8dJ0dKxSuxjoGz3fVkVbrEXkRu";

/// Who may read `/metrics`.
pub struct Access {
    /// None: everybody.
    auth: Option<Auth>,
}

struct Auth {
    users: BTreeMap<String, SecretString>,
    token_file: Option<PathBuf>,
    token: RwLock<Option<Arc<SecretString>>>,
    /// Whether the last look at the file failed.
    is_stale: AtomicBool,
    /// Of this process: what it blinds is of no use anywhere else.
    blind: Hmac<Sha256>,
    /// The password that last matched, blinded, by user: a scrape every few seconds must not cost a hash each.
    verified: Mutex<HashMap<String, [u8; 32]>>,
    hashes: Arc<Semaphore>,
}

impl Access {
    /// As `admin.auth` says.
    ///
    /// # Errors
    ///
    /// When the file of the bearer token cannot be read.
    pub fn new(auth: Option<&AdminAuth>) -> Result<Self, FileError> {
        let Some(auth) = auth else { return Ok(Self { auth: None }) };
        let token = auth.bearer_token_file.as_deref().map(read_secret_text).transpose()?;
        let auth = Auth {
            users: auth.basic_auth_users.clone(),
            token_file: auth.bearer_token_file.clone(),
            token: RwLock::new(token.map(Arc::new)),
            is_stale: AtomicBool::new(false),
            blind: blinder(),
            verified: Mutex::default(),
            hashes: Arc::new(Semaphore::new(CONCURRENT_HASHES)),
        };
        Ok(Self { auth: Some(auth) })
    }

    /// Reads the file of the bearer token again; an unreadable one leaves the old token in place, and the log says so
    /// once.
    pub fn look_again(&self) {
        let Some(auth) = &self.auth else { return };
        let Some(file) = &auth.token_file else { return };
        match read_secret_text(file) {
            Ok(token) => {
                *auth.token.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(token));
                if auth.is_stale.swap(false, Relaxed) {
                    tracing::info!("admin.auth.bearer_token_file is readable again");
                }
            }
            Err(error) => {
                if !auth.is_stale.swap(true, Relaxed) {
                    tracing::warn!(%error, "admin.auth.bearer_token_file: the token read before stays valid");
                }
            }
        }
    }

    /// Checks the `Authorization` header.
    ///
    /// # Errors
    ///
    /// The value of `WWW-Authenticate`.
    pub async fn check(&self, headers: &HeaderMap) -> Result<(), HeaderValue> {
        let Some(auth) = &self.auth else { return Ok(()) };
        let mut values = headers.get_all(AUTHORIZATION).map(HeaderValue::as_bytes);
        if let (Some(value), None) = (values.next(), values.next())
            && let Some(at) = value.iter().position(|byte| *byte == b' ')
        {
            let (scheme, rest) = (&value[..at], value[at..].trim_ascii());
            let believed = match () {
                () if scheme.eq_ignore_ascii_case(b"bearer") => auth.knows_token(rest),
                () if scheme.eq_ignore_ascii_case(b"basic") => auth.knows_password(rest).await,
                () => false,
            };
            if believed {
                return Ok(());
            }
        }
        let scheme = if auth.users.is_empty() { "Bearer" } else { "Basic realm=\"kitepush\"" };
        Err(HeaderValue::from_static(scheme))
    }
}

impl Auth {
    fn knows_token(&self, sent: &[u8]) -> bool {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        token.is_some_and(|token| self.same(token.expose_secret().as_bytes(), sent))
    }

    async fn knows_password(&self, sent: &[u8]) -> bool {
        let decoded = STANDARD.decode(sent).map(Zeroizing::new);
        let Ok(decoded) = decoded else { return false };
        let Ok(text) = std::str::from_utf8(&decoded) else { return false };
        let Some((user, password)) = text.split_once(':') else { return false };
        let code = self.blind.clone().chain_update(password);
        let last = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(user).copied();
        if last.is_some_and(|last| code.clone().verify_slice(&last).is_ok()) {
            return true;
        }
        let known = self.users.get(user);
        let hash = known.cloned().unwrap_or_else(|| NOBODY.into());
        let password = Zeroizing::new(password.to_owned());
        let Ok(permit) = Arc::clone(&self.hashes).acquire_owned().await else { return false };
        let verified = spawn_blocking(move || {
            let verified = bcrypt::verify(password.as_bytes(), hash.expose_secret());
            drop(permit);
            verified
        });
        let verified = matches!(verified.await, Ok(Ok(true))) && known.is_some();
        if verified {
            let code = code.finalize().into_bytes().into();
            self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned(), code);
        }
        verified
    }

    /// Compares in constant time.
    fn same(&self, one: &[u8], other: &[u8]) -> bool {
        let code = self.blind.clone().chain_update(one).finalize().into_bytes();
        self.blind.clone().chain_update(other).verify_slice(&code).is_ok()
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn blinder() -> Hmac<Sha256> {
    let key: [u8; 32] = rand::random();
    Hmac::new_from_slice(&key).expect("any length will do")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn basic(user: &str, password: &str) -> HeaderMap {
        headers(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    fn users(cost: u32) -> AdminAuth {
        let hash = bcrypt::hash("correct horse", cost).unwrap();
        AdminAuth { basic_auth_users: [("prometheus".to_owned(), hash.into())].into(), bearer_token_file: None }
    }

    #[tokio::test]
    async fn without_auth_everybody_may() {
        assert!(Access::new(None).unwrap().check(&HeaderMap::new()).await.is_ok());
    }

    #[tokio::test]
    async fn a_password_must_match_its_users_hash() {
        let access = Access::new(Some(&users(4))).unwrap();
        assert!(access.check(&basic("prometheus", "correct horse")).await.is_ok());
        for wrong in
            [basic("prometheus", "wrong"), basic("nobody", "correct horse"), headers("Basic !"), headers("Basic")]
        {
            assert_eq!(access.check(&wrong).await, Err(HeaderValue::from_static("Basic realm=\"kitepush\"")));
        }
        assert!(access.check(&HeaderMap::new()).await.is_err());
    }

    #[tokio::test]
    async fn the_hash_is_computed_once_per_password() {
        let access = Access::new(Some(&users(11))).unwrap();
        access.check(&basic("prometheus", "correct horse")).await.unwrap();
        let start = Instant::now();
        for _ in 0..100 {
            access.check(&basic("prometheus", "correct horse")).await.unwrap();
        }
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        assert!(access.check(&basic("prometheus", "wrong")).await.is_err());
    }

    #[tokio::test]
    async fn a_bearer_token_is_re_read_and_the_old_one_stays_when_its_file_is_gone() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "first\n").unwrap();
        let auth = AdminAuth { basic_auth_users: BTreeMap::new(), bearer_token_file: Some(file.clone()) };
        let access = Access::new(Some(&auth)).unwrap();
        assert!(access.check(&headers("Bearer first")).await.is_ok());
        assert!(access.check(&headers("bearer first")).await.is_ok());
        assert_eq!(access.check(&headers("Bearer second")).await, Err(HeaderValue::from_static("Bearer")));
        fs::write(&file, "second").unwrap();
        access.look_again();
        assert!(access.check(&headers("Bearer second")).await.is_ok());
        fs::remove_file(&file).unwrap();
        access.look_again();
        assert!(access.check(&headers("Bearer second")).await.is_ok());
        assert!(access.check(&headers("Bearer first")).await.is_err());
    }
}

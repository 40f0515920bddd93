//! The files that a configuration names: secrets, credentials, certificates. Used for `check` and for every re-read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::setting::REDACTED;
use super::{Auth, Config, HttpConfig, Problem, ServerTls, TlsConfig};

/// A secret that cannot be printed and is cleared from memory when dropped.
pub type SecretBytes = SecretSlice<u8>;

/// Bytes: larger than any secret or certificate bundle, small enough to be read by mistake.
const MAX_SIZE: u64 = 1 << 20;

/// Why a file cannot be used. The text names the file and never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Missing, forbidden, a directory, …
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Read, and not what it should be.
    #[error("{path} {what}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl FileError {
    fn unreadable(path: &Path, error: std::io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), error }
    }

    fn unusable(path: &Path, what: &'static str) -> Self {
        Self::Unusable { path: path.to_owned(), what }
    }
}

/// Reads a secret, without the newlines that end it.
///
/// # Errors
///
/// When the file cannot be read, is empty, or is larger than 1 MiB.
pub fn read_secret(path: &Path) -> Result<SecretBytes, FileError> {
    let bytes = read(path)?;
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    if end == 0 {
        return Err(FileError::unusable(path, "is empty"));
    }
    Ok(bytes[..end].to_vec().into())
}

/// Reads a secret that must be text, for a header.
///
/// # Errors
///
/// As [`read_secret`], and when it is not UTF-8.
pub fn read_secret_text(path: &Path) -> Result<SecretString, FileError> {
    let secret = read_secret(path)?;
    let text = std::str::from_utf8(secret.expose_secret()).map_err(|_| FileError::unusable(path, "is not UTF-8"))?;
    Ok(text.into())
}

/// All webhook secrets: of `auth.secrets`, and of `auth.secret_files` in the order of their names. A secret that
/// stands in several places is there once.
///
/// # Errors
///
/// The first file or directory that cannot be read or has no secret in it: a set that is not whole is no set, because
/// a delivery signed with what is missing would be refused.
pub fn read_secrets(auth: &Auth) -> Result<Vec<SecretBytes>, Problem> {
    let mut secrets: Vec<SecretBytes> = Vec::new();
    let mut add = |secret: SecretBytes| {
        if !secrets.iter().any(|known| known.expose_secret() == secret.expose_secret()) {
            secrets.push(secret);
        }
    };
    for (index, secret) in auth.secrets.iter().enumerate() {
        let key = format!("auth.secrets[{index}]");
        match secret.expose_secret() {
            "" => return Err(Problem::new(key, "must not be empty")),
            REDACTED => return Err(placeholder(key)),
            _ => {}
        }
        add(secret.expose_secret().as_bytes().to_vec().into());
    }
    for (index, path) in auth.secret_files.iter().enumerate() {
        let problem = |error: FileError| Problem::new(format!("auth.secret_files[{index}]"), error.to_string());
        for file in secret_files(path).map_err(problem)? {
            add(read_secret(&file).map_err(problem)?);
        }
    }
    if secrets.is_empty() {
        return Err(Problem::new("auth.secret_files", "must name at least one webhook secret"));
    }
    Ok(secrets)
}

/// The file itself, or the secrets in a directory: regular files whose names begin with no dot, so that Kubernetes'
/// `..data` is passed over and the links to it are followed.
fn secret_files(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let metadata = fs::metadata(path).map_err(|error| FileError::unreadable(path, error))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| FileError::unreadable(path, error))? {
        let entry = entry.map_err(|error| FileError::unreadable(path, error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let file = entry.path();
        if fs::metadata(&file).map_err(|error| FileError::unreadable(&file, error))?.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(FileError::unusable(path, "holds no secret: it has no regular file whose name begins with no dot"));
    }
    files.sort();
    Ok(files)
}

/// Reads the certificates of a PEM file.
///
/// # Errors
///
/// When it cannot be read, has no certificate or is not PEM.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let certificates = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| FileError::unusable(path, "is not valid PEM"))?;
    if certificates.is_empty() {
        return Err(FileError::unusable(path, "has no certificate (BEGIN CERTIFICATE) in it"));
    }
    Ok(certificates)
}

/// Reads the private key of a PEM file.
///
/// # Errors
///
/// When it cannot be read, has no private key or is not PEM.
pub fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| FileError::unusable(path, "has no unencrypted private key (BEGIN PRIVATE KEY) in it"))
}

/// Reads a certificate chain and its key, which must belong together.
///
/// # Errors
///
/// When one cannot be read, or the key is another certificate's.
pub fn read_key_pair(cert_file: &Path, key_file: &Path) -> Result<CertifiedKey, FileError> {
    let chain = read_certificates(cert_file)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&read_private_key(key_file)?)
        .map_err(|_| FileError::unusable(key_file, "has a private key of a kind that is not supported"))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(FileError::unusable(key_file, "is not the key of the certificate"))
        }
        Err(rustls::Error::InvalidCertificate(_)) => Err(FileError::unusable(cert_file, "has an invalid certificate")),
        // For other kinds of keys rustls cannot say.
        _ => Ok(pair),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let unreadable = |error| FileError::unreadable(path, error);
    let file = fs::File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len().min(MAX_SIZE);
    // With room for all of it, so that no part is left behind where the buffer grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1024));
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(FileError::unusable(path, "is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Opens every secret and certificate file that the configuration names, and looks for the state file's directory.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    // One by one, to name each that is wrong.
    for index in 0..config.auth.secret_files.len() {
        let secret_files = vec![config.auth.secret_files[index].clone()];
        let auth = Auth { secret_files, secrets: Vec::new(), ..config.auth.clone() };
        let numbered = |problem: Problem| Problem::new(format!("auth.secret_files[{index}]"), problem.message);
        found.extend(read_secrets(&auth).err().map(numbered));
    }
    for (key, secret) in inline_secrets(config) {
        if secret.expose_secret() == REDACTED {
            found.push(placeholder(key));
        }
    }
    for (section, tls) in [("server.tls", &config.server.tls), ("admin.tls", &config.admin.tls)] {
        if let Some(tls) = tls {
            listener(section, tls, &mut found);
        }
    }
    if let Some(path) = &config.state.path {
        state(path, &mut found);
    }
    if let Some(file) = config.admin.auth.as_ref().and_then(|auth| auth.bearer_token_file.as_ref()) {
        note("admin.auth.bearer_token_file", read_secret_text(file), &mut found);
    }
    if config.push.url.is_some() {
        client(&config.push.http, &mut found);
    }
    found
}

fn note<T>(key: &str, result: Result<T, FileError>, found: &mut Vec<Problem>) {
    found.extend(result.err().map(|error| Problem::new(key, error.to_string())));
}

/// The state file need not be there yet, but its directory must.
fn state(path: &Path, found: &mut Vec<Problem>) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        found.push(Problem::new("state.path", format!("{} is a directory; name a file in it", path.display())));
    } else if !folder.is_dir() {
        found.push(Problem::new("state.path", format!("the directory {} is not there; make it", folder.display())));
    }
}

fn listener(section: &str, tls: &ServerTls, found: &mut Vec<Problem>) {
    key_pair(section, &tls.cert_file, &tls.key_file, found);
    if let Some(file) = &tls.client_ca_file {
        note(&format!("{section}.client_ca_file"), read_certificates(file), found);
    }
}

fn key_pair(section: &str, cert_file: &Path, key_file: &Path, found: &mut Vec<Problem>) {
    let before = found.len();
    note(&format!("{section}.cert_file"), read_certificates(cert_file), found);
    note(&format!("{section}.key_file"), read_private_key(key_file), found);
    if found.len() == before {
        note(&format!("{section}.key_file"), read_key_pair(cert_file, key_file), found);
    }
}

fn client(http: &HttpConfig, found: &mut Vec<Problem>) {
    let (basic, authorization, oauth2) = (http.basic_auth.as_ref(), http.authorization.as_ref(), http.oauth2.as_ref());
    for (key, file) in [
        ("push.http.basic_auth.username_file", basic.and_then(|auth| auth.username_file.as_ref())),
        ("push.http.basic_auth.password_file", basic.and_then(|auth| auth.password_file.as_ref())),
        ("push.http.authorization.credentials_file", authorization.and_then(|auth| auth.credentials_file.as_ref())),
        ("push.http.oauth2.client_secret_file", oauth2.and_then(|auth| auth.client_secret_file.as_ref())),
    ] {
        if let Some(file) = file {
            note(key, read_secret_text(file), found);
        }
    }
    for (name, header) in &http.headers {
        for (index, file) in header.files.iter().enumerate() {
            note(&format!("push.http.headers.{name}.files[{index}]"), read_secret_text(file), found);
        }
    }
    client_tls("push.http.tls_config", &http.tls_config, found);
    if let Some(oauth2) = oauth2 {
        client_tls("push.http.oauth2.tls_config", &oauth2.tls_config, found);
    }
}

fn client_tls(section: &str, tls: &TlsConfig, found: &mut Vec<Problem>) {
    if let Some(file) = &tls.ca_file {
        note(&format!("{section}.ca_file"), read_certificates(file), found);
    }
    if let (Some(cert_file), Some(key_file)) = (&tls.cert_file, &tls.key_file) {
        key_pair(section, cert_file, key_file, found);
    }
}

/// The output of `check`, used as a configuration, would make a secret of a word that everybody knows.
fn placeholder(key: String) -> Problem {
    Problem::new(key, format!("must be the secret itself, is {REDACTED}, which `kitepush check` prints instead"))
}

fn inline_secrets(config: &Config) -> BTreeMap<String, &SecretString> {
    let mut secrets = BTreeMap::new();
    for (index, secret) in config.auth.secrets.iter().enumerate() {
        secrets.insert(format!("auth.secrets[{index}]"), secret);
    }
    for (user, hash) in config.admin.auth.iter().flat_map(|auth| &auth.basic_auth_users) {
        secrets.insert(format!("admin.auth.basic_auth_users.{user}"), hash);
    }
    let http = &config.push.http;
    let password = http.basic_auth.as_ref().and_then(|auth| auth.password.as_ref());
    let credentials = http.authorization.as_ref().and_then(|auth| auth.credentials.as_ref());
    let client_secret = http.oauth2.as_ref().and_then(|auth| auth.client_secret.as_ref());
    for (key, secret) in [
        ("push.http.basic_auth.password", password),
        ("push.http.authorization.credentials", credentials),
        ("push.http.oauth2.client_secret", client_secret),
    ] {
        secrets.extend(secret.map(|secret| (key.to_owned(), secret)));
    }
    for (name, header) in &http.headers {
        for (index, secret) in header.secrets.iter().enumerate() {
            secrets.insert(format!("push.http.headers.{name}.secrets[{index}]"), secret);
        }
    }
    secrets
}

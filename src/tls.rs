//! Certificates of the listeners: read from PEM files, exchanged without a restart.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prometheus::{IntCounterVec, Opts};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::config::ServerTls;
use crate::health::{Health, Part};
use crate::metrics::own::Own;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {source}", path.display())]
    Pem {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The authorities of client certificates cannot be used.
    #[error("{}: {source}", path.display())]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The certificate of one listener.
///
/// The lock is held to clone or to replace an `Arc`; files are read outside of it.
pub struct ServerCertificate {
    files: ServerTls,
    listener: &'static str,
    active: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
    reloads: IntCounterVec,
    health: Arc<Health>,
}

struct Seen {
    /// Of the contents that are active.
    active: [u8; 32],
    /// Of what the last look found, when it could not be used.
    refused: Option<[u8; 32]>,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Registers `kitepush_certificate_reloads_total`.
///
/// # Errors
///
/// When it is there already.
pub fn register_reloads(own: &Own) -> prometheus::Result<IntCounterVec> {
    let help = "Changed certificate files of a listener, by what became of them; after failed the old ones stay.";
    let reloads = IntCounterVec::new(Opts::new("kitepush_certificate_reloads_total", help), &["listener", "outcome"])?;
    own.register(reloads.clone())?;
    Ok(reloads)
}

impl ServerCertificate {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], naming the file.
    pub fn load(
        files: ServerTls,
        listener: &'static str,
        reloads: IntCounterVec,
        health: Arc<Health>,
    ) -> Result<Self, CertificateError> {
        let contents = Contents::read(&files)?;
        let active = RwLock::new(Arc::new(contents.server_config(&files)?));
        for outcome in ["ok", "failed"] {
            reloads.with_label_values(&[listener, outcome]);
        }
        let seen = Mutex::new(Seen { active: contents.digest(), refused: None });
        Ok(Self { files, listener, active, seen, reloads, health })
    }

    /// For the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Looks at the files again. What cannot be used leaves the old certificate in place: a pair of which one half was
    /// replaced is taken when its other half comes.
    pub fn look_again(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = Contents::read(&self.files);
        let digest = contents.as_ref().map_or([0; 32], Contents::digest);
        if digest == seen.active {
            if seen.refused.take().is_some() {
                self.report_works();
            }
            return;
        }
        if seen.refused == Some(digest) {
            return;
        }
        match contents.and_then(|contents| contents.server_config(&self.files)) {
            Ok(config) => {
                *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                *seen = Seen { active: digest, refused: None };
                self.reloads.with_label_values(&[self.listener, "ok"]).inc();
                tracing::info!(listener = self.listener, "certificate exchanged");
                self.report_works();
            }
            Err(error) => {
                seen.refused = Some(digest);
                self.reloads.with_label_values(&[self.listener, "failed"]).inc();
                tracing::error!(listener = self.listener, %error, "certificate cannot be used; the old one stays");
                let why = format!("{} listener: {error}; the certificate read before stays", self.listener);
                self.health.degraded(Part::Certificate, why);
            }
        }
    }

    fn report_works(&self) {
        if self.health.works(Part::Certificate) {
            tracing::info!(listener = self.listener, "certificate files can be used again");
        }
    }
}

struct Contents {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &ServerTls) -> Result<Self, CertificateError> {
        let read =
            |path: &Path| fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.into(), source });
        Ok(Self {
            certificate: read(&files.cert_file)?,
            key: read(&files.key_file)?.into(),
            authorities: files.client_ca_file.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        for part in [&self.certificate, &*self.key, self.authorities.as_deref().unwrap_or_default()] {
            all.update(Sha256::digest(part));
        }
        all.finalize().into()
    }

    fn server_config(&self, files: &ServerTls) -> Result<ServerConfig, CertificateError> {
        let certificates = certificates(&files.cert_file, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| CertificateError::Pem { path: files.key_file.clone(), source })?;
        let pair = |source| CertificateError::Pair {
            certificate: files.cert_file.clone(),
            key: files.key_file.clone(),
            source,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(pair)?;
        let builder = match (&files.client_ca_file, &self.authorities) {
            (Some(path), Some(authorities)) => {
                let unusable = |source| CertificateError::Authorities { path: path.clone(), source };
                let mut roots = RootCertStore::empty();
                for authority in self::certificates(path, authorities)? {
                    roots.add(authority).map_err(unusable)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| unusable(rustls::Error::General(error.to_string())))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| CertificateError::Pem { path: path.into(), source })?;
    if certificates.is_empty() { Err(CertificateError::NoCertificate(path.into())) } else { Ok(certificates) }
}

//! Certificates of the listeners: read from PEM files, exchanged without a restart.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Context as _;
use prometheus::{IntCounterVec, Opts};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::config::ServerTls;
use crate::config::files::{read_certificates, read_key_pair};
use crate::health::{Health, Part};
use crate::metrics::own::Own;

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
    active: Option<[u8; 32]>,
    /// Of what the last look found, when it could not be used.
    refused: Option<Option<[u8; 32]>>,
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
    /// When they cannot be used; names the file.
    pub fn load(
        files: ServerTls,
        listener: &'static str,
        reloads: IntCounterVec,
        health: Arc<Health>,
    ) -> anyhow::Result<Self> {
        let seen = Mutex::new(Seen { active: digest(&files), refused: None });
        let active = RwLock::new(Arc::new(server_config(&files)?));
        for outcome in ["ok", "failed"] {
            reloads.with_label_values(&[listener, outcome]);
        }
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
        let digest = digest(&self.files);
        if digest == seen.active {
            if seen.refused.take().is_some() {
                self.report_works();
            }
            return;
        }
        if seen.refused == Some(digest) {
            return;
        }
        match server_config(&self.files) {
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
                tracing::error!(listener = self.listener, error = %format_args!("{error:#}"), "certificate cannot be used; the old one stays");
                let why = format!("{} listener: {error:#}; the certificate read before stays", self.listener);
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

/// Of the files as they are, to see whether they changed; `None` when one of them cannot be read.
fn digest(files: &ServerTls) -> Option<[u8; 32]> {
    let mut all = Sha256::new();
    for path in [Some(&files.cert_file), Some(&files.key_file), files.client_ca_file.as_ref()].into_iter().flatten() {
        all.update(Sha256::digest(Zeroizing::new(fs::read(path).ok()?).as_slice()));
    }
    Some(all.finalize().into())
}

fn server_config(files: &ServerTls) -> anyhow::Result<ServerConfig> {
    let pair = read_key_pair(&files.cert_file, &files.key_file)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in read_certificates(path)? {
                roots.add(authority).with_context(|| path.display().to_string())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().with_context(|| path.display().to_string())?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

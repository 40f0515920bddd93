//! `tls_config` → a rustls client: whom we trust, who we are.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

use crate::config::{TlsConfig, TlsVersion};

/// What the files of a `tls_config` held at one moment.
pub(super) struct Material {
    ca: Option<SecretSlice<u8>>,
    cert: Option<SecretSlice<u8>>,
    key: Option<SecretSlice<u8>>,
    /// Tells whether a later read is the same; holds nothing of a key that could be shown.
    pub(super) fingerprint: [u8; 32],
}

impl Material {
    /// Reads the files that are named.
    ///
    /// # Errors
    ///
    /// The path and the reason.
    pub(super) fn read(config: &TlsConfig) -> Result<Self, String> {
        let mut digest = Sha256::new();
        let mut read = |path: Option<&Path>| {
            let Some(path) = path else { return Ok(None) };
            let content = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            digest.update((content.len() as u64).to_be_bytes());
            digest.update(&content);
            Ok::<_, String>(Some(SecretSlice::from(content)))
        };
        Ok(Self {
            ca: read(config.ca_file.as_deref())?,
            cert: read(config.cert_file.as_deref())?,
            key: read(config.key_file.as_deref())?,
            fingerprint: digest.finalize().into(),
        })
    }
}

/// A client that needs no TLS: no authority is trusted, so that a machine without a bundle of them is fine.
pub(super) fn unused() -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The client of `config`. With a `ca_file`, only what that holds is trusted; without, what the machine trusts.
///
/// `server_name` says what the server's certificate must be valid for. It does not change the name that is sent to the
/// server (SNI), which is the host of the URL.
///
/// # Errors
///
/// The key of the setting and what is wrong with its file; nothing of the file's content.
pub(super) fn client(config: &TlsConfig, material: &Material) -> Result<ClientConfig, String> {
    let provider = provider();
    let versions: &[&SupportedProtocolVersion] = match config.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let verifier = Verifier {
        inner: if config.insecure_skip_verify { None } else { Some(authorities(material, &provider)?) },
        name: match &config.server_name {
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|_| format!("server_name: {name:?} is neither a host name nor an address"))?,
            ),
            None => None,
        },
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = match (&material.cert, &material.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert).map_err(|why| format!("cert_file: {why}"))?;
            let key = PrivateKeyDer::from_pem_slice(key.expose_secret())
                .map_err(|_| "key_file: holds no private key in PEM that can be read".to_owned())?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("cert_file and key_file do not go together: {error}"))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("cert_file and key_file: one needs the other".to_owned()),
    };
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(client)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn authorities(material: &Material, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let Some(ca) = &material.ca else {
        return match rustls_platform_verifier::Verifier::new(provider.clone()) {
            Ok(verifier) => Ok(Arc::new(verifier)),
            Err(error) => Err(format!("no authorities to trust ({error}): install ca-certificates or set ca_file")),
        };
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca).map_err(|why| format!("ca_file: {why}"))? {
        roots.add(certificate).map_err(|error| format!("ca_file: {error}"))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    verifier.map(|verifier| verifier as _).map_err(|error| format!("ca_file: {error}"))
}

fn certificates(pem: &SecretSlice<u8>) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose_secret()).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("is not PEM: {error}")),
    }
}

/// The usual verifier, asked for another name when `server_name` is set, or none with `insecure_skip_verify`.
#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<dyn ServerCertVerifier>>,
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.inner {
            Some(inner) => {
                let name = self.name.as_ref().unwrap_or(server_name);
                inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    // The signatures of the handshake are checked in any case: they prove that the peer has the key of its certificate.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

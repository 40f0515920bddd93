//! Certificates made for a test, in files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// An authority and a directory for what it signs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate and its key, in PEM files.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// How long a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Expired,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// The authority's certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A certificate for servers and clients; `names` are host names or addresses.
    pub(crate) fn sign(&self, file: &str, names: &[&str], validity: Validity) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params(file, names, validity).signed_by(&key, &self.issuer).unwrap();
        write(self.directory.path(), file, &certificate.pem(), &key)
    }
}

/// A certificate that nobody but itself signed.
pub(crate) fn self_signed(directory: &Path, file: &str, names: &[&str]) -> Pair {
    let key = KeyPair::generate().unwrap();
    let certificate = params(file, names, Validity::Now).self_signed(&key).unwrap();
    write(directory, file, &certificate.pem(), &key)
}

fn params(common_name: &str, names: &[&str], validity: Validity) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    if let Validity::Expired = validity {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
    }
    params
}

fn write(directory: &Path, file: &str, certificate: &str, key: &KeyPair) -> Pair {
    let pair = Pair { cert: directory.join(format!("{file}.pem")), key: directory.join(format!("{file}.key")) };
    std::fs::write(&pair.cert, certificate).unwrap();
    std::fs::write(&pair.key, key.serialize_pem()).unwrap();
    pair
}

//! TLS of both listeners, with real certificates.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kitepush::config::{Config, ServerTls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::support::certs::{Authority, Pair, Validity};
use crate::support::eventually;
use crate::support::service::{Answer, PING, Service, answer, closes_within, config, connect, post, signed};

fn tls(pair: &Pair) -> ServerTls {
    ServerTls { cert_file: pair.cert.clone(), key_file: pair.key.clone(), client_ca_file: None }
}

fn serving(pair: &Pair) -> Config {
    let mut config = config();
    config.server.tls = Some(tls(pair));
    config
}

/// How a client calls.
struct Caller<'a> {
    trusts: &'a Authority,
    certificate: Option<&'a Pair>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl<'a> Caller<'a> {
    fn trusting(authority: &'a Authority) -> Self {
        Self { trusts: authority, certificate: None, versions: rustls::DEFAULT_VERSIONS }
    }

    /// The answer, and the serial number of the certificate that the server showed.
    fn call(&self, address: SocketAddr, request: &[u8]) -> std::io::Result<(Answer, Vec<u8>)> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.trusts.file()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_protocol_versions(self.versions).with_root_certificates(roots);
        let config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(&pair.cert).unwrap()],
                    PrivateKeyDer::from_pem_file(&pair.key).unwrap(),
                )
                .unwrap(),
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, connect(address));
        stream.write_all(request)?;
        stream.flush()?;
        // A refusal comes as an alert in place of an answer.
        std::io::Read::read(&mut stream, &mut [])?;
        let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut bytes)?;
        Ok((answer(&mut &bytes[..]), shown))
    }

    fn deliver(&self, service: &Service) -> std::io::Result<u16> {
        let request = post(&[("X-Buildkite-Signature", &signed(PING))], PING);
        self.call(service.webhook, &request).map(|(answer, _)| answer.status)
    }
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_plain_http_is_not() {
    let authority = Authority::new("door");
    let service = Service::start(serving(&authority.sign("server", &["127.0.0.1"], Validity::Now)));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let versions: &'static [_] = Box::leak(Box::new([version]));
        let caller = Caller { versions, ..Caller::trusting(&authority) };
        assert_eq!(caller.deliver(&service).unwrap(), 200, "{version:?}");
    }
    assert!(Caller::trusting(&Authority::new("stranger")).deliver(&service).is_err());
    let mut plain = connect(service.webhook);
    plain.write_all(&post(&[], PING)).unwrap();
    assert!(closes_within(&mut plain, Duration::from_secs(2)));
}

#[test]
fn a_client_certificate_is_demanded_when_its_authority_is_named() {
    let (authority, strangers) = (Authority::new("door"), Authority::new("strangers"));
    let mut config = serving(&authority.sign("server", &["127.0.0.1"], Validity::Now));
    config.server.tls.as_mut().unwrap().client_ca_file = Some(authority.file());
    let service = Service::start(config);
    let good = authority.sign("client", &["client"], Validity::Now);
    let expired = authority.sign("expired", &["client"], Validity::Expired);
    let strange = strangers.sign("client", &["client"], Validity::Now);
    let with = |certificate| Caller { certificate, ..Caller::trusting(&authority) }.deliver(&service);
    assert_eq!(with(Some(&good)).unwrap(), 200);
    for refused in [None, Some(&expired), Some(&strange)] {
        assert!(with(refused).is_err());
    }
}

#[test]
fn a_certificate_is_exchanged_under_load_and_a_bad_pair_leaves_the_old_one() {
    let authority = Authority::new("door");
    let first = authority.sign("server", &["127.0.0.1"], Validity::Now);
    let service = Service::start(serving(&first));
    let caller = Caller::trusting(&authority);
    let request = post(&[("X-Buildkite-Signature", &signed(PING))], PING);
    let shown = || {
        let (answer, shown) = caller.call(service.webhook, &request).unwrap();
        assert_eq!(answer.status, 200);
        shown
    };
    let reloads = |outcome| {
        service.metric(&format!("kitepush_certificate_reloads_total{{listener=\"server\",outcome=\"{outcome}\"}}"))
    };
    let old = shown();

    // The certificate of another key: half a pair.
    let second = authority.sign("second", &["127.0.0.1"], Validity::Now);
    std::fs::copy(&second.cert, &first.cert).unwrap();
    eventually("the bad pair to be noticed", Duration::from_secs(5), || {
        assert_eq!(shown(), old);
        (reloads("failed") == 1.0).then_some(())
    });
    let readiness = service.ask("/readyz");
    assert_eq!(readiness.status, 200);
    assert!(readiness.body.contains("degraded") && readiness.body.contains("certificate"), "{readiness:?}");

    // The other half.
    std::fs::copy(&second.key, &first.key).unwrap();
    let new = eventually("the new pair", Duration::from_secs(5), || Some(shown()).filter(|shown| *shown != old));
    assert_eq!(new, CertificateDer::from_pem_file(&second.cert).unwrap().to_vec());
    assert_eq!((reloads("ok"), reloads("failed")), (1.0, 1.0));
    assert!(service.ask("/readyz").body.contains("\"ready\""));
}

#[test]
fn slow_handshakes_end_and_do_not_keep_good_ones_out() {
    let authority = Authority::new("door");
    let mut config = serving(&authority.sign("server", &["127.0.0.1"], Validity::Now));
    config.server.read_timeout = Duration::from_millis(1500);
    config.server.max_connections = 10;
    let service = Service::start(config);
    let start = Instant::now();
    let mut slow: Vec<_> = (0..30)
        .map(|_| {
            let mut socket = connect(service.webhook);
            // A record that promises more than comes.
            socket.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            socket
        })
        .collect();
    assert_eq!(Caller::trusting(&authority).deliver(&service).unwrap(), 200);
    for socket in &mut slow {
        assert!(closes_within(socket, Duration::from_secs(3)));
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn the_admin_listener_has_a_certificate_of_its_own() {
    let authority = Authority::new("admin");
    let mut config = config();
    config.admin.tls = Some(tls(&authority.sign("admin", &["127.0.0.1"], Validity::Now)));
    let service = Service::start(config);
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let (answer, _) = Caller::trusting(&authority).call(service.admin, request).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("kitepush_build_info"));
    assert_eq!(service.deliver(PING).status, 200);
}

#[test]
fn a_start_with_a_bad_pair_is_refused_and_names_the_file() {
    let authority = Authority::new("door");
    let (one, other) =
        (authority.sign("one", &["127.0.0.1"], Validity::Now), authority.sign("other", &["127.0.0.1"], Validity::Now));
    let mut config = serving(&one);
    config.server.tls.as_mut().unwrap().key_file = other.key;
    let error = Service::try_start(config, |_| {}).err().unwrap();
    assert!(format!("{error:#}").contains("other.key"), "{error:#}");
}

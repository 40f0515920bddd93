//! `push.http.tls_config`: real certificates and a real Pushgateway with its `--web.config.file`.

use std::time::Duration;

use crate::support::certs::{Authority, Pair, Validity, self_signed};
use crate::support::eventually;
use crate::support::pushing::{Pushing, SOON, config, counter, family};
use crate::support::server::{Server, pushgateway_with_web_config};
use kitepush::health::Part;
use prometheus::proto::{MetricFamily, MetricType};

fn totals() -> Vec<MetricFamily> {
    vec![family("a_total", MetricType::COUNTER, vec![counter(&[], 1.0)])]
}

fn gateway(pair: &Pair, more: &str) -> Server {
    let (cert, key) = (pair.cert.display(), pair.key.display());
    pushgateway_with_web_config(&format!("tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n{more}"))
}

/// Starts pushing to that gateway by `https://localhost`, with these lines of `tls_config`.
fn pushing(gateway: &Server, tls: &str) -> Pushing {
    let tls: String = tls.lines().map(|line| format!("      {line}\n")).collect();
    let tls = if tls.is_empty() { String::new() } else { format!("  http:\n    tls_config:\n{tls}") };
    Pushing::start(&config(&format!("https://localhost:{}", gateway.address.port()), &tls), totals())
}

fn assert_works(pushing: &Pushing) {
    pushing.wait_for_push();
    assert!(pushing.health.troubles().is_empty(), "{:?}", pushing.health.troubles());
}

#[test]
fn a_ca_file_alone_is_enough_and_each_flaw_of_a_certificate_is_called_by_its_name() {
    let authority = Authority::new("kitepush test");
    let ca = format!("ca_file: {}", authority.file().display());

    let good = gateway(&authority.sign("good", &["localhost"], Validity::Now), "");
    assert_works(&pushing(&good, &ca));
    let trouble = pushing(&good, "").trouble();
    assert!(trouble.contains("unknown issuer") || trouble.contains("no authorities to trust"), "{trouble}");
    assert!(trouble.contains("ca_file"), "{trouble}");

    let expired = gateway(&authority.sign("expired", &["localhost"], Validity::Expired), "");
    let failing = pushing(&expired, &ca);
    assert!(failing.trouble().contains("its certificate has expired"), "{}", failing.trouble());
    assert!(failing.pushes("misconfigured") >= 1.0);

    let unknown = gateway(&self_signed(authority.directory(), "self", &["localhost"]), "");
    let trouble = pushing(&unknown, &ca).trouble();
    assert!(trouble.contains("self-signed or from an unknown issuer"), "{trouble}");

    let other = gateway(&authority.sign("other", &["gateway.example"], Validity::Now), "");
    let trouble = pushing(&other, &ca).trouble();
    assert!(trouble.contains("another name, not for localhost") && trouble.contains("gateway.example"), "{trouble}");
    assert_works(&pushing(&other, &format!("{ca}\nserver_name: gateway.example")));
    assert_works(&pushing(&other, "insecure_skip_verify: true"));
    assert_works(&pushing(&expired, "insecure_skip_verify: true"));
}

#[test]
fn a_self_signed_certificate_that_is_given_as_ca_file_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let pair = self_signed(directory.path(), "self", &["localhost"]);
    assert_works(&pushing(&gateway(&pair, ""), &format!("ca_file: {}", pair.cert.display())));
}

#[test]
fn tls_versions_below_min_version_are_refused() {
    let authority = Authority::new("kitepush test");
    let gateway = gateway(&authority.sign("old", &["localhost"], Validity::Now), "  max_version: TLS12\n");
    let ca = format!("ca_file: {}", authority.file().display());
    assert_works(&pushing(&gateway, &ca));
    let trouble = pushing(&gateway, &format!("{ca}\nmin_version: TLS13")).trouble();
    assert!(trouble.contains("min_version"), "{trouble}");
}

#[test]
fn plain_http_behind_https_says_so() {
    let gateway = crate::support::server::pushgateway();
    let trouble = pushing(&gateway, "insecure_skip_verify: true").trouble();
    assert!(trouble.contains("does not speak TLS"), "{trouble}");
}

#[test]
fn client_certificates_and_basic_auth_together_reach_a_gateway_that_wants_both() {
    let authority = Authority::new("kitepush test");
    let server = authority.sign("server", &["localhost"], Validity::Now);
    let client = authority.sign("client", &["kitepush"], Validity::Now);
    let (ca, cert, key) = (authority.file(), client.cert.display(), client.key.display());
    let ca = ca.display();
    let gateway = gateway(
        &server,
        // The hash is of `pass:wörd`.
        &format!(
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {ca}\nbasic_auth_users:\n  \
             kite: $2b$04$abcdefghijklmnopqrstuuWXKr2BvN6MFBGmbO8G1GNLW0JIJkxnC\n"
        ),
    );
    let url = format!("https://localhost:{}", gateway.address.port());
    let password = authority.directory().join("password");
    std::fs::write(&password, "pass:wörd\n").unwrap();
    let auth = format!("    basic_auth: {{username: kite, password_file: {}}}\n", password.display());
    let with =
        |tls: &str, auth: &str| config(&url, &format!("  http:\n    tls_config: {{ca_file: {ca}{tls}}}\n{auth}"));
    let pair = format!(", cert_file: {cert}, key_file: {key}");

    assert_works(&Pushing::start(&with(&pair, &auth), totals()));
    let trouble = Pushing::start(&with(&pair, ""), totals()).trouble();
    assert!(trouble.contains("401") && trouble.contains("basic_auth"), "{trouble}");
    let trouble = Pushing::start(&with("", &auth), totals()).trouble();
    assert!(trouble.contains("cert_file"), "{trouble}");

    let wrong =
        Pushing::start(&with(&format!(", cert_file: {cert}, key_file: {}", server.key.display()), &auth), totals());
    assert!(wrong.trouble().contains("cert_file and key_file do not go together"), "{}", wrong.trouble());
}

#[test]
fn new_certificates_are_used_without_a_restart_and_bad_ones_are_not() {
    let authority = Authority::new("the first");
    let first = gateway(&authority.sign("first", &["localhost"], Validity::Now), "");
    let mut settings = config(
        &format!("https://localhost:{}", first.address.port()),
        &format!("  http:\n    tls_config: {{ca_file: {}}}\n", authority.file().display()),
    );
    settings.interval = Duration::from_millis(100);
    let pushing = Pushing::start(&settings, totals());
    assert_works(&pushing);

    let good = std::fs::read(authority.file()).unwrap();
    std::fs::write(authority.file(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let trouble = pushing.trouble();
    assert!(trouble.starts_with("pushes work, but push.http.tls_config.ca_file"), "{trouble}");
    assert!(trouble.contains("stay in use"), "{trouble}");
    pushing.wait_for_push();

    let another = Authority::new("another");
    std::fs::copy(another.file(), authority.file()).unwrap();
    let failing =
        || pushing.health.troubles().remove(&Part::Gateway).filter(|trouble| trouble.contains("unknown issuer"));
    eventually("the new authority in use", SOON, failing);

    std::fs::write(authority.file(), good).unwrap();
    eventually("pushes to work again", SOON, || pushing.health.troubles().is_empty().then_some(()));
}

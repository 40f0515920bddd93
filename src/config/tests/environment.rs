//! Variables over the file.

use super::*;

fn with(yaml: &str, variables: &[(&str, &str)]) -> Loaded {
    Loaded::parse(Some(("kitepush.yaml", yaml)), &Environment::new(variables.iter().copied()))
}

fn config(yaml: &str, variables: &[(&str, &str)]) -> Config {
    with(yaml, variables).finish().unwrap()
}

fn refused(name: &str, value: &str) -> String {
    with("", &[(name, value)]).finish().unwrap_err().to_string()
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
    let yaml = "push: {url: 'http://file:9091', job: file, interval: 20s}";
    let config = config(yaml, &[("KITEPUSH__PUSH__URL", "http://env:9091"), ("KITEPUSH__PUSH__INTERVAL", "30s")]);
    assert_eq!(config.push.url.unwrap().as_str(), "http://env:9091/");
    assert_eq!((config.push.job.as_str(), config.push.interval.as_secs()), ("file", 30));
    assert_eq!(config.push.timeout.as_secs(), 10);
}

#[test]
fn every_kind_of_value_can_come_from_a_variable() {
    let config = config(
        "server:\nauth:\n",
        &[
            ("KITEPUSH__POLICY", "strict"),
            ("KITEPUSH__SERVER__WORKERS", "3"),
            ("KITEPUSH__SERVER__TLS__CERT_FILE", "/c"),
            ("KITEPUSH__SERVER__TLS__KEY_FILE", "/k"),
            ("KITEPUSH__SERVER__ALLOWED_SOURCES", "buildkite, 192.0.2.0/24"),
            ("KITEPUSH__AUTH__SECRET_FILES", "/a,/b"),
            ("KITEPUSH__PUSH__SELF_METRICS", "false"),
            ("KITEPUSH__PUSH__HTTP__OAUTH2__CLIENT_ID", "00123"),
            ("KITEPUSH__PUSH__HTTP__OAUTH2__CLIENT_SECRET", "00123"),
            ("KITEPUSH__PUSH__HTTP__OAUTH2__TOKEN_URL", "https://login.example.com/token"),
            ("KITEPUSH__PUSH__HTTP__TLS_CONFIG__MIN_VERSION", "TLS13"),
            ("KITEPUSH__LABELS__BRANCHES__KEEP", "main"),
            ("PATH", "/bin"),
            ("KITEPUSH_PORT", "tcp://10.0.0.1:80"),
        ],
    );
    assert_eq!(config.policy, Policy::Strict);
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.server.tls.unwrap().key_file, Path::new("/k"));
    assert_eq!(config.server.allowed_sources.len(), 2);
    assert_eq!(config.auth.secret_files, [Path::new("/a"), Path::new("/b")]);
    assert!(!config.push.self_metrics);
    let oauth2 = config.push.http.oauth2.unwrap();
    assert_eq!((oauth2.client_id.as_str(), oauth2.client_secret.unwrap().expose_secret()), ("00123", "00123"));
    assert_eq!(config.push.http.tls_config.min_version, TlsVersion::Tls13);
    assert_eq!(config.labels.branches.keep, ["main"]);
}

#[test]
fn a_secret_of_digits_stays_what_it_is() {
    let config = config("", &[("KITEPUSH__AUTH__SECRETS", "00123,true")]);
    assert_eq!(config.auth.secrets[0].expose_secret(), "00123");
    assert_eq!(config.auth.secrets[1].expose_secret(), "true");
}

#[test]
fn an_empty_variable_takes_back_what_the_file_says() {
    let yaml = "push: {url: 'http://file:9091'}\nserver: {trusted_proxies: [10.0.0.0/8]}";
    let config = config(yaml, &[("KITEPUSH__PUSH__URL", ""), ("KITEPUSH__SERVER__TRUSTED_PROXIES", "")]);
    assert!(config.push.url.is_none() && config.server.trusted_proxies.is_empty());
}

#[test]
fn mistakes_in_variables_are_named() {
    for (name, value, line) in [
        ("KITEPUSH__PUSH__URLL", "x", "is not a known variable; did you mean KITEPUSH__PUSH__URL?"),
        ("KITEPUSH__NOTHING__LIKE__IT", "x", "is not a known variable"),
        ("KITEPUSH__PUSH__URL__HOST", "x", "is not a known variable; did you mean KITEPUSH__PUSH__URL?"),
        ("KITEPUSH__PUSH", "x", "is a section; set one of its keys, or the section in the YAML file"),
        (
            "KITEPUSH__LABELS__CONSTANT",
            "team=a",
            "cannot be set by an environment variable, because it is a map; set it in the YAML file",
        ),
        (
            "KITEPUSH__LABELS__CLUSTERS__ABC",
            "linux",
            "cannot be set by an environment variable, because it is a map; set it in the YAML file",
        ),
        ("kitepush__push__url", "x", "must be in upper case: KITEPUSH__PUSH__URL"),
    ] {
        assert_eq!(refused(name, value), format!("{name}: {line}"));
    }
    assert_eq!(
        refused("KITEPUSH__PUSH__INTERVAL", "15"),
        "push.interval: must be a duration with its unit, is 15; write 15s"
    );
    assert_eq!(refused("KITEPUSH__SERVER__WORKERS", ""), "server.workers: must be a whole number, 0 or more, is empty");
}

#[test]
fn a_single_underscore_is_warned_about() {
    let loaded = with("", &[("KITEPUSH_PUSH_URL", "http://env:9091")]);
    let warning = "KITEPUSH_PUSH_URL: is not read; did you mean KITEPUSH__PUSH__URL?";
    assert_eq!(loaded.warnings()[0].to_string(), warning);
    let loaded = with("", &[("KITEPUSH_PUSH__URL", "http://env:9091")]);
    assert!(loaded.warnings()[0].to_string().ends_with("did you mean KITEPUSH__PUSH__URL?"));
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf8_is_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    let environment = Environment::new([("KITEPUSH__PUSH__JOB", OsString::from_vec(vec![0xff]))]);
    assert_eq!(
        Loaded::parse(None, &environment).finish().unwrap_err().to_string(),
        "KITEPUSH__PUSH__JOB: must be UTF-8"
    );
}

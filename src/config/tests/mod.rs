//! What a user sees of the configuration.

mod environment;
mod files;
mod mistakes;
mod policy;

use std::collections::BTreeSet;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use yaml_rust2::Yaml;

use super::setting::{REDACTED, Section as _, Setting as _, Shape};
use super::*;

const KITCHEN_SINK: &str = include_str!("kitchen-sink.yaml");
const NONE: [(&str, &str); 0] = [];

fn load(yaml: &str) -> Loaded {
    Loaded::parse(Some(("kitepush.yaml", yaml)), &Environment::new(NONE))
}

/// The problems as they are printed.
fn problems(yaml: &str) -> Vec<String> {
    load(yaml).finish().map_or_else(|problems| problems.0.iter().map(Problem::to_string).collect(), |_| Vec::new())
}

fn warnings(yaml: &str) -> Vec<String> {
    load(yaml).warnings().iter().map(Warning::to_string).collect()
}

fn kitchen_sink() -> Config {
    load(KITCHEN_SINK).finish().unwrap()
}

#[test]
fn every_key_can_be_set() {
    let config = kitchen_sink();
    assert_eq!(config.server.allowed_sources[0], AllowedSource::Buildkite);
    assert_eq!(config.server.allowed_sources[2], AllowedSource::Network("2001:db8::1/128".parse().unwrap()));
    assert_eq!(config.auth.tolerance.as_secs(), 90);
    assert_eq!(config.auth.secrets[0].expose_secret(), "00123-only-for-a-trial");
    assert_eq!(config.labels.branches.keep[1], r"release/\d+\.\d+");
    assert_eq!(config.families["buildkite_job_duration_seconds"].buckets, Some(vec![0.5, 1.0, 30.0, 1000.0]));
    assert_eq!(config.push.http.proxy_url.unwrap().expose().password(), Some("battery-staple"));
    let header = &config.push.http.headers["X-Api-Key"];
    assert_eq!((header.values.len(), header.secrets[0].expose_secret()), (2, "open-sesame"));
    assert_eq!(config.push.http.headers["X-Scope-OrgID"].values, ["ci"]);
}

#[test]
fn keys_that_are_the_users_own_keep_their_case() {
    let config = kitchen_sink();
    assert_eq!(config.labels.clusters["0193A4C1-52e8-4f0b-9d57-6b0c2f8e7a14"], "Linux builds");
    assert_eq!(config.labels.constant["Team"], "platform");
    assert_eq!(config.admin.auth.unwrap().basic_auth_users.keys().next().unwrap(), "Prometheus");
    assert_eq!(config.push.http.oauth2.unwrap().endpoint_params["Audience"], "gateway");
}

/// A key that somebody adds and forgets in the kitchen sink is found here.
#[test]
fn the_kitchen_sink_leaves_no_key_at_its_default() {
    fn same(path: &str, keys: &[(&str, Shape)], ours: &Yaml, default: &Yaml, found: &mut Vec<String>) {
        for (key, shape) in keys {
            let (path, ours, default) = (format!("{path}.{key}"), &ours[*key], &default[*key]);
            match shape {
                Shape::Section(keys) => same(&path, keys, ours, default, found),
                _ if ours == default || matches!(ours, Yaml::BadValue) => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    same("", Config::KEYS, &kitchen_sink().show(), &Config::default().show(), &mut found);
    // Excluded by others, or refused by policy strict, which the kitchen sink sets.
    assert_eq!(
        found,
        [
            ".auth.mode",
            ".push.http.basic_auth.username",
            ".push.http.basic_auth.username_file",
            ".push.http.basic_auth.password",
            ".push.http.basic_auth.password_file",
            ".push.http.authorization.type",
            ".push.http.authorization.credentials",
            ".push.http.authorization.credentials_file",
            ".push.http.tls_config.insecure_skip_verify",
        ]
    );
    let others = r#"
        auth: {mode: any}
        push: {http: {authorization: {type: Token, credentials: abc}}}"#;
    let config = load(others).finish().unwrap();
    assert_eq!(config.push.http.authorization.unwrap().r#type, "Token");
    let others = "push: {http: {basic_auth: {username: ci, password_file: /p}, tls_config: {min_version: TLS13}}}";
    assert_eq!(load(others).finish().unwrap().push.http.basic_auth.unwrap().username.unwrap(), "ci");
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = Config { push: Push { instance: Some("kitepush-0".into()), ..Push::default() }, ..Config::default() };
    assert_eq!(config.to_yaml(), include_str!("defaults.yaml"));
}

#[test]
fn an_empty_file_or_section_or_value_means_defaults() {
    for yaml in ["", "# nothing\n", "---\n", "server:\npush:\n  interval:\n  http:\nfamilies:\n", "{}", "push: {}"] {
        assert_eq!(problems(yaml), [""; 0], "{yaml}");
        let shown = load(yaml).finish().unwrap().to_yaml();
        assert_eq!(shown, Config::default().to_yaml(), "{yaml}");
    }
}

#[test]
fn what_is_printed_loads_again_and_prints_the_same() {
    let shown = kitchen_sink().to_yaml();
    assert_eq!(load(&shown).finish().unwrap().to_yaml(), shown);
}

#[test]
fn no_secret_is_printed_or_debugged() {
    let config = kitchen_sink();
    let (shown, debugged) = (config.to_yaml(), format!("{config:?}"));
    for secret in ["only-for-a-trial", "$2y$10$", "correct-horse", "open-sesame", "battery-staple"] {
        assert!(KITCHEN_SINK.contains(secret));
        assert!(!shown.contains(secret) && !debugged.contains(secret), "{secret}");
    }
    assert_eq!(shown.matches(REDACTED).count(), 4, "{shown}");
}

#[test]
fn inline_secrets_stand_for_the_default_directory() {
    let paths = |yaml| load(yaml).finish().unwrap().auth.secret_files.len();
    assert_eq!(paths(""), 1);
    assert_eq!(paths(r#"auth: {secrets: ["0123456789abcdef"]}"#), 0);
    assert_eq!(paths(r#"auth: {secrets: ["0123456789abcdef"], secret_files: [/a, /b]}"#), 2);
}

#[test]
fn all_problems_are_reported_at_once() {
    let yaml = "servr: {}\nserver: {path: webhook, workers: many}\npush: {interval: 0s, urll: x}\nlog: {level: loud}";
    assert_eq!(
        problems(yaml),
        [
            "servr: is not a known key; did you mean server?",
            "server.workers: must be a whole number, 0 or more, is many",
            "push.urll: is not a known key; did you mean url?",
            "log.level: must be one of error, warn, info, debug, trace, is loud",
            "server.path: must start with /, is webhook",
            "push.interval: must be at least 1s, is 0s",
        ]
    );
}

#[test]
fn a_further_check_adds_only_what_is_not_known_yet() {
    let further = |_: &Config| vec![Problem::new("push.interval", "again"), Problem::new("families.x", "unknown")];
    let found = load("push: {interval: 0s}").and(further).finish().unwrap_err();
    assert_eq!(found.to_string(), "push.interval: must be at least 1s, is 0s\nfamilies.x: unknown");
    let broken = load("push: [").and(further).finish().unwrap_err();
    assert!(!broken.to_string().contains("families"), "{broken}");
}

#[test]
fn a_file_that_is_missing_is_named() {
    let missing = Loaded::read(Some(std::path::Path::new("/no/such.yaml")), &Environment::new(NONE)).finish();
    let line = "/no/such.yaml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(missing.unwrap_err().to_string(), line);
}

#[test]
fn every_known_word_is_its_own_nearest() {
    let words: BTreeSet<_> = Push::KEYS.iter().map(|(key, _)| *key).collect();
    for word in &words {
        assert_eq!(setting::nearest(word, words.iter().copied()), format!("; did you mean {word}?"));
    }
    assert_eq!(setting::nearest("something_else_entirely", words.iter().copied()), "");
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_and_never_panics(text in "(?s).{0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn any_yaml_like_text_is_parsed_or_refused(text in "([a-z]{1,6}: |- |\\[|\\]|\\{|\\}|push: |'|\"|\n {0,6}|&a |\\*a |!!str |0o7|~|,){0,60}") {
        let _ = load(&text);
    }

    #[test]
    fn any_text_survives_printing(job in "\\PC{1,40}", team in ".{1,20}", number in "[-+0-9.eoxX_:]{1,8}") {
        let mut config = Config::default();
        config.push.job = job;
        config.labels.constant.insert(team, number);
        let shown = config.to_yaml();
        // Whatever is wrong with such values, it is not that YAML made something else of them.
        let read = layers::read(Some(("shown", &shown)), &Environment::new(NONE));
        prop_assert!(matches!(&read, Ok((_, problems)) if problems.is_empty()), "{read:?} of {shown}");
        prop_assert_eq!(read.unwrap().0.to_yaml(), shown);
    }

    #[test]
    fn any_duration_survives_printing(millis in 0u64..10_000_000_000) {
        let mut config = Config::default();
        config.push.interval = std::time::Duration::from_millis(millis);
        let shown = config.to_yaml();
        prop_assert_eq!(layers::read(Some(("shown", &shown)), &Environment::new(NONE)).unwrap().0.to_yaml(), shown);
    }
}

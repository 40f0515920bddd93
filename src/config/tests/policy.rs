//! What strict refuses, relaxed warns about, and what both leave alone.

use super::*;

fn strict(yaml: &str) -> Vec<String> {
    problems(&format!("policy: strict\n{yaml}"))
}

#[test]
fn strict_names_the_key_and_the_safe_alternative() {
    for (yaml, line) in [
        (
            "auth: {mode: token}",
            "auth.mode: is token, which takes a token that proves neither body nor time; policy strict refuses it: use signature, and choose \"Send an HMAC signature\" in Buildkite's webhook settings",
        ),
        (
            "auth: {mode: any}",
            "auth.mode: is any, which takes a token that proves neither body nor time; policy strict refuses it: use signature, and choose \"Send an HMAC signature\" in Buildkite's webhook settings",
        ),
        (
            "push: {url: 'http://gateway.example.com:9091'}",
            "push.url: is plain HTTP to gateway.example.com, across a network that others may read; policy strict refuses it: use https",
        ),
        (
            "push: {http: {oauth2: {client_id: a, client_secret_file: /b, token_url: 'http://10.0.0.1/token'}}}",
            "push.http.oauth2.token_url: is plain HTTP to 10.0.0.1, across a network that others may read; policy strict refuses it: use https",
        ),
        (
            "push: {url: 'http://pushgateway:9091', http: {proxy_url: 'http://u:p@proxy.example.com:3128'}}",
            "push.http.proxy_url: takes plain HTTP to proxy.example.com, across a network that others may read; policy strict refuses it: use https for what it leads to",
        ),
        (
            "push: {http: {tls_config: {insecure_skip_verify: true}}}",
            "push.http.tls_config.insecure_skip_verify: is true, which accepts every server; policy strict refuses it: name the server's authority in tls_config.ca_file",
        ),
        (
            "admin: {listen: '0.0.0.0:9860'}",
            "admin.listen: is 0.0.0.0:9860, where anybody can read the metrics; policy strict refuses it: listen on 127.0.0.1, set admin.auth, or admin.isolated: true when a network policy guards it",
        ),
    ] {
        assert_eq!(strict(yaml), [line]);
        assert_eq!(problems(yaml), [""; 0], "relaxed");
        let key = line.split(": ").next().unwrap();
        assert!(warnings(yaml).iter().any(|warning| warning.starts_with(key)), "{key} warned about when relaxed");
    }
}

#[test]
fn strict_leaves_the_safe_forms_alone() {
    for url in [
        "https://gateway.example.com",
        "http://127.0.0.1:9091",
        "http://[::1]:9091",
        "http://localhost:9091",
        "http://pushgateway:9091",
        "http://pushgateway.monitoring.svc:9091",
        "http://pushgateway.monitoring.svc.cluster.local.:9091",
    ] {
        assert_eq!(strict(&format!("push: {{url: '{url}'}}")), [""; 0], "{url}");
    }
    for (url, proxy) in [
        ("http://pushgateway:9091", "http://127.0.0.1:3128"),
        ("https://gateway.example.com", "http://proxy.example.com:3128"),
    ] {
        assert_eq!(strict(&format!("push: {{url: '{url}', http: {{proxy_url: '{proxy}'}}}}")), [""; 0], "{proxy}");
    }
    for admin in [
        "{listen: '127.0.0.1:9860'}",
        "{listen: '[::1]:9860'}",
        "{listen: '0.0.0.0:9860', isolated: true}",
        "{listen: '0.0.0.0:9860', auth: {bearer_token_file: /t}}",
        "{listen: '0.0.0.0:9860', tls: {cert_file: /c, key_file: /k, client_ca_file: /a}}",
    ] {
        assert_eq!(strict(&format!("admin: {admin}")), [""; 0], "{admin}");
    }
}

#[test]
fn strict_is_not_fooled_by_names() {
    for host in ["svc.example.com", "pushgateway.svc.example.com", "evilsvc.cluster.local.example", "192.0.2.1", "a.b"]
    {
        assert_eq!(strict(&format!("push: {{url: 'http://{host}:9091'}}")).len(), 1, "{host}");
    }
}

#[test]
fn the_defaults_with_a_gateway_and_a_file_give_no_warning() {
    assert_eq!(warnings("push: {url: 'http://pushgateway:9091'}\nstate: {path: /var/lib/kitepush/state.db}"), [""; 0]);
}

#[test]
fn what_is_out_of_good_practice_is_warned_about() {
    for (yaml, line) in [
        (
            "push: {zero_hold: 30s}",
            "push.zero_hold: is 30s, shorter than push.scrape_interval plus push.interval (75s): Prometheus may miss the first events of a new series",
        ),
        (
            "push: {zero_hold: 0s}",
            "push.zero_hold: is 0s, so switched off: Prometheus does not see the first events of a new series",
        ),
        (
            "push: {timeout: 20s, url: 'http://a'}",
            "push.timeout: is 20s, longer than push.interval (15s): pushes come late",
        ),
        ("push: {http: {basic_auth: {username: a}}}", "push.http: has no effect without push.url"),
        (
            "push: {url: 'http://a', http: {tls_config: {ca_file: /a}}}",
            "push.http.tls_config: has no effect, because push.url is plain HTTP (http://a/)",
        ),
        (
            "server: {max_body_bytes: 1000}",
            "server.max_body_bytes: is 1000, and real deliveries can be larger; 1048576 takes them",
        ),
        ("server: {read_timeout: 1m}", "server.read_timeout: is 1m: slow connections hold their place that long"),
        ("server: {allowed_sources: [0.0.0.0/0]}", "server.allowed_sources[0]: allows every address"),
        (
            "auth: {secrets: ['short']}",
            "auth.secrets: stand in the configuration itself; use auth.secret_files for more than a trial",
        ),
        ("auth: {secrets: ['short']}", "auth.secrets[0]: is shorter than 16 bytes and may be guessed"),
        (
            "auth: {tolerance: 1h}",
            "auth.tolerance: is 1h: a captured request can be replayed that long; Buildkite recommends 5m",
        ),
        (
            "state: {retention: 1h}",
            "state.retention: is 1h: a delivery repeated later than that counts again; 168h is the default",
        ),
        ("{}", "state.path: is not set, and neither is push.url: a restart loses all totals"),
        (
            "labels: {series_ttl: 1h}",
            "labels.series_ttl: is 1h: a series that comes back starts at zero again, and totals over a longer time read too low",
        ),
        (
            "labels: {limits: {samples: 2000000}}",
            "labels.limits.samples: is 2000000: a push of that size takes seconds, and the gateway checks all of it each time",
        ),
        (
            "admin: {listen: '0.0.0.0:9860', auth: {bearer_token_file: /t}}",
            "admin.auth: sends its credentials in clear text; set admin.tls",
        ),
    ] {
        assert_eq!(problems(yaml), [""; 0], "{yaml}");
        assert!(warnings(yaml).iter().any(|warning| warning == line), "{yaml}: {:?}", warnings(yaml));
    }
}

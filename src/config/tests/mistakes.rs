//! One row per mistake: the YAML, and the whole line that it gets.

use super::*;

const BCRYPT: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

fn check(rows: &[(&str, &str)]) {
    for (yaml, line) in rows {
        assert_eq!(problems(yaml), [*line], "{yaml}");
    }
}

#[test]
fn yaml_itself() {
    check(&[
        (
            "push:\n  url: 'http://a\n",
            "kitepush.yaml:2: while scanning a quoted scalar, found unexpected end of stream",
        ),
        ("push: {job: a\n", "kitepush.yaml:2: while parsing a flow mapping, did not find expected ',' or '}'"),
        ("push:\n\tjob: a\n", "kitepush.yaml:2: tabs disallowed within this context (block indentation)"),
        ("- push\n", "kitepush.yaml: must be a map of keys such as `push:`"),
        ("push", "kitepush.yaml: must be a map of keys such as `push:`"),
        (
            "policy: strict\n---\npolicy: relaxed\n",
            "kitepush.yaml:2: must be one YAML document; a second one begins here",
        ),
        ("push: &p {job: a}\nlog: *p\n", "kitepush.yaml:2: YAML aliases are not supported; write the value out"),
        ("? [push]\n: 1\n", "kitepush.yaml:1: a key must be text"),
        ("push:\n  job: a\n  url: 'http://a'\n  job: b\n", "push.job: stands twice, in lines 2 and 4 of kitepush.yaml"),
        ("log: {}\npush: {}\nlog: {}\n", "log: stands twice, in lines 1 and 3 of kitepush.yaml"),
    ]);
    for deep in ["[".repeat(40), format!("\n  {}a", "- ".repeat(100_000)), format!("\n  {}a", "? ".repeat(100_000))] {
        let found = problems(&format!("push: {deep}"));
        assert!(
            matches!(found.as_slice(), [one] if one.ends_with("is nested deeper than any key") || one.ends_with("a key must be text")),
            "{found:?}"
        );
    }
    assert_eq!(problems(&format!("push: {}", "[".repeat(100_000))), ["kitepush.yaml:1: recursion limit exceeded"]);
    let large = format!("# {}", "x".repeat(1 << 20));
    assert_eq!(problems(&large), ["kitepush.yaml: must be at most 1048576 bytes, is 1048578"]);
}

#[test]
fn unknown_keys() {
    check(&[
        ("pusher: {}", "pusher: is not a known key; did you mean push?"),
        (
            "webhook: {}",
            "webhook: is not a known key; there are policy, server, admin, auth, state, labels, families, push, log",
        ),
        ("push: {URL: 'http://a'}", "push.URL: is not a known key; did you mean url?"),
        ("push: {http: {basic_atuh: {}}}", "push.http.basic_atuh: is not a known key; did you mean basic_auth?"),
        (
            "push: {http: {tls_config: {insecure: true}}}",
            "push.http.tls_config.insecure: is not a known key; did you mean insecure_skip_verify?",
        ),
        ("push: {http: {http_headers: {}}}", "push.http.http_headers: is not a known key; did you mean headers?"),
        ("labels: {limits: {sample: 1}}", "labels.limits.sample: is not a known key; did you mean samples?"),
        ("push.url: http://a", "push.url: is not a known key; did you mean push?"),
        (
            "families: {buildkite_builds_started_total: {bucket: [1]}}",
            "families.buildkite_builds_started_total.bucket: is not a known key; did you mean buckets?",
        ),
        (
            "push: {http: {headers: {X-A: {value: a}}}}",
            "push.http.headers.X-A.value: is not a known key; did you mean values?",
        ),
        ("'push[99999999999]': 1", "push[99999999999]: is not a known key; did you mean push?"),
    ]);
}

#[test]
fn values_of_the_wrong_kind() {
    check(&[
        ("server: 8080", "server: must be a map of keys, is a number"),
        (
            "server: {listen: 8080}",
            "server.listen: must be an IP address and a port such as 0.0.0.0:8080 or [::]:8080, is 8080",
        ),
        (
            "server: {listen: 'localhost:8080'}",
            "server.listen: must be an IP address and a port such as 0.0.0.0:8080 or [::]:8080, is localhost:8080",
        ),
        ("server: {workers: -1}", "server.workers: must be a whole number, 0 or more, is -1"),
        ("server: {workers: 1.5}", "server.workers: must be a whole number, 0 or more, is 1.5"),
        ("server: {max_body_bytes: 1MiB}", "server.max_body_bytes: must be a whole number, 0 or more, is 1MiB"),
        ("server: {read_timeout: 5}", "server.read_timeout: must be a duration with its unit, is 5; write 5s"),
        ("push: {interval: '15'}", "push.interval: must be a duration with its unit, is 15; write 15s"),
        ("push: {interval: 15x}", "push.interval: must be a duration such as 500ms, 15s, 5m, 24h or 1h30m, is 15x"),
        ("push: {interval: -5s}", "push.interval: must be a duration such as 500ms, 15s, 5m, 24h or 1h30m, is -5s"),
        (
            "push: {interval: [15s]}",
            "push.interval: must be a duration such as 500ms, 15s, 5m, 24h or 1h30m, is a list",
        ),
        ("push: {self_metrics: yes}", "push.self_metrics: must be true or false, is yes"),
        ("push: {job: 00123}", "push.job: must be text, is a number; put it in quotes"),
        ("push: {job: true}", "push.job: must be text, is true or false; put it in quotes"),
        ("push: {job: [a]}", "push.job: must be text, is a list"),
        (
            "push: {format: protobuff}",
            "push.format: must be one of protobuf, text, is protobuff; did you mean protobuf?",
        ),
        ("push: {compression: zstd}", "push.compression: must be one of gzip, none, is zstd"),
        ("policy: Strict", "policy: must be one of relaxed, strict, is Strict; did you mean strict?"),
        (
            "log: {level: warning}",
            "log.level: must be one of error, warn, info, debug, trace, is warning; did you mean warn?",
        ),
        ("auth: {mode: hmac}", "auth.mode: must be one of signature, token, any, is hmac"),
        (
            "auth: {secrets: [00123]}",
            "auth.secrets[0]: must be text in quotes: YAML would change an unquoted number or word",
        ),
        (
            "auth: {secrets: [true]}",
            "auth.secrets[0]: must be text in quotes: YAML would change an unquoted number or word",
        ),
        ("auth: {secrets: hunter2}", "auth.secrets: must be a list in brackets, is text"),
        ("auth: {secret_files: /etc/secret}", "auth.secret_files: must be a list in brackets, is text"),
        ("auth: {secret_files: [/a, '']}", "auth.secret_files[1]: must be the path of a file, is empty"),
        ("auth: {secret_files: [/a, ]}\nlabels: {branches: {keep: [a, null]}}", "labels.branches.keep[1]: is empty"),
        ("labels: {clusters: [a]}", "labels.clusters: must be a map, is a list"),
        ("push: {http: {basic_auth: 'ci:hunter2'}}", "push.http.basic_auth: must be a map of keys, is text"),
        ("labels: {clusters: {abc: }}", "labels.clusters.abc: is empty"),
        (
            "server: {trusted_proxies: [proxy.example.com]}",
            "server.trusted_proxies[0]: must be an address range such as 192.0.2.0/24 or 2001:db8::/32, is proxy.example.com",
        ),
        (
            "server: {allowed_sources: [buildkit]}",
            "server.allowed_sources[0]: must be an address range or buildkite, is buildkit; did you mean buildkite?",
        ),
        (
            "server: {allowed_sources: [192.0.2.0/33]}",
            "server.allowed_sources[0]: must be an address range such as 192.0.2.0/24 or 2001:db8::/32, is 192.0.2.0/33",
        ),
        ("push: {url: pushgateway}", "push.url: must be a URL such as http://pushgateway:9091"),
        (
            "push: {url: 'pushgateway:9091'}",
            "push.url: must be a URL such as http://pushgateway:9091: it must begin with http:// or https://, not with pushgateway:",
        ),
        (
            "push: {url: 'ftp://a'}",
            "push.url: must be a URL such as http://pushgateway:9091: it must begin with http:// or https://, not with ftp:",
        ),
    ]);
}

#[test]
fn server_admin_and_auth() {
    check(&[
        ("server: {path: webhook}", "server.path: must start with /, is webhook"),
        (
            "server: {path: /healthz}",
            "server.path: must not be /healthz, which has a meaning of its own; take /webhook",
        ),
        (
            "server: {path: /metrics}",
            "server.path: must not be /metrics, which has a meaning of its own; take /webhook",
        ),
        ("server: {path: '/a?b'}", "server.path: must be letters, digits and punctuation as in /webhook, has '?'"),
        (
            "admin: {listen: '127.0.0.1:8080'}",
            "admin.listen: must differ from server.listen (0.0.0.0:8080), is 127.0.0.1:8080; take another port",
        ),
        ("server: {max_body_bytes: 0}", "server.max_body_bytes: must be at least 1, is 0"),
        ("server: {read_timeout: 0s}", "server.read_timeout: must be at least 100ms, is 0s"),
        ("server: {read_timeout: 1h}", "server.read_timeout: must be at most 5m, is 1h"),
        ("server: {max_connections: 0}", "server.max_connections: must be at least 1, is 0"),
        ("server: {max_connections_per_address: 0}", "server.max_connections_per_address: must be at least 1, is 0"),
        (
            "server: {trusted_proxies: [0.0.0.0/0]}",
            "server.trusted_proxies[0]: must not be 0.0.0.0/0: everybody could claim any address; name the proxies",
        ),
        ("server: {shutdown_delay: 1h}", "server.shutdown_delay: must be at most 10m, is 1h"),
        ("server: {shutdown_timeout: 0s}", "server.shutdown_timeout: must be at least 100ms, is 0s"),
        ("server: {tls: {cert_file: /c}}", "server.tls.key_file: is missing; a certificate alone serves no TLS"),
        ("admin: {tls: {key_file: /k}}", "admin.tls.cert_file: is missing; a key alone serves no TLS"),
        ("admin: {auth: {}}", "admin.auth: lets nobody in; set basic_auth_users or bearer_token_file, or leave it out"),
        (
            "admin: {auth: {basic_auth_users: {prometheus: hunter2}}}",
            "admin.auth.basic_auth_users.prometheus: must be a bcrypt hash of the password, as `htpasswd -nBC 10 \"\"` prints it",
        ),
        (
            &format!("admin: {{auth: {{basic_auth_users: {{'a:b': {BCRYPT}}}}}}}"),
            "admin.auth.basic_auth_users.a:b: must be a user name without a colon",
        ),
        (
            "auth: {secret_files: []}",
            "auth.secret_files: must name at least one file or directory that holds a webhook secret",
        ),
        ("auth: {secrets: ['']}", "auth.secrets[0]: must not be empty"),
        ("auth: {secrets: ['abc ']}", "auth.secrets[0]: must not begin or end with white space"),
        ("auth: {tolerance: 0s}", "auth.tolerance: must be at least 1s, is 0s"),
        ("auth: {tolerance: 48h}", "auth.tolerance: must be at most 24h, is 48h"),
    ]);
}

#[test]
fn state_labels_and_families() {
    check(&[
        (
            "state: {path: ':memory:'}",
            "state.path: must be the path of a file, is :memory:; leave it out for memory only",
        ),
        ("state: {path: /var/lib/}", "state.path: must be a file, not a directory, is /var/lib/; add state.db"),
        ("state: {retention: 0s}", "state.retention: must be at least 1s, is 0s"),
        (
            "state: {retention: 5m}",
            "state.retention: must be at least twice auth.tolerance (10m), is 5m; else a replayed delivery could count again",
        ),
        ("state: {max_records: 0}", "state.max_records: must be at least 1, is 0"),
        ("state: {in_flight_expiry: 0s}", "state.in_flight_expiry: must be at least 1s, is 0s"),
        (
            "labels: {branches: {keep: ['release/(']}}",
            "labels.branches.keep[0]: must be a regular expression, is release/(: unclosed group",
        ),
        (
            "labels: {branches: {keep: [main, other]}}",
            "labels.branches.keep[1]: must not be other, a word of kitepush's own for a class of branches",
        ),
        (
            "labels: {branches: {keep: ['^pull_request$']}}",
            "labels.branches.keep[0]: must not be pull_request, a word of kitepush's own for a class of branches",
        ),
        ("labels: {branches: {keep: ['']}}", "labels.branches.keep[0]: must not be empty"),
        ("labels: {clusters: {abc: ''}}", "labels.clusters.abc: must not be empty"),
        (
            "labels: {cluster_queues: {abc: _overflow}}",
            "labels.cluster_queues.abc: must not be _overflow, a word of kitepush's own",
        ),
        (
            "labels: {constant: {team-name: a}}",
            "labels.constant.team-name: must be a label name: letters, digits and _, not beginning with a digit",
        ),
        (
            "labels: {constant: {9lives: a}}",
            "labels.constant.9lives: must be a label name: letters, digits and _, not beginning with a digit",
        ),
        (
            "labels: {constant: {job: a}}",
            "labels.constant.job: is a label name that Prometheus or the Pushgateway uses itself; take another one",
        ),
        (
            "labels: {constant: {le: a}}",
            "labels.constant.le: is a label name that Prometheus or the Pushgateway uses itself; take another one",
        ),
        (
            "labels: {constant: {__name__: a}}",
            "labels.constant.__name__: is a label name that Prometheus or the Pushgateway uses itself; take another one",
        ),
        ("labels: {constant: {team: ''}}", "labels.constant.team: must not be empty"),
        ("labels: {constant: {team: 1}}", "labels.constant.team: must be text, is a number; put it in quotes"),
        ("labels: {constant: {team: \"a\\nb\"}}", "labels.constant.team: must not contain control characters"),
        (
            "labels: {recent_builds: {per_pipeline: 5000}}",
            "labels.recent_builds.per_pipeline: must be at most 1000, is 5000",
        ),
        ("labels: {limits: {samples: 0}}", "labels.limits.samples: must be at least 1, is 0"),
        ("labels: {limits: {samples_per_family: 0}}", "labels.limits.samples_per_family: must be at least 1, is 0"),
        ("labels: {limits: {values_per_label: 0}}", "labels.limits.values_per_label: must be at least 1, is 0"),
        ("labels: {limits: {value_bytes: 0}}", "labels.limits.value_bytes: must be at least 24, is 0"),
        (
            "labels: {series_ttl: 1m}",
            "labels.series_ttl: must be 0s (never) or at least 150s, is 1m; else a series is gone before Prometheus has seen it",
        ),
        ("families: {a: {enabled: maybe}}", "families.a.enabled: must be true or false, is maybe"),
        ("families: {a: {labels: [source, source]}}", "families.a.labels[1]: names source a second time"),
        ("families: {a: {drop_labels: ['']}}", "families.a.drop_labels[0]: must not be empty"),
        (
            "families: {a: {labels: [source], drop_labels: [source]}}",
            "families.a.drop_labels: must not drop source, which families.a.labels adds",
        ),
        (
            "families: {a: {buckets: []}}",
            "families.a.buckets: must have at least one upper bound; leave it out for those of the catalogue",
        ),
        ("families: {a: {buckets: [1, 5, 5]}}", "families.a.buckets: must increase strictly, has 5 after 5"),
        ("families: {a: {buckets: [5, 1]}}", "families.a.buckets: must increase strictly, has 1 after 5"),
        ("families: {a: {buckets: [0, 1]}}", "families.a.buckets: must be above 0 seconds, has 0"),
        ("families: {a: {buckets: [1, .inf]}}", "families.a.buckets: must be finite, has inf; +Inf is there by itself"),
        ("families: {a: {buckets: [.nan]}}", "families.a.buckets: must be finite, has NaN; +Inf is there by itself"),
        ("families: {a: {buckets: [1, five]}}", "families.a.buckets[1]: must be a number, is five"),
    ]);
}

#[test]
fn push() {
    check(&[
        (
            "push: {url: 'http://ci:secret@gateway:9091'}",
            "push.url: must not carry a user name or password; use push.http.basic_auth",
        ),
        (
            "push: {url: 'http://gateway:9091/?token=a'}",
            "push.url: must not have a query or fragment; it is the gateway's base URL",
        ),
        (
            "push: {url: 'http://gateway:9091/metrics/'}",
            "push.url: must be the gateway's base URL; /metrics/job/… is added to it",
        ),
        ("push: {job: ''}", "push.job: must not be empty"),
        ("push: {instance: ''}", "push.instance: must not be empty"),
        ("push: {interval: 0s}", "push.interval: must be at least 1s, is 0s"),
        ("push: {interval: 24h}", "push.interval: must be at most 1h, is 24h"),
        ("push: {timeout: 0s}", "push.timeout: must be at least 100ms, is 0s"),
        ("push: {scrape_interval: 10ms}", "push.scrape_interval: must be at least 1s, is 10ms"),
        ("push: {zero_hold: 24h}", "push.zero_hold: must be at most 3h, is 24h"),
        (
            "push: {http: {basic_auth: {username: a, password: b}, authorization: {credentials: c}}}",
            "push.http.authorization: excludes push.http.basic_auth; keep one of them",
        ),
        (
            "push: {http: {basic_auth: {password_file: /p}}}",
            "push.http.basic_auth.username_file: is missing; set it, or push.http.basic_auth.username",
        ),
        (
            "push: {http: {basic_auth: {username: a, password: b, password_file: /c}}}",
            "push.http.basic_auth.password_file: excludes push.http.basic_auth.password; keep one of them",
        ),
        (
            "push: {http: {basic_auth: {username: 'a:b'}}}",
            "push.http.basic_auth.username: must be a user name without a colon",
        ),
        (
            "push: {http: {basic_auth: {username: a, password: 00123}}}",
            "push.http.basic_auth.password: must be text in quotes: YAML would change an unquoted number or word",
        ),
        (
            "push: {http: {authorization: {}}}",
            "push.http.authorization.credentials_file: is missing; set it, or push.http.authorization.credentials",
        ),
        (
            "push: {http: {authorization: {type: Basic, credentials: a}}}",
            "push.http.authorization.type: must not be Basic; use push.http.basic_auth",
        ),
        (
            "push: {http: {authorization: {type: 'Bearer a', credentials: a}}}",
            "push.http.authorization.type: must be one word such as Bearer",
        ),
        (
            "push: {http: {oauth2: {client_secret_file: /s, token_url: 'https://a'}}}",
            "push.http.oauth2.client_id: is missing",
        ),
        ("push: {http: {oauth2: {client_id: a, client_secret_file: /s}}}", "push.http.oauth2.token_url: is missing"),
        (
            "push: {http: {oauth2: {client_id: a, token_url: 'https://a'}}}",
            "push.http.oauth2.client_secret_file: is missing; set it, or push.http.oauth2.client_secret",
        ),
        (
            "push: {http: {oauth2: {client_id: a, client_secret: b, token_url: 'https://c:d@e'}}}",
            "push.http.oauth2.token_url: must not carry a user name or password; use push.http.oauth2.client_secret_file",
        ),
        (
            "push: {http: {tls_config: {cert_file: /c}}}",
            "push.http.tls_config.key_file: is missing beside push.http.tls_config.cert_file",
        ),
        (
            "push: {http: {tls_config: {key_file: /k}}}",
            "push.http.tls_config.cert_file: is missing beside push.http.tls_config.key_file",
        ),
        (
            "push: {http: {tls_config: {server_name: 'a b'}}}",
            "push.http.tls_config.server_name: must be a host name or an IP address, is a b",
        ),
        (
            "push: {http: {tls_config: {min_version: TLS11}}}",
            "push.http.tls_config.min_version: must be one of TLS12, TLS13, is TLS11; did you mean TLS12?",
        ),
        ("push: {http: {headers: {'X A': a}}}", "push.http.headers.X A: must be a header name: letters, digits and -"),
        (
            "push: {http: {headers: {authorization: a}}}",
            "push.http.headers.authorization: cannot be set; use push.http.authorization",
        ),
        (
            "push: {http: {headers: {Content-Type: a}}}",
            "push.http.headers.Content-Type: cannot be set; it follows from push.format",
        ),
        ("push: {http: {headers: {X-A: {}}}}", "push.http.headers.X-A: must have values, secrets or files"),
        ("push: {http: {headers: {X-A: \"a\\r\\nb\"}}}", "push.http.headers.X-A: must not contain control characters"),
        (
            "push: {http: {proxy_url: 'socks5://a'}}",
            "push.http.proxy_url: must be a URL such as http://pushgateway:9091: it must begin with http:// or https://, not with socks5:",
        ),
    ]);
}

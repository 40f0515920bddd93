//! The webhook listener: every row of its table, and what a hostile or clumsy sender may try.

use std::io::Write as _;
use std::time::{Duration, Instant};

use kitepush::config::{AllowedSource, AuthMode};
use kitepush::webhook::signature::sign;

use crate::support::eventually;
use crate::support::service::{
    Answer, PING, SECRET, Service, answer, closes_within, config, connect, exchange, finish, now, post, signed,
};

fn request(service: &Service, text: &str) -> Answer {
    exchange(service.webhook, text.as_bytes())
}

#[test]
fn an_authentic_delivery_is_taken_once_and_its_repetition_is_called_one() {
    let service = Service::start(config());
    let body = include_bytes!("../../webhook-fixtures/build-finished.json");
    let first = service.deliver(body);
    assert_eq!((first.status, first.body.as_str()), (200, "{\"outcome\": \"accepted\"}"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    let second = service.deliver(body);
    assert_eq!((second.status, second.body.as_str()), (200, "{\"outcome\": \"duplicate\"}"));
    let unknown = service.deliver(include_bytes!("../../webhook-fixtures/unknown-event.json"));
    assert_eq!((unknown.status, unknown.body.as_str()), (200, "{\"outcome\": \"ignored\"}"));
    assert_eq!(service.metric("kitepush_webhooks_total{event=\"build.finished\",outcome=\"accepted\"}"), 1.0);
    assert_eq!(service.metric("kitepush_webhook_handling_seconds_count"), 3.0);
}

#[test]
fn every_row_of_the_table_in_its_order() {
    let service = Service::start(config());
    let good = signed(PING);
    let signature = ("X-Buildkite-Signature", good.as_str());
    let long = vec![b' '; (1 << 20) + 1];

    for path in ["/", "/webhook/", "/metrics", "/readyz", "/webhooks"] {
        let answer = request(&service, &format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n"));
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = request(&service, &format!("{method} /webhook HTTP/1.1\r\nHost: d\r\n\r\n"));
        assert_eq!((answer.status, answer.code().as_str()), (405, "method"), "{method}");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    let head = request(&service, "HEAD /webhook HTTP/1.1\r\nHost: d\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (405, ""));
    let health = request(&service, "GET /healthz HTTP/1.1\r\nHost: d\r\n\r\n");
    assert_eq!((health.status, health.body.as_str()), (200, ""));
    assert_eq!(request(&service, "HEAD /healthz HTTP/1.1\r\nHost: d\r\n\r\n").status, 200);
    assert_eq!(request(&service, "POST /healthz HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").status, 405);
    assert_eq!(request(&service, "POST /webhook?a=b HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").status, 401);

    // Larger than allowed comes before the type, the type before the signature.
    let answer = exchange(service.webhook, &post(&[("Content-Type", "text/plain")], &long));
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    for headers in [
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/jsonp")],
        [("Content-Type", "application/x-www-form-urlencoded")],
        [("Content-Encoding", "gzip")],
        [("Content-Encoding", "br")],
        [("Content-Encoding", "identity")],
    ] {
        let answer = exchange(service.webhook, &post(&headers, PING));
        assert_eq!((answer.status, answer.code().as_str()), (415, "content_type"), "{headers:?}");
    }
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y"] {
        let answer = exchange(service.webhook, &post(&[signature, ("Content-Type", content_type)], PING));
        assert_eq!(answer.status, 200, "{content_type}");
    }

    // Authentic, and no event.
    for (body, code) in [
        (&b"not json"[..], "body_malformed"),
        (b"{\"event\":", "body_malformed"),
        (b"", "body_malformed"),
        (b"{}", "event_malformed"),
        (b"{\"event\": \"build.finished\"}", "event_malformed"),
        ("[".repeat(10_000).as_bytes(), "body_malformed"),
    ] {
        let answer = service.deliver(body);
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{}", answer.body);
    }
    assert!(service.deliver(b"{\"event\": \"build.finished\"}").body.contains("build"));
    assert_eq!(service.deliver(PING).status, 200);
    for (reason, times) in [("too_large", 1.0), ("content_type", 6.0), ("method", 7.0), ("event_malformed", 3.0)] {
        assert_eq!(service.rejections(reason), times, "{reason}");
    }
}

#[test]
fn every_401_is_the_same_answer_whatever_failed() {
    let service = Service::start(config());
    let now = now();
    let good = signed(PING);
    let (time, code) = good.split_once(',').unwrap();
    let flipped = format!("{time},{}0", &code[..code.len() - 1]);
    let flipped = if flipped == good { format!("{time},{}1", &code[..code.len() - 1]) } else { flipped };
    let stale = sign(SECRET.as_bytes(), now - 302, PING);
    let future = sign(SECRET.as_bytes(), now + 302, PING);
    let other = sign(b"another secret", now, PING);
    let cases = [
        (vec![], "signature_missing"),
        (vec![("X-Buildkite-Token", SECRET)], "signature_missing"),
        (vec![("X-Buildkite-Signature", time)], "signature_malformed"),
        (vec![("X-Buildkite-Signature", good.as_str()), ("X-Buildkite-Signature", &good)], "signature_malformed"),
        (vec![("X-Buildkite-Signature", flipped.as_str())], "signature_mismatch"),
        (vec![("X-Buildkite-Signature", other.as_str())], "signature_mismatch"),
        (vec![("X-Buildkite-Signature", stale.as_str())], "timestamp_stale"),
        (vec![("X-Buildkite-Signature", future.as_str())], "timestamp_future"),
    ];
    let mut answers = Vec::new();
    for (headers, reason) in &cases {
        let before = service.rejections(reason);
        let answer = exchange(service.webhook, &post(headers, PING));
        assert_eq!(service.rejections(reason), before + 1.0, "{reason}");
        let head: Vec<_> = answer.head.lines().filter(|line| !line.starts_with("date")).map(str::to_owned).collect();
        answers.push((answer.status, head, answer.body));
    }
    assert_eq!(answers[0].0, 401);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(service.deliver(PING).status, 200);
}

#[test]
fn a_token_is_taken_in_token_mode_and_never_in_place_of_a_bad_signature() {
    let answer = |mode, headers: &[(&str, &str)]| {
        let mut config = config();
        config.auth.mode = mode;
        exchange(Service::start(config).webhook, &post(headers, PING)).status
    };
    let (token, wrong) = (("X-Buildkite-Token", SECRET), ("X-Buildkite-Token", "wrong"));
    let good = signed(PING);
    let (signature, bad) = (("X-Buildkite-Signature", good.as_str()), ("X-Buildkite-Signature", "nonsense"));
    assert_eq!(answer(AuthMode::Token, &[token]), 200);
    assert_eq!(answer(AuthMode::Token, &[wrong]), 401);
    assert_eq!(answer(AuthMode::Token, &[signature]), 401);
    assert_eq!(answer(AuthMode::Any, &[token]), 200);
    assert_eq!(answer(AuthMode::Any, &[signature]), 200);
    assert_eq!(answer(AuthMode::Any, &[bad, token]), 401);
}

#[test]
fn slow_heads_and_slow_bodies_get_408_and_a_closed_connection() {
    let mut config = config();
    config.server.read_timeout = Duration::from_millis(500);
    let service = Service::start(config);
    let good = signed(PING);
    let whole = post(&[("X-Buildkite-Signature", &good)], PING);
    let head = whole.len() - PING.len();
    for sent in [10, head - 2, head, head + 1, whole.len() - 1] {
        let start = Instant::now();
        let mut socket = connect(service.webhook);
        socket.write_all(&whole[..sent]).unwrap();
        let answer = answer(&mut socket);
        assert_eq!((answer.status, answer.code().as_str()), (408, "timeout"), "after {sent} bytes");
        assert!(start.elapsed() < Duration::from_millis(4000), "{:?} after {sent} bytes", start.elapsed());
    }
    assert_eq!(service.rejections("timeout"), 5.0);

    // Trickling does not extend the deadline.
    let start = Instant::now();
    let mut socket = connect(service.webhook);
    socket.write_all(&whole[..head]).unwrap();
    for byte in &whole[head..] {
        if socket.write_all(&[*byte]).is_err() || start.elapsed() > Duration::from_secs(4) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());

    // Who says nothing at all is sent away as well.
    assert!(closes_within(&mut connect(service.webhook), Duration::from_secs(3)));
    assert_eq!(service.deliver(PING).status, 200);
}

#[test]
fn a_partial_second_request_does_not_hold_the_connection() {
    let service = Service::start(config());
    let first = post(&[("X-Buildkite-Signature", &signed(PING))], PING);
    let mut socket = connect(service.webhook);
    socket.write_all(&[&first[..], b"POST /webhook HTTP/1.1\r\nHost: d\r\nX-Slow: "].concat()).unwrap();
    assert!(closes_within(&mut socket, Duration::from_secs(3)));
}

#[test]
fn a_body_over_the_limit_is_refused_unread_or_while_it_is_read() {
    let service = Service::start(config());
    let start = Instant::now();
    for length in ["1048577", "1073741824", "18446744073709551615"] {
        let text = format!("POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n\r\n{{");
        let answer = request(&service, &text);
        assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{length}");
    }
    let mut chunked = b"POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..33 {
        chunked.extend_from_slice(b"8000\r\n");
        chunked.extend_from_slice(&[b' '; 0x8000]);
        chunked.extend_from_slice(b"\r\n");
    }
    // It never ends, and is answered all the same.
    let mut socket = connect(service.webhook);
    socket.write_all(&chunked).unwrap();
    let answered = answer(&mut socket);
    assert_eq!((answered.status, answered.code().as_str()), (413, "too_large"));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());

    let exactly = vec![b' '; 1 << 20];
    assert_eq!(service.deliver(&exactly).status, 400);
    let chunked = format!(
        "POST /webhook HTTP/1.1\r\nHost: d\r\nX-Buildkite-Signature: {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        signed(PING),
        PING.len(),
        std::str::from_utf8(PING).unwrap(),
    );
    assert_eq!(request(&service, &chunked).status, 200);
}

#[test]
fn a_request_that_two_servers_could_read_differently_is_one_request_or_none() {
    let service = Service::start(config());
    let inner = String::from_utf8(post(&[("X-Buildkite-Signature", &signed(PING))], PING)).unwrap();
    let shapes = [
        format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()),
        format!("Content-Length: 0, {}\r\n\r\n{inner}", inner.len()),
        format!("Content-Length: +0\r\n\r\n{inner}"),
        format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{inner}"),
        format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
    ];
    for shape in shapes {
        let answer = request(&service, &format!("POST /webhook HTTP/1.1\r\nHost: d\r\n{shape}"));
        assert!((400..500).contains(&answer.status), "{answer:?} to {shape}");
        assert!(!answer.body.contains("HTTP/1.1 "), "a second answer: {answer:?} to {shape}");
    }
    assert_eq!(service.metric("kitepush_webhooks_total{event=\"ping\",outcome=\"ignored\"}"), 0.0);
    for nonsense in ["\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}", "POST /webhook HTTP/9.9\r\n\r\n"] {
        let mut socket = connect(service.webhook);
        socket.write_all(nonsense.as_bytes()).unwrap();
        finish(&socket);
        assert!(closes_within(&mut socket, Duration::from_secs(7)), "{nonsense:?}");
    }
    assert_eq!(service.deliver(PING).status, 200);
}

#[test]
fn slow_senders_give_way_to_good_ones_when_there_are_too_many() {
    let mut config = config();
    config.server.max_connections = 20;
    config.server.max_connections_per_address = 15;
    let service = Service::start(config);
    let slow: Vec<_> = (0..60)
        .map(|n| {
            let mut socket = connect(service.webhook);
            // Half of them with a head, half of them without an end of it.
            let head =
                if n % 2 == 0 { "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n{" } else { "POST" };
            socket.write_all(head.as_bytes()).unwrap();
            socket
        })
        .collect();
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(service.deliver(PING).status, 200);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    assert!(service.metric("kitepush_webhook_connections") <= 15.0);
    assert!(service.metric("kitepush_webhook_connections_refused_total{limit=\"per_address\"}") >= 45.0);
    drop(slow);
}

#[test]
fn long_bodies_that_stall_leave_room_for_short_ones() {
    let mut config = config();
    config.server.max_connections_per_address = 1000;
    config.server.read_timeout = Duration::from_secs(30);
    config.server.shutdown_timeout = Duration::from_secs(1);
    let service = Service::start(config);
    // A little less than was promised: none of them ever ends.
    let long = vec![b' '; 990 << 10];
    let stalled: Vec<_> = (0..60)
        .map(|_| {
            let mut socket = connect(service.webhook);
            socket.write_all(b"POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 1048576\r\n\r\n").unwrap();
            let _ = socket.write_all(&long);
            socket
        })
        .collect();
    eventually("those for whom there is no room", Duration::from_secs(10), || {
        (service.rejections("overloaded") >= 20.0).then_some(())
    });
    assert_eq!(service.deliver(PING).status, 200);
    drop(stalled);
}

#[test]
fn an_address_that_fails_too_often_is_told_so_and_its_authentic_deliveries_are_taken() {
    let service = Service::start(config());
    let forged = post(&[("X-Buildkite-Signature", &sign(b"wrong", now(), PING))], PING);
    let mut statuses: Vec<_> = (0..500).map(|_| exchange(service.webhook, &forged).status).collect();
    assert_eq!(service.deliver(PING).status, 200);
    statuses.dedup();
    assert_eq!(statuses[..2], [401, 429]);

    // What is hopeless is answered before its body.
    let limited = request(&service, "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 1000\r\n\r\n");
    if limited.status == 429 {
        assert_eq!(limited.code(), "rate_limited");
        assert!(limited.header("retry-after").is_some());
    }
    assert!(service.rejections("rate_limited") >= 1.0);
    assert_eq!(service.deliver(PING).status, 200);
}

#[test]
fn only_allowed_sources_may_send_also_behind_a_trusted_proxy() {
    let mut direct = config();
    direct.server.allowed_sources = vec![AllowedSource::Network("192.0.2.0/24".parse().unwrap())];
    let mut proxied = direct.clone();
    proxied.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let (direct, proxied) = (Service::start(direct), Service::start(proxied));
    let from = |service: &Service, address: &str| {
        let headers = [("X-Buildkite-Signature", &*signed(PING)), ("X-Forwarded-For", address)];
        exchange(service.webhook, &post(&headers, PING))
    };
    let refused = from(&direct, "192.0.2.7");
    assert_eq!((refused.status, refused.code().as_str()), (403, "source_not_allowed"));
    assert_eq!(direct.rejections("source_not_allowed"), 1.0);
    assert_eq!(from(&proxied, "192.0.2.7").status, 200);
    assert_eq!(from(&proxied, "192.0.2.7, 198.51.100.1").status, 403);
    assert_eq!(from(&proxied, "198.51.100.1, 192.0.2.7").status, 200);
    assert_eq!(proxied.deliver(PING).status, 403);
}

#[test]
fn buildkites_list_of_sources_is_asked_for() {
    let meta = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v2/meta", meta.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut socket, _) = meta.accept().unwrap();
        let _ = std::io::Read::read(&mut socket, &mut [0; 4096]);
        let body = "{\"webhook_ips\": [\"127.0.0.0/8\"]}";
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
    });
    let mut config = config();
    config.server.allowed_sources = vec![AllowedSource::Buildkite];
    let service = Service::try_start(config, move |rooms| rooms.meta_url = url).unwrap();
    assert_eq!(service.deliver(PING).status, 200);
}

#[test]
fn secrets_are_rotated_under_load_and_no_authentic_delivery_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, secret: &str| std::fs::write(dir.path().join(name), secret).unwrap();
    write("old", "the old secret\n");
    let mut config = config();
    config.auth.secrets = Vec::new();
    config.auth.secret_files = vec![dir.path().to_owned()];
    let service = Service::start(config);
    let deliver = |secret: &str| {
        let signature = sign(secret.as_bytes(), now(), PING);
        exchange(service.webhook, &post(&[("X-Buildkite-Signature", &signature)], PING)).status
    };
    let (mut secret, start) = ("the old secret", Instant::now());
    let mut switched = None;
    assert_eq!(deliver("the new secret"), 401);
    write("new", "the new secret\n");
    // The sender switches once the receiver knows the new secret; then the old one is withdrawn.
    while switched.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(4)) {
        assert_eq!(deliver(secret), 200, "{secret} after {:?}", start.elapsed());
        if switched.is_none() && deliver("the new secret") == 200 {
            secret = "the new secret";
            switched = Some(Instant::now());
            std::fs::remove_file(dir.path().join("old")).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "never picked up");
    }
    assert_eq!(deliver("the old secret"), 401);
    assert!(switched.unwrap() - start < Duration::from_secs(5));
}

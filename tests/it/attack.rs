//! The program under attack: whatever strangers do, authentic deliveries are taken, nothing else is counted, and the
//! memory stays small. Short forms run always; the long ones are for `make soak`
//! (`cargo test --release --test it attack -- --ignored --nocapture`).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use kitepush::webhook::signature::sign;

use crate::support::binary::{Binary, configured, connect_from};
use crate::support::eventually;
use crate::support::service::{answer, closes_within, connect, exchange, now, post};

const SECRET: &str = "the secret of the attack run";
const BODY: &str = include_str!("../../webhook-fixtures/build-finished.json");
const BUILD_ID: &str = "eafd7956-dab4-5ce1-abf3-debba427d739";
/// What the deliveries of [`body`] count.
const FINISHED: &str = "buildkite_builds_finished_total{";
/// In KiB.
const MEMORY: u64 = 128 << 10;

/// A build of its own for each number.
fn body(number: usize) -> String {
    BODY.replace(BUILD_ID, &format!("eafd7956-dab4-5ce1-abf3-{number:012}"))
}

fn serve(server: &str) -> (tempfile::TempDir, Binary) {
    let directory = configured(&format!(
        "server: {{listen: '127.0.0.1:0', workers: 2, {server}}}\n\
         admin: {{listen: '127.0.0.1:0'}}\n\
         auth: {{secrets: ['{SECRET}']}}\n\
         push: {{zero_hold: 0s}}\n"
    ));
    let binary = Binary::serve(directory.path());
    (directory, binary)
}

/// What must be true after every attack.
fn assert_unharmed(binary: Binary, counted: usize) {
    assert_eq!(binary.deliver(SECRET, body(999_999_999).as_bytes()).body, "{\"outcome\": \"accepted\"}");
    assert_eq!(binary.metric(FINISHED), (counted + 1) as f64);
    assert!(binary.ask("/readyz").body.contains("\"ready\""), "{:?}", binary.ask("/readyz"));
    let peak = binary.peak_memory();
    eprintln!("peak memory {:.1} MiB", peak as f64 / 1024.0);
    assert!(peak < MEMORY, "{peak} KiB");
    assert!(!binary.stop().contains("panicked"));
}

fn report(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() * share / 1000).min(latencies.len() - 1)];
    eprintln!("{what}: {} deliveries, p50 {:?}, p99 {:?}, max {:?}", latencies.len(), at(500), at(990), at(1000));
}

/// Ways to hold a connection open, by turns.
fn hold(number: usize, to: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let mut socket = connect_from(Ipv4Addr::new(127, 0, 0, 2 + (number % 199) as u8), to)?;
    socket.set_write_timeout(Some(Duration::from_millis(200)))?;
    let start = "POST /webhook HTTP/1.1\r\nHost: d\r\n";
    let bytes = match number % 6 {
        0 => start.to_owned().into_bytes(),
        1 => format!("{start}Content-Length: 5000\r\n\r\n{{").into_bytes(),
        // A second request on the connection, of which only a part comes.
        2 => [&post(&[("X-Buildkite-Signature", "no")], b"{}")[..], start.as_bytes()].concat(),
        3 => format!("{start}X-Long: {}", "x".repeat(120_000)).into_bytes(),
        4 => format!("{start}Content-Length: 1000000\r\n\r\n{}", " ".repeat(500_000)).into_bytes(),
        _ => Vec::new(),
    };
    // Who is refused in the middle of it has had its say.
    let _ = socket.write_all(&bytes);
    Ok(socket)
}

fn slow_senders(connections: usize, deliveries: usize, max_connections: usize) {
    let (_directory, binary) = serve(&format!("read_timeout: 2s, max_connections: {max_connections}"));
    let webhook = binary.webhook;
    let mut held: Vec<_> = (0..connections).map(|number| hold(number, webhook).ok()).collect();
    let mut reopened = 0;
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        // The attack keeps pace with the deliveries, so that a busy machine changes nothing of it: during each, so many
        // of the slow ones send a byte, and come anew when they were thrown out.
        let (pace, turns) = sync_channel::<()>(0);
        let (held, reopened) = (&mut held, &mut reopened);
        scope.spawn(move || {
            let mut place = 0;
            for () in turns {
                for _ in 0..connections.min(max_connections / 2) {
                    if held[place].as_mut().is_none_or(|socket| socket.write_all(b"x").is_err()) {
                        *reopened += 1;
                        held[place] = hold(place, webhook).ok();
                    }
                    place = (place + 1) % connections;
                }
            }
        });
        for number in 0..deliveries {
            let body = body(number);
            pace.send(()).unwrap();
            let start = Instant::now();
            let taken = binary.deliver(SECRET, body.as_bytes());
            latencies.push(start.elapsed());
            assert_eq!((taken.status, taken.body.as_str()), (200, "{\"outcome\": \"accepted\"}"), "delivery {number}");
        }
        drop(pace);
    });
    for mut socket in held.into_iter().flatten() {
        assert!(closes_within(&mut socket, Duration::from_secs(20)), "a slow connection stays open");
    }
    report(&format!("{connections} slow senders, {} connections in all", connections + reopened), latencies);
    eventually("all connections gone", Duration::from_secs(20), || {
        (binary.metric("kitepush_webhook_connections ") == 0.0).then_some(())
    });
    assert_unharmed(binary, deliveries);
}

#[test]
fn slow_senders_from_many_addresses_do_not_keep_good_deliveries_out() {
    slow_senders(120, 100, 1024);
}

#[test]
fn more_slow_senders_than_connections_do_not_either() {
    slow_senders(120, 100, 60);
}

#[test]
#[ignore = "long"]
fn long_slow_senders() {
    slow_senders(500, 5_000, 1024);
    slow_senders(500, 5_000, 256);
}

/// Forgeries from the real sender's own address: none is taken, and none of its deliveries is refused for them.
fn forgeries(number: usize) {
    let (_directory, binary) = serve("");
    let webhook = binary.webhook;
    let forged = AtomicUsize::new(0);
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while forged.fetch_add(1, Relaxed) < number {
                    let body = body(1);
                    let signature = sign(b"a guess", now(), body.as_bytes());
                    let refused = exchange(webhook, &post(&[("X-Buildkite-Signature", &signature)], body.as_bytes()));
                    assert!(matches!(refused.status, 401 | 429), "{refused:?}");
                }
            });
        }
        while forged.load(Relaxed) < number {
            let body = body(latencies.len());
            let start = Instant::now();
            let taken = binary.deliver(SECRET, body.as_bytes());
            latencies.push(start.elapsed());
            assert_eq!((taken.status, taken.body.as_str()), (200, "{\"outcome\": \"accepted\"}"));
        }
    });
    let counted = latencies.len();
    report(&format!("{number} forgeries"), latencies);
    let mismatches = binary.metric("kitepush_webhook_rejections_total{reason=\"signature_mismatch\"}");
    let limited = binary.metric("kitepush_webhook_rejections_total{reason=\"rate_limited\"}");
    assert!(limited > 0.0 && mismatches + limited >= number as f64, "{mismatches} + {limited}");
    assert_unharmed(binary, counted);
}

#[test]
fn forgeries_from_the_senders_own_address_cost_it_nothing() {
    forgeries(2_000);
}

#[test]
#[ignore = "long"]
fn long_forgeries() {
    forgeries(100_000);
}

/// Half of them too old, half of them fresh: the former are refused, the latter are duplicates.
fn replays(number: usize) {
    let (_directory, binary) = serve("");
    let body = body(1);
    let captured =
        post(&[("X-Buildkite-Signature", &sign(SECRET.as_bytes(), now(), body.as_bytes()))], body.as_bytes());
    let stale =
        post(&[("X-Buildkite-Signature", &sign(SECRET.as_bytes(), now() - 301, body.as_bytes()))], body.as_bytes());
    assert_eq!(exchange(binary.webhook, &captured).body, "{\"outcome\": \"accepted\"}");
    for replay in 0..number / 2 {
        let again = exchange(binary.webhook, &captured);
        assert_eq!((again.status, again.body.as_str()), (200, "{\"outcome\": \"duplicate\"}"));
        // Few enough from each address that none is told to go slower.
        let mut socket = connect_from(Ipv4Addr::new(127, 0, 1, 1 + (replay / 250) as u8), binary.webhook).unwrap();
        socket.write_all(&stale).unwrap();
        assert_eq!(answer(&mut socket).status, 401);
    }
    assert_eq!(binary.metric("kitepush_webhook_rejections_total{reason=\"timestamp_stale\"}"), (number / 2) as f64);
    assert_unharmed(binary, 1);
}

#[test]
fn replays_count_nothing_twice() {
    replays(400);
}

#[test]
#[ignore = "long"]
fn long_replays() {
    replays(10_000);
}

#[test]
fn a_promised_gigabyte_is_refused_at_once_and_compressed_bodies_are_not_inflated() {
    let (_directory, binary) = serve("read_timeout: 30s");
    for length in ["1048577", "1073741824", "99999999999999999999"] {
        // Nothing of the body is sent: who waited for it would hang.
        let head = format!("POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n\r\n");
        let refused = exchange(binary.webhook, head.as_bytes());
        assert!(matches!(refused.status, 413 | 400), "{refused:?} to {length}");
        assert!(length.len() > 19 || refused.status == 413, "{refused:?} to {length}");
    }
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let signature = sign(SECRET.as_bytes(), now(), &bomb);
    for encoding in ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", ""] {
        let headers = [("X-Buildkite-Signature", signature.as_str()), ("Content-Encoding", encoding)];
        assert_eq!(exchange(binary.webhook, &post(&headers, &bomb)).status, 415, "{encoding:?}");
    }
    // Without the header it is what it is: no JSON.
    let headers = [("X-Buildkite-Signature", signature.as_str())];
    assert_eq!(exchange(binary.webhook, &post(&headers, &bomb)).status, 400);
    assert_unharmed(binary, 0);
}

#[test]
fn a_head_longer_than_any_is_refused_before_it_ends() {
    let (_directory, binary) = serve("read_timeout: 30s");
    let good = body(0);
    let signature = sign(SECRET.as_bytes(), now(), good.as_bytes());
    let padding = "x".repeat(12_000);
    let headers = [("X-Buildkite-Signature", signature.as_str()), ("X-Padding", &padding)];
    assert_eq!(exchange(binary.webhook, &post(&headers, good.as_bytes())).status, 200);
    let mut socket = connect(binary.webhook);
    socket.write_all(b"POST /webhook HTTP/1.1\r\nHost: d\r\nX-Endless: ").unwrap();
    // Writes until the other side has had enough.
    while socket.write_all(&[b'x'; 4096]).is_ok() {}
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    assert_eq!(binary.metric("kitepush_webhook_rejections_total{reason=\"body_malformed\"}"), 1.0);
    assert_unharmed(binary, 1);
}

/// Requests that a proxy before us might read as another number of requests than we do. `{inner}` is an authentic one.
const SHAPES: [&str; 26] = [
    "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\nContent-Length: 999\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 0, 0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 0x0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: +0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\n\r\n{inner}",
    "GET /healthz HTTP/1.1\r\nHost: d\r\n\r\n{inner}",
    "GET /healthz HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\nabc{inner}",
    "POST /webhook HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0;x=\"\n\"\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000000\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\nHost: d\nContent-Length: 0\n\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n{inner}",
    "POST /webhook HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n{inner}",
    "CONNECT /webhook HTTP/1.1\r\nHost: d\r\n\r\n{inner}",
];

#[test]
fn a_connection_carries_one_request_however_it_is_framed() {
    let (_directory, binary) = serve("read_timeout: 2s");
    let good = body(0);
    let signature = sign(SECRET.as_bytes(), now(), good.as_bytes());
    let inner = String::from_utf8(post(&[("X-Buildkite-Signature", &signature)], good.as_bytes())).unwrap();
    for shape in SHAPES {
        let mut socket = connect(binary.webhook);
        socket.write_all(shape.replace("{inner}", &inner).as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = socket.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let answers = text.lines().filter(|line| line.starts_with("HTTP/1.") && !line.ends_with(" 100 Continue"));
        // Whatever is left behind the first request is refused unread, if it gets an answer at all.
        assert!(answers.skip(1).all(|line| line == "HTTP/1.1 400 Bad Request"), "{text} to {shape:?}");
        assert!(!text.contains("outcome"), "{text} to {shape:?}");
    }
    assert_eq!(binary.metric(FINISHED), 0.0);
    assert_unharmed(binary, 0);
}

//! The stop sequence, with everybody in the way.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::service::{PING, Service, answer, closes_within, config, connect, post, signed};

#[test]
fn a_stalled_body_and_a_hanging_gateway_do_not_hold_the_stop_and_good_requests_get_their_answer() {
    // Accepts and never answers.
    let gateway = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config();
    config.push.url = Some(format!("http://{}", gateway.local_addr().unwrap()).parse().unwrap());
    config.server.read_timeout = Duration::from_secs(30);
    config.server.shutdown_timeout = Duration::from_secs(3);
    let mut service = Service::start(config);

    let whole = post(&[("X-Buildkite-Signature", &signed(PING))], PING);
    let half = whole.len() - PING.len() / 2;
    let mut good = connect(service.webhook);
    good.write_all(&whole[..half]).unwrap();
    let mut stalled = connect(service.webhook);
    stalled.write_all(&whole[..half]).unwrap();
    let mut headless = connect(service.webhook);
    headless.write_all(b"POST /web").unwrap();
    eventually("three connections", Duration::from_secs(5), || {
        (service.metric("kitepush_webhook_connections") == 3.0).then_some(())
    });

    let start = Instant::now();
    service.tell();
    assert!(closes_within(&mut headless, Duration::from_secs(1)));
    good.write_all(&whole[half..]).unwrap();
    assert_eq!(answer(&mut good).status, 200);
    service.ended().unwrap();
    let took = start.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_millis(4000)).contains(&took), "{took:?}");
    assert!(closes_within(&mut stalled, Duration::from_secs(1)));
}

#[test]
fn an_idle_service_stops_at_once() {
    let mut service = Service::start(config());
    assert_eq!(service.deliver(PING).status, 200);
    let start = Instant::now();
    service.ended().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn readiness_goes_first_and_webhooks_are_taken_during_the_delay_which_a_second_signal_ends() {
    let mut config = config();
    config.server.shutdown_delay = Duration::from_secs(60);
    let mut service = Service::start(config);
    assert_eq!(service.ask("/readyz").status, 200);
    service.tell();
    let unready = eventually("readiness to end", Duration::from_secs(5), || {
        let answer = service.ask("/readyz");
        (answer.status == 503).then_some(answer)
    });
    assert!(unready.body.contains("\"stopping\""), "{unready:?}");
    assert_eq!(service.ask("/healthz").status, 200);
    assert_eq!(service.deliver(PING).status, 200);
    assert!(!service.has_ended());
    let start = Instant::now();
    service.tell_again();
    service.ended().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

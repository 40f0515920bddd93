//! The gateway is away for a while.

use std::time::{Duration, Instant};

use crate::support::builds::{build_finished, finished_key};
use crate::support::holding::held;
use crate::support::kitepush::{LIMIT, Setup};
use crate::support::server::{pushgateway, pushgateway_again};
use crate::support::{eventually, http};

#[test]
fn webhooks_are_taken_readiness_says_so_and_the_first_push_afterwards_carries_everything() {
    let gateway = pushgateway();
    let address = gateway.address;
    let folder = tempfile::tempdir().unwrap();
    let kitepush = Setup::pushing_to(address).with_state(&folder.path().join("state.db")).start();
    assert_eq!(kitepush.take(build_finished("before", 0)), "accepted");
    eventually("a push", LIMIT, || held(&gateway, "a").get(&finished_key("before")).copied());
    assert_eq!(kitepush.readiness().0, "ready");

    drop(gateway);
    let trouble = kitepush.trouble("gateway");
    assert!(trouble.contains(&address.to_string()), "{trouble}");
    for number in 0..60 {
        let began = Instant::now();
        assert_eq!(kitepush.take(build_finished(&format!("away-{}", number % 20), number)), "accepted");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    assert_eq!(kitepush.readiness().0, "degraded");
    assert_eq!(http::get(&format!("http://{}/healthz", kitepush.webhook)).unwrap().status, 200);

    let gateway = pushgateway_again(address);
    let first = eventually("the first push", LIMIT, || Some(held(&gateway, "a")).filter(|held| !held.is_empty()));
    assert_eq!(first.get(&finished_key("before")), Some(&1.0));
    for pipeline in 0..20 {
        assert_eq!(first.get(&finished_key(&format!("away-{pipeline}"))), Some(&3.0), "away-{pipeline}");
    }
    kitepush.wait_until_ready();
    assert!(kitepush.logged("cannot connect") <= 2, "{}", kitepush.log());
}

#[test]
fn a_gateway_that_comes_back_empty_in_the_middle_of_a_hold_shows_zeros_for_a_whole_hold_again() {
    let gateway = pushgateway();
    let address = gateway.address;
    let kitepush = Setup::pushing_to(address).with("push.zero_hold", "3s").start();
    kitepush.take(build_finished("p", 0));
    let passed = finished_key("p");
    assert_eq!(eventually("zeros", LIMIT, || held(&gateway, "a").get(&passed).copied()), 0.0);
    let exposed = Instant::now();
    drop(gateway);
    kitepush.trouble("gateway");
    eventually("the time of the hold to pass", LIMIT, || (exposed.elapsed() > Duration::from_secs(4)).then_some(()));
    let gateway = pushgateway_again(address);
    let first = eventually("the first push", LIMIT, || held(&gateway, "a").get(&passed).copied());
    assert_eq!(first, 0.0, "Prometheus may not have seen a zero yet");
    eventually("the value", LIMIT, || (held(&gateway, "a").get(&passed) == Some(&1.0)).then_some(()));
}

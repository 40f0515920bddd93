//! Totals read back from the gateway, what is there before the first failure, and two who push to one group.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use kitepush::demo::history::truth::FAMILIES;
use kitepush::demo::history::{History, Size};
use kitepush::event::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::builds::{body, build_finished, finished_key};
use crate::support::eventually;
use crate::support::holding::{gone_back, held};
use crate::support::kitepush::{LIMIT, Setup};
use crate::support::sender::Sender;
use crate::support::server::{Ready, Server, pushgateway, pushgateway_again};

#[test]
fn without_a_state_file_or_with_a_new_one_the_gateways_totals_come_back_bit_by_bit() {
    for keeps in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let gateway = pushgateway();
        let setup = |run: &str| {
            let setup = Setup::pushing_to(gateway.address).with("labels.constant", json!({"site": "a \"b\""}));
            if keeps { setup.with_state(&folder.path().join(run)) } else { setup }
        };
        let kitepush = setup("first.db").start();
        let history = History::generate(5, Size::builds(20), Timestamp::now());
        let sender = Sender::default();
        sender.aim(kitepush.webhook);
        sender.send(&history.deliveries.iter().map(|delivery| delivery.body.as_str()).collect::<Vec<_>>());
        kitepush.stop();
        let before = held(&gateway, "a");
        assert!(before.len() > 500, "{}", before.len());

        let kitepush = setup("second.db").start();
        kitepush.take(build_finished("another", 0));
        kitepush.wait_for_pushes(2.0);
        assert_eq!(kitepush.logged("totals of an earlier run are taken from the gateway"), 1, "{}", kitepush.log());
        kitepush.stop();
        let after = held(&gateway, "a");
        let is_total = |key: &str| FAMILIES.iter().any(|family| key.starts_with(family));
        for (key, value) in before.iter().filter(|(key, _)| is_total(key)) {
            assert_eq!(after.get(key).map(|value| value.to_bits()), Some(value.to_bits()), "{key}");
        }
        let new = after.keys().filter(|key| !before.contains_key(*key));
        assert!(new.clone().all(|key| key.contains("pipeline=\"another\"")), "{:?}", new.collect::<Vec<_>>());
    }
}

#[test]
fn totals_counted_before_the_restore_are_added_to_it_and_the_first_push_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (address, before) = five_builds_saved(folder.path());
    for state in [None, Some("fresh.db")] {
        let setup = Setup::pushing_to(address);
        let setup = if let Some(name) = state { setup.with_state(&folder.path().join(name)) } else { setup };
        let kitepush = setup.start();
        for number in 5..8 {
            assert_eq!(kitepush.take(build_finished("p", number)), "accepted");
        }
        let trouble = kitepush.trouble("restore");
        assert!(trouble.contains("cannot connect"), "{trouble}");
        let gateway = started_again(address, folder.path());
        eventually("the sum of both", LIMIT, || {
            let now = held(&gateway, "a");
            assert_eq!(gone_back(&before, &now), [""; 0]);
            (now[&finished_key("p")] == 8.0).then_some(())
        });
        kitepush.wait_until_ready();
        // Killed without a word, the gateway forgets what came after its last save.
        kitepush.kill();
    }
}

#[test]
fn a_disk_that_refuses_them_holds_up_the_pushes_so_that_the_gateway_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let (address, before) = five_builds_saved(folder.path());
    let setup = Setup::pushing_to(address).with_state(&folder.path().join("state.db"));
    let kitepush = setup.ignoring_size_limit().start();
    kitepush.trouble("restore");
    kitepush.limit_files(Some(1));
    let gateway = started_again(address, folder.path());
    kitepush.trouble("store");
    kitepush.take(build_finished("p", 5));
    eventually("refusals", LIMIT, || {
        (kitepush.metric("kitepush_ledger_commits_total{outcome=\"failed\"}") >= 3.0).then_some(())
    });
    assert_eq!(kitepush.metric("kitepush_pushes_total{outcome=\"ok\"}"), 0.0);
    assert_eq!(held(&gateway, "a"), before);
    kitepush.limit_files(None);
    kitepush.wait_until_ready();
    eventually("the sum of both", LIMIT, || (held(&gateway, "a")[&finished_key("p")] == 6.0).then_some(()));
    assert_eq!(gone_back(&before, &held(&gateway, "a")), [""; 0]);
}

/// A gateway that got five builds, saved them to `folder` and is gone: its address, and what it held.
fn five_builds_saved(folder: &Path) -> (SocketAddr, BTreeMap<String, f64>) {
    let gateway = Server::start(GATEWAY, READY, |address, _| kept(address, folder));
    let kitepush = Setup::pushing_to(gateway.address).start();
    for number in 0..5 {
        kitepush.take(build_finished("p", number));
    }
    kitepush.stop();
    let held = held(&gateway, "a");
    assert_eq!(held[&finished_key("p")], 5.0);
    // SIGTERM, so that it saves.
    kill_process(Pid::from_raw(gateway.pid().cast_signed()).unwrap(), Signal::TERM).unwrap();
    eventually("the gateway to go", LIMIT, || TcpStream::connect(gateway.address).is_err().then_some(()));
    let saved = folder.join("saved");
    eventually("the gateway to save", LIMIT, || saved.metadata().is_ok_and(|file| file.len() > 0).then_some(()));
    (gateway.address, held)
}

fn started_again(address: SocketAddr, folder: &Path) -> Server {
    let again = Server::start_at(GATEWAY, READY, address, &mut |address, _| kept(address, folder));
    again.expect("the port of before is free")
}

const GATEWAY: &str = "prometheus-pushgateway";
const READY: Ready = Ready::Path("/-/ready");

fn kept(address: SocketAddr, folder: &Path) -> Vec<String> {
    let file = folder.join("saved");
    vec![
        format!("--web.listen-address={address}"),
        format!("--persistence.file={}", file.display()),
        "--persistence.interval=1h".to_owned(),
    ]
}

#[test]
fn a_restore_that_was_committed_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = pushgateway();
    let kitepush = Setup::pushing_to(gateway.address).start();
    kitepush.take(build_finished("p", 0));
    kitepush.stop();
    let setup = Setup::pushing_to(gateway.address).with_state(&folder.path().join("state.db"));
    for _ in 0..3 {
        let kitepush = setup.start();
        kitepush.wait_for_pushes(2.0);
        assert_eq!(held(&gateway, "a")[&finished_key("p")], 1.0);
        kitepush.kill();
    }
    // Nor does a ledger take its own totals that counted before it knew that there was nothing to take.
    let address = gateway.address;
    drop(gateway);
    let setup = Setup::pushing_to(address).with_state(&folder.path().join("another.db"));
    let kitepush = setup.start();
    kitepush.take(build_finished("q", 0));
    kitepush.trouble("restore");
    let gateway = pushgateway_again(address);
    let shown = || held(&gateway, "a").get(&finished_key("q")).copied();
    assert_eq!(eventually("the first push", LIMIT, shown), 1.0);
    kitepush.kill();
    let kitepush = setup.start();
    kitepush.wait_for_pushes(2.0);
    assert_eq!(shown(), Some(1.0));
}

#[test]
fn totals_of_another_layout_are_not_taken_from_the_gateway_and_that_is_said() {
    let gateway = pushgateway();
    let kitepush = Setup::pushing_to(gateway.address).start();
    kitepush.take(build_finished("p", 0));
    kitepush.stop();
    let buckets = json!({"buildkite_build_duration_seconds": {"buckets": [60, 600]}});
    let kitepush = Setup::pushing_to(gateway.address).with("families", buckets).start();
    kitepush.wait_for_pushes(1.0);
    let line = "counted with other labels or buckets: they start again at zero";
    assert_eq!(kitepush.logged(line), 1, "{}", kitepush.log());
    let now = held(&gateway, "a");
    assert_eq!(now[&finished_key("p")], 1.0);
    assert!(!now.keys().any(|key| key.contains("duration_seconds_count") && now[key] > 0.0), "{now:?}");
}

#[test]
fn the_first_event_of_a_pipeline_brings_the_usual_ends_as_zeros() {
    let gateway = pushgateway();
    let kitepush = Setup::pushing_to(gateway.address).start();
    kitepush.take(build_finished("p", 0));
    let job = include_str!("../../webhook-fixtures/job-finished.json");
    kitepush.take(job);
    let now = eventually("a push", LIMIT, || {
        let now = held(&gateway, "a");
        let jobs = now.keys().any(|key| key.starts_with("buildkite_jobs_finished_total"));
        (jobs && now.contains_key(&finished_key("p"))).then_some(now)
    });
    for state in ["failed", "canceled"] {
        assert_eq!(now[&finished_key("p").replace("passed", state)], 0.0);
        let jobs: Vec<_> = now.iter().filter(|(key, _)| key.starts_with("buildkite_jobs_finished_total")).collect();
        let of_state = jobs.iter().find(|(key, _)| key.contains(&format!("state=\"{state}\"")));
        assert_eq!(of_state.map(|(_, value)| **value), Some(0.0), "{jobs:?}");
    }
    kitepush.take(body("p", 1, |body| body["build"]["state"] = "failed".into()));
    let failed = finished_key("p").replace("passed", "failed");
    eventually("the first failure", LIMIT, || (held(&gateway, "a")[&failed] == 1.0).then_some(()));
}

#[test]
fn two_that_push_to_one_group_both_say_so() {
    let gateway = pushgateway();
    let pair = [Setup::pushing_to(gateway.address).start(), Setup::pushing_to(gateway.address).start()];
    pair[0].take(build_finished("p", 0));
    for kitepush in &pair {
        let trouble = kitepush.trouble("second_writer");
        assert!(trouble.contains("push.instance"), "{trouble}");
        assert!(kitepush.metric("kitepush_anomalies_total{kind=\"second_writer\"}") >= 1.0);
        assert_eq!(kitepush.logged("another process pushes to the same group"), 1, "{}", kitepush.log());
    }
}

//! SIGTERM to the real process, with everybody in the way: load, a disk that stands still, a stalled body, a gateway that
//! hangs.

use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::builds::build_finished;
use crate::support::eventually;
use crate::support::kitepush::{LIMIT, Setup, deliver};
use crate::support::service::{PING, connect, post, signed};
use crate::support::slow_disk::Gate;
use crate::support::sqlite;
use crate::support::stub::{Reply, Stub};

const SENDERS: usize = 12;

#[test]
fn requests_in_flight_get_their_answer_and_the_process_ends_in_time_with_zero() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let (gateway, gate) = (Stub::start(|_| Reply::Hang), Gate::new());
    let timeout = Duration::from_secs(6);
    let setup = Setup::pushing_to(gateway.address).with_state(&state).with_disk_behind(&gate);
    let setup = setup.with("server.shutdown_timeout", "6s").with("server.read_timeout", "60s");
    let kitepush = setup.start();
    let whole = post(&[("X-Buildkite-Signature", &signed(PING))], PING);
    let mut stalled = connect(kitepush.webhook);
    stalled.write_all(&whole[..whole.len() - 1]).unwrap();

    let (answers, told) = (Mutex::new(Vec::new()), Mutex::new(None));
    let webhook = kitepush.webhook;
    let took = std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let answers = &answers;
            scope.spawn(move || {
                for number in 0.. {
                    let began = Instant::now();
                    let answer = deliver(webhook, build_finished(&format!("p{sender}"), number).as_bytes());
                    let status = answer.map(|answer| answer.status);
                    let goes_on = matches!(status, Ok(200));
                    answers.lock().unwrap().push((began, status));
                    if !goes_on {
                        return;
                    }
                }
            });
        }
        eventually("load", LIMIT, || (answers.lock().unwrap().len() > 10 * SENDERS).then_some(()));
        gate.shut();
        eventually("requests in flight", LIMIT, || {
            (kitepush.metric("kitepush_webhook_connections") >= (SENDERS + 1) as f64).then_some(())
        });
        *told.lock().unwrap() = Some(Instant::now());
        kitepush.terminate();
        eventually("the stop", LIMIT, || (kitepush.logged("stopping") > 0).then_some(()));
        gate.open();
        let ended = kitepush.wait();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
        assert!(ended.log.contains("final push failed"), "{}", ended.log);
        told.lock().unwrap().unwrap().elapsed()
    });
    assert!(took < timeout + Duration::from_secs(1), "{took:?}");

    let told = told.into_inner().unwrap().unwrap();
    let answers = answers.into_inner().unwrap();
    let before: Vec<_> = answers.iter().filter(|(began, _)| *began < told).collect();
    let good = before.iter().filter(|(_, status)| matches!(status, Ok(200))).count();
    assert_eq!(good, before.len(), "{before:?}");
    // Each sender had one in flight when it was told.
    assert!(before.len() > 11 * SENDERS, "{}", before.len());
    let taken = answers.iter().filter(|(_, status)| matches!(status, Ok(200))).count();
    let stored = "SELECT sum(count) FROM series WHERE family = 'buildkite_builds_finished_total'";
    assert_eq!(sqlite(&state, stored), taken.to_string(), "200 is what was committed");
}

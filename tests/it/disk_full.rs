//! The disk refuses: nothing is lost once it is back, and nobody is told 200 for what there is no room for.
//!
//! A limit on the size of files stands for a full disk: it can be set on a running process, and lifted again.

use crate::support::builds::{build_finished, finished_key};
use crate::support::eventually;
use crate::support::holding::held;
use crate::support::kitepush::{Kitepush, LIMIT, Setup};
use crate::support::server::pushgateway;
use crate::support::sqlite;

const BACKLOG: usize = 40;

fn deliver(kitepush: &Kitepush, builds: std::ops::Range<usize>) -> Vec<String> {
    builds.map(|number| kitepush.take(build_finished("p", number))).collect()
}

#[test]
fn a_full_disk_is_told_once_and_nothing_is_lost_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let gateway = pushgateway();
    let setup = Setup::pushing_to(gateway.address).with_state(&state).with("state.max_backlog", BACKLOG);
    let kitepush = setup.ignoring_size_limit().start();
    let passed = finished_key("p");
    let shown = || held(&gateway, "a").get(&passed).copied().unwrap_or(0.0);
    assert_eq!(deliver(&kitepush, 0..10), ["accepted"; 10]);
    eventually("ten builds on the gateway", LIMIT, || (shown() == 10.0).then_some(()));

    kitepush.limit_files(Some(1));
    assert_eq!(deliver(&kitepush, 10..11), ["accepted"]);
    assert_eq!(deliver(&kitepush, 0..11), ["duplicate"; 11], "there is nothing to keep of what is known");
    assert_eq!(deliver(&kitepush, 11..10 + BACKLOG), ["accepted"; BACKLOG - 1]);
    let trouble = kitepush.trouble("store");
    assert!(trouble.contains("in memory only") && trouble.contains("state.db"), "{trouble}");
    for number in 50..70 {
        let answer = kitepush.deliver(build_finished("p", number));
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    }
    assert_eq!(kitepush.metric("kitepush_ledger_backlog_events"), BACKLOG as f64);
    eventually("some more refusals", LIMIT, || {
        (kitepush.metric("kitepush_ledger_commits_total{outcome=\"failed\"}") >= 3.0).then_some(())
    });
    kitepush.wait_for_pushes(2.0);
    assert_eq!(shown(), 10.0, "what a crash would take back is not shown");
    assert_eq!(kitepush.logged("the disk refuses"), 1, "{}", kitepush.log());

    kitepush.limit_files(None);
    kitepush.wait_until_ready();
    assert_eq!(kitepush.logged("the disk is back"), 1, "{}", kitepush.log());
    assert_eq!(kitepush.metric("kitepush_ledger_backlog_events"), 0.0);
    for number in 0..70 {
        let expected = if number >= 50 { "accepted" } else { "duplicate" };
        assert_eq!(kitepush.take(build_finished("p", number)), expected, "{number}");
    }
    eventually("all builds on the gateway", LIMIT, || (shown() == 70.0).then_some(()));
    kitepush.stop();
    assert_eq!(shown(), 70.0);
    assert_eq!(sqlite(&state, "PRAGMA integrity_check"), "ok");
    let stored = "SELECT count FROM totals WHERE family = 'buildkite_builds_finished_total' AND labels LIKE '%passed%'";
    assert_eq!(sqlite(&state, stored), "70");
}

#[test]
fn a_crash_while_the_disk_refuses_takes_nothing_back_that_was_shown_and_a_repeat_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let gateway = pushgateway();
    let setup = Setup::pushing_to(gateway.address).with_state(&state).with("push.zero_hold", "1s");
    let kitepush = setup.clone().ignoring_size_limit().start();
    let passed = finished_key("p");
    let shown = || held(&gateway, "a").get(&passed).copied().unwrap_or(0.0);
    deliver(&kitepush, 0..5);
    eventually("the end of the hold", LIMIT, || (shown() == 5.0).then_some(()));
    kitepush.limit_files(Some(1));
    deliver(&kitepush, 5..15);
    // Of a pipeline that the disk has never heard of, too.
    kitepush.take(build_finished("q", 0));
    kitepush.wait_for_pushes(4.0);
    assert_eq!(shown(), 5.0);
    assert_eq!(held(&gateway, "a").get(&finished_key("q")).copied().unwrap_or(0.0), 0.0);
    kitepush.kill();

    let kitepush = setup.start();
    kitepush.wait_for_pushes(2.0);
    assert_eq!(shown(), 5.0, "what was released stays released");
    deliver(&kitepush, 0..15);
    kitepush.take(build_finished("q", 0));
    eventually("everything", LIMIT, || {
        (shown() == 15.0 && held(&gateway, "a").get(&finished_key("q")) == Some(&1.0)).then_some(())
    });
    kitepush.stop();
    assert_eq!(sqlite(&state, "PRAGMA integrity_check"), "ok");
}

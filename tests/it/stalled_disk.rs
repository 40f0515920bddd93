//! The disk neither takes nor refuses: it stands still.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::builds::{build_finished, finished_key};
use crate::support::holding::held;
use crate::support::kitepush::{LIMIT, Setup};
use crate::support::server::pushgateway;
use crate::support::slow_disk::Gate;
use crate::support::{eventually, sqlite};

#[test]
fn a_commit_slower_than_four_seconds_is_503_and_a_later_repeat_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, gate) = (pushgateway(), Gate::new());
    let setup = Setup::pushing_to(gateway.address).with_state(&folder.path().join("state.db"));
    let kitepush = setup.with_disk_behind(&gate).start();
    assert_eq!(kitepush.take(build_finished("p", 0)), "accepted");
    gate.shut();
    let began = Instant::now();
    let answers: Vec<_> = std::thread::scope(|scope| {
        // The first is in the commit that stands still, the others wait in the queue behind it.
        let send = |number| {
            scope.spawn({
                let kitepush = &kitepush;
                move || kitepush.deliver(build_finished("p", number))
            })
        };
        let sent: Vec<_> = (1..6).map(send).collect();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    assert!(began.elapsed() >= Duration::from_millis(3900), "{:?}", began.elapsed());
    for answer in &answers {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
        assert_eq!(answer.json()["error"], "overloaded");
    }
    assert_eq!(kitepush.ask("/healthz").status, 200);
    gate.open();
    for number in 0..6 {
        // The commit came through after all, or the queue did: counted once, whatever became of the answer.
        assert_eq!(kitepush.take(build_finished("p", number)), "duplicate", "{number}");
    }
    eventually("six builds", LIMIT, || (held(&gateway, "a").get(&finished_key("p")) == Some(&6.0)).then_some(()));
    kitepush.stop();
    assert_eq!(held(&gateway, "a")[&finished_key("p")], 6.0);
}

#[test]
fn the_end_of_a_hold_is_not_shown_before_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let (gateway, gate) = (pushgateway(), Gate::new());
    let setup = Setup::pushing_to(gateway.address).with_state(&state).with("push.zero_hold", "3s");
    let setup = setup.with_disk_behind(&gate);
    let kitepush = setup.start();
    kitepush.take(build_finished("p", 0));
    let shown = || held(&gateway, "a").get(&finished_key("p")).copied();
    eventually("zeros", LIMIT, shown);
    gate.shut();
    let exposed = Instant::now();
    // Each push waits two seconds for the ledger and then goes on without it; by then the hold is over.
    eventually("pushes beyond the hold", LIMIT, || {
        kitepush.wait_for_pushes(1.0);
        assert_eq!(shown(), Some(0.0));
        (exposed.elapsed() > Duration::from_secs(9)).then_some(())
    });
    kitepush.kill();
    gate.open();
    let kitepush = setup.start();
    kitepush.wait_for_pushes(1.0);
    eventually("the value after a hold of its own", LIMIT, || (shown() == Some(1.0)).then_some(()));
    kitepush.stop();
    assert_eq!(sqlite(&state, "SELECT min(released) FROM series WHERE count > 0"), "1");
}

#[test]
fn a_file_that_somebody_else_locks_is_a_disk_that_refuses_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let gateway = pushgateway();
    let kitepush = Setup::pushing_to(gateway.address).with_state(&state).start();
    kitepush.take(build_finished("p", 0));
    let lock = Locked::new(&state);
    for number in 0..5 {
        assert_eq!(kitepush.take(build_finished("p", number)), if number == 0 { "duplicate" } else { "accepted" });
    }
    assert!(kitepush.trouble("store").contains("locked"));
    drop(lock);
    kitepush.wait_until_ready();
    assert_eq!(kitepush.logged("the disk refuses"), 1, "{}", kitepush.log());
    eventually("five builds", LIMIT, || (held(&gateway, "a").get(&finished_key("p")) == Some(&5.0)).then_some(()));
}

/// A `sqlite3` that holds the file for itself.
struct Locked(Child);

impl Locked {
    fn new(file: &Path) -> Self {
        let mut child = Command::new("sqlite3").arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"BEGIN EXCLUSIVE;\nSELECT 'locked';\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! The state file: one process, one version, one layout, and what becomes of a damaged one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::builds::{build_finished, finished_key, key};
use crate::support::holding::held;
use crate::support::kitepush::{LIMIT, Setup};
use crate::support::server::pushgateway;
use crate::support::{eventually, sqlite};

fn passed(state: &Path) -> String {
    sqlite(state, "SELECT count FROM totals WHERE family LIKE '%builds_finished_total' AND labels LIKE '%passed%'")
}

#[test]
fn a_second_process_is_refused_while_sqlite3_may_read() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let setup = Setup::new().with_state(&state);
    let first = setup.start();
    first.take(build_finished("p", 0));
    let refused = setup.try_start().err().expect("refused");
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.log.contains("another kitepush is using this file"), "{}", refused.log);
    assert!(refused.log.contains("state.path") && refused.log.contains("state.db"), "{}", refused.log);
    assert_eq!(passed(&state), "1");
    first.take(build_finished("p", 1));
    assert_eq!(passed(&state), "2");
    first.kill();
    // The kernel gives the lock back, however a process ends.
    let next = setup.start();
    assert_eq!(next.take(build_finished("p", 1)), "duplicate");
    next.stop();
}

#[test]
fn a_file_of_a_later_major_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let setup = Setup::new().with_state(&state);
    let kitepush = setup.start();
    kitepush.take(build_finished("p", 0));
    kitepush.stop();
    sqlite(&state, "PRAGMA user_version = 99");
    let before = fs::read(&state).unwrap();
    let refused = setup.try_start().err().expect("refused");
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.log.contains("later kitepush") && refused.log.contains("99"), "{}", refused.log);
    assert_eq!(fs::read(&state).unwrap(), before);
    sqlite(&state, "PRAGMA user_version = 1");
    assert_eq!(setup.start().take(build_finished("p", 0)), "duplicate");
}

#[test]
fn a_file_that_is_somebody_elses_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (notes, database) = (folder.path().join("notes.txt"), folder.path().join("other.db"));
    fs::write(&notes, "not to be lost").unwrap();
    sqlite(&database, "CREATE TABLE users (name)");
    for state in [notes, database] {
        let before = fs::read(&state).unwrap();
        let refused = Setup::new().with_state(&state).try_start().err().expect("refused");
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.log.contains("not a state file of kitepush; it is left alone"), "{}", refused.log);
        assert_eq!(fs::read(&state).unwrap(), before);
        let stands = |ending: &str| PathBuf::from(format!("{}{ending}", state.display())).exists();
        assert!(!stands(".lock") && !stands("-wal"));
    }
}

#[test]
fn a_copy_of_a_state_file_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (state, copy) = (folder.path().join("state.db"), folder.path().join("copy.db"));
    let first = Setup::new().with_state(&state).start();
    first.take(build_finished("p", 0));
    sqlite(&state, &format!(".backup '{}'", copy.display()));
    first.stop();
    let second = Setup::new().with_state(&copy).start();
    assert_eq!(second.take(build_finished("p", 0)), "duplicate");
    second.stop();
}

#[test]
fn a_damaged_file_is_set_aside_and_totals_go_on_from_the_gateway() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("no header", |file| file[..100].fill(0xa5)),
        ("pages of nonsense", |file| file[4096..].fill(0xa5)),
        ("cut off", |file| file.truncate(6000)),
        ("text", |file| *file = b"this is no database\n".repeat(500)),
    ];
    for (name, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.db");
        let gateway = pushgateway();
        let setup = Setup::pushing_to(gateway.address).with_state(&state);
        let kitepush = setup.start();
        for number in 0..30 {
            kitepush.take(build_finished("p", number));
        }
        kitepush.stop();
        let before = held(&gateway, "a");
        assert_eq!(before[&finished_key("p")], 30.0);
        let mut file = fs::read(&state).unwrap();
        damage(&mut file);
        fs::write(&state, &file).unwrap();

        let kitepush = setup.start();
        assert_eq!(kitepush.logged("was damaged; it was set aside as"), 1, "{name}: {}", kitepush.log());
        let trouble = kitepush.trouble("store");
        assert!(trouble.contains("state.db.damaged-"), "{name}: {trouble}");
        let aside = set_aside(folder.path());
        assert_eq!(fs::read(&aside).unwrap(), file, "{name}");
        kitepush.wait_for_pushes(1.0);
        assert_eq!(held(&gateway, "a")[&finished_key("p")], 30.0, "{name}");
        kitepush.take(build_finished("p", 30));
        eventually("one more", LIMIT, || (held(&gateway, "a")[&finished_key("p")] == 31.0).then_some(()));
        kitepush.stop();
        assert_eq!(passed(&state), "31", "{name}");
    }
}

fn set_aside(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut aside: Vec<_> = files.filter(|file| file.to_string_lossy().contains("state.db.damaged-")).collect();
    aside.retain(|file| !file.to_string_lossy().ends_with("-wal") && !file.to_string_lossy().ends_with("-shm"));
    assert_eq!(aside.len(), 1, "{aside:?}");
    aside.remove(0)
}

#[test]
fn a_family_of_another_layout_starts_again_at_zero_under_a_new_hold_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = pushgateway();
    let setup = Setup::pushing_to(gateway.address).with_state(&folder.path().join("state.db"));
    let setup = setup.with("push.zero_hold", "2s");
    let kitepush = setup.start();
    kitepush.take(build_finished("p", 0));
    let count = key("buildkite_build_duration_seconds_count", "p", "");
    let shown = |key: &str| held(&gateway, "a").get(key).copied();
    eventually("the end of the hold", LIMIT, || (shown(&count) == Some(1.0)).then_some(()));
    kitepush.stop();

    let buckets = json!({"buildkite_build_duration_seconds": {"buckets": [60, 600]}});
    let kitepush = setup.with("families", buckets).start();
    assert_eq!(kitepush.logged("were reconfigured: its totals start again at zero"), 1, "{}", kitepush.log());
    assert_eq!(kitepush.logged("buildkite_build_duration_seconds"), 1, "{}", kitepush.log());
    kitepush.take(build_finished("p", 0));
    kitepush.take(build_finished("p", 1));
    let bucket = |le| shown(&key("buildkite_build_duration_seconds_bucket", "p", le));
    eventually("zeros of the new layout", LIMIT, || (bucket("600") == Some(0.0)).then_some(()));
    assert_eq!((shown(&count), bucket("300")), (Some(0.0), None));
    assert_eq!(shown(&finished_key("p")), Some(2.0), "the other families go on");
    eventually("its first build", LIMIT, || (shown(&count) == Some(1.0)).then_some(()));
    assert_eq!((bucket("60"), bucket("600")), (Some(0.0), Some(1.0)));
}

//! A rotation as Kubernetes makes it, under load: both secrets valid, the sender switches, the old one is withdrawn. No
//! authentic delivery is refused at any moment, and the metrics say when the old secret is no longer used.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use kitepush::webhook::signature::Key;

use crate::support::binary::{Binary, configured};
use crate::support::eventually;
use crate::support::service::PING;

const OLD: &str = "the old secret of the rotation";
const NEW: &str = "the new secret of the rotation";
/// Longer than a change takes to be seen.
const SOON: Duration = Duration::from_secs(20);

/// A secret volume: the files are links through `..data`, which is swapped.
fn mount(volume: &Path, version: &str, files: &[(&str, &str)]) {
    std::fs::create_dir_all(volume.join(version)).unwrap();
    for (name, content) in files {
        std::fs::write(volume.join(version).join(name), content).unwrap();
    }
    symlink(version, volume.join("..data_tmp")).unwrap();
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    // The kubelet adds links for new files after the swap and removes those of withdrawn ones.
    for (name, _) in files {
        let link = volume.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    for entry in std::fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        if !entry.starts_with('.') && !files.iter().any(|(name, _)| *name == entry) {
            std::fs::remove_file(volume.join(entry)).unwrap();
        }
    }
}

#[test]
fn no_authentic_delivery_is_refused_while_secrets_are_exchanged_under_load() {
    let directory = configured("");
    let volume = directory.path().join("webhook");
    mount(&volume, "..v1", &[("old", OLD)]);
    let yaml = format!(
        "server: {{listen: '127.0.0.1:0', workers: 1}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
         auth: {{secret_files: ['{}']}}\n",
        volume.display()
    );
    std::fs::write(directory.path().join("kitepush.yaml"), yaml).unwrap();
    let binary = Binary::serve(directory.path());

    let secret = RwLock::new(OLD);
    let (taken, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let matches = |secret: &str| {
        let id = *Key::new(secret.as_bytes()).id();
        binary.metric(&format!("kitepush_secret_matches_total{{secret=\"{}\"}}", id.as_str()))
    };
    let more = |number: usize| {
        let before = taken.load(Relaxed);
        eventually("more deliveries", SOON, || (taken.load(Relaxed) >= before + number).then_some(()));
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let secret = secret.read().unwrap();
                    let answer = binary.deliver(*secret, PING);
                    if answer.status != 200 {
                        done.store(true, Relaxed);
                        panic!("{answer:?} for {}", *secret);
                    }
                    taken.fetch_add(1, Relaxed);
                }
            });
        }
        more(20);
        assert_eq!(binary.deliver(NEW, PING).status, 401);
        mount(&volume, "..v2", &[("old", OLD), ("new", NEW)]);
        eventually("the new secret beside the old one", SOON, || {
            (binary.deliver(NEW, PING).status == 200).then_some(())
        });
        more(20);
        // The lock is had when nothing is under way with the old secret.
        *secret.write().unwrap() = NEW;
        let unused = matches(OLD);
        let before = matches(NEW);
        more(40);
        assert_eq!(matches(OLD), unused, "the old secret is no longer used");
        assert!(matches(NEW) > before);
        mount(&volume, "..v3", &[("new", NEW)]);
        eventually("the old secret's end", SOON, || (binary.deliver(OLD, PING).status == 401).then_some(()));
        more(20);
        done.store(true, Relaxed);
    });
    assert!(taken.into_inner() >= 100);
    let log = binary.stop();
    assert_eq!(log.matches("webhook secrets exchanged").count(), 2, "{log}");
}

//! What the tests share: real servers that are gone when a test is, the least of HTTP to ask them with, certificates.

// Not every helper is used by every test.
#![allow(dead_code)]

pub(crate) mod binary;
pub(crate) mod builds;
pub(crate) mod certs;
pub(crate) mod counting;
pub(crate) mod holding;
pub(crate) mod http;
pub(crate) mod kitepush;
pub(crate) mod pushing;
pub(crate) mod sender;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod slow_disk;
pub(crate) mod stub;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Asks again and again until there is an answer. Panics after `limit` with `what` was waited for.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What Debian's `sqlite3`, a reader of its own, says about a file.
pub(crate) fn sqlite(file: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(file).arg(sql).output().expect("apt-get install sqlite3");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

//! A disk that stands still when a test says so.

use std::fs::File;
use std::process::Command;

use tempfile::TempDir;

/// Between a kitepush and its disk. Open at first.
pub(crate) struct Gate {
    directory: TempDir,
}

impl Gate {
    /// Made by the C compiler that SQLite is built with, too.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/slow_disk.c");
        let library = directory.path().join("slow_disk.so");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(made.unwrap().success(), "cc cannot compile {source}");
        Self { directory }
    }

    /// From now on nothing is committed: what is written to the write-ahead log waits, and every sync.
    pub(crate) fn shut(&self) {
        File::create(self.file()).unwrap();
    }

    /// Lets everything through.
    pub(crate) fn open(&self) {
        std::fs::remove_file(self.file()).unwrap();
    }

    pub(super) fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        [("LD_PRELOAD", text(self.directory.path().join("slow_disk.so"))), ("SLOW_DISK_GATE", text(self.file()))]
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("shut")
    }
}

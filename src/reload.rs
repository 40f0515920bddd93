//! Files that change while the process runs: a thread that looks at them again and again.
//!
//! Polling sees what notifications of the file system miss: symlinks swapped two levels up, network file systems, and
//! bind mounts.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Two looks make a change; so secrets and certificates are exchanged within seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// What to look at.
pub type Look = Box<dyn Fn() + Send>;

/// Looks until it is dropped.
pub struct Reloader {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reloader {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub fn start(looks: Vec<Look>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("reload".to_owned()).spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                looks.iter().for_each(|look| look());
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reloader {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It panicked, or it ends: either way there is nothing left to look at.
            let _ = thread.join();
        }
    }
}

//! Buildkite's part under load: each delivery is sent again until it is answered 200.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::eventually;
use super::kitepush::deliver;

const LIMIT: Duration = Duration::from_secs(120);
/// Deliveries under way.
pub(crate) const AT_ONCE: usize = 8;

/// Who is sent to, and how far it is.
#[derive(Default)]
pub(crate) struct Sender {
    target: Mutex<Option<SocketAddr>>,
    next: AtomicUsize,
    answered: AtomicUsize,
    broken: AtomicUsize,
    /// How many may be sent; none: all.
    allowed: Mutex<Option<usize>>,
}

impl Sender {
    /// Where to send to from now on.
    pub(crate) fn aim(&self, webhook: SocketAddr) {
        *self.target.lock().unwrap() = Some(webhook);
    }

    /// Waits before it sends more than that, so that a test that acts in between finds it at work.
    pub(crate) fn allow(&self, deliveries: Option<usize>) {
        *self.allowed.lock().unwrap() = deliveries;
    }

    /// How many were answered 200.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// How many connections broke before an answer came.
    pub(crate) fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }

    /// Sends all of them, several at once, and returns when each has been answered 200.
    pub(crate) fn send(&self, bodies: &[&str]) {
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| self.work(bodies));
            }
        });
    }

    fn work(&self, bodies: &[&str]) {
        loop {
            let next = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(body) = bodies.get(next) else { return };
            eventually("leave to send more", LIMIT, || {
                self.allowed.lock().unwrap().is_none_or(|allowed| next < allowed).then_some(())
            });
            let began = Instant::now();
            while !self.is_taken(body) {
                assert!(began.elapsed() < LIMIT, "a delivery was not taken within {LIMIT:?}");
            }
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn is_taken(&self, body: &str) -> bool {
        let target = *self.target.lock().unwrap();
        match target.map(|target| deliver(target, body.as_bytes())) {
            Some(Ok(answer)) if answer.status == 200 => return true,
            // Overloaded: to be repeated, like what was not answered at all.
            Some(Ok(answer)) => assert_eq!(answer.status, 503, "{}", answer.text()),
            Some(Err(_)) => {
                self.broken.fetch_add(1, Ordering::SeqCst);
            }
            None => {}
        }
        // Nobody is there just now, and whoever comes back says so by a new target.
        std::thread::sleep(Duration::from_millis(5));
        false
    }
}

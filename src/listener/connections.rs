//! Who is connected: bounded in all and per sender, and cut when too slow, one too many, or at the end.
//!
//! A good delivery is answered within milliseconds, so whoever has been reading the longest is the one to go. A
//! connection whose request arrived whole is never cut: it holds an event that may come only once.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use prometheus::{IntCounterVec, IntGauge, Opts};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout_at};

use crate::metrics::own::Own;

/// How long a connection may linger once its request was refused, so that a sender in full flow gets to read why.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// A good delivery is read in milliseconds; who takes longer than this goes first when there are too many.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a connection without a head may stay once the listener stops.
const STOP_GRACE: Duration = Duration::from_millis(250);

/// One sender as the limits see it: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sender(u128);

impl From<IpAddr> for Sender {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No IPv6 network ends in these bits.
            IpAddr::V4(address) => Self(u128::from(address.to_bits()) | 1 << 63),
            IpAddr::V6(address) => Self(address.to_bits() >> 64 << 64),
        }
    }
}

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// In all.
    pub total: usize,
    /// From one sender.
    pub per_sender: usize,
    /// Proxies, which stand for many senders: only the total binds them.
    pub trusted_proxies: Vec<IpNet>,
}

/// All connections of a listener.
pub struct Connections {
    bounds: Bounds,
    table: Mutex<Table>,
    emptied: Notify,
    metrics: Metrics,
}

#[derive(Default)]
struct Table {
    /// By sender, the oldest first; all trusted proxies under `None`.
    senders: HashMap<Option<Sender>, VecDeque<Arc<Connection>>>,
    total: usize,
}

/// How far the request of a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Connected,
    HeadArrived,
    BodyArrived,
    Refused,
}

struct Connection {
    sender: Option<Sender>,
    accepted: Instant,
    progress: AtomicU8,
    cut: Notify,
}

impl Connection {
    fn has(&self, progress: Progress) -> bool {
        self.progress.load(Relaxed) >= progress as u8
    }

    /// Whether it waits for the ledger.
    fn is_held(&self) -> bool {
        self.progress.load(Relaxed) == Progress::BodyArrived as u8
    }

    fn reach(&self, progress: Progress) {
        self.progress.store(progress as u8, Relaxed);
    }
}

/// What a listener says about its connections.
#[derive(Clone)]
pub struct Metrics {
    open: IntGauge,
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers `kitepush_webhook_connections` and `kitepush_webhook_connections_refused_total`.
    ///
    /// # Errors
    ///
    /// When they are there already.
    pub fn register(own: &Own) -> prometheus::Result<Self> {
        let metrics = Self::unregistered()?;
        own.register(metrics.open.clone())?;
        own.register(metrics.refused.clone())?;
        Ok(metrics)
    }

    /// For a listener that says nothing.
    ///
    /// # Errors
    ///
    /// Never: the names are valid.
    pub fn unregistered() -> prometheus::Result<Self> {
        let open = IntGauge::new("kitepush_webhook_connections", "Open connections of the webhook listener.")?;
        let refused = Opts::new(
            "kitepush_webhook_connections_refused_total",
            "Connections closed without an answer because there were too many, by the limit that was reached.",
        );
        let refused = IntCounterVec::new(refused, &["limit"])?;
        for limit in ["per_address", "total"] {
            refused.with_label_values(&[limit]);
        }
        Ok(Self { open, refused })
    }
}

impl Connections {
    /// None yet.
    pub fn new(bounds: Bounds, metrics: Metrics) -> Self {
        Self { bounds, table: Mutex::default(), emptied: Notify::new(), metrics }
    }

    /// Takes in a connection, at the expense of one that reads too long when there are too many. `None` when there is
    /// no such one: then the newcomer is one too many.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let peer = peer.to_canonical();
        let trusted = self.bounds.trusted_proxies.iter().any(|network| network.contains(&peer));
        let sender = (!trusted).then(|| Sender::from(peer));
        let mut table = self.lock();
        let siblings = table.senders.get(&sender).map_or(0, VecDeque::len);
        if !trusted && siblings >= self.bounds.per_sender {
            self.make_room(&mut table, "per_address", |candidate| *candidate == sender)?;
        }
        if table.total >= self.bounds.total {
            self.make_room(&mut table, "total", |_| true)?;
        }
        let connection = Arc::new(Connection {
            sender,
            accepted: Instant::now(),
            progress: AtomicU8::new(Progress::Connected as u8),
            cut: Notify::new(),
        });
        table.senders.entry(sender).or_default().push_back(Arc::clone(&connection));
        table.total += 1;
        self.metrics.open.set(i64::try_from(table.total).unwrap_or(i64::MAX));
        Some(Slot { connection, registration: None }.registered(Arc::clone(self)))
    }

    /// Cuts a connection that is still reading: one that does so for longer than a good delivery takes rather than a
    /// fresh one, then of the sender with the most of them, then the oldest; trusted proxies last. So neither many
    /// stalled senders with a connection each nor one that knocks all the time costs a burst of good ones their place.
    fn make_room(&self, table: &mut Table, limit: &str, of: impl Fn(&Option<Sender>) -> bool) -> Option<()> {
        self.metrics.refused.with_label_values(&[limit]).inc();
        let slowest = table
            .senders
            .iter()
            .filter(|(sender, _)| of(sender))
            .filter_map(|(sender, queue)| {
                let mut reading = queue.iter().filter(|connection| !connection.is_held());
                let slowest = reading.next()?;
                let age = slowest.accepted.elapsed();
                Some(((sender.is_some(), age > PATIENCE, 1 + reading.count(), age), slowest))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, slowest)| Arc::clone(slowest))?;
        slowest.cut.notify_one();
        table.remove(&slowest);
        Some(())
    }

    /// Waits until every connection is gone. Those without a head go at once, those that still send their body at
    /// `cut_bodies`, all others at `end`.
    pub async fn drain(&self, cut_bodies: Instant, end: Instant) {
        let stages = [
            (Instant::now() + STOP_GRACE, Progress::HeadArrived),
            (cut_bodies, Progress::BodyArrived),
            (end, Progress::Refused),
        ];
        for (at, spared) in stages {
            if timeout_at(at.min(end).into(), self.empty()).await.is_ok() {
                return;
            }
            for connection in self.lock().senders.values().flatten() {
                if !connection.has(spared) {
                    connection.cut.notify_one();
                }
            }
        }
        // The last ones need a moment to notice.
        let _ = timeout_at((Instant::now() + STOP_GRACE).into(), self.empty()).await;
    }

    async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().total == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn release(&self, connection: &Arc<Connection>) {
        let mut table = self.lock();
        table.remove(connection);
        self.metrics.open.set(i64::try_from(table.total).unwrap_or(i64::MAX));
        if table.total == 0 {
            self.emptied.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, connection: &Arc<Connection>) {
        let Some(queue) = self.senders.get_mut(&connection.sender) else { return };
        let Some(place) = queue.iter().position(|other| Arc::ptr_eq(other, connection)) else { return };
        queue.remove(place);
        if queue.is_empty() {
            self.senders.remove(&connection.sender);
        }
        self.total -= 1;
    }
}

/// A connection's place among all. The first one, not its clones, holds the place until it is dropped.
pub struct Slot {
    connection: Arc<Connection>,
    registration: Option<Arc<Connections>>,
}

impl Slot {
    fn registered(mut self, connections: Arc<Connections>) -> Self {
        self.registration = Some(connections);
        self
    }

    /// For the handlers of its requests.
    pub(super) fn view(&self) -> Self {
        Self { connection: Arc::clone(&self.connection), registration: None }
    }

    /// When it was accepted: what `read_timeout` counts from.
    pub fn since(&self) -> Instant {
        self.connection.accepted
    }

    /// The head of a request is here. False when it is not the connection's first: HTTP/1.1 lets a client send several
    /// requests without waiting, and what one server takes for the end of a body may be another's next request.
    #[must_use]
    pub fn head_arrived(&self) -> bool {
        self.connection.progress.fetch_max(Progress::HeadArrived as u8, Relaxed) < Progress::HeadArrived as u8
    }

    /// Whether the head of a request was here.
    pub(super) fn has_head(&self) -> bool {
        self.connection.has(Progress::HeadArrived)
    }

    /// A request is here to its last byte, and authentic: it is answered, whoever else wants in.
    pub fn body_arrived(&self) {
        self.connection.reach(Progress::BodyArrived);
    }

    /// The request was refused. What is left of it is not worth more than a moment, in which its sender may read the
    /// answer; after a request that was taken nothing is left.
    pub fn refused(&self) {
        self.connection.reach(Progress::Refused);
        self.connection.cut.notify_one();
    }

    /// Serves the connection until it ends, is cut, or has lived for `lifetime`.
    pub(super) async fn serve(self, lifetime: Duration, work: impl Future) {
        let mut work = std::pin::pin!(work);
        let mut end = std::pin::pin!(sleep_until((self.connection.accepted + lifetime).into()));
        let mut lingering = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut work => return,
                () = self.connection.cut.notified() => {
                    if lingering || !self.connection.has(Progress::Refused) {
                        return;
                    }
                    lingering = true;
                    end.as_mut().reset((Instant::now() + LINGER).into());
                }
                () = &mut end => return,
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(connections) = self.registration.take() {
            connections.release(&self.connection);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn connections(total: usize, per_sender: usize) -> Arc<Connections> {
        let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let bounds = Bounds { total, per_sender, trusted_proxies };
        Arc::new(Connections::new(bounds, Metrics::unregistered().unwrap()))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn was_cut(slot: &Slot) -> bool {
        tokio::time::timeout(Duration::from_millis(1), slot.connection.cut.notified()).await.is_ok()
    }

    #[tokio::test]
    async fn one_too_many_of_an_address_costs_its_slowest_reader_the_place() {
        let connections = connections(100, 2);
        let held = connections.admit(address(1)).unwrap();
        held.body_arrived();
        let slow = connections.admit(address(1)).unwrap();
        let other = connections.admit(address(2)).unwrap();
        let _new = connections.admit(address(1)).unwrap();
        assert!(was_cut(&slow).await);
        assert!(!was_cut(&held).await && !was_cut(&other).await);
    }

    #[tokio::test]
    async fn nobody_in_the_ledgers_hands_is_cut() {
        let connections = connections(2, 2);
        let slots: Vec<_> = (0..2).map(|_| connections.admit(address(1)).unwrap()).collect();
        slots.iter().for_each(Slot::body_arrived);
        assert!(connections.admit(address(1)).is_none() && connections.admit(address(2)).is_none());
        slots[0].refused();
        let newcomer = connections.admit(address(2)).unwrap();
        newcomer.body_arrived();
        assert!(connections.admit(address(2)).is_none());
        drop(slots);
        assert!(connections.admit(address(2)).is_some());
    }

    #[tokio::test]
    async fn one_too_many_in_all_costs_the_greediest_its_place() {
        let connections = connections(5, 4);
        let proxy: Vec<_> = (0..2).map(|n| connections.admit(IpAddr::from([10, 0, 0, n])).unwrap()).collect();
        let modest = connections.admit(address(1)).unwrap();
        let greedy: Vec<_> = (0..2).map(|_| connections.admit(address(2)).unwrap()).collect();
        let _new = connections.admit(address(3)).unwrap();
        assert!(was_cut(&greedy[0]).await);
        assert!(!was_cut(&greedy[1]).await && !was_cut(&modest).await && !was_cut(&proxy[0]).await);
    }

    #[tokio::test]
    async fn what_was_answered_or_waits_for_the_ledger_does_not_make_a_sender_greedy() {
        let connections = connections(4, 4);
        let slow = connections.admit(address(1)).unwrap();
        let busy: Vec<_> = (0..3).map(|_| connections.admit(address(2)).unwrap()).collect();
        busy[..2].iter().for_each(Slot::body_arrived);
        let _new = connections.admit(address(3)).unwrap();
        assert!(was_cut(&slow).await && !was_cut(&busy[2]).await);
    }

    #[tokio::test]
    async fn a_burst_of_good_deliveries_does_not_give_way_to_one_stalled_connection_each() {
        let connections = connections(4, 4);
        let stalled = connections.admit(address(1)).unwrap();
        tokio::time::sleep(PATIENCE + Duration::from_millis(10)).await;
        let burst: Vec<_> = (0..3).map(|_| connections.admit(address(2)).unwrap()).collect();
        let _new = connections.admit(address(3)).unwrap();
        assert!(was_cut(&stalled).await);
        for good in &burst {
            assert!(!was_cut(good).await);
        }
    }

    #[tokio::test]
    async fn only_the_first_head_of_a_connection_counts() {
        let slot = connections(1, 1).admit(address(1)).unwrap();
        assert!(slot.head_arrived() && !slot.head_arrived());
        slot.body_arrived();
        assert!(!slot.view().head_arrived());
    }

    #[tokio::test]
    async fn a_trusted_proxy_has_the_total_for_itself() {
        let connections = connections(8, 1);
        let slots: Vec<_> = (0..8).map(|_| connections.admit(IpAddr::from([10, 0, 0, 1])).unwrap()).collect();
        for slot in &slots {
            assert!(!was_cut(slot).await);
        }
    }

    #[tokio::test]
    async fn at_the_end_the_slow_go_first_and_the_held_are_waited_for() {
        let connections = connections(8, 8);
        let [headless, reading, held] = [(); 3].map(|()| connections.admit(address(1)).unwrap());
        assert!(reading.head_arrived());
        held.body_arrived();
        let start = Instant::now();
        let serve = |slot: Slot, work: Duration| async move {
            slot.serve(Duration::from_secs(60), tokio::time::sleep(work)).await;
            start.elapsed()
        };
        let forever = Duration::from_secs(60);
        let (headless, reading, held, ()) = tokio::join!(
            serve(headless, forever),
            serve(reading, forever),
            serve(held, Duration::from_millis(900)),
            connections.drain(start + Duration::from_millis(600), start + Duration::from_secs(5)),
        );
        assert!(headless < reading && reading < held, "{headless:?} {reading:?} {held:?}");
        assert!(reading >= Duration::from_millis(600) && held >= Duration::from_millis(900));
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
}

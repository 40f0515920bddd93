//! The one thread that counts: it drains the queue into one transaction, commits it, shows it and answers.
//!
//! Batches form by themselves: while a commit is under way deliveries queue up, and the next transaction takes all of
//! them. When the disk refuses, deliveries are counted in memory, answered, and committed once the disk is back.
//!
//! Without a store the thread only keeps house: deliveries are counted by those who bring them, one after the other.

use std::collections::HashMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::entity::Entity;
use super::fact::Fact;
use super::in_flight::{InFlight, Phase};
use super::loaded::{Loaded, open};
use super::rules::{Book, Delta, Settings};
use super::store::{Batch, Memory, Store, StoreError};
use super::{Ledger, NotAdded, Overloaded, Total, lock};
use crate::config::Config;
use crate::event::{Event, EventName, Timestamp};
use crate::health::{Health, Part};
use crate::metrics::catalogue::Catalogue;
use crate::metrics::labels::Labeler;
use crate::metrics::own::{Outcome, Own};
use crate::metrics::series::SeriesTable;

/// Deliveries that wait for the ledger; a second's worth at full speed.
const QUEUE: usize = 16_384;

/// Deliveries that one transaction takes.
const BATCH: usize = 1024;

/// How often missing starts, expired entries and forgotten records are looked for, and a refusing disk is tried again.
const TICK: Duration = Duration::from_secs(1);

/// How often series are looked through for expired ones.
const EXPIRE_SERIES_EVERY: Duration = Duration::from_secs(60);

type Answer = oneshot::Sender<Result<Outcome, Overloaded>>;

/// What the thread is asked for.
#[derive(Debug)]
pub enum Command {
    /// Count an event.
    Record {
        /// The event.
        event: Box<Event>,
        /// Its arrival.
        received_at: Timestamp,
        /// Gets the outcome after the commit.
        answer: Answer,
    },
    /// Bring gauges up to date and end holds.
    Refresh {
        /// Told when it is done.
        answer: SyncSender<()>,
    },
    /// Add totals of an earlier run.
    Add {
        /// The totals.
        totals: Vec<Total>,
        /// Told when they are committed.
        answer: oneshot::Sender<Result<(), NotAdded>>,
    },
    /// A second has passed.
    Tick,
    /// Commit and end.
    Stop {
        /// Told when it is done.
        answer: oneshot::Sender<()>,
    },
}

/// What was found at the start.
#[derive(Debug)]
pub struct Start {
    /// The handle.
    pub ledger: Ledger,
    /// Whether the store has taken up what earlier runs left on the gateway, or never needs to.
    pub is_restored: bool,
    /// Sends [`Command::Tick`].
    pub ticker: Ticker,
}

/// Gives the ledger its seconds; lives on a runtime of the caller.
#[derive(Debug)]
pub struct Ticker(mpsc::WeakSender<Command>);

impl Ticker {
    /// Ticks until the ledger has ended.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(commands) = self.0.upgrade() else { return };
            if let Err(mpsc::error::TrySendError::Closed(_)) = commands.try_send(Command::Tick) {
                return;
            }
        }
    }
}

/// Opens the store, takes up what it holds and starts the thread.
///
/// # Errors
///
/// When the file is in use, too new or not to be opened; a damaged one is set aside.
pub fn start(
    config: &Config,
    catalogue: Arc<Catalogue>,
    labeler: Labeler,
    own: Arc<Own>,
    health: Arc<Health>,
) -> Result<Start, StoreError> {
    let now = Timestamp::now();
    let settings = Settings {
        retention: config.state.retention,
        max_records: config.state.max_records,
        in_flight_expiry: config.state.in_flight_expiry,
    };
    let table =
        || SeriesTable::new(catalogue.clone(), labeler.clone(), config.labels.limits.clone(), config.push.zero_hold);
    let (store, book, table, is_restored): (Box<dyn Store>, _, _, _) = match &config.state.path {
        None => (Box::new(Memory), Book::new(settings, now), table(), false),
        Some(path) => {
            let (store, loaded, is_restored) = open(path, &catalogue, &health, now, || Loaded {
                book: Book::new(settings, now),
                table: table(),
                newest: now,
            })?;
            (Box::new(store), loaded.book, loaded.table, is_restored)
        }
    };
    // From the start, so that a first increment is seen.
    for phase in Phase::ALL {
        own.in_flight_expired.with_label_values(&[phase.as_str()]);
    }
    for event in [EventName::BuildRunning, EventName::JobStarted] {
        own.events_missing.with_label_values(&[event.as_str()]);
    }
    for family in catalogue.iter().filter(|family| family.enabled) {
        own.series_overflow.with_label_values(&[family.family.name]);
    }
    let table = Arc::new(Mutex::new(table));
    let (commands, queue) = mpsc::channel(QUEUE);
    let writer = Writer {
        store,
        book,
        table: table.clone(),
        own: own.clone(),
        health,
        max_backlog: config.state.max_backlog,
        series_ttl: config.labels.series_ttl,
        facts: Vec::new(),
        in_flight: HashMap::new(),
        restored: false,
        adding: Vec::new(),
        refused: false,
        retry_at: Instant::now(),
        expire_series_at: Instant::now() + EXPIRE_SERIES_EVERY,
        overflowed: Vec::new(),
        delta: Delta::default(),
        has_ended: false,
    };
    let writer = Arc::new(Mutex::new(writer));
    let here = config.state.path.is_none().then(|| Arc::clone(&writer));
    std::thread::Builder::new().name("ledger".to_owned()).spawn(move || run(&writer, queue)).map_err(|error| {
        StoreError::Refused { path: config.state.path.clone().unwrap_or_default(), reason: error.to_string() }
    })?;
    let ticker = Ticker(commands.downgrade());
    Ok(Start { ledger: Ledger { commands, table, own, here }, is_restored, ticker })
}

/// What the thread works on.
pub(super) struct Writer {
    store: Box<dyn Store>,
    book: Book,
    table: Arc<Mutex<SeriesTable>>,
    own: Arc<Own>,
    health: Arc<Health>,
    max_backlog: usize,
    series_ttl: Duration,
    /// Rows and entries that the store does not have yet; with a working disk those of one batch.
    facts: Vec<Fact>,
    in_flight: HashMap<Entity, Option<InFlight>>,
    /// Whether totals of an earlier run were added and not committed, and who waits for that.
    restored: bool,
    adding: Vec<oneshot::Sender<Result<(), NotAdded>>>,
    /// Whether the disk refused the last commit.
    refused: bool,
    retry_at: Instant,
    expire_series_at: Instant,
    overflowed: Vec<&'static str>,
    /// Of the event at hand; kept for its memory.
    delta: Delta,
    has_ended: bool,
}

/// The thread: takes what waits, one batch after the other.
fn run(writer: &Mutex<Writer>, mut queue: mpsc::Receiver<Command>) {
    let mut answers: Vec<(Answer, Outcome)> = Vec::with_capacity(BATCH);
    let mut stopped = None;
    while stopped.is_none()
        && let Some(first) = queue.blocking_recv()
    {
        let mut writer = lock(writer);
        let mut refreshed = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Record { event, received_at, answer } => match writer.record(&event, received_at) {
                    Ok(outcome) => answers.push((answer, outcome)),
                    Err(overloaded) => drop(answer.send(Err(overloaded))),
                },
                Command::Refresh { answer } => refreshed.push(answer),
                // They would only wait in memory until the disk is back: pushes wait for them as it is.
                Command::Add { answer, .. } if writer.refused => {
                    let _ = answer.send(Err(NotAdded));
                }
                Command::Add { totals, answer } => {
                    writer.add(totals);
                    writer.adding.push(answer);
                }
                Command::Tick => writer.tick(),
                Command::Stop { answer } => {
                    stopped = Some(answer);
                    break;
                }
            }
            next = if answers.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        if !refreshed.is_empty() || stopped.is_some() {
            writer.refresh();
        }
        writer.finish(stopped.is_some());
        // More in one refused batch than memory is to hold: it is repeated, and counts once.
        let is_over = writer.refused && writer.facts.len() > writer.max_backlog;
        for (answer, outcome) in answers.drain(..) {
            // Whoever waited may be gone; what was committed stays.
            let _ = answer.send(if is_over { Err(Overloaded) } else { Ok(outcome) });
        }
        for answer in refreshed {
            let _ = answer.try_send(());
        }
    }
    lock(writer).end();
    if let Some(answer) = stopped {
        let _ = answer.send(());
    }
}

impl Writer {
    /// Counts and shows an event at once, where there is no store to commit it to.
    pub(super) fn count(&mut self, event: &Event, received_at: Timestamp) -> Result<Outcome, Overloaded> {
        if self.has_ended {
            return Err(Overloaded);
        }
        let outcome = self.record(event, received_at)?;
        self.finish(false);
        Ok(outcome)
    }

    fn end(&mut self) {
        if self.refused && !self.facts.is_empty() {
            error!(events = self.facts.len(), "stopped while the disk refuses: these events are lost");
        }
        self.has_ended = true;
        // Closed before anybody is told, so that the process does not end in the middle of it and the file stands alone.
        self.store = Box::new(Memory);
    }

    fn record(&mut self, event: &Event, received_at: Timestamp) -> Result<Outcome, Overloaded> {
        if self.refused && self.facts.len() + self.book.facts() >= self.max_backlog {
            return Err(Overloaded);
        }
        let delta = &mut self.delta;
        delta.clear();
        self.book.apply(event, received_at, delta);
        if !delta.effects.is_empty() || delta.outcome == Some(Outcome::Accepted) {
            lock(&self.table).record(event, delta, received_at);
        }
        for kind in &delta.anomalies {
            self.own.anomalies.with_label_values(&[kind]).inc();
        }
        Ok(delta.outcome.unwrap_or(Outcome::Ignored))
    }

    fn add(&mut self, totals: Vec<Total>) {
        self.restored = true;
        let now = Timestamp::now();
        let mut table = lock(&self.table);
        let mut dropped: Vec<String> = totals
            .into_iter()
            .filter(|total| !table.add(&total.family, &total.labels, &total.value, now))
            .map(|total| total.family)
            .collect();
        drop(table);
        dropped.dedup();
        for family in dropped {
            warn!(
                family,
                "the gateway holds totals that were counted with other labels or buckets: they start again at zero"
            );
        }
    }

    fn tick(&mut self) {
        let now = Timestamp::now();
        let found = self.book.tick(now);
        for event in found.missing {
            self.own.events_missing.with_label_values(&[event]).inc();
        }
        for phase in found.expired {
            self.own.in_flight_expired.with_label_values(&[phase.as_str()]).inc();
        }
        self.own.records.set(self.book.records().len() as i64);
        for phase in Phase::ALL {
            let count = self.book.in_flight().iter().filter(|(_, entry)| entry.phase == phase).count();
            self.own.in_flight.with_label_values(&[phase.as_str()]).set(count as i64);
        }
        let mut table = lock(&self.table);
        for (family, count) in table.take_overflows() {
            self.own.series_overflow.with_label_values(&[family]).inc_by(count);
            if !self.overflowed.contains(&family) {
                self.overflowed.push(family);
                warn!(family, "a limit of labels.limits is reached: further label values become _overflow");
            }
        }
        if !self.series_ttl.is_zero() && Instant::now() >= self.expire_series_at {
            table.expire(now, self.series_ttl);
            self.expire_series_at = Instant::now() + EXPIRE_SERIES_EVERY;
        }
        drop(table);
        if !self.refused {
            let records = self.book.records();
            if let Err(error) = self.store.prune(&|entity| records.find(entity).is_some()) {
                warn!(%error, "old rows stay for now");
            }
        }
    }

    fn refresh(&mut self) {
        let mut table = lock(&self.table);
        if let Some(in_flight) = self.book.changed_in_flight() {
            table.set_in_flight(in_flight, Timestamp::now());
        }
        table.release_due(Instant::now());
    }

    /// Shows what was counted, where there is nothing to commit.
    fn show(&mut self) {
        self.book.take_facts();
        self.book.take_in_flight_changes();
        self.restored = false;
        for answer in self.adding.drain(..) {
            let _ = answer.send(Ok(()));
        }
        let mut table = lock(&self.table);
        table.saved();
        table.publish();
    }

    /// Commits what is to be stored, and shows it.
    fn finish(&mut self, is_last: bool) {
        if !self.store.keeps() {
            return self.show();
        }
        self.facts.append(&mut self.book.take_facts());
        self.in_flight.extend(self.book.take_in_flight_changes());
        if self.refused {
            self.own.backlog.set(self.facts.len() as i64);
            if Instant::now() < self.retry_at && !is_last {
                let mut table = lock(&self.table);
                table.unrelease();
                table.publish_gauges();
                return;
            }
        }
        let table = lock(&self.table);
        let (series, removed) = table.unsaved();
        let removed = removed.to_vec();
        // The lock is not held while the disk works: pushes go on.
        drop(table);
        if self.facts.is_empty()
            && self.in_flight.is_empty()
            && series.is_empty()
            && removed.is_empty()
            && !self.restored
            && !self.refused
        {
            lock(&self.table).publish();
            return;
        }
        let in_flight: Vec<_> = self.in_flight.drain().collect();
        let batch = Batch {
            facts: &self.facts,
            in_flight: &in_flight,
            series: &series,
            removed: &removed,
            restored: self.restored,
        };
        let began = Instant::now();
        let result = if self.refused { self.store.reopen() } else { Ok(()) };
        let result = result.and_then(|()| self.store.commit(&batch));
        self.own.commit_seconds.observe(began.elapsed().as_secs_f64());
        let mut table = lock(&self.table);
        match result {
            Ok(()) => {
                self.own.commits.with_label_values(&["ok"]).inc();
                if self.refused {
                    self.refused = false;
                    info!(events = self.facts.len(), "the disk is back: what was counted in memory is committed");
                    self.health.works(Part::Store);
                    self.own.backlog.set(0);
                }
                self.facts.clear();
                self.restored = false;
                // Not before: what the gateway holds is overwritten by the push that this allows.
                for answer in self.adding.drain(..) {
                    let _ = answer.send(Ok(()));
                }
                table.saved();
                table.publish();
            }
            Err(error) => {
                self.own.commits.with_label_values(&["failed"]).inc();
                self.in_flight.extend(in_flight);
                // Totals stand still until the disk is back: a crash must not take back what has been shown.
                table.unrelease();
                table.publish_gauges();
                let why = format!("events are counted in memory only: {error}");
                if !self.refused {
                    self.refused = true;
                    error!(%error, "the disk refuses: events are counted in memory until it is back");
                }
                self.health.degraded(Part::Store, why);
                self.own.backlog.set(self.facts.len() as i64);
                self.retry_at = Instant::now() + TICK;
            }
        }
    }
}

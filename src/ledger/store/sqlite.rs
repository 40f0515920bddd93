//! SQLite, in WAL mode with `synchronous=FULL`: a commit that returned is on disk.
//!
//! Counted keys are rows at the end of a table without another index: an index on them would cost ten times the
//! throughput at a million rows, and memory knows better what is unique.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::super::in_flight::{InFlight, Phase};
use super::foreign::{self, APPLICATION_ID};
use super::lock::{Lock, beside};
use super::{Batch, Entity, Fact, Loader, Store, StoreError};
use crate::event::Timestamp;
use crate::ledger::fact::Rules;
use crate::metrics::series::StoredSeries;
use crate::metrics::value::Numbers;

/// The format's major version. Additions that an earlier release ignores do not change it.
const FORMAT: i64 = 1;
/// Rows that one step of pruning looks at.
const PRUNE_STEP: i64 = 2000;

/// The ledger's file.
pub struct Sqlite {
    path: PathBuf,
    connection: Option<Connection>,
    pruned_to: i64,
    _lock: Lock,
}

/// What was found when a file was opened.
#[derive(Debug)]
pub struct Opened {
    /// When the ledger was born; now, when it is new.
    pub born_at: Timestamp,
    /// Where a damaged predecessor was set aside.
    pub set_aside: Option<PathBuf>,
    /// Whether it has taken up what earlier runs left on the gateway.
    pub is_restored: bool,
}

impl Sqlite {
    /// Opens or makes the file. A damaged one is set aside under a dated name.
    ///
    /// # Errors
    ///
    /// When it is in use, is not kitepush's or a later major version's, or the disk refuses.
    pub fn open(path: &Path, now: Timestamp) -> Result<(Self, Opened), StoreError> {
        foreign::refuse(path)?;
        let lock = Lock::take(path)?;
        let mut store = Self { path: path.to_owned(), connection: None, pruned_to: 0, _lock: lock };
        let opened = match store.reopen().and_then(|()| store.life(now)) {
            Err(StoreError::Damaged { .. }) => store.begin_anew(now)?,
            life => {
                let (born_at, is_restored) = life?;
                Opened { born_at, set_aside: None, is_restored }
            }
        };
        Ok((store, opened))
    }

    /// Sets a damaged file aside and begins a new one.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn begin_anew(&mut self, now: Timestamp) -> Result<Opened, StoreError> {
        let set_aside = Some(self.set_aside(now)?);
        self.reopen()?;
        let (born_at, is_restored) = self.life(now)?;
        Ok(Opened { born_at, set_aside, is_restored })
    }

    /// Moves the file and its companions out of the way.
    fn set_aside(&mut self, now: Timestamp) -> Result<PathBuf, StoreError> {
        self.connection = None;
        let date = jiff::Timestamp::from_millisecond(now.as_millis())
            .map_or_else(|_| "unknown".to_owned(), |now| now.strftime("%Y%m%dT%H%M%SZ").to_string());
        let aside = beside(&self.path, &format!("damaged-{date}"));
        for ending in ["", "-wal", "-shm"] {
            let with = |path: &Path| {
                let mut name = path.as_os_str().to_owned();
                name.push(ending);
                PathBuf::from(name)
            };
            match std::fs::rename(with(&self.path), with(&aside)) {
                Err(error) if ending.is_empty() => {
                    return Err(StoreError::Refused { path: self.path.clone(), reason: error.to_string() });
                }
                _ => {}
            }
        }
        Ok(aside)
    }

    fn life(&mut self, now: Timestamp) -> Result<(Timestamp, bool), StoreError> {
        let path = self.path.clone();
        let connection = self.connection()?;
        let read = || -> rusqlite::Result<(i64, bool)> {
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('born_at', ?1)", [now.as_millis()])?;
            connection.query_row(
                "SELECT value, EXISTS (SELECT 1 FROM meta WHERE name = 'restored') FROM meta WHERE name = 'born_at'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        };
        let (born_at, is_restored) = read().map_err(|error| failed(&path, &error))?;
        Ok((Timestamp::from_millis(born_at), is_restored))
    }

    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_none() {
            self.reopen()?;
        }
        let path = &self.path;
        self.connection.as_mut().ok_or_else(|| StoreError::Refused { path: path.clone(), reason: "closed".to_owned() })
    }

    /// Gives everything back. `layouts` are those configured now, by family: totals that were counted with other ones
    /// are forgotten, and the families named.
    ///
    /// # Errors
    ///
    /// When the file cannot be read; [`StoreError::Damaged`] when it is no longer a database.
    pub fn load(&mut self, layouts: &[(String, String)], loader: &mut dyn Loader) -> Result<Vec<String>, StoreError> {
        let path = self.path.clone();
        let connection = self.connection()?;
        load(connection, layouts, loader).map_err(|error| failed(&path, &error))
    }
}

impl Store for Sqlite {
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let path = self.path.clone();
        commit(self.connection()?, batch).map_err(|error| failed(&path, &error))
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.connection = None;
        self.connection = Some(open(&self.path)?);
        Ok(())
    }

    fn prune(&mut self, is_alive: &dyn Fn(&Entity) -> bool) -> Result<(), StoreError> {
        let from = self.pruned_to;
        let path = self.path.clone();
        let pruned_to = prune(self.connection()?, from, is_alive).map_err(|error| failed(&path, &error))?;
        self.pruned_to = pruned_to;
        Ok(())
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    make_private(path)?;
    let connection = Connection::open(path).map_err(|error| failed(path, &error))?;
    let fail = |error: rusqlite::Error| failed(path, &error);
    connection.busy_timeout(Duration::from_secs(2)).map_err(fail)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(|error| {
        match failed(path, &error) {
            StoreError::Refused { path, reason } if is_shared_memory(&error) => StoreError::FileSystem { path, reason },
            other => other,
        }
    })?;
    if mode != "wal" {
        let reason = format!("WAL mode is refused, SQLite stays in mode {mode}");
        return Err(StoreError::FileSystem { path: path.to_owned(), reason });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(32);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
    if found > FORMAT {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known: FORMAT });
    }
    if found < FORMAT {
        connection.execute_batch(include_str!("schema.sql")).map_err(fail)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
        connection.pragma_update(None, "user_version", FORMAT).map_err(fail)?;
    }
    Ok(connection)
}

/// A new file is for this user alone; SQLite gives its companions the same permissions.
fn make_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::Refused { path: path.to_owned(), reason: error.to_string() })
        }
        _ => Ok(()),
    }
}

fn is_shared_memory(error: &rusqlite::Error) -> bool {
    // Not SQLITE_IOERR_SHMSIZE: that is what a full disk says.
    const SHARED_MEMORY: [i32; 4] = [
        rusqlite::ffi::SQLITE_IOERR_SHMOPEN,
        rusqlite::ffi::SQLITE_IOERR_SHMLOCK,
        rusqlite::ffi::SQLITE_IOERR_SHMMAP,
        rusqlite::ffi::SQLITE_IOERR_LOCK,
    ];
    matches!(error, rusqlite::Error::SqliteFailure(code, _) if SHARED_MEMORY.contains(&code.extended_code))
}

fn failed(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, reason) = (path.to_owned(), error.to_string());
    let is_nonsense = matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    );
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged { path, reason },
        _ if is_nonsense => StoreError::Damaged { path, reason },
        _ => StoreError::Refused { path, reason },
    }
}

fn commit(connection: &mut Connection, batch: &Batch<'_>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut add = transaction.prepare_cached(
            "INSERT INTO counted (entity, rules, at, started_at, word, counted_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for fact in batch.facts {
            add.execute(params![
                fact.entity.0,
                fact.rules.0,
                fact.at.map(Timestamp::as_millis),
                fact.started_at.map(Timestamp::as_millis),
                fact.word,
                fact.counted_at.as_millis(),
            ])?;
        }
        let mut set = transaction
            .prepare_cached("INSERT OR REPLACE INTO in_flight VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
        let mut end = transaction.prepare_cached("DELETE FROM in_flight WHERE entity = ?1")?;
        for (entity, entry) in batch.in_flight {
            match entry {
                None => end.execute([entity.0])?,
                Some(entry) => set.execute(params![
                    entity.0,
                    entry.phase.as_str(),
                    entry.since.as_millis(),
                    entry.arrived_at.as_millis(),
                    entry.build.map(|build| build.0),
                    entry.organization,
                    entry.pipeline,
                    entry.cluster_id,
                    entry.queue,
                    entry.cluster_queue_id,
                ])?,
            };
        }
        let mut make =
            transaction.prepare_cached("INSERT OR REPLACE INTO series VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
        let mut update = transaction.prepare_cached(
            "UPDATE series SET count = ?2, sum_millis = ?3, buckets = ?4, released = ?5, touched_at = ?6 WHERE id = ?1",
        )?;
        for series in batch.series {
            let StoredSeries { id, family, labels, numbers, released, touched_at } = series;
            let Numbers { count, sum_millis, buckets } = numbers;
            let buckets = if buckets.is_empty() { String::new() } else { list(buckets)? };
            let touched_at = touched_at.as_millis();
            if labels.is_empty() {
                update.execute(params![id, count, sum_millis, buckets, released, touched_at])?;
            } else {
                make.execute(params![id, family, labels, count, sum_millis, buckets, released, touched_at])?;
            }
        }
        let mut remove = transaction.prepare_cached("DELETE FROM series WHERE id = ?1")?;
        for id in batch.removed {
            remove.execute([id])?;
        }
        if batch.restored {
            transaction.execute("INSERT OR REPLACE INTO meta VALUES ('restored', 1)", [])?;
        }
    }
    transaction.commit()
}

/// As a JSON list: each commit writes some, and `{:?}` would take three times as long.
fn list(numbers: &[u64]) -> rusqlite::Result<String> {
    serde_json::to_string(numbers).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn prune(connection: &mut Connection, from: i64, is_alive: &dyn Fn(&Entity) -> bool) -> rusqlite::Result<i64> {
    let mut dead = Vec::new();
    let mut last = from;
    {
        let mut step =
            connection.prepare_cached("SELECT seq, entity FROM counted WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = step.query([from, PRUNE_STEP])?;
        while let Some(row) = rows.next()? {
            last = row.get(0)?;
            if !is_alive(&Entity(row.get(1)?)) {
                dead.push(last);
            }
        }
    }
    if !dead.is_empty() {
        let transaction = connection.transaction()?;
        {
            let mut delete = transaction.prepare_cached("DELETE FROM counted WHERE seq = ?1")?;
            for seq in dead {
                delete.execute([seq])?;
            }
        }
        transaction.commit()?;
    }
    // At the end of the table: begin again.
    Ok(if last == from { 0 } else { last })
}

fn time(millis: Option<i64>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}

fn fact(row: &rusqlite::Row<'_>) -> rusqlite::Result<Fact> {
    Ok(Fact {
        entity: Entity(row.get(0)?),
        rules: Rules(row.get(1)?),
        at: time(row.get(2)?),
        started_at: time(row.get(3)?),
        word: row.get(4)?,
        counted_at: Timestamp::from_millis(row.get(5)?),
    })
}

const FACT_COLUMNS: &str = "entity, rules, at, started_at, word, counted_at";

fn load(
    connection: &mut Connection,
    layouts: &[(String, String)],
    loader: &mut dyn Loader,
) -> rusqlite::Result<Vec<String>> {
    load_records(connection, loader)?;
    load_series(connection, layouts, loader)
}

fn load_records(connection: &Connection, loader: &mut dyn Loader) -> rusqlite::Result<()> {
    let rows: i64 = connection.query_row("SELECT count(*) FROM counted", [], |row| row.get(0))?;
    let newest: Option<i64> = connection
        .query_row("SELECT counted_at FROM counted ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .or_else(|error| if error == rusqlite::Error::QueryReturnedNoRows { Ok(None) } else { Err(error) })?;
    loader.begin(usize::try_from(rows).unwrap_or(0), Timestamp::from_millis(newest.unwrap_or(0)));
    let mut facts = connection.prepare(&format!("SELECT {FACT_COLUMNS} FROM counted ORDER BY seq"))?;
    let mut facts = facts.query([])?;
    while let Some(row) = facts.next()? {
        loader.fact(fact(row)?);
    }
    let mut entries = connection.prepare("SELECT * FROM in_flight")?;
    let mut entries = entries.query([])?;
    while let Some(row) = entries.next()? {
        let phase: String = row.get(1)?;
        // A phase that a later minor version knows is none of ours.
        let Some(phase) = Phase::from_word(&phase) else { continue };
        let entry = InFlight {
            phase,
            since: Timestamp::from_millis(row.get(2)?),
            arrived_at: Timestamp::from_millis(row.get(3)?),
            build: row.get::<_, Option<[u8; 17]>>(4)?.map(Entity),
            organization: row.get(5)?,
            pipeline: row.get(6)?,
            cluster_id: row.get(7)?,
            queue: row.get(8)?,
            cluster_queue_id: row.get(9)?,
        };
        loader.in_flight(Entity(row.get(0)?), entry);
    }
    Ok(())
}

fn load_series(
    connection: &mut Connection,
    layouts: &[(String, String)],
    loader: &mut dyn Loader,
) -> rusqlite::Result<Vec<String>> {
    let mut changed = Vec::new();
    let transaction = connection.transaction()?;
    for (family, layout) in layouts {
        let stored: Option<String> = transaction
            .query_row("SELECT layout FROM layouts WHERE family = ?1", [family], |row| row.get(0))
            .or_else(|error| if error == rusqlite::Error::QueryReturnedNoRows { Ok(None) } else { Err(error) })?;
        if stored.as_ref() == Some(layout) {
            continue;
        }
        if stored.is_some() {
            changed.push(family.clone());
        }
        transaction.execute("DELETE FROM series WHERE family = ?1", [family])?;
        transaction.execute("INSERT OR REPLACE INTO layouts VALUES (?1, ?2)", [family, layout])?;
    }
    let mut unwanted = Vec::new();
    {
        let mut series = transaction.prepare(
            "SELECT id, family, labels, count, sum_millis, buckets, released, touched_at FROM series ORDER BY id",
        )?;
        let mut series = series.query([])?;
        while let Some(row) = series.next()? {
            let series = stored_series(row)?;
            let id = series.id;
            if !loader.series(series) {
                unwanted.push(id);
            }
        }
    }
    for id in unwanted {
        transaction.execute("DELETE FROM series WHERE id = ?1", [id])?;
    }
    transaction.commit()?;
    Ok(changed)
}

fn stored_series(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredSeries> {
    let buckets: String = row.get(5)?;
    Ok(StoredSeries {
        id: row.get(0)?,
        family: row.get(1)?,
        labels: row.get(2)?,
        numbers: Numbers {
            count: row.get(3)?,
            sum_millis: row.get(4)?,
            buckets: serde_json::from_str(&buckets).unwrap_or_default(),
        },
        released: row.get(6)?,
        touched_at: Timestamp::from_millis(row.get(7)?),
    })
}

/// Reads beside a running service.
pub struct Reader {
    path: PathBuf,
    connection: Connection,
}

impl Reader {
    /// Opens the file for reading.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| failed(path, &error))?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Every stored series, by family and labels.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn series(&self) -> Result<Vec<StoredSeries>, StoreError> {
        let read = || -> rusqlite::Result<Vec<StoredSeries>> {
            let mut series = self.connection.prepare(
                "SELECT id, family, labels, count, sum_millis, buckets, released, touched_at FROM series \
                 ORDER BY family, labels",
            )?;
            series.query_map([], stored_series)?.collect()
        };
        read().map_err(|error| failed(&self.path, &error))
    }

    /// What was counted for an entity, in the order of arrival.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn facts(&self, entity: &Entity) -> Result<Vec<Fact>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Fact>> {
            let sql = format!("SELECT {FACT_COLUMNS} FROM counted WHERE entity = ?1 ORDER BY seq");
            self.connection.prepare(&sql)?.query_map([entity.0], fact)?.collect()
        };
        read().map_err(|error| failed(&self.path, &error))
    }
}

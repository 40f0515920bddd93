-- What has been counted, one row an event and entity, only ever added. Its uniqueness is kept in memory.
CREATE TABLE IF NOT EXISTS counted (
    seq INTEGER PRIMARY KEY,
    entity BLOB NOT NULL,          -- kind (1 build, 2 job, 3 agent, 4 registration) and 16 bytes of id
    rules INTEGER NOT NULL,        -- bits, see the view counted_rules
    at INTEGER,                    -- milliseconds since 1970, by the payload
    started_at INTEGER,
    word TEXT,
    counted_at INTEGER NOT NULL    -- arrival
);

-- Totals, absolute.
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY,
    family TEXT NOT NULL,
    labels TEXT NOT NULL,          -- a JSON object
    count INTEGER NOT NULL,        -- a counter's value, a histogram's count, a timestamp in milliseconds
    sum_millis INTEGER NOT NULL,
    buckets TEXT NOT NULL,         -- a JSON list, a number for each bucket alone and one beyond the last
    released INTEGER NOT NULL,     -- whether Prometheus may see it as it is
    touched_at INTEGER NOT NULL
);

-- Builds and jobs that have begun and not ended.
CREATE TABLE IF NOT EXISTS in_flight (
    entity BLOB PRIMARY KEY,
    phase TEXT NOT NULL,
    since INTEGER NOT NULL,
    arrived_at INTEGER NOT NULL,
    build BLOB,
    organization TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    cluster_id TEXT,
    queue TEXT,
    cluster_queue_id TEXT
) WITHOUT ROWID;

-- Labels and buckets that the totals of a family were counted with.
CREATE TABLE IF NOT EXISTS layouts (
    family TEXT PRIMARY KEY,
    layout TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- Totals for people: counters, and histograms as count and mean.
CREATE VIEW IF NOT EXISTS totals AS
SELECT family,
       json_extract(labels, '$.organization') AS organization,
       json_extract(labels, '$.pipeline') AS pipeline,
       json_remove(labels, '$.organization', '$.pipeline') AS labels,
       count,
       CASE WHEN buckets = '' OR count = 0 THEN NULL ELSE round(sum_millis / 1000.0 / count, 3) END AS mean_seconds
FROM series
WHERE family LIKE '%\_total' ESCAPE '\' OR buckets <> '';

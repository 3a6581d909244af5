-- Keys that are not at rest: the whole burst of one is there again at `full_at_us`, in microseconds since the Unix epoch.
CREATE TABLE limits (
    id         INTEGER PRIMARY KEY,
    limit_name TEXT    NOT NULL,
    key        BLOB    NOT NULL,
    full_at_us INTEGER NOT NULL
);
CREATE UNIQUE INDEX limits_by_key ON limits (limit_name, key);
CREATE INDEX limits_by_full_at ON limits (full_at_us);

-- As in the database of the state, since every writer reads it. Limits have no revisions.
CREATE TABLE counter (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    last_revision INTEGER NOT NULL
);
INSERT INTO counter VALUES (1, 0);

-- Caches that hold something, and how much. One that was cleared has no name any more; its entries wait for the sweeper.
CREATE TABLE caches (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT    UNIQUE,
    entries INTEGER NOT NULL DEFAULT 0,
    bytes   INTEGER NOT NULL DEFAULT 0
);

-- One row for each key that has a value, or a claim, or both. It has a value, or is known to have none, once `filled_at` is
-- set, and a claim while `token` is: of nobody, which is a pause, when that is 0.
CREATE TABLE entries (
    id         INTEGER PRIMARY KEY,
    cache      INTEGER NOT NULL,
    key        BLOB    NOT NULL,
    filled_at  INTEGER,
    fresh_ms   INTEGER,
    life_ms    INTEGER,
    token      INTEGER,
    claimed_at INTEGER,
    lease_ms   INTEGER,
    failures   INTEGER NOT NULL DEFAULT 0,
    bytes      INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX entries_by_key ON entries (cache, key);
CREATE INDEX entries_by_use ON entries (cache, used_at);
CREATE INDEX entries_by_expiry ON entries (expires_at);

-- Apart from the rest, so that a change of that does not write a long value again.
CREATE TABLE contents (
    entry INTEGER PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
    value BLOB NOT NULL
);

CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    UPDATE caches SET entries = entries + 1, bytes = bytes + new.bytes WHERE id = new.cache;
END;
CREATE TRIGGER entry_resized AFTER UPDATE OF bytes ON entries BEGIN
    UPDATE caches SET bytes = bytes - old.bytes + new.bytes WHERE id = new.cache;
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE caches SET entries = entries - 1, bytes = bytes - old.bytes WHERE id = old.cache;
END;

-- As in the database of the state, since every writer reads it. Caches have no revisions.
CREATE TABLE counter (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    last_revision INTEGER NOT NULL
);
INSERT INTO counter VALUES (1, 0);

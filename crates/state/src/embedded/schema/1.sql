-- Keys are blobs, so that they are ordered by their bytes and may hold any text.

-- One row. No revision above `last_revision` was given out; all kinds draw from it.
CREATE TABLE counter (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    last_revision INTEGER NOT NULL
);
INSERT INTO counter VALUES (1, 0);

CREATE TABLE rows (
    id         INTEGER PRIMARY KEY,
    table_name TEXT    NOT NULL,
    key        BLOB    NOT NULL,
    value      BLOB    NOT NULL,
    revision   INTEGER NOT NULL,
    expires_at INTEGER
);
CREATE UNIQUE INDEX rows_by_key ON rows (table_name, key);
CREATE INDEX rows_by_expiry ON rows (expires_at) WHERE expires_at IS NOT NULL;

-- Live sessions, and those that have expired but were not swept yet. `hash` is the SHA-256 of the secret id.
CREATE TABLE sessions (
    serial              INTEGER PRIMARY KEY,
    hash                BLOB    NOT NULL UNIQUE,
    handle              TEXT    NOT NULL UNIQUE,
    user                TEXT,
    created_at          INTEGER NOT NULL,
    idle_ms             INTEGER NOT NULL,
    idle_expires_at     INTEGER NOT NULL,
    absolute_expires_at INTEGER NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user, created_at) WHERE user IS NOT NULL;
CREATE INDEX sessions_by_expiry ON sessions (idle_expires_at);

CREATE TABLE session_fields (
    session  INTEGER NOT NULL REFERENCES sessions (serial) ON DELETE CASCADE,
    name     TEXT    NOT NULL,
    value    TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (session, name)
) WITHOUT ROWID;

-- Ids that have ended. `successor` is the hash of the id that a renewal gave, and `user` whose it became.
CREATE TABLE tombstones (
    hash      BLOB    PRIMARY KEY,
    successor BLOB,
    user      TEXT,
    ended_at  INTEGER NOT NULL,
    forget_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tombstones_by_forget ON tombstones (forget_at);

CREATE TABLE blobs (
    id           INTEGER PRIMARY KEY,
    bucket       TEXT    NOT NULL,
    key          BLOB    NOT NULL,
    file         TEXT    NOT NULL UNIQUE,
    size         INTEGER NOT NULL,
    etag         TEXT    NOT NULL,
    content_type TEXT    NOT NULL,
    modified_at  INTEGER NOT NULL,
    revision     INTEGER NOT NULL
);
CREATE UNIQUE INDEX blobs_by_key ON blobs (bucket, key);

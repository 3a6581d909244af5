-- One row for each key. It is claimed while `status` is null, and answered from then on. `fields` are header fields as
-- HTTP writes them, one a line.
CREATE TABLE idempotency (
    id            INTEGER PRIMARY KEY,
    scope         TEXT    NOT NULL,
    key           BLOB    NOT NULL,
    fingerprint   BLOB    NOT NULL,
    token         INTEGER NOT NULL,
    owner         TEXT    NOT NULL,
    claimed_until INTEGER NOT NULL,
    kept_ms       INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    status        INTEGER,
    fields        BLOB,
    body          BLOB
);
CREATE UNIQUE INDEX idempotency_by_key ON idempotency (scope, key);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

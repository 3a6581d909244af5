-- The first version. Times are milliseconds since the Unix epoch; keys are bytes, so that they are ordered as such
-- whatever the database's collation is.

-- A step of the sequence is a block of as many revisions as one batch has writes, so that a row that a batch writes
-- several times has a larger one each time.
CREATE SEQUENCE {s}.revisions AS bigint START WITH 128 INCREMENT BY 128;

CREATE TABLE {s}.rows (
    table_name text COLLATE "C" NOT NULL,
    key        bytea            NOT NULL,
    value      bytea            NOT NULL,
    revision   bigint           NOT NULL,
    expires_at bigint,
    PRIMARY KEY (table_name, key)
) WITH (fillfactor = 90);
CREATE INDEX rows_by_expiry ON {s}.rows (expires_at) WHERE expires_at IS NOT NULL;

-- Live sessions, and those that have expired but were not swept yet. `hash` is the SHA-256 of the secret id, which is
-- nowhere. `fields` is the JSON of all fields with their revisions, which are drawn from `version`.
CREATE TABLE {s}.sessions (
    hash                bytea            NOT NULL PRIMARY KEY,
    serial              bigint           NOT NULL GENERATED ALWAYS AS IDENTITY,
    handle              text COLLATE "C" NOT NULL,
    user_name           text COLLATE "C",
    fields              text COLLATE "C" NOT NULL,
    version             bigint           NOT NULL,
    created_at          bigint           NOT NULL,
    idle_ms             bigint           NOT NULL,
    idle_expires_at     bigint           NOT NULL,
    absolute_expires_at bigint           NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_by_user ON {s}.sessions (user_name, created_at, serial) WHERE user_name IS NOT NULL;
CREATE INDEX sessions_by_expiry ON {s}.sessions (idle_expires_at);

-- Ids that have ended. `successor` is the hash of the id that a renewal gave, and `user_name` whose it became.
CREATE TABLE {s}.tombstones (
    hash      bytea            NOT NULL PRIMARY KEY,
    successor bytea,
    user_name text COLLATE "C",
    ended_at  bigint           NOT NULL,
    forget_at bigint           NOT NULL
);
CREATE INDEX tombstones_by_forget ON {s}.tombstones (forget_at);

-- Locks that were held. A row stays for a while after its lease: the next lease's token is drawn only when the row is
-- held, so that tokens grow in the order of the leases.
CREATE TABLE {s}.locks (
    name       bytea            NOT NULL PRIMARY KEY,
    holder     text COLLATE "C" NOT NULL,
    token      bigint           NOT NULL,
    expires_at bigint           NOT NULL
);
CREATE INDEX locks_by_expiry ON {s}.locks (expires_at);

-- Idempotency keys. While `status` is null, the request runs, until `claimed_until` at the latest, and its key is kept
-- for as long after that as an answer would be. `names` and `contents` are the answer's header fields.
CREATE TABLE {s}.idempotency (
    scope         text COLLATE "C" NOT NULL,
    key           bytea            NOT NULL,
    fingerprint   bytea            NOT NULL,
    token         bigint           NOT NULL,
    owner         text COLLATE "C" NOT NULL,
    claimed_until bigint           NOT NULL,
    kept_ms       bigint           NOT NULL,
    expires_at    bigint           NOT NULL,
    status        integer,
    names         text[],
    contents      bytea[],
    body          bytea,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_by_expiry ON {s}.idempotency (expires_at);

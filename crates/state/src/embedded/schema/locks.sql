-- Locks that are held, and those whose lease is over but that were not swept yet. Tokens are revisions (`counter`), so
-- that none comes again after its row has gone.
CREATE TABLE locks (
    name       BLOB    PRIMARY KEY,
    holder     TEXT    NOT NULL,
    token      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX locks_by_expiry ON locks (expires_at);

-- The newest fencing token that a blob was written or deleted with. Of a blob that was deleted it is kept for a while:
-- `forget_at` says until when.
CREATE TABLE blob_fences (
    bucket    TEXT    NOT NULL,
    key       BLOB    NOT NULL,
    token     INTEGER NOT NULL,
    forget_at INTEGER,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE INDEX blob_fences_by_forget ON blob_fences (forget_at) WHERE forget_at IS NOT NULL;

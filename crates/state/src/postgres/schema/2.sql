-- What has changed lately, for feeds. Triggers write it, so that nothing that writes can forget it: no older worker, and
-- nobody who helps himself by hand.

-- It is in no log: a crash of the server empties it, and `feed_epoch` with it, by which those who follow know.
CREATE UNLOGGED TABLE {s}.changes (
    xid        xid8             NOT NULL DEFAULT pg_current_xact_id(),
    -- Null for sessions.
    table_name text COLLATE "C",
    -- The key of a row, or the hash of a session's id.
    name       bytea            NOT NULL
);
CREATE INDEX changes_by_xid ON {s}.changes (xid);

-- One row, which is drawn by the first who follows and stays for as long as nothing of `changes` was lost.
CREATE UNLOGGED TABLE {s}.feed_epoch (
    id    integer NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch bigint  NOT NULL
);

CREATE FUNCTION {s}.note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {s}.changes (table_name, name) VALUES (NEW.table_name, NEW.key);
    RETURN NULL;
END $$;

CREATE FUNCTION {s}.note_row_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {s}.changes (table_name, name) VALUES (OLD.table_name, OLD.key);
    RETURN NULL;
END $$;

CREATE FUNCTION {s}.note_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {s}.changes (name) VALUES (OLD.hash);
    RETURN NULL;
END $$;

CREATE FUNCTION {s}.end_feeds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {s}.feed_epoch;
    RETURN NULL;
END $$;

-- The revision 0 is that of a placeholder, which nobody else sees.
CREATE TRIGGER note AFTER INSERT OR UPDATE ON {s}.rows
    FOR EACH ROW WHEN (NEW.revision > 0) EXECUTE FUNCTION {s}.note_row();
CREATE TRIGGER note_gone AFTER DELETE ON {s}.rows
    FOR EACH ROW WHEN (OLD.revision > 0) EXECUTE FUNCTION {s}.note_row_gone();
CREATE TRIGGER note_all_gone AFTER TRUNCATE ON {s}.rows EXECUTE FUNCTION {s}.end_feeds();

-- That a session was used is no change, and a new one is known to nobody.
CREATE TRIGGER note AFTER UPDATE ON {s}.sessions
    FOR EACH ROW WHEN (OLD.version <> NEW.version OR OLD.hash <> NEW.hash) EXECUTE FUNCTION {s}.note_session();
CREATE TRIGGER note_gone AFTER DELETE ON {s}.sessions
    FOR EACH ROW EXECUTE FUNCTION {s}.note_session();
CREATE TRIGGER note_all_gone AFTER TRUNCATE ON {s}.sessions EXECUTE FUNCTION {s}.end_feeds();

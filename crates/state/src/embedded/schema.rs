//! The schemas of the databases, and how a file of an older version is brought to them. A file that is damaged, foreign or
//! newer is refused and left untouched.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::failure::Failure;

/// A sort of database.
#[derive(Debug)]
pub(super) struct Schema {
    /// Marks an SQLite file as lethe's own (`PRAGMA application_id`), and as one of this sort.
    application_id: i64,
    /// What brings version `n` to `n + 1`, each in one transaction. Steps are only ever added.
    steps: &'static [&'static str],
    /// `PRAGMA synchronous`. FULL makes each commit wait until the log is on the disk: what is acknowledged survives a power
    /// cut too. NORMAL only writes to it, so that what is acknowledged survives the end of the process: a power cut may take
    /// the end of the log, but never a part out of its middle.
    synchronous: &'static str,
    /// The log is brought into the database when it has so many pages.
    log_pages: i64,
}

/// All that must not be lost.
pub(super) const STATE: Schema = Schema {
    application_id: 0x6c65_7468, // "leth" in ASCII
    steps: &[
        include_str!("schema/1.sql"),
        include_str!("schema/locks.sql"),
        include_str!("schema/idempotency.sql"),
    ],
    synchronous: "full",
    // Each time writers wait for the disk twice more. The next start reads the log, in some tens of milliseconds at most.
    log_pages: WAL_BYTES_KEPT / 4096,
};

/// What limits have counted: a database of its own, so that a call of a limit waits for no disk, neither its own nor that
/// of a write that is just being committed.
pub(super) const LIMITS: Schema = Schema {
    application_id: 0x6c65_746c, // "letl" in ASCII
    steps: &[include_str!("schema/limits.sql")],
    synchronous: "normal",
    // To empty the log waits for the disk after all, so it is done as seldom as its bound lets it.
    log_pages: WAL_BYTES_KEPT / 4096,
};

/// What can be computed again: a database of its own for the same reason, whose values come and go.
pub(super) const CACHE: Schema = Schema {
    application_id: 0x6c65_7463, // "letc" in ASCII
    steps: &[include_str!("schema/cache.sql")],
    synchronous: "normal",
    log_pages: WAL_BYTES_KEPT / 4096,
};

/// Page cache of the writing connection, in KiB. It is only as large as what is really used.
const WRITER_CACHE_KIB: i64 = 2048;
/// Page cache of each reading connection, in KiB: small, since each commit empties it anyway.
const READER_CACHE_KIB: i64 = 512;
/// The write-ahead log is cut down to this after a burst, in bytes.
const WAL_BYTES_KEPT: i64 = 16 << 20;
/// Prepared statements that a connection keeps.
const STATEMENTS_KEPT: usize = 64;
/// How long a connection waits for a lock of another one: for the recovery of the log as the file is opened, and for the
/// other writer while one `lethe` takes over from another.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at such a lock. SQLite's own handler soon waits 100 ms each time, in which a busy writer lets go and
/// takes it again many times.
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// Opens the database for the writer: made if it is not there, checked, and brought to this version.
pub(super) fn open_writer(schema: &Schema, database: &Path) -> Result<Connection, Failure> {
    // SQLite gives its log and index files the mode of the database, so only the owner reads any of them.
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(database)
        .map_err(|error| Failure::io("create", database, &error))?;
    prepare_writer(schema, database).map_err(|error| match error {
        Refusal::Sqlite(error) => Failure::sqlite(database, &error),
        Refusal::Failure(failure) => failure,
    })
}

/// Opens a database beside another process that writes to it: as [`open_writer`], but its schema must be of this version,
/// since the other one could not go on with another. One that is not there is none that the other one has.
pub(super) fn open_beside(schema: &Schema, database: &Path) -> Result<Connection, Failure> {
    if !database.exists() {
        return open_writer(schema, database);
    }
    let version = open_reader(database)?
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map_err(|error| Failure::sqlite(database, &error))?;
    let known = schema.version();
    if version < known {
        return Err(Failure::Older { file: database.display().to_string(), found: version, known });
    }
    open_writer(schema, database)
}

impl Schema {
    /// The version that all steps lead to.
    fn version(&self) -> i64 {
        i64::try_from(self.steps.len()).unwrap_or(i64::MAX)
    }
}

/// Opens one more connection, for reading alone.
pub(super) fn open_reader(database: &Path) -> Result<Connection, Failure> {
    let open = || {
        let mut connection = Connection::open_with_flags(
            database,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        set_up(&mut connection, READER_CACHE_KIB)?;
        Ok(connection)
    };
    open().map_err(|error| Failure::sqlite(database, &error))
}

/// Why a database is not opened.
enum Refusal {
    Sqlite(rusqlite::Error),
    Failure(Failure),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn prepare_writer(schema: &Schema, database: &Path) -> Result<Connection, Refusal> {
    let mut connection = Connection::open_with_flags(
        database,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    set_up(&mut connection, WRITER_CACHE_KIB)?;
    check_owner(schema, &connection, database)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })?;
    connection.pragma_update(None, "synchronous", schema.synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", schema.log_pages)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    migrate(schema, &mut connection)?;
    check_tables(&connection)?;
    Ok(connection)
}

fn set_up(connection: &mut Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_handler(Some(wait))?;
    // Without the planner's stability guarantee, SQLite plans a statement again whenever its parameters have other
    // values: several times the cost of a look-up.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    // What SQLite keeps to undo a savepoint stays in memory: a full /tmp is no reason to fail.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "foreign_keys", true)
}

/// Waits for a lock that was not had `looks` times; false when it was waited for long enough.
fn wait(looks: i32) -> bool {
    std::thread::sleep(BUSY_LOOK);
    u128::try_from(looks).is_ok_and(|looks| looks * BUSY_LOOK.as_millis() < BUSY_WAIT.as_millis())
}

/// Reads the file's header and schema, which also finds a file that is no database, or was cut short.
fn check_owner(schema: &Schema, connection: &Connection, database: &Path) -> Result<(), Refusal> {
    let file = || database.display().to_string();
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (version, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != schema.application_id && (tables > 0 || version > 0 || application != 0) {
        return Err(Failure::Foreign { file: file() }.into());
    }
    let known = schema.version();
    if version > known {
        return Err(Failure::Newer { file: file(), found: version, known }.into());
    }
    Ok(())
}

fn migrate(schema: &Schema, connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (step, version) in schema.steps.iter().zip(1_i64..).skip(usize::try_from(version).unwrap_or(0)) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", schema.application_id)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Reads the first row of each table, by which damage to the pages that all depends on is found at once.
/// The whole file is not read: that would make the start as slow as the state is large.
fn check_tables(connection: &Connection) -> rusqlite::Result<()> {
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names = tables.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for name in names {
        connection.query_row(
            &format!("SELECT count(*) FROM (SELECT * FROM \"{name}\" LIMIT 1)"),
            [],
            |row| row.get::<_, i64>(0),
        )?;
    }
    Ok(())
}

/// Makes the folder's list of files durable: a file that is new in it is there after a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use rusqlite::{StatementStatus, fallible_iterator::FallibleIterator as _};

    use super::*;

    #[test]
    fn statements_are_planned_once() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open_writer(&STATE, &directory.path().join("state.db")).unwrap();
        let sql = "SELECT name FROM sessions LEFT JOIN session_fields ON session = serial WHERE hash = ?1";
        let mut statement = connection.prepare(sql).unwrap();
        for n in 0..10_u8 {
            assert!(!statement.exists([[n; 32]]).unwrap());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }

    /// Does so many statements of a step, and says whether there are more.
    fn begin_step(connection: &Connection, step: &str, statements: usize) -> bool {
        let mut batch = rusqlite::Batch::new(connection, step);
        for _ in 0..statements {
            match batch.next().unwrap() {
                Some(mut statement) => _ = statement.execute([]).unwrap(),
                None => return false,
            }
        }
        true
    }

    /// What a process leaves that is killed in the middle of a step is a log with a part of it that was never committed. The
    /// step is taken as if it had not been begun.
    #[test]
    fn a_step_that_was_interrupted_is_taken_again() {
        let (mut cuts, mut logs) = (0, 0);
        for version in 0..STATE.steps.len() {
            for statements in 1.. {
                let (directory, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let of = |directory: &tempfile::TempDir, file: &str| directory.path().join(file);
                let old = Connection::open(of(&directory, "state.db")).unwrap();
                old.query_row("PRAGMA journal_mode = wal", [], |_| Ok(())).unwrap();
                old.execute_batch(&STATE.steps[..version].concat()).unwrap();
                if version > 0 {
                    old.pragma_update(None, "application_id", STATE.application_id).unwrap();
                    old.pragma_update(None, "user_version", version as i64).unwrap();
                }
                old.query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
                // With no room for it in memory, what is not committed gets into the log.
                old.pragma_update(None, "cache_size", 1).unwrap();
                old.execute_batch("BEGIN").unwrap();
                if !begin_step(&old, STATE.steps[version], statements) {
                    break;
                }
                for file in ["state.db", "state.db-wal"] {
                    fs::copy(of(&directory, file), of(&after, file)).unwrap();
                }
                cuts += 1;
                logs += u64::from(fs::metadata(of(&after, "state.db-wal")).unwrap().len() > 0);
                let connection = open_writer(&STATE, &of(&after, "state.db")).unwrap();
                let reached: i64 =
                    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
                assert_eq!(reached, STATE.version(), "{statements} statements of step {}", version + 1);
            }
        }
        assert!(cuts > STATE.steps.len() && logs > 0, "{cuts} cuts, {logs} with a log");
    }

    #[test]
    fn a_database_of_any_version_is_brought_to_this_one() {
        for version in 1..=STATE.steps.len() {
            let directory = tempfile::tempdir().unwrap();
            let database = directory.path().join("state.db");
            let old = Connection::open(&database).unwrap();
            old.execute_batch(&STATE.steps[..version].concat()).unwrap();
            old.execute_batch("INSERT INTO rows VALUES (1, 't', x'6b', x'76', 1, NULL)").unwrap();
            old.pragma_update(None, "application_id", STATE.application_id).unwrap();
            old.pragma_update(None, "user_version", version as i64).unwrap();
            drop(old);
            let connection = open_writer(&STATE, &database).unwrap();
            let reached: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(reached, STATE.steps.len() as i64, "from {version}");
            assert!(
                connection.prepare("SELECT 1 FROM rows WHERE value = x'76'").unwrap().exists([]).unwrap()
            );
            let fresh = open_writer(&STATE, &directory.path().join("fresh.db")).unwrap();
            assert_eq!(described(&connection), described(&fresh), "from {version}");
        }
    }

    fn described(connection: &Connection) -> Vec<String> {
        let sql = "SELECT name || ': ' || coalesce(sql, '') FROM sqlite_schema ORDER BY name";
        let mut read = connection.prepare(sql).unwrap();
        read.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn commits_wait_for_the_disk_but_those_of_limits_and_caches() {
        for (schema, synchronous, log_pages) in [(STATE, 2, 4096), (LIMITS, 1, 4096), (CACHE, 1, 4096)] {
            let directory = tempfile::tempdir().unwrap();
            let connection = open_writer(&schema, &directory.path().join("some.db")).unwrap();
            let number =
                |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!((number("synchronous"), number("foreign_keys")), (synchronous, 1));
            assert_eq!(number("wal_autocheckpoint"), log_pages);
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }

    #[test]
    fn one_database_is_not_taken_for_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("some.db");
        open_writer(&LIMITS, &database).unwrap();
        assert!(matches!(open_writer(&STATE, &database), Err(Failure::Foreign { .. })));
    }
}

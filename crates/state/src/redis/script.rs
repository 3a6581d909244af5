//! The scripts: each operation is one of them, run by the server in one step. They are sent whole once for each server, and
//! named by their hash from then on.

use std::sync::LazyLock;

use redis::Cmd;

use super::request::Request;

/// A script, and what may be done when its answer is lost.
pub(super) struct Script {
    /// Whether doing it twice is the same as doing it once, to its caller and to all others.
    pub(super) is_repeatable: bool,
    loaded: LazyLock<(String, String)>,
}

/// Says at the head of a script what it may do. It is refused before it has begun when the server is out of memory, is a
/// replica or cannot write its log, so that none ends half-way.
const WRITES: &str = "#!lua\n";
/// For what frees memory: also done when there is none.
const FREES: &str = "#!lua flags=allow-oom\n";
/// Also done by a server that can write nothing.
const READS: &str = "#!lua flags=no-writes\n";
/// Begins in any case; what it writes, it can do without.
const TRIES: &str = "";

const CLOCK: &str = include_str!("scripts/clock.lua");
const ROW: &str = include_str!("scripts/row.lua");
const SESSION: &str = include_str!("scripts/session.lua");
const LOCK: &str = include_str!("scripts/lock.lua");
const KEY: &str = include_str!("scripts/idempotency.lua");
const ENLIST: &str = include_str!("scripts/enlist.lua");
const TOUCH: &str = include_str!("scripts/touch.lua");
const CACHE: &str = include_str!("scripts/cache.lua");
const CACHE_KEEP: &str = include_str!("scripts/cache_keep.lua");

macro_rules! script {
    ($name:ident, $is_repeatable:literal, [$($part:expr),+], $doc:literal) => {
        #[doc = $doc]
        pub(super) static $name: Script = Script {
            is_repeatable: $is_repeatable,
            loaded: LazyLock::new(|| load(&[$($part),+])),
        };
    };
}

script!(GET, true, [READS, CLOCK, ROW, include_str!("scripts/table_get.lua")], "Reads a row.");
script!(SCAN, true, [READS, CLOCK, ROW, include_str!("scripts/table_scan.lua")], "Reads a page of rows.");
script!(
    APPLY,
    false,
    [WRITES, CLOCK, ROW, include_str!("scripts/integer.lua"), TOUCH, include_str!("scripts/table_apply.lua")],
    "Does a batch of writes. Done again, it would undo what others have written in between."
);
script!(DUE, true, [READS, CLOCK, include_str!("scripts/table_due.lua")], "Names rows that have expired.");
script!(SWEEP, true, [FREES, CLOCK, ROW, include_str!("scripts/table_sweep.lua")], "Removes expired rows.");
script!(
    CREATE,
    true,
    [WRITES, CLOCK, SESSION, ENLIST, include_str!("scripts/session_create.lua")],
    "Creates a session. Done again with the same id, it finds it."
);
script!(
    SESSION_ENLIST,
    true,
    [WRITES, CLOCK, ENLIST, include_str!("scripts/session_enlist.lua")],
    "Enters a session into its user's index."
);
script!(
    LOAD,
    true,
    [TRIES, CLOCK, SESSION, include_str!("scripts/session_load.lua")],
    "Reads a session, and moves its idle end on."
);
script!(
    PATCH,
    false,
    [WRITES, CLOCK, SESSION, include_str!("scripts/session_patch.lua")],
    "Changes fields. Done again, it would undo what others have written in between."
);
script!(
    RENEW,
    true,
    [WRITES, CLOCK, SESSION, ENLIST, include_str!("scripts/session_renew.lua")],
    "Gives a session another id. Done again with the same new id, it finds it."
);
script!(
    END,
    true,
    [FREES, CLOCK, SESSION, include_str!("scripts/session_end.lua")],
    "Ends a session. Done again, it finds it ended, and says so."
);
script!(
    INFO,
    true,
    [READS, CLOCK, SESSION, include_str!("scripts/session_info.lua")],
    "Reads what a list says of a session."
);

script!(
    SESSION_ENTRIES,
    true,
    [READS, CLOCK, include_str!("scripts/session_entries.lua")],
    "Reads a page of a user's index."
);
script!(
    SESSION_STRIKE,
    true,
    [FREES, CLOCK, include_str!("scripts/session_strike.lua")],
    "Takes entries out of a user's index."
);

script!(
    ACQUIRE,
    true,
    [WRITES, CLOCK, LOCK, include_str!("scripts/lock_acquire.lua")],
    "Takes a lock. Done again with the same nonce, it finds it taken."
);
script!(
    LOCK_RENEW,
    true,
    [WRITES, CLOCK, LOCK, include_str!("scripts/lock_renew.lua")],
    "Lets a lease last longer."
);
script!(
    RELEASE,
    false,
    [FREES, CLOCK, LOCK, include_str!("scripts/lock_release.lua")],
    "Lets a lock go. Done again, it finds that it was."
);
script!(LOOK, true, [READS, CLOCK, LOCK, include_str!("scripts/lock_look.lua")], "Reads who holds a lock.");
script!(
    LOCK_LIST,
    true,
    [READS, CLOCK, LOCK, include_str!("scripts/lock_list.lua")],
    "Reads a page of locks that are held."
);
script!(
    BEGIN,
    true,
    [WRITES, CLOCK, KEY, include_str!("scripts/idempotency_begin.lua")],
    "Claims a key. Done again with the same token, it finds it claimed."
);
script!(
    EXTEND,
    true,
    [WRITES, CLOCK, KEY, include_str!("scripts/idempotency_extend.lua")],
    "Lets a claim last longer."
);
script!(
    FINISH,
    true,
    [WRITES, CLOCK, KEY, include_str!("scripts/idempotency_finish.lua")],
    "Keeps an answer. Done again with the same nonce, it finds it kept."
);
script!(
    ABANDON,
    false,
    [FREES, CLOCK, KEY, include_str!("scripts/idempotency_abandon.lua")],
    "Forgets a key. Done again, it finds it forgotten."
);
script!(
    TAKE,
    false,
    [WRITES, CLOCK, include_str!("scripts/limit_take.lua")],
    "Does calls of limits. Done again, it would count them twice."
);
script!(
    RESET,
    false,
    [FREES, CLOCK, include_str!("scripts/limit_reset.lua")],
    "Gives a key its whole burst back. Done again, it finds nothing missing."
);
script!(
    LIMIT_LIST,
    true,
    [READS, CLOCK, include_str!("scripts/limit_list.lua")],
    "Reads a page of keys that are not at rest."
);
script!(
    CACHE_BEGIN,
    true,
    [TRIES, CLOCK, CACHE, CACHE_KEEP, include_str!("scripts/cache_begin.lua")],
    "Looks at a key of a cache, and claims it. Done again with the same token, it finds it claimed."
);
script!(
    CACHE_EXTEND,
    true,
    [WRITES, CLOCK, CACHE, CACHE_KEEP, include_str!("scripts/cache_extend.lua")],
    "Lets a claim on a key of a cache last longer."
);
script!(
    CACHE_FILL,
    true,
    [WRITES, CLOCK, CACHE, CACHE_KEEP, TOUCH, include_str!("scripts/cache_fill.lua")],
    "Keeps a value. Done again with the same nonce, it finds it kept."
);
script!(
    CACHE_ABANDON,
    false,
    [FREES, CLOCK, CACHE, CACHE_KEEP, include_str!("scripts/cache_abandon.lua")],
    "Gives a claim back. Done again, it finds that it was."
);
script!(
    CACHE_REMOVE,
    true,
    [FREES, CLOCK, CACHE, CACHE_KEEP, TOUCH, include_str!("scripts/cache_remove.lua")],
    "Removes an entry, and its claim."
);
script!(
    CACHE_CLEAR,
    true,
    [FREES, CLOCK, CACHE, TOUCH, include_str!("scripts/cache_clear.lua")],
    "Removes all entries of a cache."
);
script!(CACHE_GET, true, [READS, CLOCK, CACHE, include_str!("scripts/cache_get.lua")], "Reads entries.");
script!(
    CACHE_USAGE,
    true,
    [READS, CLOCK, CACHE, include_str!("scripts/cache_usage.lua")],
    "Reads how much a cache holds."
);

script!(COUNTER_READ, true, [READS, include_str!("scripts/counter_read.lua")], "Reads a counter.");
script!(
    COUNTER_RAISE,
    true,
    [WRITES, include_str!("scripts/integer.lua"), include_str!("scripts/counter_raise.lua")],
    "Lets a counter go on behind a number."
);
script!(
    ROW_RESTORE,
    true,
    [WRITES, CLOCK, ROW, include_str!("scripts/integer.lua"), TOUCH, include_str!("scripts/row_restore.lua")],
    "Writes a row as it was elsewhere."
);
script!(
    SESSION_RESTORE,
    true,
    [WRITES, CLOCK, SESSION, ENLIST, include_str!("scripts/session_restore.lua")],
    "Writes a session as it was elsewhere."
);
script!(
    SESSION_BURY,
    true,
    [WRITES, CLOCK, SESSION, include_str!("scripts/session_bury.lua")],
    "Marks an id that has ended elsewhere."
);
script!(
    SESSION_DUMP,
    true,
    [READS, CLOCK, SESSION, include_str!("scripts/session_dump.lua")],
    "Reads all of a session, or its mark."
);
script!(
    ANSWER_RESTORE,
    true,
    [WRITES, CLOCK, KEY, include_str!("scripts/answer_restore.lua")],
    "Writes an answer as it was given elsewhere."
);
script!(
    ANSWER_DUMP,
    true,
    [READS, CLOCK, KEY, include_str!("scripts/answer_dump.lua")],
    "Reads an answer under its key."
);

/// The text of a script and its hash.
fn load(parts: &[&str]) -> (String, String) {
    let source = parts.concat();
    let hash = redis::Script::new(&source).get_hash().to_owned();
    (source, hash)
}

impl Script {
    /// The command that runs it by its hash, or by its text.
    pub(super) fn command(&self, request: &Request, whole: bool) -> Cmd {
        let (source, hash) = &*self.loaded;
        let mut command = if whole { redis::cmd("EVAL") } else { redis::cmd("EVALSHA") };
        command.arg(if whole { source } else { hash }).arg(request.keys.len());
        for key in &request.keys {
            command.arg(key);
        }
        for arg in &request.args {
            command.arg(&arg[..]);
        }
        command
    }
}

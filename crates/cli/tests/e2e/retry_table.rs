//! The retry table, row by row: a real worker is killed at that exact moment, and what its client sees, how often the
//! request was carried out, and what the gateway counts are just what the table says.

use std::fmt;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;

use crate::{
    caller::{End, Http, Reply},
    custodian::gone,
    mortal::{LARGE_BYTES, Manner, Moment, events, payload, small},
    mortal_lab::{Kind, Lab, kind},
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Tried on another worker: its client notices nothing.
    Again,
    /// 502 with `Lethe-Outcome: unknown`, and not tried again.
    Unknown,
    /// What was sent of the response arrives, and then the connection, or the stream, is cut.
    Cut,
    /// The rest of the response comes from another worker: its client notices nothing.
    Resumed,
    /// There is no such row.
    None,
}

const KINDS: [Kind; 10] = [
    kind("get", "GET"),
    kind("head", "HEAD"),
    kind("put", "PUT"),
    kind("delete", "DELETE"),
    kind("post", "POST"),
    Kind { headers: &[("idempotency-key", "\"1\"")], ..kind("key", "POST") },
    Kind { route: "idempotent = true\n", ..kind("route", "POST") },
    kind("patch", "PATCH"),
    Kind { is_open: true, ..kind("put-chunks", "PUT") },
    Kind { is_open: true, ..kind("post-chunks", "POST") },
];

pub const EMPTY: usize = 0;
pub const SMALL: usize = 100;
/// As much as is kept to be sent again.
pub const KEPT: usize = 1 << 20;
/// So much that half of it is more than is kept.
const OVER: usize = 3 << 20;

/// The moment at which the worker dies, the bytes of the request's body, and what becomes of each kind of request.
type Row = (Moment, usize, [Fate; KINDS.len()]);

#[rustfmt::skip]
fn table() -> Vec<Row> {
    use Fate::{Again as A, Cut as C, None as N, Resumed as R, Unknown as U};
    use Moment::*;
    vec![
        //                   GET HEAD PUT DELETE POST KEY ROUTE PATCH PUT POST in chunks
        (Unread,      EMPTY, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Unread,      SMALL, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Unread,      KEPT,  [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Unread,      OVER,  [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Head,        EMPTY, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Head,        SMALL, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Head,        KEPT,  [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Head,        OVER,  [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfBody,    SMALL, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfBody,    KEPT,  [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfBody,    OVER,  [U,  U,   U,  U,     U,   U,  U,    U,    U,  U]),
        (Ran,         EMPTY, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Ran,         SMALL, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Ran,         KEPT,  [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (Ran,         OVER,  [U,  U,   U,  U,     U,   U,  U,    U,    U,  U]),
        (HalfHead,    EMPTY, [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfHead,    KEPT,  [A,  A,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfHead,    OVER,  [U,  U,   U,  U,     U,   U,  U,    U,    U,  U]),
        // Unless its client has seen the head by then, as `check` says.
        (WholeHead,   EMPTY, [A,  N,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfSmall,   EMPTY, [A,  N,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfSmall,   KEPT,  [A,  N,   A,  A,     U,   A,  A,    U,    A,  U]),
        (HalfSmall,   OVER,  [U,  N,   U,  U,     U,   U,  U,    U,    U,  U]),
        (HalfLarge,   EMPTY, [C,  N,   C,  C,     C,   C,  C,    C,    C,  C]),
        (HalfTagged,  EMPTY, [R,  N,   C,  C,     C,   C,  C,    C,    C,  C]),
        (HalfChunked, EMPTY, [C,  N,   C,  C,     C,   C,  C,    C,    C,  C]),
        (HalfEvents,  EMPTY, [C,  N,   C,  C,     C,   C,  C,    C,    C,  C]),
        (HalfSizedEvents, EMPTY, [C, N, C, C,     C,   C,  C,    C,    C,  C]),
        (Upgraded,    EMPTY, [C,  N,   N,  N,     N,   N,  N,    N,    N,  N]),
    ]
}

/// One cell of the table.
#[derive(Clone, Copy)]
pub struct Case {
    pub http: Http,
    pub moment: Moment,
    pub manner: Manner,
    pub body_bytes: usize,
    pub fate: Fate,
}

/// Its name in the record.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { http, moment, manner, body_bytes, .. } = self;
        write!(f, "{http:?}-{moment:?}-{manner:?}-{body_bytes}")
    }
}

/// The cells of one column, over both versions of HTTP.
fn column(number: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for (moment, body_bytes, fates) in table() {
        let manners =
            if moment == Moment::Ran { &[Manner::Killed, Manner::Awaited][..] } else { &[Manner::Killed] };
        for http in [Http::One, Http::Two] {
            // HTTP/2 has another way to upgrade (RFC 8441).
            if fates[number] != Fate::None && (http, moment) != (Http::Two, Moment::Upgraded) {
                let case = |&manner| Case { http, moment, manner, body_bytes, fate: fates[number] };
                cases.extend(manners.iter().map(case));
            }
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row() -> anyhow::Result<()> {
    let lab = Lab::open(&KINDS, "").await?;
    let columns = KINDS.iter().enumerate().map(async |(number, kind)| {
        let mut fates = Vec::new();
        for case in column(number) {
            let fate = check(&lab, kind, case).await;
            fates.push(fate.with_context(|| format!("{} {case}", kind.service))?);
        }
        anyhow::Ok(fates)
    });
    let fates = try_join_all(columns).await?.concat();
    let number = |fate: Fate| fates.iter().filter(|&&found| found == fate).count() as u64;
    let totals = lab.lethe.client.status().await?.gateway;
    println!("{} workers were killed: {totals:?}", fates.len());
    ensure!(totals.unknown == number(Fate::Unknown), "unknown: {totals:?}");
    // A tunnel ends as its ends do: nothing is cut there.
    ensure!(totals.cut == number(Fate::Cut) - 1, "cut: {totals:?}");
    // A worker that is dead already refuses the connection, which is another attempt.
    ensure!(totals.retries >= number(Fate::Again) + number(Fate::Resumed), "retries: {totals:?}");
    ensure!(totals.shed == 0, "shed: {totals:?}");
    lab.lethe.down().await
}

/// One cell: a request whose worker dies, and the worker that comes after it. Returns what became of it.
pub async fn check(lab: &Lab, kind: &Kind, mut case: Case) -> anyhow::Result<Fate> {
    let reply = lab.call(kind, case, 1).await?;
    let (record, name) = (lab.record(kind), case.to_string());
    let dead = record.dying(&name);
    ensure!(dead.len() == 1, "{} workers died", dead.len());
    for worker in dead {
        // Until it is gone, it may still take what comes next.
        gone(worker).await?;
    }
    if case.moment == Moment::WholeHead && reply.end == End::Cut {
        // The head was passed on at once, as it must be, and cannot be taken back.
        case.fate = Fate::Cut;
    }
    check_reply(kind, case, &reply)?;
    let ran_before = usize::from(case.moment >= Moment::Ran);
    let expected = match case.fate {
        Fate::Again | Fate::Resumed => ran_before + 1,
        Fate::Unknown | Fate::Cut | Fate::None => ran_before,
    };
    let ran = record.ran(&name);
    ensure!(ran == expected, "ran {ran} times instead of {expected}");
    Ok(case.fate)
}

/// Whether a client has seen just what the case says.
pub fn check_reply(kind: &Kind, case: Case, reply: &Reply) -> anyhow::Result<()> {
    let Reply { status, outcome, content_type, body, end } = reply;
    let seen = format!("{status}, {outcome:?}, {} bytes, {end:?}", body.len());
    let is_unknown = case.fate == Fate::Unknown;
    ensure!((outcome.as_deref() == Some("unknown")) == is_unknown, "the outcome: {seen}");
    match (case.fate, case.moment) {
        (Fate::Again, _) => {
            let expected = match case.moment {
                _ if kind.method == "HEAD" => Vec::new(),
                Moment::WholeHead => payload(LARGE_BYTES),
                _ => small(&payload(case.body_bytes)),
            };
            ensure!((*status, *end) == (200, End::Whole) && *body == expected, "{seen}");
        }
        (Fate::Resumed, _) => {
            ensure!((*status, *end) == (200, End::Whole) && *body == payload(LARGE_BYTES), "{seen}");
        }
        (Fate::Unknown, _) => {
            let is_problem = content_type.as_deref() == Some("application/problem+json");
            ensure!((*status, *end) == (502, End::Whole) && is_problem, "{seen}, {content_type:?}");
        }
        (Fate::Cut, Moment::Upgraded) => ensure!((*status, &body[..]) == (101, b"ping"), "{seen}"),
        (Fate::Cut, moment) => {
            let is_events = matches!(moment, Moment::HalfEvents | Moment::HalfSizedEvents);
            let whole = if is_events { events() } else { payload(LARGE_BYTES) };
            ensure!((*status, *end) == (200, End::Cut) && whole.starts_with(body), "{seen}");
            ensure!(body.len() < whole.len(), "it is whole: {seen}");
            // Events are passed on as they come: none waits for the next.
            ensure!(!is_events || body.len() == whole.len() / 2, "{seen}");
        }
        (Fate::None, _) => {}
    }
    Ok(())
}

//! What the whole terminal shows, as a pure function: the table of workers above, lines below.

use std::time::SystemTime;

use lethe_admin::api::{Status, Worker};
use lethe_model::roster::WorkerState;

use crate::{
    ansi, figures,
    paint::{Paint, Style},
    workers,
};

/// Rows of the table that are no workers: the summary, the heading, the folded rest and the rule below.
const FIXED_ROWS: usize = 4;

/// With fewer rows there is no room for a table of one worker and a line.
const ROWS_MIN: usize = FIXED_ROWS + 3;

/// With fewer columns a table says nothing.
const COLUMNS_MIN: usize = 20;

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// A line as it is shown.
#[derive(Clone, Debug)]
pub struct Line {
    /// Whose it is.
    pub prefix: String,
    /// The columns that `prefix` takes; further rows of the line begin below its text.
    pub indent: usize,
    /// The text, fit for a terminal.
    pub text: String,
}

/// All rows of the terminal, exactly `size.rows`, none wider than `size.columns`. The newest lines are at the bottom.
pub fn compose<'l>(
    status: &Status,
    lines: impl DoubleEndedIterator<Item = &'l Line>,
    size: Size,
    now: SystemTime,
    paint: Paint,
) -> Vec<String> {
    let mut rows = table(status, size, now, paint);
    let room = size.rows - rows.len();
    let mut below: Vec<String> = Vec::new();
    for line in lines.rev() {
        if below.len() >= room {
            break;
        }
        below.extend(broken(line, size.columns).into_iter().rev());
    }
    below.truncate(room);
    rows.extend(below.into_iter().rev());
    rows.resize(size.rows, String::new());
    rows
}

/// The rows of one line.
fn broken(line: &Line, columns: usize) -> Vec<String> {
    // In a very narrow terminal the text matters more than standing below itself.
    let indent = if line.indent + COLUMNS_MIN <= columns { line.indent } else { 0 };
    if indent == 0 {
        return ansi::wrap(&format!("{}{}", line.prefix, line.text), columns.max(1));
    }
    let rows = ansi::wrap(&line.text, columns - indent);
    let before = std::iter::once(line.prefix.clone()).chain(std::iter::repeat(" ".repeat(indent)));
    before.zip(rows).map(|(before, row)| before + &row).collect()
}

/// The table with its summary and rule; nothing when the terminal is too small for it.
fn table(status: &Status, size: Size, now: SystemTime, paint: Paint) -> Vec<String> {
    if size.rows < ROWS_MIN || size.columns < COLUMNS_MIN {
        return Vec::new();
    }
    // At least half of the terminal is for lines.
    let room = (size.rows / 2).saturating_sub(FIXED_ROWS).max(1);
    let (shown, folded) = fold(&status.workers, room);
    let mut rows = vec![summary(status, now, paint)];
    rows.extend(workers::lines(shown, now, paint));
    if folded > 0 {
        rows.push(paint.text(Style::DIM, &format!("+{folded} more")));
    }
    rows.push(paint.text(Style::DIM, &"─".repeat(size.columns)));
    rows.iter().map(|row| ansi::cut(row, size.columns)).collect()
}

/// The workers to show when there is room for `room`, and how many are not. Those that need a look come first.
fn fold(workers: &[Worker], room: usize) -> (Vec<&Worker>, usize) {
    let mut order: Vec<usize> = (0..workers.len()).collect();
    let well = |worker: &Worker| worker.state == WorkerState::Ready && worker.trouble.is_none();
    order.sort_by_key(|&at| well(&workers[at]));
    order.truncate(room);
    order.sort_unstable();
    let shown: Vec<&Worker> = order.into_iter().map(|at| &workers[at]).collect();
    let folded = workers.len() - shown.len();
    (shown, folded)
}

/// `lethe  http://127.0.0.1:8080  shop 3/3 ready  124 req/s  up 2m13s`.
fn summary(status: &Status, now: SystemTime, paint: Paint) -> String {
    let gateway = &status.gateway;
    let mut parts =
        vec![paint.text(Style::BOLD, "lethe"), paint.text(Style::BOLD, &status.node.urls().join("  "))];
    for service in &status.services {
        let text = match service.wanted {
            0 if service.scale.is_some_and(|scale| scale.min == 0) => format!("{} idle", service.name),
            wanted => format!("{} {}/{wanted} ready", service.name, service.ready),
        };
        let style = if service.ready == 0 && service.wanted > 0 { Style::RED } else { Style::GREEN };
        parts.push(paint.text(style, &text));
    }
    parts.push(format!("{} req/s", figures::rate(gateway.requests_per_s)));
    for (count, what) in [
        (gateway.queued, "waiting"),
        (gateway.shed, "shed"),
        (gateway.unknown, "unknown"),
        (gateway.cut, "cut"),
    ] {
        if count > 0 {
            parts.push(paint.text(Style::YELLOW, &format!("{count} {what}")));
        }
    }
    parts.push(format!("up {}", figures::age(status.node.started_at.age_at(now))));
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use lethe_admin::api::{Gateway, Node, Service};
    use lethe_model::service::{InstanceId, ServiceName};

    use super::*;

    const PLAIN: Paint = Paint { on: false };

    fn status(workers: u64) -> Status {
        let shop = ServiceName::new("shop").unwrap();
        let worker = |number| Worker {
            service: shop.clone(),
            instance: InstanceId::new(&shop, number),
            release: 1,
            pid: Some(4000 + number as u32),
            port: Some(40_000),
            socket: None,
            state: WorkerState::Ready,
            started_at: UNIX_EPOCH.into(),
            restarts: 0,
            in_flight: 2,
            requests: 100,
            failures: 0,
            requests_per_s: 41.3,
            p50_us: Some(800),
            p99_us: Some(12_300),
            cpu_percent: 3.25,
            cpu_ms: 99,
            memory_bytes: 9 << 20,
            memory_limit_bytes: None,
            memory_kills: 0,
            trouble: None,
        };
        Status {
            node: Node {
                pid: 7,
                version: "0.1.0".into(),
                listen: ([127, 0, 0, 1], 8080).into(),
                tls: None,
                admin: None,
                state_dir: "/x".into(),
                state: None,
                started_at: UNIX_EPOCH.into(),
            },
            gateway: Gateway { requests_per_s: 123.9, ..Gateway::default() },
            services: vec![Service {
                name: shop.clone(),
                wanted: workers as u32,
                ready: workers as usize,
                workers: workers as usize,
                scale: None,
            }],
            workers: (1..=workers).map(worker).collect(),
        }
    }

    fn line(text: &str) -> Line {
        Line { prefix: "shop-1 │ ".into(), indent: 9, text: text.into() }
    }

    fn frame(status: &Status, lines: &[Line], columns: usize, rows: usize) -> Vec<String> {
        let now = UNIX_EPOCH + Duration::from_secs(75);
        compose(status, lines.iter(), Size { columns, rows }, now, PLAIN)
    }

    #[test]
    fn the_table_stands_above_the_newest_lines() {
        let lines: Vec<Line> = (0..50).map(|number| line(&format!("line {number}"))).collect();
        let rows = frame(&status(2), &lines, 120, 12);
        assert_eq!(
            rows,
            [
                "lethe  http://127.0.0.1:8080  shop 2/2 ready  124 req/s  up 1m15s",
                "NAME        PID  STATE        AGE  REQ/S  IN FLIGHT      P50      P99      CPU     MEMORY  RESTARTS",
                "shop-1     4001  ready      1m15s   41.3          2  0.80 ms  12.3 ms    3.2 %    9.0 MiB         0",
                "shop-2     4002  ready      1m15s   41.3          2  0.80 ms  12.3 ms    3.2 %    9.0 MiB         0",
                &"─".repeat(120),
                "shop-1 │ line 43",
                "shop-1 │ line 44",
                "shop-1 │ line 45",
                "shop-1 │ line 46",
                "shop-1 │ line 47",
                "shop-1 │ line 48",
                "shop-1 │ line 49",
            ]
        );
    }

    #[test]
    fn many_workers_are_folded_and_the_troubled_ones_stay() {
        let mut many = status(30);
        many.workers[28].state = WorkerState::Starting;
        many.workers[29].pid = None;
        many.workers[29].trouble = Some("exited with status 1\nits last lines: …".into());
        let rows = frame(&many, &[], 140, 20);
        let names: Vec<&str> = rows[2..8].iter().map(|row| row.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["shop-1", "shop-2", "shop-3", "shop-4", "shop-29", "shop-30"]);
        assert!(rows[7].ends_with("exited with status 1"), "{}", rows[7]);
        assert!(rows[7].contains("backoff"), "{}", rows[7]);
        assert_eq!(rows[8], "+24 more");
    }

    #[test]
    fn lines_are_wrapped_below_themselves() {
        let rows = frame(&status(1), &[line(&"x".repeat(50))], 40, 10);
        assert_eq!(
            rows[4..7],
            ["shop-1 │ ".to_string() + &"x".repeat(31), " ".repeat(9) + &"x".repeat(19), "".into()]
        );
    }

    #[test]
    fn every_size_is_filled_and_never_overflowed() {
        let lines: Vec<Line> =
            (0..9).map(|_| line("漢字 and a long text that is wrapped somewhere")).collect();
        for columns in 1..90 {
            for rows in 1..30 {
                let frame = frame(&status(9), &lines, columns, rows);
                assert_eq!(frame.len(), rows);
                // A wide character cannot be cut in two.
                let widest = frame.iter().map(|row| ansi::width(row)).max().unwrap();
                assert!(widest <= columns.max(2), "{columns}x{rows}: {frame:#?}");
            }
        }
    }
}

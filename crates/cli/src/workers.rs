//! The workers as a table, for `lethe ps` and for the live table of `lethe up`.

use std::time::SystemTime;

use lethe_admin::api::{Service, ServiceScale, Worker};
use lethe_model::roster::WorkerState;

use crate::{
    ansi, figures,
    paint::{Paint, Style},
    table::{self, Cell, Column},
};

const COLUMNS: [Column; 13] = [
    Column::left("NAME", 0),
    Column::right("PID", 7),
    Column::left("STATE", 8),
    Column::right("AGE", 6),
    Column::right("REQ/S", 5),
    Column::right("IN FLIGHT", 0),
    Column::right("P50", 7),
    Column::right("P99", 7),
    Column::right("CPU", 7),
    Column::right("MEMORY", 9),
    Column::right("RESTARTS", 0),
    Column::left("RELEASE", 0),
    Column::left("TROUBLE", 0),
];
/// Where the two stand that are there only when they have something to say.
const RELEASE: usize = 11;
const TROUBLE: usize = 12;

/// The table as lines, a heading first. `now` is for the ages.
pub fn lines<'w>(
    workers: impl IntoIterator<Item = &'w Worker>,
    now: SystemTime,
    paint: Paint,
) -> Vec<String> {
    let workers: Vec<&Worker> = workers.into_iter().collect();
    // Only where workers of one service are of several releases.
    let mixed = workers
        .iter()
        .any(|one| workers.iter().any(|other| one.service == other.service && one.release != other.release));
    let troubled = workers.iter().any(|worker| worker.trouble.is_some());
    let is_shown = |column: usize| match column {
        RELEASE => mixed,
        TROUBLE => troubled,
        _ => true,
    };
    let shown: Vec<usize> = (0..COLUMNS.len()).filter(|column| is_shown(*column)).collect();
    let columns: Vec<Column> = shown.iter().map(|column| COLUMNS[*column]).collect();
    let rows: Vec<Vec<Cell>> = workers
        .iter()
        .map(|worker| {
            let cells = row(worker, now).into_iter().enumerate();
            cells.filter(|(column, _)| is_shown(*column)).map(|(_, cell)| cell).collect()
        })
        .collect();
    table::lines(&columns, &rows, paint)
}

/// A line for each service that has no worker at all, and so no row, and for each whose number was set by hand where load
/// would decide.
pub fn missing(services: &[Service]) -> impl Iterator<Item = String> {
    services.iter().filter_map(|Service { name, wanted, workers, scale, .. }| match (workers, wanted, scale) {
        (0, 0, Some(scale)) if scale.min == 0 => {
            Some(format!("{name}: idle, without workers; the next request starts one"))
        }
        (0, 0, _) => Some(format!(
            "{name}: no workers, since it was scaled to 0; `lethe scale {name}=1` starts one"
        )),
        (0, wanted, _) => Some(format!("{name}: no workers yet of {wanted}")),
        (_, wanted, Some(ServiceScale { min, max, pinned: true })) => Some(format!(
            "{name}: {wanted} of {min}..{max}, set by hand; `lethe scale {name}=auto` lets load decide again"
        )),
        _ => None,
    })
}

fn row(worker: &Worker, now: SystemTime) -> Vec<Cell> {
    let name = worker.instance.as_str();
    let mut cells = vec![
        Cell::styled(name, Style::of(name)),
        Cell::new(worker.pid.map_or_else(|| "-".into(), |pid| pid.to_string())),
        state(worker),
        Cell::new(figures::age(worker.started_at.age_at(now))),
        Cell::new(figures::rate(worker.requests_per_s)),
        Cell::new(worker.in_flight.to_string()),
        Cell::new(figures::latency(worker.p50_us)),
        Cell::new(figures::latency(worker.p99_us)),
        Cell::new(format!("{:.1} %", worker.cpu_percent)),
        Cell::new(figures::bytes(worker.memory_bytes)),
        restarts(worker),
    ];
    cells.push(Cell::new(worker.release.to_string()));
    if let Some(trouble) = &worker.trouble {
        cells.push(Cell::styled(ansi::clean(&gist(trouble), false), Style::RED));
    }
    cells
}

/// What is wrong, in one line. The supervisor's text may quote what the worker printed last, and the very last line of that
/// mostly says why.
pub(crate) fn gist(trouble: &str) -> String {
    let mut lines = trouble.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    match (first.strip_suffix("; its last lines:"), lines.next_back()) {
        (Some(what), Some(why)) => format!("{what}: {}", why.trim()),
        _ => first.into(),
    }
}

/// How many died in its place, and how many of those for memory.
fn restarts(worker: &Worker) -> Cell {
    match worker.memory_kills {
        0 => Cell::new(worker.restarts.to_string()),
        kills => Cell::styled(format!("{} ({kills} for memory)", worker.restarts), Style::YELLOW),
    }
}

fn state(worker: &Worker) -> Cell {
    // Without a process, it waits to be started again.
    if worker.pid.is_none() {
        return Cell::styled("backoff", Style::RED);
    }
    let style = match worker.state {
        WorkerState::Starting => Style::YELLOW,
        WorkerState::Ready => Style::GREEN,
        WorkerState::Draining => Style::YELLOW,
        WorkerState::Gone => Style::DIM,
    };
    Cell::styled(worker.state.as_str(), style)
}

#[cfg(test)]
mod tests {
    use lethe_model::service::ServiceName;

    use super::*;

    #[test]
    fn what_has_no_row() {
        let service = |wanted, workers, scale: Option<(u32, u32, bool)>| Service {
            name: ServiceName::new("web").unwrap(),
            wanted,
            ready: 0,
            workers,
            scale: scale.map(|(min, max, pinned)| ServiceScale { min, max, pinned }),
        };
        for (service, expected) in [
            (service(2, 2, None), None),
            (service(2, 2, Some((1, 4, false))), None),
            (
                service(0, 0, None),
                Some("web: no workers, since it was scaled to 0; `lethe scale web=1` starts one"),
            ),
            (service(3, 0, None), Some("web: no workers yet of 3")),
            (
                service(0, 0, Some((0, 4, false))),
                Some("web: idle, without workers; the next request starts one"),
            ),
            (
                service(7, 7, Some((1, 4, true))),
                Some("web: 7 of 1..4, set by hand; `lethe scale web=auto` lets load decide again"),
            ),
        ] {
            assert_eq!(missing(&[service]).next().as_deref(), expected);
        }
    }

    #[test]
    fn trouble_in_one_line() {
        for (trouble, expected) in [
            ("killed by signal 9", "killed by signal 9"),
            (
                "exit status 7 before it was ready; it printed nothing",
                "exit status 7 before it was ready; it printed nothing",
            ),
            (
                "exit status 1 before it was ready; its last lines:\nTraceback:\n  File \"app.py\"\nImportError: flask\n\n",
                "exit status 1 before it was ready: ImportError: flask",
            ),
        ] {
            assert_eq!(gist(trouble), expected);
        }
    }
}

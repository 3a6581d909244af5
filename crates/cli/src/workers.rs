//! The workers as a table, for `lethe ps` and for the live table of `lethe up`.

use std::time::SystemTime;

use lethe_admin::api::{Service, Worker};
use lethe_model::roster::WorkerState;

use crate::{
    ansi, figures,
    paint::{Paint, Style},
    table::{self, Cell, Column},
};

const COLUMNS: [Column; 12] = [
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
    Column::left("TROUBLE", 0),
];

/// The table as lines, a heading first. `now` is for the ages.
pub fn lines<'w>(
    workers: impl IntoIterator<Item = &'w Worker>,
    now: SystemTime,
    paint: Paint,
) -> Vec<String> {
    let rows: Vec<Vec<Cell>> = workers.into_iter().map(|worker| row(worker, now)).collect();
    let troubled = rows.iter().any(|row| row.len() == COLUMNS.len());
    let columns = if troubled { &COLUMNS[..] } else { &COLUMNS[..COLUMNS.len() - 1] };
    table::lines(columns, &rows, paint)
}

/// A line for each service that has no worker at all, and so no row.
pub fn missing(services: &[Service]) -> impl Iterator<Item = String> {
    let empty = services.iter().filter(|service| service.workers == 0);
    empty.map(|Service { name, wanted, .. }| match wanted {
        0 => format!("{name}: no workers, since it was scaled to 0; `lethe scale {name}=1` starts one"),
        wanted => format!("{name}: no workers yet of {wanted}"),
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
        Cell::new(worker.restarts.to_string()),
    ];
    if let Some(trouble) = &worker.trouble {
        cells.push(Cell::styled(ansi::clean(&gist(trouble), false), Style::RED));
    }
    cells
}

/// What is wrong, in one line. The supervisor's text may quote what the worker printed last, and the very last line of that
/// mostly says why.
fn gist(trouble: &str) -> String {
    let mut lines = trouble.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    match (first.strip_suffix("; its last lines:"), lines.next_back()) {
        (Some(what), Some(why)) => format!("{what}: {}", why.trim()),
        _ => first.into(),
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
    use super::*;

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

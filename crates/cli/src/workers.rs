//! The workers as a table, for `lethe ps` and for the live table of `lethe up`.

use std::time::SystemTime;

use lethe_admin::api::Worker;
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
        // The supervisor's text may quote the worker's last lines; the first of them has the gist.
        let first = trouble.lines().next().unwrap_or_default();
        cells.push(Cell::styled(ansi::clean(first, false), Style::RED));
    }
    cells
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

//! The workers as a table, for `lethe ps` and for the live table of `lethe up`.

use std::time::SystemTime;

use lethe_admin::api::Worker;
use lethe_model::roster::WorkerState;

use crate::{
    ansi, figures,
    paint::{Paint, Style},
    table::{self, Cell, Side},
};

const TITLES: [(&str, Side); 12] = [
    ("NAME", Side::Left),
    ("PID", Side::Right),
    ("STATE", Side::Left),
    ("AGE", Side::Right),
    ("REQ/S", Side::Right),
    ("IN FLIGHT", Side::Right),
    ("P50", Side::Right),
    ("P99", Side::Right),
    ("CPU", Side::Right),
    ("MEMORY", Side::Right),
    ("RESTARTS", Side::Right),
    ("TROUBLE", Side::Left),
];

/// The table as lines, a heading first. `now` is for the ages.
pub fn lines<'w>(
    workers: impl IntoIterator<Item = &'w Worker>,
    now: SystemTime,
    paint: Paint,
) -> Vec<String> {
    let rows: Vec<Vec<Cell>> = workers.into_iter().map(|worker| row(worker, now)).collect();
    let troubled = rows.iter().any(|row| row.len() == TITLES.len());
    let titles = if troubled { &TITLES[..] } else { &TITLES[..TITLES.len() - 1] };
    table::lines(titles, &rows, paint)
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

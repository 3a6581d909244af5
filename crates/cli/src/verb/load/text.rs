//! What came of it, in lines of text.

use std::time::Duration;

use lethe_load::{
    capacity::{Found, Limit},
    report::{Latency, Report, Requests, Stretch, Summary},
    scalability::{Estimate, Scalability},
};

use crate::{
    ansi,
    curve::curve,
    figures,
    paint::{Paint, Style},
    table::{self, Cell, Column},
};

/// How wide the curves are.
const COLUMNS: usize = 72;

/// The most problems that are shown.
const PROBLEMS_MAX: usize = 8;

/// The whole report.
pub(super) fn lines(report: &Report, goal: Duration) -> Vec<String> {
    let paint = Paint::for_stdout();
    let mut lines = Vec::new();
    for journey in &report.journeys {
        lines.extend(
            journey.notes.iter().map(|note| format!("{}: {}", journey.name, ansi::clean(note, false))),
        );
    }
    if let Some(run) = &report.run {
        lines.extend(summary(run, paint));
    }
    for capacity in &report.capacities {
        lines.push(String::new());
        let workers = capacity.workers.map_or(String::new(), |count| match count {
            1 => "1 worker: ".into(),
            count => format!("{count} workers: "),
        });
        lines.push(format!("{workers}{}", found(&capacity.found, goal)));
        lines.extend(tries(&capacity.found, paint));
    }
    if let Some(scalability) = &report.scalability {
        lines.push(String::new());
        lines.extend(self::scalability(scalability));
    }
    lines.extend(
        report
            .scalability_missing_because
            .iter()
            .map(|why| format!("\nhow it grows with workers is not known: {why}")),
    );
    lines
}

fn summary(run: &Summary, paint: Paint) -> Vec<String> {
    let mut lines = chart(&run.timeline);
    lines.push(String::new());
    lines.extend(parts(run, paint));
    let (from, to) = run.users_per_s;
    let rate = if from == to {
        figures::rate(from)
    } else {
        format!("{} to {}", figures::rate(from), figures::rate(to))
    };
    lines.push(String::new());
    lines.push(format!(
        "{} users in {:.1} s, {rate} a second; {} came to the end of their journey",
        run.users.arrived, run.duration_s, run.users.finished
    ));
    let lag = figures::latency(Some(run.lag.p99_us));
    lines.push(format!("the generator let 99 of 100 users in within {lag} of the planned instant"));
    if !run.kills.is_empty() {
        lines.push(format!("{} workers were killed meanwhile", run.kills.len()));
    }
    if run.workers.is_empty() {
        lines.push(
            "no response says which worker gave it: set `server-timing = true` for the route, or pass --worker-header".into(),
        );
    }
    for problem in run.problems.iter().take(PROBLEMS_MAX) {
        lines.push(
            paint.text(Style::RED, &format!("{} × {}", problem.count, ansi::clean(&problem.what, false))),
        );
    }
    if run.problems.len() > PROBLEMS_MAX {
        lines.push(format!("and {} more kinds; --json has all", run.problems.len() - PROBLEMS_MAX));
    }
    lines.extend(run.invalid_because.iter().map(|why| paint.text(Style::RED, &format!("not valid: {why}"))));
    lines
}

fn parts(run: &Summary, paint: Paint) -> Vec<String> {
    let columns = [
        Column::left("STEP", 0),
        Column::right("REQUESTS", 0),
        Column::right("OK/S", 0),
        Column::right("NOT OK", 0),
        Column::right("UNKNOWN", 0),
        Column::right("P50", 7),
        Column::right("P90", 7),
        Column::right("P99", 7),
        Column::right("P99.9", 7),
        Column::right("MAX", 7),
    ];
    let several = run.steps.iter().any(|step| step.journey != run.steps[0].journey);
    let step = |step: &lethe_load::report::Step| {
        let journey = if several { format!("{} ", step.journey) } else { String::new() };
        row(format!("{journey}{} {}", step.step, step.title), &step.requests, &step.latency)
    };
    let mut rows: Vec<Vec<Cell>> = run.steps.iter().map(step).collect();
    if rows.len() != 1 {
        rows.push(row("all steps".into(), &run.requests, &run.latency));
    }
    let workers =
        run.workers.iter().map(|worker| row(worker.name.clone(), &worker.requests, &worker.latency));
    rows.extend(workers);
    table::lines(&columns, &rows, paint)
}

fn row(name: String, requests: &Requests, latency: &Latency) -> Vec<Cell> {
    let not_ok = requests.unmet + requests.failed + requests.late;
    let wrong = |count: u64| match count {
        0 => Cell::new("0"),
        count => Cell::styled(count.to_string(), Style::RED),
    };
    let time = |us: u64| Cell::new(figures::latency((requests.ok > 0).then_some(us)));
    let Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *latency;
    let mut cells = vec![
        Cell::new(ansi::cut(&ansi::clean(&name, false), 40)),
        Cell::new(requests.total.to_string()),
        Cell::new(figures::rate(requests.ok_per_s)),
        wrong(not_ok),
        wrong(requests.unknown),
    ];
    cells.extend([p50_us, p90_us, p99_us, p999_us, max_us].map(time));
    cells
}

/// Load and latency over time. The scale of latency is logarithmic, from the least to the most.
fn chart(timeline: &[Stretch]) -> Vec<String> {
    let each = timeline.len().div_ceil(COLUMNS).max(1);
    let worst = |of: &dyn Fn(&Stretch) -> f64| -> Vec<f64> {
        timeline.chunks(each).map(|stretches| stretches.iter().map(of).fold(0.0, f64::max)).collect()
    };
    let load = worst(&|stretch| stretch.requests.ok_per_s);
    let not_ok = worst(&|stretch| (stretch.requests.total - stretch.requests.ok) as f64);
    let p99 = worst(&|stretch| stretch.latency.p99_us as f64);
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let (load_most, not_ok_most, p99_most) = (most(&load), most(&not_ok), most(&p99));
    let p99_least = p99.iter().copied().filter(|us| *us > 0.0).fold(f64::INFINITY, f64::min);
    // The lowest is still a bar.
    let log = |us: f64| 0.1 + 0.9 * (us / p99_least).ln() / (p99_most / p99_least).ln().max(1e-9);
    let mut lines = vec![
        format!("ok      {} up to {}/s", curve(&load, |x| x / load_most), figures::rate(load_most)),
        format!("p99     {} up to {}", curve(&p99, log), figures::latency(Some(p99_most as u64))),
    ];
    if not_ok_most > 0.0 {
        lines.push(format!("not ok  {} up to {not_ok_most:.0}", curve(&not_ok, |x| x / not_ok_most)));
    }
    lines
}

fn found(found: &Found, goal: Duration) -> String {
    let goal = figures::latency(u64::try_from(goal.as_micros()).ok());
    if let (None, Limit::Generator) = (found.users_per_s, found.limit) {
        let rate = found.tries.first().map_or(0.0, |tried| tried.rate);
        return format!(
            "the capacity is not known: this machine could not make even {rate:.0} users a second"
        );
    }
    let held = found.users_per_s.map_or_else(|| "nothing".into(), |rate| format!("{rate:.0} users a second"));
    let limit = match (found.limit, found.not_held_users_per_s) {
        (Limit::Service, Some(not_held)) => format!("; {not_held:.0} are too many"),
        (Limit::Generator, _) => ", or more: this machine cannot make more load".into(),
        (Limit::RateMax, _) => ", the highest rate that is tried, or more".into(),
        (Limit::First, _) => ": not even the lowest rate is".into(),
        (Limit::Tries | Limit::Service, _) => ", as far as it was found out".into(),
    };
    format!("{held} held within {goal} (99 of 100 requests, 98 of 100 users){limit}")
}

fn tries(found: &Found, paint: Paint) -> Vec<String> {
    let columns = [
        Column::right("USERS/S", 8),
        Column::right("SERVED", 0),
        Column::right("P99", 7),
        Column::left("", 0),
    ];
    let rows: Vec<Vec<Cell>> = found
        .tries
        .iter()
        .map(|tried| {
            let word = match (tried.held, tried.valid) {
                (true, _) => Cell::styled("held", Style::GREEN),
                (false, true) => Cell::styled("not held", Style::RED),
                (false, false) => Cell::styled("not valid", Style::YELLOW),
            };
            vec![
                Cell::new(format!("{:.1}", tried.rate)),
                Cell::new(format!("{:.1} %", tried.share * 100.0)),
                Cell::new(figures::latency(Some(tried.p99_us))),
                word,
            ]
        })
        .collect();
    table::lines(&columns, &rows, paint)
}

fn scalability(law: &Scalability) -> Vec<String> {
    let percent = |estimate: &Estimate| {
        format!(
            "{:.2} % ({:.2} to {:.2})",
            estimate.value * 100.0,
            estimate.low * 100.0,
            estimate.high * 100.0
        )
    };
    let one = &law.one_worker;
    let mut lines = vec![
        format!(
            "one worker holds {:.0} users a second ({:.0} to {:.0} with 95 % confidence)",
            one.value, one.low, one.high
        ),
        format!("of its work, {} waits for what others hold", percent(&law.contention)),
        format!("each pair of workers costs {}", percent(&law.coherence)),
        format!("the law explains {:.1} % of what was measured", law.r_squared.max(0.0) * 100.0),
    ];
    let values: Vec<f64> = law.curve.iter().map(|(_, held)| *held).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    lines.push(format!(
        "1 to {} workers  {} up to {most:.0}/s",
        law.reach,
        curve(&values, |held| held / most)
    ));
    lines.extend(law.best.map(|best| format!("with more than {best} workers, they hold less")));
    lines.extend(law.notes.iter().cloned());
    lines
}

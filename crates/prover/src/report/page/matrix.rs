//! All schedules of a journey and what came of each step: which worker played it, where it was killed, and where it differed.

use std::fmt::Write;

use lethe_journey::journey::Journey;

use super::Escaped;
use crate::proof::{Proof, Row};

/// Most characters of what stands for one step, as in `A†B`.
const MARKS_MAX: usize = 3;

/// Writes the table of one journey.
pub(super) fn push(page: &mut String, proof: &Proof, journey: &Journey) {
    let _ =
        write!(page, "<h2>{}</h2><div class=\"scroll\"><table><tr><th>schedule</th>", Escaped(&journey.name));
    for step in &journey.steps {
        let _ = write!(page, "<th title=\"{}\">{}</th>", Escaped(&step.title()), step.number);
    }
    page.push_str("</tr>\n");
    for row in proof.coverage.schedules.iter().filter(|row| row.journey == journey.name) {
        push_row(page, row, journey.steps.len());
    }
    page.push_str("</table></div>\n<ol>");
    for step in &journey.steps {
        let _ = write!(page, "<li>{}</li>", Escaped(&step.title()));
    }
    page.push_str("</ol>\n");
}

fn push_row(page: &mut String, row: &Row, steps: usize) {
    let _ = write!(page, "<tr><td>{}</td>", Escaped(&row.schedule));
    let workers: Vec<&str> = row.workers.split(' ').collect();
    // Another kind of schedule says in its own words what it did, and what came of it belongs to no step.
    let is_whole = row.failed_at.is_none() && row.why.is_some();
    if is_whole || workers.len() > steps || workers.iter().any(|worker| worker.chars().count() > MARKS_MAX) {
        let class = if row.why.is_some() { "bad" } else { "ok" };
        let _ =
            writeln!(page, "<td class=\"{class}\" colspan=\"{steps}\">{}</td></tr>", Escaped(&row.workers));
        return;
    }
    for (step, worker) in (1..).zip(workers) {
        let why = row.why.as_deref().filter(|_| row.failed_at == Some(step));
        let class = match row.failed_at {
            Some(failed) if step == failed => "bad",
            Some(failed) if step > failed => "none",
            _ => "ok",
        };
        let _ = write!(
            page,
            "<td class=\"{class}\" title=\"{}\">{}</td>",
            Escaped(why.unwrap_or_default()),
            Escaped(worker)
        );
    }
    page.push_str("</tr>\n");
}

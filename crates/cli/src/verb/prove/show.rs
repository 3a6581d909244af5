//! What a proof looks like in a terminal: a line for each schedule, with a bar while it is played, then the verdict, what was covered,
//! and four lines for each finding.

use std::{
    cell::RefCell,
    io::{self, IsTerminal, Write},
};

use lethe_prover::{
    finding::Finding,
    proof::{Deliveries, Progress, Proof, Row, Verdict},
    replay::Again,
    trace::{self, Trace},
};
use rustix::termios::tcgetwinsize;

use crate::{
    ansi, output,
    paint::{Paint, Style},
};

/// Columns of a schedule's name.
const TITLE_COLUMNS: usize = 24;

/// Characters of a bar.
const BAR: usize = 20;

/// Files of which is said that a later step reads them again; the JSON names more.
const WARNINGS_MAX: usize = 10;

/// Characters of a response that are shown.
const GIVEN_CHARS_MAX: usize = 400;

/// What is said on standard error while it goes on.
pub(super) struct Shown {
    is_terminal: bool,
    /// What is being played.
    title: RefCell<String>,
}

impl Shown {
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), title: RefCell::default() }
    }

    pub(super) fn progress(&self, progress: Progress<'_>) {
        // A bar is written over by the next, and at last by what came of it.
        let (text, end) = match progress {
            Progress::Journey { name, steps } => (format!("journey {name}, {steps} steps"), "\n"),
            Progress::Row(row) => (line(row), "\n"),
            _ if !self.is_terminal => return,
            Progress::Begins { title } => {
                title.clone_into(&mut self.title.borrow_mut());
                (format!("  {title:TITLE_COLUMNS$} …"), "")
            }
            Progress::Step { step, of } => (bar(&self.title.borrow(), step, of), ""),
        };
        let begin = if self.is_terminal { "\r\x1b[K" } else { "" };
        // What came to the edge would go on in the next line, where nothing is written over it.
        let columns =
            tcgetwinsize(io::stderr()).ok().map(|size| usize::from(size.ws_col)).filter(|_| end.is_empty());
        let text = match columns {
            Some(columns) if columns > 0 => text.chars().take(columns - 1).collect(),
            _ => text,
        };
        // Who does not listen misses nothing that the report does not say.
        let _ = write!(io::stderr().lock(), "{begin}{}{end}", ansi::clean(&text, false));
    }
}

impl Drop for Shown {
    /// What was begun last may have come to nothing that is said.
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn bar(title: &str, step: usize, of: usize) -> String {
    let full = (BAR * step).checked_div(of).unwrap_or(BAR).min(BAR);
    let bar = "#".repeat(full) + &"-".repeat(BAR - full);
    format!("  {title:TITLE_COLUMNS$} [{bar}] {step} of {of} steps")
}

fn line(row: &Row) -> String {
    let outcome = match (row.failed_at, &row.why) {
        (Some(step), Some(why)) => format!("step {step} differs: {why}"),
        (Some(step), None) => format!("step {step} differs"),
        (None, Some(why)) => why.clone(),
        (None, None) => "as on one worker".into(),
    };
    format!("  {:TITLE_COLUMNS$} {}  {outcome}", row.schedule, row.workers)
}

/// Prints the report.
pub(super) fn report(proof: &Proof) -> io::Result<()> {
    let paint = Paint::for_stdout();
    let (style, verdict) = match proof.verdict {
        Verdict::Stateless => (Style::GREEN, "stateless in the steps covered".to_owned()),
        Verdict::Violation => (Style::RED, count(proof.violations())),
        Verdict::Inconclusive => (Style::YELLOW, "inconclusive".to_owned()),
    };
    output::line(&paint.text(style, &verdict))?;
    output::line(&ansi::clean(&proof.coverage.line(), false))?;
    for uncovered in &proof.coverage.uncovered {
        output::line(&shown(&format!("\n{} step {}: {}", uncovered.journey, uncovered.step, uncovered.why)))?;
        if !uncovered.response.is_empty() {
            output::line(&shown(&format!("  response  {}", uncovered.response)))?;
        }
    }
    for notice in &proof.coverage.notices {
        output::line(&shown(&format!("note: {notice}")))?;
    }
    let files = &proof.coverage.files;
    for warning in files.iter().filter_map(Trace::warning).take(WARNINGS_MAX) {
        output::line(&paint.text(Style::YELLOW, &shown(&format!("warning: {warning}"))))?;
    }
    if let Some(unread) = trace::unread(files) {
        output::line(&shown(&format!("note: {unread}")))?;
    }
    for finding in &proof.findings {
        for line in lines(finding).into_iter().chain(heard(proof.deliveries_of(finding))) {
            output::line(&shown(&line))?;
        }
    }
    if !proof.findings.is_empty() {
        if proof.violations() > 0 {
            output::line("\nWhat comes after a finding may hide behind it: change it and prove again.")?;
        }
        output::line(&format!("lethe prove --replay {} repeats one of them.", proof.findings[0].id))?;
    }
    Ok(())
}

/// Prints what came of repeating a finding.
pub(super) fn again(id: &str, again: &Again) -> io::Result<()> {
    let paint = Paint::for_stdout();
    match again {
        Again::Fails { times: (failed, times), given } => {
            output::line(&paint.text(Style::RED, &format!("{id} fails again ({failed} of {times} times)")))?;
            let given: String = given.chars().take(GIVEN_CHARS_MAX).collect();
            given.trim().lines().try_for_each(|line| output::line(&shown(&format!("  {line}"))))
        }
        Again::Passes { times } => {
            let often = if *times == 1 { "once".into() } else { format!("{times} times") };
            let text = format!(
                "{id} does not fail any more (played {often}); prove again for what it may have hidden"
            );
            output::line(&paint.text(Style::GREEN, &text))
        }
        Again::Unclear(why) => {
            output::line(&paint.text(Style::YELLOW, &format!("nothing can be said of {id}")))?;
            output::line(&shown(&format!("  {why}")))
        }
    }
}

/// Says on standard error why `--replay` will not know of this proof.
pub(super) fn not_remembered(error: &anyhow::Error) {
    let text = format!("note: this proof is not remembered for --replay: {error:#}");
    let _ = writeln!(io::stderr().lock(), "{}", ansi::for_stderr(&text));
}

/// Says on standard error what of the report could not be written.
pub(super) fn not_written(error: &anyhow::Error) {
    let _ = writeln!(io::stderr().lock(), "{}", ansi::for_stderr(&format!("error: {error:#}")));
}

fn count(findings: usize) -> String {
    match findings {
        1 => "1 violation".into(),
        findings => format!("{findings} violations"),
    }
}

/// Responses may have anything in them.
fn shown(text: &str) -> String {
    text.split('\n').map(|line| ansi::clean(line, false)).collect::<Vec<_>>().join("\n")
}

/// What, where, proof, fix.
fn lines(finding: &Finding) -> [String; 5] {
    let also = match finding.also.as_slice() {
        [] => String::new(),
        also => format!(
            ", and so does {}",
            also.iter().map(|place| format!("step {}", place.step)).collect::<Vec<_>>().join(", ")
        ),
    };
    [
        format!("\n{} {}: {}", finding.id, finding.confidence.text(), finding.rule),
        format!("  what   {}{also}", finding.what()),
        format!("  where  {}", finding.place()),
        format!("  proof  {}", finding.proof),
        format!("  fix    {}", finding.fix),
    ]
}

/// Who hears of what is sent to whom, a line for each worker.
fn heard(deliveries: Option<&Deliveries>) -> Vec<String> {
    let Some(deliveries) = deliveries else { return Vec::new() };
    let workers = deliveries.delivered.len();
    let columns: String = (0..workers).map(|at| format!("  at {}", Deliveries::worker(at))).collect();
    let head = format!("  heard  {:9}{columns}", "");
    let row = |(sender, row): (usize, &Vec<bool>)| {
        let cells: String = row.iter().map(|heard| if *heard { "  yes " } else { "  -   " }).collect();
        format!("         sent to {}{cells}", Deliveries::worker(sender)).trim_end().to_owned()
    };
    std::iter::once(head).chain(deliveries.delivered.iter().enumerate().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let of = |step, of| bar("round robin", step, of);
        assert_eq!(
            of(1, 4),
            format!("  {:24} [{}{}] 1 of 4 steps", "round robin", "#".repeat(5), "-".repeat(15))
        );
        assert!(of(4, 4).contains(&format!("[{}]", "#".repeat(20))));
        // A schedule without any is done.
        assert!(of(0, 0).contains(&"#".repeat(20)) && of(5, 4).contains("] 5 of 4"));
    }
}

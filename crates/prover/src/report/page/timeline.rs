//! Who played which step of a failing schedule, as a picture: a lane for each worker, a mark where one was killed, the step that leaves
//! something behind and the one that misses it.

use std::fmt::Write;

use crate::{finding::Finding, schedule::Schedule};

/// Between steps, between lanes, and around the picture, in pixels.
const STEP: usize = 70;
const LANE: usize = 46;
const LEFT: usize = 80;
const ABOVE: usize = 34;

/// Most steps that are drawn; of a longer schedule the last ones.
const STEPS_MAX: usize = 40;

/// Draws a finding's schedule, if it has one.
pub(super) fn push(page: &mut String, finding: &Finding) {
    let Some(schedule) = Schedule::read(&finding.replay.workers, "") else { return };
    let first = schedule.workers.len().saturating_sub(STEPS_MAX);
    let lanes = 1 + schedule
        .workers
        .iter()
        .chain(schedule.tears.iter().flatten().map(|tear| &tear.worker))
        .max()
        .unwrap_or(&0);
    let width = LEFT + STEP * (schedule.workers.len() - first) + 40;
    let height = ABOVE + LANE * lanes;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {width} {height}\" style=\"max-width:{width}px\" role=\"img\" aria-label=\"which worker played which step\">"
    );
    for lane in 0..lanes {
        let (y, name) = (y(lane), char::from(b'A' + u8::try_from(lane).unwrap_or_default()));
        let _ = writeln!(
            page,
            "<text x=\"4\" y=\"{}\">worker {name}</text><path d=\"M{LEFT} {y}H{width}\" stroke=\"#8886\"/>",
            y + 4
        );
    }
    for (at, worker) in schedule.workers.iter().enumerate().skip(first) {
        let (step, x) = (at + 1, LEFT + STEP * (at - first) + STEP / 2);
        let _ = writeln!(page, "<text x=\"{x}\" y=\"14\" text-anchor=\"middle\">{step}</text>");
        if let Some(tear) = schedule.tears.get(at).copied().flatten() {
            let _ = writeln!(
                page,
                "<path d=\"M{} {}L{x} {}\" stroke=\"currentColor\" stroke-dasharray=\"3\"/>",
                x - 20,
                y(tear.worker),
                y(*worker)
            );
            push_kill(page, x - 20, y(tear.worker));
        }
        let colour = match step {
            step if step == finding.consumer.step => "#c33",
            step if step == finding.producer.step => "#d8a000",
            _ => "#0072b2",
        };
        let _ = writeln!(page, "<circle cx=\"{x}\" cy=\"{}\" r=\"8\" fill=\"{colour}\"/>", y(*worker));
        if schedule.kills.get(at).copied().flatten().is_some() {
            push_kill(page, x + 24, y(*worker));
        }
    }
    page.push_str(
        "</svg>\n<p class=\"note\">yellow: leaves something behind; red: misses it; ✕: kill -9</p>\n",
    );
}

fn y(lane: usize) -> usize {
    ABOVE + LANE * lane + LANE / 2 - 6
}

fn push_kill(page: &mut String, x: usize, y: usize) {
    let (left, right, above, below) = (x - 7, x + 7, y - 7, y + 7);
    let _ = writeln!(
        page,
        "<path class=\"kill\" d=\"M{left} {above}L{right} {below}M{right} {above}L{left} {below}\" stroke=\"#c33\" stroke-width=\"3\"/>"
    );
}

//! Who hears of what a step tells over channels: a row for each worker that it was sent to, a column for each that is listened at.

use std::fmt::Write;

use super::Escaped;
use crate::proof::Deliveries;

/// Writes the table.
pub(super) fn push(page: &mut String, deliveries: &Deliveries) {
    let channel = Escaped(&deliveries.channel);
    let _ = write!(
        page,
        "<h3>Who hears at {channel} of step {}</h3><table><tr><th>sent to</th>",
        deliveries.step
    );
    for at in 0..deliveries.delivered.len() {
        let _ = write!(page, "<th>heard at {}</th>", Deliveries::worker(at));
    }
    page.push_str("</tr>\n");
    for (sender, row) in deliveries.delivered.iter().enumerate() {
        let _ = write!(page, "<tr><td>{}</td>", Deliveries::worker(sender));
        for heard in row {
            page.push_str(if *heard { "<td class=\"ok\">yes</td>" } else { "<td class=\"bad\">no</td>" });
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

use std::path::Path;

use super::*;
use crate::{
    contrast::Contrast,
    finding::{KeptFile, Kind},
    proof::{Deliveries, Row, Uncovered, tests::proof},
};

/// What a page must not take for its own.
const HOSTILE: &str = "</pre><script>alert(1)</script><img src=x onerror='alert(2)'>\"\u{202e}";

fn journey() -> Journey {
    let text = "name = \"a <b>\"\n".to_owned() + &"[[steps]]\nget = \"/\"\n".repeat(3);
    lethe_journey::document::read(&text, "x.toml", "x", Path::new(".")).unwrap()
}

fn hostile() -> Proof {
    let mut proof = proof();
    let [journey, why, response] = ["a <b>", HOSTILE, HOSTILE].map(str::to_owned);
    proof.coverage.uncovered.push(Uncovered { journey, step: 1, why, response });
    for (workers, failed_at) in [("B A B", Some(3)), ("A† A A", None), (HOSTILE, Some(2))] {
        let [journey, workers] = ["a <b>", workers].map(str::to_owned);
        let (schedule, why) = (HOSTILE.to_owned(), failed_at.map(|_| HOSTILE.to_owned()));
        proof.coverage.schedules.push(Row { journey, schedule, workers, failed_at, why });
    }
    for each in [&mut proof.coverage.written, &mut proof.coverage.notices, &mut proof.coverage.beside] {
        each.push(HOSTILE.into());
    }
    let finding = &mut proof.findings[0];
    (finding.id, finding.proof, finding.consumer.title) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    finding.file =
        Some(KeptFile { path: HOSTILE.into(), kind: "text", bytes: 1, canary: Some(HOSTILE.into()) });
    let (alone, among) = ("200 OK\n\nhello".to_owned(), format!("500\n\n{HOSTILE}"));
    let [journey, workers] = ["a <b>", "B A B"].map(str::to_owned);
    proof.responses.push(Contrast { journey, step: 3, workers, alone, among });
    proof
}

#[test]
fn nothing_that_a_service_says_is_markup() {
    let page = html(&hostile(), [&journey()], Some(Framework::Express));
    for forbidden in ["<script", "<img", "onerror='", "\u{202e}", "http://", "https://", "src="] {
        // As text it may be there.
        let page = page.replace("&lt;img src=x onerror=&#39;", "");
        assert!(!page.contains(forbidden), "{forbidden} in {page}");
    }
    assert!(page.matches("&lt;script&gt;").count() > 10, "{page}");
    assert!(page.contains("Content-Security-Policy"), "{page}");
    assert_eq!((page.matches("<pre>").count(), page.matches("</pre>").count()), (3, 3), "{page}");
}

#[test]
fn a_finding_has_its_picture_its_responses_and_what_mends_it() {
    let page = html(&hostile(), [&journey()], Some(Framework::Express));
    for expected in [
        "<del>− 200 OK</del><ins>+ 500</ins>",
        "<svg",
        "worker B",
        "RedisStore",
        "With Express",
        "1 bytes",
        // In the matrix: the step that differs, the one after a kill, and a schedule of another form.
        "<td class=\"bad\" title=\"&lt;/pre&gt;",
        "\">A†</td>",
        "colspan=\"3\"",
    ] {
        assert!(page.contains(expected), "{expected} in {page}");
    }
    let mut torn = proof();
    torn.findings[0].kind = Kind::HalfDone;
    torn.findings[0].replay.workers = "A A†B B, killed at answer 2".into();
    let page = html(&torn, [&journey()], None);
    assert!(page.contains("<path class=\"kill\"") && !page.contains("With "), "{page}");
}

#[test]
fn who_hears_what_is_a_table() {
    let mut proof = proof();
    proof.findings[0].kind = Kind::Websocket;
    let (journey, channel) = ("a <b>".to_owned(), HOSTILE.to_owned());
    let delivered = vec![vec![true, false], vec![false, true]];
    proof.coverage.deliveries.push(Deliveries { journey, step: 3, channel, delivered });
    let page = html(&proof, [], None);
    let row = "<tr><td>B</td><td class=\"bad\">no</td><td class=\"ok\">yes</td></tr>";
    assert!(page.contains(row) && page.contains("heard at B") && !page.contains("<script"), "{page}");
    // It belongs to no other finding.
    proof.findings[0].kind = Kind::Memory;
    assert!(!html(&proof, [], None).contains("heard at B"));
}

#[test]
fn the_verdict_is_said_first() {
    let mut proof = proof();
    assert!(html(&proof, [], None).contains("<h1 class=\"violation\">1 violation</h1>"));
    (proof.verdict, proof.findings) = (Verdict::Stateless, Vec::new());
    assert!(html(&proof, [], None).contains("<h1 class=\"stateless\">stateless in the steps covered</h1>"));
}

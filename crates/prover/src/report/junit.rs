//! JUnit's XML, as most servers of continuous integration show it: a suite for each journey, a case for each step. A step fails
//! that needs what another one left in its worker; a step that was not looked at is skipped.

use std::fmt::Write;

use lethe_journey::journey::Journey;

use crate::{
    finding::Finding,
    proof::{self, Proof},
    world::Level,
};

/// The whole report.
pub fn report<'j>(proof: &Proof, journeys: impl IntoIterator<Item = &'j Journey>) -> String {
    let mut xml =
        String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"lethe prove\">\n");
    for journey in journeys {
        suite(&mut xml, proof, journey);
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(xml: &mut String, proof: &Proof, journey: &Journey) {
    let name = journey.name.as_str();
    let cases: Vec<_> = journey
        .steps
        .iter()
        .map(|step| {
            let found: Vec<_> = proof.findings.iter().filter(|f| needs(f, name, step.number)).collect();
            let skipped = if found.is_empty() { skipped(proof, journey, step.number) } else { None };
            (step, found, skipped)
        })
        .collect();
    let (suite, tests) = (escaped(name), cases.len());
    let failures = cases.iter().filter(|(_, found, _)| !found.is_empty()).count();
    let skips = cases.iter().filter(|(_, _, skipped)| skipped.is_some()).count();
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{suite}\" tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skips}\">"
    );
    for (step, found, skipped) in cases {
        let title = escaped(&format!("{} {}", step.number, step.title()));
        let _ = write!(xml, "    <testcase classname=\"{suite}\" name=\"{title}\"");
        match (found.as_slice(), skipped) {
            ([], None) => xml.push_str("/>\n"),
            ([], Some(why)) => {
                let _ = writeln!(xml, "><skipped message=\"{}\"/></testcase>", escaped(&why));
            }
            (found, _) => {
                xml.push('>');
                for finding in found {
                    let (rule, proof) = (escaped(finding.rule), escaped(&finding.proof));
                    let fix = escaped(&finding.fix);
                    let _ = write!(xml, "<failure type=\"{rule}\" message=\"{proof}\">{fix}</failure>");
                }
                xml.push_str("</testcase>\n");
            }
        }
    }
    xml.push_str("  </testsuite>\n");
}

/// Whether a step needs what a finding is about.
fn needs(finding: &Finding, journey: &str, step: usize) -> bool {
    let mut places = std::iter::once(&finding.consumer).chain(&finding.also);
    finding.is_violation() && places.any(|place| place.journey == journey && place.step == step)
}

/// Why nothing is known of a step; `None` if it was looked at.
fn skipped(proof: &Proof, journey: &Journey, step: usize) -> Option<String> {
    let coverage = &proof.coverage;
    let of_journey = |name: &str| name == journey.name;
    if let Some(uncovered) = coverage.uncovered.iter().find(|uncovered| of_journey(&uncovered.journey)) {
        return Some(format!("step {}: {}", uncovered.step, uncovered.why));
    }
    let rows = coverage.schedules.iter().filter(|row| of_journey(&row.journey));
    let covered = proof::covered(journey.steps.len(), rows);
    if step > covered {
        return Some(match covered {
            0 => "one step alone cannot show what a worker keeps".into(),
            covered => format!("not played in all schedules: step {covered} differed before"),
        });
    }
    let is_apart = coverage.isolation != Level::COPIED;
    (!is_apart).then(|| format!("workers could not be kept apart well enough: {}", coverage.isolation))
}

/// As XML 1.0 has it in attributes and text; what may not be in XML at all (section 2.2) is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => {}
            char if char < ' ' => {}
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http::Method;
    use lethe_journey::{journey::Step, template::Template};

    use super::*;
    use crate::proof::{
        Row,
        tests::{place, proof},
    };

    fn journey(steps: usize) -> Journey {
        let step = |number| Step::new(number, Method::GET, Template::literal("/"));
        Journey {
            name: "a <b>".into(),
            host: None,
            variables: Vec::new(),
            steps: (1..=steps).map(step).collect(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_step_that_needs_something_fails() {
        let xml = report(&proof(), [&journey(3)]);
        assert!(
            xml.contains("<testsuite name=\"a &lt;b&gt;\" tests=\"3\" failures=\"1\" skipped=\"0\">"),
            "{xml}"
        );
        let second = "<testcase classname=\"a &lt;b&gt;\" name=\"2 GET /\"/>";
        assert!(xml.contains(second), "{xml}");
        let third =
            "name=\"3 GET /\"><failure type=\"lethe/memory\" message=\"&quot;200&quot; &amp; &lt;401&gt;\">";
        assert!(xml.contains(third), "{xml}");
        assert_eq!(escaped("a\u{1}b\n"), "ab ");
    }

    #[test]
    fn a_step_that_needs_it_too_fails_and_what_comes_after_is_skipped() {
        let mut proof = proof();
        proof.findings[0].also.push(place(4));
        let [journey_name, schedule, workers] = ["a <b>", "cut after 1", "A B B"].map(str::to_owned);
        let row = Row { journey: journey_name, schedule, workers, failed_at: Some(3), why: None };
        proof.coverage.schedules.push(row);
        let xml = report(&proof, [&journey(5)]);
        assert!(xml.contains("tests=\"5\" failures=\"2\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("name=\"4 GET /\"><failure"), "{xml}");
        assert!(
            xml.contains("name=\"5 GET /\"><skipped message=\"not played in all schedules: step 3"),
            "{xml}"
        );
    }

    #[test]
    fn without_worlds_no_step_is_green() {
        let mut proof = proof();
        proof.findings.clear();
        proof.coverage.isolation = Level::COPIED;
        let xml = report(&proof, [&journey(3)]);
        assert!(xml.contains("tests=\"3\" failures=\"0\" skipped=\"3\""), "{xml}");
    }
}

//! One decision, from inputs in a file.

use std::{fs, io, path::Path};

use anyhow::{Context, anyhow};
use lethe_scaler::{
    case::{Case, SpecSource},
    manifest,
    proposal::{self, Usage},
    spec::Spec,
    zero,
};
use serde_json::{Map, Value, json};

use crate::{
    failure::{Concluded, FAILED},
    output,
};

/// Standard input in place of a file.
pub const STDIN: &str = "-";

/// What was decided.
struct Answer {
    desired: u32,
    usages: Vec<Usage>,
    reasons: Vec<String>,
    /// What was read over.
    notices: Vec<String>,
}

/// Decides and prints. With `is_json` an error is an answer too, and is printed like one: once, on standard output.
pub fn run(path: &Path, is_json: bool) -> anyhow::Result<()> {
    match answer(path) {
        Ok(answer) if is_json => Ok(output::json(&answer.json())?),
        Ok(answer) => Ok(output::line(&answer.text())?),
        Err(error) if is_json => {
            output::json(&json!({ "error": format!("{error:#}") }))?;
            Err(Concluded(FAILED).into())
        }
        Err(error) => Err(error),
    }
}

fn answer(path: &Path) -> anyhow::Result<Answer> {
    let text =
        if path == Path::new(STDIN) { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) };
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let case = Case::read(&text).with_context(|| match manifest::read(&text) {
        Ok(_) if !text.contains("\"replicas\"") => format!(
            "{} is an autoscaler; write a case with it as \"spec\": {{\"path\": …}}, beside \"replicas\" and \"instances\"",
            path.display()
        ),
        _ => format!(
            "{} is no case of a decision, such as {{\"spec\": {{\"path\": \"hpa.yaml\"}}, \"replicas\": 2, \"instances\": [{{\"cpu\": 800, \"cpuRequest\": 1000}}]}}",
            path.display()
        ),
    })?;
    let notices = case.unknown.clone();
    // What was read over may be why.
    decided(case, path).map_err(|error| match notices.as_slice() {
        [] => error,
        notices => anyhow!("{error:#} (note: {})", notices.join("; ")),
    })
}

fn decided(case: Case, path: &Path) -> anyhow::Result<Answer> {
    let spec = Spec { options: case.options, ..spec(&case.spec, path)? };
    if case.is_raw {
        let proposal = proposal::propose(&spec, &case.samples, case.now)?;
        let (desired, usages, reasons) = (proposal.replicas, proposal.usages, proposal.reasons);
        return Ok(Answer { desired, usages, reasons, notices: case.unknown });
    }
    let decision = zero::decide(case.zero.as_ref(), &spec, &case.history, &case.samples, case.now)?;
    let (desired, usages, reasons) = (decision.desired, decision.usages, decision.reasons);
    Ok(Answer { desired, usages, reasons, notices: case.unknown })
}

fn spec(source: &SpecSource, case: &Path) -> anyhow::Result<Spec> {
    match source {
        SpecSource::Inline(value) => manifest::read_value(value).context("the spec cannot be followed"),
        SpecSource::Path(path) => {
            let path = case.parent().unwrap_or(Path::new("")).join(path);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            manifest::read(&text).with_context(|| format!("{} cannot be followed", path.display()))
        }
    }
}

impl Answer {
    fn json(&self) -> Value {
        let mut answer =
            json!({ "desired": self.desired, "reasons": self.reasons, "utilization": self.utilization() });
        if !self.notices.is_empty() {
            answer["notices"] = json!(self.notices);
        }
        answer
    }

    /// Each metric's number by its name, and by its type too where a name is there twice.
    fn utilization(&self) -> Value {
        let mut numbers = Map::new();
        for usage in &self.usages {
            let name = usage.source.name();
            let key = if numbers.contains_key(name) {
                format!("{} {name}", usage.source.kind())
            } else {
                name.into()
            };
            numbers.insert(key, usage.value.into());
        }
        numbers.into()
    }

    fn text(&self) -> String {
        let workers = if self.desired == 1 { "worker" } else { "workers" };
        let reasons = self.reasons.iter().map(|reason| format!("\n  {reason}"));
        let notices = self.notices.iter().map(|notice| format!("\nnote: {notice}"));
        format!("{} {workers}{}", self.desired, reasons.chain(notices).collect::<String>())
    }
}

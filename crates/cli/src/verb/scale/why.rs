//! `lethe scale SERVICE --why`: what load decided last, and from what.

use lethe_admin::api::{Decision, Scaling, ScalingMetric, ServiceScale};
use lethe_model::service::ServiceName;
use serde_json::json;

use crate::{ansi, arguments::Target, output, running};

/// Prints the last decisions of these services, or what one of them was taken from.
pub(super) fn run(services: &[ServiceName], case: Option<u64>, target: &Target) -> anyhow::Result<()> {
    if let Some(number) = case {
        let [service] = services else { anyhow::bail!("say of which one service --case is") };
        let case =
            running::with(target, async |client| Ok(client.scaling_case(service.as_str(), number).await?))?;
        return Ok(output::json(&case)?);
    }
    for service in services {
        let scaling = running::with(target, async |client| Ok(client.scaling(service.as_str()).await?))?;
        if target.json {
            output::json(&json!(scaling))?;
        } else {
            output::line(&text(&scaling))?;
        }
    }
    Ok(())
}

fn text(scaling: &Scaling) -> String {
    let ServiceScale { min, max, pinned } = scaling.scale;
    let name = &scaling.service;
    let by_hand = match pinned {
        true => format!(", set by hand; `lethe scale {name}=auto` lets load decide again"),
        false => String::new(),
    };
    let mut lines = vec![format!("{name}: {} of {min}..{max} workers{by_hand}", scaling.wanted)];
    lines.extend(scaling.metrics.iter().map(metric));
    if scaling.decisions.is_empty() {
        lines.push("nothing was decided yet that would have changed it".into());
    }
    for decision in &scaling.decisions {
        lines.push(String::new());
        lines.extend(of_decision(decision));
    }
    // Parts of it come from sources that may say anything.
    lines.iter().map(|line| ansi::clean(line, false)).collect::<Vec<_>>().join("\n")
}

fn metric(ScalingMetric { name, ratio, failing }: &ScalingMetric) -> String {
    match (ratio, failing) {
        (_, Some(why)) => format!("  {name}: fails: {why}"),
        (Some(ratio), None) => format!("  {name}: {ratio:.2} of what it should be"),
        (None, None) => format!("  {name}: not asked"),
    }
}

fn of_decision(decision: &Decision) -> Vec<String> {
    let Decision { number, at, from, to, reasons, error, notes } = decision;
    let what = match error {
        None => format!("{from} → {to}"),
        Some(_) => format!("stays at {from}"),
    };
    let said = error.iter().chain(reasons).chain(notes);
    [format!("#{number} {at}  {what}")].into_iter().chain(said.map(|why| format!("   {why}"))).collect()
}

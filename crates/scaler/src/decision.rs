//! A decision: how many workers there should be now, and why (`reconcileAutoscaler`).

use crate::{
    history::History,
    proposal::{self, Error, Usage},
    rate,
    samples::Samples,
    spec::{Behavior, Spec},
    stabilization,
    time::Time,
};

/// How many workers there should be, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// So many.
    pub desired: u32,
    /// What the metrics proposed, to be remembered ([`History::note`]). None where they were not asked.
    pub proposal: Option<u32>,
    /// What each metric came to.
    pub usages: Vec<Usage>,
    /// Sentences, in the order in which it was decided.
    pub reasons: Vec<String>,
}

/// Decides. An error means that too much is unknown to change anything.
///
/// It takes time in proportion to the workers, the metrics and what is remembered, and allocates only for what it says.
pub fn decide(spec: &Spec, history: &History, samples: &Samples, now: Time) -> Result<Decision, Error> {
    let current = samples.replicas;
    if let Some((desired, why)) = unasked(spec, current) {
        return Ok(Decision { desired, proposal: None, usages: Vec::new(), reasons: vec![why] });
    }
    let proposal = proposal::propose(spec, samples, now)?;
    let mut reasons = proposal.reasons;
    let desired = match &spec.behavior {
        None => simple(spec, history, current, proposal.replicas, now, &mut reasons),
        Some(behavior) => behaved(spec, behavior, history, current, proposal.replicas, now, &mut reasons),
    };
    reasons.push(match desired {
        _ if desired == current => format!("{desired}, as now"),
        _ => format!("{desired} instead of {current}"),
    });
    Ok(Decision { desired, proposal: Some(proposal.replicas), usages: proposal.usages, reasons })
}

/// What is decided without asking the metrics.
fn unasked(spec: &Spec, current: u32) -> Option<(u32, String)> {
    let (min, max) = (spec.min, spec.max);
    if current == 0 && min != 0 {
        Some((
            0,
            format!("paused: there should be 0 workers, which a minimum of {min} does not come to by itself"),
        ))
    } else if current > max {
        Some((max, format!("{max} instead of {current}: no more are allowed at all")))
    } else if current < min {
        Some((min, format!("{min} instead of {current}: no fewer are allowed at all")))
    } else {
        None
    }
}

/// Without a behavior (`normalizeDesiredReplicas`).
fn simple(
    spec: &Spec,
    history: &History,
    current: u32,
    proposal: u32,
    now: Time,
    reasons: &mut Vec<String>,
) -> u32 {
    let window = spec.options.downscale_stabilization;
    let stable = stabilization::highest(proposal, history, window, now);
    if stable != proposal {
        let window = window.as_secs_f64();
        reasons.push(format!("{stable} rather than {proposal}: the highest proposal of the last {window} s"));
    }
    let (desired, limit) = rate::simple(stable, current, spec);
    reasons.extend(limit.map(|limit| format!("{desired} rather than {stable}: {limit}")));
    desired
}

/// With a behavior (`normalizeDesiredReplicasWithBehaviors`).
fn behaved(
    spec: &Spec,
    behavior: &Behavior,
    history: &History,
    current: u32,
    proposal: u32,
    now: Time,
    reasons: &mut Vec<String>,
) -> u32 {
    let up = behavior.up.window.unwrap_or_default();
    let down = behavior.down.window.unwrap_or(spec.options.downscale_stabilization);
    let stable = stabilization::nearest(proposal, history, current, (up, down), now);
    if stable != proposal {
        let (which, window) = if proposal > stable { ("lowest", up) } else { ("highest", down) };
        let window = window.as_secs_f64();
        reasons.push(format!(
            "{stable} rather than {proposal}: the {which} proposal of the last {window} s counts"
        ));
    }
    let rules = (&behavior.up, &behavior.down);
    let (desired, limit) = rate::limited(stable, current, spec, rules, history, now);
    reasons.extend(limit.map(|limit| format!("{desired} rather than {stable}: {limit}")));
    desired
}

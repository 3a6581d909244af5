//! What a number that is not a worker's proposes: that of an object, or an external one
//! (`getUsageRatioReplicaCount`, `GetObjectPerPodMetricReplicas`, `GetExternalPerPodMetricReplicas`). It needs no
//! worker, so it is also what brings a service back from zero.

use crate::{
    proposal::{Failure, Said, rounded_up},
    quantity::decimal,
    samples::Samples,
    spec::{Target, Tolerances},
};

/// The usage, and what follows from it.
pub fn propose(
    target: Target,
    value: i64,
    samples: &Samples,
    tolerances: Tolerances,
) -> Result<(i64, Said), Failure> {
    match target {
        Target::AverageValue(target) => Ok(for_each(target, value, samples.replicas, tolerances)),
        Target::Value(target) => Ok((value, in_all(target, value, samples, tolerances)?)),
        // No manifest is read to this.
        Target::Utilization(_) => Err(Failure::NothingRequested),
    }
}

/// The ratio is of as many as get requests, not of as many as there should be. From zero there is no ratio to apply,
/// and no tolerance.
fn in_all(target: i64, value: i64, samples: &Samples, tolerances: Tolerances) -> Result<Said, Failure> {
    let ratio = value as f64 / target as f64;
    if samples.replicas == 0 {
        let replicas = rounded_up(ratio);
        return Ok((replicas, format!("ratio {ratio:.3} from zero: {replicas}")));
    }
    if tolerances.contain(ratio) {
        let current = samples.replicas;
        return Ok((current, format!("ratio {ratio:.3} is within the tolerance: {current} as now")));
    }
    if samples.instances.is_empty() {
        return Err(Failure::NoInstances);
    }
    let serving = samples.instances.iter().filter(|instance| instance.is_serving()).count();
    let replicas = rounded_up(ratio * serving as f64);
    Ok((replicas, format!("ratio {ratio:.3} × {serving} ready: {replicas}")))
}

/// As many as have their share each.
fn for_each(target: i64, value: i64, current: u32, tolerances: Tolerances) -> (i64, Said) {
    let share = if current == 0 { value } else { (value as f64 / f64::from(current)).ceil() as i64 };
    // At zero workers this is infinite or, if there is nothing to do either, no number: never within the tolerance.
    let ratio = value as f64 / (target as f64 * f64::from(current));
    if tolerances.contain(ratio) {
        return (share, (current, format!("ratio {ratio:.3} is within the tolerance: {current} as now")));
    }
    let replicas = rounded_up(value as f64 / target as f64);
    (share, (replicas, format!("{} ÷ {}: {replicas}", decimal(value), decimal(target))))
}

//! What a metric of the workers themselves proposes: as many as bring it to its target, if each then does its share
//! (`GetResourceReplicas`, `calcPlainMetricReplicas`).

use crate::{
    proposal::{
        Failure, Said,
        group::{Groups, Sum},
        rounded_up,
    },
    spec::{Target, Tolerances},
};

/// The usage that was found, and what follows.
pub fn propose(
    target: Target,
    groups: &Groups,
    current: u32,
    tolerances: Tolerances,
) -> Result<(i64, Said), Failure> {
    let (value, ratio) = measure(target, groups.ready)?;
    let (ready, missing, unready) = (groups.ready, groups.missing, groups.unready);
    let counts_unready = unready.count > 0 && ratio > 1.0;
    if !counts_unready && missing.count == 0 {
        return Ok((value, simply(ratio, ready.count, current, tolerances)));
    }
    // What is not known is taken to speak against the change.
    let mut all = ready;
    let mut assumptions = Vec::new();
    if missing.count > 0 && ratio < 1.0 {
        all = all.with(missing);
        assumptions.push(format!("{} not measured, taken as busy", missing.count));
    } else if missing.count > 0 && ratio > 1.0 {
        all = all.with(missing.idle());
        assumptions.push(format!("{} not measured, taken as idle", missing.count));
    }
    if counts_unready {
        all = all.with(unready.idle());
        assumptions.push(format!("{} not ready yet, taken as idle", unready.count));
    }
    let (_, again) = measure(target, all)?;
    let with =
        if assumptions.is_empty() { String::new() } else { format!("with {}: ", assumptions.join(" and ")) };
    let (replicas, why) = cautiously(ratio, again, all.count, current, tolerances);
    Ok((value, (replicas, format!("{with}{why}"))))
}

/// The usage, truncated to whole percent or whole milli-units, and its ratio to the target
/// (`GetResourceUtilizationRatio`, `GetMetricUsageRatio`).
fn measure(target: Target, sum: Sum) -> Result<(i64, f64), Failure> {
    match target {
        Target::Utilization(_) if sum.requests == 0 => Err(Failure::NothingRequested),
        Target::Utilization(target) => {
            let percent = sum.usage * 100 / sum.requests;
            let percent = percent.clamp(i32::MIN.into(), i32::MAX.into()) as i64;
            Ok((percent, percent as f64 / f64::from(target)))
        }
        Target::AverageValue(target) | Target::Value(target) => {
            // Bounded by the largest of the summands, which are of 64 bits.
            let average = (sum.usage / i128::from(sum.count.max(1))) as i64;
            Ok((average, average as f64 / target as f64))
        }
    }
}

fn simply(ratio: f64, count: u64, current: u32, tolerances: Tolerances) -> Said {
    if tolerances.contain(ratio) {
        return (current, format!("ratio {ratio:.3} is within the tolerance: {current} as now"));
    }
    let replicas = rounded_up(ratio * count as f64);
    (replicas, format!("ratio {ratio:.3} × {count}: {replicas}"))
}

/// Not where what was assumed turns the direction around, nor where counting others does.
fn cautiously(ratio: f64, again: f64, count: u64, current: u32, tolerances: Tolerances) -> Said {
    if tolerances.contain(again) {
        return (current, format!("ratio {again:.3} is within the tolerance: {current} as now"));
    }
    if (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0) {
        return (
            current,
            format!("ratio {ratio:.3} becomes {again:.3}, the other direction: {current} as now"),
        );
    }
    let replicas = rounded_up(again * count as f64);
    if (again < 1.0 && replicas > current) || (again > 1.0 && replicas < current) {
        let why = format!("ratio {again:.3} × {count} is {replicas}, the other direction: {current} as now");
        return (current, why);
    }
    (replicas, format!("ratio {again:.3} × {count}: {replicas}"))
}

//! What is remembered from one decision to the next: what was proposed, and what was changed.

use serde::{Deserialize, Serialize};

use crate::{
    decision::Decision,
    spec::{PERIOD_MAX, Spec},
    time::Time,
};

/// What was proposed and what was changed before, in any order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct History {
    /// What the metrics proposed, before it was stabilized.
    pub recommendations: Vec<Recommendation>,
    /// When workers were added.
    pub scale_ups: Vec<Change>,
    /// When workers were removed.
    pub scale_downs: Vec<Change>,
}

/// What the metrics proposed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// When.
    pub t: Time,
    /// How many.
    pub replicas: u32,
}

/// A change of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub t: Time,
    /// By how many. Its sign does not matter: the list that it is in says the direction.
    pub change: i64,
}

impl History {
    /// That of a service which is seen for the first time and has so many workers: they count as proposed just now,
    /// so that they do not go at once (`recordInitialRecommendation`).
    pub fn begin(replicas: u32, now: Time) -> Self {
        Self { recommendations: vec![Recommendation { t: now, replicas }], ..Self::default() }
    }

    /// Notes a decision that was followed when there were `current` workers, and forgets what is so old that no rule
    /// looks at it. Without a behavior no rule looks at changes, and none are noted (`storeScaleEvent`).
    pub fn note(&mut self, spec: &Spec, current: u32, decision: &Decision, now: Time) {
        let oldest = now.minus(spec.memory());
        self.recommendations.retain(|old| old.t >= oldest);
        if let Some(replicas) = decision.proposal {
            // Of equal proposals only the latest can be within a window when another is not.
            self.recommendations.retain(|old| old.replicas != replicas || old.t > now);
            self.recommendations.push(Recommendation { t: now, replicas });
        }
        if spec.behavior.is_none() {
            return;
        }
        let change = i64::from(decision.desired) - i64::from(current);
        let changes = if change > 0 { &mut self.scale_ups } else { &mut self.scale_downs };
        if change != 0 {
            changes.push(Change { t: now, change: change.abs() });
        }
        let oldest = now.minus(PERIOD_MAX);
        self.scale_ups.retain(|old| old.t >= oldest);
        self.scale_downs.retain(|old| old.t >= oldest);
    }
}

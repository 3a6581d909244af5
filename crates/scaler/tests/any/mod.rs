//! Rules of scaling as proptest makes them up.

use std::time::Duration;

use lethe_scaler::spec::{Amount, Policy, Rules, Select};
use proptest::prelude::*;

/// Rules that can be written down and read again as they were: a tolerance has three places.
pub fn any_rules() -> impl Strategy<Value = Rules> {
    let amount = prop_oneof![(1..20_u32).prop_map(Amount::Pods), (1..300_u32).prop_map(Amount::Percent)];
    let policy =
        (amount, 1..1_800_u64).prop_map(|(amount, s)| Policy { amount, period: Duration::from_secs(s) });
    let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
    let window = prop::option::of((0..3_600_u64).prop_map(Duration::from_secs));
    let tolerance = prop::option::of((0..1_000_u32).prop_map(|milli| f64::from(milli) / 1_000.0));
    (window, select, prop::collection::vec(policy, 1..4), tolerance)
        .prop_map(|(window, select, policies, tolerance)| Rules { window, select, policies, tolerance })
}

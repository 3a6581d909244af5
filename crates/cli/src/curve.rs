//! A curve in a line of text.

/// From nothing to all of it.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar for each value; `share` says how high, from 0 to 1.
pub fn curve(values: &[f64], share: impl Fn(f64) -> f64) -> String {
    let bar = |value: &f64| {
        let share = share(*value);
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        BARS[(share * (BARS.len() - 1) as f64).ceil() as usize]
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(curve(&[0.0, 0.01, 0.5, 1.0, 7.0, f64::NAN], |x| x), " ▁▄██ ");
    }
}

//! How capacity grows with workers: the Universal Scalability Law (Gunther, "Guerrilla Capacity Planning", chapter 4),
//! X(n) = λ·n / (1 + α·(n − 1) + β·n·(n − 1)), fitted to what was measured, with how sure that is.

use serde::Serialize;

/// So many numbers of workers must have been measured: a law with three unknowns goes through any three points.
pub const POINTS_MIN: usize = 4;

/// Nothing is said of more than so many times the most workers that were measured.
pub const REACH: f64 = 2.0;

/// Two-sided 95 % quantiles of Student's distribution, for 1 to 10 degrees of freedom; beyond, the normal one is near enough.
const STUDENT_95: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
const NORMAL_95: f64 = 1.96;

/// A number and the interval that it is in with a confidence of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The most likely.
    pub value: f64,
    /// No less.
    pub low: f64,
    /// No more.
    pub high: f64,
}

/// The law, fitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scalability {
    /// λ: what one worker holds, in users a second.
    pub one_worker: Estimate,
    /// α: the share of work that is done one after the other.
    pub contention: Estimate,
    /// β: what each pair of workers costs.
    pub coherence: Estimate,
    /// The share of the variation that the law explains, up to 1.
    pub r_squared: f64,
    /// The number of workers at which capacity is highest, if it is within what anything is said of.
    pub best: Option<u32>,
    /// Nothing is said of more workers.
    pub reach: u32,
    /// For each number of workers up to there, what they would hold.
    pub curve: Vec<(u32, f64)>,
    /// What limits what is said.
    pub notes: Vec<String>,
}

/// Why nothing can be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too few points.
    #[error(
        "{0} numbers of workers were measured; the law needs at least {POINTS_MIN}, as --workers 1..{POINTS_MIN}"
    )]
    Points(usize),
    /// What was measured has no such law.
    #[error(
        "what was measured follows no law of this form: measure longer, with nothing else on the machine"
    )]
    Shapeless,
}

/// Fits the law to workers and what they held, in users a second. `cores` are those that the workers share, if they do: of more workers
/// than that nothing is said.
///
/// # Errors
/// When it cannot be fitted.
pub fn fit(points: &[(u32, f64)], cores: Option<u32>) -> Result<Scalability, Error> {
    let mut numbers: Vec<u32> = points.iter().map(|(workers, _)| *workers).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() < POINTS_MIN {
        return Err(Error::Points(numbers.len()));
    }
    let most = numbers.last().copied().unwrap_or_default();
    let is_measure = |(workers, held): &(u32, f64)| *workers > 0 && held.is_finite() && *held > 0.0;
    if !points.iter().all(is_measure) {
        return Err(Error::Shapeless);
    }
    // There are more points than terms.
    let freedom = points.len().saturating_sub(3).max(1);
    let quantile = STUDENT_95.get(freedom - 1).copied().unwrap_or(NORMAL_95);
    let (terms, errors) = least_squares(points, quantile).ok_or(Error::Shapeless)?;
    let [a, b, c] = terms;
    if !(a.is_finite() && a > 0.0) {
        return Err(Error::Shapeless);
    }
    let within = |value: f64, error: f64| Estimate {
        value,
        low: (value - quantile * error).max(0.0),
        high: value + quantile * error,
    };
    // λ = 1/a, α = b/a, β = c/a; the error of a quotient by the sum of the squares of the relative ones.
    let of_ratio = |top: f64, error: f64| {
        let spread = (error / a).hypot(top / a * errors[0] / a);
        within(top / a, spread)
    };
    let law = |workers: f64| workers / (a + b * (workers - 1.0) + c * workers * (workers - 1.0));
    let (reach, mut notes) = reach(most, cores);
    let curve: Vec<(u32, f64)> = (1..=reach).map(|workers| (workers, law(f64::from(workers)))).collect();
    let best = curve.iter().max_by(|one, other| one.1.total_cmp(&other.1)).map(|(workers, _)| *workers);
    let best = best.filter(|best| *best < reach);
    if best.is_none() {
        notes.push(format!(
            "capacity still grows at {reach} workers; where it is highest is farther than can be said"
        ));
    }
    if freedom == 1 {
        notes.push(format!(
            "{} measurements for three unknowns leave one degree of freedom: the intervals are wide and the fit looks better than it is; \
             measure more numbers of workers",
            points.len()
        ));
    }
    let coherence = of_ratio(c, errors[2]);
    let r_squared = r_squared(points, law);
    if r_squared < 0.9 {
        notes.push(
            "the law explains little of what was measured: measure longer, with nothing else on the machine"
                .into(),
        );
    }
    Ok(Scalability {
        one_worker: within(1.0 / a, errors[0] / (a * a)),
        contention: of_ratio(b, errors[1]),
        coherence,
        r_squared,
        best,
        reach,
        curve,
        notes,
    })
}

/// How many workers something can be said of, and why not of more.
fn reach(most: u32, cores: Option<u32>) -> (u32, Vec<String>) {
    let far = (f64::from(most) * REACH) as u32;
    match cores {
        // What was measured is told even where it is past the cores.
        Some(cores) if cores < far => {
            let note =
                format!("nothing is said of more than {} workers: they share {cores} cores", cores.max(most));
            (cores.max(most), vec![note])
        }
        _ => (far, vec![format!("nothing is said of more than {far} workers: {most} were measured")]),
    }
}

fn r_squared(points: &[(u32, f64)], law: impl Fn(f64) -> f64) -> f64 {
    let mean = points.iter().map(|(_, held)| held).sum::<f64>() / points.len() as f64;
    let left: f64 = points.iter().map(|(workers, held)| (held - law(f64::from(*workers))).powi(2)).sum();
    let all: f64 = points.iter().map(|(_, held)| (held - mean).powi(2)).sum();
    if all > 0.0 { 1.0 - left / all } else { 1.0 }
}

/// n / X(n) = a + b·(n − 1) + c·n·(n − 1) is linear in its terms. None of them is below zero: of all choices of terms that are not zero,
/// the best that holds this. Errors of X are relative ones, and so each point weighs as much as its left side is small.
///
/// A term that is zero for that may still be more: as far as the fit with all terms says.
fn least_squares(points: &[(u32, f64)], quantile: f64) -> Option<([f64; 3], [f64; 3])> {
    const CHOICES: [[bool; 3]; 4] =
        [[true, true, true], [true, true, false], [true, false, true], [true, false, false]];
    let solved = CHOICES.iter().filter_map(|choice| Some((*choice, solve(points, *choice)?)));
    let feasible = solved.filter(|(_, (terms, _, _))| terms.iter().all(|term| *term >= 0.0));
    let (choice, (terms, mut errors, _)) = feasible.min_by(|one, other| one.1.2.total_cmp(&other.1.2))?;
    if let Some((all, of_all, _)) = solve(points, CHOICES[0]) {
        for at in (0..3).filter(|at| !choice[*at]) {
            errors[at] = (all[at] / quantile + of_all[at]).max(0.0);
        }
    }
    Some((terms, errors))
}

/// The terms that are chosen, the others being zero; their standard errors; and what is left unexplained.
fn solve(points: &[(u32, f64)], choice: [bool; 3]) -> Option<([f64; 3], [f64; 3], f64)> {
    // Rows are divided by the left side, which makes that 1 and errors relative.
    let row = |(workers, held): &(u32, f64)| {
        let workers = f64::from(*workers);
        let left = workers / held;
        let full = [1.0, workers - 1.0, workers * (workers - 1.0)];
        std::array::from_fn(|at| if choice[at] { full[at] / left } else { 0.0 })
    };
    let rows: Vec<[f64; 3]> = points.iter().map(row).collect();
    let mut normal = [[0.0; 3]; 3];
    let mut right = [0.0; 3];
    for row in &rows {
        for i in 0..3 {
            right[i] += row[i];
            for j in 0..3 {
                normal[i][j] += row[i] * row[j];
            }
        }
    }
    for at in 0..3 {
        if !choice[at] {
            normal[at][at] = 1.0;
        }
    }
    let inverse = invert(normal)?;
    let terms: [f64; 3] = std::array::from_fn(|i| (0..3).map(|j| inverse[i][j] * right[j]).sum());
    let left: f64 =
        rows.iter().map(|row| (1.0 - (0..3).map(|i| row[i] * terms[i]).sum::<f64>()).powi(2)).sum();
    let freedom = points.len().saturating_sub(3).max(1);
    let variance = left / freedom as f64;
    let errors =
        std::array::from_fn(|i| if choice[i] { (inverse[i][i] * variance).max(0.0).sqrt() } else { 0.0 });
    Some((terms, errors, left))
}

/// By cofactors; `None` if there is none.
fn invert(m: [[f64; 3]; 3]) -> Option<[[f64; 3]; 3]> {
    let cofactor = |i: usize, j: usize| {
        let (r, s) = ((i + 1) % 3, (i + 2) % 3);
        let (u, v) = ((j + 1) % 3, (j + 2) % 3);
        m[r][u] * m[s][v] - m[r][v] * m[s][u]
    };
    let determinant: f64 = (0..3).map(|j| m[0][j] * cofactor(0, j)).sum();
    let scale: f64 = m.iter().flatten().fold(0.0, |most: f64, entry| most.max(entry.abs()));
    if !determinant.is_finite() || determinant.abs() <= scale.powi(3) * 1e-13 {
        return None;
    }
    Some(std::array::from_fn(|i| std::array::from_fn(|j| cofactor(j, i) / determinant)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(one: f64, contention: f64, coherence: f64, most: u32) -> Vec<(u32, f64)> {
        let law = |n: f64| one * n / (1.0 + contention * (n - 1.0) + coherence * n * (n - 1.0));
        (1..=most).map(|workers| (workers, law(f64::from(workers)))).collect()
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        assert_eq!(fit(&points(100.0, 0.1, 0.01, 3), None), Err(Error::Points(3)));
        assert_eq!(fit(&[(1, 1.0), (1, 1.0), (2, 2.0), (3, 3.0)], None), Err(Error::Points(3)));
        assert_eq!(fit(&[(1, 1.0), (2, 0.0), (3, 3.0), (4, 4.0)], None), Err(Error::Shapeless));
        let far = fit(&points(100.0, 0.02, 0.0, 4), None).unwrap();
        assert_eq!((far.reach, far.best, far.curve.len()), (8, None, 8));
        let few = fit(&points(100.0, 0.02, 0.0, 4), Some(2)).unwrap();
        assert_eq!(few.reach, 4, "{:?}", few.notes);
        assert!(few.notes[0].contains("they share 2 cores"), "{:?}", few.notes);
        assert_eq!(fit(&points(100.0, 0.02, 0.0, 4), Some(6)).unwrap().reach, 6);
        let is_said = |most| {
            let notes = fit(&points(100.0, 0.02, 0.0, most), None).unwrap().notes;
            notes.iter().any(|note| note.contains("one degree of freedom"))
        };
        assert_eq!([4, 5].map(is_said), [true, false]);
    }

    #[test]
    fn where_more_workers_hold_less() {
        let fitted = fit(&points(1000.0, 0.05, 0.02, 10), None).unwrap();
        // √((1 − α) / β) is 6.9.
        assert_eq!(fitted.best, Some(7));
        assert!((fitted.r_squared - 1.0).abs() < 1e-9 && fitted.coherence.high - fitted.coherence.low < 1e-6);
    }

    #[test]
    fn terms_are_never_below_zero_and_noise_makes_it_less_sure() {
        // Each worker holds more than the one before: the law has no such thing.
        let more = fit(&[(1, 100.0), (2, 210.0), (3, 330.0), (4, 460.0), (5, 600.0)], None).unwrap();
        assert_eq!((more.contention.value, more.coherence.value), (0.0, 0.0));
        // Nothing but noise: that a term is zero is as unsure as the rest.
        let unsure = fit(&[(1, 1530.0), (2, 3060.0), (3, 3733.0), (4, 3120.0)], None).unwrap();
        for term in [unsure.contention, unsure.coherence] {
            assert!(term.high > 0.1, "{unsure:?}");
        }
        let mut noisy = points(1000.0, 0.05, 0.01, 8);
        for (at, (_, held)) in noisy.iter_mut().enumerate() {
            *held *= if at % 2 == 0 { 1.03 } else { 0.97 };
        }
        let fitted = fit(&noisy, None).unwrap();
        let Estimate { value, low, high } = fitted.one_worker;
        assert!(low < 1000.0 && 1000.0 < high && high - low > 10.0, "{value} from {low} to {high}");
        assert!(fitted.r_squared < 0.9999);
    }

    proptest! {
        #[test]
        fn a_law_is_found_again(one in 1.0..1e5, contention in 0.0..0.5, coherence in 0.0..0.05, most in 4_u32..24) {
            let fitted = fit(&points(one, contention, coherence, most), None).unwrap();
            prop_assert!((fitted.one_worker.value / one - 1.0).abs() < 1e-4, "{:?}", fitted);
            prop_assert!((fitted.contention.value - contention).abs() < 1e-4, "{:?}", fitted);
            prop_assert!((fitted.coherence.value - coherence).abs() < 1e-4, "{:?}", fitted);
        }
    }
}

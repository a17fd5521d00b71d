//! The same for more observations than a dense matrix is good for: conjugate gradients over the sparse rows, and
//! variances one by one.

use super::calibration::LeftOut;
use super::fit::{Rows, Solved};
use super::point::Point;

/// Steps at most. Each takes time in proportion to the observations; the search starts from the last effects.
const STEPS_MAX: usize = 100;
/// Good enough: this share of the first remainder.
const REMAINDER: f64 = 1e-5;

/// The effects that explain the targets best, starting from some.
pub(super) fn solve(
    rows: &Rows,
    targets: &[f64],
    priors: &[f64],
    noises: &[f64],
    start: &[f64],
) -> Solved {
    let weighted: Vec<f64> = targets
        .iter()
        .zip(noises)
        .map(|(t, noise)| t / noise)
        .collect();
    let wanted = transposed(rows, &weighted);
    let variances = variances(rows, priors, noises);
    let apply = |effects: &[f64]| -> Vec<f64> {
        let explained: Vec<f64> = expected(rows, effects)
            .into_iter()
            .zip(noises)
            .map(|(value, noise)| value / noise)
            .collect();
        let mut product = transposed(rows, &explained);
        for ((value, effect), prior) in product.iter_mut().zip(effects).zip(priors) {
            *value += effect / prior;
        }
        product
    };
    let mut effects = start.to_vec();
    let mut rest: Vec<f64> = wanted
        .iter()
        .zip(apply(&effects))
        .map(|(a, b)| a - b)
        .collect();
    let scaled =
        |rest: &[f64]| -> Vec<f64> { rest.iter().zip(&variances).map(|(r, v)| r * v).collect() };
    let mut scaled_rest = scaled(&rest);
    let mut direction = scaled_rest.clone();
    let mut size = super::dense::dot(&rest, &scaled_rest);
    let enough = size * REMAINDER * REMAINDER;
    for _ in 0..STEPS_MAX {
        if size <= enough || size == 0.0 {
            break;
        }
        let product = apply(&direction);
        let step = size / super::dense::dot(&direction, &product);
        for (effect, toward) in effects.iter_mut().zip(&direction) {
            *effect += step * toward;
        }
        for (rest, product) in rest.iter_mut().zip(&product) {
            *rest -= step * product;
        }
        scaled_rest = scaled(&rest);
        let new = super::dense::dot(&rest, &scaled_rest);
        for (toward, scaled) in direction.iter_mut().zip(&scaled_rest) {
            *toward = scaled + new / size * *toward;
        }
        size = new;
    }
    let fitted = fitted(rows, &variances, noises);
    Solved {
        effects,
        variances,
        fitted,
    }
}

/// The variance of each effect if the others were known.
pub(super) fn variances(rows: &Rows, priors: &[f64], noises: &[f64]) -> Vec<f64> {
    let mut precisions: Vec<f64> = priors.iter().map(|prior| 1.0 / prior).collect();
    for (slopes, noise) in rows.slopes.iter().zip(noises) {
        for &(place, slope) in slopes {
            precisions[place as usize] += slope * slope / noise;
        }
    }
    precisions.into_iter().map(f64::recip).collect()
}

/// How far each observation lies from what is said of it, less what it said itself.
pub(super) fn left_out(
    rows: &Rows,
    targets: &[f64],
    effects: &[f64],
    variances: &[f64],
    noises: &[f64],
    points: &[&Point],
) -> Vec<LeftOut> {
    let expected = expected(rows, effects);
    let fitted = fitted(rows, variances, noises);
    let each = targets.iter().zip(expected).zip(fitted.iter().zip(noises));
    each.zip(points)
        .map(|(((target, expected), (fitted, noise)), point)| {
            // A share of the error was explained away by the observation itself.
            let own = (fitted / (fitted + noise)).min(0.9);
            let error = (target - expected) / (1.0 - own);
            LeftOut::alone(error / (fitted + noise).sqrt(), point.gpu)
        })
        .collect()
}

fn fitted(rows: &Rows, variances: &[f64], noises: &[f64]) -> Vec<f64> {
    let each = rows.slopes.iter().zip(noises);
    each.map(|(slopes, noise)| {
        let sum: f64 = slopes
            .iter()
            .map(|&(place, slope)| slope * slope * variances[place as usize])
            .sum();
        sum.min(*noise)
    })
    .collect()
}

fn expected(rows: &Rows, effects: &[f64]) -> Vec<f64> {
    let each = rows.slopes.iter();
    each.map(|slopes| {
        slopes
            .iter()
            .map(|&(place, slope)| slope * effects[place as usize])
            .sum()
    })
    .collect()
}

fn transposed(rows: &Rows, values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; rows.features];
    for (slopes, value) in rows.slopes.iter().zip(values) {
        for &(place, slope) in slopes {
            sums[place as usize] += slope * value;
        }
    }
    sums
}

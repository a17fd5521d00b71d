//! The posterior of up to a thousand observations in closed form, through the covariance of the observations: it is
//! smaller than that of the effects, of which most occur once or twice.

use std::collections::HashMap;

use super::calibration::{LeftOut, Novelty};
use super::dense::Square;
use super::fit::{Rows, Solved};
use super::point::Point;

/// The columns of the rows.
fn columns(rows: &Rows) -> Vec<Vec<(u32, f64)>> {
    let mut columns = vec![Vec::new(); rows.features];
    for (row, slopes) in rows.slopes.iter().enumerate() {
        for &(place, slope) in slopes {
            columns[place as usize].push((row as u32, slope));
        }
    }
    columns
}

/// The inverse of the covariance of the observations.
fn precision(
    rows: &Rows,
    columns: &[Vec<(u32, f64)>],
    priors: &[f64],
    noises: &[f64],
) -> Option<Square> {
    let mut covariance = Square::zero(rows.slopes.len());
    for (column, prior) in columns.iter().zip(priors) {
        for &(i, a) in column {
            let row = &mut covariance.cells[i as usize * noises.len()..];
            for &(j, b) in column {
                if j > i {
                    break;
                }
                row[j as usize] += prior * a * b;
            }
        }
    }
    for (place, noise) in noises.iter().enumerate() {
        covariance.add(place, place, *noise);
    }
    covariance.inverted()
}

/// The effects that explain the targets best.
pub(super) fn solve(
    rows: &Rows,
    targets: &[f64],
    priors: &[f64],
    noises: &[f64],
) -> Option<Solved> {
    let columns = columns(rows);
    let precision = precision(rows, &columns, priors, noises)?;
    let pulls = precision.times(targets);
    let mut effects = Vec::with_capacity(columns.len());
    let mut variances = Vec::with_capacity(columns.len());
    for (column, prior) in columns.iter().zip(priors) {
        let pull: f64 = column.iter().map(|&(i, a)| a * pulls[i as usize]).sum();
        let mut known = 0.0;
        for &(i, a) in column {
            let row = precision.row(i as usize);
            let sum: f64 = column.iter().map(|&(j, b)| b * row[j as usize]).sum();
            known += a * sum;
        }
        effects.push(prior * pull);
        variances.push((prior - prior * prior * known).max(0.0));
    }
    let fitted = noises
        .iter()
        .enumerate()
        .map(|(place, noise)| (noise - noise * noise * precision.at(place, place)).max(0.0));
    Some(Solved {
        effects,
        variances,
        fitted: fitted.collect(),
    })
}

/// All covariances of the effects, by rows.
pub(super) fn covariances(rows: &Rows, priors: &[f64], noises: &[f64]) -> Vec<f32> {
    let columns = columns(rows);
    let size = rows.features;
    let mut covariances = vec![0.0_f32; size * size];
    let Some(precision) = precision(rows, &columns, priors, noises) else {
        for (place, prior) in priors.iter().enumerate() {
            covariances[place * size + place] = *prior as f32;
        }
        return covariances;
    };
    let mut seen = vec![0.0; noises.len()];
    for (place, column) in columns.iter().enumerate() {
        seen.fill(0.0);
        for &(i, a) in column {
            for (sum, value) in seen.iter_mut().zip(precision.row(i as usize)) {
                *sum += a * value;
            }
        }
        let row = &mut covariances[place * size..(place + 1) * size];
        let mut sums = vec![0.0; size];
        for (slopes, seen) in rows.slopes.iter().zip(&seen) {
            for &(other, slope) in slopes {
                sums[other as usize] += slope * seen;
            }
        }
        for (other, (cell, sum)) in row.iter_mut().zip(sums).enumerate() {
            let own = if other == place { priors[place] } else { 0.0 };
            *cell = (own - priors[place] * priors[other] * sum) as f32;
        }
    }
    covariances
}

/// What the observations that are left out together share.
type Key = fn(&Point) -> (u64, u64);

/// What the model would have said of each observation without it, without all of its recipe on its hardware, and
/// without all of its recipe, each in closed form for the slopes that were found with it.
pub(super) fn left_out(
    rows: &Rows,
    targets: &[f64],
    priors: &[f64],
    noises: &[f64],
    points: &[&Point],
) -> Vec<LeftOut> {
    let columns = columns(rows);
    let Some(precision) = precision(rows, &columns, priors, noises) else {
        return Vec::new();
    };
    let pulls = precision.times(targets);
    let mut left_out = Vec::new();
    for (place, pull) in pulls.iter().enumerate() {
        let own = precision.at(place, place);
        // The error and its deviation without the observation are pull / own and sqrt(1 / own).
        left_out.push(LeftOut::new(Novelty::Known, pull / own.sqrt()));
    }
    let kinds: [(Novelty, Key); 3] = [
        (Novelty::OtherHardware, |point| (point.recipe, point.gpu)),
        (Novelty::OtherRecipe, |point| (point.recipe, 0)),
        (Novelty::New, |point| (0, point.gpu)),
    ];
    for (novelty, key) in kinds {
        let mut groups: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
        for (place, point) in points.iter().enumerate() {
            groups.entry(key(point)).or_default().push(place);
        }
        if groups.len() < 2 {
            continue;
        }
        for places in groups.into_values() {
            if novelty == Novelty::OtherHardware {
                let recipe = points[places[0]].recipe;
                let elsewhere = points.iter().filter(|point| point.recipe == recipe).count();
                if elsewhere == places.len() {
                    continue;
                }
            }
            let Some(covariance) = precision.block(&places).inverted() else {
                continue;
            };
            let pulled: Vec<f64> = places.iter().map(|&place| pulls[place]).collect();
            let errors = covariance.times(&pulled);
            for (at, error) in errors.into_iter().enumerate() {
                left_out.push(LeftOut::new(novelty, error / covariance.at(at, at).sqrt()));
            }
        }
    }
    left_out
}

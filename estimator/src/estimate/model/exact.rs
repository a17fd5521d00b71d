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

/// How uncertain the answers to some observations are when none of them is known, apart from the noise.
///
/// As an answer takes it: each effect as if the others were known.
fn variances_without(
    rows: &Rows,
    precisions: &[f64],
    noises: &[f64],
    places: &[usize],
) -> Vec<f64> {
    let mut own: HashMap<u32, f64> = HashMap::new();
    for &row in places {
        for &(place, slope) in &rows.slopes[row] {
            *own.entry(place).or_default() += slope * slope / noises[row];
        }
    }
    let each = places.iter().map(|&row| {
        let slopes = rows.slopes[row].iter();
        let each = slopes.map(|&(place, slope)| {
            let all = precisions[place as usize];
            slope * slope / (all - own[&place]).max(all * 1e-9)
        });
        each.sum()
    });
    each.collect()
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
    noise: f64,
    points: &[&Point],
) -> Vec<LeftOut> {
    let precisions: Vec<f64> = super::large::variances(rows, priors, noises)
        .into_iter()
        .map(f64::recip)
        .collect();
    let columns = columns(rows);
    let Some(precision) = precision(rows, &columns, priors, noises) else {
        return Vec::new();
    };
    let pulls = precision.times(targets);
    let mut left_out = Vec::new();
    for (place, pull) in pulls.iter().enumerate() {
        let own = precision.at(place, place);
        // The error without the observation is pull / own.
        let variance = variances_without(rows, &precisions, noises, &[place])[0] + noise;
        left_out.push(LeftOut::alone(
            pull / own / variance.sqrt(),
            points[place].gpu,
        ));
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
            let variances = variances_without(rows, &precisions, noises, &places);
            let (gpu, part) = (points[places[0]].gpu, 1.0 / places.len() as f64);
            for (error, variance) in errors.into_iter().zip(variances) {
                let error = error / (variance + noise).sqrt();
                left_out.push(LeftOut::among(novelty, error, gpu, part));
            }
        }
    }
    left_out
}

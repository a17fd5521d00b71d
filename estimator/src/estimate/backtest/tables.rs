//! Rows of the estimator's own tables, and the figures that are shipped.

use stepcast_records::{Key, Row};

use super::super::{features, published};
use super::Reading;
use super::case::Case;
use crate::error::Error;
use crate::import;

/// Reads the plain form that `stepcast records import` takes: rows of one's own hosts.
pub(super) fn read(text: &str) -> Result<Reading, Error> {
    let (rows, lines, refused) = import::rows(text.as_bytes())?;
    let refused = refused.into_iter();
    Ok(Reading {
        rows: lines,
        cases: rows
            .iter()
            .map(|(row, place)| {
                let case = case(row);
                Case {
                    point: case.point.on_own_host(),
                    row: *place,
                    ..case
                }
            })
            .collect(),
        skipped: refused
            .map(|(why, count)| (why.to_owned(), count))
            .collect(),
    })
}

/// The figures that come with this version, of other people's hosts.
pub(super) fn shipped() -> Vec<Case> {
    published::shipped_rows().iter().map(case).collect()
}

fn case(row: &Row) -> Case {
    let (point, rated_ms) = features::of_key(&row.key);
    let key = &row.key;
    let (recipe, hardware) = (key.recipe().to_string(), key.hardware().to_string());
    let kind = match key {
        Key::Training(_) => "step",
        Key::Validation(_) => "image",
    };
    let groups = [
        vec![kind, &recipe, &hardware],
        vec![kind, &recipe],
        vec![kind, &hardware],
        vec![kind],
    ];
    Case {
        point,
        ms: f64::from(row.avg_ms),
        weight: 1.0,
        rated_ms,
        groups: super::grouped(&groups),
        unit: format!("{key:?}"),
        recipe: recipe.clone(),
        gpu: key.hardware().gpu.slug().to_owned(),
        row: 0,
    }
}

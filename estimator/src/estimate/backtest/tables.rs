//! Rows of the estimator's own tables, and the figures that are shipped.

use stepcast_records::{Hardware, Key, Row};

use super::super::ladder::{Found, Ladder, Rungs};
use super::super::model::Model;
use super::super::shape::Shape;
use super::super::{features, published, width};
use super::case::Case;
use super::{Answer, Reading};
use crate::error::Error;
use crate::import;
use crate::index::Index;

/// Reads the plain form that `stepcast records import` takes: rows of one's own hosts.
pub(super) fn read(file: &[u8]) -> Result<Reading, Error> {
    let (rows, lines, refused) = import::rows(file)?;
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
                    record: Some(*row),
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

/// Answers what was asked about keys that have rows of their own as a server would that has these rows: by the rows,
/// drawn to the model while they are few.
pub(super) fn answer_by_own_rows(
    answers: &mut [Answer],
    asked: &[Case],
    known: &[Case],
    model: &Model,
) {
    let mut records = Index::default();
    records.add(known.iter().filter_map(|case| case.record.as_ref()));
    // No key that has rows of its own asks for published figures.
    let published = Index::default();
    let ladder = Ladder {
        records: &records,
        published: &published,
        model: Some(model),
    };
    for (answer, case) in answers.iter_mut().zip(asked) {
        let found = match case.record.as_ref().map(|row| &row.key) {
            Some(Key::Training(key)) => own(&ladder.of(key.shape()), key.hardware),
            Some(Key::Validation(key)) => own(&ladder.of(key.shape()), key.hardware),
            None => None,
        };
        if let Some(found) = found {
            let (low, high) = width::factors(found.variance);
            answer.ms = [found.ms * low, found.ms, found.ms * high];
            answer.basis = found.basis;
        }
    }
}

fn own<S: Shape>(rungs: &Rungs<'_, S>, hardware: Hardware) -> Option<Found> {
    rungs.exact(hardware)?;
    rungs.on(hardware)
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
        exact: None,
        unit: format!("{key:?}"),
        recipe: recipe.clone(),
        gpu: key.hardware().gpu.slug().to_owned(),
        row: 0,
        series: None,
        record: None,
    }
}

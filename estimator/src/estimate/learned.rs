//! What the model has learnt from: the published figures, which are of other people's hosts, and the cells of the
//! records, which are of one's own.

use std::collections::HashMap;
use std::sync::LazyLock;

use stepcast_records::{Cell, Hardware, Key, Recipe, Row, TrainingShape};

use super::features;
use super::model::{Model, Observation, Point};
use super::published;
use crate::index::{Index, Shelf};

/// Cells that the model learns from at most: as many as it solves for in closed form, beside the published
/// figures. Where there are more, every recipe on every hardware is heard before one is heard twice.
const CELLS_MAX: usize = 768;
/// Runs of a cell that count: more of them say more about the cell, and no more about others.
const ROWS_MAX: u32 = 4;
/// With so many steps a run's mean is as good as it gets; fewer count less.
const STEPS_GOOD: f64 = 20.0;
/// A published figure counts this much beside a run.
const PUBLISHED_WEIGHT: f64 = 0.5;

/// The model of the published figures alone.
pub(crate) fn shipped() -> Option<&'static Model> {
    static MODEL: LazyLock<Option<Model>> = LazyLock::new(|| Model::learn(&figures()));
    MODEL.as_ref()
}

/// The model of the published figures and the records.
pub(crate) fn of(records: &Index) -> Option<Model> {
    let mut observations = figures();
    let mut cells = cells(records);
    for cell in &mut cells {
        cell.belief = shipped().map_or(1.0, |model| model.belief(cell));
    }
    observations.extend(cells);
    Model::learn(&observations)
}

/// Takes rows in that were not there when the model was learnt, one by one; `records` hold them already.
pub(crate) fn observe(model: &mut Model, records: &Index, rows: &[Row]) {
    for (row, before) in with_rows_before(records, rows) {
        let Key::Training(key) = row.key else {
            continue;
        };
        if before < ROWS_MAX && key.hardware.gpu.is_gpu() {
            let steps = f64::from(row.count);
            model.observe(&Observation {
                point: point(&key.shape(), key.hardware, f64::from(row.avg_ms)),
                ln_ms: f64::from(row.avg_ms.max(1)).ln(),
                weight: steps / (steps + STEPS_GOOD),
                belief: 1.0,
            });
        }
    }
}

/// Rows that came together, each with how many its key had before it, those among them too; `records` hold all of them. A key
/// without a cell is left out.
fn with_rows_before<'a>(records: &Index, rows: &'a [Row]) -> impl Iterator<Item = (&'a Row, u32)> {
    let mut came: HashMap<Key, u32> = HashMap::new();
    for row in rows {
        *came.entry(row.key).or_default() += 1;
    }
    let mut before: HashMap<Key, u32> = HashMap::new();
    for (key, came) in came {
        let cell = match key {
            Key::Training(key) => records.training(&key.shape(), key.hardware),
            Key::Validation(key) => records.validation(&key.shape(), key.hardware),
        };
        if let Some(cell) = cell {
            before.insert(key, cell.rows().saturating_sub(came));
        }
    }
    rows.iter().filter_map(move |row| {
        let before = before.get_mut(&row.key)?;
        *before += 1;
        Some((row, *before - 1))
    })
}

fn figures() -> Vec<Observation> {
    let rows = published::shipped_rows();
    let each = rows.iter().filter_map(|row| match row.key {
        Key::Training(key) => Some(Observation {
            point: features::of_step(&key.shape(), key.hardware, false),
            ln_ms: f64::from(row.avg_ms.max(1)).ln(),
            weight: PUBLISHED_WEIGHT,
            belief: 1.0,
        }),
        Key::Validation(_) => None,
    });
    each.collect()
}

/// Cells of training on real hardware.
fn cells(records: &Index) -> Vec<Observation> {
    let mut shelves: Vec<(Recipe, Hardware, &Shelf)> = records
        .shelves()
        .filter(|(_, hardware, shelf)| hardware.gpu.is_gpu() && !shelf.training.is_empty())
        .collect();
    // The index has no order; what is learnt must not depend on it.
    shelves.sort_by_key(|(recipe, hardware, _)| (*recipe, *hardware));
    if shelves.len() > CELLS_MAX {
        let every = shelves.len().div_ceil(CELLS_MAX);
        shelves = shelves.into_iter().step_by(every).collect();
    }
    let each = (CELLS_MAX / shelves.len().max(1)).max(1);
    let mut observations = Vec::new();
    for (_, hardware, shelf) in shelves {
        let mut cells: Vec<(&TrainingShape, &Cell)> = shelf.training.iter().collect();
        cells.sort_by_key(|(shape, cell)| (std::cmp::Reverse(cell.rows()), **shape));
        let heard = cells.into_iter().take(each);
        observations.extend(heard.filter_map(|(shape, cell)| observation(shape, hardware, cell)));
    }
    observations
}

/// The point of a record: on a host of one's own, unless it says what a published figure of exactly its key says, since
/// then somebody imported it.
fn point(shape: &TrainingShape, hardware: Hardware, mean_ms: f64) -> Point {
    let figure = published::shipped().training(shape, hardware);
    let own = figure.and_then(Cell::mean_ms) != Some(mean_ms);
    features::of_step(shape, hardware, own)
}

fn observation(shape: &TrainingShape, hardware: Hardware, cell: &Cell) -> Option<Observation> {
    // The middle run rather than the mean of all: one that spilled out of memory is many times slower.
    let ms = cell.quantile(0.5)?.max(1.0);
    let steps = cell.count() as f64 / f64::from(cell.rows().max(1));
    Some(Observation {
        point: point(shape, hardware, cell.mean_ms()?),
        ln_ms: ms.ln(),
        weight: f64::from(cell.rows().min(ROWS_MAX)) * steps / (steps + STEPS_GOOD),
        belief: 1.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{row, training_key};

    #[test]
    fn the_first_rows_of_a_key_count_however_many_come_at_once() {
        let (one, other) = (
            training_key("kolors.1.0/lora", "h100"),
            training_key("kolors.1.0/lora", "l40s"),
        );
        let known = [row(one, 100, 150), row(one, 101, 150)];
        let mut came: Vec<Row> = (0..9).map(|more| row(one, 200 + more, 150)).collect();
        came.insert(4, row(other, 300, 150));
        let mut records = Index::default();
        records.add(&known);
        records.add(&came);
        let news = with_rows_before(&records, &came).filter(|(_, before)| *before < ROWS_MAX);
        let news: Vec<u32> = news.map(|(row, _)| row.avg_ms).collect();
        assert_eq!(news, [200, 201, 300], "the third and the fourth of one");

        let mut model = shipped().expect("a model").clone();
        let point = point(&one.shape(), one.hardware, 200.0);
        let before = model.predict(&point).ms;
        observe(&mut model, &records, &came);
        assert_ne!(model.predict(&point).ms, before);
    }
}

//! Which cells are set aside: those that no difference of shape explains beside the other cells of their shelf.

use std::collections::BTreeMap;

use stepcast_records::{Cell, TrainingShape, ValidationShape};

/// With fewer cells nobody can say which one is wrong.
const CELLS_MIN: usize = 4;
/// What number formats, kernels that suit a shape badly and full memory together make of a time at the very most.
const FACTOR: f64 = 100.0;

/// A shape, as far as it says how much there is to compute.
pub(super) trait Work: Copy + Ord {
    /// What a time grows with at least as slowly as not at all, and at most as fast as with its square (attention).
    fn work(&self) -> f64;
}

impl Work for TrainingShape {
    fn work(&self) -> f64 {
        let samples = u32::from(self.batch_size) * u32::from(self.accumulation);
        f64::from(self.resolution.get()) * f64::from(samples)
    }
}

impl Work for ValidationShape {
    fn work(&self) -> f64 {
        f64::from(self.resolution.get()) * f64::from(u32::from(self.inference_steps))
    }
}

/// Moves cells between those that are served and those that are set aside.
///
/// The measure is the cell whose time per work is the median of the shelf, so that less than half of wrong cells do
/// not change the verdict. A cell comes back when its neighbours or its own new rows say that it is right after all.
pub(super) fn judge<S: Work>(served: &mut BTreeMap<S, Cell>, aside: &mut BTreeMap<S, Cell>) {
    if served.len() + aside.len() < CELLS_MIN {
        served.append(aside);
        return;
    }
    let cells = served.iter().chain(aside.iter());
    let times = cells.filter_map(|(shape, cell)| Some((shape.work(), cell.quantile(0.5)?)));
    let mut times: Vec<(f64, f64)> = times.collect();
    let per_work = |(work, ms): &(f64, f64)| ms / work;
    times.sort_unstable_by(|a, b| per_work(a).total_cmp(&per_work(b)));
    let Some(&(work, ms)) = times.get(times.len() / 2) else {
        return;
    };
    let plausible = |shape: &S, cell: &Cell| {
        let square = (shape.work() / work).powi(2);
        let (least, most) = (ms * square.min(1.0) / FACTOR, ms * square.max(1.0) * FACTOR);
        cell.quantile(0.5)
            .is_none_or(|ms| (least..=most).contains(&ms))
    };
    let all_are = served.iter().all(|(shape, cell)| plausible(shape, cell));
    if all_are && aside.is_empty() {
        return;
    }
    let mut all = std::mem::take(served);
    all.append(aside);
    for (shape, cell) in all {
        let to = if plausible(&shape, &cell) {
            &mut *served
        } else {
            &mut *aside
        };
        to.insert(shape, cell);
    }
}

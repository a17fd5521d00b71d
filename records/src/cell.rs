//! A cell: everything that is known about one key, folded from its rows in any order.

use serde::{Deserialize, Serialize};

use crate::sample::Row;

/// All rows of one key.
///
/// A mean has three significant digits, so there are fewer than 6,000 different ones and a cell stays small
/// however many rows it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The different means in milliseconds, shortest first, each with how many rows have it. Most cells have few, so
    /// that a list is smaller and quicker than a tree.
    rows_by_mean: Vec<(u32, u32)>,
    rows: u32,
    count: u64,
    /// Sum of mean times count over the rows.
    total_ms: u128,
}

impl Cell {
    /// A cell of no rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one row.
    pub fn add(&mut self, row: &Row) {
        self.add_measured(row.avg_ms, row.count);
    }

    /// Adds one measurement: a mean in milliseconds over so many steps or prompts.
    pub fn add_measured(&mut self, avg_ms: u32, count: u32) {
        self.add_rows(avg_ms, 1);
        self.count += u64::from(count);
        self.total_ms += u128::from(avg_ms) * u128::from(count);
    }

    /// The cell that [`Cell::means`], [`Cell::count`] and [`Cell::total_ms`] describe; `None` when a mean is not longer
    /// than the one before it, has no rows, or there are more rows than can be counted.
    pub fn of_means(
        means: impl IntoIterator<Item = (u32, u32)>,
        count: u64,
        total_ms: u128,
    ) -> Option<Self> {
        let rows_by_mean: Vec<(u32, u32)> = means.into_iter().collect();
        let grows = rows_by_mean.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let mut rows = 0u32;
        for &(_, of_mean) in &rows_by_mean {
            rows = rows.checked_add(of_mean).filter(|_| of_mean > 0)?;
        }
        grows.then_some(Self {
            rows_by_mean,
            rows,
            count,
            total_ms,
        })
    }

    fn add_rows(&mut self, mean: u32, rows: u32) {
        self.rows += rows;
        match self.rows_by_mean.binary_search_by_key(&mean, |pair| pair.0) {
            Ok(at) => self.rows_by_mean[at].1 += rows,
            Err(at) => self.rows_by_mean.insert(at, (mean, rows)),
        }
    }

    /// How many rows, that is contributions.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// How many steps or prompts they observed together.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The sum in milliseconds over all steps or prompts of their row's mean.
    #[must_use]
    pub const fn total_ms(&self) -> u128 {
        self.total_ms
    }

    /// Whether there are no rows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The mean in milliseconds over all steps or prompts, each weighing the same; `None` without rows.
    #[must_use]
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.total_ms as f64 / self.count as f64)
    }

    /// The mean in milliseconds that this share (0 to 1) of the rows does not exceed, each row weighing the
    /// same, interpolated between neighbours; `None` without rows.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let last = self.rows.checked_sub(1)?;
        let position = share.clamp(0.0, 1.0) * f64::from(last);
        let below = self.nth_mean(position.floor() as u32)?;
        let above = self.nth_mean(position.ceil() as u32)?;
        Some(below + (above - below) * position.fract())
    }

    /// The different means in milliseconds, each with how many rows have it, shortest first.
    pub fn means(&self) -> impl Iterator<Item = (u32, u32)> {
        self.rows_by_mean.iter().copied()
    }

    fn nth_mean(&self, index: u32) -> Option<f64> {
        let mut before = 0;
        for &(mean, rows) in &self.rows_by_mean {
            before += rows;
            if index < before {
                return Some(f64::from(mean));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(measured: &[(u32, u32)]) -> Cell {
        let mut cell = Cell::new();
        for &(avg_ms, count) in measured {
            cell.add_measured(avg_ms, count);
        }
        cell
    }

    #[test]
    fn nothing_is_known_of_no_rows() {
        let empty = Cell::new();
        assert!(empty.is_empty());
        assert_eq!((empty.mean_ms(), empty.quantile(0.5)), (None, None));
    }

    #[test]
    fn the_mean_weighs_steps_and_quantiles_weigh_rows() {
        let cell = cell(&[(1_000, 1_000), (2_000, 20), (3_000, 20)]);
        assert_eq!((cell.rows(), cell.count()), (3, 1_040));
        let mean = cell.mean_ms().expect("rows");
        assert!((mean - 1_100_000.0 / 1_040.0).abs() < 1e-9);
        let three = [0.1, 0.5, 0.9].map(|share| cell.quantile(share).expect("rows").round());
        assert_eq!(three, [1_200.0, 2_000.0, 2_800.0]);
    }

    #[test]
    fn means_that_are_none_make_no_cell() {
        assert_eq!(Cell::of_means([(2, 1), (1, 1)], 2, 3), None);
        assert_eq!(Cell::of_means([(1, 1), (1, 1)], 2, 2), None);
        assert_eq!(Cell::of_means([(1, 0)], 0, 0), None);
        assert_eq!(Cell::of_means([(1, u32::MAX), (2, 1)], 2, 2), None);
    }

    #[test]
    fn one_row_is_all_its_quantiles() {
        let cell = cell(&[(1_420, 800)]);
        assert_eq!(
            [0.1, 0.9].map(|share| cell.quantile(share)),
            [Some(1_420.0); 2]
        );
    }

    fn measured() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((1u32..=3_600_000, 2u32..=1_000), 0..40)
    }

    proptest! {
        #[test]
        fn the_order_of_rows_does_not_matter(rows in measured(), cut in 0usize..40) {
            let cut = cut.min(rows.len());
            let (head, tail) = rows.split_at(cut);
            prop_assert_eq!(cell(&[tail, head].concat()), cell(&rows));
        }

        #[test]
        fn a_cell_comes_back_from_its_means(rows in measured()) {
            let cell = cell(&rows);
            let back = Cell::of_means(cell.means(), cell.count(), cell.total_ms());
            prop_assert_eq!(back, Some(cell));
        }

        #[test]
        fn quantiles_grow_and_stay_among_the_rows(rows in measured(), a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            prop_assume!(!rows.is_empty());
            let cell = cell(&rows);
            let low = cell.quantile(a.min(b)).expect("rows");
            let high = cell.quantile(a.max(b)).expect("rows");
            prop_assert!(low <= high);
            let means = rows.iter().map(|row| f64::from(row.0));
            prop_assert!(low >= means.clone().fold(f64::INFINITY, f64::min));
            prop_assert!(high <= means.fold(0.0, f64::max));
        }
    }
}

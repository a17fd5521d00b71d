//! The small program over picks: which mixture of them needs the least time, and the prices that say so.
//!
//! It is the simplex method on as many rows as there are kinds of hardware and one more, so every step solves two systems
//! of that size afresh: exact enough, and nothing to keep up to date.

/// A mixture of picks.
pub(super) struct Master {
    capacity: Vec<f64>,
    /// What loads are counted in: the largest of the first pick, so that the program is the same for hours and milliseconds,
    /// and for a few jobs and a million.
    unit: f64,
    /// What is in the basis, in the order of the rows.
    basis: Vec<Column>,
    prices: Vec<f64>,
    /// In units.
    time: f64,
}

/// A column of the program.
#[derive(Debug, Clone, PartialEq)]
enum Column {
    /// The time that all kinds need at most.
    Time,
    /// What a kind has left of its time.
    Slack(usize),
    /// A pick, by its number, with the GPU hours it needs of each kind, in units.
    Pick(usize, Vec<f64>),
}

/// What counts as zero beside numbers of the size of 1.
const ZERO: f64 = 1e-11;

/// Steps in one call. A step without progress may happen, an endless row of them may not.
const STEPS_MAX: usize = 200;

impl Master {
    /// The mixture of one pick. Until more is found the kind that needs the longest for it has all the price.
    pub(super) fn new(capacity: &[f64], load: Vec<f64>) -> Self {
        let largest = load.iter().copied().fold(0.0, f64::max);
        let unit = if largest > 0.0 { largest } else { 1.0 };
        let load = in_units(load, unit);
        let needs = |kind: usize| load[kind] / capacity[kind].max(ZERO);
        let kinds = capacity.len();
        let tightest = (0..kinds)
            .max_by(|a, b| needs(*a).total_cmp(&needs(*b)).then(b.cmp(a)))
            .unwrap_or(0);
        let mut basis: Vec<Column> = (0..kinds)
            .filter(|kind| *kind != tightest)
            .map(Column::Slack)
            .collect();
        let mut prices = vec![0.0; kinds];
        let mut time = 0.0;
        if kinds > 0 {
            prices[tightest] = 1.0 / capacity[tightest].max(ZERO);
            time = needs(tightest);
        }
        basis.push(Column::Time);
        basis.push(Column::Pick(0, load));
        Self {
            capacity: capacity.to_vec(),
            unit,
            basis,
            prices,
            time,
        }
    }

    /// The prices at which nothing that is known is better than the mixture, and the time the mixture needs.
    pub(super) fn solve(&mut self) -> Option<(Vec<f64>, f64)> {
        for _ in 0..STEPS_MAX {
            let (prices, time) = self.priced()?;
            let negative = (0..prices.len()).find(|kind| prices[*kind] < -ZERO);
            let Some(kind) = negative else {
                let prices: Vec<f64> = prices.into_iter().map(|price| price.max(0.0)).collect();
                self.prices.clone_from(&prices);
                self.time = time;
                return Some((prices, time * self.unit));
            };
            self.swap(Column::Slack(kind))?;
        }
        None
    }

    /// Takes in a pick; the number of a pick that goes out for it, if one does.
    pub(super) fn enter(&mut self, load: Vec<f64>, number: usize) -> Option<Option<usize>> {
        let load = in_units(load, self.unit);
        match self.swap(Column::Pick(number, load))? {
            Column::Pick(number, _) => Some(Some(number)),
            Column::Time | Column::Slack(_) => Some(None),
        }
    }

    /// Calls a pick by another number.
    pub(super) fn rename(&mut self, from: usize, to: usize) {
        for column in &mut self.basis {
            if let Column::Pick(number, _) = column
                && *number == from
            {
                *number = to;
            }
        }
    }

    /// The last prices and the time of the mixture now.
    pub(super) fn best(&mut self) -> (Vec<f64>, f64) {
        match self.solve() {
            Some(found) => found,
            None => (self.prices.clone(), self.time * self.unit),
        }
    }

    /// The part of each pick in the mixture; all of the first where that cannot be told.
    pub(super) fn parts(&self, picks: usize) -> Vec<f64> {
        let mut parts = vec![0.0; picks];
        for (column, value) in self.basis.iter().zip(self.values().unwrap_or_default()) {
            if let Column::Pick(number, _) = column
                && let Some(part) = parts.get_mut(*number)
            {
                *part += value.max(0.0);
            }
        }
        let whole: f64 = parts.iter().sum();
        if whole > ZERO {
            parts.iter_mut().for_each(|part| *part /= whole);
        } else if let Some(first) = parts.first_mut() {
            *first = 1.0;
        }
        parts
    }

    /// What the rows cost at the basis: the price of each kind, and the time.
    fn priced(&self) -> Option<(Vec<f64>, f64)> {
        let rows = self.basis.len();
        let mut matrix = vec![vec![0.0; rows]; rows];
        for (row, column) in matrix.iter_mut().zip(&self.basis) {
            self.fill(column, row);
        }
        let costs = self
            .basis
            .iter()
            .map(|column| f64::from(u8::from(*column == Column::Time)));
        let duals = solved(matrix, costs.collect())?;
        let (time, kinds) = duals.split_last()?;
        Some((kinds.iter().map(|dual| -dual).collect(), *time))
    }

    /// What each column of the basis is worth.
    fn values(&self) -> Option<Vec<f64>> {
        solved(self.matrix(), self.right())
    }

    fn matrix(&self) -> Vec<Vec<f64>> {
        let rows = self.basis.len();
        let mut columns = vec![vec![0.0; rows]; rows];
        for (values, column) in columns.iter_mut().zip(&self.basis) {
            self.fill(column, values);
        }
        (0..rows)
            .map(|row| columns.iter().map(|column| column[row]).collect())
            .collect()
    }

    /// The parts of a mixture sum to one; nothing else is on the right.
    fn right(&self) -> Vec<f64> {
        let mut right = vec![0.0; self.basis.len()];
        if let Some(last) = right.last_mut() {
            *last = 1.0;
        }
        right
    }

    fn fill(&self, column: &Column, values: &mut [f64]) {
        match column {
            Column::Time => {
                for (value, gpus) in values.iter_mut().zip(&self.capacity) {
                    *value = -gpus;
                }
            }
            Column::Slack(kind) => values[*kind] = 1.0,
            Column::Pick(_, load) => {
                values[..load.len()].copy_from_slice(load);
                values[load.len()] = 1.0;
            }
        }
    }

    /// Takes a column into the basis for the one that reaches zero first, which comes out.
    fn swap(&mut self, column: Column) -> Option<Column> {
        let values = self.values()?;
        let mut entering = vec![0.0; self.basis.len()];
        self.fill(&column, &mut entering);
        let direction = solved(self.matrix(), entering)?;
        let scale = direction.iter().fold(1.0_f64, |max, d| max.max(d.abs()));
        let mut leaving: Option<(f64, usize)> = None;
        for (row, (value, change)) in values.iter().zip(&direction).enumerate() {
            // The time itself stays: it is what is sought.
            if *change <= ZERO * scale || self.basis[row] == Column::Time {
                continue;
            }
            let ratio = value.max(0.0) / change;
            if leaving.is_none_or(|(least, _)| ratio < least) {
                leaving = Some((ratio, row));
            }
        }
        let (_, row) = leaving?;
        Some(std::mem::replace(&mut self.basis[row], column))
    }
}

fn in_units(mut load: Vec<f64>, unit: f64) -> Vec<f64> {
    load.iter_mut().for_each(|hours| *hours /= unit);
    load
}

/// The solution of a system of equations; `None` if it has not exactly one.
fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let rows = right.len();
    // Rows and columns are of different sizes, hours beside parts of one: each row by its largest.
    for (row, value) in matrix.iter_mut().zip(&mut right) {
        let largest = row.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
        if largest > 0.0 {
            row.iter_mut().for_each(|x| *x /= largest);
            *value /= largest;
        }
    }
    for step in 0..rows {
        let pivot = (step..rows).max_by(|a, b| {
            let (a, b) = (matrix[*a][step].abs(), matrix[*b][step].abs());
            a.total_cmp(&b)
        })?;
        if matrix[pivot][step].abs() < 1e-14 {
            return None;
        }
        matrix.swap(step, pivot);
        right.swap(step, pivot);
        let (done, rest) = matrix.split_at_mut(step + 1);
        let pivot = &done[step];
        for (offset, row) in rest.iter_mut().enumerate() {
            let factor = row[step] / pivot[step];
            if factor != 0.0 {
                for (value, above) in row.iter_mut().zip(pivot).skip(step) {
                    *value -= factor * above;
                }
                right[step + 1 + offset] -= factor * right[step];
            }
        }
    }
    let mut found = vec![0.0; rows];
    for row in (0..rows).rev() {
        let known: f64 = (row + 1..rows).map(|c| matrix[row][c] * found[c]).sum();
        found[row] = (right[row] - known) / matrix[row][row];
    }
    Some(found)
}

//! Dense symmetric matrices of some hundreds of rows: Cholesky, solving, inverting.

/// A square matrix by rows.
#[derive(Debug, Clone)]
pub(super) struct Square {
    pub(super) size: usize,
    pub(super) cells: Vec<f64>,
}

impl Square {
    pub(super) fn zero(size: usize) -> Self {
        Self {
            size,
            cells: vec![0.0; size * size],
        }
    }

    pub(super) fn row(&self, row: usize) -> &[f64] {
        &self.cells[row * self.size..(row + 1) * self.size]
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        self.cells[row * self.size + column]
    }

    pub(super) fn add(&mut self, row: usize, column: usize, value: f64) {
        self.cells[row * self.size + column] += value;
    }

    /// Replaces a positive definite matrix by its lower Cholesky factor; `None` when it is not one.
    fn factored(mut self) -> Option<Self> {
        let size = self.size;
        for i in 0..size {
            let (above, rest) = self.cells.split_at_mut(i * size);
            let row = &mut rest[..size];
            for j in 0..i {
                let other = &above[j * size..j * size + j + 1];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            // Also refuses what is no number.
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            row[i] = pivot.sqrt();
            row[i + 1..].fill(0.0);
        }
        Some(self)
    }

    /// The inverse of a positive definite matrix; `None` when it is not one.
    pub(super) fn inverted(self) -> Option<Self> {
        let factor = self.factored()?;
        let size = factor.size;
        // Row j of `columns` is column j of the inverse of the factor, which is zero before place j.
        let mut columns = Self::zero(size);
        for j in 0..size {
            let column = &mut columns.cells[j * size..(j + 1) * size];
            column[j] = 1.0 / factor.at(j, j);
            for i in j + 1..size {
                let row = factor.row(i);
                column[i] = -dot(&row[j..i], &column[j..i]) / row[i];
            }
        }
        let mut inverse = Self::zero(size);
        for i in 0..size {
            for j in 0..=i {
                let value = dot(&columns.row(i)[i..], &columns.row(j)[i..]);
                inverse.cells[i * size + j] = value;
                inverse.cells[j * size + i] = value;
            }
        }
        Some(inverse)
    }

    /// The matrix times a vector.
    pub(super) fn times(&self, vector: &[f64]) -> Vec<f64> {
        (0..self.size)
            .map(|row| dot(self.row(row), vector))
            .collect()
    }

    /// Some rows and the same columns.
    pub(super) fn block(&self, places: &[usize]) -> Self {
        let mut block = Self::zero(places.len());
        for (i, &row) in places.iter().enumerate() {
            for (j, &column) in places.iter().enumerate() {
                block.cells[i * places.len() + j] = self.at(row, column);
            }
        }
        block
    }
}

/// The sum of products, in four strands so that a processor can take them side by side.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut strands = [0.0; 4];
    let (fours_a, fours_b) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = fours_a
        .remainder()
        .iter()
        .zip(fours_b.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in fours_a.zip(fours_b) {
        for ((strand, a), b) in strands.iter_mut().zip(a).zip(b) {
            *strand += a * b;
        }
    }
    strands.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_matrix_times_its_inverse_is_one(seed in prop::collection::vec(-2.0f64..2.0, 49)) {
            let mut matrix = Square::zero(7);
            for i in 0..7 {
                for j in 0..7 {
                    let value = dot(&seed[i * 7..i * 7 + 7], &seed[j * 7..j * 7 + 7]);
                    matrix.add(i, j, value);
                }
                matrix.add(i, i, 0.5);
            }
            let inverse = matrix.clone().inverted().expect("positive definite");
            for i in 0..7 {
                let product = matrix.times(inverse.row(i));
                for (j, value) in product.into_iter().enumerate() {
                    let one = if i == j { 1.0 } else { 0.0 };
                    prop_assert!((value - one).abs() < 1e-8, "{i} {j} {value}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_no_inverse() {
        let mut matrix = Square::zero(2);
        matrix.add(0, 0, 1.0);
        matrix.add(0, 1, 2.0);
        matrix.add(1, 0, 2.0);
        matrix.add(1, 1, 1.0);
        assert!(matrix.inverted().is_none());
    }
}

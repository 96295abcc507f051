//! The little linear algebra that is needed here: Cholesky's factor of a symmetric matrix that is positive definite.
//!
//! Matrices have some 200 rows at most, so that a few loops do what a library of linear algebra would.

/// The lower factor `L` of a matrix `L L^T`, row by row; row `i` has `i + 1` entries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cholesky {
    rows: Vec<Vec<f64>>,
}

/// The sum of products of two lists, as far as both reach.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let length = a.len().min(b.len());
    let (a, b) = (a.get(..length), b.get(..length));
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let (a4, a_rest) = a.as_chunks::<4>();
    let (b4, b_rest) = b.as_chunks::<4>();
    // Four sums at once: one alone would wait for each addition. Written out, since an iterator within the loop costs
    // more than its products.
    let [mut s0, mut s1, mut s2, mut s3] = [0.0; 4];
    for ([a0, a1, a2, a3], [b0, b1, b2, b3]) in a4.iter().zip(b4) {
        s0 += a0 * b0;
        s1 += a1 * b1;
        s2 += a2 * b2;
        s3 += a3 * b3;
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        s0 += a * b;
    }
    (s0 + s1) + (s2 + s3)
}

impl Cholesky {
    /// The factor of a matrix of which the lower half is given, row `i` having at least `i + 1` entries. None where it
    /// is not positive definite.
    pub(crate) fn of(lower: &[Vec<f64>]) -> Option<Cholesky> {
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(lower.len());
        for (i, given) in lower.iter().enumerate() {
            let mut row = Vec::with_capacity(i + 1);
            for (above, value) in rows.iter().zip(given) {
                // As much of the row above as this row has so far.
                let pivot = above.last()?;
                row.push((value - dot(&row, above)) / pivot);
            }
            let square = given.get(i)? - dot(&row, &row);
            if !(square.is_finite() && square > 0.0) {
                return None;
            }
            row.push(square.sqrt());
            rows.push(row);
        }
        Some(Cholesky { rows })
    }

    /// `L^-1 b`.
    pub(crate) fn forward(&self, b: &[f64]) -> Vec<f64> {
        let mut solved = Vec::with_capacity(b.len());
        for (row, value) in self.rows.iter().zip(b) {
            let pivot = row.last().copied().unwrap_or(1.0);
            solved.push((value - dot(&solved, row)) / pivot);
        }
        solved
    }

    /// `L^-T b`.
    fn backward(&self, mut b: Vec<f64>) -> Vec<f64> {
        let mut solved = Vec::with_capacity(b.len());
        for row in self.rows.iter().rev() {
            let (Some(value), Some((pivot, row))) = (b.pop(), row.split_last()) else {
                break;
            };
            let value = value / pivot;
            for (b, l) in b.iter_mut().zip(row) {
                *b -= l * value;
            }
            solved.push(value);
        }
        solved.reverse();
        solved
    }

    /// `(L L^T)^-1 b`.
    pub(crate) fn solve(&self, b: &[f64]) -> Vec<f64> {
        self.backward(self.forward(b))
    }

    /// `(L L^T)^-1`, the lower half, row by row.
    pub(crate) fn inverse(&self) -> Vec<Vec<f64>> {
        // Columns of L^-1, from the diagonal on: column i is what is left of the solution for the i-th unit vector.
        let n = self.rows.len();
        let columns: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let mut column: Vec<f64> = Vec::with_capacity(n - i);
                for (j, row) in self.rows.iter().enumerate().skip(i) {
                    let pivot = row.last().copied().unwrap_or(1.0);
                    let unit = if j == i { 1.0 } else { 0.0 };
                    let known = row.get(i..).unwrap_or_default();
                    column.push((unit - dot(&column, known)) / pivot);
                }
                column
            })
            .collect();
        // Entry (i, j), j <= i, is the product of columns i and j from row i on.
        (columns.iter().enumerate())
            .map(|(i, column)| {
                let earlier = columns.iter().take(i + 1).enumerate();
                earlier
                    .map(|(j, other)| dot(column, other.get(i - j..).unwrap_or_default()))
                    .collect()
            })
            .collect()
    }

    /// The logarithm of the matrix's determinant.
    pub(crate) fn log_determinant(&self) -> f64 {
        let pivots = self.rows.iter().filter_map(|row| row.last());
        2.0 * pivots.map(|pivot| pivot.ln()).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Stream};

    #[test]
    fn factor_solution_and_inverse_fit_together() {
        let mut random = Random::new(1, Stream::Simulation);
        for n in [1, 2, 5, 9, 23] {
            // A A^T + I is positive definite.
            let a: Vec<Vec<f64>> = (0..n)
                .map(|_| (0..n).map(|_| random.normal()).collect())
                .collect();
            let matrix: Vec<Vec<f64>> = (0..n)
                .map(|i| {
                    (0..n)
                        .map(|j| dot(&a[i], &a[j]) + f64::from(u8::from(i == j)))
                        .collect()
                })
                .collect();
            let factor = Cholesky::of(&matrix).unwrap();
            let b: Vec<f64> = (0..n).map(|_| random.normal()).collect();
            let x = factor.solve(&b);
            let inverse = factor.inverse();
            for i in 0..n {
                assert!((dot(&matrix[i], &x) - b[i]).abs() < 1e-9);
                let row: f64 = (0..n).map(|j| inverse[i.max(j)][i.min(j)] * b[j]).sum();
                assert!((row - x[i]).abs() < 1e-9, "{n} {row} {}", x[i]);
            }
            let square: f64 = factor.forward(&b).iter().map(|value| value * value).sum();
            assert!((square - dot(&b, &x)).abs() < 1e-9);
        }
        let diagonal = Cholesky::of(&[vec![4.0], vec![0.0, 9.0]]).unwrap();
        assert!((diagonal.log_determinant() - 36_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert_eq!(Cholesky::of(&[vec![1.0], vec![1.0, 1.0]]), None);
        assert_eq!(Cholesky::of(&[vec![f64::NAN]]), None);
        assert_eq!(Cholesky::of(&[vec![1.0], vec![]]), None);
    }
}

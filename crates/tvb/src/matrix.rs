//! A small dense matrix of f64: what solvers take and return, and what is stored of them.
//!
//! Products, factorisations and eigenvalues are the linear-algebra library's, inside `solve/`; callers see this type alone.

use crate::error::{Error, Result};
use faer::{Mat, MatRef};
use std::fmt;
use std::ops::{Index, IndexMut};

/// \[n_rows, n_columns\] values of f64, indexed by (row, column).
///
/// ```
/// # use tvb::matrix::Matrix;
/// let matrix = Matrix::from_fn(2, 3, |row, column| (10 * row + column) as f64);
/// assert_eq!((matrix.n_rows(), matrix.n_columns()), (2, 3));
/// assert_eq!(matrix[(1, 2)], 12.0);
/// assert_eq!(matrix.rows().last(), Some(vec![10.0, 11.0, 12.0]));
/// ```
#[derive(Clone, PartialEq)]
pub struct Matrix(Mat<f64>);

impl Matrix {
    /// Each entry from its row and column.
    pub fn from_fn(n_rows: usize, n_columns: usize, entry: impl FnMut(usize, usize) -> f64) -> Matrix {
        Matrix(Mat::from_fn(n_rows, n_columns, entry))
    }

    /// The rows one after another, all of one length.
    ///
    /// # Errors
    /// Rejected: a row that is longer or shorter than the first, with its number.
    pub fn from_rows<R: AsRef<[f64]>>(rows: &[R]) -> Result<Matrix> {
        let n_columns = rows.first().map_or(0, |row| row.as_ref().len());
        if let Some(row) = rows.iter().position(|row| row.as_ref().len() != n_columns) {
            let found = rows[row].as_ref().len();
            return Err(Error::rejected(format!("row {row}: {n_columns} numbers expected, {found} found")));
        }
        Ok(Matrix::from_fn(rows.len(), n_columns, |i, j| rows[i].as_ref()[j]))
    }

    /// \[n_rows, n_columns\] values, row after row; zero where `values` is too short.
    pub(crate) fn of_rows(n_rows: usize, n_columns: usize, values: &[f64]) -> Matrix {
        Matrix::from_fn(n_rows, n_columns, |i, j| values.get(i * n_columns + j).copied().unwrap_or(0.0))
    }

    /// No rows and no columns: stands for a matrix that is not there.
    pub fn empty() -> Matrix {
        Matrix(Mat::new())
    }

    /// Zero everywhere.
    pub fn zeros(n_rows: usize, n_columns: usize) -> Matrix {
        Matrix(Mat::zeros(n_rows, n_columns))
    }

    /// \[n, n\] with ones on the diagonal.
    pub fn identity(n: usize) -> Matrix {
        Matrix(Mat::identity(n, n))
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.0.nrows()
    }

    /// Number of columns.
    pub fn n_columns(&self) -> usize {
        self.0.ncols()
    }

    /// The rows in order, \[n_columns\] each.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Vec<f64>> + '_ {
        (0..self.n_rows()).map(|i| (0..self.n_columns()).map(|j| self.0[(i, j)]).collect())
    }

    /// One column, \[n_rows\]. Panics past the last, as indexing does.
    pub fn column(&self, column: usize) -> &[f64] {
        self.0.col_as_slice(column)
    }

    /// The columns in order, \[n_rows\] each.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        (0..self.n_columns()).map(|column| self.column(column))
    }

    /// Whether every entry is finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.columns().all(|column| column.iter().all(|x| x.is_finite()))
    }

    /// For the linear algebra.
    pub(crate) fn view(&self) -> MatRef<'_, f64> {
        self.0.as_ref()
    }

    /// What the linear algebra made.
    pub(crate) fn of(inner: Mat<f64>) -> Matrix {
        Matrix(inner)
    }
}

impl Index<(usize, usize)> for Matrix {
    type Output = f64;

    fn index(&self, at: (usize, usize)) -> &f64 {
        &self.0[at]
    }
}

impl IndexMut<(usize, usize)> for Matrix {
    fn index_mut(&mut self, at: (usize, usize)) -> &mut f64 {
        &mut self.0[at]
    }
}

/// As a list of rows.
impl serde::Serialize for Matrix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows())
    }
}

impl<'de> serde::Deserialize<'de> for Matrix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Matrix, D::Error> {
        let rows = <Vec<Vec<f64>>>::deserialize(deserializer)?;
        Matrix::from_rows(&rows).map_err(|error| serde::de::Error::custom(error.message()))
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_those_of_the_entries() {
        let rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let mut matrix = Matrix::from_rows(&rows).unwrap();
        assert_eq!(matrix.rows().collect::<Vec<_>>(), rows);
        assert_eq!(matrix.columns().collect::<Vec<_>>(), [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]);
        assert_eq!(matrix, Matrix::from_fn(2, 3, |i, j| rows[i][j]));
        assert!(matrix.is_finite());
        assert_eq!(serde_json::to_string(&matrix).unwrap(), "[[1.0,2.0,3.0],[4.0,5.0,6.0]]");
        matrix[(1, 0)] = f64::NAN;
        assert!(!matrix.is_finite());
    }

    #[test]
    fn special_matrices() {
        assert_eq!(Matrix::identity(2).rows().collect::<Vec<_>>(), [[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(Matrix::zeros(1, 2).rows().collect::<Vec<_>>(), [[0.0, 0.0]]);
        for none in [Matrix::empty(), Matrix::from_rows::<Vec<f64>>(&[]).unwrap()] {
            assert_eq!((none.n_rows(), none.n_columns(), none.rows().len()), (0, 0, 0));
        }
        let bare = Matrix::zeros(2, 0);
        assert_eq!((bare.rows().len(), bare.columns().len()), (2, 0));
    }

    #[test]
    fn ragged_rows_are_rejected_by_number() {
        let error = Matrix::from_rows(&[vec![1.0], vec![]]).unwrap_err();
        assert_eq!(error.message(), "row 1: 1 numbers expected, 0 found");
    }
}

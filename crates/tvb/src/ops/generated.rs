//! Atoms that are made from a seed and never stored: the `random` control.
//!
//! The stored (moved) tensors stand one after another in the order in which the manifest lists them, which is the
//! base's file order when the basis was made; each is row-major. Element number x of that row, counted from 0, is row x of
//! every raw column, so value (m, x) is [`Generator`]'s, in whatever order and by whatever thread it is asked for.

use crate::error::{Error, Result};
use crate::solve::Generator;
use std::collections::HashMap;

/// More rows than any file could hold; their bytes can still be counted.
const MAX_ROWS: u64 = i64::MAX as u64 / 8;

/// The raw Gaussian columns R over named tensors.
#[derive(Clone, Debug)]
pub struct RawColumns {
    /// What makes them.
    pub generator: Generator,
    /// How many there are.
    pub n_columns: usize,
    /// Names and shapes of the tensors, in order.
    pub tensors: Vec<(String, Vec<usize>)>,
    first_rows: HashMap<String, u64>,
}

impl RawColumns {
    /// Columns over these tensors in this order.
    ///
    /// # Errors
    /// Rejected: more elements than can be counted.
    pub fn new(seed: u64, n_columns: usize, tensors: Vec<(String, Vec<usize>)>) -> Result<RawColumns> {
        let mut first_rows = HashMap::with_capacity(tensors.len());
        let mut end = 0_u64;
        for (name, shape) in &tensors {
            first_rows.insert(name.clone(), end);
            let n_rows = shape.iter().try_fold(1_u64, |product, &n| product.checked_mul(n as u64));
            end =
                n_rows.and_then(|n_rows| end.checked_add(n_rows)).filter(|&end| end <= MAX_ROWS).ok_or_else(|| {
                    Error::rejected(format!("tensor {name}: shape {shape:?} has more elements than can be counted"))
                })?;
        }
        Ok(RawColumns { generator: Generator { seed }, n_columns, tensors, first_rows })
    }

    /// The same columns over some of the tensors: those that `keep` answers true for.
    #[must_use]
    pub fn only(&self, keep: &dyn Fn(&str) -> bool) -> RawColumns {
        let tensors = self.tensors.iter().filter(|(name, _)| keep(name)).cloned().collect();
        RawColumns { tensors, ..self.clone() }
    }

    /// Bytes of one column in f32.
    pub fn n_bytes(&self) -> u64 {
        4 * self.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum::<u64>()
    }

    /// Row number, over all tensors, of the first element of one of them.
    ///
    /// # Errors
    /// Rejected: no such tensor.
    pub fn first_row(&self, tensor: &str) -> Result<u64> {
        let found = self.first_rows.get(tensor).copied();
        found.ok_or_else(|| Error::rejected(format!("tensor {tensor}: not one of the basis' tensors")))
    }

    /// Σ_m weights\[k\]\[m\]·R_m for `n_rows` rows from `first_row` on, for every output k: \[n_outputs\]\[n_rows\].
    pub fn mixed(&self, first_row: u64, n_rows: usize, weights: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; n_rows]; weights.len()];
        let mut column = vec![0.0_f32; n_rows];
        for m in 0..self.n_columns {
            self.generator.fill(m, first_row, &mut column);
            for (out, weights) in out.iter_mut().zip(weights).filter(|(_, weights)| weights[m] != 0.0) {
                out.iter_mut().zip(&column).for_each(|(out, value)| *out += weights[m] * f64::from(*value));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixtures_do_not_depend_on_how_rows_are_cut() {
        let tensors = vec![("a".to_owned(), vec![3, 5]), ("b".to_owned(), vec![]), ("c".to_owned(), vec![7])];
        let raw = RawColumns::new(9, 2, tensors).unwrap();
        assert_eq!(["a", "b", "c"].map(|name| raw.first_row(name).unwrap()), [0, 15, 16]);
        assert!(raw.first_row("d").is_err());
        let weights = [vec![1.0, 0.0], vec![0.5, -2.0]];
        let whole = raw.mixed(0, 23, &weights);
        for (first, n_rows) in [(0, 15), (15, 1), (16, 7), (3, 11)] {
            let part = raw.mixed(first as u64, n_rows, &weights);
            assert_eq!(part[0], whole[0][first..first + n_rows]);
            assert_eq!(part[1], whole[1][first..first + n_rows]);
        }
        for shape in [vec![usize::MAX, 2], vec![usize::MAX], vec![1 << 61], vec![1 << 31, 1 << 31]] {
            assert!(RawColumns::new(0, 1, vec![("a".into(), shape.clone())]).is_err(), "{shape:?}");
        }
        let vast = RawColumns::new(0, 1, vec![("a".into(), vec![1 << 59])]).unwrap();
        assert_eq!(vast.n_bytes(), 1 << 61);
    }
}

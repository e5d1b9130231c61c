//! Where singular values of several matrices are cut: each at one rank, or all together where enough of the energy is kept.

use crate::error::{Error, Result};

/// How much is kept of several matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cut {
    /// Everything: each matrix at its own rank.
    #[default]
    Lossless,
    /// Each at this rank at most.
    Rank(usize),
    /// This share of the squared norm of all together, in as few numbers as that takes.
    Energy(f64),
}

/// What is known of one matrix when it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cuttable<'a> {
    /// Its singular values, largest first.
    pub values: &'a [f64],
    /// Numbers that each rank takes: rows and columns together.
    pub n_numbers: usize,
}

impl Cut {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// Usage: a rank of 0, a share that is not above 0 and at most 1.
    pub fn check(self) -> Result<()> {
        match self {
            Cut::Rank(0) => Err(Error::usage("a rank of 1 or more expected, 0 found")),
            Cut::Energy(share) if !(share > 0.0 && share <= 1.0) => {
                Err(Error::usage(format!("a share of the edit's energy above 0 and at most 1 expected, {share} found")))
            }
            _ => Ok(()),
        }
    }

    /// The rank at which each matrix is cut; 0 for one that is left out.
    pub fn ranks(self, matrices: &[Cuttable<'_>]) -> Vec<usize> {
        match self {
            Cut::Lossless => matrices.iter().map(|matrix| matrix.values.len()).collect(),
            Cut::Rank(rank) => matrices.iter().map(|matrix| matrix.values.len().min(rank)).collect(),
            Cut::Energy(share) => by_energy(matrices, share),
        }
    }
}

/// Takes directions by their energy a number, most first, until the share is reached.
fn by_energy(matrices: &[Cuttable<'_>], share: f64) -> Vec<usize> {
    let mut directions: Vec<(f64, f64, usize)> = Vec::new();
    for (number, matrix) in matrices.iter().enumerate() {
        let each = matrix.values.iter().map(|value| value * value);
        directions.extend(each.map(|energy| (energy / matrix.n_numbers.max(1) as f64, energy, number)));
    }
    let total: f64 = directions.iter().map(|(_, energy, _)| energy).sum();
    // Stable: of equal ones the first matrix's, and in one matrix in their order.
    directions.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut ranks = vec![0; matrices.len()];
    let mut left = total * (1.0 - share);
    // From the end: what may go is small, and small numbers are added up without those that are large.
    let mut n_kept = directions.len();
    while let Some((_, energy, _)) = directions.get(n_kept.wrapping_sub(1)).filter(|(_, energy, _)| *energy <= left) {
        left -= energy;
        n_kept -= 1;
    }
    for (_, _, number) in directions.iter().take(n_kept) {
        ranks[*number] += 1;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(cut: Cut, values: [&[f64]; 3]) -> Vec<usize> {
        cut.ranks(&values.map(|values| Cuttable { values, n_numbers: 10 }))
    }

    #[test]
    fn a_rank_is_for_each_and_energy_for_all_together() {
        let values: [&[f64]; 3] = [&[3.0, 1.0], &[], &[2.0, 1.0, 0.5]];
        assert_eq!(ranks(Cut::Lossless, values), [2, 0, 3]);
        assert_eq!(ranks(Cut::Rank(2), values), [2, 0, 2]);
        // Squares 9, 1 | 4, 1, 0.25 of 15.25.
        for (share, expected) in
            [(1.0, [2, 0, 3]), (0.98, [2, 0, 2]), (0.9, [2, 0, 1]), (0.85, [1, 0, 1]), (0.5, [1, 0, 0])]
        {
            assert_eq!(ranks(Cut::Energy(share), values), expected, "{share}");
        }
    }

    #[test]
    fn of_the_same_energy_the_smaller_matrix_is_kept() {
        let matrix = |n_numbers| Cuttable { values: &[1.0], n_numbers };
        assert_eq!(Cut::Energy(0.5).ranks(&[matrix(100), matrix(10)]), [0, 1]);
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for cut in [Cut::Rank(0), Cut::Energy(0.0), Cut::Energy(1.1), Cut::Energy(f64::NAN), Cut::Energy(-1.0)] {
            assert_eq!(cut.check().unwrap_err().kind(), crate::ErrorKind::Usage, "{cut:?}");
        }
        for cut in [Cut::Lossless, Cut::Rank(1), Cut::Energy(1.0)] {
            cut.check().unwrap();
        }
    }
}

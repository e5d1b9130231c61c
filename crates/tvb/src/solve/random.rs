//! `random`: orthonormal Gaussian vectors that know nothing of the tasks. A control: what M directions are worth when
//! they are not chosen. They are not in the span of the tasks, so the Gram matrix alone does not tell their weights.
//!
//! Value (m, x), atom m at global row x, depends on the seed, m and x only: ChaCha8 with the seed as key, stream m, and
//! the Box–Muller pair of rows (x & !1, x | 1) from the two 32-bit words at those positions. Any chunk of rows can be
//! made on its own, in any order, so nothing is stored.
//!
//! The raw columns R are nearly orthogonal, not exactly. One streaming pass beside the Gram pass sums RᵀR [M, M] and
//! RᵀV [M, T]; then, with RᵀR = LLᵀ, the atoms are R·L^{-T} and their weights W = L^{-1}·RᵀV. Arithmetic goes straight
//! to the raw columns: weights w over atoms are weights L^{-T}·w over R ([`Generated::raw_weights`]).

use super::checks::check_atoms;
use super::coefficients::{Coefficients, Generated};
use super::{Coordinates, Gram, linear};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use faer::linalg::solvers::Llt;
use faer::{Mat, Side};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The raw Gaussian columns of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generator {
    /// What they are made from.
    pub seed: u64,
}

impl Generator {
    /// Fills `out` with rows `first_row..` of raw column `atom`: independent N(0, 1) values.
    pub fn fill(&self, atom: usize, first_row: u64, out: &mut [f32]) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(atom as u64);
        rng.set_word_pos(u128::from(first_row & !1));
        let mut row = 0;
        if first_row & 1 == 1 && !out.is_empty() {
            out[0] = pair(&mut rng).1;
            row = 1;
        }
        while row < out.len() {
            let (even, odd) = pair(&mut rng);
            out[row] = even;
            if let Some(place) = out.get_mut(row + 1) {
                *place = odd;
            }
            row += 2;
        }
    }
}

/// Box–Muller: two independent normal values from the next two words.
fn pair(rng: &mut ChaCha8Rng) -> (f32, f32) {
    let unit = 1.0 / 4_294_967_296.0;
    // In (0, 1], so that the logarithm is finite.
    let radius = (-2.0 * ((f64::from(rng.next_u32()) + 1.0) * unit).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * f64::from(rng.next_u32()) * unit).sin_cos();
    ((radius * cos) as f32, (radius * sin) as f32)
}

/// Coefficients of random atoms from what one pass over the data summed up: `raw_gram` = RᵀR [M, M] and `raw_task` = RᵀV
/// [M, T] for the raw columns R of `seed`.
///
/// # Errors
/// Rejected where the shapes or values do not fit, or where the columns are dependent, as they are when there are fewer
/// parameters than atoms.
pub fn random_coefficients(gram: &Gram, seed: u64, raw_gram: &Matrix, raw_task: &Matrix) -> Result<Coefficients> {
    let (n_tasks, n_atoms) = (gram.n_tasks(), raw_gram.n_rows());
    check_atoms(n_atoms, n_tasks)?;
    if raw_gram.n_columns() != n_atoms || (raw_task.n_rows(), raw_task.n_columns()) != (n_atoms, n_tasks) {
        return Err(Error::rejected(format!(
            "random: products are {} x {} and {} x {}: expected {n_atoms} x {n_atoms} and {n_atoms} x {n_tasks}",
            raw_gram.n_rows(),
            raw_gram.n_columns(),
            raw_task.n_rows(),
            raw_task.n_columns()
        )));
    }
    let factor = Llt::new(raw_gram.view(), Side::Lower).map_err(|_| {
        Error::rejected(format!("random: {n_atoms} random columns are dependent: expected more parameters than atoms"))
    })?;
    let mut mix = Mat::<f64>::identity(n_atoms, n_atoms);
    factor.L().transpose().solve_upper_triangular_in_place(&mut mix);
    let decode = Matrix::of(linear::product(mix.transpose(), raw_task.view()));
    if !decode.is_finite() {
        return Err(Error::rejected("random: products with the tasks are not finite"));
    }
    Ok(Coefficients {
        method: "random",
        n_atoms,
        balance: false,
        coordinates: Coordinates::Convex,
        encode: Matrix::zeros(n_tasks, 0),
        decode,
        in_sum: vec![true; n_atoms],
        generated: Some(Generated { seed, mix: Matrix::of(mix) }),
        notes: vec!["random atoms are made again from their seed and never stored".to_owned()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_chunk_of_rows_is_the_same_rows() {
        let generator = Generator { seed: 5 };
        let mut whole = vec![0.0; 101];
        generator.fill(3, 0, &mut whole);
        for (first, len) in [(0, 101), (1, 1), (1, 2), (7, 30), (50, 51), (100, 1), (64, 0)] {
            let mut part = vec![0.0; len];
            generator.fill(3, first as u64, &mut part);
            assert_eq!(part, whole[first..first + len], "rows {first}..{}", first + len);
        }
        let mut other = vec![0.0; 101];
        generator.fill(4, 0, &mut other);
        assert!(other.iter().zip(&whole).all(|(a, b)| a != b));
    }

    #[test]
    fn values_are_standard_normal_and_streams_independent() {
        let n = 20_000;
        let columns: Vec<Vec<f32>> = (0..3)
            .map(|m| {
                let mut out = vec![0.0; n];
                Generator { seed: 1 }.fill(m, 1 << 40, &mut out);
                out
            })
            .collect();
        let mean = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        for a in &columns {
            // Standard errors: 0.007 for the mean, 0.01 for the square, 0.07 for the fourth power.
            assert!(mean(&|i| f64::from(a[i])).abs() < 0.03);
            assert!((mean(&|i| f64::from(a[i]).powi(2)) - 1.0).abs() < 0.04);
            assert!((mean(&|i| f64::from(a[i]).powi(4)) - 3.0).abs() < 0.3);
            // Neighbouring rows share their two words but not their values.
            assert!(mean(&|i| f64::from(a[i]) * f64::from(a[i ^ 1])).abs() < 0.03);
        }
        assert!(mean(&|i| f64::from(columns[0][i]) * f64::from(columns[1][i])).abs() < 0.03);
    }
}

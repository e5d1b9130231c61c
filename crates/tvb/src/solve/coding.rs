//! What coding adds to atoms, before anything is coded.
//!
//! A coded atom comes back as s + e, with noise e that has nothing to do with s: ‖e‖² ≈ ρ‖s‖², ρ a constant of the rate
//! ([`Rate::noise`]). The noise of two atoms has something in common where the atoms are alike (`alike.rs`): C \[M, M\] are its
//! inner products. K orthonormal directions q_k over the atoms are *kept*: Σ_m q_mk·e_m is coded once more, as a shared
//! column, and given back to every atom it came from. That column is coded for the least error: it comes back shrunk to 1 − d
//! of itself, with noise d(1 − d) beside it, d what its rate loses ([`Rate::distortion`]). So an edit of weights w over the
//! atoms has the noise
//!
//! uᵀCu + d(1 − d)·Σ_k (q_kᵀw)²·q_kᵀCq_k with u = w − (1 − d)·QQᵀw
//!
//! For atoms of one length that have nothing in common and one kept sum this is ρ(g(1 − 2/T) + ḡ/T) + dρḡ/T for a single task,
//! g = ‖s‖² over the coded tensors. The few tensors that are not coded are stored in bf16.
//!
//! It takes what a shared column codes for Gaussian. That is not so for sums of few atoms: what little noise they have is up to a sixth
//! more or a tenth less. Nor for many atoms that are much alike, whose errors add up where all are large: half alike, 256 of
//! them leave a quarter of it at 3 bits. At a quarter of a bit a kept sum is half lines that were coded and half lines that
//! were not: its noise is three to six times what is predicted.
//!
//! Where tasks join, the shared columns go on from what they decode to, and are coded once more; where one leaves without its original,
//! its row of Q goes and what it lacked stays in them. What shared column k is off by is then a squared length ε_k that is added up from
//! time to time, and the noise is
//!
//! uᵀCu + Σ_k (q_kᵀw)²·ε_k with u = w − QQᵀw
//!
//! with a Q whose columns need not be orthonormal any more.

use super::alike::Alike;
use super::assess::Fidelity;
use super::weights::solve_normal;
use crate::matrix::Matrix;
use tvb_kernels::Rate;

/// Mean square of bf16's relative rounding error: 2^-18/3 for mantissas of 1, less for larger ones.
pub(crate) const BF16_NOISE: f64 = 6.9e-7;
/// A direction whose rest is below this part of its length is one of those before it.
const DEPENDENT: f64 = 1e-9;

/// A row of Q that is off by more than this is another one.
const OUTSIDE: f64 = 1e-6;

/// How atoms are coded.
#[derive(Clone, Debug, PartialEq)]
pub struct Coding {
    /// Of the atoms' own columns.
    pub rate: Rate,
    /// Of the shared columns.
    pub kept_rate: Rate,
    /// Q \[M, K\]: orthonormal directions over the atoms, one for each shared column; no columns where nothing is kept.
    pub kept: Matrix,
    /// Where the signs of the rotation come from.
    pub seed: u64,
    /// \[K\]: the squared length of what each shared column is off by, where tasks have joined or left since it was made first; nothing
    /// where it is what its code loses.
    pub kept_errors: Vec<f64>,
}

impl Coding {
    /// Keeps the edits of these weights over `n_atoms` atoms; what of them depends on those before is kept already.
    pub fn new(rate: Rate, kept_rate: Rate, n_atoms: usize, edits: &[Vec<f64>], seed: u64) -> Coding {
        let mut directions: Vec<Vec<f64>> = Vec::new();
        for edit in edits {
            let mut rest = edit.clone();
            // Twice is enough: what is left of the first round's rounding goes in the second.
            for _ in 0..2 {
                for direction in &directions {
                    let along = dot(direction, &rest);
                    rest.iter_mut().zip(direction).for_each(|(rest, direction)| *rest -= along * direction);
                }
            }
            let (length, whole) = (dot(&rest, &rest).sqrt(), dot(edit, edit).sqrt());
            if length > DEPENDENT * whole {
                directions.push(rest.iter().map(|rest| rest / length).collect());
            }
        }
        let kept = Matrix::from_fn(n_atoms, directions.len(), |m, k| directions[k][m]);
        Coding { rate, kept_rate, kept, seed, kept_errors: Vec::new() }
    }

    /// K, the shared columns.
    pub fn n_kept(&self) -> usize {
        self.kept.n_columns()
    }

    /// Weights over the atoms \[M\] as weights over their columns and the shared ones \[M + K\].
    pub fn column_weights(&self, weights: &[f64]) -> Vec<f64> {
        let along = (0..self.n_kept()).map(|k| self.along(k, weights));
        weights.iter().copied().chain(along).collect()
    }

    /// R [K, K'], how much of each shared column goes into each of `now`'s, so that these keep what they are to keep of the atoms that
    /// were there: the first rows of `now`'s Q are Q·R. `None` where they are not in the span of Q: what they lack was not kept.
    pub fn carried_into(&self, now: &Coding) -> Option<Matrix> {
        let (n_old, n_kept, n_now) = (self.kept.n_rows(), self.n_kept(), now.n_kept());
        if n_kept == 0 {
            let has_old = (0..n_now).any(|k| now.kept.column(k).iter().take(n_old).any(|weight| *weight != 0.0));
            return (!has_old).then(|| Matrix::zeros(0, n_now));
        }
        let products = |other: &Matrix| {
            Matrix::from_fn(n_kept, other.n_columns(), |j, k| {
                (0..n_old).map(|t| self.kept[(t, j)] * other[(t, k)]).sum()
            })
        };
        // Where atoms have left, what is left of Q's columns is not orthonormal.
        let among = products(&self.kept);
        let carried = Matrix::of(solve_normal(among.view(), products(&now.kept).view()));
        let is_made = |t: usize, k: usize| {
            let made: f64 = (0..n_kept).map(|j| self.kept[(t, j)] * carried[(j, k)]).sum();
            (now.kept[(t, k)] - made).abs() < OUTSIDE
        };
        (0..n_old).all(|t| (0..n_now).all(|k| is_made(t, k))).then_some(carried)
    }

    /// \[K'\]: the squared length of what shared columns are off by that go on from these, R \[K, K'\], and whose codes lose `lost`
    /// \[K'\]: what they go on from is off already, and a code's error has nothing to do with that.
    pub fn carried_errors(&self, sizes: &AtomSizes, carried: &Matrix, lost: &[f64]) -> Vec<f64> {
        let errors = self.kept_errors(sizes);
        let of = |(k, lost): (usize, &f64)| {
            lost + errors.iter().enumerate().map(|(j, error)| carried[(j, k)].powi(2) * error).sum::<f64>()
        };
        lost.iter().enumerate().map(of).collect()
    }

    /// The same without some of the atoms: those in `left`, by number, are the ones that stay. What the others lacked stays in the shared
    /// columns.
    #[must_use]
    pub fn without(&self, sizes: &AtomSizes, left: &[usize]) -> Coding {
        let mut kept_errors = self.kept_errors(sizes);
        let all = self.errors(sizes);
        let gone: Vec<usize> = (0..sizes.coded.len()).filter(|m| !left.contains(m)).collect();
        for (k, error) in kept_errors.iter_mut().enumerate() {
            for &i in &gone {
                *error += gone.iter().map(|&j| self.kept[(i, k)] * all.shared[(i, j)] * self.kept[(j, k)]).sum::<f64>();
            }
            *error = error.max(0.0);
        }
        let kept = Matrix::from_fn(left.len(), self.n_kept(), |m, k| self.kept[(left[m], k)]);
        Coding { kept, kept_errors, ..self.clone() }
    }

    fn along(&self, k: usize, weights: &[f64]) -> f64 {
        weights.iter().enumerate().map(|(m, weight)| self.kept[(m, k)] * weight).sum()
    }

    /// The squared length of the noise in an edit of `weights` \[M\] over atoms of these sizes.
    pub fn noise(&self, weights: &[f64], sizes: &AtomSizes) -> f64 {
        self.errors(sizes).noise(weights)
    }

    /// \[K\]: the squared length of what each shared column is off by, for atoms of these sizes.
    pub fn kept_errors(&self, sizes: &AtomSizes) -> Vec<f64> {
        if !self.kept_errors.is_empty() {
            return self.kept_errors.clone();
        }
        let (errors, lost) = (self.errors(sizes), self.kept_rate.distortion());
        (0..self.n_kept()).map(|k| lost * errors.kept[(k, k)]).collect()
    }

    /// The errors of atoms of these sizes, for many edits.
    pub fn errors<'a>(&'a self, sizes: &'a AtomSizes) -> Errors<'a> {
        let alike = Alike::of(self.rate);
        let n = sizes.coded.len();
        let shared = Matrix::from_fn(n, n, |i, j| {
            let length = (sizes.coded[i] * sizes.coded[j]).sqrt();
            if i == j { self.rate.noise() * length } else { length * alike.covariance(sizes.alike[(i, j)]) }
        });
        let with_kept =
            Matrix::from_fn(n, self.n_kept(), |m, k| (0..n).map(|j| shared[(m, j)] * self.kept[(j, k)]).sum());
        let kept = Matrix::from_fn(self.n_kept(), self.n_kept(), |k, l| {
            (0..n).map(|m| self.kept[(m, k)] * with_kept[(m, l)]).sum()
        });
        Errors { coding: self, sizes, shared, with_kept, kept }
    }
}

/// What the errors of coded atoms have in common.
#[derive(Clone, Debug)]
pub struct Errors<'a> {
    coding: &'a Coding,
    sizes: &'a AtomSizes,
    /// C \[M, M\].
    shared: Matrix,
    /// CQ \[M, K\].
    with_kept: Matrix,
    /// QᵀCQ \[K, K\].
    kept: Matrix,
}

impl Errors<'_> {
    /// The squared length of the noise in an edit of `weights` \[M\].
    pub fn noise(&self, weights: &[f64]) -> f64 {
        let Errors { coding, sizes, shared, with_kept, kept } = self;
        let n_kept = coding.n_kept();
        let along: Vec<f64> = (0..n_kept).map(|k| coding.along(k, weights)).collect();
        // Where tasks have joined or left, what a shared column is off by is known, and has little to do with what the others are.
        let has_grown = !coding.kept_errors.is_empty();
        let lost = if has_grown { 0.0 } else { coding.kept_rate.distortion() };
        let used: Vec<usize> = (0..weights.len()).filter(|&m| weights[m] != 0.0).collect();
        let mut noise = 0.0;
        for &i in &used {
            noise += used.iter().map(|&j| weights[i] * weights[j] * shared[(i, j)]).sum::<f64>();
            noise -= (0..n_kept).map(|k| 2.0 * (1.0 - lost) * weights[i] * with_kept[(i, k)] * along[k]).sum::<f64>();
            noise += BF16_NOISE * weights[i].powi(2) * sizes.raw[i];
        }
        for k in 0..n_kept {
            noise += (0..n_kept).map(|l| (1.0 - lost).powi(2) * along[k] * along[l] * kept[(k, l)]).sum::<f64>();
            noise += lost * (1.0 - lost) * along[k].powi(2) * kept[(k, k)];
            noise += along[k].powi(2) * coding.kept_errors.get(k).copied().unwrap_or(0.0);
        }
        noise.max(0.0)
    }
}

/// Squared lengths of the atoms over the tensors that are coded and over those that are not, \[M\] each.
#[derive(Clone, Debug, PartialEq)]
pub struct AtomSizes {
    /// Over the coded tensors.
    pub coded: Vec<f64>,
    /// Over the others.
    pub raw: Vec<f64>,
    /// \[M, M\]: cosines of the atoms over the coded tensors.
    pub alike: Matrix,
}

impl AtomSizes {
    /// Of atoms S = VB, from the Gram matrices of the coded tensors and of the others \[T, T\] and B \[T, M\].
    pub fn of(coded: &Matrix, raw: &Matrix, encode: &Matrix) -> AtomSizes {
        let product = |gram: &Matrix| {
            let with_tasks = super::linear::product(gram.view(), encode.view());
            super::linear::product(encode.view().transpose(), with_tasks.as_ref())
        };
        let (coded, raw) = (product(coded), product(raw));
        let n = encode.n_columns();
        let diagonal = |gram: &faer::Mat<f64>| -> Vec<f64> { (0..n).map(|m| gram[(m, m)].max(0.0)).collect() };
        let sizes = diagonal(&coded);
        let alike = Matrix::from_fn(n, n, |i, j| {
            let length = (sizes[i] * sizes[j]).sqrt();
            if length > 0.0 { coded[(i, j)] / length } else { 0.0 }
        });
        AtomSizes { raw: diagonal(&raw), coded: sizes, alike }
    }
}

impl Fidelity {
    /// ⟨e, ê⟩/‖e‖² of the edit e and what comes out as ê: 1 is right, less is shrunk.
    pub fn gain(&self) -> f64 {
        self.cosine * self.norm_ratio
    }

    /// ‖ê − gain·e‖²/‖e‖²: what came in beside the edit.
    pub fn noise(&self) -> f64 {
        (self.norm_ratio.powi(2) * (1.0 - self.cosine.powi(2))).max(0.0)
    }

    /// The same with more noise, as a part of ‖e‖².
    #[must_use]
    pub fn with_noise(self, noise: f64) -> Fidelity {
        Fidelity::of_gain(self.gain(), self.noise() + noise)
    }

    /// Of gain and noise.
    pub fn of_gain(gain: f64, noise: f64) -> Fidelity {
        let norm_ratio = (gain * gain + noise).sqrt();
        Fidelity { cosine: if norm_ratio > 0.0 { gain / norm_ratio } else { 0.0 }, norm_ratio, rounding: [0.0; 3] }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(coded: [f64; 3]) -> AtomSizes {
        AtomSizes { coded: coded.to_vec(), raw: vec![0.0; 3], alike: Matrix::identity(3) }
    }

    #[test]
    fn kept_edits_lose_only_what_their_own_column_does() {
        let edits = vec![vec![1.0, 1.0, 1.0], vec![1.0, 1.0, 0.0], vec![2.0, 2.0, 1.0]];
        let coding = Coding::new(Rate::Signs, Rate::Eight, 3, &edits, 1);
        // The third is a mixture of the first two.
        assert_eq!(coding.n_kept(), 2);
        let sizes = sizes([1.0, 2.0, 3.0]);
        let kept = coding.noise(&edits[2], &sizes);
        let apart = coding.noise(&[1.0, -1.0, 0.0], &sizes);
        // ρ·Σ w²g without.
        assert!(kept < 0.05 * Rate::Signs.noise() * 15.0, "{kept}");
        assert!((apart - Rate::Signs.noise() * 3.0).abs() < 1e-12, "{apart}");
        let weights = coding.column_weights(&[1.0, 1.0, 1.0]);
        assert!((weights[3] - 3f64.sqrt()).abs() < 1e-12 && weights[4].abs() < 1e-12, "{weights:?}");
    }

    #[test]
    fn tasks_have_the_noise_that_the_published_formula_gives() {
        // ρ(g(1 − 2/T) + ḡ/T) + dρḡ/T for one task of T with the plain sum kept.
        let coding = Coding::new(Rate::Signs, Rate::Eight, 3, &[vec![1.0; 3]], 1);
        let (g, mean, rho, d) = (2.0, 2.0, Rate::Signs.noise(), Rate::Eight.distortion());
        let expected = rho * (g * (1.0 - 2.0 / 3.0) + mean / 3.0) + d * rho * mean / 3.0;
        let found = coding.noise(&[0.0, 1.0, 0.0], &sizes([1.0, 2.0, 3.0]));
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        let nothing = Coding::new(Rate::Signs, Rate::Eight, 3, &[], 1);
        assert_eq!(nothing.noise(&[0.0, 1.0, 0.0], &sizes([1.0, 2.0, 3.0])), 2.0 * rho);
    }

    #[test]
    fn gain_and_noise_make_a_fidelity() {
        let found = Fidelity::of_gain(1.0, 0.5625);
        assert!((found.cosine - 0.8).abs() < 1e-12 && (found.norm_ratio - 1.25).abs() < 1e-12);
        assert!((found.gain() - 1.0).abs() < 1e-12 && (found.noise() - 0.5625).abs() < 1e-12);
        let more = found.with_noise(0.1);
        assert!((more.gain() - 1.0).abs() < 1e-12 && (more.noise() - 0.6625).abs() < 1e-12);
    }
}

//! How much the errors of two coded atoms have in common when the atoms themselves are alike.
//!
//! Rotated elements of two atoms with cosine c are close to jointly Gaussian with correlation c, and both are coded by the same
//! function Q. With Q = Σ a_k·h_k over the orthonormal Hermite polynomials, unbiased so that a_1 = 1, the errors y − Q(y) have the
//! covariance Σ_{k ≥ 3} a_k²·c^k (Mehler); k is odd since Q is. For signs of a part p of the lines this is asin(c)/p − c.

use tvb_kernels::Rate;

/// Polynomials up to this degree; the rest of the energy counts as shared by equals alone.
const DEGREES: usize = 61;

/// The covariance of two atoms' errors, by their cosine.
#[derive(Clone, Debug)]
pub(super) struct Alike {
    kind: Kind,
    /// Brings the covariance of equals to the rate's measured noise.
    unit: f64,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Signs of this part of the lines.
    Signs(f64),
    /// a_k² for k = 3, 5, …, and what is left of the energy.
    Levels(Vec<f64>, f64),
}

impl Alike {
    pub(super) fn of(rate: Rate) -> Alike {
        let kind = match rate {
            Rate::Quarter => Kind::Signs(0.25),
            Rate::Half => Kind::Signs(0.5),
            Rate::Signs => Kind::Signs(1.0),
            _ => levels(rate.levels()),
        };
        let unit = rate.noise() / kind.covariance(1.0);
        Alike { kind, unit }
    }

    /// For atoms of length 1 with this cosine; ρ for equals.
    pub(super) fn covariance(&self, cosine: f64) -> f64 {
        self.unit * self.kind.covariance(cosine.clamp(-1.0, 1.0))
    }
}

impl Kind {
    fn covariance(&self, c: f64) -> f64 {
        match self {
            Kind::Signs(part) => c.asin() / part - c,
            Kind::Levels(squares, rest) => {
                // By Horner, highest first; nearly all of the rest is of much higher degrees.
                let sum = squares.iter().rev().fold(0.0, |sum, square| sum * c * c + square);
                sum * c.powi(3) + if c.abs() >= 1.0 { rest * c } else { 0.0 }
            }
        }
    }
}

/// Magnitudes with bounds half-way between them.
fn levels(levels: &[f32]) -> Kind {
    let levels: Vec<f64> = levels.iter().map(|&level| f64::from(level)).collect();
    let bounds: Vec<f64> = levels.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    // E[Q·h_k] = 2·Σ_bounds (step at the bound)·φ·h_{k-1}/√k, the bound at 0 with half of its two-sided step.
    let steps: Vec<(f64, f64)> = std::iter::once((0.0, levels[0]))
        .chain(bounds.iter().zip(levels.windows(2)).map(|(&bound, pair)| (bound, pair[1] - pair[0])))
        .collect();
    let mut coefficients = vec![0.0; DEGREES + 1];
    for (bound, step) in steps {
        let density = (-bound * bound / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (mut before, mut now) = (0.0, 1.0);
        for (k, coefficient) in coefficients.iter_mut().enumerate().skip(1) {
            *coefficient += 2.0 * step * density * now / (k as f64).sqrt();
            let next = (bound * now - (k as f64 - 1.0).sqrt() * before) / (k as f64).sqrt();
            (before, now) = (now, next);
        }
    }
    let unbiased = 1.0 / coefficients[1];
    let squares: Vec<f64> = coefficients.iter().skip(3).step_by(2).map(|a| (a * unbiased).powi(2)).collect();
    // E[Q²] of the codebook alone.
    let energy: f64 = {
        let ends = bounds.iter().copied().chain([f64::INFINITY]);
        let starts = std::iter::once(0.0).chain(bounds.iter().copied());
        let mass = |from: f64, to: f64| upper(from) - upper(to);
        2.0 * levels.iter().zip(starts.zip(ends)).map(|(level, (from, to))| level * level * mass(from, to)).sum::<f64>()
    };
    let rest = (energy * unbiased * unbiased - 1.0 - squares.iter().sum::<f64>()).max(0.0);
    Kind::Levels(squares, rest)
}

/// The unit Gaussian's mass above x ≥ 0, by Simpson's rule: once for each level of a codebook.
fn upper(x: f64) -> f64 {
    const N: usize = 200;
    const FAR: f64 = 12.0;
    if x >= FAR {
        return 0.0;
    }
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let step = (FAR - x) / N as f64;
    let weight = |i: usize| if i == 0 || i == N { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
    (0..=N).map(|i| weight(i) * density(x + step * i as f64)).sum::<f64>() * step / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_share_all_of_their_noise_and_strangers_none() {
        for rate in Rate::ALL {
            let alike = Alike::of(rate);
            assert!((alike.covariance(1.0) / rate.noise() - 1.0).abs() < 1e-12, "{}", rate.name());
            assert_eq!(alike.covariance(0.0), 0.0);
            assert!((alike.covariance(0.4) + alike.covariance(-0.4)).abs() < 1e-15);
            // A fit of its own to each block aside, the codebook has the noise that was measured.
            assert!((0.95..1.06).contains(&alike.unit), "{}: {}", rate.name(), alike.unit);
        }
    }

    #[test]
    fn covariances_are_those_of_coded_gaussians() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut gaussian = || (-2.0 * (1.0 - next()).ln()).sqrt() * (std::f64::consts::TAU * next()).cos();
        for (rate, cosine) in [(Rate::Three, 0.6), (Rate::Four, 0.8), (Rate::Eight, 0.9)] {
            let levels: Vec<f64> = rate.levels().iter().map(|&level| f64::from(level)).collect();
            let quantise = |y: f64| {
                let nearest = levels.iter().min_by(|a, b| (y.abs() - *a).abs().total_cmp(&(y.abs() - *b).abs()));
                nearest.copied().unwrap_or(0.0).copysign(y)
            };
            let pairs: Vec<(f64, f64)> = (0..400_000)
                .map(|_| {
                    let (a, b) = (gaussian(), gaussian());
                    (a, cosine * a + (1.0 - cosine * cosine).sqrt() * b)
                })
                .collect();
            let n = pairs.len() as f64;
            let unbiased = n / pairs.iter().map(|(a, _)| a * quantise(*a)).sum::<f64>();
            let error = |y: f64| y - unbiased * quantise(y);
            let found = pairs.iter().map(|(a, b)| error(*a) * error(*b)).sum::<f64>() / n;
            let expected = Alike::of(rate).covariance(cosine);
            assert!((found - expected).abs() < 0.02 * rate.noise(), "{}: {found} {expected}", rate.name());
        }
    }
}

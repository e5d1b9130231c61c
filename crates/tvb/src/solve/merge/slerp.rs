//! On a sphere: between two vectors, or among several.

use super::products::{Mix, Of, Products};
use crate::error::{Error, Result};

/// Cosines beyond this are as good as a line (mergekit's slerp).
const COSINE_OF_A_LINE: f64 = 0.9995;
/// Norms below these are taken for nothing.
const LEAST_NORM: f64 = 1e-8;
const LEAST_NUSLERP_NORM: f64 = 1e-7;
/// A sine below this is of a line (nuslerp).
const LEAST_SINE: f64 = 1e-8;
/// Weights that sum to less are taken for halves (nuslerp).
const LEAST_WEIGHT: f64 = 1e-6;

/// From the base (t = 0) to the one model (t = 1), along the sphere (Shoemake 1985).
///
/// # Errors
/// Usage: other than one model.
pub fn slerp(products: &Products, t: f64) -> Result<Mix> {
    if products.n_tasks() != 1 {
        return Err(Error::usage(format!("slerp: one model beside the base expected, {} found", products.n_tasks())));
    }
    let (a, b) = (Mix::base(1), products.vector(0, Of::Models));
    let norm = |vector: &Mix| match products.norm(vector) {
        norm if norm > LEAST_NORM => norm,
        _ => 1.0,
    };
    let cosine = (products.of(&a, &b) / (norm(&a) * norm(&b))).clamp(-1.0, 1.0);
    let (of_a, of_b) = match cosine.abs() > COSINE_OF_A_LINE {
        true => (1.0 - t, t),
        false => along(cosine.acos(), t),
    };
    let mut mix = a.times(of_a);
    mix.add(of_b, &b);
    Ok(mix)
}

/// Weights of both ends at t of an arc.
fn along(theta: f64, t: f64) -> (f64, f64) {
    (((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin())
}

/// What is between two vectors by their own inner products: the weights of both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interpolated {
    /// Of the first.
    pub first: f64,
    /// Of the second.
    pub second: f64,
}

impl Interpolated {
    /// At t of the arc between vectors with these inner products, as mergekit's nuslerp has it.
    pub fn new(aa: f64, ab: f64, bb: f64, t: f64) -> Interpolated {
        let norm = |square: f64| square.max(0.0).sqrt().max(LEAST_NUSLERP_NORM);
        let cosine = (ab / (norm(aa) * norm(bb))).clamp(-1.0, 1.0);
        let (first, second) = match 1.0 - cosine * cosine <= LEAST_SINE * LEAST_SINE {
            true => (1.0 - t, t),
            false => along(cosine.acos(), t),
        };
        Interpolated { first, second }
    }

    /// t for the weights of two models.
    pub fn t(weights: &[f64]) -> f64 {
        let sum: f64 = weights.iter().sum();
        if sum.abs() < LEAST_WEIGHT { 0.5 } else { weights.last().copied().unwrap_or(0.0) / sum }
    }
}

/// Between two task vectors, on the base; or between two models.
///
/// # Errors
/// Usage: other than two tasks.
pub fn nuslerp(products: &Products, weights: &[f64], of: Of) -> Result<Mix> {
    let [a, b] = products.vectors(of).try_into().map_err(|all: Vec<Mix>| {
        Error::usage(format!("nuslerp: two models beside the base expected, {} found", all.len()))
    })?;
    let at = Interpolated::new(products.of(&a, &a), products.of(&a, &b), products.of(&b, &b), Interpolated::t(weights));
    let mut mix = a.times(at.first);
    mix.add(at.second, &b);
    mix.base += if of == Of::Tasks { 1.0 } else { 0.0 };
    Ok(mix)
}

/// Among several: in the plane that touches the sphere at the weighted mean (C. Goddard's multi-slerp).
///
/// # Errors
/// Rejected: directions that cancel out.
pub fn multislerp(products: &Products, weights: &[f64], normalize: bool, eps: f64, of: Of) -> Result<Mix> {
    let n = products.n_tasks();
    let vectors = products.vectors(of);
    if let [only] = vectors.as_slice() {
        // Nothing to interpolate: the model as it is.
        let mut mix = only.clone();
        mix.base = 1.0;
        return Ok(mix);
    }
    let sum: f64 = weights.iter().sum();
    if normalize && sum == 0.0 {
        return Err(Error::usage("multislerp: weights with a sum other than 0 expected, 0 found"));
    }
    let weights: Vec<f64> = weights.iter().map(|weight| if normalize { weight / sum } else { *weight }).collect();
    let norms: Vec<f64> = vectors.iter().map(|vector| products.norm(vector)).collect();
    let units: Vec<Mix> = vectors.iter().zip(&norms).map(|(vector, norm)| vector.times(1.0 / (norm + eps))).collect();
    let mut mean = Mix::zero(n);
    units.iter().zip(&weights).for_each(|(unit, weight)| mean.add(*weight, unit));
    let norm = products.norm(&mean);
    let mut mix = if norm < eps {
        // What nothing moves stays as it is.
        if n != 2 && norms.iter().any(|norm| *norm > 0.0) {
            return Err(Error::rejected("multislerp: directions with a mean expected, ones that cancel out found")
                .hint("give them other weights"));
        }
        let mut line = Mix::zero(n);
        vectors.iter().zip(&weights).for_each(|(vector, weight)| line.add(*weight, vector));
        line
    } else {
        let mean = mean.times(1.0 / norm);
        let mut tangent = Mix::zero(n);
        for (unit, weight) in units.iter().zip(&weights) {
            tangent.add(*weight, unit);
            tangent.add(-weight * products.of(unit, &mean), &mean);
        }
        let length = products.norm(&tangent) + eps;
        let mut on_sphere = mean.times(length.cos());
        on_sphere.add(length.sin() / length, &tangent);
        on_sphere.times(norms.iter().zip(&weights).map(|(norm, weight)| norm * weight).sum())
    };
    mix.base += if of == Of::Tasks { 1.0 } else { 0.0 };
    Ok(mix)
}

#[cfg(test)]
mod tests {
    use super::super::products::tests::{formed, products};
    use super::*;

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    #[test]
    fn half_way_between_right_angles_is_on_the_sphere() {
        let (base, tau): (&[f64], &[f64]) = (&[1.0, 0.0], &[-1.0, 1.0]);
        let all = [base, tau];
        let half = std::f64::consts::FRAC_1_SQRT_2;
        close(&formed(&slerp(&products(&all), 0.5).unwrap(), &all), &[half, half]);
        close(&formed(&slerp(&products(&all), 0.0).unwrap(), &all), base);
        close(&formed(&slerp(&products(&all), 1.0).unwrap(), &all), &[0.0, 1.0]);
        // Nearly in line: along it.
        let near: [&[f64]; 2] = [&[1.0, 0.0], &[0.0, 0.01]];
        close(&formed(&slerp(&products(&near), 0.25).unwrap(), &near), &[1.0, 0.0025]);
        // A base of nothing.
        let none: [&[f64]; 2] = [&[0.0, 0.0], &[2.0, 0.0]];
        let made = formed(&slerp(&products(&none), 0.5).unwrap(), &none);
        close(&made, &[2.0 * (0.25 * std::f64::consts::PI).sin(), 0.0]);
    }

    #[test]
    fn task_vectors_turn_on_the_base() {
        let all: [&[f64]; 3] = [&[5.0, 5.0], &[1.0, 0.0], &[0.0, 1.0]];
        let third = (std::f64::consts::PI / 6.0).sin_cos();
        close(
            &formed(&nuslerp(&products(&all), &[2.0, 1.0], Of::Tasks).unwrap(), &all),
            &[5.0 + third.1, 5.0 + third.0],
        );
        assert_eq!(Interpolated::t(&[0.0, 0.0]), 0.5);
        let models = formed(&nuslerp(&products(&all), &[1.0, 0.0], Of::Models).unwrap(), &all);
        close(&models, &[6.0, 5.0]);
        // Lines: opposite, and nothing at all.
        let line: [&[f64]; 3] = [&[0.0], &[1.0], &[-3.0]];
        close(&formed(&nuslerp(&products(&line), &[1.0, 1.0], Of::Tasks).unwrap(), &line), &[-1.0]);
        assert!(nuslerp(&products(&all[..2]), &[1.0], Of::Tasks).is_err());
    }

    #[test]
    fn the_mean_of_equal_weights_is_the_middle() {
        let all: [&[f64]; 4] = [&[0.0; 3], &[2.0, 0.0, 0.0], &[0.0, 2.0, 0.0], &[0.0, 0.0, 2.0]];
        let made = formed(&multislerp(&products(&all), &[1.0; 3], true, 1e-12, Of::Tasks).unwrap(), &all);
        let side = 2.0 / 3f64.sqrt();
        assert!(made.iter().all(|value| (value - side).abs() < 1e-9), "{made:?}");
        let opposite: [&[f64]; 4] = [&[0.0], &[1.0], &[-1.0], &[0.0]];
        assert!(multislerp(&products(&opposite), &[1.0; 3], true, 1e-8, Of::Tasks).is_err());
    }
}

//! Weighted means of models (Model soups, arXiv 2203.05482) and weighted sums of task vectors (arXiv 2212.04089).

use super::products::Mix;
use crate::error::{Error, Result};

/// Below this a sum of weights is not divided by, as in mergekit.
const LEAST_SUM: f64 = 1e-8;

/// base_weight·θ0 + Σ weights\[t\]·θt, divided by the sum of all weights where `normalize`.
///
/// # Errors
/// Usage: weights that sum to nothing and are to be divided by.
pub fn linear(weights: &[f64], base_weight: f64, normalize: bool) -> Result<Mix> {
    let sum = weights.iter().sum::<f64>() + base_weight;
    if normalize && sum == 0.0 {
        return Err(Error::usage("a mean of models: weights with a sum other than 0 expected, 0 found")
            .hint("normalize: false takes the weights as they are"));
    }
    let divisor = if normalize { sum } else { 1.0 };
    Ok(Mix { base: sum / divisor, tasks: weights.iter().map(|weight| weight / divisor).collect() })
}

/// θ0 + λ Σ weights\[t\]·τt, the sum divided by that of the weights where `normalize`.
pub fn task_sum(weights: &[f64], lambda: f64, normalize: bool) -> Mix {
    let sum: f64 = weights.iter().sum();
    let divisor = if normalize && sum.abs() >= LEAST_SUM { sum } else { 1.0 };
    Mix { base: 1.0, tasks: weights.iter().map(|weight| lambda * weight / divisor).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_sums() {
        assert_eq!(linear(&[1.0, 3.0], 0.0, true).unwrap(), Mix { base: 1.0, tasks: vec![0.25, 0.75] });
        assert_eq!(linear(&[0.5, 0.25], 0.0, false).unwrap(), Mix { base: 0.75, tasks: vec![0.5, 0.25] });
        assert_eq!(linear(&[1.0], 1.0, true).unwrap(), Mix { base: 1.0, tasks: vec![0.5] });
        assert!(linear(&[1.0, -1.0], 0.0, true).is_err());
        assert_eq!(task_sum(&[1.0, 3.0], 0.5, true).tasks, [0.125, 0.375]);
        assert_eq!(task_sum(&[1.0, -1.0], 1.0, true).tasks, [1.0, -1.0]);
    }
}

//! What was found for one row: `tvb-zoo measure` of each rotation, against the fine-tunes, and meaned.

use super::rows::Family;
use serde::Deserialize;

/// What `tvb-zoo measure` prints of one folder.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Measured {
    pub(super) individual: Vec<f64>,
    pub(super) addition: Added,
    /// Pairs, halves.
    pub(super) subsets: Vec<Added>,
    pub(super) negated: f64,
    pub(super) control: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Added {
    pub(super) scale: f64,
    pub(super) mean: f64,
}

/// A mean over rotations, and how far the farthest lies from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Spread {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        Spread { mean, most: values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max) }
    }
}

/// One row of one scenario.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) label: String,
    pub(super) family: Family,
    pub(super) n_tasks: usize,
    /// Rotations that were meaned.
    pub(super) n_seeds: usize,
    pub(super) bytes: u64,
    /// Of the bytes of the float32 task vectors.
    pub(super) share: f64,
    /// Mean gain and mean noise of the tasks.
    pub(super) quality: Option<(f64, f64)>,
    /// Accuracy of the recovered tasks as a part of the fine-tunes', in percent: the mean, and the worst task's.
    pub(super) individual: Spread,
    pub(super) worst: Spread,
    /// Points against the originals, in the order all, pairs, halves.
    pub(super) added: Vec<Spread>,
    /// Points against the originals; lower is better.
    pub(super) negated: Spread,
    /// In percent.
    pub(super) control: Spread,
}

impl Found {
    /// Sets what was measured for each rotation against the originals.
    pub(super) fn new(
        (label, family, n_tasks): (&str, Family, usize),
        (bytes, share, quality): (u64, f64, Option<(f64, f64)>),
        measured: &[Measured],
        originals: &Measured,
    ) -> Found {
        let over = |value: fn(&[f64]) -> f64| {
            Spread::of(&measured.iter().map(|one| 100.0 * value(&kept(one, originals))).collect::<Vec<_>>())
        };
        let points = |value: &dyn Fn(&Measured) -> f64| {
            let before = value(originals);
            Spread::of(&measured.iter().map(|one| 100.0 * (value(one) - before)).collect::<Vec<_>>())
        };
        let sums = |one: &Measured, index: usize| match index {
            0 => one.addition.mean,
            _ => one.subsets.get(index - 1).map_or(f64::NAN, |added| added.mean),
        };
        Found {
            label: label.to_owned(),
            family,
            n_tasks,
            n_seeds: measured.len(),
            bytes,
            share,
            quality,
            individual: over(|kept| kept.iter().sum::<f64>() / kept.len().max(1) as f64),
            worst: over(|kept| kept.iter().copied().fold(f64::INFINITY, f64::min)),
            added: (0..=originals.subsets.len()).map(|index| points(&|one| sums(one, index))).collect(),
            negated: points(&|one| one.negated),
            control: Spread::of(&measured.iter().map(|one| 100.0 * one.control).collect::<Vec<_>>()),
        }
    }
}

/// What each task keeps of its fine-tune's accuracy.
fn kept(measured: &Measured, originals: &Measured) -> Vec<f64> {
    measured.individual.iter().zip(&originals.individual).map(|(value, own)| value / own).collect()
}

/// A measurement and what it becomes, for tests.
#[cfg(test)]
pub(super) fn example(individual: &[f64], addition: f64, negated: f64) -> Measured {
    let added = |mean| Added { scale: 1.0, mean };
    let subsets = vec![added(addition + 0.1), added(addition + 0.05)];
    Measured { individual: individual.to_vec(), addition: added(addition), subsets, negated, control: 0.9 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_meaned_after_they_are_compared() {
        let originals = example(&[0.8, 0.5], 0.7, 0.2);
        let seeds = [example(&[0.8, 0.4], 0.69, 0.21), example(&[0.8, 0.5], 0.71, 0.23)];
        let found = Found::new(("a", Family::Coded, 2), (10, 0.1, None), &seeds, &originals);
        let near = |spread: Spread, mean: f64, most: f64| {
            assert!((spread.mean - mean).abs() < 1e-9 && (spread.most - most).abs() < 1e-9, "{spread:?}");
        };
        near(found.individual, 95.0, 5.0);
        near(found.worst, 90.0, 10.0);
        near(found.added[0], 0.0, 1.0);
        near(found.negated, 2.0, 1.0);
        assert_eq!((found.added.len(), found.n_seeds), (3, 2));
    }
}

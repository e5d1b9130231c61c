//! `cluster`: spectral clustering of the cosine matrix, one atom for each cluster, the mean of its tasks.
//!
//! Affinity is the cosine where it is positive; the rows of the top eigenvectors of D^{-1/2}·A·D^{-1/2}, scaled to unit
//! length, are clustered by k-means with k-means++ starts. Every cluster keeps at least one task.

use super::gram::Spectrum;
use super::problem::{Found, Problem};
use super::{ClusterOptions, Gram, linear};
use crate::error::{Error, Result};
use faer::Mat;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MAX_ROUNDS: usize = 100;
/// Starts of k-means while they are cheap; fewer for large problems.
const STARTS: usize = 10;
/// Multiplications all starts together may cost before their number is cut.
const WORK: f64 = 4e9;

pub(super) fn solve(problem: &Problem<'_>, options: &ClusterOptions) -> Result<Found> {
    let n_tasks = problem.gram.n_tasks();
    let spectrum = affinity_spectrum(problem.gram);
    let mut notes = Vec::new();
    let mut n_clusters = problem.n_atoms;
    if options.eigengap {
        n_clusters = widest_gap(&spectrum.values, problem.n_atoms);
        notes.push(format!("{n_clusters} clusters, chosen by the widest eigengap among 1 to {}", problem.n_atoms));
    }
    let labels = labels(problem, spectrum, n_clusters, options.seed)?;
    Ok(Found { notes, ..Found::encoded(means(&labels, n_tasks, n_clusters)) })
}

/// The cluster of each task, 0 to `n_clusters` − 1, for the factorisation that starts from them.
pub(super) fn assign(problem: &Problem<'_>, seed: u64) -> Result<Vec<usize>> {
    labels(problem, affinity_spectrum(problem.gram), problem.n_atoms, seed)
}

fn means(labels: &[usize], n_tasks: usize, n_clusters: usize) -> Mat<f64> {
    let mut sizes = vec![0_usize; n_clusters];
    labels.iter().for_each(|&label| sizes[label] += 1);
    Mat::from_fn(n_tasks, n_clusters, |t, m| if labels[t] == m { 1.0 / sizes[m] as f64 } else { 0.0 })
}

fn affinity_spectrum(gram: &Gram) -> &Spectrum {
    gram.kept().affinity.get_or_init(|| Spectrum::of(affinity(gram).as_ref()))
}

/// D^{-1/2}·A·D^{-1/2}.
pub(super) fn affinity(gram: &Gram) -> Mat<f64> {
    let affinity = gram.cosines();
    let n = gram.n_tasks();
    // The diagonal is 1, so no degree is zero.
    let degrees: Vec<f64> = (0..n).map(|i| (0..n).map(|j| affinity[(i, j)].max(0.0)).sum()).collect();
    Mat::from_fn(n, n, |i, j| affinity[(i, j)].max(0.0) / (degrees[i] * degrees[j]).sqrt())
}

/// The k in 1..=most with the largest drop from λk to λk+1; what lies beyond the last eigenvalue counts as zero.
fn widest_gap(values: &[f64], most: usize) -> usize {
    let drop = |k: usize| values[k - 1] - values.get(k).copied().unwrap_or(0.0);
    (1..=most).fold(1, |best, k| if drop(k) > drop(best) + 1e-12 { k } else { best })
}

fn labels(problem: &Problem<'_>, spectrum: &Spectrum, n_clusters: usize, seed: u64) -> Result<Vec<usize>> {
    let n_tasks = problem.gram.n_tasks();
    // One point per column, contiguous.
    let points = Mat::from_fn(n_clusters, n_tasks, |k, t| {
        let row = linear::norm(&linear::row(spectrum.vectors.view().subcols(0, n_clusters), t));
        if row > 0.0 { spectrum.vectors[(t, k)] / row } else { 0.0 }
    });
    let cost = 20.0 * (n_tasks * n_clusters * n_clusters) as f64;
    let n_starts = ((WORK / cost) as usize).clamp(1, STARTS);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut best: Option<(f64, Vec<usize>)> = None;
    for start in 0..n_starts {
        if !(problem.progress)(start as f64 / n_starts as f64) {
            return Err(Error::interrupted());
        }
        let (spread, labels) = k_means(&points, n_clusters, &mut rng, &|round| {
            (problem.progress)((start as f64 + round as f64 / MAX_ROUNDS as f64) / n_starts as f64)
        })?;
        if best.as_ref().is_none_or(|(least, _)| spread < *least - 1e-12) {
            best = Some((spread, labels));
        }
    }
    Ok(best.map_or_else(|| vec![0; n_tasks], |(_, labels)| in_order(labels)))
}

/// Renames clusters by the order in which they first appear.
fn in_order(labels: Vec<usize>) -> Vec<usize> {
    let mut names: Vec<usize> = Vec::new();
    labels
        .into_iter()
        .map(|label| {
            names.iter().position(|&name| name == label).unwrap_or_else(|| {
                names.push(label);
                names.len() - 1
            })
        })
        .collect()
}

fn distance(points: &Mat<f64>, t: usize, centers: &Mat<f64>, k: usize) -> f64 {
    points.col(t).iter().zip(centers.col(k).iter()).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// Total squared distance and the labels, each of which occurs. `go_on` is asked in every round.
fn k_means(
    points: &Mat<f64>,
    n_clusters: usize,
    rng: &mut ChaCha8Rng,
    go_on: &dyn Fn(usize) -> bool,
) -> Result<(f64, Vec<usize>)> {
    let n_points = points.ncols();
    let mut centers = seeds(points, n_clusters, rng);
    let mut labels = vec![usize::MAX; n_points];
    let mut nearest = vec![0.0; n_points];
    for round in 0..MAX_ROUNDS {
        if !go_on(round) {
            return Err(Error::interrupted());
        }
        let before = labels.clone();
        for (t, (label, near)) in labels.iter_mut().zip(&mut nearest).enumerate() {
            (*label, *near) = (0..n_clusters)
                .map(|k| (k, distance(points, t, &centers, k)))
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .unwrap_or((0, 0.0));
        }
        fill_empty(&mut labels, &mut nearest, n_clusters);
        if labels == before {
            break;
        }
        centers = Mat::zeros(points.nrows(), n_clusters);
        let mut sizes = vec![0.0; n_clusters];
        for (t, &label) in labels.iter().enumerate() {
            sizes[label] += 1.0;
            (0..points.nrows()).for_each(|i| centers[(i, label)] += points[(i, t)]);
        }
        linear::scale_columns(&mut centers, &sizes.iter().map(|size| 1.0 / size).collect::<Vec<f64>>());
    }
    Ok((nearest.iter().sum(), labels))
}

/// Gives every empty cluster the point that lies farthest from its center, of those whose cluster can spare one.
fn fill_empty(labels: &mut [usize], nearest: &mut [f64], n_clusters: usize) {
    let mut sizes = vec![0_usize; n_clusters];
    labels.iter().for_each(|&label| sizes[label] += 1);
    for empty in 0..n_clusters {
        if sizes[empty] > 0 {
            continue;
        }
        let spare =
            (0..labels.len()).filter(|&t| sizes[labels[t]] > 1).max_by(|&a, &b| nearest[a].total_cmp(&nearest[b]));
        if let Some(t) = spare {
            sizes[labels[t]] -= 1;
            sizes[empty] = 1;
            labels[t] = empty;
            nearest[t] = 0.0;
        }
    }
}

/// k-means++: each next center is a point drawn with probability proportional to its squared distance so far.
fn seeds(points: &Mat<f64>, n_clusters: usize, rng: &mut ChaCha8Rng) -> Mat<f64> {
    let n_points = points.ncols();
    let mut centers = Mat::zeros(points.nrows(), n_clusters);
    let mut chosen = rng.random_range(0..n_points as u64) as usize;
    let mut nearest = vec![f64::INFINITY; n_points];
    for k in 0..n_clusters {
        (0..points.nrows()).for_each(|i| centers[(i, k)] = points[(i, chosen)]);
        for (t, near) in nearest.iter_mut().enumerate() {
            *near = near.min(distance(points, t, &centers, k));
        }
        let mut left = rng.random::<f64>() * nearest.iter().sum::<f64>();
        chosen = nearest
            .iter()
            .position(|near| {
                left -= near;
                left < 0.0
            })
            .unwrap_or(n_points - 1);
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_names_the_number_of_blocks() {
        let cases: [(&[f64], usize, usize); 5] = [
            (&[1.0], 1, 1),
            (&[1.0, 0.1], 2, 1),
            (&[1.0, 0.9, 0.1, 0.05], 4, 2),
            (&[1.0, 1.0, 1.0], 3, 3),
            (&[1.0, 0.9, 0.1, 0.05], 1, 1),
        ];
        for (values, most, expected) in cases {
            assert_eq!(widest_gap(values, most), expected, "{values:?}");
        }
    }

    #[test]
    fn every_cluster_keeps_a_point_even_when_all_coincide() {
        let points = Mat::from_fn(3, 5, |_, _| 1.0);
        for seed in 0..5 {
            let (_, labels) =
                k_means(&points, 3, &mut ChaCha8Rng::seed_from_u64(seed), &|_| true).expect("not stopped");
            assert!((0..3).all(|k| labels.contains(&k)), "{labels:?}");
        }
    }
}

//! One pair of spaces for many low-rank matrices: orthonormal U \[n, p\] and V \[m, p\] that maximise Σ w·‖UᵀΔV‖², so that each
//! matrix is U·core·Vᵀ with a small core.
//!
//! With V fixed, the best U is the leading eigenvectors of Σ w·ΔVVᵀΔᵀ, which is Σ L·C·Lᵀ with small C = w·s²·(RV)(RV)ᵀ; and the
//! other way round. The two take turns (HOOI), from the leading spaces of Σ w·ΔΔᵀ and Σ w·ΔᵀΔ on. Each turn is one step of a
//! block Krylov iteration with Rayleigh–Ritz over the old space and its image, so what is kept never falls, and no matrix larger
//! than the stacks of the factors with 2p columns is formed.

use super::linear;
pub use super::shared_stacks::Member;
use super::shared_stacks::{Stacks, Which};
use crate::error::Result;
use faer::{Mat, MatRef};

/// Turns until what is kept grows by less than [`ENOUGH`] of everything.
const MOST_TURNS: usize = 40;
const ENOUGH: f64 = 1e-4;
/// Steps towards each side's own leading space before they take turns.
const FIRST_STEPS: usize = 2;

/// What was found.
#[derive(Debug)]
pub struct SharedSides {
    /// U, \[n, p\], orthonormal columns.
    pub left: Mat<f64>,
    /// V, \[m, p\], orthonormal columns.
    pub right: Mat<f64>,
    /// Σ w·‖UᵀΔV‖² over Σ w·‖Δ‖²; 1 where there is nothing.
    pub kept: f64,
    /// Turns taken.
    pub n_turns: usize,
}

/// One side while it is searched.
struct Side {
    /// Orthonormal columns.
    space: Mat<f64>,
    /// The stack's products with them, \[ΣR, p\].
    dots: Mat<f64>,
}

/// Spaces of dimension `rank`, at most n and m; `check` is asked now and then whether to go on.
///
/// # Errors
/// Those of `check`.
pub fn shared_sides(stacks: &Stacks<'_>, rank: usize, check: &dyn Fn() -> Result<()>) -> Result<SharedSides> {
    let grams = [Which::Left, Which::Right].map(|which| stacks.small_grams(which));
    let [left_grams, right_grams] = &grams;
    let total: f64 = stacks
        .members()
        .iter()
        .zip(left_grams.iter().zip(right_grams))
        .map(|(member, (left, right))| {
            member.weight * member.scale.powi(2) * elementwise(left.as_ref(), right.as_ref())
        })
        .sum();
    let start = |which: Which, other: &[Mat<f64>]| -> Result<Side> {
        let weighed = |number: usize| {
            let member = &stacks.members()[number];
            other[number].as_ref() * faer::Scale(member.weight * member.scale.powi(2))
        };
        let blocks: Vec<Mat<f64>> = (0..other.len()).map(weighed).collect();
        let space = orthonormal(noise(stacks.len(which), rank));
        let mut side = Side { dots: stacks.dots(which, space.as_ref()), space };
        for _ in 0..FIRST_STEPS {
            check()?;
            side = step(stacks, which, side, &blocks).0;
        }
        Ok(side)
    };
    let (mut left, mut right) = (start(Which::Left, right_grams)?, start(Which::Right, left_grams)?);
    let (mut kept, mut n_turns) = (0.0, 0);
    while n_turns < MOST_TURNS {
        check()?;
        n_turns += 1;
        left = step(stacks, Which::Left, left, &blocks(stacks, &right.dots)).0;
        check()?;
        let value;
        (right, value) = step(stacks, Which::Right, right, &blocks(stacks, &left.dots));
        let grown = value - kept;
        kept = value;
        if grown <= ENOUGH * total {
            break;
        }
    }
    let kept = if total > 0.0 { (kept / total).min(1.0) } else { 1.0 };
    Ok(SharedSides { left: left.space, right: right.space, kept, n_turns })
}

/// w·s²·(RV)(RV)ᵀ of every member, or the same of its left factor, from its products with the other side's space.
fn blocks(stacks: &Stacks<'_>, dots: &Mat<f64>) -> Vec<Mat<f64>> {
    stacks.parallel(stacks.members().len(), |number| {
        let member = &stacks.members()[number];
        let columns = stacks.columns(number);
        let own = dots.subrows(columns.start, columns.len());
        linear::product(own, own.transpose()) * faer::Scale(member.weight * member.scale.powi(2))
    })
}

/// A better space, and the trace of Σ L·C·Lᵀ over it.
fn step(stacks: &Stacks<'_>, which: Which, side: Side, blocks: &[Mat<f64>]) -> (Side, f64) {
    let Side { space, dots } = side;
    let (len, rank) = (space.nrows(), space.ncols());
    let image = stacks.combine(which, times_blocks(stacks, blocks, &dots).as_ref());
    let lengths: Vec<f64> = (0..rank).map(|k| linear::norm(image.col_as_slice(k))).collect();
    let both = Mat::from_fn(len, 2 * rank, |i, k| match k.checked_sub(rank) {
        None => space[(i, k)],
        Some(k) if lengths[k] > 0.0 => image[(i, k)] / lengths[k],
        Some(_) => 0.0,
    });
    let both = orthonormal(both);
    let dots = stacks.dots(which, both.as_ref());
    let small = linear::product(dots.transpose(), times_blocks(stacks, blocks, &dots).as_ref());
    let (values, vectors) = linear::eigen(small.as_ref());
    let best = vectors.subcols(0, rank);
    let side = Side { space: linear::product(both.as_ref(), best), dots: linear::product(dots.as_ref(), best) };
    (side, values.iter().take(rank).sum())
}

/// The blocks' diagonal times \[ΣR, k\].
fn times_blocks(stacks: &Stacks<'_>, blocks: &[Mat<f64>], dots: &Mat<f64>) -> Mat<f64> {
    let mut out = Mat::zeros(dots.nrows(), dots.ncols());
    for (number, block) in blocks.iter().enumerate() {
        let columns = stacks.columns(number);
        let product = linear::product(block.as_ref(), dots.subrows(columns.start, columns.len()));
        out.subrows_mut(columns.start, columns.len()).copy_from(&product);
    }
    out
}

/// An orthonormal basis of the columns, as many as there are columns, or rows where these are fewer.
fn orthonormal(columns: Mat<f64>) -> Mat<f64> {
    columns.qr().compute_thin_Q()
}

/// Numbers in ±1 from a counter (splitmix64), the same everywhere.
fn noise(n: usize, k: usize) -> Mat<f64> {
    Mat::from_fn(n, k, |i, j| {
        let mut x = ((i * k + j) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    })
}

/// Σ a∘b.
pub(super) fn elementwise(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::shared_cores::{Core, Cores};
    use super::*;

    struct Task {
        left: Vec<f32>,
        right: Vec<f32>,
        rank: usize,
        scale: f64,
    }

    fn numbers(n: usize, seed: u64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1_u64 << 23) as f64 - 1.0
        };
        (0..n).map(next).collect()
    }

    fn narrow(values: &Mat<f64>) -> Vec<f32> {
        (0..values.nrows()).flat_map(|i| (0..values.ncols()).map(move |k| values[(i, k)] as f32)).collect()
    }

    fn random(n: usize, k: usize, seed: u64) -> Mat<f64> {
        let values = numbers(n * k, seed);
        Mat::from_fn(n, k, |i, j| values[i * k + j])
    }

    /// Tasks around `inner` directions that all share, with some noise of their own.
    fn tasks(n: usize, m: usize, ranks: &[usize], inner: usize, noise: f64) -> Vec<Task> {
        let (columns, rows) = (random(n, inner, 900), random(inner, m, 901));
        let task = |(number, &rank): (usize, &usize)| {
            let seed = 10 * number as u64 + 1;
            let left = &columns * random(inner, rank, seed) + random(n, rank, seed + 1) * faer::Scale(noise);
            let right = random(rank, inner, seed + 2) * &rows + random(rank, m, seed + 3) * faer::Scale(noise);
            Task { left: narrow(&left), right: narrow(&right), rank, scale: [0.5, 2.0, -1.0][number % 3] }
        };
        ranks.iter().enumerate().map(task).collect()
    }

    fn dense(n: usize, m: usize, task: &Task) -> Mat<f64> {
        let left = Mat::from_fn(n, task.rank, |i, k| f64::from(task.left[i * task.rank + k]));
        let right = Mat::from_fn(task.rank, m, |k, j| f64::from(task.right[k * m + j]));
        left * right * faer::Scale(task.scale)
    }

    fn members(tasks: &[Task]) -> Vec<Member<'_>> {
        let each = tasks.iter().map(|Task { left, right, rank, scale }| Member {
            left,
            right,
            rank: *rank,
            scale: *scale,
            weight: 1.0,
        });
        each.collect()
    }

    struct Found {
        cores: Vec<Core>,
        gram: Mat<f64>,
        formed: Vec<Mat<f64>>,
        kept: f64,
    }

    fn found(n: usize, m: usize, members: &[Member<'_>], rank: usize, round: fn(f32) -> f32) -> Found {
        let stacks = Stacks::new(n, m, members, 2).unwrap();
        let sides = shared_sides(&stacks, rank, &|| Ok(())).unwrap();
        let left: Vec<f32> = narrow(&sides.left).into_iter().map(round).collect();
        let right: Vec<f32> = narrow(&sides.right.transpose().to_owned()).into_iter().map(round).collect();
        let cores_of = Cores::new(&stacks, &left, &right, rank).unwrap();
        let cores = cores_of.cores(round);
        let wide = |values: &[f32], n: usize, k: usize| Mat::from_fn(n, k, |i, j| f64::from(values[i * k + j]));
        let (u, v) = (wide(&left, n, rank), wide(&right, rank, m));
        let formed = cores.iter().map(|core| &u * wide(&core.values, rank, rank) * &v).collect();
        Found { gram: cores_of.gram(&cores), cores, formed, kept: sides.kept }
    }

    fn bf16(value: f32) -> f32 {
        half::bf16::from_f32(value).to_f32()
    }

    #[test]
    fn spaces_of_all_ranks_together_lose_nothing() {
        for (n, m, ranks) in [(40, 30, &[4, 3, 2][..]), (30, 50, &[1, 8]), (12, 12, &[2, 2, 2])] {
            let tasks = tasks(n, m, ranks, 12, 1.0);
            let found = found(n, m, &members(&tasks), ranks.iter().sum(), |value| value);
            assert!((found.kept - 1.0).abs() < 1e-12, "{}", found.kept);
            for (task, formed) in tasks.iter().zip(&found.formed) {
                let true_one = dense(n, m, task);
                assert!((&true_one - formed).norm_l2() < 1e-6 * true_one.norm_l2());
            }
        }
    }

    #[test]
    fn what_is_said_of_a_core_is_true_of_what_is_stored() {
        let (n, m) = (50, 70);
        let tasks = tasks(n, m, &[4, 2, 4, 3, 4, 1], 5, 0.3);
        for round in [|value: f32| value, bf16] {
            let Found { cores, gram, formed, .. } = found(n, m, &members(&tasks), 6, round);
            for (t, (task, core)) in tasks.iter().zip(&cores).enumerate() {
                let true_one = dense(n, m, task);
                let norm = elementwise(true_one.as_ref(), true_one.as_ref());
                let error = (&true_one - &formed[t]).squared_norm_l2();
                assert!((core.norm - norm).abs() < 1e-12 * norm);
                assert!((core.norm - 2.0 * core.inner + core.recovered - error).abs() < 1e-11 * norm);
                assert!(error > 1e-3 * norm && error < 0.9 * norm);
                for (s, other) in formed.iter().enumerate() {
                    let inner = elementwise(formed[t].as_ref(), other.as_ref());
                    assert!((gram[(t, s)] - inner).abs() < 1e-10 * norm.max(cores[s].norm), "{t}, {s}");
                }
            }
        }
    }

    /// With all of the same weight and no rounding, what is kept is the objective, and no other spaces keep more nearby.
    #[test]
    fn nearby_spaces_keep_no_more() {
        let (n, m, rank) = (40, 30, 5);
        let tasks = tasks(n, m, &[3, 3, 3, 3, 3], 6, 0.2);
        let members = members(&tasks);
        let stacks = Stacks::new(n, m, &members, 1).unwrap();
        let sides = shared_sides(&stacks, rank, &|| Ok(())).unwrap();
        let all: Vec<Mat<f64>> = tasks.iter().map(|task| dense(n, m, task)).collect();
        let total: f64 = all.iter().map(|delta| delta.squared_norm_l2()).sum();
        let kept = |left: &Mat<f64>, right: &Mat<f64>| -> f64 {
            all.iter().map(|delta| (left.transpose() * delta * right).squared_norm_l2()).sum::<f64>() / total
        };
        let best = kept(&sides.left, &sides.right);
        assert!((best - sides.kept).abs() < 1e-12);
        for seed in 0..20 {
            let moved =
                |space: &Mat<f64>, seed| orthonormal(space + random(space.nrows(), rank, seed) * faer::Scale(0.05));
            let other = kept(&moved(&sides.left, seed), &moved(&sides.right, seed + 50));
            assert!(other < best + 1e-3, "{other} and {best}");
        }
    }

    /// At no more numbers than one truncated SVD for each task.
    #[test]
    fn tasks_with_much_in_common_keep_more_than_each_cut_alone() {
        let (n, m, rank) = (60, 60, 8);
        let tasks = tasks(n, m, &[4; 24], 8, 0.05);
        let shared = found(n, m, &members(&tasks), rank, |value| value);
        let n_shared = rank * (n + m) + tasks.len() * rank * rank;
        // Each alone at rank 1 takes more.
        assert!(tasks.len() * (n + m) > n_shared);
        let (mut lost_shared, mut lost_alone) = (0.0, 0.0);
        for (task, formed) in tasks.iter().zip(&shared.formed) {
            let true_one = dense(n, m, task);
            let values = true_one.singular_values().unwrap();
            let norm: f64 = values.iter().map(|value| value * value).sum();
            lost_alone += values[1..].iter().map(|value| value * value).sum::<f64>() / norm;
            lost_shared += (&true_one - formed).squared_norm_l2() / norm;
        }
        assert!(lost_shared < 0.2 * lost_alone, "{lost_shared} and {lost_alone}");
    }

    #[test]
    fn order_and_threads_do_not_matter() {
        let (n, m) = (50, 40);
        let tasks = tasks(n, m, &[300, 2, 400, 3, 150], 6, 0.2);
        let forward = members(&tasks);
        let backward: Vec<Member<'_>> = forward.iter().rev().cloned().collect();
        let kept = |members: &[Member<'_>], n_threads| {
            let stacks = Stacks::new(n, m, members, n_threads).unwrap();
            shared_sides(&stacks, 6, &|| Ok(())).unwrap()
        };
        let [one, two] = [1, 3].map(|n_threads| kept(&forward, n_threads));
        assert_eq!((one.left, one.right), (two.left, two.right));
        assert!((one.kept - kept(&backward, 2).kept).abs() < 1e-9);
    }

    #[test]
    fn factors_of_another_size_are_refused_and_nothing_is_kept_of_nothing() {
        let mut tasks = tasks(20, 10, &[2, 2], 3, 0.1);
        assert!(Stacks::new(21, 10, &members(&tasks), 1).is_err());
        assert!(Stacks::new(20, 11, &members(&tasks), 1).is_err());
        tasks.iter_mut().for_each(|task| task.left.fill(0.0));
        let found = found(20, 10, &members(&tasks), 3, |value| value);
        assert!(found.kept == 1.0 && found.formed.iter().all(|formed| formed.norm_l2() == 0.0));
    }
}

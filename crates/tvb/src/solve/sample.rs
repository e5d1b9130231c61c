//! `sample`: M of the tasks themselves, picked at random; the others are recovered from them by the best W.

use super::problem::{Found, Problem};
use crate::error::Result;
use faer::Mat;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(super) fn solve(problem: &Problem<'_>, seed: u64) -> Result<Found> {
    let n_tasks = problem.gram.n_tasks();
    let picked = pick(n_tasks, problem.n_atoms, seed);
    Ok(Found::encoded(Mat::from_fn(n_tasks, picked.len(), |t, m| f64::from(u8::from(t == picked[m])))))
}

/// `n_picked` different numbers below `n`, ascending: the start of a seeded shuffle.
fn pick(n: usize, n_picked: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..n_picked {
        // Drawn as u64, so that 32-bit machines pick the same.
        let j = rng.random_range(i as u64..n as u64) as usize;
        order.swap(i, j);
    }
    order.truncate(n_picked);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn picks_are_distinct_repeatable_and_spread() {
        let mut seen = [0_usize; 9];
        for seed in 0..300 {
            let picked = pick(9, 4, seed);
            assert_eq!(picked, pick(9, 4, seed));
            assert!(picked.windows(2).all(|w| w[0] < w[1]) && picked.len() == 4 && picked[3] < 9);
            picked.iter().for_each(|&t| seen[t] += 1);
        }
        // 300·4/9 = 133 each on average; 40 is five standard deviations.
        assert!(seen.iter().all(|&count| count.abs_diff(133) < 45), "{seen:?}");
        assert_eq!(pick(5, 5, 7), [0, 1, 2, 3, 4]);
    }
}

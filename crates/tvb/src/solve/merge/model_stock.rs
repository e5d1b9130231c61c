//! Model Stock: from the base towards the mean, as far as the angle between task vectors says (arXiv 2403.19522).

/// Lengths below this are taken for it, as in mergekit.
const LEAST_PRODUCT: f64 = 1e-6;
/// A divisor below this is none: the base stays.
const LEAST_DIVISOR: f64 = 1e-6;

/// t of t·mean + (1 − t)·base, from the task vectors' inner products: N·cos θ / (1 + (N − 1)·cos θ), cos θ the mean cosine of all
/// pairs. `product(a, b)` is the inner product of task vectors a and b.
pub fn model_stock(n_tasks: usize, product: impl Fn(usize, usize) -> f64) -> f64 {
    let norm = |task: usize| product(task, task).max(0.0).sqrt();
    let mut cosines = Vec::new();
    for a in 0..n_tasks {
        for b in a + 1..n_tasks {
            cosines.push((product(a, b) / (norm(a) * norm(b)).max(LEAST_PRODUCT)).clamp(-1.0, 1.0));
        }
    }
    let cosine = cosines.iter().sum::<f64>() / cosines.len().max(1) as f64;
    let n = n_tasks as f64;
    let divisor = 1.0 + (n - 1.0) * cosine;
    if divisor.abs() < LEAST_DIVISOR { 0.0 } else { n * cosine / divisor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_angle_says_how_far() {
        // Two of the same direction: all the way. At right angles: stay. At 60 degrees: 2·½ / (1 + ½).
        let of = |cosine: f64| model_stock(2, |a, b| if a == b { 4.0 } else { 4.0 * cosine });
        assert_eq!((of(1.0), of(0.0)), (1.0, 0.0));
        assert!((of(0.5) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(of(-1.0), 0.0);
    }
}

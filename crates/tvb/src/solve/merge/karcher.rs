//! The Karcher mean: the point of the sphere with the least squared distances to all directions (arXiv 2603.04972).

use super::products::{Mix, Products};

/// The Karcher mean of these vectors with equal weights, as long as they are on average; at most `max_iter` steps, until one
/// is shorter than `tol`.
/// Where nothing is longer than `tol` the answer is nothing.
pub fn karcher(products: &Products, vectors: &[Mix], max_iter: usize, tol: f64) -> Mix {
    let n = products.n_tasks();
    if let [only] = vectors {
        return only.clone();
    }
    let norms: Vec<f64> = vectors.iter().map(|vector| products.norm(vector)).collect();
    let units: Vec<Mix> = vectors
        .iter()
        .zip(&norms)
        .filter(|(_, norm)| **norm > tol)
        .map(|(vector, norm)| vector.times(1.0 / norm))
        .collect();
    let Some(first) = units.first() else { return Mix::zero(n) };
    let share = 1.0 / units.len() as f64;
    let mut mean = Mix::zero(n);
    units.iter().for_each(|unit| mean.add(share, unit));
    mean = match products.norm(&mean) {
        norm if norm < tol => first.clone(),
        norm => mean.times(1.0 / norm),
    };
    for _ in 0..max_iter {
        let mut tangent = Mix::zero(n);
        for unit in &units {
            let cosine = products.of(&mean, unit).clamp(-1.0, 1.0);
            let theta = cosine.acos();
            // Nowhere to go, or every way is as good.
            if theta < tol || theta.sin() == 0.0 {
                continue;
            }
            tangent.add(share * theta / theta.sin(), unit);
            tangent.add(-share * theta / theta.sin() * cosine, &mean);
        }
        let length = products.norm(&tangent);
        if length < tol {
            break;
        }
        let mut moved = mean.times(length.cos());
        moved.add(length.sin() / length, &tangent);
        mean = match products.norm(&moved) {
            norm if norm > tol => moved.times(1.0 / norm),
            _ => moved,
        };
    }
    mean.times(norms.iter().sum::<f64>() / norms.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::products::Of;
    use super::super::products::tests::{formed, products};
    use super::*;

    #[test]
    fn the_mean_lies_in_the_middle_of_an_arc() {
        let all: [&[f64]; 4] = [&[0.0, 0.0], &[2.0, 0.0], &[0.0, 4.0], &[0.0, 0.0]];
        let products = products(&all);
        let mean = karcher(&products, &products.vectors(Of::Tasks)[..2], 10, 1e-5);
        let half = 3.0 * std::f64::consts::FRAC_1_SQRT_2;
        let made = formed(&mean, &all);
        assert!(made.iter().all(|value| (value - half).abs() < 1e-9), "{made:?}");
        // Three at 0, 90 and 90 degrees: at 60.
        let three: [&[f64]; 4] = [&[0.0, 0.0], &[1.0, 0.0], &[0.0, 1.0], &[0.0, 1.0]];
        let of_three = super::super::products::tests::products(&three);
        let made = formed(&karcher(&of_three, &of_three.vectors(Of::Tasks), 50, 1e-9), &three);
        let (sin, cos) = (std::f64::consts::PI / 3.0).sin_cos();
        assert!((made[0] - cos).abs() < 1e-6 && (made[1] - sin).abs() < 1e-6, "{made:?}");
        let nothing = karcher(&products, &products.vectors(Of::Tasks)[2..], 10, 1e-5);
        assert_eq!(formed(&nothing, &all), [0.0, 0.0]);
        let none = Mix::zero(3);
        assert_eq!(karcher(&products, &[none.clone(), none.clone()], 10, 1e-5), none);
    }
}

use tvb::jobs::report::*;
fn main() {
    let out = std::env::args().nth(1).unwrap();
    let mut points = Vec::new();
    for (k, method) in ["anchored", "exact", "pca", "cluster", "sample"].into_iter().enumerate() {
        for m in 1..=20usize {
            let e = (1.0 - m as f64 / 20.0).powf(1.0 + 0.3 * k as f64) * (0.6 + 0.08 * k as f64);
            points.push(Pareto {
                method,
                n_stored: m + usize::from(method == "pca"),
                mean_error: e,
                worst_error: (1.6 * e).min(1.2),
            });
        }
    }
    let eig: Vec<f64> = (0..20).map(|k| 3.0 * 0.8f64.powi(k)).collect();
    let s = |n: &str, f: &dyn Fn(f64) -> f64| Series {
        name: n.into(),
        values: (0..=20).map(|k| k as f64 / 20.0).map(|x| (x, f(x))).collect(),
    };
    let metric = s("mean accuracy", &|x| 0.3 + 1.6 * x - 1.5 * x * x);
    let control = s("control", &|x| 0.95 - 0.25 * x * x);
    let put = |n: &str, t: String| std::fs::write(format!("{out}/{n}.svg"), t).unwrap();
    put("pareto", pareto_svg(&points, 20).unwrap());
    put("spectrum", spectrum_svg(&eig, 10, Some(0.15)).unwrap());
    put("sweep", sweep_svg(&metric, Some(&control), Some(0.9025), Some((0.4, 0.7))).unwrap());
}

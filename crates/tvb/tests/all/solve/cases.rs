//! Task vectors to test solvers on: seeded random ones of many kinds, and the figures of the reference implementation.

use faer::Mat;
use tvb::matrix::Matrix;
use tvb::solve::Gram;

/// splitmix64: enough randomness for test data, the same on every machine.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// d x T standard normal.
pub(crate) fn gaussian(d: usize, n_tasks: usize, seed: u64) -> Mat<f64> {
    let mut rng = Rng(seed);
    let mut v = Mat::zeros(d, n_tasks);
    for t in 0..n_tasks {
        for x in 0..d {
            v[(x, t)] = rng.normal();
        }
    }
    v
}

/// The library's matrix with the entries of the linear algebra's.
pub(crate) fn own(m: &Mat<f64>) -> Matrix {
    Matrix::from_fn(m.nrows(), m.ncols(), |i, j| m[(i, j)])
}

/// The way back.
pub(crate) fn mat(m: &Matrix) -> Mat<f64> {
    Mat::from_fn(m.n_rows(), m.n_columns(), |i, j| m[(i, j)])
}

pub(crate) fn gram_of(v: &Mat<f64>) -> Gram {
    Gram::new(own(&(v.transpose() * v))).expect("a Gram matrix")
}

/// Scales task t by `factors(t)`.
pub(crate) fn scaled(mut v: Mat<f64>, factors: impl Fn(usize) -> f64) -> Mat<f64> {
    for t in 0..v.ncols() {
        for x in 0..v.nrows() {
            v[(x, t)] *= factors(t);
        }
    }
    v
}

/// Tasks that share a direction: cosines around `common`/(1 + `common`), of the sign of `sign(t)·sign(s)`.
pub(crate) fn sharing(d: usize, n_tasks: usize, common: f64, sign: impl Fn(usize) -> f64, seed: u64) -> Mat<f64> {
    let own = gaussian(d, n_tasks, seed);
    let shared = gaussian(d, 1, seed + 1000);
    Mat::from_fn(d, n_tasks, |x, t| own[(x, t)] + sign(t) * common.sqrt() * shared[(x, 0)])
}

/// Named collections of task vectors, d x T, from easy to degenerate.
pub(crate) fn collections() -> Vec<(&'static str, Mat<f64>)> {
    let alternate = |t: usize| if t.is_multiple_of(2) { 1.0 } else { -1.0 };
    let mut duplicates = gaussian(40, 7, 5);
    let mut cancel = gaussian(40, 6, 6);
    let mut zeros = gaussian(40, 6, 7);
    let mut opposite = gaussian(40, 6, 8);
    for x in 0..40 {
        duplicates[(x, 3)] = duplicates[(x, 1)];
        duplicates[(x, 6)] = duplicates[(x, 1)];
        cancel[(x, 5)] = -(0..5).map(|t| cancel[(x, t)]).sum::<f64>();
        zeros[(x, 0)] = 0.0;
        zeros[(x, 4)] = 0.0;
        opposite[(x, 1)] = -opposite[(x, 0)];
    }
    vec![
        ("one task", gaussian(30, 1, 1)),
        ("one zero task", Mat::zeros(30, 1)),
        ("two tasks", gaussian(30, 2, 2)),
        ("all zero", Mat::zeros(30, 5)),
        ("orthogonal", Mat::from_fn(30, 6, |x, t| f64::from(u8::from(x == t)))),
        ("random", gaussian(60, 9, 3)),
        ("alike", sharing(60, 10, 0.5, |_| 1.0, 4)),
        ("negative cosines", sharing(60, 8, 0.8, alternate, 9)),
        ("duplicates", duplicates),
        ("zero tasks", zeros),
        ("cancelling", cancel),
        ("opposite pair", opposite),
        ("fewer parameters than tasks", gaussian(3, 8, 10)),
        ("norms over 1e6", scaled(gaussian(50, 7, 11), |t| 10f64.powi(-(t as i32)))),
        ("tiny", scaled(gaussian(50, 6, 12), |_| 1e-9)),
        ("huge", scaled(gaussian(50, 6, 13), |_| 1e60)),
        ("twenty", scaled(sharing(200, 20, 0.3, |_| 1.0, 14), |t| 1.0 + (t % 5) as f64 * 0.3)),
    ]
}

/// The reference implementation's figures.
pub(crate) fn reference() -> serde_json::Value {
    let text = std::fs::read_to_string(tvb_tests::fixture("reference/expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("expected.json parses")
}

pub(crate) fn matrix(value: &serde_json::Value) -> Matrix {
    let rows: Vec<Vec<f64>> = value.as_array().expect("rows").iter().map(numbers).collect();
    Matrix::from_rows(&rows).expect("rows of one length")
}

pub(crate) fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

//! What must hold for every method on every Gram matrix, easy or degenerate: bounds, exactness, agreement with the same
//! quantities computed from the d-dimensional vectors themselves, and independence of the tasks' order.

use super::cases::{Rng, collections, gaussian, gram_of, mat, own, scaled, sharing};
use faer::Mat;
use tvb::matrix::Matrix;
use tvb::solve::{
    AeOptions, AnchoredOptions, Assessment, ClusterOptions, Coefficients, Coordinates, Gram, Method, Rule,
    SolveOptions, assess, edit_fidelity, solve,
};

fn quiet(_: f64) -> bool {
    true
}

/// Every method that solves on G, with trainings kept short.
fn methods() -> Vec<Method> {
    Method::all()
        .into_iter()
        .filter(|method| method.name() != "random")
        .map(|method| match method {
            Method::Ae(options) => Method::Ae(AeOptions { steps: Some(200), ..options }),
            other => other,
        })
        .collect()
}

fn options(n_atoms: usize, balance: bool, coordinates: Coordinates) -> SolveOptions {
    SolveOptions { n_atoms, balance, coordinates }
}

fn solved(gram: &Gram, method: &Method, options: &SolveOptions) -> (Coefficients, Assessment) {
    let found = solve(gram, method, options, &quiet).unwrap_or_else(|error| panic!("{}: {error}", method.name()));
    let assessed = assess(gram, &found).expect("assessed");
    (found, assessed)
}

/// A few M from 1 to T.
fn some_ms(n_tasks: usize) -> Vec<usize> {
    let mut ms = vec![1, n_tasks.div_ceil(4), n_tasks.div_ceil(2), n_tasks.saturating_sub(1).max(1), n_tasks];
    ms.dedup();
    ms
}

#[test]
fn no_method_beats_the_bound_and_nothing_is_nan() {
    for (name, v) in collections() {
        let gram = gram_of(&v);
        for n_atoms in some_ms(gram.n_tasks()) {
            for method in methods() {
                if method.fixed_atoms(gram.n_tasks()).is_some_and(|fixed| fixed != n_atoms) {
                    continue;
                }
                for balance in [false, true] {
                    let what = format!("{name}, {}, M = {n_atoms}, balance {balance}", method.name());
                    let (found, a) = solved(&gram, &method, &options(n_atoms, balance, Coordinates::Convex));
                    check_finite(&what, &found, &a);
                    assert!(
                        a.relative_loss >= a.relative_bound - 1e-13,
                        "{what}: {} < {}",
                        a.relative_loss,
                        a.relative_bound
                    );
                    assert!(a.loss >= 0.0 && a.spectral_bound >= 0.0 && a.mean <= a.worst + 1e-15, "{what}");
                    let extra = usize::from(method.name() == "pca");
                    assert_eq!(
                        found.n_stored(),
                        if extra == 1 { n_atoms.min(gram.n_tasks() - 1) + 1 } else { n_atoms },
                        "{what}"
                    );
                    if n_atoms == gram.n_tasks() && !["ae", "nmf"].contains(&method.name()) {
                        assert!(a.worst < 1e-9, "{what}: M = T recovers everything, found an error of {}", a.worst);
                    }
                }
            }
        }
    }
}

fn check_finite(what: &str, found: &Coefficients, a: &Assessment) {
    let matrices = [&found.encode, &found.decode, &a.leakage, &a.recovered_dot_task];
    assert!(matrices.iter().all(|m| m.columns().all(|c| c.iter().all(|x| x.is_finite()))), "{what}: matrices");
    let lists = [&a.squared_errors, &a.relative_errors, &a.atom_norms, &a.norms, &a.recovered_norms];
    assert!(lists.iter().all(|list| list.iter().all(|x| x.is_finite())), "{what}: lists");
    let rounding = a.rounding.iter().flat_map(|r| r.relative_errors.iter().chain(&r.squared_errors));
    assert!(
        rounding.chain([&a.loss, &a.relative_loss, &a.epsilon, &a.effective_rank]).all(|x| x.is_finite()),
        "{what}"
    );
    // A condition and a norm ratio may be infinite, but are never NaN.
    let open = [a.condition, a.projected.norm_ratio, a.sum.norm_ratio, a.projected.cosine, a.sum.cosine];
    assert!(open.iter().all(|x| !x.is_nan()), "{what}: {open:?}");
}

/// δt, the loss, additions and leakage from G are those of the vectors themselves, at every scale.
#[test]
fn predictions_equal_the_errors_of_the_vectors_themselves() {
    for (name, v) in collections() {
        let gram = gram_of(&v);
        let n_tasks = gram.n_tasks();
        let n_atoms = n_tasks.div_ceil(2);
        let mut rng = Rng(3);
        let alpha: Vec<f64> = (0..n_tasks).map(|_| rng.normal()).collect();
        for method in methods().iter().filter(|method| method.fixed_atoms(n_tasks).is_none()) {
            for coordinates in [Coordinates::Convex, Coordinates::Orthogonal] {
                if coordinates == Coordinates::Orthogonal && !["anchored", "exact"].contains(&method.name()) {
                    continue;
                }
                let what = format!("{name}, {}, {coordinates:?}", method.name());
                let (found, a) = solved(&gram, method, &options(n_atoms, false, coordinates));
                let atoms = &v * &mat(&found.encode);
                let recovered = &atoms * &mat(&found.decode);
                let scale = gram.trace() / n_tasks as f64;
                for t in 0..n_tasks {
                    let error: f64 = (0..v.nrows()).map(|x| (recovered[(x, t)] - v[(x, t)]).powi(2)).sum();
                    assert!((error - a.squared_errors[t]).abs() <= 1e-10 * scale, "{what}: error of task {t}");
                }
                let edit = |weights: &[f64], s: &Mat<f64>| -> Vec<f64> {
                    (0..s.nrows()).map(|x| (0..s.ncols()).map(|m| s[(x, m)] * weights[m]).sum()).collect()
                };
                for rule in [Rule::Projected, Rule::Sum] {
                    let (made, wanted) = (edit(&found.weights(&alpha, rule), &atoms), edit(&alpha, &v));
                    let told = edit_fidelity(&gram, &found, &alpha, rule).expect("told");
                    let dot: f64 = made.iter().zip(&wanted).map(|(a, b)| a * b).sum();
                    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
                    // Where one of the two all but vanishes its direction is rounding.
                    if length(&made) > 1e-6 * scale.sqrt() && length(&wanted) > 1e-6 * scale.sqrt() {
                        let cosine = dot / length(&made) / length(&wanted);
                        assert!((told.cosine - cosine).abs() < 1e-8, "{what}, {rule:?}: {} {cosine}", told.cosine);
                        let ratio = length(&made) / length(&wanted);
                        assert!((told.norm_ratio / ratio - 1.0).abs() < 1e-8, "{what}, {rule:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn anchored_keeps_the_sum_and_its_loss_is_known() {
    for (name, v) in collections() {
        let gram = gram_of(&v);
        let n_tasks = gram.n_tasks();
        if name == "cancelling" {
            continue;
        }
        for n_atoms in some_ms(n_tasks) {
            for balance in [false, true] {
                let what = format!("{name}, M = {n_atoms}, balance {balance}");
                let (found, a) = solved(
                    &gram,
                    &Method::parse("anchored").expect("known"),
                    &options(n_atoms, balance, Coordinates::Convex),
                );
                check_anchored(&what, &found, &vec![1.0; n_tasks]);
                if !balance && gram.trace() > 0.0 {
                    let expected = deflated_tail(&gram, n_atoms);
                    assert!((a.relative_loss - expected).abs() < 1e-12, "{what}: {} {expected}", a.relative_loss);
                }
                if gram.trace() > 0.0 {
                    assert!(a.sum.cosine > 1.0 - 1e-12, "{what}: cosine {}", a.sum.cosine);
                    assert!((a.sum.norm_ratio * n_tasks as f64 / n_atoms as f64 - 1.0).abs() < 1e-9, "{what}");
                }
            }
        }
    }
}

/// B ≥ 0, columns on the simplex, B·1 proportional to the weights.
fn check_anchored(what: &str, found: &Coefficients, weights: &[f64]) {
    let (n_tasks, n_atoms) = (weights.len(), found.n_stored());
    let total: f64 = weights.iter().sum();
    for m in 0..n_atoms {
        let sum: f64 = (0..n_tasks).map(|t| found.encode[(t, m)]).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{what}: column {m} adds up to {sum}");
    }
    for (t, weight) in weights.iter().enumerate() {
        assert!((0..n_atoms).all(|m| found.encode[(t, m)] >= 0.0), "{what}: row {t}");
        let sum: f64 = (0..n_atoms).map(|m| found.encode[(t, m)]).sum();
        let expected = n_atoms as f64 * weight / total;
        assert!((sum - expected).abs() < 1e-12 * n_atoms as f64, "{what}: row {t} adds up to {sum}, not {expected}");
    }
}

/// Σ_{k≥M} λk(G')/tr G with G' = G − G11ᵀG/(1ᵀG1).
fn deflated_tail(gram: &Gram, n_atoms: usize) -> f64 {
    let n = gram.n_tasks();
    let g = gram.matrix();
    let row: Vec<f64> = (0..n).map(|i| (0..n).map(|j| g[(i, j)] / gram.trace()).sum()).collect();
    let total: f64 = row.iter().sum();
    let left = Mat::from_fn(n, n, |i, j| g[(i, j)] / gram.trace() - row[i] * row[j] / total);
    let mut values = left.self_adjoint_eigenvalues(faer::Side::Lower).expect("eigenvalues");
    values.reverse();
    values[n_atoms - 1..].iter().map(|x| x.max(0.0)).sum()
}

#[test]
fn anchored_follows_task_weights() {
    let gram = gram_of(&sharing(80, 9, 0.2, |_| 1.0, 2));
    let weights: Vec<f64> = (0..9).map(|t| 0.2 + t as f64 * 0.3).collect();
    for n_atoms in [1, 4, 8, 9] {
        for coordinates in [Coordinates::Convex, Coordinates::Orthogonal] {
            let method = Method::Anchored(AnchoredOptions { weights: Some(weights.clone()) });
            let (found, _) = solved(&gram, &method, &options(n_atoms, false, coordinates));
            if coordinates == Coordinates::Convex {
                check_anchored("weighted", &found, &weights);
            }
            for rule in [Rule::Sum, Rule::Projected] {
                let told = edit_fidelity(&gram, &found, &weights, rule).expect("told");
                assert!(told.cosine > 1.0 - 1e-12, "M = {n_atoms}, {coordinates:?}, {rule:?}: {}", told.cosine);
            }
        }
    }
}

#[test]
fn exact_reaches_the_bound_where_a_positive_vector_exists() {
    // Gram matrices without a negative entry have Perron's; these others were found to have one.
    let cases: [(&str, Mat<f64>, Vec<usize>); 4] = [
        ("alike", sharing(60, 10, 0.5, |_| 1.0, 4), (1..=10).collect()),
        ("orthogonal", Mat::from_fn(30, 6, |x, t| f64::from(u8::from(x == t))), (1..=6).collect()),
        ("random, many atoms", gaussian(300, 20, 3), (8..=20).collect()),
        ("low rank", gaussian(3, 8, 10), (2..=8).collect()),
    ];
    for (name, v, ms) in cases {
        let gram = gram_of(&v);
        for n_atoms in ms {
            let (found, a) = solved(&gram, &Method::parse("exact").expect("known"), &SolveOptions::atoms(n_atoms));
            let excess = a.relative_loss - a.relative_bound;
            assert!(excess.abs() < 1e-12, "{name}, M = {n_atoms}: {excess:e} above the bound; {:?}", found.notes);
            assert!(found.notes.is_empty(), "{name}, M = {n_atoms}: {:?}", found.notes);
            assert!(found.encode.columns().all(|c| c.iter().all(|&b| b >= 0.0)));
            // The sum of atoms is the best the subspace has, or close to it where that would not be positive.
            assert!(a.sum.cosine >= a.projected.cosine - 0.15, "{name}, M = {n_atoms}: {a:?}");
        }
    }
}

#[test]
fn exact_says_so_where_it_cannot_and_still_beats_the_others() {
    let alternate = |t: usize| if t.is_multiple_of(2) { 1.0 } else { -1.0 };
    for (name, v) in [("negative", sharing(60, 8, 0.8, alternate, 9)), ("random", gaussian(60, 9, 3))] {
        let gram = gram_of(&v);
        for n_atoms in [2, 3] {
            let loss = |method: &Method| solved(&gram, method, &SolveOptions::atoms(n_atoms));
            let (found, exact) = loss(&Method::parse("exact").expect("known"));
            assert!(found.notes.iter().any(|note| note.contains("no positive vector")), "{name}: {:?}", found.notes);
            assert!(found.encode.columns().all(|c| c.iter().all(|&b| b >= 0.0)));
            for rival in ["anchored", "ae", "nmf", "cluster"] {
                let (_, other) = loss(&Method::parse(rival).expect("known"));
                assert!(exact.loss <= other.loss * (1.0 + 1e-6), "{name}, M = {n_atoms}: {rival} has a lower loss");
            }
            // The same again gives the same.
            assert_eq!(found, loss(&Method::parse("exact").expect("known")).0);
        }
    }
}

/// Orthogonal coordinates change the atoms, not what comes out of them.
#[test]
fn orthogonal_coordinates_keep_span_errors_and_sum() {
    for (name, v) in collections() {
        let gram = gram_of(&v);
        for method in ["anchored", "exact"].map(|name| Method::parse(name).expect("known")) {
            for n_atoms in some_ms(gram.n_tasks()) {
                let what = format!("{name}, {}, M = {n_atoms}", method.name());
                let (_, convex) = solved(&gram, &method, &options(n_atoms, false, Coordinates::Convex));
                let (found, turned) = solved(&gram, &method, &options(n_atoms, false, Coordinates::Orthogonal));
                // Convex atoms of tasks that differ by 1e6 in length are themselves exact only to a part of that.
                assert!((convex.relative_loss - turned.relative_loss).abs() < 1e-9, "{what}");
                assert!(turned.condition < 1.0 + 1e-6 || gram.trace() == 0.0, "{what}: condition {}", turned.condition);
                assert!(found.n_stored() <= n_atoms && found.n_stored() >= 1, "{what}");
                if name != "cancelling" {
                    assert!((convex.sum.cosine - turned.sum.cosine).abs() < 1e-8, "{what}");
                    assert!((convex.sum.norm_ratio - turned.sum.norm_ratio).abs() < 1e-7, "{what}");
                }
                for (a, b) in convex.rounding.iter().zip(&turned.rounding) {
                    assert!(b.worst <= a.worst.max(1e-5) * 1.0001, "{what}: {:?} {} > {}", a.dtype, b.worst, a.worst);
                }
            }
        }
    }
}

/// Tasks in another order: the same basis with its rows in that order, for methods without chance.
#[test]
fn nothing_depends_on_the_order_of_tasks() {
    let cases =
        [sharing(80, 9, 0.3, |_| 1.0, 21), gaussian(80, 8, 22), scaled(gaussian(60, 7, 23), |t| 1.0 + t as f64)];
    for v in cases {
        let n_tasks = v.ncols();
        let order: Vec<usize> = (0..n_tasks).map(|t| (t * 5 + 2) % n_tasks).collect();
        let gram = gram_of(&v);
        let shuffled = gram.subset(&order).expect("a permutation");
        for method in ["anchored", "exact", "pca", "identity"].map(|name| Method::parse(name).expect("known")) {
            for balance in [false, true] {
                let n_atoms = method.fixed_atoms(n_tasks).unwrap_or(n_tasks - 2);
                let (found, a) = solved(&gram, &method, &options(n_atoms, balance, Coordinates::Convex));
                let (other, b) = solved(&shuffled, &method, &options(n_atoms, balance, Coordinates::Convex));
                if found.notes.iter().any(|note| note.contains("search")) {
                    // Random starts are a matter of chance; what they find is not worse for the order.
                    assert!(
                        (a.relative_loss - b.relative_loss).abs() < 1e-4,
                        "{}: {} {}",
                        method.name(),
                        a.loss,
                        b.loss
                    );
                    continue;
                }
                for (to, &from) in order.iter().enumerate() {
                    let what = format!("{}, balance {balance}, task {from}", method.name());
                    assert!((a.relative_errors[from] - b.relative_errors[to]).abs() < 1e-10, "{what}");
                    for m in 0..found.n_stored() {
                        let identity = method.name() == "identity";
                        let (x, y) = (found.encode[(from, m)], other.encode[(to, if identity { 0 } else { m })]);
                        assert!(identity || (x - y).abs() < 1e-9, "{what}: B differs in column {m}: {x} {y}");
                    }
                }
                assert!((a.loss / b.loss - 1.0).abs() < 1e-9 || a.relative_loss < 1e-12);
            }
        }
    }
}

/// The scale of the tasks changes nothing but the units.
#[test]
fn nothing_depends_on_the_scale_of_tasks() {
    let v = sharing(60, 8, 0.3, |_| 1.0, 31);
    let (small, large) = (gram_of(&scaled(v.clone(), |_| 1e-12)), gram_of(&scaled(v, |_| 1e12)));
    for method in methods() {
        let n_atoms = method.fixed_atoms(8).unwrap_or(3);
        let ((_, a), (_, b)) = (
            solved(&small, &method, &SolveOptions::atoms(n_atoms)),
            solved(&large, &method, &SolveOptions::atoms(n_atoms)),
        );
        assert!(
            (a.relative_loss - b.relative_loss).abs() < 1e-7,
            "{}: {} {}",
            method.name(),
            a.relative_loss,
            b.relative_loss
        );
    }
}

#[test]
fn balance_lowers_the_mean_error_and_keeps_short_tasks() {
    // Nearly orthogonal tasks of unequal length: the short ones are dropped unless balanced.
    let v = scaled(gaussian(400, 8, 41), |t| if t < 4 { 10.0 } else { 0.1 });
    let gram = gram_of(&v);
    for name in ["anchored", "exact", "ae", "nmf", "pca"] {
        let method = Method::parse(name).expect("known");
        let (_, plain) = solved(&gram, &method, &options(4, false, Coordinates::Convex));
        let (found, balanced) = solved(&gram, &method, &options(4, true, Coordinates::Convex));
        // The mean of 'pca' is a fifth vector.
        assert!(plain.worst > if name == "pca" { 0.7 } else { 0.9 }, "{name}: {}", plain.worst);
        assert!(balanced.mean <= plain.mean + 1e-3, "{name}: {} {}", balanced.mean, plain.mean);
        assert!(found.balance);
        if name == "anchored" {
            check_anchored("balanced", &found, &[1.0; 8]);
        }
    }
    // 'exact' then has the lowest mean there is: that of the spectrum of the cosines.
    let gram = gram_of(&scaled(sharing(80, 8, 0.5, |_| 1.0, 42), |t| 1.0 + t as f64));
    let (_, balanced) = solved(&gram, &Method::parse("exact").expect("known"), &options(3, true, Coordinates::Convex));
    let cosines = Gram::new(gram.cosines()).expect("cosines are a Gram matrix");
    assert!((balanced.mean - cosines.spectrum().tail(3) / 8.0).abs() < 1e-12);
}

/// Rounding the atoms to a storage format adds what was predicted.
#[test]
fn rounding_adds_what_is_predicted() {
    let v = sharing(20_000, 6, 0.5, |_| 1.0, 51);
    let gram = gram_of(&v);
    for name in ["anchored", "identity"] {
        let method = Method::parse(name).expect("known");
        let (found, a) = solved(&gram, &method, &SolveOptions::atoms(method.fixed_atoms(6).unwrap_or(3)));
        let atoms = &v * &mat(&found.encode);
        for rounding in &a.rounding {
            let stored = |x: f64| match rounding.dtype {
                tvb_kernels::Dtype::F32 => f64::from(x as f32),
                tvb_kernels::Dtype::F16 => half::f16::from_f64(x).to_f64(),
                tvb_kernels::Dtype::Bf16 => half::bf16::from_f64(x).to_f64(),
                tvb_kernels::Dtype::F64 => x,
            };
            for t in 0..6 {
                let off = |x: usize| -> f64 {
                    (0..atoms.ncols()).map(|m| (stored(atoms[(x, m)]) - atoms[(x, m)]) * found.decode[(m, t)]).sum()
                };
                let added: f64 = (0..atoms.nrows()).map(|x| off(x).powi(2)).sum();
                let ratio = added / rounding.squared_errors[t];
                assert!(
                    (0.9..1.1).contains(&ratio),
                    "{name}, {:?}, task {t}: {ratio} of the predicted",
                    rounding.dtype
                );
            }
        }
        let bf16 = edit_fidelity(&gram, &found, &[1.0; 6], Rule::Projected).expect("told").rounding[1];
        assert!(bf16 > 0.0 && bf16 < 1e-4, "{name}: {bf16}");
    }
}

#[test]
fn clusters_are_found_and_counted() {
    // Three groups of tasks, each around its own direction.
    let own = gaussian(300, 12, 101);
    let centers = gaussian(300, 3, 102);
    let v = Mat::from_fn(300, 12, |x, t| 0.5 * own[(x, t)] + centers[(x, t % 3)]);
    let gram = gram_of(&v);
    let method = Method::Cluster(ClusterOptions { seed: 0, eigengap: true });
    let (found, a) = solved(&gram, &method, &SolveOptions::atoms(8));
    assert_eq!(found.n_stored(), 3, "{:?}", found.notes);
    for t in 0..12 {
        for m in 0..3 {
            assert_eq!(found.encode[(t, m)], if t % 3 == m { 0.25 } else { 0.0 }, "task {t}, cluster {m}");
        }
    }
    assert!(a.mean < 0.25);
}

/// Training options that leave the reference's path: all run, stay finite and lower the loss.
#[test]
fn every_training_option_trains() {
    use tvb::solve::{Activation, Anneal, ae};
    let gram = gram_of(&sharing(100, 8, 0.3, |_| 1.0, 111));
    let scaled = Matrix::from_fn(8, 8, |i, j| 64.0 / gram.trace() * gram.matrix()[(i, j)]);
    let base = || AeOptions { steps: Some(600), ..AeOptions::default() };
    let cases: Vec<(&str, AeOptions)> = vec![
        ("default", base()),
        ("anneal", AeOptions { anneal: Some(Anneal { every: 50, factor: 0.5 }), ..base() }),
        ("columns", AeOptions { batch_columns: Some(3), ..base() }),
        ("clip", AeOptions { grad_clip: Some(1e-3), ..base() }),
        ("decay", AeOptions { weight_decay: 1e-3, ..base() }),
        ("linear encoder", AeOptions { encoder: Activation::Linear, ..base() }),
        ("softmax decoder", AeOptions { decoder: Activation::Softmax, ..base() }),
        ("from a file", AeOptions { init: Some(own(&gaussian(8, 4, 5))), ..base() }),
    ];
    for (name, options) in cases {
        let trained = ae::train(&scaled, 4, &options, &[1, 600], &quiet).expect(name);
        assert_eq!(trained.losses.len(), 2);
        assert!(trained.losses[1] < 0.9 * trained.losses[0], "{name}: {:?}", trained.losses);
        for m in 0..4 {
            let sum: f64 = (0..8).map(|t| trained.encode[(t, m)]).sum();
            assert!(options.encoder == Activation::Linear || (sum - 1.0).abs() < 1e-12, "{name}");
        }
        if options.decoder == Activation::Softmax {
            assert!((0..8).all(|t| ((0..4).map(|m| trained.decode[(m, t)]).sum::<f64>() - 1.0).abs() < 1e-12));
        }
        let expected_tau = if name == "anneal" { 0.1 } else { 5.0 };
        assert!((trained.tau - expected_tau).abs() < 1e-12, "{name}: τ ends at {}", trained.tau);
        // The same seed gives the same training.
        assert_eq!(trained, ae::train(&scaled, 4, &options, &[1, 600], &quiet).expect(name));
    }
}

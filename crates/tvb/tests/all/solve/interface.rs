//! What callers of the solvers rely on beside the figures: the choice of M, tables, random atoms, refusals that state the
//! facts, and work that can be stopped.

use super::cases::{gaussian, gram_of, mat, own, scaled, sharing};
use faer::Mat;
use tvb::ErrorKind;
use tvb::matrix::Matrix;
use tvb::solve::{
    AeOptions, AnchoredOptions, Assessment, Coefficients, Coordinates, Generator, Gram, MaxError, Method, Parts, Rule,
    Rung, SolveOptions, Storage, TableCodes, TableOptions, assess, atoms_for_error, edit_fidelity, plan_table,
    random_coefficients, solve,
};

fn quiet(_: f64) -> bool {
    true
}

fn table(n_parameters: Option<u64>) -> TableOptions {
    TableOptions { n_parameters, ..TableOptions::new(SolveOptions::atoms(1)) }
}

fn options(n_atoms: usize, balance: bool, coordinates: Coordinates) -> SolveOptions {
    SolveOptions { n_atoms, balance, coordinates }
}

fn solved(gram: &Gram, method: &Method, options: &SolveOptions) -> (Coefficients, Assessment) {
    let found = solve(gram, method, options, &quiet).unwrap_or_else(|error| panic!("{}: {error}", method.name()));
    let assessed = assess(gram, &found).expect("assessed");
    (found, assessed)
}

#[test]
fn random_atoms_are_orthonormal_and_their_errors_true() {
    let (d, n_tasks, n_atoms) = (500, 6, 4);
    let v = gaussian(d, n_tasks, 61);
    let gram = gram_of(&v);
    let mut raw = Mat::zeros(d, n_atoms);
    for m in 0..n_atoms {
        let mut column = vec![0.0; d];
        Generator { seed: 9 }.fill(m, 0, &mut column);
        (0..d).for_each(|x| raw[(x, m)] = f64::from(column[x]));
    }
    let raw_gram = raw.transpose() * &raw;
    let raw_task = raw.transpose() * &v;
    let found = random_coefficients(&gram, 9, &own(&raw_gram), &own(&raw_task)).expect("solved");
    let generated = found.generated.as_ref().expect("generated");
    let atoms = &raw * &mat(&generated.mix);
    let product = atoms.transpose() * &atoms;
    for i in 0..n_atoms {
        for j in 0..n_atoms {
            assert!((product[(i, j)] - f64::from(u8::from(i == j))).abs() < 1e-12, "atoms {i} and {j}");
        }
    }
    let recovered = &atoms * &mat(&found.decode);
    let assessed = assess(&gram, &found).expect("assessed");
    for t in 0..n_tasks {
        let error: f64 = (0..d).map(|x| (recovered[(x, t)] - v[(x, t)]).powi(2)).sum();
        assert!((error / assessed.squared_errors[t] - 1.0).abs() < 1e-10, "task {t}");
        let weights: Vec<f64> = (0..n_atoms).map(|m| found.decode[(m, t)]).collect();
        let direct = generated.raw_weights(&weights);
        let again: f64 = (0..d)
            .map(|x| ((0..n_atoms).map(|m| raw[(x, m)] * direct[m]).sum::<f64>() - recovered[(x, t)]).abs())
            .sum();
        assert!(again < 1e-9);
    }
    assert!(assessed.rounding.iter().all(|r| r.worst == 0.0), "nothing is stored, so nothing is rounded");
    // One basis is near what a table expects of all of them.
    let rows =
        plan_table(&gram, &[Method::Random { seed: 9 }], &[n_atoms], &table(Some(d as u64)), &quiet).expect("rows");
    assert!(rows[0].expected && (rows[0].mean_error - assessed.mean).abs() < 0.01 && rows[0].n_stored == 0);
    let wrong = random_coefficients(&gram, 9, &own(&raw_gram), &own(&raw_gram));
    assert_eq!(wrong.expect_err("shapes differ").kind(), ErrorKind::Rejected);
}

#[test]
fn the_smallest_m_that_meets_a_target_is_found() {
    let gram = gram_of(&scaled(sharing(200, 12, 0.3, |_| 1.0, 71), |t| 1.0 + (t % 3) as f64));
    for name in ["anchored", "exact", "pca", "cluster", "nmf"] {
        let method = Method::parse(name).expect("known");
        for limit in [0.0, 0.05, 0.3, 0.6, 2.0] {
            for target in [MaxError::Mean(limit), MaxError::Worst(limit)] {
                let found = atoms_for_error(&gram, &method, &SolveOptions::atoms(1), target, &quiet)
                    .expect("M = T always does");
                let meets = |m: usize| target.is_met(&solved(&gram, &method, &SolveOptions::atoms(m)).1);
                assert!(meets(found), "{name}, {target:?}: M = {found} does not");
                assert!((1..found).all(|m| !meets(m)), "{name}, {target:?}: a smaller M than {found} does");
            }
        }
    }
    let target = MaxError::Worst(0.0);
    let identity = Method::parse("identity").expect("known");
    assert_eq!(atoms_for_error(&gram, &identity, &SolveOptions::atoms(1), target, &quiet).expect("M = T"), 12);
    let sloppy = Method::Ae(AeOptions { steps: Some(1), paper: true, ..AeOptions::default() });
    let error =
        atoms_for_error(&gram, &sloppy, &SolveOptions::atoms(1), target, &quiet).expect_err("one step is not enough");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    let error = atoms_for_error(&gram, &identity, &SolveOptions::atoms(1), MaxError::Mean(f64::NAN), &quiet);
    assert_eq!(error.expect_err("not a number").kind(), ErrorKind::Usage);
}

#[test]
fn many_tasks_are_searched_by_halving() {
    let gram = gram_of(&sharing(200, 140, 0.3, |_| 1.0, 72));
    let method = Method::parse("anchored").expect("known");
    let found = atoms_for_error(&gram, &method, &SolveOptions::atoms(1), MaxError::Mean(0.3), &quiet).expect("found");
    let mean = |m: usize| solved(&gram, &method, &SolveOptions::atoms(m)).1.mean;
    assert!(mean(found) <= 0.3 && mean(found - 1) > 0.3, "M = {found}");
}

#[test]
fn a_table_has_a_row_for_every_method_and_m() {
    let gram = gram_of(&sharing(100, 6, 0.3, |_| 1.0, 81));
    let rows = plan_table(&gram, &Method::all(), &[1, 3, 6], &table(Some(1000)), &quiet).expect("rows");
    assert_eq!(rows.len(), 8 * 3 + 1, "identity has one row");
    for row in &rows {
        assert!(row.loss_over_bound >= 1.0 - 1e-9, "{} at {}: {}", row.method, row.n_atoms, row.loss_over_bound);
        let stored = match row.method {
            "random" => 0,
            "pca" => row.n_atoms.min(5) + 1,
            _ => row.n_atoms,
        };
        assert_eq!(row.n_stored, stored, "{}", row.method);
        assert_eq!(row.rounding.len(), if row.expected { 0 } else { 3 });
    }
    let without_d = plan_table(&gram, &Method::all(), &[2], &table(None), &quiet).expect("rows");
    assert!(without_d.iter().all(|row| row.method != "random"));
    let error = plan_table(&gram, &Method::all(), &[7], &table(Some(9)), &quiet).expect_err("too many");
    assert_eq!(error.message(), "M = 7 atoms for 6 tasks: expected 1 to 6");
}

#[test]
fn a_table_has_coded_rows_beside_the_others() {
    let gram = gram_of(&sharing(100, 6, 0.3, |_| 1.0, 82));
    let rung = |text: &str| text.parse::<Rung>().expect("a rung");
    let mut options = table(None);
    options.expressions = vec![vec![1.0, -1.0, 0.0, 0.0, 0.0, 0.0], vec![1.0; 6]];
    options.codes = Some(TableCodes {
        parts: Parts { coded: gram.matrix().clone(), raw: Matrix::zeros(6, 6) },
        tasks: vec![rung("0.5+4"), rung("2+3")],
        mixtures: vec![rung("2+3"), rung("8+off")],
        kept: vec![vec![1.0; 6]],
    });
    let methods = ["exact", "identity"].map(|name| Method::parse(name).expect("known"));
    let rows = plan_table(&gram, &methods, &[1, 4], &options, &quiet).expect("rows");
    let names: Vec<String> = rows.iter().map(|row| format!("{} {} {}", row.method, row.n_atoms, row.storage)).collect();
    let expected = [
        "identity 6 0.5+4",
        "identity 6 2+3",
        "exact 1 f32",
        "exact 1 2+off",
        "exact 1 8+off",
        "exact 4 f32",
        "exact 4 2+3",
        "exact 4 8+off",
        "identity 6 f32",
        "identity 6 8+off",
    ];
    assert_eq!(names, expected);
    for row in &rows {
        assert_eq!((row.gains.len(), row.noises.len(), row.expressions.len()), (6, 6, 2), "{}", row.method);
        assert!(row.worst_noise() >= row.mean_noise() && row.worst_gain() <= row.mean_gain() + 1e-12);
        let worst = (0..6).map(|t| (1.0 - row.gains[t]).powi(2) + row.noises[t]).fold(0.0, f64::max);
        assert!((worst - row.worst_error).abs() < 1e-9, "{}", row.method);
        assert!((row.expressions[1].cosine - row.projected.cosine).abs() < 1e-12);
        assert_eq!(row.rounding.is_empty(), row.storage != Storage::Plain(tvb_kernels::Dtype::F32));
    }
    assert!(rows[0].notes.iter().any(|note| note.contains("below 1 bit")) && rows[1].notes.is_empty());
    // Coding adds noise and takes nothing away.
    assert!(rows[6].worst_noise() > rows[5].worst_noise() && rows[6].gains == rows[5].gains);
    assert!(rows[1].mean_gain() > 0.999 && rows[1].worst_noise() < 0.14 && rows[8].worst_noise() < 1e-9);
}

#[test]
fn what_does_not_fit_is_refused_with_the_facts() {
    let gram = gram_of(&gaussian(50, 8, 91));
    let anchored = |weights: &[f64]| Method::Anchored(AnchoredOptions { weights: Some(weights.to_vec()) });
    let ae = |change: &dyn Fn(&mut AeOptions)| {
        let mut options = AeOptions::default();
        change(&mut options);
        Method::Ae(options)
    };
    let orthogonal = options(2, false, Coordinates::Orthogonal);
    let cases: Vec<(Method, SolveOptions, ErrorKind, &str)> = vec![
        (Method::Pca, SolveOptions::atoms(9), ErrorKind::Rejected, "M = 9 atoms for 8 tasks: expected 1 to 8"),
        (Method::Pca, SolveOptions::atoms(0), ErrorKind::Rejected, "M = 0 atoms for 8 tasks: expected 1 to 8"),
        (Method::Identity, SolveOptions::atoms(4), ErrorKind::Rejected, "expected 8, one for each task"),
        (anchored(&[1.0; 7]), SolveOptions::atoms(4), ErrorKind::Rejected, "7 task weights for 8 tasks"),
        (
            anchored(&[1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
            SolveOptions::atoms(4),
            ErrorKind::Rejected,
            "task number 3 is 0",
        ),
        (anchored(&[f64::NAN; 8]), SolveOptions::atoms(4), ErrorKind::Rejected, "task number 0 is NaN"),
        (Method::Random { seed: 0 }, SolveOptions::atoms(4), ErrorKind::Usage, "needs the checkpoints"),
        (Method::Pca, orthogonal, ErrorKind::Usage, "expected 'anchored' or 'exact'"),
        (ae(&|o| o.tau = 0.0), SolveOptions::atoms(4), ErrorKind::Usage, "tau is 0"),
        (ae(&|o| o.batch_columns = Some(9)), SolveOptions::atoms(4), ErrorKind::Usage, "9 columns a step for 8 tasks"),
        (ae(&|o| o.learning_rate = -1.0), SolveOptions::atoms(4), ErrorKind::Usage, "learning rate is -1"),
        (ae(&|o| o.init = Some(Matrix::zeros(8, 3))), SolveOptions::atoms(4), ErrorKind::Rejected, "expected 8 x 4"),
    ];
    for (method, options, kind, part) in cases {
        let error = solve(&gram, &method, &options, &quiet).expect_err(part);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(part), "{error}");
    }
    let error = Method::parse("anchord").expect_err("no such method");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("'anchored'") && hint.contains("nmf")), "{error:?}");
    for method in Method::all() {
        assert_eq!(Method::parse(method.name()).expect("known"), method);
    }
}

#[test]
fn a_matrix_that_is_no_gram_matrix_is_refused() {
    let from = |rows: &[&[f64]]| Matrix::from_fn(rows.len(), rows[0].len(), |i, j| rows[i][j]);
    let cases: [(&[&[f64]], &str); 7] = [
        (&[&[1.0, 0.0]], "expected a square"),
        (&[&[1.0, f64::NAN], &[0.0, 1.0]], "(0, 1) is NaN"),
        (&[&[1.0, 0.2], &[0.3, 1.0]], "expected them to be equal"),
        (&[&[-1.0]], "expected a squared norm"),
        (&[&[1.0, 2.0], &[2.0, 1.0]], "the product of the two norms"),
        (&[&[0.0, 0.1], &[0.1, 1.0]], "the product of the two norms"),
        (&[&[1e308, 0.0], &[0.0, 1e308]], "more than f64 can hold"),
    ];
    for (rows, part) in cases {
        let error = Gram::new(from(rows)).expect_err(part);
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains(part), "{error} / {part}");
    }
    assert_eq!(Gram::new(Matrix::zeros(0, 0)).expect_err("empty").kind(), ErrorKind::Rejected);
    // Every pair is possible, all three together are not.
    let indefinite = Gram::new(Matrix::from_fn(3, 3, |i, j| if i == j { 1.0 } else { -0.9 })).expect("pairs are fine");
    let error = solve(&indefinite, &Method::Pca, &SolveOptions::atoms(1), &quiet).expect_err("indefinite");
    assert!(error.message().contains("expected none below zero"), "{error}");
    let gram = gram_of(&gaussian(9, 3, 1));
    assert!(gram.subset(&[]).is_err() && gram.subset(&[3]).is_err());
}

#[test]
fn long_work_can_be_stopped() {
    let gram = gram_of(&gaussian(60, 9, 3));
    for name in ["ae", "exact", "nmf", "cluster"] {
        let stopped = solve(&gram, &Method::parse(name).expect("known"), &SolveOptions::atoms(2), &|_| false);
        assert_eq!(stopped.expect_err(name).kind(), ErrorKind::Interrupted, "{name}");
    }
    let told = std::cell::RefCell::new(Vec::new());
    let listen = |done: f64| {
        told.borrow_mut().push(done);
        true
    };
    solve(&gram, &Method::parse("ae").expect("known"), &SolveOptions::atoms(2), &listen).expect("solved");
    let told = told.into_inner();
    assert!(told.len() > 10 && told.windows(2).all(|w| w[0] <= w[1]) && told.iter().all(|x| (0.0..=1.0).contains(x)));
}

#[test]
fn coefficients_that_were_read_are_checked() {
    let good = || (Matrix::from_fn(3, 2, |t, m| (t + m) as f64), Matrix::from_fn(2, 3, |m, t| (t + 2 * m) as f64));
    let (encode, decode) = good();
    let found = Coefficients::from_parts("pca", encode, decode).expect("fits");
    assert_eq!((found.n_tasks(), found.n_stored(), found.n_atoms), (3, 2, 1));
    assert_eq!(found.weights(&[1.0; 3], Rule::Sum), [1.0, 0.0], "the mean takes no part in the plain sum");
    let (encode, _) = good();
    assert!(Coefficients::from_parts("anchored", encode.clone(), encode).is_err());
    let (mut encode, decode) = good();
    encode[(0, 0)] = f64::INFINITY;
    assert!(Coefficients::from_parts("anchored", encode, decode).is_err());
    let (encode, decode) = good();
    assert!(Coefficients::from_parts("magic", encode.clone(), decode.clone()).is_err());
    let found = Coefficients::from_parts("anchored", encode, decode).expect("fits");
    assert!(assess(&gram_of(&gaussian(9, 4, 1)), &found).is_err(), "another number of tasks");
    assert!(edit_fidelity(&gram_of(&gaussian(9, 3, 1)), &found, &[1.0; 2], Rule::Sum).is_err());
}

//! The solvers against figures of the method's published reference implementation (tests/fixtures/reference).

use super::cases::{matrix, numbers, reference};
use tvb::solve::{AeOptions, Coefficients, Gram, Method, SolveOptions, ae, assess, solve};

fn quiet(_: f64) -> bool {
    true
}

fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / expected.abs().max(1e-300);
    assert!(error <= tolerance, "{what}: {found} is not {expected} (relative error {error:.1e})");
}

fn gram() -> Gram {
    Gram::new(matrix(&reference()["gram"])).expect("the reference's Gram matrix")
}

#[test]
fn eigenvalues_are_the_reference_s() {
    let gram = gram();
    for (found, expected) in gram.spectrum().values.iter().zip(numbers(&reference()["eigenvalues"])) {
        close("eigenvalue", *found, expected, 1e-12);
    }
}

#[test]
fn the_autoencoder_follows_the_reference_s_losses() {
    let run = &reference()["runs"]["AE"];
    let expected = run["loss_f64_before_step"].as_object().expect("losses by step");
    let record: Vec<usize> = expected.keys().map(|step| step.parse().expect("a step")).collect();
    let options = AeOptions { init: Some(matrix(&run["A0"])), ..AeOptions::paper() };
    let trained = ae::train(gram().matrix(), 4, &options, &record, &quiet).expect("training");
    for ((step, expected), found) in expected.iter().zip(&trained.losses) {
        close(&format!("loss before step {step}"), *found, expected.as_f64().expect("a loss"), 1e-6);
    }
    // The reference trained in f32; its B and W are those of the same optimum.
    let (encode, decode) = (matrix(&run["B"]), matrix(&run["W"]));
    for m in 0..4 {
        for t in 0..8 {
            assert!((trained.encode[(t, m)] - encode[(t, m)]).abs() < 1e-3, "B[{t}, {m}]");
            assert!((trained.decode[(m, t)] - decode[(m, t)]).abs() < 2e-2, "W[{m}, {t}]");
        }
    }
}

#[test]
fn solving_by_the_paper_s_recipe_is_that_training() {
    let run = &reference()["runs"]["AE"];
    let options = AeOptions { init: Some(matrix(&run["A0"])), ..AeOptions::paper() };
    let gram = gram();
    let found = solve(&gram, &Method::Ae(options), &SolveOptions::atoms(4), &quiet).expect("solved");
    let loss = assess(&gram, &found).expect("assessed").loss;
    close("final loss", loss, run["loss"].as_f64().expect("a loss"), 1e-4);
}

/// Errors and recovered inner products that follow from the reference's own B and W.
#[test]
fn the_autoencoder_s_figures_follow_from_its_coefficients() {
    let run = &reference()["runs"]["AE"];
    let found = Coefficients::from_parts("ae", matrix(&run["B"]), matrix(&run["W"])).expect("coefficients");
    // Atoms on disk are f32, and W is up to a hundred times larger than what it recovers.
    compare(&gram(), &found, run, 2e-4);
    let atoms = matrix(&run["gram_of_atoms"]);
    let assessed = assess(&gram(), &found).expect("assessed");
    for m in 0..4 {
        close("atom norm", assessed.atom_norms[m].powi(2), atoms[(m, m)], 1e-5);
    }
}

#[test]
fn pca_is_the_reference_s() {
    let run = &reference()["runs"]["PCA"];
    let gram = gram();
    let found = solve(&gram, &Method::Pca, &SolveOptions::atoms(4), &quiet).expect("solved");
    assert_eq!((found.n_atoms, found.n_stored()), (4, 5), "four components and the mean");
    compare(&gram, &found, run, 1e-5);
    let atoms = matrix(&run["gram_of_atoms"]);
    let assessed = assess(&gram, &found).expect("assessed");
    for m in 0..4 {
        close("component norm", assessed.atom_norms[m].powi(2), atoms[(m, m)], 1e-5);
    }
}

#[test]
fn a_sample_recovers_its_own_tasks() {
    let picked: Vec<usize> =
        numbers(&reference()["runs"]["RandomSample"]["selected"]).iter().map(|x| *x as usize).collect();
    let gram = gram();
    let atoms = matrix(&reference()["runs"]["RandomSample"]["gram_of_atoms"]);
    let subset = gram.subset(&picked).expect("a subset");
    for i in 0..4 {
        for j in 0..4 {
            close("product of two atoms", subset.matrix()[(i, j)], atoms[(i, j)], 1e-12);
        }
    }
}

fn compare(gram: &Gram, found: &Coefficients, run: &serde_json::Value, tolerance: f64) {
    let assessed = assess(gram, found).expect("assessed");
    let dots = matrix(&run["recovered_dot_task"]);
    let largest: f64 = (0..8).map(|t| gram.matrix()[(t, t)]).fold(0.0, f64::max);
    for t in 0..8 {
        close("relative error", assessed.relative_errors[t], numbers(&run["rel_err"])[t], tolerance * 10.0);
        close("squared norm", assessed.recovered_norms[t].powi(2), numbers(&run["recovered_sq_norm"])[t], tolerance);
        for s in 0..8 {
            let off = (assessed.recovered_dot_task[(t, s)] - dots[(t, s)]).abs();
            assert!(off < tolerance * largest, "recovered {t} x task {s}: off by {off:e}");
        }
    }
}

/// What the reference reached with four atoms, and where every method here stands beside it.
#[test]
fn every_method_is_at_least_as_good_as_the_reference_allows() {
    let gram = gram();
    let bound = gram.spectral_bound(4);
    let ratio = |method: &Method| {
        let found = solve(&gram, method, &SolveOptions::atoms(4), &quiet).expect("solved");
        assess(&gram, &found).expect("assessed").loss / bound
    };
    let reference = reference()["runs"]["AE"]["loss"].as_f64().expect("a loss") / bound;
    for (name, most) in [("exact", 1.0 + 1e-9), ("anchored", 1.1), ("ae", reference), ("nmf", 2.0), ("cluster", 4.0)] {
        let found = ratio(&Method::parse(name).expect("a method"));
        assert!(found >= 1.0 - 1e-9 && found <= most, "{name}: loss {found} times the bound, expected at most {most}");
    }
}

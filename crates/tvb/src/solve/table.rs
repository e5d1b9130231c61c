//! Every method at every M, side by side: what it would store and lose. Nothing but the Gram matrix is read.

use super::{AeOptions, Coordinates, ExactOptions, Fidelity, Gram, Method, Rounding, SolveOptions, assess, solve};
use crate::error::Result;

/// One method at one M.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    /// The method's name.
    pub method: &'static str,
    /// M as asked for.
    pub n_atoms: usize,
    /// Vectors on disk: M, M + 1 for `pca`, 0 for `random`.
    pub n_stored: usize,
    /// L.
    pub loss: f64,
    /// L* for as many vectors as the recovery uses.
    pub spectral_bound: f64,
    /// L/L*; 1 where both are zero to rounding, infinite where only L* is.
    pub loss_over_bound: f64,
    /// L·T²/tr G.
    pub relative_loss: f64,
    /// L*·T²/tr G.
    pub relative_bound: f64,
    /// Mean of δt²/‖τt‖².
    pub mean_error: f64,
    /// Largest of δt²/‖τt‖².
    pub worst_error: f64,
    /// The task it belongs to.
    pub worst_task: usize,
    /// Adding all tasks by the rule `projected`.
    pub projected: Fidelity,
    /// Adding all tasks by the rule `sum`.
    pub sum: Fidelity,
    /// λmax/λmin of the atoms' Gram.
    pub condition: f64,
    /// What storage in f32, bf16 and f16 adds.
    pub rounding: Vec<Rounding>,
    /// Whether the figures are expectations over chance (`random`), not those of one basis.
    pub expected: bool,
    /// What a user must be told.
    pub notes: Vec<String>,
}

/// Steps of `ae` in a table unless the options name another number: a tenth of a second's work at most for twenty tasks,
/// and a loss within a few percent of where the full training ends.
const TABLE_STEPS: usize = 1000;
/// Losses below this part of tr G/T² are rounding.
const NOTHING: f64 = 1e-13;

/// A row for every method and every M of `ms`, in that order; `identity` has its one row at M = T. Rows of `random` are
/// expectations and need `n_parameters` (d); without it they are left out. `options.n_atoms` is not looked at, and its
/// coordinates only where the method has them. `ae` trains for fewer steps here unless its options name a number, and a
/// search of `exact` makes no random starts. `progress` is told the part done, 0 to 1, and stops the work by answering false.
///
/// # Errors
/// As [`solve`].
pub fn plan_table(
    gram: &Gram,
    methods: &[Method],
    ms: &[usize],
    options: &SolveOptions,
    n_parameters: Option<u64>,
    progress: &dyn Fn(f64) -> bool,
) -> Result<Vec<PlanRow>> {
    let n_tasks = gram.n_tasks();
    let mut jobs: Vec<(&Method, usize)> = Vec::new();
    for method in methods {
        match method.fixed_atoms(n_tasks) {
            Some(n_atoms) => jobs.push((method, n_atoms)),
            None => jobs.extend(ms.iter().map(|&n_atoms| (method, n_atoms))),
        }
    }
    let mut rows = Vec::with_capacity(jobs.len());
    for (number, &(method, n_atoms)) in jobs.iter().enumerate() {
        let done = |part: f64| progress((number as f64 + part) / jobs.len() as f64);
        if !method.stores_atoms() {
            super::check_atoms(n_atoms, n_tasks)?;
            rows.extend(n_parameters.map(|d| expected_random(gram, n_atoms, d)));
            continue;
        }
        let spans_only = matches!(method, Method::Anchored(_) | Method::Exact(_));
        let coordinates = if spans_only { options.coordinates } else { Coordinates::Convex };
        rows.push(row(gram, method, &SolveOptions { n_atoms, coordinates, ..*options }, &done)?);
    }
    Ok(rows)
}

fn row(gram: &Gram, method: &Method, options: &SolveOptions, progress: &dyn Fn(f64) -> bool) -> Result<PlanRow> {
    let found = match method {
        Method::Ae(own) if own.steps.is_none() => {
            let n_steps = TABLE_STEPS.min(super::ae::default_steps(gram.n_tasks()));
            let shorter = Method::Ae(AeOptions { steps: Some(n_steps), ..own.clone() });
            let mut found = solve(gram, &shorter, options, progress)?;
            found.notes.push(format!("trained for {n_steps} steps in this table"));
            found
        }
        // Where it has to search, the fixed starts find all but a trifle.
        Method::Exact(own) => solve(gram, &Method::Exact(ExactOptions { restarts: 0, ..*own }), options, progress)?,
        _ => solve(gram, method, options, progress)?,
    };
    let assessed = assess(gram, &found)?;
    Ok(PlanRow {
        method: method.name(),
        n_atoms: options.n_atoms,
        n_stored: found.n_stored(),
        loss: assessed.loss,
        spectral_bound: assessed.spectral_bound,
        loss_over_bound: over(gram, assessed.loss, assessed.spectral_bound),
        relative_loss: assessed.relative_loss,
        relative_bound: assessed.relative_bound,
        mean_error: assessed.mean,
        worst_error: assessed.worst,
        worst_task: assessed.worst_task,
        projected: assessed.projected,
        sum: assessed.sum,
        condition: assessed.condition,
        rounding: assessed.rounding,
        expected: false,
        notes: found.notes,
    })
}

/// L/L*, with what is only rounding taken as zero.
fn over(gram: &Gram, loss: f64, bound: f64) -> f64 {
    let nothing = NOTHING * gram.trace() / (gram.n_tasks() as f64).powi(2);
    match (loss > nothing, bound > nothing) {
        (_, true) => loss / bound,
        (true, false) => f64::INFINITY,
        (false, false) => 1.0,
    }
}

/// A direction drawn at random holds 1/d of any vector's squared length, on average.
fn expected_random(gram: &Gram, n_atoms: usize, n_parameters: u64) -> PlanRow {
    let held = (n_atoms as f64 / n_parameters.max(1) as f64).min(1.0);
    let loss = (1.0 - held) * gram.trace() / (gram.n_tasks() as f64).powi(2);
    let spectral_bound = gram.spectral_bound(n_atoms);
    let projected = Fidelity { cosine: held.sqrt(), norm_ratio: held.sqrt(), rounding: [0.0; 3] };
    let total = super::linear::form(gram.view(), &vec![1.0; gram.n_tasks()], &vec![1.0; gram.n_tasks()]).max(0.0);
    let sum_ratio = if total > 0.0 { (n_atoms as f64 / total).sqrt() } else { f64::INFINITY };
    let moving = gram.norms().iter().position(|norm| *norm > 0.0);
    let worst_error = if moving.is_some() { 1.0 - held } else { 0.0 };
    let n_moving = gram.norms().iter().filter(|norm| **norm > 0.0).count();
    PlanRow {
        method: "random",
        n_atoms,
        n_stored: 0,
        loss,
        spectral_bound,
        loss_over_bound: over(gram, loss, spectral_bound),
        relative_loss: if gram.trace() > 0.0 { 1.0 - held } else { 0.0 },
        relative_bound: if gram.trace() > 0.0 { gram.spectrum().tail(n_atoms) / gram.trace() } else { 0.0 },
        mean_error: worst_error * n_moving as f64 / gram.n_tasks() as f64,
        worst_error,
        worst_task: moving.unwrap_or(0),
        projected,
        sum: Fidelity { cosine: 0.0, norm_ratio: sum_ratio, rounding: [0.0; 3] },
        condition: 1.0,
        rounding: Vec::new(),
        expected: true,
        notes: vec!["expected figures: random atoms are made from a seed and never stored".to_owned()],
    }
}

//! Every method at every M, side by side: what it would store and lose, as it is and coded. Nothing but the Gram matrix is read.

use super::assess_coded::{Parts, coded_edit_fidelity};
use super::identity::as_they_are;
use super::ladder::Rung;
use super::mixtures::Storage;
use super::{
    AeOptions, Assessment, Coefficients, Coordinates, ExactOptions, Fidelity, Gram, Method, Rounding, Rule,
    SolveOptions, assess, edit_fidelity, solve,
};
use crate::error::Result;
use tvb_kernels::Dtype;

/// What a table shows.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// What every method is told; `n_atoms` is not looked at, and the coordinates only where the method has them.
    pub solve: SolveOptions,
    /// d: rows of `random` are expectations and need it; without it they are left out.
    pub n_parameters: Option<u64>,
    /// Which coded rows there are.
    pub codes: Option<TableCodes>,
    /// \[n_expressions\]\[n_tasks\]: edits whose fidelity is told.
    pub expressions: Vec<Vec<f64>>,
}

impl TableOptions {
    /// Methods and nothing else.
    pub fn new(solve: SolveOptions) -> TableOptions {
        TableOptions { solve, n_parameters: None, codes: None, expressions: Vec::new() }
    }
}

/// The coded rows of a table.
#[derive(Clone, Debug)]
pub struct TableCodes {
    /// The Gram matrix, taken apart.
    pub parts: Parts,
    /// Rungs on which the tasks are shown coded as they are.
    pub tasks: Vec<Rung>,
    /// Rungs on which the atoms of every method are shown too.
    pub mixtures: Vec<Rung>,
    /// \[n_kept\]\[n_tasks\]: the edits that a shared column keeps.
    pub kept: Vec<Vec<f64>>,
}

/// One method at one M.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    /// The method's name.
    pub method: &'static str,
    /// M as asked for.
    pub n_atoms: usize,
    /// Vectors on disk: M, M + 1 for `pca`, 0 for `random`; shared columns are not counted.
    pub n_stored: usize,
    /// How they are stored: as f32 or coded.
    pub storage: Storage,
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
    /// \[n_tasks\]: ⟨τt, τ̂t⟩/‖τt‖².
    pub gains: Vec<f64>,
    /// \[n_tasks\]: ‖τ̂t − gain·τt‖²/‖τt‖².
    pub noises: Vec<f64>,
    /// Adding all tasks by the rule `projected`.
    pub projected: Fidelity,
    /// Adding all tasks by the rule `sum`.
    pub sum: Fidelity,
    /// The edits asked for, by the rule `projected`.
    pub expressions: Vec<Fidelity>,
    /// λmax/λmin of the atoms' Gram.
    pub condition: f64,
    /// What storage in f32, bf16 and f16 adds; empty where the atoms are coded.
    pub rounding: Vec<Rounding>,
    /// Whether the figures are expectations over chance (`random`), not those of one basis.
    pub expected: bool,
    /// What a user must be told.
    pub notes: Vec<String>,
}

impl PlanRow {
    /// Mean of the gains.
    pub fn mean_gain(&self) -> f64 {
        mean(&self.gains)
    }

    /// The gain that is furthest from 1.
    pub fn worst_gain(&self) -> f64 {
        self.gains
            .iter()
            .fold(1.0, |worst: f64, gain| if (gain - 1.0).abs() > (worst - 1.0).abs() { *gain } else { worst })
    }

    /// Mean of the noises.
    pub fn mean_noise(&self) -> f64 {
        mean(&self.noises)
    }

    /// The largest of the noises.
    pub fn worst_noise(&self) -> f64 {
        self.noises.iter().fold(0.0, |most: f64, noise| most.max(*noise))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Steps of `ae` in a table unless the options name another number: a tenth of a second's work at most for twenty tasks,
/// and a loss within a few percent of where the full training ends.
const TABLE_STEPS: usize = 1000;
/// Losses below this part of tr G/T² are rounding.
const NOTHING: f64 = 1e-13;

/// Rows for the tasks coded as they are, then for every method and every M of `ms`, in that order, each followed by its coded
/// rows; `identity` has its one M. `ae` trains for fewer steps here unless its options name a number, and a search of `exact`
/// makes no random starts. `progress` is told the part done, 0 to 1, and stops the work by answering false.
///
/// # Errors
/// As [`solve`]. Rejected: expressions or parts of another number of tasks.
pub fn plan_table(
    gram: &Gram,
    methods: &[Method],
    ms: &[usize],
    options: &TableOptions,
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
    if let Some(codes) = &options.codes {
        let (name, found) = (Method::Identity.name(), as_they_are(n_tasks));
        coded_rows(gram, name, &found, &assess(gram, &found)?, codes, &codes.tasks, options, &mut rows)?;
    }
    for (number, &(method, n_atoms)) in jobs.iter().enumerate() {
        let done = |part: f64| progress((number as f64 + part) / jobs.len() as f64);
        if !method.stores_atoms() {
            super::check_atoms(n_atoms, n_tasks)?;
            rows.extend(options.n_parameters.map(|d| expected_random(gram, n_atoms, d, options.expressions.len())));
            continue;
        }
        let spans_only = matches!(method, Method::Anchored(_) | Method::Exact(_));
        let coordinates = if spans_only { options.solve.coordinates } else { Coordinates::Convex };
        let found = found(gram, method, &SolveOptions { n_atoms, coordinates, ..options.solve }, &done)?;
        let assessed = assess(gram, &found)?;
        let edit = |alpha: &Vec<f64>| edit_fidelity(gram, &found, alpha, Rule::Projected);
        let expressions = options.expressions.iter().map(edit).collect::<Result<_>>()?;
        let storage = Storage::Plain(Dtype::F32);
        if let Some(codes) = options.codes.as_ref().filter(|codes| !codes.mixtures.is_empty()) {
            let mut coded = Vec::new();
            // The tasks as they are have their rows at the top.
            let is_new = |rung: &&Rung| !matches!(method, Method::Identity) || !codes.tasks.contains(rung);
            let rungs: Vec<Rung> = codes.mixtures.iter().filter(is_new).copied().collect();
            coded_rows(gram, method.name(), &found, &assessed, codes, &rungs, options, &mut coded)?;
            rows.push(row(gram, method.name(), &found, assessed, storage, expressions));
            rows.append(&mut coded);
        } else {
            rows.push(row(gram, method.name(), &found, assessed, storage, expressions));
        }
    }
    Ok(rows)
}

fn found(gram: &Gram, method: &Method, options: &SolveOptions, progress: &dyn Fn(f64) -> bool) -> Result<Coefficients> {
    match method {
        Method::Ae(own) if own.steps.is_none() => {
            let n_steps = TABLE_STEPS.min(super::ae::default_steps(gram.n_tasks()));
            let shorter = Method::Ae(AeOptions { steps: Some(n_steps), ..own.clone() });
            let mut found = solve(gram, &shorter, options, progress)?;
            found.notes.push(format!("trained for {n_steps} steps in this table"));
            Ok(found)
        }
        // Where it has to search, the fixed starts find all but a trifle.
        Method::Exact(own) => solve(gram, &Method::Exact(ExactOptions { restarts: 0, ..*own }), options, progress),
        _ => solve(gram, method, options, progress),
    }
}

/// A row for each of these rungs.
#[expect(clippy::too_many_arguments, reason = "what one basis is, and what is shown of it")]
fn coded_rows(
    gram: &Gram,
    method: &'static str,
    found: &Coefficients,
    assessed: &Assessment,
    codes: &TableCodes,
    rungs: &[Rung],
    options: &TableOptions,
    rows: &mut Vec<PlanRow>,
) -> Result<()> {
    let sizes = codes.parts.sizes(found);
    for rung in rungs.iter().map(|rung| rung.of(found.n_stored())) {
        let coding = rung.coding(found, &codes.kept, 0);
        let edit = |alpha: &Vec<f64>| coded_edit_fidelity(gram, found, &coding, &sizes, alpha, Rule::Projected);
        let expressions = options.expressions.iter().map(edit).collect::<Result<_>>()?;
        let coded = assessed.clone().coded(gram, found, &coding, &sizes)?;
        let mut row = row(gram, method, found, coded, Storage::Coded(rung), expressions);
        row.notes.extend(rung.warning().map(|warning| format!("{rung} bits: {warning}")));
        rows.push(row);
    }
    Ok(())
}

fn row(
    gram: &Gram,
    method: &'static str,
    found: &Coefficients,
    assessed: Assessment,
    storage: Storage,
    expressions: Vec<Fidelity>,
) -> PlanRow {
    PlanRow {
        method,
        n_atoms: found.n_atoms,
        n_stored: found.n_stored(),
        storage,
        loss: assessed.loss,
        spectral_bound: assessed.spectral_bound,
        loss_over_bound: over(gram, assessed.loss, assessed.spectral_bound),
        relative_loss: assessed.relative_loss,
        relative_bound: assessed.relative_bound,
        mean_error: assessed.mean,
        worst_error: assessed.worst,
        worst_task: assessed.worst_task,
        gains: assessed.gains,
        noises: assessed.noises,
        projected: assessed.projected,
        sum: assessed.sum,
        expressions,
        condition: assessed.condition,
        rounding: assessed.rounding,
        expected: false,
        notes: found.notes.clone(),
    }
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
fn expected_random(gram: &Gram, n_atoms: usize, n_parameters: u64, n_expressions: usize) -> PlanRow {
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
        storage: Storage::Plain(Dtype::F32),
        loss,
        spectral_bound,
        loss_over_bound: over(gram, loss, spectral_bound),
        relative_loss: if gram.trace() > 0.0 { 1.0 - held } else { 0.0 },
        relative_bound: if gram.trace() > 0.0 { gram.spectrum().tail(n_atoms) / gram.trace() } else { 0.0 },
        mean_error: worst_error * n_moving as f64 / gram.n_tasks() as f64,
        worst_error,
        worst_task: moving.unwrap_or(0),
        gains: gram.norms().iter().map(|norm| if *norm > 0.0 { held } else { 1.0 }).collect(),
        noises: gram.norms().iter().map(|norm| if *norm > 0.0 { held * (1.0 - held) } else { 0.0 }).collect(),
        projected,
        expressions: vec![projected; n_expressions],
        sum: Fidelity { cosine: 0.0, norm_ratio: sum_ratio, rounding: [0.0; 3] },
        condition: 1.0,
        rounding: Vec::new(),
        expected: true,
        notes: vec!["expected figures: random atoms are made from a seed and never stored".to_owned()],
    }
}

//! Gram matrix → coefficients: which mixtures of the task vectors are stored (B) and how tasks come back from them (W).
//!
//! Pure: no file, no device, no clock; the same input gives the same output. The legend of symbols: V [d, T] the task
//! vectors as columns, G = VᵀV, atoms S = VB, recovery V̂ = SW, C = BW. One file per method; what they share:
//!
//! | file | |
//! |---|---|
//! | `gram.rs` | G, checked once, with its eigenvalues |
//! | `method.rs` | the methods and their options |
//! | `simplex.rs` | from a positive vector and a subspace to B ≥ 0 |
//! | `weights.rs` | the best W for a B |
//! | `orthogonal.rs` | the same subspace in coordinates for 16-bit storage |
//! | `coefficients.rs` | what comes out |
//! | `assess.rs`, `rounding.rs` | every error, exactly, from G, B and W |
//! | `choose.rs`, `table.rs` | which M is enough; every M and method side by side |
//!
//! Every method sees G/tr G, or with `balance` the Gram of the tasks scaled to one length. A task of length g then is g
//! times its scaled self, so a mixture b of the scaled tasks is the mixture b/g of the true ones (`Problem`). The best
//! W does not hang on how the tasks are scaled, so it is always computed on the true Gram.

pub mod ae;
pub mod random;

mod adam;
mod anchor;
mod anchored;
mod assess;
mod choose;
mod cluster;
mod coefficients;
mod exact;
mod gram;
mod identity;
mod linear;
mod method;
mod nmf;
mod orthogonal;
mod pca;
mod positive;
mod rounding;
mod sample;
mod simplex;
mod table;
mod weights;

pub use assess::{Assessment, Fidelity, assess, edit_fidelity};
pub use choose::{MaxError, atoms_for_error};
pub use coefficients::{Coefficients, Generated, Rule, Solved};
pub use gram::{Gram, Spectrum};
pub use method::{
    Activation, AeOptions, AnchoredOptions, Anneal, ClusterOptions, Coordinates, ExactOptions, Method, NmfOptions,
    SolveOptions,
};
pub use random::{Generator, random_coefficients};
pub use rounding::{Rounding, STORAGE_DTYPES};
pub use table::{PlanRow, plan_table};

use crate::error::{Error, Result};
use faer::Mat;

/// An eigenvalue below −this·λ1 is more than rounding of f32 products: the matrix is no Gram matrix.
const INDEFINITE: f64 = 1e-3;

/// Finds B and W for `gram`. `progress` is told the part done, 0 to 1, and stops the work by answering false, which is
/// then an interrupted error. Rejected: M outside 1..T, options that do not fit the tasks, a matrix with clearly negative
/// eigenvalues. `random` needs the data too: see [`random_coefficients`].
pub fn solve(
    gram: &Gram,
    method: &Method,
    options: &SolveOptions,
    progress: &dyn Fn(f64) -> bool,
) -> Result<Coefficients> {
    let n_tasks = gram.n_tasks();
    check_atoms(options.n_atoms, n_tasks)?;
    let spectrum = gram.spectrum();
    if spectrum.lowest < -INDEFINITE * spectrum.values[0] {
        return Err(Error::rejected(format!(
            "Gram matrix has eigenvalue {:e} beside {:e}: expected none below zero",
            spectrum.lowest, spectrum.values[0]
        )));
    }
    check_options(method, options.balance, options.coordinates)?;
    let problem = Problem::new(gram, options, progress);
    let found = match method {
        Method::Anchored(own) => anchored::solve(&problem, own.weights.as_deref())?,
        Method::Exact(own) => exact::solve(&problem, own)?,
        Method::Ae(own) => ae::solve(&problem, own)?,
        Method::Pca => pca::solve(&problem)?,
        Method::Sample { seed } => sample::solve(&problem, *seed)?,
        Method::Cluster(own) => cluster::solve(&problem, own)?,
        Method::Nmf(own) => nmf::solve(&problem, own)?,
        Method::Identity => identity::solve(&problem)?,
        Method::Random { .. } => {
            return Err(Error::usage("method 'random' needs the checkpoints: its atoms are not mixtures of the tasks"));
        }
    };
    Ok(finish(&problem, found, method, options, gram))
}

/// Whether options fit a method: needs no data, so that a user is told before anything is read.
///
/// # Errors
/// Usage, with what would fit.
pub fn check_options(method: &Method, balance: bool, coordinates: Coordinates) -> Result<()> {
    let spans_only = matches!(method, Method::Anchored(_) | Method::Exact(_));
    if coordinates == Coordinates::Orthogonal && !spans_only {
        return Err(Error::usage(format!(
            "orthogonal coordinates with method '{}': expected 'anchored' or 'exact'",
            method.name()
        ))
        .hint("leave the coordinates out"));
    }
    if balance && !method.stores_atoms() {
        return Err(Error::usage("balance with method 'random': its atoms do not hang on the tasks' norms")
            .hint("leave --balance out"));
    }
    Ok(())
}

/// M must be 1 to T.
///
/// # Errors
/// Rejected, with the range.
pub fn check_atoms(n_atoms: usize, n_tasks: usize) -> Result<()> {
    if (1..=n_tasks).contains(&n_atoms) {
        return Ok(());
    }
    let tasks = if n_tasks == 1 { "task" } else { "tasks" };
    Err(Error::rejected(format!("M = {n_atoms} atoms for {n_tasks} {tasks}: expected 1 to {n_tasks}"))
        .hint("give -m a number in that range, or --ratio 0.5 for half as many atoms as tasks"))
}

/// What a method sees.
struct Problem<'a> {
    /// The Gram to solve on: trace 1 (0 where all tasks are zero).
    gram: &'a Gram,
    /// The Gram as it was given, for a recipe that hangs on its scale; scaled to one length where that was asked for.
    paper_gram: &'a Gram,
    /// \[n_tasks\]: how many times longer each task is than `gram` has it, up to a common factor.
    stretch: Vec<f64>,
    n_atoms: usize,
    progress: &'a dyn Fn(f64) -> bool,
}

impl<'a> Problem<'a> {
    fn new(gram: &'a Gram, options: &SolveOptions, progress: &'a dyn Fn(f64) -> bool) -> Problem<'a> {
        let n_atoms = options.n_atoms;
        if !options.balance {
            let stretch = vec![1.0; gram.n_tasks()];
            return Problem { gram: gram.unit(), paper_gram: gram, stretch, n_atoms, progress };
        }
        // In parts of the longest, so that norms far from 1 do not leave f64's range; a zero task keeps its place.
        let norms = gram.norms();
        let longest = norms.iter().fold(0.0_f64, |most, norm| most.max(*norm));
        let stretch = norms.iter().map(|norm| if *norm > 0.0 { norm / longest } else { 1.0 }).collect();
        Problem { gram: gram.balanced(), paper_gram: gram.balanced(), stretch, n_atoms, progress }
    }

    /// A mixture of the true tasks as a mixture of the scaled ones.
    fn stretched(&self, mixture: &[f64]) -> Vec<f64> {
        mixture.iter().zip(&self.stretch).map(|(b, g)| b * g).collect()
    }

    /// A mixture of the scaled tasks as a mixture of the true ones.
    fn unstretched(&self, mixture: &[f64]) -> Vec<f64> {
        mixture.iter().zip(&self.stretch).map(|(b, g)| b / g).collect()
    }

    /// The same for every column.
    fn unstretch(&self, mixtures: &mut Mat<f64>) {
        let inverse: Vec<f64> = self.stretch.iter().map(|g| 1.0 / g).collect();
        linear::scale_rows(mixtures, &inverse);
    }

    /// Tells how far the work is.
    fn report(&self, done: f64) -> Result<()> {
        if (self.progress)(done) { Ok(()) } else { Err(Error::interrupted()) }
    }
}

/// What a method finds.
struct Found {
    /// B. Of the scaled tasks, unless the method went back to the true ones itself: see `convex`.
    encode: Mat<f64>,
    /// W, where the method has its own.
    decode: Option<Mat<f64>>,
    /// Which vectors take part in rule `sum`, where not all do.
    in_sum: Option<Vec<bool>>,
    notes: Vec<String>,
    /// Whether the columns are mixtures to be brought to sum 1.
    convex: bool,
}

impl Found {
    /// Non-negative B, the best W, nothing to say.
    fn encoded(encode: Mat<f64>) -> Found {
        Found { encode, decode: None, in_sum: None, notes: Vec::new(), convex: true }
    }
}

/// Back to the true tasks, columns to sum 1, other coordinates, the best W.
fn finish(problem: &Problem<'_>, found: Found, method: &Method, options: &SolveOptions, gram: &Gram) -> Coefficients {
    let Found { mut encode, mut decode, in_sum, mut notes, convex } = found;
    // These two build B in true coordinates: their construction must know where zero and sum 1 are.
    let in_true_coordinates = matches!(method, Method::Anchored(_) | Method::Exact(_) | Method::Identity);
    if !in_true_coordinates {
        problem.unstretch(&mut encode);
        if let Some(decode) = &mut decode {
            linear::scale_columns(decode, &problem.stretch);
        }
        if convex {
            let sums: Vec<f64> = encode.col_iter().map(|column| column.iter().sum::<f64>()).collect();
            let usable = |sum: f64| sum.is_finite() && sum > 0.0;
            let inverse: Vec<f64> = sums.iter().map(|&sum| if usable(sum) { 1.0 / sum } else { 1.0 }).collect();
            linear::scale_columns(&mut encode, &inverse);
            if let Some(decode) = &mut decode {
                let sums: Vec<f64> = sums.iter().map(|&sum| if usable(sum) { sum } else { 1.0 }).collect();
                linear::scale_rows(decode, &sums);
            }
        }
    }
    if options.coordinates == Coordinates::Orthogonal {
        encode = orthogonal::turn(gram.unit(), &encode);
        notes.push(
            "orthogonal coordinates: same span, same errors, same sum; atoms are no longer non-negative".to_owned(),
        );
        if encode.ncols() < options.n_atoms {
            notes.push(format!("{} atoms are enough: the tasks span no more dimensions", encode.ncols()));
        }
    }
    let decode = decode.unwrap_or_else(|| weights::best_decode(gram.unit().matrix(), encode.as_ref()));
    Coefficients {
        method: method.name(),
        n_atoms: options.n_atoms,
        balance: options.balance,
        coordinates: options.coordinates,
        in_sum: in_sum.unwrap_or_else(|| vec![true; encode.ncols()]),
        encode,
        decode,
        generated: None,
        notes,
    }
}

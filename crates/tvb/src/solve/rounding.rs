//! What storing the atoms in few bits adds to the errors.
//!
//! Rounding to nearest with unit roundoff u leaves on a value x an error spread evenly over one step of the format. Over
//! values of every size (mantissas spread logarithmically) its mean square is u²·x²/(8 ln 2), about u²x²/5.5. Errors of
//! different atoms are independent, so task t gains u²/(8 ln 2)·Σm Wmt²·‖sm‖². Convex atoms are nearly parallel and
//! their W is large: at 16 bits this is not always small.
//!
//! Near zero the step is fixed (f16: 2^-24 below 6.1e-5, where many deltas are), and its mean square is step²/12. That is
//! added for each row, whatever its size, and the whole is never more than the atom itself, which rounding to zero loses:
//! an upper bound that comes close where the values are small, and adds nothing worth telling where they are not.

use faer::{ColRef, MatRef};
use tvb_kernels::Dtype;

/// The formats atoms can be stored in.
pub const STORAGE_DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

/// A task is warned of where rounding adds more than this part of δt².
const NOTICEABLE: f64 = 0.1;
/// What rounding adds is never warned of below this part of ‖τt‖².
const HARMLESS: f64 = 1e-4;

/// What one storage format adds to the squared errors, on average over roundings.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounding {
    /// The format.
    pub dtype: Dtype,
    /// \[n_tasks\]: added to δt², in squared units of the parameters.
    pub squared_errors: Vec<f64>,
    /// \[n_tasks\]: the same over ‖τt‖²; 0 for a zero task.
    pub relative_errors: Vec<f64>,
    /// The largest of `relative_errors`.
    pub worst: f64,
    /// Tasks for which it passes a tenth of δt² (and 1e-4 of ‖τt‖²): worth a warning.
    pub warned: Vec<usize>,
}

/// What rounding adds to a vector of `n_rows` rows and squared length `squared`, on average.
fn variance(dtype: Dtype, squared: f64, n_rows: u64) -> f64 {
    let relative = dtype.unit_roundoff().powi(2) / (8.0 * std::f64::consts::LN_2);
    // The step first: its square alone may be too small for f64.
    let fixed = dtype.least() * (n_rows as f64 / 12.0).sqrt();
    (relative * squared + fixed * fixed).min(squared)
}

/// Vectors as they are stored: their squared lengths \[n_stored\], and how many rows they have (0 where that is not known).
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredAtoms<'a> {
    pub(super) squared_norms: &'a [f64],
    pub(super) n_rows: u64,
}

impl StoredAtoms<'_> {
    /// Σm wm²·(what rounding adds to atom m).
    pub(super) fn added(&self, dtype: Dtype, weights: impl Iterator<Item = f64>) -> f64 {
        weights.zip(self.squared_norms).map(|(w, &squared)| w * w * variance(dtype, squared, self.n_rows)).sum()
    }
}

/// One entry for each of [`STORAGE_DTYPES`], from W \[n_stored, n_tasks\], the atoms, δt² and ‖τt‖² \[n_tasks\].
pub(super) fn of_tasks(
    decode: MatRef<'_, f64>,
    atoms: StoredAtoms<'_>,
    errors: &[f64],
    tasks: &[f64],
) -> Vec<Rounding> {
    let one = |&dtype: &Dtype| {
        let added = |w: ColRef<'_, f64>| atoms.added(dtype, w.iter().copied());
        let squared_errors: Vec<f64> = decode.col_iter().map(added).collect();
        let relative_errors: Vec<f64> =
            squared_errors.iter().zip(tasks).map(|(e, g)| if *g > 0.0 { e / g } else { 0.0 }).collect();
        let warned = (0..tasks.len())
            .filter(|&t| squared_errors[t] > (NOTICEABLE * errors[t]).max(HARMLESS * tasks[t]))
            .collect();
        let worst = relative_errors.iter().fold(0.0, |most: f64, e| most.max(*e));
        Rounding { dtype, squared_errors, relative_errors, worst, warned }
    };
    STORAGE_DTYPES.iter().map(one).collect()
}

//! What storing the atoms in few bits adds to the errors.
//!
//! Rounding to nearest with unit roundoff u leaves on a value x an error spread evenly over one step of the format. Over
//! values of every size (mantissas spread logarithmically) its mean square is u²·x²/(8 ln 2), about u²x²/5.5. Errors of
//! different atoms are independent, so task t gains u²/(8 ln 2)·Σm Wmt²·‖sm‖². Convex atoms are nearly parallel and
//! their W is large: at 16 bits this is not always small. Not counted: f16 values below 6.1e-5, whose step is fixed.

use faer::{Mat, MatRef};
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

/// Mean squared rounding error over the squared value, for values of every size.
pub(super) fn relative_variance(dtype: Dtype) -> f64 {
    dtype.unit_roundoff().powi(2) / (8.0 * std::f64::consts::LN_2)
}

/// One entry for each of [`STORAGE_DTYPES`], from W \[n_stored, n_tasks\], ‖sm‖² \[n_stored\], δt² and ‖τt‖² \[n_tasks\].
pub(super) fn of_tasks(decode: MatRef<'_, f64>, atoms: &[f64], errors: &[f64], tasks: &[f64]) -> Vec<Rounding> {
    let spread = spread(decode, atoms);
    let one = |&dtype: &Dtype| {
        let squared_errors: Vec<f64> = spread.iter().map(|x| relative_variance(dtype) * x).collect();
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

/// Σm wm²·‖sm‖² for every column w of `weights`.
fn spread(weights: MatRef<'_, f64>, atoms: &[f64]) -> Vec<f64> {
    weights.col_iter().map(|w| w.iter().zip(atoms).map(|(w, s)| w * w * s).sum()).collect()
}

/// Σm wm²·‖sm‖² of one edit.
pub(super) fn spread_of(weights: &[f64], atoms: &[f64]) -> f64 {
    spread(Mat::from_fn(weights.len(), 1, |m, _| weights[m]).as_ref(), atoms)[0]
}

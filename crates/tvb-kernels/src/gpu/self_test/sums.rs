//! The tests of gram, project and reconstruct.

use super::compare::{both, ends, format_of, runs, same};
use super::values::{FIRST_LEAST, ODD, Rows, case, odd};
use crate::chunk::{Columns, Dtype};
use crate::error::KernelError;
use crate::gpu::context::Context;
use crate::gpu::shader::Kernel;
use crate::gpu::variant::{Format, Shape};
use crate::gram::Gram;
use crate::limits::RUN_ROWS;
use crate::project::Project;
use crate::reconstruct::{Base, Reconstruct};
use crate::triangles::triangle_len;
use crate::work::{OnGpu, Work};
use std::sync::Arc;

/// Columns of a projection or reconstruction: more than the shader loads at once, and not a multiple of that.
const N_COLUMNS: usize = 6;

/// Several runs of rows, the last one short; a run of an odd number of rows; f16's subnormals; what is not finite.
const GRAM_ROWS: [Rows; 7] = [
    Rows::Plain(1299),
    Rows::Plain(31),
    Rows::Tiny(40),
    Rows::NotFinite(0),
    Rows::NotFinite(1),
    Rows::NotFinite(2),
    Rows::NotFinite(3),
];

/// Rows of the first segment where the device adds up its runs: more than eight runs of the longest, since it adds them by eights.
const FOLDED_ROWS: usize = 8 * RUN_ROWS + 1299;

/// The least and the largest T that a variant is for, as far as it is tested: up to three tiles.
pub(super) fn gram_tasks(kernel: Kernel, shape: Shape) -> Result<[usize; 2], KernelError> {
    let has = |n_tasks: usize| {
        runs(Gram::ALL.plan(&case(n_tasks + 1, &[Rows::Plain(8)], format_of(kernel)).layout, shape, 1), kernel)
    };
    ends(kernel, 1..=132, has)
}

pub(super) fn gram(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    for n_tasks in gram_tasks(kernel, context.shape)? {
        let format = format_of(kernel);
        let mut rows = GRAM_ROWS;
        if runs(Gram::ALL.plan(&case(n_tasks + 1, &rows, format).layout, context.shape, 1), Kernel::GramFold) {
            rows[0] = Rows::Plain(FOLDED_ROWS);
        }
        let case = case(n_tasks + 1, &rows, format);
        let [found, expected] = both(context, &Gram::ALL, &case)?;
        same(
            kernel,
            [&found.values, &expected.values],
            |_| false,
            |at| {
                format!(
                    "entry {} of Gram {} of {n_tasks} tasks",
                    at % triangle_len(n_tasks),
                    at / triangle_len(n_tasks)
                )
            },
        )?;
    }
    Ok(())
}

/// A projection of so many outputs, which of the kinds it is.
pub(super) fn projection(weights: Vec<f32>, n_atoms: usize, kind: usize) -> (Project, Dtype) {
    let dtype = DTYPES[kind % DTYPES.len()];
    (Project { encode: weights, n_atoms, dtype }, dtype)
}

/// A reconstruction of so many outputs, which of the kinds it is.
pub(super) fn reconstruction(weights: Vec<f32>, n_outputs: usize, kind: usize) -> (Reconstruct, Dtype) {
    let dtype = DTYPES[kind % DTYPES.len()];
    let (columns, base) =
        [(Columns::Deltas, Base::Added), (Columns::Checkpoints, Base::Left), (Columns::Checkpoints, Base::Added)]
            [kind % DTYPES.len()];
    (Reconstruct { weights, n_outputs, columns, base, dtype: Some(dtype) }, dtype)
}

/// Formats of a result; a kernel writes all of them.
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// What makes work of weights, a number of outputs and a kind.
type Make<W> = fn(Vec<f32>, usize, usize) -> (W, Dtype);

pub(super) fn project(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    combine(context, kernel, projection)
}

pub(super) fn reconstruct(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    combine(context, kernel, reconstruction)
}

/// Whether the variant is the one for weights of which some are 0.
fn has_zeros(kernel: Kernel) -> bool {
    matches!(kernel, Kernel::Project { skip_zeros: true, .. } | Kernel::Reconstruct { skip_zeros: true, .. })
}

/// The least and the largest number of outputs that a variant is for, as far as it is tested.
pub(super) fn n_outputs<W: Work>(kernel: Kernel, make: Make<W>) -> Result<[usize; 2], KernelError> {
    let layout = case(N_COLUMNS + 1, &[Rows::Plain(8)], format_of(kernel)).layout;
    let has = |n: usize| {
        let work = make(weights(n, has_zeros(kernel), &plain_weight), n, 0).0;
        [Shape::LARGE, Shape::SMALL].into_iter().any(|shape| runs(work.plan(&layout, shape, 1), kernel))
    };
    ends(kernel, 1..=70, has)
}

fn combine<W: Work<Output = Vec<u8>>>(
    context: &Arc<Context>,
    kernel: Kernel,
    make: Make<W>,
) -> Result<(), KernelError> {
    let format = format_of(kernel);
    // Two workgroups and a row more; then rows whose weights come through as they are, and what is not finite.
    let plain = case(
        N_COLUMNS + 1,
        &[Rows::Plain(1027), Rows::Plain(31), Rows::Tiny(5), Rows::NotFinite(2), Rows::NotFinite(3)],
        format,
    );
    let single = case(N_COLUMNS + 1, &[Rows::Single], format);
    let n_rows = Rows::Single.n_rows(N_COLUMNS + 1);
    // An f32 that is subnormal may be taken for 0, and so may what a weight makes of it.
    let may_flush = |at: usize| format != Format::F16 && at % n_rows >= n_rows - ODD.len() + FIRST_LEAST;
    for n in n_outputs(kernel, make)? {
        for kind in 0..DTYPES.len() {
            for (case, is_single) in [(&plain, false), (&single, true)] {
                let weight: &dyn Fn(usize) -> f32 = if is_single { &odd } else { &plain_weight };
                let (work, dtype) = make(weights(n, has_zeros(kernel), weight), n, kind);
                let [found, expected] = both(context, &work, case)?
                    .map(|rows| crate::cpu::decode(&rows, dtype).into_iter().map(f64::from).collect::<Vec<f64>>());
                let name = |at: usize| {
                    let rows = case.layout.n_rows();
                    format!("row {} of output {} of {n} in {dtype}", at % rows, at / rows)
                };
                same(kernel, [&found, &expected], |at| is_single && may_flush(at), name)?;
            }
        }
    }
    Ok(())
}

/// [N_COLUMNS, n_outputs] weights, some of them 0 or none.
fn weights(n_outputs: usize, has_zeros: bool, weight: &dyn Fn(usize) -> f32) -> Vec<f32> {
    let n = N_COLUMNS * n_outputs;
    // The second column of the first output, so that there is one whatever n is.
    (0..n).map(|at| if has_zeros && (at == n_outputs || at % 5 == 3) { 0.0 } else { weight(at) }).collect()
}

/// Multiples of an eighth, none of them 0.
fn plain_weight(at: usize) -> f32 {
    let eighths = (at * 29 % 16) as f32 - 8.0;
    (if eighths >= 0.0 { eighths + 1.0 } else { eighths }) / 8.0
}

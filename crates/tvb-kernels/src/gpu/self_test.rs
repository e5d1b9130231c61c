//! The test of a device: every kernel on small cases against the CPU engine, at start-up for chunks of mixed formats and
//! before the first chunk of each single format. Drivers have miscompiled shaders before, silently; a few milliseconds
//! find that out before anything is made of a result.

use super::context::Context;
use super::stream::FirstUse;
use super::variant::Format;
use super::{eigh, single};
use crate::chunk::{Chunk, ChunkLayout, Columns, Dtype, Segment, Slice};
use crate::cpu::CpuEngine;
use crate::error::KernelError;
use crate::gram::Gram;
use crate::project::Project;
use crate::reconstruct::{Base, Reconstruct};
use crate::triangles::triangle_len;
use crate::work::Work;
use std::fmt::Display;
use std::sync::Arc;

/// Compares the device with the CPU engine on mixed formats, and its eigendecomposition.
pub(super) fn run(context: &Arc<Context>, cpu: &CpuEngine) -> Result<(), KernelError> {
    format(context, Format::Mixed)?;
    decomposition(context, cpu).map_err(|found| KernelError::SelfTest { kernel: "eigh", found })
}

/// Compares the device with the CPU engine on chunks of one format, if it has not passed that test yet.
pub(super) fn format(context: &Arc<Context>, format: Format) -> Result<(), KernelError> {
    if context.has_passed(format) {
        return Ok(());
    }
    // Few tasks; several tiles of tasks.
    for n_tasks in [5, 70] {
        let (layout, bytes) = case(n_tasks, format);
        let chunk = Chunk { layout: &layout, bytes: &bytes };
        let weights = |n: usize| (0..n_tasks * n).map(|at| ((at * 29) % 17) as f32 / 8.0 - 1.0).collect();
        let project = Project { encode: weights(3), n_atoms: 3, dtype: Dtype::Bf16 };
        let reconstruct = Reconstruct {
            weights: weights(2),
            n_outputs: 2,
            columns: Columns::Deltas,
            base: Base::Added,
            dtype: Some(Dtype::F32),
        };
        let [found, expected] = both(context, &Gram, chunk)?;
        same("gram", [&found.values, &expected.values], |at| {
            format!("entry {} of Gram {} of {n_tasks} tasks", at % triangle_len(n_tasks), at / triangle_len(n_tasks))
        })?;
        let byte_of_rows = |at| format!("byte {at} of the rows of {n_tasks} tasks");
        let [found, expected] = both(context, &project, chunk)?;
        same("project", [&found, &expected], byte_of_rows)?;
        let [found, expected] = both(context, &reconstruct, chunk)?;
        same("reconstruct", [&found, &expected], byte_of_rows)?;
    }
    context.set_passed(format);
    Ok(())
}

/// A chunk of two segments, with odd lengths.
fn case(n_tasks: usize, format: Format) -> (ChunkLayout, Vec<u8>) {
    let n_columns = n_tasks + 1;
    let rows = [131, 30];
    let mut layout = ChunkLayout {
        n_columns,
        segments: rows.iter().map(|&n_rows| Segment::new(n_rows)).collect(),
        slices: vec![Slice { offset: 0, dtype: Dtype::F32 }; 2 * n_columns],
        n_bytes: 0,
        ..ChunkLayout::default()
    };
    let mut bytes = Vec::new();
    for column in 0..n_columns {
        for (segment, &n_rows) in rows.iter().enumerate() {
            let dtype = match format {
                Format::F32 => Dtype::F32,
                Format::F16 => Dtype::F16,
                Format::Bf16 => Dtype::Bf16,
                Format::Mixed => [Dtype::F32, Dtype::F16, Dtype::Bf16][(column + segment) % 3],
            };
            bytes.resize(bytes.len().next_multiple_of(dtype.size()), 0);
            layout.slices[segment * n_columns + column] = Slice { offset: bytes.len(), dtype };
            for row in 0..n_rows {
                // Multiples of 1/64 between −2 and 2: exact in every format.
                let value = ((row * 37 + column * 101 + row * column * 11) % 257) as f32 / 64.0 - 2.0;
                match dtype {
                    Dtype::F16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
                    Dtype::Bf16 => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
                    Dtype::F32 | Dtype::F64 => bytes.extend(value.to_le_bytes()),
                }
            }
        }
    }
    layout.n_bytes = bytes.len();
    (layout, bytes)
}

/// What the device and the CPU engine find, in this order.
fn both<W: Work>(context: &Arc<Context>, work: &W, chunk: Chunk<'_>) -> Result<[W::Output; 2], KernelError> {
    let cpu = CpuEngine::new();
    let mut expected = W::Output::default();
    cpu.run(work, chunk, &mut cpu.scratch(), &mut expected)?;
    let found = single::run(Arc::clone(context), &cpu, work, chunk, FirstUse::IsTest)?;
    Ok([found, expected])
}

/// Fails where what the device found differs from what was expected. All values are multiples of 1/512 below 2^14, so
/// every product and sum is exact in f32 in whatever order, and the results must be equal to the bit.
fn same<V: PartialEq + Display>(
    kernel: &'static str,
    [found, expected]: [&[V]; 2],
    name: impl Fn(usize) -> String,
) -> Result<(), KernelError> {
    let failed = |found| Err(KernelError::SelfTest { kernel, found });
    if found.len() != expected.len() {
        return failed(format!("{} values where {} were expected", found.len(), expected.len()));
    }
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        Some(at) => failed(format!("{} is {} where {} was expected", name(at), found[at], expected[at])),
        None => Ok(()),
    }
}

fn decomposition(context: &Context, cpu: &CpuEngine) -> Result<(), String> {
    let n = 7;
    let matrix: Vec<f64> = (0..n * n).map(|at| 1.0 / (1.0 + (at / n) as f64 + (at % n) as f64)).collect();
    let (found, expected) = match (eigh::run(context, cpu, &matrix, n, 1), cpu.eigh(&matrix, n, 1)) {
        (Ok(found), Ok(expected)) => (found, expected),
        (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
    };
    for (found, expected) in found[0].values.iter().zip(&expected[0].values) {
        if (found - expected).abs().partial_cmp(&(1e-9 * 2.0)).is_none_or(std::cmp::Ordering::is_gt) {
            return Err(format!("eigenvalue {found} where {expected} was expected"));
        }
    }
    Ok(())
}

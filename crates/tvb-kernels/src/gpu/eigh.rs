//! eigh on the GPU: parallel Jacobi in f32 on the whole batch, refined and checked in f64 on the host.
//!
//! Up to order 64 a matrix is one workgroup's from start to end (eigh.wgsl): one dispatch, and as many sweeps as it needs.
//! Larger ones come one after another, with a dispatch a round (eigh_round.wgsl), and the host looks after each sweep whether there
//! is more to do.
//!
//! Tried before: rounds of large matrices by one workgroup of 64 threads each. An H100 took 522 ms for one of order 256, and Mesa's
//! software adapter, which ends a thread's loops after 65,535, left its rounds half done.

use super::context::Context;
use super::refine::{raw_errors, refine};
use super::shader::Kernel;
use super::tables::Tables;
use crate::cpu::CpuEngine;
use crate::eigh::{Eigh, check_matrices};
use crate::error::KernelError;
use crate::limits::{BINDING_ALIGNMENT, EIGH_SIDES, EIGH_SWEEPS, EIGH_WORK, MOST_EIGH_ORDER, MOST_GROUPS};
use crate::params::EighParams;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use wgpu::BufferUsages;

/// What a device makes of a batch before the host refines it.
#[derive(Clone, Debug, PartialEq)]
pub struct RawEigh {
    /// Approximate eigenvectors, column-major \[n_matrices, n, n\]: vector k of a matrix is at k·n. In no order.
    pub vectors: Vec<f32>,
    /// \[n_matrices\]: sweeps that each took.
    pub n_sweeps: Vec<u32>,
}

/// Eigendecompositions of a batch; matrices that the device cannot take or gets wrong are done by the CPU engine, and
/// counted in `n_on_host`.
pub(crate) fn run(
    context: &Context,
    cpu: &CpuEngine,
    matrices: &[f64],
    n: usize,
    n_matrices: usize,
    n_on_host: &AtomicU64,
) -> Result<Vec<Eigh>, KernelError> {
    check_matrices(matrices, n, n_matrices)?;
    if n < 2 || n_matrices == 0 {
        return cpu.eigh(matrices, n, n_matrices);
    }
    let on_host = |found: &mut Vec<Eigh>, matrix: &[f64]| {
        n_on_host.fetch_add(1, Ordering::Relaxed);
        let one = cpu.eigh(matrix, n, 1)?.pop();
        found.push(one.ok_or(KernelError::EighFailed { matrix: found.len() })?);
        Ok(())
    };
    let mut found = Vec::with_capacity(n_matrices);
    let Some(most_together) = most_together(context, n) else {
        for matrix in matrices.chunks_exact(n * n) {
            on_host(&mut found, matrix)?;
        }
        return Ok(found);
    };
    for batch in matrices.chunks(most_together * n * n) {
        context.count_submit();
        let raw = jacobi(context, batch, n)?;
        for (matrix, vectors) in batch.chunks_exact(n * n).zip(raw.vectors.chunks_exact(n * n)) {
            match refine(matrix, vectors, n) {
                Some(eigh) => found.push(eigh),
                None => {
                    tracing::warn!(
                        n,
                        device = %context.facts.name,
                        "the device's eigenvectors did not pass the check: this matrix is done on the CPU"
                    );
                    on_host(&mut found, matrix)?;
                }
            }
        }
    }
    Ok(found)
}

/// The same before it is refined.
///
/// # Errors
/// [`KernelError`] when the length is not n_matrices · n² or an entry is not finite, for an order the device does not take,
/// and device errors.
pub(crate) fn raw(context: &Context, matrices: &[f64], n: usize, n_matrices: usize) -> Result<RawEigh, KernelError> {
    check_matrices(matrices, n, n_matrices)?;
    let mut found = RawEigh { vectors: Vec::with_capacity(matrices.len()), n_sweeps: Vec::with_capacity(n_matrices) };
    if n < 2 {
        // Nothing to turn, and nothing that a kernel is needed for.
        found.vectors.resize(matrices.len(), 1.0);
        found.n_sweeps.resize(n_matrices, 0);
        return Ok(found);
    }
    let too_large = KernelError::Limit { what: "order", found: n as u64, most: MOST_EIGH_ORDER as u64 };
    let most_together = most_together(context, n).ok_or(too_large)?;
    for batch in matrices.chunks(most_together * n * n) {
        let raw = jacobi(context, batch, n)?;
        found.vectors.extend(raw.vectors);
        found.n_sweeps.extend(raw.n_sweeps);
    }
    Ok(found)
}

/// Compares the device with the CPU engine on a kernel of this file: what the device did, not what the host put right.
///
/// # Errors
/// [`KernelError::SelfTest`] where they differ; device errors.
pub(crate) fn self_test(context: &Context, kernel: Kernel) -> Result<(), KernelError> {
    let n = match kernel {
        // Odd, and too large for the variant before.
        Kernel::Eigh { side } => side as usize / 2 + 1,
        _ => MOST_HELD + 1,
    };
    let failed = |found| Err(KernelError::SelfTest { kernel: kernel.entry_point(), found });
    let entry = |at: usize| 1.0 / (1.0 + (at / n) as f64 + (at % n) as f64) + f64::from(u8::from(at % (n + 1) == 0));
    let matrix: Vec<f64> = (0..n * n).map(entry).collect();
    let raw = raw(context, &matrix, n, 1)?;
    let [residual, unorthogonal] = raw_errors(&matrix, &raw.vectors, n);
    // False for a NaN.
    let is_right = residual <= RAW_ERROR && unorthogonal <= RAW_ERROR;
    let Some(found) = refine(&matrix, &raw.vectors, n).filter(|_| is_right) else {
        return failed(format!("vectors with a residual of {residual:.1e}, {unorthogonal:.1e} from orthonormal"));
    };
    let expected = CpuEngine::new().eigh(&matrix, n, 1)?;
    let expected = expected.first().map_or(&[][..], |eigh| &eigh.values);
    for (found, expected) in found.values.iter().zip(expected) {
        if (found - expected).abs().partial_cmp(&1e-9).is_none_or(std::cmp::Ordering::is_gt) {
            return failed(format!("eigenvalue {found} where {expected} was expected"));
        }
    }
    Ok(())
}

/// What a device's own vectors may be off by: a hundred times what f32 leaves.
const RAW_ERROR: f64 = 1e-4;

/// The largest order that one workgroup works on alone.
const MOST_HELD: usize = EIGH_SIDES[EIGH_SIDES.len() - 1] as usize;

/// The kernel for matrices of order n; `None` where there is nothing to be found, or they are too large.
pub(crate) fn kernel_for(n: usize) -> Option<Kernel> {
    (2..=MOST_EIGH_ORDER).contains(&n).then(|| variant_for(n))
}

fn variant_for(n: usize) -> Kernel {
    match EIGH_SIDES.into_iter().find(|&side| n <= side as usize) {
        Some(side) => Kernel::Eigh { side },
        None => Kernel::EighRound,
    }
}

/// How many matrices of order n a buffer holds; `None` where not one, or where they are too large for the kernels.
fn most_together(context: &Context, n: usize) -> Option<usize> {
    let most_bytes = context.facts.max_binding_bytes.min(context.facts.max_buffer_bytes);
    // Neighbours that need more sweeps would show in the last bits.
    let most = if variant_for(n) == Kernel::EighRound { 1 } else { MOST_GROUPS as u64 };
    let most = (most_bytes / (4 * Lengths::of(n).all() as u64)).min(most) as usize;
    (n <= MOST_EIGH_ORDER && most > 0).then_some(most)
}

/// Words of one matrix in the buffer.
#[derive(Clone, Copy)]
struct Lengths {
    matrix: usize,
    /// Marks of workgroups, and behind those of all matrices what says how many sweeps it takes.
    marks: usize,
    sweeps: usize,
}

impl Lengths {
    fn of(n: usize) -> Self {
        let n_players = n.next_multiple_of(2);
        match variant_for(n) {
            Kernel::EighRound => {
                Self { matrix: 3 * n_players * n_players, marks: n_tiles(n).pow(2), sweeps: n_players / 2 }
            }
            _ => Self { matrix: n * n, marks: 1, sweeps: 1 },
        }
    }

    fn all(self) -> usize {
        self.matrix + self.marks + self.sweeps
    }
}

/// Workgroups of eigh_round.wgsl along each side.
fn n_tiles(n: usize) -> usize {
    n.div_ceil(2).div_ceil(8)
}

/// A dispatch: its parameters and workgroups.
struct Step {
    offset: u32,
    groups: [u32; 3],
    /// Multiplications, about.
    work: usize,
}

/// What a batch takes, in order, up to where the host looks at it; and again, where it is not done.
fn sweeps(tables: &mut Tables, n: usize, n_matrices: usize, stamp: u32) -> Vec<Vec<Step>> {
    let n_players = n.next_multiple_of(2);
    let (each, n_rounds, round_work) = (Lengths::of(n), n_players - 1, 16 * n_players * n_players);
    let marks = (n_matrices * each.matrix) as u32;
    let unsettled = marks + (n_matrices * each.marks) as u32;
    let base =
        EighParams { n: n as u32, n_players: n_players as u32, marks, unsettled, stamp, ..EighParams::default() };
    if variant_for(n) != Kernel::EighRound {
        let work_each = EIGH_SWEEPS / 2 * n_rounds * round_work;
        let together = (EIGH_WORK / work_each).max(1);
        let step = |first: usize| {
            let now = together.min(n_matrices - first);
            let offset = tables.push_params(EighParams { first_matrix: first as u32, ..base });
            Step { offset, groups: [now as u32, 1, 1], work: now * work_each }
        };
        return vec![(0..n_matrices).step_by(together).map(step).collect()];
    }
    let tiles = n_tiles(n) as u32;
    let mut round = |at: usize| {
        // A sweep starts where the last one left A.
        let (sweep, round, is_odd) = ((at / n_rounds + 1) as u32, (at % n_rounds) as u32, (at % 2) as u32);
        let offset = tables.push_params(EighParams { sweep, round, is_odd, ..base });
        Step { offset, groups: [tiles, tiles, 1], work: round_work }
    };
    (0..EIGH_SWEEPS).map(|sweep| (0..n_rounds).map(|at| round(sweep * n_rounds + at)).collect()).collect()
}

/// Approximate eigenvectors of a batch that fits in one buffer.
fn jacobi(context: &Context, matrices: &[f64], n: usize) -> Result<RawEigh, KernelError> {
    let kernel = variant_for(n);
    let n_matrices = matrices.len() / (n * n);
    let each = Lengths::of(n);
    let stamp = context.next_stamp();
    let mut tables = Tables::default();
    let sweeps = sweeps(&mut tables, n, n_matrices, stamp);
    let tables = tables.finish();

    let mut words = start(matrices, n);
    words.resize(n_matrices * each.all(), 0.0);
    let n_bytes = words.len() as u64 * 4;
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let work = context.buffer("matrices", n_bytes, usage, false)?;
    context.queue.write_buffer(&work, 0, bytemuck::cast_slice(&words));
    let params_usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
    let params = context.buffer("parameters", tables.len() as u64, params_usage, false)?;
    context.queue.write_buffer(&params, 0, &tables);
    let unused = context.buffer("unused", 16, BufferUsages::STORAGE, false)?;
    let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
    let bindings = context.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &context.bind_group_layout,
        entries: &[
            entry(
                0,
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &params,
                    offset: 0,
                    size: NonZero::new(BINDING_ALIGNMENT as u64),
                }),
            ),
            entry(1, unused.as_entire_binding()),
            entry(2, unused.as_entire_binding()),
            entry(3, unused.as_entire_binding()),
            entry(4, unused.as_entire_binding()),
            entry(5, work.as_entire_binding()),
            entry(6, unused.as_entire_binding()),
        ],
    });
    let pipeline = context.pipeline(kernel)?;
    let marks_at = n_matrices * each.matrix;
    let is_held = kernel != Kernel::EighRound;
    let mut n_sweeps = Vec::new();
    for (sweep, steps) in sweeps.iter().enumerate() {
        submit(context, &pipeline, &bindings, steps);
        let marks = read(context, &work, marks_at..words.len())?;
        let (marks, unsettled) = marks.split_at(n_matrices * each.marks);
        if marks.iter().any(|mark| *mark != stamp as f32) {
            return Err(KernelError::Unfinished { kernel: kernel.entry_point() });
        }
        let last = |of: &[f32]| of.iter().fold(0, |last, sweep| last.max(*sweep as u32));
        n_sweeps = unsettled.chunks_exact(each.sweeps).map(last).collect();
        if is_held {
            break;
        }
        let goes_on = n_sweeps.iter().any(|last| *last as usize == sweep + 1);
        n_sweeps.iter_mut().for_each(|last| *last = (*last + 1).min(EIGH_SWEEPS as u32));
        if !goes_on {
            break;
        }
    }
    Ok(RawEigh { vectors: vectors_of(&read(context, &work, 0..marks_at)?, n), n_sweeps })
}

/// Submits these dispatches, so many at once that none of the submits takes long.
fn submit(context: &Context, pipeline: &wgpu::ComputePipeline, bindings: &wgpu::BindGroup, mut steps: &[Step]) {
    while !steps.is_empty() {
        let mut so_far = 0;
        let fits = |step: &&Step| {
            so_far += step.work;
            so_far <= EIGH_WORK
        };
        let (now, later) = steps.split_at(steps.iter().take_while(fits).count().max(1));
        let mut encoder = context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            for Step { offset, groups: [x, y, z], .. } in now {
                pass.set_bind_group(0, bindings, &[*offset]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
        }
        context.queue.submit([encoder.finish()]);
        steps = later;
    }
}

/// Waits for what was submitted, and reads words of a buffer.
fn read(context: &Context, buffer: &wgpu::Buffer, words: Range<usize>) -> Result<Vec<f32>, KernelError> {
    let n_bytes = words.len() as u64 * 4;
    let readback = context.buffer("readback", n_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST, false)?;
    let mut encoder = context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, words.start as u64 * 4, &readback, 0, n_bytes);
    let submission = context.queue.submit([encoder.finish()]);
    let mapped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&mapped);
    readback.map_async(wgpu::MapMode::Read, ..n_bytes, move |result| flag.store(result.is_ok(), Ordering::Release));
    context.wait(submission)?;
    let what = "mapping a buffer";
    if !mapped.load(Ordering::Acquire) {
        return Err(KernelError::Device { what, message: "the buffer could not be mapped".to_owned() });
    }
    let view = readback.get_mapped_range(..n_bytes);
    let view = view.map_err(|error| KernelError::Device { what, message: error.to_string() })?;
    Ok(view.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// What the device starts from: each matrix scaled into f32's range; behind it, where there are several workgroups to a
/// matrix, room for the next A, and V = I.
fn start(matrices: &[f64], n: usize) -> Vec<f32> {
    let is_held = variant_for(n) != Kernel::EighRound;
    let side = if is_held { n } else { n.next_multiple_of(2) };
    let mut words = Vec::with_capacity(matrices.len() / (n * n) * Lengths::of(n).matrix);
    for matrix in matrices.chunks_exact(n * n) {
        let largest = matrix.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
        for i in 0..side {
            for j in 0..side {
                // The lower triangle, column-major, is what counts.
                let entry = if i.max(j) < n { matrix[i.min(j) * n + i.max(j)] } else { 0.0 };
                words.push(if largest > 0.0 { (entry / largest) as f32 } else { 0.0 });
            }
        }
        if !is_held {
            words.resize(words.len() + side * side, 0.0);
            words.extend((0..side * side).map(|at| f32::from(u8::from(at % (side + 1) == 0))));
        }
    }
    words
}

/// V of each matrix, [n, n], out of what the device left.
fn vectors_of(entries: &[f32], n: usize) -> Vec<f32> {
    let side = n.next_multiple_of(2);
    match variant_for(n) {
        Kernel::EighRound => entries
            .chunks_exact(3 * side * side)
            .flat_map(|each| each[2 * side * side..].chunks_exact(side).take(n))
            .flat_map(|column| column[..n].iter().copied())
            .collect(),
        _ => entries.to_vec(),
    }
}

//! eigh on the GPU: parallel Jacobi in f32 (eigh.wgsl) on the whole batch, refined and checked in f64 on the host.

use super::context::Context;
use super::refine::refine;
use super::shader::Kernel;
use super::tables::Tables;
use crate::cpu::CpuEngine;
use crate::eigh::{Eigh, check_matrices};
use crate::error::KernelError;
use crate::limits::{BINDING_ALIGNMENT, EIGH_WORK, MOST_EIGH_ORDER, MOST_GROUPS};
use crate::params::EighParams;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wgpu::BufferUsages;

/// Eigendecompositions of a batch; matrices that the device cannot take or gets wrong are done by the CPU engine.
pub(crate) fn run(
    context: &Context,
    cpu: &CpuEngine,
    matrices: &[f64],
    n: usize,
    n_matrices: usize,
) -> Result<Vec<Eigh>, KernelError> {
    check_matrices(matrices, n, n_matrices)?;
    if !(2..=MOST_EIGH_ORDER).contains(&n) {
        return cpu.eigh(matrices, n, n_matrices);
    }
    let bytes_each = 2 * (n * n) as u64 * 4 + 4;
    let most_bytes = context.facts.max_binding_bytes.min(context.facts.max_buffer_bytes);
    let most_together = ((most_bytes / bytes_each) as usize).min(MOST_GROUPS);
    if most_together == 0 {
        return cpu.eigh(matrices, n, n_matrices);
    }
    let mut found = Vec::with_capacity(n_matrices);
    for batch in matrices.chunks(most_together * n * n) {
        let vectors = jacobi(context, batch, n)?;
        for (matrix, vectors) in batch.chunks_exact(n * n).zip(vectors.chunks_exact(n * n)) {
            found.push(match refine(matrix, vectors, n) {
                Some(eigh) => eigh,
                None => {
                    tracing::warn!(
                        n,
                        device = %context.facts.name,
                        "the device's eigenvectors did not pass the check: this matrix is done on the CPU"
                    );
                    let one = cpu.eigh(matrix, n, 1)?;
                    one.into_iter().next().ok_or(KernelError::EighFailed { matrix: found.len() })?
                }
            });
        }
    }
    Ok(found)
}

/// Sweeps that bring f32 Jacobi to its own rounding for every order up to the largest; it converges quadratically.
fn n_sweeps(n: usize) -> usize {
    5 + n.ilog2() as usize / 2
}

/// Approximate eigenvectors of each matrix, row-major [n, n] with an eigenvector in each column.
fn jacobi(context: &Context, matrices: &[f64], n: usize) -> Result<Vec<f32>, KernelError> {
    let n_matrices = matrices.len() / (n * n);
    let entries = n_matrices * 2 * n * n;
    let n_words = entries + n_matrices;
    let n_players = n.next_multiple_of(2);
    let stamp = context.next_stamp();

    // A few rounds a dispatch: the work of a round is that of rotating A and V once.
    let n_rounds = n_sweeps(n) * (n_players - 1);
    let rounds_together = (EIGH_WORK / (8 * n * n)).max(1);
    let mut tables = Tables::default();
    let mut dispatches = Vec::new();
    for first_round in (0..n_rounds).step_by(rounds_together) {
        dispatches.push(tables.push_params(EighParams {
            n: n as u32,
            n_players: n_players as u32,
            // The pairing repeats with every sweep.
            first_round: (first_round % (n_players - 1)) as u32,
            n_rounds: rounds_together.min(n_rounds - first_round) as u32,
            n_matrices: n_matrices as u32,
            stamp,
        }));
    }
    let tables = tables.finish();

    let n_bytes = n_words as u64 * 4;
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let work = context.buffer("matrices", n_bytes, usage, false)?;
    context.queue.write_buffer(&work, 0, bytemuck::cast_slice(&start(matrices, n, n_words)));
    let params_usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
    let params = context.buffer("parameters", tables.len() as u64, params_usage, false)?;
    context.queue.write_buffer(&params, 0, &tables);
    let unused = context.buffer("unused", 16, BufferUsages::STORAGE, false)?;
    let readback = context.buffer("readback", n_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST, false)?;

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
    let pipeline = context.pipeline(Kernel::Eigh)?;
    for offset in dispatches {
        let mut encoder = context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bindings, &[offset]);
            pass.dispatch_workgroups(n_matrices as u32, 1, 1);
        }
        context.queue.submit([encoder.finish()]);
    }
    let mut encoder = context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(&work, 0, &readback, 0, n_bytes);
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
    let words: Vec<f32> = view.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    if words[entries..].iter().any(|mark| *mark != stamp as f32) {
        return Err(KernelError::Unfinished { kernel: Kernel::Eigh.entry_point() });
    }
    Ok(words[..entries].chunks_exact(2 * n * n).flat_map(|pair| &pair[n * n..]).copied().collect())
}

/// What the device starts from: each matrix scaled into f32's range, V = I, no marks yet.
fn start(matrices: &[f64], n: usize, n_words: usize) -> Vec<f32> {
    let mut words = Vec::with_capacity(n_words);
    for matrix in matrices.chunks_exact(n * n) {
        let largest = matrix.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
        for i in 0..n {
            for j in 0..n {
                // The lower triangle, column-major, is what counts.
                let entry = matrix[i.min(j) * n + i.max(j)];
                words.push(if largest > 0.0 { (entry / largest) as f32 } else { 0.0 });
            }
        }
        words.extend((0..n * n).map(|at| if at % (n + 1) == 0 { 1.0f32 } else { 0.0 }));
    }
    words.resize(n_words, 0.0);
    words
}

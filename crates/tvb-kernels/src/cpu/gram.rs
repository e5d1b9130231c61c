//! gram: the inner products of each segment of a chunk, gram\[i,j\] = Σ_x δi(x)·δj(x) for j ≤ i.
//!
//! Numerics: products are summed in f32 within a run of at most [`RUN_ROWS`] rows of one segment (spread over the lanes
//! of a vector, so that an accumulator takes far fewer), runs are added up in f64 in row order. Runs are counted from the
//! segment's first row, so a segment's bits do not depend on its neighbours.

use super::block::{Decoded, row_ranges};
use super::scratch::Scratch;
use crate::chunk::{Chunk, Columns};
use crate::error::KernelError;
use crate::gram::Gram;
use crate::limits::RUN_ROWS;
use crate::triangles::{Triangles, triangle_len};
use crate::work::OnCpu;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Up to this many tasks the register tiles below win over a library's matrix product. Two cores, data in memory, by turns:
/// with AVX-512 1.5 times the product's speed at T = 96, 1.35 at 128, 1.2 at 192, 1.1 at 256 and 0.7 at 512; with AVX2
/// 1.35 at 48, 1.15 at 64 and 96, 1.0 at 128 and 0.8 at 256 (the product had AVX-512 there). A library's full square
/// product does 103 to 119 GFLOP/s on a core of that machine; the tiles do 93 and, with the decoding, 77. Four lanes
/// were not measured beyond 32.
///
/// Tried and left out:
/// - Vectors of our own over the standard library's AVX-512 intrinsics, with unchecked indexing. pulp's `x86-v4` feature
///   makes the same instructions from safe code.
/// - Tiles of 5 × 5: 0.97 to 1.05 times the speed.
/// - Runs of 512 rows: 0.8 to 0.95. Blocks of 128 to 512 rows within a run, which stay in the first-level cache, with the
///   sums kept in memory from block to block: 0.7 to 0.9, since decoding short pieces of many columns costs more than the
///   second-level cache does.
/// - Prefetching the next run's bytes while the tiles run: 1.0 to 1.18 for chunks in memory, but 0.97 for whole passes,
///   where the chunk has just been read and lies in the cache.
const fn most_tiled_tasks(n_lanes: usize) -> usize {
    match n_lanes {
        16.. => 256,
        8.. => 128,
        _ => 32,
    }
}

impl OnCpu for Gram {
    fn run_on_cpu(
        &self,
        arch: pulp::Arch,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        out: &mut Triangles,
    ) -> Result<(), KernelError> {
        out.clear(chunk.layout.segments.len(), chunk.layout.n_tasks())?;
        arch.dispatch(GramOfChunk { first: self.first, chunk, scratch, values: &mut out.values });
        Ok(())
    }
}

/// Rows of a run. One long chain of f32 additions is only good to 1e-6 over 1,024 rows; several lanes cut it into as many
/// chains, each so much shorter. A library's product makes one chain, so its runs are short.
fn run_rows(n_tasks: usize, n_lanes: usize) -> usize {
    if n_tasks > most_tiled_tasks(n_lanes) || n_lanes < 4 { 256 } else { RUN_ROWS }
}

struct GramOfChunk<'a> {
    first: usize,
    chunk: Chunk<'a>,
    scratch: &'a mut Scratch,
    values: &'a mut [f64],
}

impl WithSimd for GramOfChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { first, chunk, scratch, values } = self;
        let n_tasks = chunk.layout.n_tasks();
        let n_values = triangle_len(n_tasks);
        for (at, (segment, triangle)) in chunk.layout.segments.iter().zip(values.chunks_exact_mut(n_values)).enumerate()
        {
            for range in row_ranges(at, segment.n_rows, run_rows(n_tasks, S::F32_LANES)) {
                let run = scratch.block.decode(chunk, range, Columns::Checkpoints);
                // Many tasks of which few rows are asked for are few inner products.
                if n_tasks - first > most_tiled_tasks(S::F32_LANES) {
                    let products = scratch.products.at_least(n_tasks * (n_tasks - first));
                    add_run_by_product(run, n_tasks, first, products, triangle);
                    add_diagonal::<S, 4>(simd, run, 0..first, triangle);
                } else if S::REGISTER_COUNT >= 32 {
                    add_run_by_tiles::<S, 4>(simd, run, n_tasks, first, triangle);
                } else {
                    add_run_by_tiles::<S, 3>(simd, run, n_tasks, first, triangle);
                }
            }
        }
    }
}

/// Many tasks: a sequential library product, one triangle only where all of it is asked for.
fn add_run_by_product(run: Decoded<'_>, n_tasks: usize, first: usize, products: &mut [f32], triangle: &mut [f64]) {
    let deltas = MatRef::from_column_major_slice_with_stride(run.columns, run.n_padded, n_tasks, run.stride);
    let own = deltas.get(.., first..);
    let out = MatMut::from_column_major_slice_mut(&mut *products, n_tasks, n_tasks - first);
    let whole = BlockStructure::Rectangular;
    if first == 0 {
        let upper = BlockStructure::TriangularUpper;
        triangular::matmul(out, upper, Accum::Replace, deltas.transpose(), whole, own, whole, 1.0f32, Par::Seq);
    } else {
        matmul(out, Accum::Replace, deltas.transpose(), own, 1.0f32, Par::Seq);
    }
    // Column i of the upper triangle is row i of the lower one.
    for (i, column) in (first..).zip(products.chunks_exact(n_tasks)) {
        for (sum, &product) in triangle[triangle_len(i)..].iter_mut().zip(&column[..=i]) {
            *sum += f64::from(product);
        }
    }
}

/// The squares of some tasks alone, each the chain of additions that its tile would make.
#[inline(always)]
fn add_diagonal<S: Simd, const N: usize>(simd: S, run: Decoded<'_>, tasks: Range<usize>, triangle: &mut [f64]) {
    let n_vectors = run.n_padded / S::F32_LANES;
    let rows = |task: usize| &S::as_simd_f32s(&run.columns[task * run.stride..][..run.n_padded]).0[..n_vectors];
    for start in tasks.clone().step_by(N) {
        // The last group says its last task more than once.
        let task = |n: usize| (start + n).min(tasks.end - 1);
        let columns: [&[S::f32s]; N] = std::array::from_fn(|n| rows(task(n)));
        let mut sums = [simd.splat_f32s(0.0); N];
        for x in 0..n_vectors {
            for n in 0..N {
                let value = columns[n][x];
                sums[n] = simd.mul_add_e_f32s(value, value, sums[n]);
            }
        }
        for (n, sum) in sums.into_iter().enumerate().take(tasks.end - start) {
            triangle[triangle_len(start + n + 1) - 1] += f64::from(simd.reduce_sum_f32s(sum));
        }
    }
}

/// Few tasks: tiles of `TILE` × `TILE` inner products held in registers over the whole run. Those of the tile in which `first`
/// is are formed too.
#[inline(always)]
fn add_run_by_tiles<S: Simd, const TILE: usize>(
    simd: S,
    run: Decoded<'_>,
    n_tasks: usize,
    first: usize,
    triangle: &mut [f64],
) {
    let first = first / TILE * TILE;
    add_diagonal::<S, TILE>(simd, run, 0..first, triangle);
    for first_i in (first..n_tasks).step_by(TILE) {
        for first_j in (0..first_i).step_by(TILE) {
            match n_tasks - first_i {
                1 => add_tile::<S, 1, TILE>(simd, run, first_i, first_j, triangle),
                2 => add_tile::<S, 2, TILE>(simd, run, first_i, first_j, triangle),
                3 if TILE > 3 => add_tile::<S, 3, TILE>(simd, run, first_i, first_j, triangle),
                _ => add_tile::<S, TILE, TILE>(simd, run, first_i, first_j, triangle),
            }
        }
        match n_tasks - first_i {
            1 => add_tile::<S, 1, 1>(simd, run, first_i, first_i, triangle),
            2 => add_tile::<S, 2, 2>(simd, run, first_i, first_i, triangle),
            3 if TILE > 3 => add_tile::<S, 3, 3>(simd, run, first_i, first_i, triangle),
            _ => add_tile::<S, TILE, TILE>(simd, run, first_i, first_i, triangle),
        }
    }
}

/// The inner products of tasks `first_i..` with tasks `first_j..`; on the diagonal only those with j ≤ i are kept.
#[inline(always)]
fn add_tile<S: Simd, const N_I: usize, const N_J: usize>(
    simd: S,
    run: Decoded<'_>,
    first_i: usize,
    first_j: usize,
    triangle: &mut [f64],
) {
    let n_vectors = run.n_padded / S::F32_LANES;
    let mut left: [&[S::f32s]; N_I] = [&[]; N_I];
    let mut right: [&[S::f32s]; N_J] = [&[]; N_J];
    for i in 0..N_I {
        left[i] = &S::as_simd_f32s(&run.columns[(first_i + i) * run.stride..][..run.n_padded]).0[..n_vectors];
    }
    for j in 0..N_J {
        right[j] = &S::as_simd_f32s(&run.columns[(first_j + j) * run.stride..][..run.n_padded]).0[..n_vectors];
    }
    let mut sums = [[simd.splat_f32s(0.0); N_J]; N_I];
    for x in 0..n_vectors {
        let mut right_x = [simd.splat_f32s(0.0); N_J];
        for j in 0..N_J {
            right_x[j] = right[j][x];
        }
        for i in 0..N_I {
            let left_x = left[i][x];
            for j in 0..N_J {
                sums[i][j] = simd.mul_add_e_f32s(left_x, right_x[j], sums[i][j]);
            }
        }
    }
    for i in 0..N_I {
        for j in 0..N_J {
            let (i_task, j_task) = (first_i + i, first_j + j);
            if j_task <= i_task {
                triangle[triangle_len(i_task) + j_task] += f64::from(simd.reduce_sum_f32s(sums[i][j]));
            }
        }
    }
}

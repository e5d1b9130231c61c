//! reconstruct: the fused reconstruction out_k(x) = \[θ0(x) +\] Σ_c column_c(x)·W\[c,k\] into the output format.
//!
//! Numerics: f32, rounded once to the output format. Where a segment's base or output is f64, all of that segment is done
//! in f64 (differences too), so that none of the base's precision is lost.

use super::block::{DecodedF64, row_ranges};
use super::combine::{block_rows, combine};
use super::output::size_rows;
use super::rows::{narrow, narrow_f64};
use super::scratch::Scratch;
use crate::check::bytes_per_output;
use crate::chunk::{Chunk, Dtype};
use crate::error::KernelError;
use crate::reconstruct::{Base, Reconstruct};
use crate::work::OnCpu;
use pulp::{Simd, WithSimd};

impl OnCpu for Reconstruct {
    fn run_on_cpu(
        &self,
        arch: pulp::Arch,
        chunk: Chunk<'_>,
        scratch: &mut Scratch,
        rows: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        let bytes_per_output = bytes_per_output(chunk.layout, |segment| self.row_dtype(chunk.layout, segment))?;
        size_rows(rows, self.n_outputs, bytes_per_output)?;
        scratch.weights.pack(&self.weights, chunk.layout.n_tasks(), self.n_outputs);
        arch.dispatch(ReconstructChunk { reconstruct: self, chunk, scratch, bytes_per_output, rows });
        Ok(())
    }
}

struct ReconstructChunk<'a> {
    reconstruct: &'a Reconstruct,
    chunk: Chunk<'a>,
    scratch: &'a mut Scratch,
    bytes_per_output: usize,
    rows: &'a mut [u8],
}

impl WithSimd for ReconstructChunk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { reconstruct, chunk, scratch, bytes_per_output, rows } = self;
        let add_base = reconstruct.base == Base::Added;
        let mut segment_start = 0;
        for (at, segment) in chunk.layout.segments.iter().enumerate() {
            let dtype = reconstruct.row_dtype(chunk.layout, at);
            let size = dtype.size();
            let in_f64 = dtype == Dtype::F64 || chunk.layout.slice(at, 0).dtype == Dtype::F64;
            for range in row_ranges(at, segment.n_rows, block_rows(chunk.layout.n_tasks())) {
                let start = segment_start + range.start * size;
                let place = |output: usize| {
                    let from = output * bytes_per_output + start;
                    from..from + range.n_rows * size
                };
                if in_f64 {
                    let block = scratch.block.decode_f64(chunk, range, reconstruct.columns);
                    scratch.rows_f64.resize(range.n_rows, 0.0);
                    for output in 0..reconstruct.n_outputs {
                        combine_f64(block, reconstruct, output, &mut scratch.rows_f64);
                        narrow_f64(&scratch.rows_f64, dtype, &mut rows[place(output)]);
                    }
                } else {
                    let block = scratch.block.decode(chunk, range, reconstruct.columns);
                    combine(simd, block, add_base, &scratch.weights, &mut scratch.rows, |output, output_rows| {
                        narrow(&output_rows[..range.n_rows], dtype, &mut rows[place(output)]);
                    });
                }
            }
            segment_start += segment.n_rows * size;
        }
    }
}

/// One output of a block in f64.
#[inline(always)]
fn combine_f64(block: DecodedF64<'_>, reconstruct: &Reconstruct, output: usize, rows: &mut [f64]) {
    match reconstruct.base {
        Base::Added => rows.copy_from_slice(block.base),
        Base::Left => rows.fill(0.0),
    }
    for (column, weights) in
        block.columns.chunks_exact(rows.len()).zip(reconstruct.weights.chunks_exact(reconstruct.n_outputs))
    {
        let weight = f64::from(weights[output]);
        if weight != 0.0 {
            for (row, &delta) in rows.iter_mut().zip(column) {
                *row += delta * weight;
            }
        }
    }
}

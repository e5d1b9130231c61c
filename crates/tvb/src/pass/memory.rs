//! What a pass needs of the host's memory, and whether the cap leaves it that much.
//!
//! Chunks are of one size whatever the cap is, since they are part of how a pass resumes; a lower cap means fewer threads
//! and fewer staging buffers. One of each is the least that works.

use super::Block;
use super::pass::Pass;
use super::reads::Reads;
use super::runtime::Runtime;
use super::staged::most_staged_bytes;
use crate::columns::coded::block_bytes;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::units;
use tvb_kernels::{BLOCK, Dtype, Engine, n_blocks};

impl Pass<'_> {
    /// Bytes of one worker's buffers: a chunk's columns, and `n_outputs` results of each of its rows.
    pub(super) fn worker_bytes(&self, n_outputs: usize) -> u64 {
        let plan = self.plan;
        let widest = |column: usize| {
            let is_f64 = |tensor| plan.column_tensor(tensor, column).dtype.float() == Some(Dtype::F64);
            if plan.tensors.iter().any(is_f64) { Dtype::F64.size() } else { Dtype::F32.size() }
        };
        // Results are in the base's type, or a narrower one.
        let columns: usize = (0..plan.n_columns()).map(widest).sum();
        let row_bytes = n_outputs.saturating_mul(widest(0)).saturating_add(columns);
        self.grid.most_rows().saturating_mul(row_bytes).saturating_add(self.codes_bytes()) as u64
    }

    /// Bytes of the rows and codes of one chunk, those that are formed with them: its part of [`Plan::n_bytes`](crate::columns::plan::Plan::n_bytes).
    pub(super) fn chunk_bytes(&self, chunk: usize) -> u64 {
        let plan = self.plan;
        let of_block = |block: &Block| -> u64 {
            let tensor = &plan.tensors[block.tensor];
            let of_column = |column: usize| plan.column_tensor(tensor, column).dtype.size() as u64;
            let of_row: u64 = (0..plan.n_columns()).map(of_column).sum();
            let codes = plan.codes.iter().map(|column| (n_blocks(block.n_rows) * block_bytes(column.rate)) as u64);
            block.n_rows as u64 * of_row + codes.sum::<u64>()
        };
        self.grid.blocks(chunk).iter().map(of_block).sum()
    }

    /// Bytes of the rows and codes of all its chunks.
    pub fn n_bytes(&self) -> u64 {
        let of_tensor = |(tensor, rows): (usize, std::ops::Range<usize>)| {
            let planned = &self.plan.tensors[tensor];
            let of_column = |column: usize| self.plan.column_tensor(planned, column).dtype.size() as u64;
            let of_row: u64 = (0..self.plan.n_columns()).map(of_column).sum();
            let codes = self.plan.codes.iter().map(|column| (n_blocks(rows.len()) * block_bytes(column.rate)) as u64);
            rows.len() as u64 * of_row + codes.sum::<u64>()
        };
        self.grid.tensor_rows().map(of_tensor).sum()
    }

    /// Bytes of the codes of one chunk, at most.
    fn codes_bytes(&self) -> usize {
        let words: usize = self.plan.codes.iter().map(|column| block_bytes(column.rate)).sum();
        // A segment's last block need not be full, nor its slices without gaps.
        (self.grid.most_rows() / BLOCK + self.grid.most_blocks())
            .saturating_mul(words)
            .saturating_add((64 * self.plan.codes.len()).saturating_mul(self.grid.most_blocks()))
    }

    /// Bytes of a staging buffer for one chunk.
    pub(super) fn staging_bytes(&self) -> usize {
        // What is kept for the next pass is rows.
        let leaves_factors = self.reads.kept().is_none();
        most_staged_bytes(self.plan, &self.grid, leaves_factors).saturating_add(self.codes_bytes())
    }

    /// Bytes of the host's for one chunk on its way through a GPU: the buffer of whoever reads it and the slot it fills, then the
    /// results where they are read back to and where they are worked on.
    pub(super) fn streamed_bytes(&self, n_outputs: usize) -> u64 {
        let results = self.grid.most_rows().saturating_mul(n_outputs).saturating_mul(Dtype::F32.size());
        (self.staging_bytes().saturating_add(results) as u64).saturating_mul(2)
    }

    /// The least memory cap that this pass works with, on this device.
    pub fn least_bytes(&self, n_outputs: usize, runtime: &Runtime) -> u64 {
        let on_host = self.worker_bytes(n_outputs);
        match runtime.engine {
            Engine::Cpu(_) => on_host,
            // The CPU goes on where the device fails.
            Engine::Gpu(_) => on_host.max(self.streamed_bytes(n_outputs)),
        }
    }

    /// Whether the memory cap leaves room for the pass; asked before anything is read.
    pub(super) fn check_memory(&self, n_outputs: usize, runtime: &Runtime) -> Result<()> {
        let n_columns = self.plan.n_columns();
        runtime.check_memory(self.least_bytes(n_outputs, runtime), &format!("a chunk of {n_columns} columns"))
    }
}

impl Runtime {
    /// How many buffers of `bytes_each` the memory cap leaves room for: at most `most`, and one in any case (see
    /// [`check_memory`](Runtime::check_memory)).
    pub(crate) fn n_affordable(&self, bytes_each: u64, most: usize) -> usize {
        let affordable = usize::try_from(self.memory_bytes / bytes_each.max(1)).unwrap_or(usize::MAX);
        most.min(affordable).max(1)
    }

    /// Whether the memory cap leaves room for what is needed at least.
    ///
    /// # Errors
    /// Usage: it does not; says what is needed.
    pub(crate) fn check_memory(&self, least_bytes: u64, what: &str) -> Result<()> {
        if least_bytes <= self.memory_bytes {
            return Ok(());
        }
        Err(Error::usage(format!(
            "a memory cap of {least_bytes} bytes ({}) or more expected for {what}, {} found",
            units::bytes(least_bytes),
            units::bytes(self.memory_bytes)
        ))
        .hint(format!("--memory {least_bytes} is the least that works for these inputs, with one thread")))
    }
}

/// The least memory cap for a pass over every row of `plan` that makes `n_outputs` results of each.
pub fn least_bytes(plan: &Plan, n_outputs: usize, runtime: &Runtime) -> u64 {
    Pass::over(plan, runtime, &Reads::new()).least_bytes(n_outputs, runtime)
}

/// Whether the memory cap leaves room for such a pass: for jobs of several passes, before the first.
///
/// # Errors
/// Usage: it does not; says what is needed.
pub fn check_memory(plan: &Plan, n_outputs: usize, runtime: &Runtime) -> Result<()> {
    Pass::over(plan, runtime, &Reads::new()).check_memory(n_outputs, runtime)
}

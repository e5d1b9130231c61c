//! The way through codes: the tasks are coded as `tvb compress` does where nothing is said, and added up as `tvb add` does.

use super::{Files, Outcome, Quiet, check};
use crate::bench::check_codes::{self, CodedEdit, spread};
use crate::bench::codes::{Column, Piece};
use crate::bench::timing::{Budget, measure};
use std::path::Path;
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Existing};
use tvb::digest::{BLOCK_ROWS, Digest};
use tvb::error::{Error, Result};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::pass::Runtime;
use tvb::progress::Progress;
use tvb_kernels::{Code, Place, n_blocks};

/// What all tasks together are scaled with.
const SCALE: f32 = 0.3;

/// Elements of all columns that are compared, about.
const MOST_CHECKED: usize = 1 << 21;

/// Rows of one tensor that lie together in a file.
#[derive(Clone, Copy)]
struct Block {
    tensor: usize,
    is_coded: bool,
    /// First of them, in the tensor and among those of the model.
    first_row: usize,
    row: usize,
    n_rows: usize,
    /// Blocks of codes and elements of tensors that are not coded that lie before it in a file.
    blocks_before: usize,
    raw_before: usize,
}

impl Files {
    /// Codes the files and adds all tasks up from the codes, again and again; `code` is what `tvb compress` does where
    /// nothing is said.
    ///
    /// # Errors
    /// Those of [`compress`] and of [`EditJob::write`].
    pub(in crate::bench) fn run_coded(
        &self,
        code: &Code,
        runtime: &Runtime,
        progress: &dyn Progress,
        budget: Budget,
    ) -> Result<Outcome> {
        let plan = self.plan()?;
        let options = CompressOptions::new(self.folder.path().join("coded")).existing(Existing::Replace);
        let target = self.folder.path().join("edited.safetensors");
        let output = EditOutput::new(&target).existing(Existing::Replace);
        let edit = Edit::new(vec![1.0; self.n_tasks], f64::from(SCALE));
        let quiet = Quiet(progress);
        let once = || -> Result<Basis> {
            let basis = compress(&plan, &options, runtime, &quiet)?.basis;
            let job = EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(&plan.base), output: &output };
            job.write(runtime, &quiet)?;
            Ok(basis)
        };
        let digest = |basis: &Basis| -> Result<Digest> {
            let edited = std::fs::read(&target).map_err(|error| Error::io("reading", &target, &error))?;
            let atoms = basis.manifest.atoms.iter().map(|atom| atom.checksum);
            Ok(Digest::of_digests(atoms.chain([Digest::of(&edited)])))
        };
        let first = once()?;
        let verdict = match self.check_gram(&first, runtime.n_threads) {
            Ok(()) => self.check_coded(code, &first, &target)?,
            wrong => wrong,
        };
        let first_digest = digest(&first)?;
        let mut last = first.clone();
        let timed = measure(budget, || {
            last = once()?;
            Ok(())
        })?;
        let code_bytes: u64 = first.manifest.atoms.iter().map(|atom| atom.bytes).sum();
        let one = (self.n_rows() * self.values.dtype.size()) as u64;
        // The inputs are read and codes are written; the base and the codes are read and the result is written.
        let n_bytes = plan.n_bytes() + 2 * code_bytes + 2 * one;
        Ok(Outcome { verdict, n_bytes, hashes: [first_digest, digest(&last)?], timed })
    }

    /// Compares a spread of the codes in the files with the values, and the edited rows with what they decode to.
    fn check_coded(&self, code: &Code, basis: &Basis, target: &Path) -> Result<std::result::Result<(), check::Wrong>> {
        let atoms = &basis.manifest.atoms;
        if atoms.len() != self.n_tasks + code.n_kept {
            return Ok(Err(format!("{} columns of codes where {} were expected", atoms.len(), self.n_tasks + 1)));
        }
        let open = |file: &str| Checkpoint::open(&basis.folder.join(file));
        let columns = atoms.iter().map(|atom| open(&atom.file)).collect::<Result<Vec<_>>>()?;
        let edited = Checkpoint::open(target)?;
        let blocks = self.blocks();
        for at in spread(blocks.len(), MOST_CHECKED / (BLOCK_ROWS * columns.len())) {
            let block = blocks[at];
            let verdict = match block.is_coded {
                true => self.check_block(block, code, &columns, &edited),
                false => self.check_raw(block, &edited),
            };
            if let Err(wrong) = verdict {
                return Ok(Err(format!("tensor {}: {wrong}", block.tensor)));
            }
        }
        Ok(Ok(()))
    }

    /// The blocks of all tensors in order.
    fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut row, mut blocks_before, mut raw_before) = (Vec::new(), 0, 0, 0);
        for (tensor, spec) in self.tensors.iter().enumerate() {
            let (is_coded, size) = (spec.shape.len() > 1, spec.shape.iter().product::<usize>());
            for first_row in (0..size).step_by(BLOCK_ROWS) {
                let n_rows = BLOCK_ROWS.min(size - first_row);
                blocks.push(Block { tensor, is_coded, first_row, row, n_rows, blocks_before, raw_before });
                row += n_rows;
                match is_coded {
                    true => blocks_before += n_blocks(n_rows),
                    false => raw_before += n_rows,
                }
            }
        }
        blocks
    }

    fn check_block(
        &self,
        block: Block,
        code: &Code,
        columns: &[Checkpoint],
        edited: &Checkpoint,
    ) -> std::result::Result<(), check::Wrong> {
        let n_blocks = n_blocks(block.n_rows);
        let rate = |column: usize| if column < self.n_tasks { code.rate } else { code.kept_rate };
        let read = |(column, file): (usize, &Checkpoint)| {
            // Only a task's own column has what is not coded, in bf16.
            let raw_bytes = if column < self.n_tasks { 2 * block.raw_before } else { 0 };
            let word_bytes = 4 * rate(column).words();
            let at = block.blocks_before * (word_bytes + 2) + raw_bytes;
            let mut bytes = vec![0; n_blocks * (word_bytes + 2)];
            file.read(file.get("codes")?, at as u64, &mut bytes).ok()?;
            let (words, scales) = bytes.split_at(n_blocks * word_bytes);
            let words: Vec<u32> = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
            let scales: Vec<u16> = scales.as_chunks::<2>().0.iter().map(|bits| u16::from_le_bytes(*bits)).collect();
            Some((words, scales))
        };
        let stored: Option<Vec<_>> = columns.iter().enumerate().map(read).collect();
        let stored = stored.ok_or_else(|| "codes that are missing".to_owned())?;
        let piece = Piece {
            place: Place { tensor: block.tensor as u32, first_row: block.first_row as u64 },
            row: block.row,
            n_rows: block.n_rows,
            columns: stored
                .iter()
                .enumerate()
                .map(|(at, (words, scales))| Column { rate: rate(at), words, scales })
                .collect(),
        };
        check_codes::sums(&self.values, code, &piece, 1)?;
        let mut weights = vec![SCALE; self.n_tasks];
        weights.push(SCALE * (self.n_tasks as f32).sqrt());
        let edit = CodedEdit { values: &self.values, seed: code.seed, weights: &weights, dtype: self.values.dtype };
        check_codes::edited_piece(edit, &piece, 1, |x| self.row(edited, x)).map_err(|wrong| format!("edit: {wrong}"))
    }

    /// Rows of a tensor that is not coded: the tasks' differences are stored in bf16.
    fn check_raw(&self, block: Block, edited: &Checkpoint) -> std::result::Result<(), check::Wrong> {
        let mut base = vec![0.0f32; block.n_rows];
        self.values.fill(0, block.row, &mut base);
        let deltas = self.values.deltas(self.n_tasks, block.row, block.n_rows);
        for (at, base) in base.iter().enumerate() {
            let (mut expected, mut magnitude) = (f64::from(*base), f64::from(base.abs()));
            for rows in deltas.chunks_exact(block.n_rows) {
                let term = f64::from(SCALE) * f64::from(half::bf16::from_f32(rows[at]).to_f32());
                (expected, magnitude) = (expected + term, magnitude + term.abs());
            }
            let tolerance = check::tolerance(self.values.dtype, expected, self.n_tasks + 2, magnitude);
            let x = block.row + at;
            match self.row(edited, x) {
                Some(found) if !check::is_above((found - expected).abs(), tolerance) => {}
                Some(found) => return Err(format!("edit: row {x} is {found:e} where f64 gives {expected:e}")),
                None => return Err(format!("edit: row {x} is missing")),
            }
        }
        Ok(())
    }
}

//! Edits formed from generated atoms: every thread makes the rows of one run of blocks after another, adds the base's and
//! writes them where they belong.

use super::generated::RawColumns;
use super::outputs::Outputs;
use super::range::{Input, Origin, RangeCheck, Rows};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::digest::{BLOCK_ROWS, Digest};
use crate::error::{Error, Result};
use crate::pass::Runtime;
use crate::progress::Progress;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tvb_kernels::Dtype;

/// Edits Σ_m weights\[k\]\[m\]·R_m, for every output k.
#[derive(Clone, Copy, Debug)]
pub struct GeneratedEdits<'a> {
    /// The raw columns.
    pub raw: &'a RawColumns,
    /// \[n_outputs\]\[n_columns\]: weights over the raw columns.
    pub weights: &'a [Vec<f64>],
}

/// One piece of work: a block of a tensor.
#[derive(Clone, Copy, Debug)]
struct Piece {
    tensor: usize,
    first_row: usize,
    n_rows: usize,
}

/// A tensor of the base that is edited.
#[derive(Clone, Copy, Debug)]
struct Edited<'a> {
    base: &'a Checkpoint,
    tensor: &'a Tensor,
    dtype: Dtype,
}

impl GeneratedEdits<'_> {
    /// Forms the edits and writes them, one output for each; answers the digests of the base's tensors by name.
    ///
    /// # Errors
    /// Usage: a memory cap that leaves no room for one block. Rejected: a base whose tensors are not the basis'. Failed: I/O. Interrupted.
    pub fn form(
        &self,
        base: Option<&Checkpoint>,
        outputs: Outputs<'_>,
        range: &RangeCheck,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<HashMap<String, Digest>> {
        // Outputs in f64, the raw column, the base as stored and as values.
        let piece_bytes = (BLOCK_ROWS * 8 * (self.weights.len() + 3)) as u64;
        runtime.check_memory(piece_bytes, "one block of every output")?;
        let n_threads = runtime.n_affordable(piece_bytes, runtime.n_threads);
        let edited =
            self.raw.tensors.iter().map(|(name, shape)| edited(base, name, shape)).collect::<Result<Vec<_>>>()?;
        let pieces = Pieces::new(&self.raw.tensors);
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(Piece, Digest)>> {
            let mut done = Vec::new();
            while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                progress.check()?;
                let digest = self.form_piece(piece, edited[piece.tensor], outputs, range)?;
                done.extend(digest.map(|digest| (piece, digest)));
                progress.advance(4 * piece.n_rows as u64);
            }
            Ok(done)
        };
        let mut done = Vec::new();
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                let gone = |_| Error::failed("a worker stopped before its tensor was done");
                done.extend(thread.join().map_err(gone)??);
            }
            Ok(())
        })?;
        done.sort_by_key(|(piece, _)| (piece.tensor, piece.first_row));
        let by_tensor = done.chunk_by(|(a, _), (b, _)| a.tensor == b.tensor).map(|blocks| {
            let name = self.raw.tensors[blocks[0].0.tensor].0.clone();
            (name, Digest::of_digests(blocks.iter().map(|(_, digest)| *digest)))
        });
        Ok(by_tensor.collect())
    }

    /// One block of every output; the digest of the base's.
    fn form_piece(
        &self,
        piece: Piece,
        edited: Option<Edited<'_>>,
        outputs: Outputs<'_>,
        range: &RangeCheck,
    ) -> Result<Option<Digest>> {
        let name = &self.raw.tensors[piece.tensor].0;
        let stored = outputs.format.dtype.or(edited.map(|edited| edited.dtype)).unwrap_or(Dtype::F32);
        let first_row = self.raw.first_row(name)? + piece.first_row as u64;
        let mut formed = self.raw.mixed(first_row, piece.n_rows, self.weights);
        let mut inputs = Vec::new();
        let mut digest = None;
        if let Some(Edited { base, tensor, dtype: own }) = edited {
            let mut bytes = vec![0; piece.n_rows * own.size()];
            base.read(tensor, (piece.first_row * own.size()) as u64, &mut bytes)?;
            digest = Some(Digest::of(&bytes));
            let exact = tvb_kernels::convert(&bytes, own, Dtype::F64);
            let values = exact.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default()));
            let values: Vec<f64> = values.collect();
            for output in &mut formed {
                output.iter_mut().zip(&values).for_each(|(out, base)| *out += base);
            }
            inputs.push(Input { name: format!("base {}", base.path().display()), values, is_base: true });
        }
        for (output, values) in formed.iter().enumerate() {
            let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let mut rows = tvb_kernels::convert(&exact, Dtype::F64, stored);
            let bytes = rows.as_mut_slice();
            let looked_at =
                Rows { outputs: output..output + 1, tensor: name, first_row: piece.first_row, dtype: stored, bytes };
            range.look(looked_at, || Ok(Origin { inputs: inputs.clone(), exact: values.clone() }))?;
            outputs.write(output, name, (piece.first_row * stored.size()) as u64, &rows)?;
        }
        Ok(digest)
    }
}

/// The base's tensor of this name and shape; `None` without a base.
fn edited<'a>(base: Option<&'a Checkpoint>, name: &str, shape: &[usize]) -> Result<Option<Edited<'a>>> {
    let Some(base) = base else { return Ok(None) };
    let expected = || format!("{}: tensor {name}: a float tensor of shape {shape:?} expected", base.path().display());
    let tensor = base.get(name).ok_or_else(|| Error::rejected(format!("{}, none found", expected())))?;
    match tensor.dtype.float() {
        Some(dtype) if tensor.shape == shape => Ok(Some(Edited { base, tensor, dtype })),
        _ => Err(Error::rejected(format!("{}, {} {:?} found", expected(), tensor.dtype, tensor.shape))),
    }
}

/// Every block of every tensor, by number; nothing is held for each, since sizes come from a file.
struct Pieces {
    n_elements: Vec<usize>,
    /// Number of the first block of each tensor.
    firsts: Vec<usize>,
}

impl Pieces {
    fn new(tensors: &[(String, Vec<usize>)]) -> Pieces {
        let n_elements: Vec<usize> = tensors.iter().map(|(_, shape)| shape.iter().product()).collect();
        let mut end = 0;
        let firsts = n_elements.iter().map(|n_elements| {
            let first = end;
            end += n_elements.div_ceil(BLOCK_ROWS);
            first
        });
        Pieces { firsts: firsts.collect(), n_elements }
    }

    fn get(&self, number: usize) -> Option<Piece> {
        let tensor = self.firsts.partition_point(|&first| first <= number).checked_sub(1)?;
        let first_row = (number - self.firsts[tensor]).checked_mul(BLOCK_ROWS)?;
        let n_rows = self.n_elements[tensor].checked_sub(first_row)?.min(BLOCK_ROWS);
        (n_rows > 0).then_some(Piece { tensor, first_row, n_rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_row_once() {
        let shape = |n: usize| (String::new(), vec![n]);
        let rows = [0, 5, BLOCK_ROWS, 0, 2 * BLOCK_ROWS + 1, 0];
        let pieces = Pieces::new(&rows.map(shape));
        let found: Vec<(usize, usize, usize)> =
            (0..).map_while(|number| pieces.get(number)).map(|p| (p.tensor, p.first_row, p.n_rows)).collect();
        let expected =
            [(1, 0, 5), (2, 0, BLOCK_ROWS), (4, 0, BLOCK_ROWS), (4, BLOCK_ROWS, BLOCK_ROWS), (4, 2 * BLOCK_ROWS, 1)];
        assert_eq!(found, expected);
        assert!(Pieces::new(&[]).get(0).is_none());
    }
}

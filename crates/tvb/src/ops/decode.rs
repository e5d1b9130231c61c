//! decode: base + weights × coded columns → checkpoints, combined where they are rotated, with one transform back.

use super::in_f32::weight_in_f32;
use super::outputs::Outputs;
use super::range::{Input, Origin, RangeCheck, Rows};
use crate::checkpoint::{Checkpoint, values_of};
use crate::columns::coded::CodedColumn;
use crate::columns::plan::{Plan, Task};
use crate::digest::{Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::pass::{Block, ChunkReader, Done, Folded, Operation, Pass, Reads, Runtime, device_error};
use crate::progress::Progress;
use crate::shown::{shown, shown_path};
use std::collections::HashMap;
use std::path::PathBuf;
use tvb_kernels::{Base, Chunk, ChunkLayout, CpuEngine, Decode, Dtype, Rate};

/// A tensor of coded atoms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtomTensor {
    /// Its name in the base.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What the signs of its codes depend on.
    pub number: u32,
    /// Whether it is coded, or stored in bf16.
    pub coded: bool,
}

/// Coded atoms, open: their own columns, then the shared ones.
#[derive(Clone, Debug)]
pub struct CodedAtoms {
    /// Where they are, for messages.
    pub folder: PathBuf,
    /// Each column's file under its stem.
    pub columns: Vec<Task>,
    /// \[n_columns\]
    pub rates: Vec<Rate>,
    /// Columns that are atoms' own: the first ones.
    pub n_own: usize,
    /// Where the signs of the rotation come from.
    pub seed: u64,
    /// The stored tensors, in their order.
    pub tensors: Vec<AtomTensor>,
}

impl CodedAtoms {
    /// Names of the tensors that are coded, or of those that are not.
    pub fn names(&self, coded: bool) -> Vec<String> {
        self.tensors.iter().filter(|tensor| tensor.coded == coded).map(|tensor| tensor.name.clone()).collect()
    }

    /// The same atoms with some of the tensors: those that `keep` answers true for.
    #[must_use]
    pub fn only(&self, keep: &dyn Fn(&str) -> bool) -> CodedAtoms {
        let tensors = self.tensors.iter().filter(|tensor| keep(&tensor.name)).cloned().collect();
        CodedAtoms { tensors, ..self.clone() }
    }

    /// The stored tensors with nothing in them, in f32: what stands in for a base where there is none.
    ///
    /// # Errors
    /// Rejected: two tensors of one name.
    pub fn zeros(&self) -> Result<Checkpoint> {
        let shapes: Vec<_> = self.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        Checkpoint::of_zeros(&self.folder, &shapes)
    }

    /// The coded tensors of `base`, with `tasks` beside it and the codes of the columns that are `used`.
    ///
    /// # Errors
    /// Rejected: a base or a task of other tensors, codes that do not fit.
    pub fn plan(&self, base: Checkpoint, tasks: Vec<Task>, used: &[usize]) -> Result<Plan> {
        let mut plan = Plan::of_columns(base, tasks, &self.names(true))?;
        let by_name: HashMap<&str, &AtomTensor> =
            self.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for planned in &mut plan.tensors {
            let Some(tensor) = by_name.get(planned.name.as_str()) else { continue };
            if tensor.shape != planned.shape {
                return Err(Error::rejected(format!(
                    "{}: tensor {}: shape {:?} expected, as the basis has it, {:?} found",
                    shown_path(plan.base.path()),
                    shown(&planned.name),
                    tensor.shape,
                    planned.shape
                )));
            }
            planned.number = tensor.number;
        }
        let open = |&column: &usize| {
            let tensors = plan.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.n_rows));
            CodedColumn::open(self.columns[column].checkpoint.clone(), self.rates[column], tensors)
        };
        plan.codes = used.iter().map(open).collect::<Result<_>>()?;
        Ok(plan)
    }
}

/// Digests of one column's codes that were read.
#[derive(Clone, Debug)]
pub struct CodesRead {
    /// Its number among the basis' columns.
    pub column: usize,
    /// Its file.
    pub task: Task,
    /// Of its coded tensors, by name.
    pub digests: HashMap<String, Digest>,
}

/// What decoding answers: digests of the base's tensors, by name, and of the codes.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Of the base's tensors that were read, by name.
    pub base: HashMap<String, Digest>,
    /// Of the codes.
    pub codes: Vec<CodesRead>,
}

/// The coded tensors of some outputs, ready to be read and formed.
#[derive(Clone, Debug)]
pub struct Decoding<'a> {
    atoms: &'a CodedAtoms,
    /// Numbers of the columns that are read.
    used: Vec<usize>,
    /// What is read.
    pub plan: Plan,
    /// How rows are formed of it.
    pub work: Decode,
}

impl<'a> Decoding<'a> {
    /// For outputs of `weights` \[n_outputs\]\[n_columns\], stored as `dtype` or as the base is.
    ///
    /// # Errors
    /// Usage: a weight beyond f32. Rejected: a base of other tensors, codes that do not fit.
    pub fn new(
        atoms: &'a CodedAtoms,
        weights: &[Vec<f64>],
        base: Option<&Checkpoint>,
        dtype: Option<Dtype>,
    ) -> Result<Decoding<'a>> {
        let is_used = |&column: &usize| weights.iter().any(|output| output[column] != 0.0);
        let mut used: Vec<usize> = (0..atoms.columns.len()).filter(is_used).collect();
        if used.is_empty() {
            // So that there is something to decode.
            used.push(0);
        }
        let stand_in = base.cloned().map_or_else(|| atoms.zeros(), Ok)?;
        let plan = atoms.plan(stand_in, Vec::new(), &used)?;
        let path = |column: usize| shown_path(atoms.columns[column].checkpoint.path());
        let at = used.iter().flat_map(|&column| weights.iter().map(move |output| (column, output[column])));
        let in_f32 = |(column, weight)| weight_in_f32(weight, || format!("{}: its weight", path(column)));
        let work = Decode {
            rates: used.iter().map(|&column| atoms.rates[column]).collect(),
            weights: at.map(in_f32).collect::<Result<_>>()?,
            n_outputs: weights.len(),
            base: if base.is_some() { Base::Added } else { Base::Left },
            dtype,
            seed: atoms.seed,
        };
        Ok(Decoding { atoms, used, plan, work })
    }

    /// The atoms, the numbers of their columns that are read, what is read, and how rows are formed of it.
    pub(super) fn into_parts(self) -> (CodedAtoms, Vec<usize>, Plan, Decode) {
        (self.atoms.clone(), self.used, self.plan, self.work)
    }

    /// What a table of digests \[n_tensors, n_digests\] of what was read says of the codes.
    pub(super) fn codes_read(&self, table: &TableOfDigests) -> Vec<CodesRead> {
        let of_column = |(index, &column): (usize, &usize)| CodesRead {
            column,
            task: self.atoms.columns[column].clone(),
            digests: digests_by_name(&self.plan, table, 1 + index),
        };
        self.used.iter().enumerate().map(of_column).collect()
    }

    /// Forms the coded tensors of every output and writes them.
    ///
    /// # Errors
    /// Usage: a memory cap that is too low. Rejected: codes that hold what no coder writes. Failed: I/O, device.
    /// Interrupted.
    pub fn run(
        self,
        outputs: Outputs<'_>,
        range: &RangeCheck,
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<Decoded> {
        let plan = &self.plan;
        let n_digests = plan.n_digests();
        let mut table = TensorDigests::new(n_digests);
        let fold = |Folded { blocks, digests, .. }: Folded<'_, ()>| {
            for (block, columns) in blocks.iter().zip(digests.chunks_exact(n_digests)) {
                table.push(block.tensor, columns);
            }
            Ok(())
        };
        let reads = Reads::new();
        let operation = WriteDecoded { plan, work: &self.work, outputs, range, reads: &reads };
        Pass::over(plan, runtime, &reads).run(&operation, runtime, progress, fold)?;
        let table = table.finish(plan.tensors.len());
        let is_read = self.work.base == Base::Added;
        let base = if is_read { digests_by_name(plan, &table, 0) } else { HashMap::new() };
        Ok(Decoded { base, codes: self.codes_read(&table) })
    }
}

/// One column's digests, by the tensors' names.
pub(super) fn digests_by_name(plan: &Plan, table: &TableOfDigests, column: usize) -> HashMap<String, Digest> {
    plan.tensors.iter().map(|tensor| tensor.name.clone()).zip(table.column(column)).collect()
}

/// The operation: rows of the edits, written where they belong.
struct WriteDecoded<'a> {
    plan: &'a Plan,
    work: &'a Decode,
    outputs: Outputs<'a>,
    range: &'a RangeCheck,
    reads: &'a Reads,
}

impl WriteDecoded<'_> {
    /// What output `output` was formed from over one block, read again: the base, and the edit in f32.
    fn origin(&self, output: usize, block: Block) -> Result<Origin> {
        let mut reader = ChunkReader::default();
        reader.read(self.plan, self.reads, &[block])?;
        let chunk = reader.chunk();
        let weights = self.work.weights.chunks_exact(self.work.n_outputs).map(|outputs| outputs[output]).collect();
        let alone = Decode { weights, n_outputs: 1, base: Base::Left, dtype: Some(Dtype::F32), ..self.work.clone() };
        let mut rows = Vec::new();
        let engine = CpuEngine::new();
        engine.run(&alone, chunk, &mut engine.scratch(), &mut rows).map_err(device_error)?;
        let mut exact = values_of(&rows, Dtype::F32);
        let mut inputs = Vec::new();
        if self.work.base == Base::Added {
            let slice = chunk.layout.slice(0, 0);
            let bytes = &chunk.bytes[slice.offset..][..block.n_rows * slice.dtype.size()];
            let values = values_of(bytes, slice.dtype);
            exact.iter_mut().zip(&values).for_each(|(exact, value)| *exact += value);
            inputs.push(Input { name: self.plan.column_name(0), values, is_base: true });
        }
        Ok(Origin { inputs, exact })
    }
}

impl Operation for WriteDecoded<'_> {
    type Work = Decode;
    type Part = ();

    fn work(&self) -> &Decode {
        self.work
    }

    fn finish(&self, done: Done<'_>, rows: &mut Vec<u8>) -> Result<()> {
        let mut at = 0;
        for output in 0..self.outputs.len() {
            // Blocks of one tensor are written in one piece.
            let mut index = 0;
            for blocks in done.blocks.chunk_by(|a, b| a.tensor == b.tensor) {
                let Some(first) = blocks.first() else { continue };
                let stored = self.work.dtype.unwrap_or(done.layout.slice(index, 0).dtype);
                let name = &self.plan.tensors[first.tensor].name;
                let start = at;
                for block in blocks {
                    let bytes = &mut rows[at..at + block.n_rows * stored.size()];
                    at += bytes.len();
                    let (outputs, first_row) = (output..output + 1, block.first_row);
                    let looked_at = Rows { outputs, tensor: name, first_row, dtype: stored, bytes };
                    self.range.look(looked_at, || self.origin(output, *block))?;
                }
                self.outputs.write(output, name, (first.first_row * stored.size()) as u64, &rows[start..at])?;
                index += blocks.len();
            }
        }
        Ok(())
    }
}

/// The layout of one segment's codes, with its base, in a chunk that holds other columns too.
pub fn codes_of_segment(chunk: Chunk<'_>, segment: usize) -> ChunkLayout {
    let layout = chunk.layout;
    let n_coded = layout.codes.len() / layout.segments.len().max(1);
    ChunkLayout {
        n_columns: 1,
        segments: vec![layout.segments[segment]],
        slices: vec![layout.slice(segment, 0)],
        codes: layout.codes[segment * n_coded..][..n_coded].to_vec(),
        factors: Vec::new(),
        n_bytes: layout.n_bytes,
    }
}

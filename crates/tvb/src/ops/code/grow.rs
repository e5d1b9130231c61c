//! Tasks that join coded ones: their own codes, the shared columns carried on, and what the codes of the others say of inner products
//! with them. One read of the base, the newcomers and the old codes.
//!
//! Old task vectors are there only as they decode. A code is unbiased: ŷ = y + e, where e has nothing to do with y or with anything
//! else, is as long in every block of 256 as its rate has it, and points anywhere in it but along y. So ⟨x, ŷ⟩ is ⟨x, y⟩ but for noise
//! of variance Σ_blocks ‖e‖²·‖x ⟂ y‖²/256: sums that are formed here.

use super::operations::deltas_chunk;
use super::part::{CodedChunk, Coder, N_MEASURED, ROTATED};
use super::setup::Measured;
use super::sink::Piece;
use crate::checkpoint::Checkpoint;
use crate::columns::plan::{Plan, Task};
use crate::digest::{Digest, TensorDigests};
use crate::error::Result;
use crate::matrix::Matrix;
use crate::ops::decode::{CodedAtoms, CodesRead, codes_of_segment, digests_by_name};
use crate::ops::reconstruct::{Read, digests_by_place};
use crate::pass::{
    Folded, HostOperation, Pass, ReadChunk, Reads, Runtime, TensorSums, decode_deltas, decode_rows, device_error,
};
use crate::progress::Progress;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use tvb_kernels::{
    Base, Chunk, ChunkLayout, Code, Codes, CpuEngine, Decode, Dtype, PANEL, Rate, Scratch, n_blocks, triangle_len,
};

/// Blocks of a panel at most.
const BLOCKS: usize = 16;

/// How newcomers are coded beside what is there.
#[derive(Clone, Copy, Debug)]
pub struct Growing<'a> {
    /// The old columns: own ones, then K shared ones.
    pub atoms: &'a CodedAtoms,
    /// Of the newcomers' own columns.
    pub rate: Rate,
    /// Of the new shared columns.
    pub kept_rate: Rate,
    /// R [K, K']: how much of each old shared column goes into each new one.
    pub carried: &'a Matrix,
    /// [n_new, K']: the newcomers' rows of Q.
    pub kept: &'a Matrix,
    /// Which old own column each of the tasks has, where they are no newcomers: they get no other, and what they lack goes into the
    /// shared columns by their rows of `kept`. So these are made exact again where tasks have left.
    pub own: Option<&'a [usize]>,
}

/// Sums over one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct GrownSums {
    n_new: usize,
    n_old: usize,
    values: Vec<f64>,
}

impl GrownSums {
    fn len(n_new: usize, n_old: usize, n_kept: usize) -> usize {
        triangle_len(n_new) + 2 * n_new * n_old + n_old + n_new + n_kept + N_MEASURED * n_new
    }

    fn at(&self, index: usize) -> f64 {
        self.values.get(index).copied().unwrap_or(0.0)
    }

    /// ⟨x_i, x_j⟩ of two newcomers.
    pub fn among(&self, i: usize, j: usize) -> f64 {
        let (i, j) = (i.max(j), i.min(j));
        self.at(triangle_len(i) + j)
    }

    /// ⟨x, ŷ⟩ of a newcomer and an old column.
    pub fn product(&self, new: usize, old: usize) -> f64 {
        self.at(triangle_len(self.n_new) + new * self.n_old + old)
    }

    /// Σ_blocks ‖ŷ‖²·‖x ⟂ y‖²/256 of a newcomer and an old column.
    pub fn spread(&self, new: usize, old: usize) -> f64 {
        self.at(triangle_len(self.n_new) + (self.n_new + new) * self.n_old + old)
    }

    /// ‖ŷ‖² of an old column.
    pub fn decoded(&self, old: usize) -> f64 {
        self.at(triangle_len(self.n_new) + 2 * self.n_new * self.n_old + old)
    }

    /// What a new column's own code loses: ‖y − ŷ‖² of a newcomer's, or of shared ones after those.
    pub fn lost(&self, column: usize) -> f64 {
        self.at(triangle_len(self.n_new) + 2 * self.n_new * self.n_old + self.n_old + column)
    }

    fn measured(&self, new: usize) -> Measured {
        let at = self.values.len() - N_MEASURED * (self.n_new - new);
        Measured { energy: self.at(at), product: self.at(at + 1), decoded: self.at(at + 2) }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Grown {
    /// Of each stored tensor, by name; in order, so that what is added up over them has the same bits every time.
    pub sums: BTreeMap<String, GrownSums>,
    /// What came out of each newcomer.
    pub measured: Vec<Measured>,
    /// Digests of what was written, of each tensor and new column.
    pub written: HashMap<String, Vec<Digest>>,
    /// Digests of what was read of the base and of the old columns.
    pub read: Read,
    /// Digests of what was read of each newcomer, by tensor.
    pub newcomers: Vec<HashMap<String, Digest>>,
}

/// Takes what a new column has of a tensor from a row on, as it is stored.
pub type Write<'a> = dyn FnMut(usize, &str, usize, &[&[u8]]) -> Result<()> + Send + 'a;

/// Codes `newcomers` beside the old columns and hands everything new to `write`: own columns, then shared ones.
///
/// # Errors
/// Usage: a memory cap that is too low. Rejected: a base or newcomers of other tensors, damaged codes, deltas that are not finite or too
/// large to be coded. Failed: I/O. Interrupted.
pub fn grow(
    base: &Checkpoint,
    newcomers: &[Task],
    growing: Growing<'_>,
    write: &mut Write<'_>,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Grown> {
    let atoms = growing.atoms;
    let all: Vec<usize> = (0..atoms.columns.len()).collect();
    let coded = atoms.plan(base.clone(), newcomers.to_vec(), &all)?;
    let own = atoms.columns.iter().take(atoms.n_own).cloned();
    let raw = Plan::of_columns(base.clone(), newcomers.iter().cloned().chain(own).collect(), &atoms.names(false))?;
    let mut grown = Grown { newcomers: vec![HashMap::new(); newcomers.len()], ..Grown::default() };
    grown.measured = vec![Measured::default(); newcomers.len()];
    let mut of_codes = vec![HashMap::new(); all.len()];
    for (plan, is_coded) in [(&coded, true), (&raw, false)] {
        if plan.tensors.is_empty() {
            continue;
        }
        let table = run(plan, is_coded, newcomers.len(), growing, &mut grown, write, runtime, progress)?;
        grown.read.base.extend(digests_by_name(plan, &table, 0));
        for (new, digests) in grown.newcomers.iter_mut().enumerate() {
            digests.extend(digests_by_name(plan, &table, 1 + new));
        }
        let first = 1 + newcomers.len();
        if is_coded {
            of_codes = (0..all.len()).map(|column| digests_by_name(plan, &table, first + column)).collect();
        } else {
            grown.read.columns.extend((0..atoms.n_own).map(|own| digests_by_place(plan, &table, first + own)));
        }
    }
    let of_column = |(column, digests)| CodesRead { column, task: atoms.columns[column].clone(), digests };
    grown.read.codes = of_codes.into_iter().enumerate().map(of_column).collect();
    Ok(grown)
}

#[expect(clippy::too_many_arguments, reason = "a pass' usual company, and what is coded")]
fn run(
    plan: &Plan,
    is_coded: bool,
    n_new: usize,
    growing: Growing<'_>,
    grown: &mut Grown,
    write: &mut Write<'_>,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<crate::digest::TableOfDigests> {
    let Growing { atoms, rate, kept_rate, carried, kept, own } = growing;
    let (n_old, n_kept) = (atoms.columns.len(), kept.n_columns());
    let n_shared = if is_coded { n_old - atoms.n_own } else { 0 };
    // Columns that get codes of their own.
    let n_own = if own.is_some() { 0 } else { n_new };
    let n_carried = n_shared + n_new - n_own;
    let weights = |matrix: &Matrix, n_rows: usize| -> Vec<f32> {
        (0..n_rows).flat_map(|i| (0..n_kept).map(move |k| matrix[(i, k)] as f32)).collect()
    };
    let kept = [weights(kept, n_new), weights(carried, n_shared)].concat();
    let name = |task: usize| plan.column_name(task + 1);
    let coder = |name| Coder {
        plan,
        code: Code { rate, kept_rate, kept: kept.clone(), n_kept, n_carried, seed: atoms.seed },
        n_own,
        name,
    };
    // Each by itself: with all at once a decoder would weigh every column for every output.
    let of_column = |rate: &Rate| Decode {
        rates: vec![*rate],
        weights: vec![1.0],
        n_outputs: 1,
        base: Base::Left,
        dtype: Some(Dtype::F32),
        seed: atoms.seed,
    };
    let decode = is_coded.then(|| atoms.rates.iter().map(of_column).collect());
    let operation = Grow { coder: coder(&name), n_new, atoms, own, decode, engine: CpuEngine::new() };
    let same = coder(&name);
    let n_values = GrownSums::len(n_new, n_old, n_kept);
    let n_digests = plan.n_digests();
    let (mut inputs, mut written) = (TensorDigests::new(n_digests), TensorDigests::new(n_own + n_kept));
    let mut passing = TensorSums::new(n_values);
    let mut sums = vec![vec![0.0; n_values]; plan.tensors.len()];
    let fold = |Folded { blocks, digests, part }: Folded<'_, (CodedChunk, Vec<f64>)>| {
        let (part, values) = part;
        let mut index = 0;
        same.each_block(&part, blocks, |block, pieces| {
            inputs.push(block.tensor, &digests[index * n_digests..][..n_digests]);
            written.push(block.tensor, &part.digests[index * pieces.len()..][..pieces.len()]);
            let values = &values[index * n_values..][..n_values];
            passing.add(block, values, |tensor, values| sums[tensor].copy_from_slice(values));
            let tensor = &plan.tensors[block.tensor].name;
            for (column, piece) in pieces.iter().enumerate() {
                match *piece {
                    Piece::Coded { words, scales } => write(column, tensor, block.first_row, &[words, scales])?,
                    Piece::Raw(rows) => write(column, tensor, block.first_row, &[rows])?,
                    Piece::Nothing => {}
                }
            }
            index += 1;
            Ok(())
        })
    };
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).visit(&operation, runtime, progress, fold)?;
    passing.close(|tensor, values| sums[tensor].copy_from_slice(values));
    let written = written.finish(plan.tensors.len());
    let of_columns = written.digests.chunks_exact(written.n_columns.max(1));
    for ((tensor, values), digests) in plan.tensors.iter().zip(sums).zip(of_columns) {
        let sums = GrownSums { n_new, n_old, values };
        for (new, measured) in grown.measured.iter_mut().enumerate() {
            let more = sums.measured(new);
            measured.energy += more.energy;
            measured.product += more.product;
            measured.decoded += more.decoded;
        }
        grown.sums.insert(tensor.name.clone(), sums);
        grown.written.insert(tensor.name.clone(), digests.to_vec());
    }
    Ok(inputs.finish(plan.tensors.len()))
}

/// The operation.
struct Grow<'a> {
    coder: Coder<'a>,
    n_new: usize,
    atoms: &'a CodedAtoms,
    /// As [`Growing`] has it.
    own: Option<&'a [usize]>,
    /// Each old column by itself, where they are coded.
    decode: Option<Vec<Decode>>,
    engine: CpuEngine,
}

/// One thread's buffers.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    /// Rows of each old column over one block, in f32.
    decoded: Vec<Vec<u8>>,
    /// Rows of the newcomers and of what is carried, over the chunk.
    rows: Vec<u8>,
    codes: Codes,
}

impl Grow<'_> {
    /// Decodes the old columns over one block into `decoded`, one after another, where they are coded.
    fn decode(
        &self,
        read: ReadChunk<'_>,
        index: usize,
        scratch: &mut Scratch,
        decoded: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let all = codes_of_segment(read.chunk, index);
        let columns = self.decode.as_deref().unwrap_or_default();
        decoded.resize_with(columns.len(), Vec::new);
        for ((decode, slice), rows) in columns.iter().zip(&all.codes).zip(decoded) {
            let layout = ChunkLayout { codes: vec![*slice], ..all.clone() };
            let codes = Chunk { layout: &layout, bytes: read.chunk.bytes };
            self.engine.run(decode, codes, scratch, rows).map_err(device_error)?;
        }
        Ok(())
    }

    /// Rows of the old columns over one block: own ones, then the shared ones where they have any.
    fn old_rows<'a>(&self, read: ReadChunk<'_>, index: usize, decoded: &'a [Vec<u8>]) -> Vec<Cow<'a, [f32]>> {
        if self.decode.is_none() {
            let own = 0..self.atoms.n_own;
            return own.map(|own| Cow::Owned(decode_rows(read.chunk, index, 1 + self.n_new + own))).collect();
        }
        decoded.iter().map(|rows| floats(rows)).collect()
    }
}

/// Numbers in f32 as they lie, where they lie as such.
fn floats(bytes: &[u8]) -> Cow<'_, [f32]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(floats) if cfg!(target_endian = "little") => Cow::Borrowed(floats),
        _ => Cow::Owned(tvb_kernels::decode(bytes, Dtype::F32)),
    }
}

impl HostOperation for Grow<'_> {
    /// The codes, and [n_blocks, n_values] sums.
    type Part = (CodedChunk, Vec<f64>);
    type Buffers = Buffers;

    fn n_outputs(&self) -> usize {
        // Two bytes of each row and column together, as in coding, and the rows that are coded.
        2 * (self.coder.n_own + self.coder.code.n_carried) + self.coder.n_columns()
    }

    fn on_chunk(&self, read: ReadChunk<'_>, buffers: &mut Buffers) -> Result<Self::Part> {
        let (n_new, n_old, n_kept) = (self.n_new, self.atoms.columns.len(), self.coder.code.n_kept);
        let n_own = self.coder.n_own;
        let n_columns = n_own + self.coder.code.n_carried;
        let n_rows = read.chunk.layout.n_rows();
        buffers.rows.resize(4 * n_rows * (n_columns + 1), 0);
        let n_values = GrownSums::len(n_new, n_old, n_kept);
        let mut sums = vec![0.0; read.blocks.len() * n_values];
        let (mut before, mut deltas) = (0, Vec::with_capacity(read.blocks.len()));
        for (index, block) in read.blocks.iter().enumerate() {
            let mut new = decode_deltas(read.chunk, index, n_new);
            let Buffers { scratch, decoded, rows, .. } = &mut *buffers;
            self.decode(read, index, scratch, decoded)?;
            let old = self.old_rows(read, index, decoded);
            self.sums_of_block(&new, &old, &mut sums[index * n_values..][..n_values]);
            for (delta, own) in new.iter_mut().zip(self.own.unwrap_or_default()) {
                delta.iter_mut().zip(&*old[*own]).for_each(|(delta, own)| *delta -= own);
            }
            let carried = old.iter().skip(self.atoms.n_own).filter(|_| self.decode.is_some());
            let carried = carried.map(|rows| &**rows);
            for (column, values) in new.iter().map(Vec::as_slice).chain(carried).enumerate() {
                let to = &mut rows[4 * (column * n_rows + before)..][..4 * block.n_rows];
                for (to, value) in to.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *to = value.to_le_bytes();
                }
            }
            before += block.n_rows;
            // Few are asked for again: those of tensors that are not coded.
            deltas.push(if self.coder.is_coded(block) { Vec::new() } else { new });
        }
        if self.decode.is_none() && n_own == 0 {
            // Shared columns have nothing of tensors that are not coded.
            let all_blocks: usize = read.blocks.iter().map(|block| n_blocks(block.n_rows)).sum();
            let (words, scales) =
                (vec![0; n_kept * all_blocks * self.coder.code.kept_rate.words()], vec![0; n_kept * all_blocks]);
            let codes = Codes { words, scales, ..Codes::default() };
            return Ok((self.coder.part(read.blocks, codes, Vec::new(), |_| Ok(Vec::new()))?, sums));
        }
        let layout = deltas_chunk(read.chunk.layout.segments.clone(), n_columns, &mut buffers.rows);
        let chunk = Chunk { layout: &layout, bytes: &buffers.rows };
        self.engine.run(&self.coder.code, chunk, &mut buffers.scratch, &mut buffers.codes).map_err(device_error)?;
        let codes = std::mem::take(&mut buffers.codes);
        let lost = if self.decode.is_some() { codes.lost.clone() } else { Vec::new() };
        let part = self.coder.part(read.blocks, codes, Vec::new(), |index| Ok(deltas[index].clone()))?;
        let n_lost = n_own + n_kept;
        for (index, sums) in sums.chunks_exact_mut(n_values).enumerate() {
            let (sums, measured) = sums.split_at_mut(n_values - N_MEASURED * n_new);
            let found = &part.measured[index * N_MEASURED * n_own..][..N_MEASURED * n_own];
            measured.iter_mut().zip(found).for_each(|(sum, found)| *sum = *found);
            let at = sums.len() - n_lost;
            let of_block = lost.chunks_exact(n_lost).nth(index).unwrap_or_default();
            sums[at..].iter_mut().zip(of_block).for_each(|(sum, lost)| *sum = lost / ROTATED);
        }
        Ok((part, sums))
    }
}

impl Grow<'_> {
    /// Inner products over one block of the grid, code block by code block.
    fn sums_of_block(&self, new: &[Vec<f32>], old: &[Cow<'_, [f32]>], sums: &mut [f64]) {
        let (n_new, n_old) = (self.n_new, self.atoms.columns.len());
        let (triangle, rest) = sums.split_at_mut(triangle_len(n_new));
        let (products, rest) = rest.split_at_mut(n_new * n_old);
        let (spreads, decoded) = rest.split_at_mut(n_new * n_old);
        let n_rows = new.first().map_or(0, Vec::len);
        for start in (0..n_rows).step_by(PANEL) {
            let end = n_rows.min(start + PANEL);
            let n_blocks = n_blocks(end - start);
            let of = |a: &[f32], b: &[f32]| by_block(&a[start..end], &b[start..end], n_blocks);
            let squares: Vec<[f64; BLOCKS]> = new.iter().map(|x| of(x, x)).collect();
            for (i, x) in new.iter().enumerate() {
                for (j, other) in new.iter().enumerate().take(i) {
                    triangle[triangle_len(i) + j] += of(x, other).iter().sum::<f64>();
                }
                triangle[triangle_len(i) + i] += squares[i].iter().sum::<f64>();
            }
            for (c, y) in old.iter().enumerate() {
                let energy = of(y, y);
                decoded[c] += energy.iter().sum::<f64>();
                let noise = self.unbiased_noise(c);
                for (i, x) in new.iter().enumerate() {
                    let product = of(x, y);
                    products[i * n_old + c] += product.iter().sum::<f64>();
                    let spread = (0..n_blocks).map(|block| {
                        let (energy, product, square) = (energy[block], product[block], squares[i][block]);
                        // Of y itself ŷ has 1/(1 + ρ), and the noise has nothing along it.
                        let along = match noise {
                            Some(noise) if energy > 0.0 => (1.0 + noise) * product * product / energy,
                            _ => 0.0,
                        };
                        energy * (square - along).max(0.0) / ROTATED
                    });
                    spreads[i * n_old + c] += spread.sum::<f64>();
                }
            }
        }
    }

    /// ρ of a column whose code is unbiased.
    fn unbiased_noise(&self, column: usize) -> Option<f64> {
        (self.decode.is_some() && column < self.atoms.n_own).then(|| self.atoms.rates[column].noise())
    }
}

/// Inner products over the blocks of a panel, which lie beside each other: element i belongs to block i mod `n_blocks`.
fn by_block(a: &[f32], b: &[f32], n_blocks: usize) -> [f64; BLOCKS] {
    let mut sums = [0.0; BLOCKS];
    if n_blocks == BLOCKS && a.len() == PANEL && b.len() == PANEL {
        for (a, b) in a.as_chunks::<BLOCKS>().0.iter().zip(b.as_chunks::<BLOCKS>().0) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += f64::from(*a) * f64::from(*b);
            }
        }
        return sums;
    }
    for (a, b) in a.chunks(n_blocks.max(1)).zip(b.chunks(n_blocks.max(1))) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_panel_lie_beside_each_other() {
        let (a, b): (Vec<f32>, Vec<f32>) = (0..700).map(|i| (i as f32, 1.0)).unzip();
        let sums = by_block(&a, &b, 3);
        for (block, sum) in sums.iter().enumerate().take(3) {
            let expected: usize = (block..700).step_by(3).sum();
            assert_eq!(*sum, expected as f64);
        }
        let whole = by_block(&vec![2.0; PANEL], &vec![0.5; PANEL], BLOCKS);
        assert_eq!(whole, [256.0; BLOCKS]);
    }
}

//! Atoms that are adapters: one safetensors file for each task, with the two factors of every matrix it moves.
//!
//! `NAME.lora_B` \[n, r\] and `NAME.lora_A` \[r, m\] are the factors of tensor NAME, in the narrowest of bf16, f16 and f32 that
//! holds every number of both as it is; `scales` f64 holds s of each of them, in the manifest's order of the tensors. A tensor
//! that the task replaces as a whole is NAME in f32, a difference from the base like everything else; what is not there is not
//! moved. Where all adapters share the two sides of a tensor, an atom has `NAME.lora_core` \[p, p\] of it (see `shared.rs`). The factors are read when the file is opened, so their checksum can be asked for without another read.

use super::plain::stem;
use crate::basis::manifest::{AtomRecord, FactorTensor};
use crate::checkpoint::{
    Budget, Checkpoint, Dtype, LowRank, Place, SafetensorsLayout, SafetensorsWriter, Sides, Tensor, TensorSpec,
};
use crate::digest::{BLOCK_ROWS, Digest, of_factors, of_unmoved};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use tvb_kernels::Dtype as Float;

/// Ends the names of the left factors and of the right ones.
const LEFT: &str = ".lora_B";
const RIGHT: &str = ".lora_A";
/// Ends the names of cores between sides that are shared.
const CORE: &str = ".lora_core";
/// What the tensor of all scales is called.
const SCALES: &str = "scales";

/// What an atom has of one tensor.
#[derive(Clone, Debug)]
pub enum Part<'a> {
    /// Two factors.
    Factors(&'a LowRank),
    /// A core \[p, p\] between sides that are stored elsewhere: its numbers, row-major, p, and how they are stored.
    Core(&'a [f32], usize, Float),
    /// All of it, in f32.
    Dense,
    /// Nothing: it is not moved.
    Nothing,
}

/// The tensors of an atom: name and shape, and what it has of it.
pub type Parts<'a> = Vec<(&'a str, &'a [usize], Part<'a>)>;

/// What an atom's file holds, in order, and the type of each tensor's factors.
fn specs(parts: &Parts<'_>) -> Vec<TensorSpec> {
    let mut specs = Vec::with_capacity(2 * parts.len() + 1);
    let n_factored = parts.iter().filter(|(.., part)| matches!(part, Part::Factors(_))).count();
    if n_factored > 0 {
        specs.push(TensorSpec { name: SCALES.into(), dtype: Dtype::F64, shape: vec![n_factored] });
    }
    for (name, shape, part) in parts {
        match part {
            Part::Factors(factors) => {
                let dtype = narrowest(factors).into();
                let (n, m, rank) = (factors.n_rows(), factors.n_columns(), factors.rank());
                specs.push(TensorSpec { name: format!("{name}{LEFT}"), dtype, shape: vec![n, rank] });
                specs.push(TensorSpec { name: format!("{name}{RIGHT}"), dtype, shape: vec![rank, m] });
            }
            Part::Core(_, rank, dtype) => {
                let shape = vec![*rank, *rank];
                specs.push(TensorSpec { name: format!("{name}{CORE}"), dtype: (*dtype).into(), shape });
            }
            Part::Dense => {
                specs.push(TensorSpec { name: (*name).to_owned(), dtype: Dtype::F32, shape: shape.to_vec() });
            }
            Part::Nothing => {}
        }
    }
    specs
}

/// The narrowest type that holds every number of both factors as it is.
fn narrowest(factors: &LowRank) -> Float {
    let holds = |dtype: Float| {
        let is_same = |value: &f32| match dtype {
            Float::Bf16 => half::bf16::from_f32(*value).to_f32().to_bits() == value.to_bits(),
            _ => half::f16::from_f32(*value).to_f32().to_bits() == value.to_bits(),
        };
        factors.left(0..factors.n_rows()).iter().chain(factors.right()).all(is_same)
    };
    [Float::Bf16, Float::F16].into_iter().find(|&dtype| holds(dtype)).unwrap_or(Float::F32)
}

/// Bytes of two factors as an atom has them.
pub fn n_factor_bytes(factors: &LowRank) -> u64 {
    let sides = (factors.n_rows() as u64).saturating_add(factors.n_columns() as u64);
    sides.saturating_mul((factors.rank() * narrowest(factors).size()) as u64)
}

/// Bytes of an atom's file.
///
/// # Errors
/// Rejected: sizes that overflow.
pub fn n_bytes(parts: &Parts<'_>) -> Result<u64> {
    Ok(SafetensorsLayout::new(&specs(parts), &BTreeMap::new())?.file_bytes())
}

/// Writes atom `index` of `n_atoms` into a basis folder that is being made. `dense` answers elements of a tensor that is there
/// as a whole: for its place among `parts` and from an element on, in f32.
///
/// # Errors
/// Failed: the system cannot write. Those of `dense`.
pub fn write(
    folder: &Path,
    (index, n_atoms): (usize, usize),
    parts: &Parts<'_>,
    mut dense: impl FnMut(usize, usize, &mut [f32]) -> Result<()>,
) -> Result<AtomRecord> {
    let specs = specs(parts);
    let layout = SafetensorsLayout::new(&specs, &BTreeMap::new())?;
    let mut digests = vec![Digest::of(layout.header())];
    let bytes = layout.file_bytes();
    let file = format!("{}.safetensors", stem(index, n_atoms));
    let writer = SafetensorsWriter::create(&folder.join(&file), layout)?;
    let mut next = 0;
    let scales: Vec<u8> = parts
        .iter()
        .filter_map(|(.., part)| if let Part::Factors(factors) = part { Some(factors.scale()) } else { None })
        .flat_map(f64::to_le_bytes)
        .collect();
    if !scales.is_empty() {
        writer.write_at(next, 0, &scales)?;
        next += 1;
    }
    for (place, (_, shape, part)) in parts.iter().enumerate() {
        let n_elements: usize = shape.iter().product();
        match part {
            Part::Factors(factors) => {
                let dtype = narrowest(factors);
                let left = factors.left(0..factors.n_rows());
                for values in [&left[..], factors.right()] {
                    writer.write_at(next, 0, &tvb_kernels::convert(&le_bytes(values), Float::F32, dtype))?;
                    next += 1;
                }
                digests.push(digest_of_factors(factors, n_elements));
            }
            Part::Core(values, _, dtype) => {
                writer.write_at(next, 0, &tvb_kernels::convert(&le_bytes(values), Float::F32, *dtype))?;
                next += 1;
                digests.push(Digest::of(&le_bytes(values)));
            }
            Part::Dense => {
                let mut blocks = Vec::new();
                let mut rows = vec![0.0; BLOCK_ROWS.min(n_elements)];
                for first in (0..n_elements).step_by(BLOCK_ROWS) {
                    let n_rows = BLOCK_ROWS.min(n_elements - first);
                    let rows = rows.get_mut(..n_rows).unwrap_or_default();
                    dense(place, first, rows)?;
                    let bytes = le_bytes(rows);
                    writer.write_at(next, 4 * first as u64, &bytes)?;
                    blocks.push(Digest::of(&bytes));
                }
                next += 1;
                digests.push(Digest::of_digests(blocks));
            }
            Part::Nothing => digests.push(digest_of_unmoved(n_elements)),
        }
    }
    writer.finish()?;
    let checksum = Digest::of_digests(digests);
    Ok(AtomRecord { file, shards: Vec::new(), bytes, checksum, dtype: Dtype::F32 })
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// As a pass over the rows would take it, or of its core alone: what it shares has a checksum of its own.
fn digest_of_factors(factors: &LowRank, n_elements: usize) -> Digest {
    if let Some((_, core)) = factors.core() {
        return Digest::of(&le_bytes(core));
    }
    let first = (0..n_elements).step_by(BLOCK_ROWS);
    Digest::of_digests(first.map(|first| of_factors(factors, first, BLOCK_ROWS.min(n_elements - first))))
}

pub(crate) fn digest_of_unmoved(n_elements: usize) -> Digest {
    let first = (0..n_elements).step_by(BLOCK_ROWS);
    Digest::of_digests(first.map(|first| of_unmoved(BLOCK_ROWS.min(n_elements - first))))
}

/// The checksum of an atom that was opened: `digest_of` answers the digest of a tensor that is there as a whole. `None` where it
/// does not know one.
///
/// # Errors
/// Failed: a header cannot be read again.
pub fn checksum(
    atom: &Checkpoint,
    names: &[String],
    digest_of: impl Fn(&str) -> Option<Digest>,
) -> Result<Option<Digest>> {
    let mut digests = Vec::with_capacity(names.len() + 1);
    for file in atom.files() {
        digests.push(Digest::of(&file.safetensors_header()?));
    }
    for name in names {
        let Some(tensor) = atom.get(name) else { return Ok(None) };
        let digest = match &tensor.place {
            Place::LowRank(factors) => Some(digest_of_factors(factors, tensor.n_elements())),
            Place::Unmoved => Some(digest_of_unmoved(tensor.n_elements())),
            _ => digest_of(name),
        };
        match digest {
            Some(digest) => digests.push(digest),
            None => return Ok(None),
        }
    }
    Ok(Some(Digest::of_digests(digests)))
}

/// The file of an atom as a checkpoint of differences from the base: the stored tensors in order, under their own names and
/// shapes. `sides` are the shared ones, of the tensors that have them, with the type of the cores.
///
/// # Errors
/// Rejected: a file that does not hold just them, too little memory. Failed: I/O.
pub fn parts(
    file: &Checkpoint,
    names: &[String],
    tensors: &[FactorTensor],
    sides: Option<(&[Option<Sides>], Dtype)>,
    budget: &Budget,
) -> Result<Checkpoint> {
    let path = file.path();
    let rejected = |what: String| {
        Error::rejected(format!("{}: {what}", path.display())).hint("make the basis again, or copy it again")
    };
    let scales = match file.get(SCALES) {
        None => Vec::new(),
        Some(scales) if scales.dtype == Dtype::F64 && scales.shape.len() == 1 && scales.n_elements() <= names.len() => {
            let mut bytes = vec![0; 8 * scales.n_elements()];
            file.read(scales, 0, &mut bytes)?;
            bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
        }
        Some(scales) => {
            let (dtype, shape, most) = (scales.dtype, &scales.shape, names.len());
            return Err(rejected(format!("tensor {SCALES}: f64 [at most {most}] expected, {dtype} {shape:?} found")));
        }
    };
    let mut left_scales = scales.iter();
    let mut n_found = usize::from(!scales.is_empty());
    let mut parts = Vec::with_capacity(names.len());
    for (number, (name, FactorTensor { shape, module, .. })) in names.iter().zip(tensors).enumerate() {
        let shown = crate::shown::shown(name);
        let of_module = |factors: LowRank| match module {
            Some(module) => factors.of_module(module.module()),
            None => factors,
        };
        let own = sides.and_then(|(sides, dtype)| Some((sides.get(number)?.as_ref()?, dtype)));
        if let Some((sides, dtype)) = own
            && let Some(core) = file.get(&format!("{name}{CORE}"))
        {
            let rank = sides.rank();
            if core.shape != [rank, rank] || core.dtype != dtype {
                let (found, shape) = (core.dtype, &core.shape);
                return Err(rejected(format!(
                    "tensor {shown}: a core {dtype} [{rank}, {rank}] expected, {found} {shape:?} found"
                )));
            }
            n_found += 1;
            let core = floats(file, core, budget)?;
            let place = Place::LowRank(of_module(LowRank::of_core(sides, core, path, budget)?));
            parts.push(Tensor { name: name.clone(), dtype: Dtype::F32, shape: shape.clone(), place });
            continue;
        }
        let (left, right) = (file.get(&format!("{name}{LEFT}")), file.get(&format!("{name}{RIGHT}")));
        let place = match (left, right, file.get(name)) {
            (None, None, None) => Place::Unmoved,
            _ if own.is_some() => {
                return Err(rejected(format!("tensor {shown}: a core or nothing expected, other parts found")));
            }
            (None, None, Some(dense)) => {
                n_found += 1;
                if dense.dtype != Dtype::F32 || dense.shape != *shape {
                    let (dtype, found) = (dense.dtype, &dense.shape);
                    return Err(rejected(format!("tensor {shown}: f32 {shape:?} expected, {dtype} {found:?} found")));
                }
                dense.place.clone()
            }
            (Some(left), Some(right), None) => {
                n_found += 2;
                let scale = left_scales.next().ok_or_else(|| rejected(format!("tensor {shown}: no scale found")))?;
                let n_elements = shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
                let fits = match (left.shape.as_slice(), right.shape.as_slice()) {
                    (&[n, rank], &[other, m]) => rank == other && rank > 0 && n.checked_mul(m) == n_elements,
                    _ => false,
                };
                if !fits {
                    let (left, right) = (&left.shape, &right.shape);
                    return Err(rejected(format!(
                        "tensor {shown}: factors of a matrix of shape {shape:?} expected, {left:?} and {right:?} found"
                    )));
                }
                let rank = left.shape.last().copied().unwrap_or_default();
                let [left, right] = [left, right].map(|factor| floats(file, factor, budget));
                let factors = LowRank::new(left?, right?, rank, *scale, path, budget)?;
                Place::LowRank(of_module(factors))
            }
            _ => return Err(rejected(format!("tensor {shown}: two factors, or all of it, expected, others found"))),
        };
        parts.push(Tensor { name: name.clone(), dtype: Dtype::F32, shape: shape.clone(), place });
    }
    if n_found != file.tensors().len() || left_scales.next().is_some() {
        let n_tensors = file.tensors().len();
        return Err(rejected(format!(
            "factors of the basis' {} tensors expected, {n_tensors} others found",
            names.len()
        )));
    }
    file.with_tensors(parts)
}

/// A factor's numbers.
pub(super) fn floats(file: &Checkpoint, factor: &Tensor, budget: &Budget) -> Result<Vec<f32>> {
    let path = file.path();
    let name = crate::shown::shown(&factor.name);
    let dtype = factor.dtype.float().filter(|dtype| *dtype != Float::F64).ok_or_else(|| {
        Error::rejected(format!("{}: tensor {name}: f32, f16 or bf16 expected, {} found", path.display(), factor.dtype))
    })?;
    let _charge = budget.charge(path, "a factor that is read", factor.n_bytes())?;
    let mut bytes = vec![0; factor.n_elements() * dtype.size()];
    file.read(factor, 0, &mut bytes)?;
    Ok(tvb_kernels::decode(&bytes, dtype))
}

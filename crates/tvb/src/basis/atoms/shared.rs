//! The sides that adapters share: one safetensors file beside the atoms, `NAME.lora_U` \[n, p\] and `NAME.lora_V` \[p, m\] of each
//! tensor that is shared, in the order of the stored tensors.
//!
//! The file is read as a whole when the first atom is opened, and its checksum is compared then: the digest of the header's
//! digest and of each tensor's bytes.

use super::factors::floats;
use crate::basis::manifest::{FactorTensor, SharedRecord};
use crate::checkpoint::{
    Budget, Checkpoint, Dtype, OpenOptions, SafetensorsLayout, SafetensorsWriter, Sides, TensorSpec, resolve_inside,
};
use crate::digest::Digest;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use tvb_kernels::Dtype as Float;

/// The file's name inside a basis folder.
pub const FILE_NAME: &str = crate::checkpoint::names::SHARED;
/// Ends the names of the left sides and of the right ones.
const LEFT: &str = ".lora_U";
const RIGHT: &str = ".lora_V";

/// A tensor's sides as they are written: U \[n, p\] and V \[p, m\], row-major, of numbers that the file's type holds.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// The tensor.
    pub name: &'a str,
    /// U.
    pub left: &'a [f32],
    /// V.
    pub right: &'a [f32],
}

/// Name and shape of each side of tensors \[n, m\].
fn specs<'a>(sizes: impl Iterator<Item = (&'a str, usize, usize)>, rank: usize, dtype: Float) -> Vec<TensorSpec> {
    let each = sizes.flat_map(|(name, n, m)| {
        let spec = |end: &str, shape| TensorSpec { name: format!("{name}{end}"), dtype: dtype.into(), shape };
        [spec(LEFT, vec![n, rank]), spec(RIGHT, vec![rank, m])]
    });
    each.collect()
}

/// Bytes of the file for tensors of these names and sizes \[n, m\]; 0 where there are none.
///
/// # Errors
/// Rejected: sizes that overflow.
pub fn n_bytes(sizes: &[(&str, usize, usize)], rank: usize, dtype: Float) -> Result<u64> {
    match sizes {
        [] => Ok(0),
        _ => Ok(SafetensorsLayout::new(&specs(sizes.iter().copied(), rank, dtype), &BTreeMap::new())?.file_bytes()),
    }
}

/// Writes the file into a basis folder that is being made.
///
/// # Errors
/// Failed: the system cannot write.
pub fn write(folder: &Path, sides: &[Written<'_>], rank: usize, dtype: Float) -> Result<SharedRecord> {
    let sizes = sides.iter().map(|of| (of.name, of.left.len() / rank.max(1), of.right.len() / rank.max(1)));
    let layout = SafetensorsLayout::new(&specs(sizes, rank, dtype), &BTreeMap::new())?;
    let mut digests = vec![Digest::of(layout.header())];
    let bytes = layout.file_bytes();
    let writer = SafetensorsWriter::create(&folder.join(FILE_NAME), layout)?;
    for (number, values) in sides.iter().flat_map(|of| [of.left, of.right]).enumerate() {
        let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let stored = tvb_kernels::convert(&exact, Float::F32, dtype);
        writer.write_at(number, 0, &stored)?;
        digests.push(Digest::of(&stored));
    }
    writer.finish()?;
    let checksum = Digest::of_digests(digests);
    Ok(SharedRecord { rank, file: FILE_NAME.into(), bytes, checksum, dtype: dtype.into() })
}

/// The sides of each stored tensor that has them, checked.
///
/// # Errors
/// Rejected: missing, damaged, other tensors than the manifest lists, too little memory. Failed: I/O.
pub fn read(
    folder: &Path,
    record: &SharedRecord,
    names: &[String],
    tensors: &[FactorTensor],
    budget: &Budget,
) -> Result<Vec<Option<Sides>>> {
    let options = OpenOptions { budget: budget.clone(), ..OpenOptions::default() };
    let file = Checkpoint::open_with(&resolve_inside(folder, &record.file)?, &options)?;
    let path = file.path();
    let rejected = |what: String| {
        Error::rejected(format!("{}: {what}", path.display())).hint("make the basis again, or copy it again")
    };
    let mut digests = Vec::new();
    for file in file.files() {
        digests.push(Digest::of(&file.safetensors_header()?));
    }
    let dtype = record.dtype;
    let n_shared = tensors.iter().filter(|tensor| tensor.shared).count();
    if n_shared.checked_mul(2) != Some(file.tensors().len()) {
        let found = file.tensors().len();
        return Err(rejected(format!("two sides of each of {n_shared} tensors expected, {found} tensors found")));
    }
    let mut all = Vec::with_capacity(names.len());
    for (name, tensor) in names.iter().zip(tensors) {
        if !tensor.shared {
            all.push(None);
            continue;
        }
        let shown = crate::shown::shown(name);
        let side = |end: &str| {
            file.get(&format!("{name}{end}"))
                .filter(|side| side.dtype == dtype)
                .ok_or_else(|| rejected(format!("tensor {shown}{end}: {dtype} expected, none found")))
        };
        let (left, right) = (side(LEFT)?, side(RIGHT)?);
        let n_elements = tensor.shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
        let fits = match (left.shape.as_slice(), right.shape.as_slice()) {
            (&[n, p], &[q, m]) => p == record.rank && q == p && n.checked_mul(m) == n_elements,
            _ => false,
        };
        if !fits {
            let (rank, shape, left, right) = (record.rank, &tensor.shape, &left.shape, &right.shape);
            return Err(rejected(format!(
                "tensor {shown}: sides of rank {rank} of a matrix of shape {shape:?} expected, {left:?} and {right:?} found"
            )));
        }
        let mut sides = [Vec::new(), Vec::new()];
        for (values, side) in sides.iter_mut().zip([left, right]) {
            *values = floats(&file, side, budget)?;
            digests.push(digest(values, dtype));
        }
        let [left, right] = sides;
        all.push(Some(Sides::new(left, right, record.rank, path, budget)?));
    }
    if Digest::of_digests(digests) != record.checksum {
        return Err(rejected("its checksum does not match: the file was damaged, or is another basis'".into()));
    }
    Ok(all)
}

/// Of the bytes that were read: widening and narrowing again changes none.
fn digest(values: &[f32], dtype: Dtype) -> Digest {
    let exact: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Digest::of(&tvb_kernels::convert(&exact, Float::F32, dtype.float().unwrap_or(Float::F32)))
}

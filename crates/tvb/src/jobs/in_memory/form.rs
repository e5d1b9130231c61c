//! A bare edit formed into memory: Σ αt·τ̂t of the tensors that are asked for, each in the type of the array that is lent for it.

use super::InMemoryOptions;
use crate::basis::{Basis, check_read};
use crate::checkpoint::{Lent, LentTensor, shown};
use crate::error::{Error, Result};
use crate::jobs::edit::{Edit, Source};
use crate::nearest::nearest;
use crate::ops::outputs::{Destination, Format, MemoryWriter, Outputs};
use crate::ops::range::Clipped;
use crate::ops::reconstruct::{Edits, Read, reconstruct};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::shown_path;
use std::collections::{HashMap, HashSet};
use tvb_kernels::Dtype;

/// The types in which an edit is formed.
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

/// What was formed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Formed {
    /// Targets of tensors that no task of the basis has moved: they are zero.
    pub frozen: Vec<String>,
    /// Whether all that was read is what the basis says: a checksum is of a whole file, so where only some of the tensors were
    /// asked for, nobody knows. What can be seen of a part, such as codes that no coder writes, is an error in any case.
    pub is_checked: bool,
    /// What was clipped.
    pub clipped: Clipped,
}

/// The tensors of a bare edit from a basis and their shapes, in the basis' order. Tensors that no task has moved are not among
/// them, and of those that are one under two names only the first.
///
/// # Errors
/// Rejected: atoms that are missing, damaged or do not fit together. Failed: I/O.
pub fn edit_tensors(basis: &Basis) -> Result<Vec<(String, Vec<usize>)>> {
    let zero = vec![0.0; basis.n_atoms()];
    Ok(crate::basis::edits(basis, &[zero])?.shapes())
}

/// Forms λ·Σ αt·τ̂t into `targets`: f32, bf16 or f16 arrays, each named after a tensor of the basis (see [`edit_tensors`]), a second
/// name of one, or a tensor that no task has moved. Only what is asked for is read. Where this fails, what the targets hold means
/// nothing.
///
/// The bits are those that `tvb recover` and `tvb apply --delta` write in that type.
///
/// # Errors
/// Usage: a target that is not one of the basis' tensors, of another shape or type, or cannot be written; two of one name; weights
/// beyond f32; a memory cap that is too low. Rejected: a damaged basis, values that the type cannot hold. Failed: I/O, device.
/// Interrupted.
pub fn form(
    basis: &Basis,
    edit: &Edit,
    targets: &[LentTensor],
    options: &InMemoryOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Formed> {
    let edits = edit.edits(Source::Basis(basis))?;
    let found = Targets::of(basis, &edits, targets)?;
    edit.warn_if_far(Source::Basis(basis), progress)?;
    let mut formed = Formed { frozen: found.frozen, ..Formed::default() };
    formed.is_checked = edits.tensors.iter().all(|name| found.of_tensor.contains_key(name));
    let mut read = Read::default();
    for dtype in DTYPES {
        let mut writer = MemoryWriter::new(shown_path(&basis.folder).to_string());
        let of_dtype = found.of_tensor.iter().filter(|(_, places)| places.iter().any(|(own, _)| *own == dtype));
        let names: HashSet<&str> = of_dtype.map(|(name, _)| name.as_str()).collect();
        for name in &names {
            let places = found.of_tensor.get(*name).into_iter().flatten();
            places.filter(|(own, _)| *own == dtype).for_each(|(_, place)| writer.add(name, place.clone()));
        }
        if names.is_empty() {
            continue;
        }
        let format = Format { dtype: Some(dtype), clip: options.clip };
        let outputs = Outputs { to: Destination::Memory(std::slice::from_ref(&writer)), format };
        read.add(reconstruct(None, edits.only(&|name| names.contains(name)), outputs, runtime, progress)?);
    }
    check_read(&read, basis, None)?;
    formed.clipped = read.clipped;
    if !formed.clipped.is_none() {
        progress.warn(&format!("{}: {}", shown_path(&basis.folder), formed.clipped));
    }
    Ok(formed)
}

/// Targets by what they are for.
struct Targets {
    /// By the first names of the basis' tensors.
    of_tensor: HashMap<String, Vec<(Dtype, Lent)>>,
    frozen: Vec<String>,
}

impl Targets {
    /// Looks at every target; those of tensors that no task has moved are set to zero.
    fn of(basis: &Basis, edits: &Edits, targets: &[LentTensor]) -> Result<Targets> {
        let shapes: HashMap<String, Vec<usize>> = edits.shapes().into_iter().collect();
        let twins: HashMap<&str, &str> =
            edits.fit.twins.iter().map(|twin| (twin.name.as_str(), twin.of.as_str())).collect();
        let frozen: HashSet<&str> = basis.manifest.frozen.iter().map(String::as_str).collect();
        let mut found = Targets { of_tensor: HashMap::new(), frozen: Vec::new() };
        let mut seen = HashSet::new();
        for target in targets {
            let LentTensor { name, dtype, shape, bytes } = target;
            let at = || format!("{}: target {}", shown_path(&basis.folder), shown(name));
            if !seen.insert(name.as_str()) {
                return Err(Error::usage(format!("{}: given twice", at())));
            }
            let own = match dtype.float().filter(|own| DTYPES.contains(own)) {
                Some(own) => own,
                None => return Err(Error::usage(format!("{}: f32, bf16 or f16 expected, {dtype} found", at()))),
            };
            let n_bytes = shape.iter().try_fold(dtype.size(), |product, n| product.checked_mul(*n));
            if n_bytes != Some(bytes.len()) {
                let found = bytes.len();
                return Err(Error::usage(format!("{}: {found} bytes are not {shape:?} of {dtype}", at())));
            }
            if !bytes.is_writable() {
                return Err(Error::usage(format!("{}: memory that can be written expected", at())));
            }
            let first = twins.get(name.as_str()).copied().unwrap_or(name);
            match shapes.get(first) {
                Some(expected) if expected == shape => {
                    found.of_tensor.entry(first.to_owned()).or_default().push((own, bytes.clone()));
                }
                Some(expected) => {
                    return Err(Error::usage(format!("{}: shape {expected:?} expected, {shape:?} found", at())));
                }
                None if frozen.contains(first) => {
                    bytes.zero();
                    found.frozen.push(name.clone());
                }
                None => {
                    let error = Error::usage(format!("{}: the basis has no such tensor", at()));
                    return Err(match nearest(name, shapes.keys().map(String::as_str)) {
                        Some(near) => error.hint(format!("did you mean {}?", shown(near))),
                        None => error,
                    });
                }
            }
        }
        Ok(found)
    }
}

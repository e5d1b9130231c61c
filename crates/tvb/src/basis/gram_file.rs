//! The Gram file: per-tensor Grams and the inputs' digests, so that every later solve costs milliseconds.
//!
//! One safetensors file: `gram` f64 [n_slots, T, T]; `digests` u8 [n_tensors, T + 1, 16]; and in `__metadata__` the
//! keys `format` = `tvb-gram`, `version`, `checksum` (of the file with these digits as zeros) and `record`, a JSON
//! object with the rest of [`Grams`].

use super::manifest::StoredTensors;
use super::seal;
use crate::checkpoint::{SafetensorsLayout, TensorSpec};
use crate::columns::plan::Skipped;
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, Result};
use crate::ops::{GramTensor, Grams, N_ROWS_MAX, Origin, Per, countable_rows};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tvb_kernels::triangle_len;

/// What the metadata's `format` must say.
pub const FORMAT: &str = "tvb-gram";
const VERSION: &str = "1";
/// A Gram file larger than this is not one of ours: the Grams are kept as one before they get there.
const MAX_BYTES: u64 = 4 << 30;

/// Tensors that one matrix can be the sum over. Version 1 lists groups of them, of which there is one.
#[derive(Serialize, Deserialize)]
struct Group {
    name: String,
    tensors: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    tool: String,
    base: Origin,
    tasks: Vec<Origin>,
    tensors: Vec<GramTensor>,
    groups: Vec<Group>,
    per: Per,
    skipped: Vec<Skipped>,
    carried: Vec<String>,
}

/// The sealed bytes of a Gram file.
///
/// # Errors
/// Failed: a header too large to be written.
pub fn to_bytes(grams: &Grams) -> Result<Vec<u8>> {
    let n = grams.n_tasks();
    let failed = |error: &dyn std::fmt::Display| Error::failed(format!("the Gram file could not be written: {error}"));
    let record = Record {
        tool: crate::TOOL.into(),
        base: grams.base.clone(),
        tasks: grams.tasks.clone(),
        tensors: grams.tensors.clone(),
        groups: vec![Group { name: StoredTensors::NAME.into(), tensors: (0..grams.tensors.len()).collect() }],
        per: grams.per,
        skipped: grams.skipped.clone(),
        carried: grams.carried.clone(),
    };
    let gram = full_matrices(&grams.triangles, n);
    let digests: Vec<u8> = grams.digests.digests.iter().flat_map(|digest| digest.0.to_le_bytes()).collect();
    let spec = |name: &str, dtype, shape| TensorSpec { name: name.to_owned(), dtype, shape };
    let specs = [
        spec("gram", crate::checkpoint::Dtype::F64, vec![grams.n_slots(), n, n]),
        spec("digests", crate::checkpoint::Dtype::U8, vec![grams.tensors.len(), n + 1, 16]),
    ];
    // Sorted, so that the same Gram matrices are the same bytes in every run.
    let metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("version".to_owned(), VERSION.to_owned()),
        ("checksum".to_owned(), seal::UNSEALED.to_string()),
        ("record".to_owned(), serde_json::to_string(&record).map_err(|error| failed(&error))?),
    ]);
    let layout = SafetensorsLayout::new(&specs, &metadata)?;
    let mut bytes = vec![0; layout.file_bytes() as usize];
    bytes[..layout.header().len()].copy_from_slice(layout.header());
    for (tensor, data) in [gram, digests].iter().enumerate() {
        let at = layout.offset(tensor) as usize;
        bytes[at..at + data.len()].copy_from_slice(data);
    }
    seal::seal(&mut bytes);
    Ok(bytes)
}

/// [n, T(T+1)/2] packed triangles as the little-endian bytes of [n, T, T] full matrices.
pub(super) fn full_matrices(triangles: &[f64], n_tasks: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(triangles.len() * 16);
    for triangle in triangles.chunks_exact(triangle_len(n_tasks)) {
        for i in 0..n_tasks {
            for j in 0..n_tasks {
                bytes.extend(triangle[triangle_len(i.max(j)) + i.min(j)].to_le_bytes());
            }
        }
    }
    bytes
}

/// Reads and checks a Gram file.
///
/// # Errors
/// Rejected: not a Gram file, another version, damaged, or counts that disagree. Failed: I/O.
pub fn read(path: &Path) -> Result<Grams> {
    let bytes = crate::checkpoint::read_capped_or_pipe(path, "a Gram file", MAX_BYTES)?;
    from_bytes(&bytes)
        .map_err(|what| Error::rejected(format!("{}: {what}", path.display())).hint("make it again with `tvb gram`"))
}

/// Parses the bytes of a Gram file; the error is one line without the path.
///
/// # Errors
/// One line that says what is wrong, without the path.
pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Grams, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| format!("not a Gram file: {error}"))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| metadata.get(name).map_or("", String::as_str);
    if field("format") != FORMAT {
        return Err(format!("a Gram file expected (format {FORMAT:?}), format {:?} found", field("format")));
    }
    if field("version") != VERSION {
        return Err(format!("Gram file version {VERSION} expected, {:?} found", field("version")));
    }
    let checksum: Digest = field("checksum").parse()?;
    if !seal::is_intact(bytes, checksum) {
        return Err("its checksum does not match: the file was damaged".into());
    }
    let record: Record = serde_json::from_str(field("record")).map_err(|error| format!("its record: {error}"))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let (n, n_tensors) = (record.tasks.len(), record.tensors.len());
    let n_slots = match record.per {
        Per::Tensor => n_tensors,
        Per::Whole => 1,
    };
    let data = |name: &str, dtype, shape: &[usize]| {
        let view = tensors.tensor(name).map_err(|error| format!("tensor {name}: {error}"))?;
        if view.dtype() != dtype || view.shape() != shape {
            return Err(format!(
                "tensor {name}: {dtype:?} {shape:?} expected, {:?} {:?} found",
                view.dtype(),
                view.shape()
            ));
        }
        Ok(view.data())
    };
    if n == 0 {
        return Err("at least one task expected, none found".into());
    }
    let shapes = record.tensors.iter().map(|tensor| tensor.shape.as_slice());
    if countable_rows(shapes).is_none() {
        return Err(format!("tensors of at most {N_ROWS_MAX} elements together expected, more found"));
    }
    match record.groups.as_slice() {
        [group] if group.tensors.iter().copied().eq(0..n_tensors) => {}
        groups => return Err(format!("one group of all {n_tensors} tensors expected, {} groups found", groups.len())),
    }
    let gram = data("gram", Dtype::F64, &[n_slots, n, n])?;
    let digests = data("digests", Dtype::U8, &[n_tensors, n + 1, 16])?;
    let values: Vec<f64> = gram.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default())).collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Err("a Gram matrix holds a value that is not finite".into());
    }
    let mut triangles = Vec::with_capacity(n_slots * triangle_len(n));
    for matrix in values.chunks_exact(n * n) {
        for i in 0..n {
            triangles.extend_from_slice(&matrix[i * n..i * n + i + 1]);
        }
    }
    let digests =
        digests.chunks_exact(16).map(|b| Digest(u128::from_le_bytes(b.try_into().unwrap_or_default()))).collect();
    Ok(Grams {
        base: record.base,
        tasks: record.tasks,
        tensors: record.tensors,
        per: record.per,
        triangles,
        digests: TableOfDigests { n_columns: n + 1, digests },
        skipped: record.skipped,
        carried: record.carried,
    })
}

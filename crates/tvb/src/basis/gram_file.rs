//! The Gram file: per-tensor Grams and the inputs' digests, so that every later solve costs milliseconds.
//!
//! One safetensors file: `gram` f64 [n_slots, T, T]; `digests` u8 [n_tensors, T + 1, 16]; and in `__metadata__` the
//! keys `format` = `tvb-gram`, `version`, `checksum` (of the file with these digits as zeros) and `record`, a JSON
//! object with the rest of [`Grams`].

use super::manifest::StoredTensors;
use super::matrix_file::MatrixFile;
use super::seal;
use crate::checkpoint::{Budget, Dtype, SafetensorsLayout, Tensor, TensorSpec};
use crate::columns::fit::Fit;
use crate::columns::left_out::{LeftOut, Skipped};
use crate::columns::tasks::check_names;
use crate::digest::{Digest, TableOfDigests};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{GramTensor, Grams, N_ROWS_MAX, Origin, Per, countable_rows, unpack_triangle};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tvb_kernels::{MAX_TASKS, triangle_len};

/// What the metadata's `format` must say.
pub const FORMAT: &str = "tvb-gram";
const VERSION: &str = "1";
/// What a file is in whose tensors some are tied, or take part in their first rows.
const FITTED_VERSION: &str = "2";
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
    #[serde(default)]
    left_out: LeftOut,
    #[serde(default, skip_serializing_if = "Fit::is_plain")]
    fit: Fit,
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
        left_out: grams.left_out.clone(),
        fit: grams.fit.clone(),
    };
    let gram = full_matrices(&grams.triangles, n);
    let digests: Vec<u8> = grams.digests.digests.iter().flat_map(|digest| digest.0.to_le_bytes()).collect();
    let spec = |name: &str, dtype, shape| TensorSpec { name: name.to_owned(), dtype, shape };
    let specs = [
        spec("gram", Dtype::F64, vec![grams.n_slots(), n, n]),
        spec("digests", Dtype::U8, vec![grams.tensors.len(), n + 1, 16]),
    ];
    // Sorted, so that the same Gram matrices are the same bytes in every run.
    let metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("version".to_owned(), if grams.fit.is_plain() { VERSION } else { FITTED_VERSION }.to_owned()),
        ("checksum".to_owned(), seal::UNSEALED.to_string()),
        ("record".to_owned(), serde_json::to_string(&record).map_err(|error| failed(&error))?),
    ]);
    let layout = SafetensorsLayout::new(&specs, &metadata)?;
    let mut bytes = vec![0; layout.file_bytes() as usize];
    for (at, data) in [(0, layout.header()), (layout.offset(0) as usize, &gram), (layout.offset(1) as usize, &digests)]
    {
        let place = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..data.len()));
        place.ok_or_else(|| failed(&"its parts do not fit"))?.copy_from_slice(data);
    }
    seal::seal(&mut bytes);
    Ok(bytes)
}

/// [n, T(T+1)/2] packed triangles as the little-endian bytes of [n, T, T] full matrices.
pub(super) fn full_matrices(triangles: &[f64], n_tasks: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(triangles.len() * 16);
    for triangle in triangles.chunks_exact(triangle_len(n_tasks)) {
        let full = unpack_triangle(triangle, n_tasks);
        bytes.extend(full.rows().flatten().flat_map(f64::to_le_bytes));
    }
    bytes
}

/// Reads and checks a Gram file.
///
/// # Errors
/// Rejected: not a Gram file, another version, damaged, or counts that disagree. Failed: I/O.
pub fn read(path: &Path) -> Result<Grams> {
    read_within(path, &Budget::default())
}

/// [`read`], with what reading takes of memory charged to `budget`.
///
/// # Errors
/// As [`read`]. Rejected: too little memory. Interrupted.
pub fn read_within(path: &Path, budget: &Budget) -> Result<Grams> {
    let mut file = MatrixFile::open(path, "a Gram file", MAX_BYTES, None, budget)?;
    let grams = parse(&mut file).map_err(|error| match error.kind() {
        ErrorKind::Rejected if error.hint_text().is_none() => {
            error.context(path.display()).hint("make it again with `tvb gram`")
        }
        // Names the file itself.
        _ => error,
    })?;
    file.finish()?;
    Ok(grams)
}

/// Parses the bytes of a Gram file; the error is one line without the path.
///
/// # Errors
/// One line that says what is wrong, without the path.
pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Grams, String> {
    let parsed = MatrixFile::of_bytes(bytes).and_then(|mut file| parse(&mut file));
    parsed.map_err(|error| error.message().to_owned())
}

fn parse(file: &mut MatrixFile<'_>) -> Result<Grams> {
    let rejected = |what: String| Err(Error::rejected(what));
    if file.metadata("format") != FORMAT {
        let found: String = file.metadata("format").chars().take(60).collect();
        return rejected(format!("a Gram file expected (format {FORMAT:?}), format {found:?} found"));
    }
    if ![VERSION, FITTED_VERSION].contains(&file.metadata("version")) {
        let found: String = file.metadata("version").chars().take(60).collect();
        return rejected(format!("Gram file version {VERSION} or {FITTED_VERSION} expected, {found:?} found"));
    }
    let checksum: Digest = file.metadata("checksum").parse().map_err(|why: String| Error::rejected(why))?;
    if !file.is_intact(checksum)? {
        return rejected("its checksum does not match: the file was damaged".into());
    }
    file.charge_json(file.json_cost("record"))?;
    let record: Record = serde_json::from_str(file.metadata("record"))
        .map_err(|error| Error::rejected(format!("its record: {error}")))?;
    let (n, n_tensors) = (record.tasks.len(), record.tensors.len());
    if !(1..=MAX_TASKS).contains(&n) {
        return rejected(format!("1 to {MAX_TASKS} tasks expected, {n} found"));
    }
    if n_tensors == 0 {
        return rejected("at least one tensor expected, none found".into());
    }
    check_shapes(&record.tensors)?;
    let n_slots = match record.per {
        Per::Tensor => n_tensors,
        Per::Whole => 1,
    };
    let shapes = record.tensors.iter().map(|tensor| tensor.shape.as_slice());
    if countable_rows(shapes).is_none() {
        return rejected(format!("tensors of at most {N_ROWS_MAX} elements together expected, more found"));
    }
    if let Err(why) = check_names(record.tasks.iter().map(|task| task.name.as_str())) {
        return rejected(why);
    }
    match record.groups.as_slice() {
        [group] if group.tensors.iter().copied().eq(0..n_tensors) => {}
        groups => {
            return rejected(format!("one group of all {n_tensors} tensors expected, {} groups found", groups.len()));
        }
    }
    // The shapes are those of tensors that lie in the file, so nothing larger than it is made.
    let gram = find(file, "gram", Dtype::F64, &[n_slots, n, n])?;
    let digest_table = find(file, "digests", Dtype::U8, &[n_tensors, n + 1, 16])?;
    file.charge_values((n_slots * triangle_len(n) + 2 * n_tensors * (n + 1)) as u64)?;
    let mut triangles = Vec::with_capacity(n_slots * triangle_len(n));
    let (mut row, mut column) = (0, 0);
    file.values(&gram, |value| {
        if column <= row {
            triangles.push(value);
        }
        column += 1;
        if column == n {
            (row, column) = ((row + 1) % n, 0);
        }
    })?;
    let mut digests = Vec::with_capacity(n_tensors * (n + 1));
    file.bytes(&digest_table, &mut |piece| {
        let (values, _) = piece.as_chunks::<16>();
        digests.extend(values.iter().map(|value| Digest(u128::from_le_bytes(*value))));
        Ok(())
    })?;
    Ok(Grams {
        base: record.base,
        tasks: record.tasks,
        tensors: record.tensors,
        per: record.per,
        triangles,
        digests: TableOfDigests { n_columns: n + 1, digests },
        skipped: record.skipped,
        carried: record.carried,
        left_out: record.left_out,
        fit: record.fit,
    })
}

fn find(file: &MatrixFile<'_>, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Tensor> {
    let Some(tensor) = file.tensor(name) else {
        return Err(Error::rejected(format!("tensor {name} expected, none found")));
    };
    if tensor.dtype != dtype || tensor.shape != shape {
        return Err(Error::rejected(format!(
            "tensor {name}: {dtype} {shape:?} expected, {} {:?} found",
            tensor.dtype, tensor.shape
        )));
    }
    Ok(tensor.clone())
}

/// Elements are counted and summed from here on.
fn check_shapes(tensors: &[GramTensor]) -> Result<()> {
    let mut total = 0u64;
    for tensor in tensors {
        let spec = TensorSpec { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() };
        total = total.saturating_add(spec.n_bytes()?);
    }
    if total > i64::MAX as u64 {
        return Err(Error::rejected("its tensors have more elements than can be counted"));
    }
    Ok(())
}

//! A published basis folder → a basis: its atoms streamed into plain state dicts, its coefficients in f64.
//!
//! Every atom is a set of views into one PyTorch file; the mean of a PCA basis is one long vector that is cut up in the
//! saved order of the parameters and becomes the last atom. Nothing is known of the base and of the true task vectors, so
//! fingerprints, norms and errors are left unknown.

use super::published::{self, Published};
use crate::basis::atoms::{AtomFiles, plain};
use crate::basis::coefficients::{self, Solution};
use crate::basis::manifest::{
    AtomRecord, BaseRecord, FORMAT, Manifest, MethodRecord, PLAIN_VERSION, StoredTensors, TaskRecord,
};
use crate::basis::{Basis, seal};
use crate::checkpoint::torch::TorchFile;
use crate::checkpoint::{Budget, Checkpoint, Dtype, Existing, Inputs, Leftover, Place, StagedOutput, Tensor};
use crate::columns::plan::{Plan, Skipped, Task};
use crate::digest::{Digest, TensorDigests};
use crate::error::{Error, Result};
use crate::ops::project::AtomSink;
use crate::pass::{Folded, HostOperation, Pass, ReadChunk, Reads, Runtime};
use crate::progress::Progress;
use serde_json::{Value, json};
use std::path::Path;

/// Makes a basis folder of a published one.
///
/// # Errors
/// Rejected: not a published basis, damaged or hostile files, parts that do not fit together, an existing output.
/// Failed: I/O. Interrupted. Nothing is left behind in either case.
pub fn import(
    folder: &Path,
    output: &Path,
    existing: Existing,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Basis> {
    let published = published::read(folder, &runtime.budget)?;
    let staged = StagedOutput::folder(output, existing, Leftover::Clear, &Inputs::none().and_all_of(folder))?;
    let (atoms, skipped) = open_atoms(folder, &published, &runtime.budget)?;
    let n_stored = published.decode.n_rows();
    if atoms.len() != n_stored {
        return Err(Error::rejected(format!(
            "{}: {} vectors expected, as the coefficients have it, {} found",
            folder.join("basis_vectors.pt").display(),
            n_stored - usize::from(published.mean.is_some()),
            atoms.len() - usize::from(published.mean.is_some())
        )));
    }
    let plan = plan(atoms)?;
    let records = write_atoms(&plan, staged.path(), runtime, progress)?;
    let Published { encode, decode, .. } = &published;
    let solution =
        Solution { encode, decode, mix: None, kept: None, recovered: None, eigenvalues: &[], gram_errors: None };
    let file = coefficients::write(staged.path(), None, &solution)?;
    let manifest = Manifest { coefficients: file, skipped, ..describe(folder, published, &plan, records) };
    manifest.write(staged.path())?;
    staged.commit()?;
    Basis::open_within(output, &runtime.budget)
}

fn describe(folder: &Path, published: Published, plan: &Plan, atoms: Vec<AtomRecord>) -> Manifest {
    let Published { method, tasks, decode, notes, mean, info, .. } = published;
    let model = info
        .get("model")
        .and_then(Value::as_str)
        .map_or_else(|| "unknown".to_owned(), |model| format!("unknown, of model {model}"));
    let task = |name: String| TaskRecord {
        name,
        source: None,
        fingerprint: None,
        norm: None,
        relative_error: None,
        gain: None,
        noise: None,
        error_bound: None,
    };
    let options = json!({
        "n_atoms": decode.n_rows() - usize::from(mean.is_some()),
        "n_stored": decode.n_rows(),
        "imported": folder.display().to_string(),
        "reference": info,
    });
    Manifest {
        format: FORMAT.into(),
        version: PLAIN_VERSION,
        coded: None,
        factors: None,
        checksum: seal::UNSEALED,
        tool: crate::TOOL.into(),
        method: MethodRecord { name: method.into(), options },
        base: BaseRecord { source: model, fingerprint: None },
        tasks: tasks.into_iter().map(task).collect(),
        stored: StoredTensors {
            name: StoredTensors::NAME.into(),
            tensors: plan.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
            n_atoms: atoms.len(),
        },
        atoms,
        generated: None,
        coefficients: crate::basis::manifest::FileRecord { file: String::new(), checksum: Digest::default() },
        frozen: Vec::new(),
        skipped: Vec::new(),
        left_out: Default::default(),
        fit: Default::default(),
        carried: Vec::new(),
        loss: None,
        spectral_bound: None,
        relative_loss: None,
        addition: None,
        diagnostics: Value::Object(Default::default()),
        notes,
        history: Vec::new(),
        estimates: None,
    }
}

/// Every atom as a checkpoint of its own, the mean last, and what was left out of them.
fn open_atoms(folder: &Path, published: &Published, budget: &Budget) -> Result<(Vec<Checkpoint>, Vec<Skipped>)> {
    let path = folder.join("basis_vectors.pt");
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    // Read once: every atom is a checkpoint of some of its tensors.
    let file = TorchFile::open_within(&path, budget)?;
    let vectors = file.root().get("basis_vectors").and_then(|vectors| vectors.items()).filter(|items| items.len() > 0);
    let vectors = vectors.ok_or_else(|| rejected("a dict with a list of basis_vectors expected".into()))?;
    let n_vectors = vectors.len();
    if n_vectors > published.decode.n_rows() {
        return Err(rejected(format!("at most {} vectors expected, {n_vectors} found", published.decode.n_rows())));
    }
    let mut skipped = Vec::new();
    let mut atoms = Vec::with_capacity(n_vectors + 1);
    for (number, vector) in vectors.enumerate() {
        let entries = vector.entries();
        let entries = entries.ok_or_else(|| rejected(format!("basis vector {number}: a dict of tensors expected")))?;
        // The same dict can stand there for every vector.
        let mut charge = budget.account(&path, "its tensors");
        let mut tensors = Vec::new();
        for (key, value) in entries {
            let name = key
                .as_str()
                .ok_or_else(|| rejected(format!("basis vector {number}: a name expected, {} found", key.describe())))?;
            let tensor = value.tensor(name)?;
            charge.take(Tensor::cost(name, tensor.shape.len()))?;
            match tensor.dtype.float() {
                Some(_) => tensors.push(tensor),
                None if number == 0 => {
                    skipped.push(Skipped {
                        name: name.into(),
                        reason: format!("{} in the published basis", tensor.dtype),
                        n_elements: 0,
                    });
                }
                None => {}
            }
        }
        atoms.push(Checkpoint::of_torch(&file, tensors)?);
    }
    if let Some(path) = &published.mean {
        let first = atoms.first().ok_or_else(|| Error::rejected("no basis vectors"))?;
        let mean = open_mean(path, first, budget)?;
        atoms.push(mean);
    }
    Ok((atoms, skipped))
}

/// The mean vector [total_dim] as tensors with the names and shapes of an atom's, in `keys_order`.
fn open_mean(path: &Path, atom: &Checkpoint, budget: &Budget) -> Result<Checkpoint> {
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let file = TorchFile::open_within(path, budget)?;
    let value = file.root().get("mean_vector").ok_or_else(|| rejected("mean_vector expected, none found".into()))?;
    let mean = value.tensor("mean_vector")?;
    let keys = file
        .root()
        .get("keys_order")
        .and_then(|keys| keys.items())
        .ok_or_else(|| rejected("keys_order expected, none found".into()))?;
    if mean.dtype.float().is_none() || mean.shape.len() != 1 {
        return Err(rejected(format!("mean_vector: a float vector expected, {} {:?} found", mean.dtype, mean.shape)));
    }
    if keys.len() != atom.tensors().len() {
        return Err(rejected(format!("keys_order: {} names expected, {} found", atom.tensors().len(), keys.len())));
    }
    let mut at = 0;
    let mut tensors = Vec::with_capacity(keys.len());
    for key in keys {
        let known = key.as_str().and_then(|name| atom.get(name));
        let known = known.ok_or_else(|| {
            rejected(format!("keys_order: {} is no tensor of the basis vectors", key.as_str().unwrap_or("a value")))
        })?;
        let place = part(&mean, at, known.n_elements()).ok_or_else(|| {
            rejected(format!("mean_vector: {} elements found, tensor {} needs more", mean.n_elements(), known.name))
        })?;
        at += known.n_elements();
        tensors.push(Tensor { name: known.name.clone(), dtype: mean.dtype, shape: known.shape.clone(), place });
    }
    if at != mean.n_elements() {
        return Err(rejected(format!("mean_vector: {at} elements expected, {} found", mean.n_elements())));
    }
    Checkpoint::of_torch(&file, tensors)
}

/// The place of `n_elements` elements of a contiguous vector from element `first` on.
fn part(vector: &Tensor, first: usize, n_elements: usize) -> Option<Place> {
    let size = vector.dtype.size();
    let end = first.checked_add(n_elements).filter(|&end| end <= vector.n_elements())?;
    Some(match &vector.place {
        Place::Contiguous { file, offset } => Place::Contiguous { file: *file, offset: offset + (first * size) as u64 },
        Place::Strided { file, offset, strides } => {
            let skipped = first.checked_mul(strides.first().copied()?)?.checked_mul(size)?;
            let offset = offset.checked_add(skipped as u64)?;
            Place::Strided { file: *file, offset, strides: strides.clone() }
        }
        Place::Zeros | Place::Unmoved => vector.place.clone(),
        Place::LowRank(_) | Place::Rescaled { .. } | Place::Elsewhere { .. } | Place::Difference { .. } => return None,
        Place::Lent(bytes) => Place::Lent(bytes.part((first * size) as u64, ((end - first) * size) as u64)?),
        Place::Held(bytes) => Place::Held(bytes.part((first * size) as u64, ((end - first) * size) as u64)?),
    })
}

/// The atoms' tensors, which must be the same in all of them. The first atom is the plan's first column.
fn plan(atoms: Vec<Checkpoint>) -> Result<Plan> {
    let Some(first) = atoms.first() else { return Err(Error::rejected("no basis vectors")) };
    let names: Vec<String> = first.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    if names.is_empty() {
        return Err(Error::rejected(format!("{}: basis vector 0 has no float tensor", first.path().display())));
    }
    for (number, atom) in atoms.iter().enumerate() {
        let rejected =
            |what: String| Err(Error::rejected(format!("{}: basis vector {number}: {what}", atom.path().display())));
        if atom.tensors().len() != names.len() {
            return rejected(format!("{} tensors expected, {} found", names.len(), atom.tensors().len()));
        }
        for tensor in first.tensors() {
            match atom.get(&tensor.name) {
                None => return rejected(format!("tensor {} expected, none found", tensor.name)),
                Some(found)
                    if found.shape.iter().product::<usize>() != tensor.n_elements() || found.shape != tensor.shape =>
                {
                    return rejected(format!(
                        "tensor {}: shape {:?} expected, {:?} found",
                        tensor.name, tensor.shape, found.shape
                    ));
                }
                Some(_) => {}
            }
        }
    }
    let n_atoms = atoms.len();
    let mut atoms = atoms.into_iter();
    let first = atoms.next().ok_or_else(|| Error::rejected("no basis vectors"))?;
    let rest = atoms.enumerate().map(|(index, checkpoint)| Task { name: plain::stem(index + 1, n_atoms), checkpoint });
    Plan::of_columns(first, rest.collect(), &names)
}

/// The type all tensors share, or f32.
fn stored_dtype(plan: &Plan) -> tvb_kernels::Dtype {
    let mut dtypes = (0..plan.n_columns())
        .flat_map(|column| plan.tensors.iter().map(move |tensor| plan.column_tensor(tensor, column).dtype.float()));
    match dtypes.next().flatten() {
        Some(first) if first != tvb_kernels::Dtype::F64 && dtypes.all(|dtype| dtype == Some(first)) => first,
        _ => tvb_kernels::Dtype::F32,
    }
}

/// The operation: every column's rows in the atoms' format, checked and written where they belong.
struct WriteAtoms<'a> {
    plan: &'a Plan,
    dtype: tvb_kernels::Dtype,
    sink: &'a AtomFiles,
}

impl HostOperation for WriteAtoms<'_> {
    /// [n_blocks, n_atoms] digests of what was written.
    type Part = Vec<Digest>;
    type Buffers = Vec<u8>;

    fn n_outputs(&self) -> usize {
        self.plan.n_columns()
    }

    fn on_chunk(&self, read: ReadChunk<'_>, bytes: &mut Vec<u8>) -> Result<Vec<Digest>> {
        let layout = read.chunk.layout;
        bytes.clear();
        for column in 0..layout.n_columns {
            for (index, block) in read.blocks.iter().enumerate() {
                let slice = layout.slice(index, column);
                let raw = read.rows(index, column)?;
                let stored = bytes.len();
                match slice.dtype == self.dtype {
                    true => bytes.extend_from_slice(raw),
                    false => bytes.extend(tvb_kernels::convert(raw, slice.dtype, self.dtype)),
                }
                let values = tvb_kernels::decode(bytes.get(stored..).unwrap_or_default(), self.dtype);
                if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                    return Err(Error::rejected(format!(
                        "{}: basis vector {column}, tensor {}: a finite value expected, another found at element {}",
                        self.plan.column_checkpoint(column).path().display(),
                        self.plan.tensors.get(block.tensor).map_or("", |tensor| &tensor.name),
                        block.first_row + row
                    )));
                }
            }
        }
        self.sink.write_rows(read.blocks, bytes)
    }
}

/// Streams every atom into its file.
fn write_atoms(plan: &Plan, folder: &Path, runtime: &Runtime, progress: &dyn Progress) -> Result<Vec<AtomRecord>> {
    let n_atoms = plan.n_columns();
    let dtype = stored_dtype(plan);
    let tensors: Vec<_> = plan.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    let sink = AtomFiles::create(folder, n_atoms, &tensors, Dtype::from(dtype))?;
    let mut table = TensorDigests::new(n_atoms);
    progress.begin("import", plan.n_bytes());
    let fold = |Folded { blocks, part, .. }: Folded<'_, Vec<Digest>>| {
        for (block, row) in blocks.iter().zip(part.chunks_exact(n_atoms)) {
            table.push(block.tensor, row);
        }
        Ok(())
    };
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).visit(&WriteAtoms { plan, dtype, sink: &sink }, runtime, progress, fold)?;
    progress.finish();
    sink.finish(&table.finish(plan.tensors.len()), progress)
}

//! A basis → the folder that the reference code writes, which its addition script and its loader take unchanged; and a
//! checkpoint → a PyTorch state dict.
//!
//! A basis of any method is written as an autoencoder's with a linear encoder: B = A/1 and W as they are. A PCA basis
//! stays one, since its mean takes no part in the sum of the vectors. The reference applies a vector only where it has
//! every tensor of the model, so frozen tensors are written too: views into one shared storage of zeros.

use super::generated::make_atoms;
use crate::basis::Basis;
use crate::basis::atoms::{Atoms, plain};
use crate::checkpoint::torch::{SaveStorage, SaveTensor, SaveValue, TorchWriter};
use crate::checkpoint::{
    Budget, Checkpoint, Dtype, Existing, Leftover, OpenOptions, StagedOutput, Tensor, TensorSpec, values_of,
};
use crate::columns::plan::{Plan, Task};
use crate::columns::tasks::recorded;
use crate::digest::BLOCK_ROWS;
use crate::error::{Error, ErrorKind, Result};
use crate::matrix::Matrix;
use crate::ops::range::{Input, Origin, RangeCheck, Rows};
use crate::pass::{Block, HostOperation, Pass, ReadChunk, Reads, Runtime};
use crate::progress::Progress;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where a basis is written, and what is known beside it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The folder.
    pub output: PathBuf,
    /// What to do with one that is there already.
    pub existing: Existing,
    /// The base, for the shapes of frozen tensors; `None` tries where the basis was made from.
    pub base: Option<Checkpoint>,
}

impl ExportOptions {
    /// Into a folder that is not there yet.
    pub fn new(output: impl Into<PathBuf>) -> ExportOptions {
        ExportOptions { output: output.into(), existing: Existing::Refuse, base: None }
    }

    /// Sets what to do with an output that is there already.
    #[must_use]
    pub fn existing(self, existing: Existing) -> ExportOptions {
        ExportOptions { existing, ..self }
    }

    /// Sets the base, for the shapes of frozen tensors.
    #[must_use]
    pub fn base(self, base: Option<Checkpoint>) -> ExportOptions {
        ExportOptions { base, ..self }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The reference's name for the method.
    pub method: &'static str,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Writes a basis in the reference's layout.
///
/// # Errors
/// Rejected: a damaged basis, an existing output, frozen tensors of unknown shape. Failed: I/O. Interrupted.
pub fn export_basis(
    basis: &Basis,
    options: &ExportOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Exported> {
    let n_stored = basis.manifest.n_vectors();
    let is_pca = basis.manifest.method.name == "pca";
    // The published layout has no place for it.
    let mut notes = basis.manifest.fit.lines();
    let frozen = frozen_tensors(basis, options.base.as_ref(), &runtime.budget)?;
    let inputs = options.base.iter().fold(basis.inputs(), |inputs, base| inputs.with(&base.inputs()));
    let inputs = inputs.and(&recorded(&basis.manifest.base.source).0);
    let staged = StagedOutput::folder(&options.output, options.existing, Leftover::Clear, &inputs)?;
    let scratch = staged.path().join("atoms");
    let atoms = match basis.atoms()? {
        Atoms::Generated(_) | Atoms::Coded(_) => make_atoms(basis, &scratch, runtime, progress)?,
        Atoms::Plain(atoms) => atoms.into_iter().map(|atom| atom.checkpoint).collect(),
    };
    let plan = atoms_plan(basis, atoms)?;
    let method = if is_pca { "PCABasisMethod" } else { "AutoencoderBasisMethod" };
    let n_vectors = n_stored - usize::from(is_pca);
    let vectors = VectorsFile::create(staged.path(), &plan, n_vectors, &frozen, method)?;
    let info = match is_pca {
        true => pca_info(basis, n_vectors),
        false => autoencoder_info(basis),
    };
    let mean = match is_pca {
        true => Some(write_components(staged.path(), basis, &plan, &frozen)?),
        false => {
            let solved = basis.solved()?;
            if solved.encode.n_columns() == 0 {
                notes.push("the atoms are no mixtures of the tasks: A and B are written as zeros".into());
            }
            write_awb(staged.path(), &solved.encode, &solved.decode, &info)?;
            None
        }
    };
    let range = RangeCheck::new(false);
    let operation = WriteVectors { n_vectors, plan: &plan, vectors: &vectors, mean: mean.as_ref(), range: &range };
    stream(&operation, runtime, progress)?;
    range.finish(|column| format!("basis vector {column}"))?;
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(|error| Error::io("removing", &scratch, &error))?;
    }
    vectors.finish()?;
    if let Some(mean) = mean {
        mean.finish()?;
    }
    let text = serde_json::to_vec_pretty(&info).map_err(|error| Error::failed(format!("method_info.json: {error}")))?;
    let path = staged.path().join("method_info.json");
    std::fs::write(&path, text).map_err(|error| Error::io("writing", &path, &error))?;
    staged.commit()?;
    if !frozen.is_empty() {
        notes.push(format!("{} frozen tensors are written as zeros", frozen.len()));
    }
    Ok(Exported { method, notes })
}

/// Names and shapes of the tensors that the atoms leave out, from the base's headers.
fn frozen_tensors(basis: &Basis, base: Option<&Checkpoint>, budget: &Budget) -> Result<Vec<(String, Vec<usize>)>> {
    let manifest = &basis.manifest;
    if manifest.frozen.is_empty() {
        return Ok(Vec::new());
    }
    let base = match base {
        Some(base) => base.clone(),
        None => open_recorded(&manifest.base.source, budget).map_err(|error| match error.kind() {
            ErrorKind::Interrupted => error,
            _ => Error::rejected(format!(
                "{}: {} frozen tensors are not in the basis, and their shapes are not known: the base cannot be read: {error}",
                basis.folder.display(),
                manifest.frozen.len(),
            ))
            .caused_by(error)
            .hint("name the base: --base PATH"),
        })?,
    };
    let frozen = manifest.frozen.iter().map(|name| {
        let tensor = base.get(name).ok_or_else(|| {
            Error::rejected(format!(
                "{}: frozen tensor {name} of the basis expected, none found",
                base.path().display()
            ))
        })?;
        Ok((name.clone(), tensor.shape.clone()))
    });
    frozen.collect()
}

fn open_recorded(source: &str, budget: &Budget) -> Result<Checkpoint> {
    let (path, key) = recorded(source);
    Checkpoint::open_with(&path, &OpenOptions { key, budget: budget.clone() })
}

fn atoms_plan(basis: &Basis, atoms: Vec<Checkpoint>) -> Result<Plan> {
    let n_atoms = atoms.len();
    let mut columns =
        atoms.into_iter().enumerate().map(|(index, checkpoint)| Task { name: plain::stem(index, n_atoms), checkpoint });
    let first = columns.next().ok_or_else(|| Error::rejected(format!("{}: no atoms", basis.folder.display())))?;
    Plan::of_columns(first.checkpoint, columns.collect(), basis.stored_tensors())
}

/// `basis_vectors.pt` on its way: one storage for each tensor of each vector, and the zeros of the frozen ones.
struct VectorsFile {
    writer: TorchWriter,
    n_tensors: usize,
    /// (storage, elements).
    zeros: Option<(usize, u64)>,
}

impl VectorsFile {
    fn create(
        folder: &Path,
        plan: &Plan,
        n_vectors: usize,
        frozen: &[(String, Vec<usize>)],
        method: &str,
    ) -> Result<VectorsFile> {
        let n_tensors = plan.tensors.len();
        let f32s = |n_elements: usize| SaveStorage { dtype: Dtype::F32, n_elements: n_elements as u64 };
        let mut storages: Vec<SaveStorage> =
            (0..n_vectors).flat_map(|_| plan.tensors.iter().map(|tensor| f32s(tensor.n_rows))).collect();
        let n_zeros = frozen.iter().map(|(_, shape)| shape.iter().product::<usize>()).max();
        let zeros = n_zeros.map(|n_zeros| (storages.len(), n_zeros as u64));
        storages.extend(n_zeros.map(f32s));
        let vector = |number: usize| {
            let stored = plan.tensors.iter().enumerate().map(|(index, tensor)| {
                let view = SaveTensor::contiguous(number * n_tensors + index, 0, Dtype::F32, &tensor.shape);
                (SaveValue::Str(tensor.name.clone()), SaveValue::Tensor(view))
            });
            let still = frozen.iter().filter_map(|(name, shape)| {
                let view = SaveTensor::contiguous(zeros?.0, 0, Dtype::F32, shape);
                Some((SaveValue::Str(name.clone()), SaveValue::Tensor(view)))
            });
            SaveValue::Dict(stored.chain(still).collect())
        };
        let value = SaveValue::Dict(vec![
            ("basis_vectors".into(), SaveValue::List((0..n_vectors).map(vector).collect())),
            ("num_basis".into(), SaveValue::Int(n_vectors as i64)),
            ("method".into(), method.into()),
        ]);
        let writer = TorchWriter::create(&folder.join("basis_vectors.pt"), "basis_vectors", &value, &storages)?;
        Ok(VectorsFile { writer, n_tensors, zeros })
    }

    fn write(&self, vector: usize, block: &Block, rows: &[u8]) -> Result<()> {
        self.writer.write_at(vector * self.n_tensors + block.tensor, (block.first_row * size_of::<f32>()) as u64, rows)
    }

    fn finish(self) -> Result<()> {
        if let Some((storage, n_elements)) = self.zeros {
            write_zeros(&self.writer, storage, 0, n_elements)?;
        }
        self.writer.finish()
    }
}

/// Fills the f32 elements `first..end` of a storage with zeros.
fn write_zeros(writer: &TorchWriter, storage: usize, first: u64, end: u64) -> Result<()> {
    let block = vec![0; BLOCK_ROWS * size_of::<f32>()];
    for row in (first..end).step_by(BLOCK_ROWS) {
        let n_rows = (end - row).min(BLOCK_ROWS as u64) as usize;
        writer.write_at(
            storage,
            row * size_of::<f32>() as u64,
            block.get(..n_rows * size_of::<f32>()).unwrap_or(&block),
        )?;
    }
    Ok(())
}

/// The mean of a PCA basis on its way: one vector, tensor after tensor in the order of the vectors, the frozen ones last.
struct MeanFile {
    writer: TorchWriter,
    storage: usize,
    /// First element of each planned tensor.
    firsts: Vec<usize>,
    /// Elements of the stored tensors, and with the frozen ones.
    n_stored: u64,
    n_rows: u64,
}

impl MeanFile {
    fn finish(self) -> Result<()> {
        write_zeros(&self.writer, self.storage, self.n_stored, self.n_rows)?;
        self.writer.finish()
    }
}

/// The operation: every column written where it belongs, in f32.
struct WriteVectors<'a> {
    n_vectors: usize,
    plan: &'a Plan,
    vectors: &'a VectorsFile,
    mean: Option<&'a MeanFile>,
    range: &'a RangeCheck,
}

impl HostOperation for WriteVectors<'_> {
    type Part = ();
    type Buffers = ();

    fn on_chunk(&self, read: ReadChunk<'_>, _buffers: &mut ()) -> Result<()> {
        let layout = read.chunk.layout;
        for column in 0..layout.n_columns {
            for (index, block) in read.blocks.iter().enumerate() {
                let slice = layout.slice(index, column);
                let raw = read.rows(index, column)?;
                let converted = (slice.dtype != tvb_kernels::Dtype::F32)
                    .then(|| tvb_kernels::convert(raw, slice.dtype, tvb_kernels::Dtype::F32));
                let rows = converted.as_deref().unwrap_or(raw);
                let dtype = tvb_kernels::Dtype::F32;
                if tvb_kernels::count_non_finite(rows, dtype) > 0 {
                    let tensor = self.plan.tensors.get(block.tensor).map_or("", |tensor| tensor.name.as_str());
                    let first_row = block.first_row;
                    let (outputs, mut bytes) = (column..column + 1, rows.to_vec());
                    let name = self.plan.column_checkpoint(column).path().display().to_string();
                    let exact = values_of(raw, slice.dtype);
                    let inputs = vec![Input { name, values: exact.clone(), is_base: false }];
                    let rows = Rows { outputs, tensor, first_row, dtype, bytes: &mut bytes };
                    self.range.look(rows, || Ok(Origin { inputs, exact }))?;
                }
                match self.mean {
                    Some(mean) if column == self.n_vectors => {
                        let first = mean.firsts.get(block.tensor).copied().unwrap_or_default();
                        let at = (first + block.first_row) * size_of::<f32>();
                        mean.writer.write_at(mean.storage, at as u64, rows)?;
                    }
                    _ => self.vectors.write(column, block, rows)?,
                }
            }
        }
        Ok(())
    }
}

/// Reads every atom once and writes it where it belongs, in f32.
fn stream(operation: &WriteVectors<'_>, runtime: &Runtime, progress: &dyn Progress) -> Result<()> {
    let plan = operation.plan;
    progress.begin("export", plan.n_bytes());
    let reads = Reads::new();
    Pass::over(plan, runtime, &reads).visit(operation, runtime, progress, |_| Ok(()))?;
    progress.finish();
    Ok(())
}

fn autoencoder_info(basis: &Basis) -> Value {
    json!({
        "model": basis.manifest.base.source,
        "finetuning_mode": "standard",
        "datasets": basis.task_names(),
        "M": basis.manifest.n_vectors(),
        "steps": 0,
        "lr": 0.01,
        "tau_init": 1.0,
        "anneal_every": null,
        "anneal_factor": null,
        "weight_decay": 0.0,
        "grad_clip": null,
        "batch_cols": null,
        "device": "cpu",
        "seed": 0,
        "softmax_w": false,
        "encoder": "linear",
        "w_activation": "linear",
        "gram_dtype": "float64",
        "notes": note(basis),
        "task_scenario": basis.n_tasks().to_string(),
        "timestamp": null,
        "method": "AutoencoderBasisMethod",
    })
}

fn pca_info(basis: &Basis, n_vectors: usize) -> Value {
    json!({
        "method": "PCABasisMethod",
        "M": n_vectors,
        "seed": 0,
        "datasets": basis.task_names(),
        "timestamp": null,
        "finetuning_mode": "standard",
        "task_scenario": basis.n_tasks().to_string(),
        "notes": note(basis),
    })
}

fn note(basis: &Basis) -> String {
    format!("exported by {} from a basis of method {}", crate::TOOL, basis.manifest.method.name)
}

/// `AWB.pt`: A and B the encode, W the decode.
fn write_awb(folder: &Path, encode: &Matrix, decode: &Matrix, info: &Value) -> Result<()> {
    let (n_atoms, n_tasks) = (decode.n_rows(), decode.n_columns());
    let zeros = Matrix::zeros(n_tasks, n_atoms);
    let encode = if encode.n_columns() == 0 { &zeros } else { encode };
    let storage = SaveStorage { dtype: Dtype::F32, n_elements: (n_atoms * n_tasks) as u64 };
    let tensor = |number, shape: [usize; 2]| SaveValue::Tensor(SaveTensor::contiguous(number, 0, Dtype::F32, &shape));
    let value = SaveValue::Dict(vec![
        ("A".into(), tensor(0, [n_tasks, n_atoms])),
        ("W".into(), tensor(1, [n_atoms, n_tasks])),
        ("B".into(), tensor(2, [n_tasks, n_atoms])),
        ("metadata".into(), save_value(info)),
    ]);
    let writer = TorchWriter::create(&folder.join("AWB.pt"), "AWB", &value, &[storage; 3])?;
    for (number, matrix) in [encode, decode, encode].into_iter().enumerate() {
        writer.write_at(number, 0, &f32_bytes(matrix, "AWB.pt")?)?;
    }
    writer.finish()
}

/// `pca_components.pt`, complete but for the mean, which is streamed.
fn write_components(folder: &Path, basis: &Basis, plan: &Plan, frozen: &[(String, Vec<usize>)]) -> Result<MeanFile> {
    let solved = basis.solved()?;
    let n_components = solved.decode.n_rows() - 1;
    let coefficients = Matrix::from_fn(n_components, solved.decode.n_columns(), |m, t| solved.decode[(m, t)]);
    let n_rows =
        plan.n_rows() as usize + frozen.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
    let stored = plan.tensors.iter().map(|tensor| (&tensor.name, &tensor.shape));
    let tensors: Vec<_> = stored.chain(frozen.iter().map(|(name, shape)| (name, shape))).collect();
    let starts = plan.tensors.iter().scan(0, |end, tensor| {
        *end += tensor.n_rows;
        Some(*end - tensor.n_rows)
    });
    let firsts: Vec<usize> = starts.collect();
    let tensor = |number, shape: &[usize]| SaveValue::Tensor(SaveTensor::contiguous(number, 0, Dtype::F32, shape));
    let storage = |n_elements: usize| SaveStorage { dtype: Dtype::F32, n_elements: n_elements as u64 };
    let text = |name: &String| SaveValue::Str(name.clone());
    let shapes = tensors.iter().map(|(name, shape)| (text(name), SaveValue::Size(shape.to_vec())));
    let value = SaveValue::Dict(vec![
        ("coefficients".into(), tensor(0, &[n_components, coefficients.n_columns()])),
        ("mean_vector".into(), tensor(1, &[n_rows])),
        ("singular_values".into(), tensor(2, &[n_components])),
        ("M_actual".into(), SaveValue::Int(n_components as i64)),
        ("total_dim".into(), SaveValue::Int(n_rows as i64)),
        ("keys_order".into(), SaveValue::List(tensors.iter().map(|(name, _)| text(name)).collect())),
        ("param_shapes".into(), SaveValue::Dict(shapes.collect())),
        ("dataset_names".into(), SaveValue::List(basis.task_names().iter().map(text).collect())),
        ("storage_info".into(), SaveValue::Dict(Vec::new())),
    ]);
    let storages = [storage(n_components * coefficients.n_columns()), storage(n_rows), storage(n_components)];
    let writer = TorchWriter::create(&folder.join("pca_components.pt"), "pca_components", &value, &storages)?;
    writer.write_at(0, 0, &f32_bytes(&coefficients, "coefficients")?)?;
    let singular_values = singular_values(basis, &solved.encode, n_components);
    writer.write_at(2, 0, &f32_bytes(&singular_values, "singular_values")?)?;
    Ok(MeanFile { writer, storage: 1, firsts, n_stored: plan.n_rows(), n_rows: n_rows as u64 })
}

/// Norms of the components, √(bᵀGb); zero where the Gram matrix is not known. The loader keeps and never uses them.
fn singular_values(basis: &Basis, encode: &Matrix, n_components: usize) -> Matrix {
    let gram = basis.total_gram();
    Matrix::from_fn(1, n_components, |_, m| {
        let column = encode.column(m);
        gram.as_ref().map_or(0.0, |gram| form(gram, column).max(0.0).sqrt())
    })
}

/// xᵀ·g·x.
fn form(g: &Matrix, x: &[f64]) -> f64 {
    g.columns().zip(x).map(|(column, weight)| weight * column.iter().zip(x).map(|(a, b)| a * b).sum::<f64>()).sum()
}

fn f32_bytes(matrix: &Matrix, what: &str) -> Result<Vec<u8>> {
    let rows = (0..matrix.n_rows()).flat_map(|i| (0..matrix.n_columns()).map(move |j| matrix[(i, j)] as f32));
    let (n_values, n_finite) = (rows.clone().count(), rows.clone().filter(|value| value.is_finite()).count());
    if n_finite < n_values {
        let n_beyond = n_values - n_finite;
        return Err(Error::rejected(format!(
            "{what}: values in f32 expected, as the layout has it, {n_beyond} beyond it found"
        )));
    }
    Ok(rows.flat_map(f32::to_le_bytes).collect())
}

fn save_value(json: &Value) -> SaveValue {
    match json {
        Value::Null => SaveValue::None,
        Value::Bool(value) => SaveValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => SaveValue::Int(value),
            None => SaveValue::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => SaveValue::Str(text.clone()),
        Value::Array(items) => SaveValue::List(items.iter().map(save_value).collect()),
        Value::Object(entries) => SaveValue::Dict(
            entries.iter().map(|(key, value)| (SaveValue::Str(key.clone()), save_value(value))).collect(),
        ),
    }
}

/// Writes a checkpoint as a PyTorch state dict, tensors in the order of its keys.
///
/// # Errors
/// Rejected: an element type PyTorch lacks, an existing output. Failed: I/O. Interrupted.
pub fn export_checkpoint(
    checkpoint: &Checkpoint,
    output: &Path,
    existing: Existing,
    progress: &dyn Progress,
) -> Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let staged = StagedOutput::file(output, existing, &checkpoint.inputs())?;
    let tensors: Vec<&Tensor> = checkpoint.in_key_order().collect();
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|tensor| TensorSpec { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() })
        .collect();
    let stem = output.file_stem().map_or_else(|| "archive".into(), |stem| stem.to_string_lossy().into_owned());
    let writer = TorchWriter::create_state_dict(staged.path(), &stem, &specs)?;
    progress.begin("export", tensors.iter().map(|tensor| tensor.n_bytes()).sum());
    let mut buffer = vec![0; PIECE_BYTES as usize];
    for (number, tensor) in tensors.iter().enumerate() {
        for offset in (0..tensor.n_bytes()).step_by(PIECE_BYTES as usize) {
            progress.check()?;
            let n_left = usize::try_from(tensor.n_bytes() - offset).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..n_left).unwrap_or_default();
            checkpoint.read(tensor, offset, piece)?;
            writer.write_at(number, offset, piece)?;
            progress.advance(piece.len() as u64);
        }
    }
    progress.finish();
    checkpoint.check_unchanged()?;
    writer.finish()?;
    staged.commit()
}

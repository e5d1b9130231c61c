//! `coefficients.safetensors`: Gram, encode, decode and eigenvalues in f64, small enough to be read at once.

use super::gram_file::full_matrices;
use super::manifest::{FileRecord, Manifest, StoredTensors};
use super::matrix_file::MatrixFile;
use crate::checkpoint::{Budget, Charge, Tensor};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::matrix::Matrix;
use crate::ops::Grams;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::Path;
use tvb_kernels::triangle_len;

/// The file's name inside a basis folder.
pub const FILE_NAME: &str = crate::checkpoint::names::COEFFICIENTS;
/// Larger files are not ours: Grams are kept as one before they get there.
const MAX_BYTES: u64 = 4 << 30;

/// What the file holds.
#[derive(Clone, Debug)]
pub struct StoredCoefficients {
    /// [n_slots, T, T]: one Gram matrix for each tensor, or one for everything; empty where it is unknown.
    pub grams: Vec<Matrix>,
    /// B [T, M]; empty (0 × 0) where the atoms are no combination of the task vectors.
    pub encode: Matrix,
    /// W [M, T].
    pub decode: Matrix,
    /// What makes the raw columns of generated atoms orthonormal, [M, M]; empty where atoms are stored.
    pub mix: Matrix,
    /// Q [M, K], the directions that coded atoms keep; empty (0 × 0) where there are none.
    pub kept: Matrix,
    /// The Gram matrix \[T, T\] of the tasks as they come back, of adapters in shared spaces; empty (0 × 0) for others.
    pub recovered: Matrix,
    /// Eigenvalues of the Gram matrix of everything, descending; empty where it is unknown.
    pub eigenvalues: Vec<f64>,
    /// How far entries of the Gram matrix of everything may be off; `None` where all of it is exact.
    pub gram_errors: Option<GramErrors>,
}

/// How far the entries of a Gram matrix that are estimates may be off, both \[T, T\] and 0 where an entry is exact.
#[derive(Clone, Debug, PartialEq)]
pub struct GramErrors {
    /// Standard errors.
    pub standard: Matrix,
    /// What no entry is off by more than.
    pub bound: Matrix,
}

impl GramErrors {
    /// All exact.
    pub fn none(n_tasks: usize) -> GramErrors {
        GramErrors { standard: Matrix::zeros(n_tasks, n_tasks), bound: Matrix::zeros(n_tasks, n_tasks) }
    }

    /// Whether the inner product of two tasks is an estimate.
    pub fn is_estimate(&self, i: usize, j: usize) -> bool {
        self.bound[(i, j)] > 0.0 || self.standard[(i, j)] > 0.0
    }

    /// Pairs of tasks whose inner product is an estimate.
    pub fn n_pairs(&self) -> usize {
        let n = self.standard.n_rows();
        (0..n).map(|i| (0..i).filter(|&j| self.is_estimate(i, j)).count()).sum()
    }

    /// The same of some of the tasks, in the order given.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "as many rows as tasks were asked for")]
    pub fn subset(&self, tasks: &[usize]) -> GramErrors {
        let n = tasks.len();
        let of = |matrix: &Matrix| Matrix::from_fn(n, n, |i, j| matrix[(tasks[i], tasks[j])]);
        GramErrors { standard: of(&self.standard), bound: of(&self.bound) }
    }

    fn check(&self) -> Result<()> {
        for (word, matrix) in [("gram_error", &self.standard), ("gram_bound", &self.bound)] {
            let n = matrix.n_rows();
            let entries = || (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
            if let Some(at) = entries().find(|&at| matrix[at].is_nan() || matrix[at] < 0.0) {
                let found = matrix[at];
                return Err(Error::rejected(format!("tensor {word}: numbers from 0 on expected, {found} found")));
            }
        }
        Ok(())
    }
}

/// What is written beside the Gram matrices.
#[derive(Clone, Copy, Debug)]
pub struct Solution<'a> {
    /// B [T, M]; empty (0 × 0) where the atoms are no combination of the task vectors.
    pub encode: &'a Matrix,
    /// W [M, T].
    pub decode: &'a Matrix,
    /// [M, M] for generated atoms.
    pub mix: Option<&'a Matrix>,
    /// Q [M, K] for coded atoms that keep something.
    pub kept: Option<&'a Matrix>,
    /// The Gram matrix \[T, T\] of the tasks as they come back, of adapters in shared spaces.
    pub recovered: Option<&'a Matrix>,
    /// Eigenvalues of the Gram matrix, descending; empty where it is unknown.
    pub eigenvalues: &'a [f64],
    /// How far entries of the Gram matrix may be off, where some are estimates.
    pub gram_errors: Option<&'a GramErrors>,
}

/// Gram matrices as they are written: \[n_slots\] packed lower triangles of n_tasks.
#[derive(Clone, Copy, Debug)]
pub struct Triangles<'a> {
    /// T.
    pub n_tasks: usize,
    /// [n_slots, T(T+1)/2].
    pub values: &'a [f64],
}

impl<'a> Triangles<'a> {
    /// Those of a Gram pass.
    pub fn of(grams: &'a Grams) -> Triangles<'a> {
        Triangles { n_tasks: grams.n_tasks(), values: &grams.triangles }
    }
}

/// Writes the file into a basis folder that is being made.
///
/// # Errors
/// Failed: the system cannot write.
pub fn write(folder: &Path, grams: Option<Triangles<'_>>, solution: &Solution<'_>) -> Result<FileRecord> {
    const NAME: &str = StoredTensors::NAME;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    if let Some(grams) = grams {
        let n = grams.n_tasks;
        let n_slots = grams.values.len() / triangle_len(n).max(1);
        tensors.push(("gram".into(), vec![n_slots, n, n], full_matrices(grams.values, n)));
    }
    let matrices = [
        ("encode", Some(solution.encode)),
        ("decode", Some(solution.decode)),
        ("mix", solution.mix),
        ("kept", solution.kept),
        ("recovered", solution.recovered),
        ("gram_error", solution.gram_errors.map(|errors| &errors.standard)),
        ("gram_bound", solution.gram_errors.map(|errors| &errors.bound)),
    ];
    for (word, matrix) in matrices.into_iter().filter_map(|(word, matrix)| Some((word, matrix?))) {
        tensors.push((format!("{word}.{NAME}"), vec![matrix.n_rows(), matrix.n_columns()], matrix_bytes(matrix)));
    }
    let eigenvalues = solution.eigenvalues.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensors.push((format!("eigenvalues.{NAME}"), vec![solution.eigenvalues.len()], eigenvalues));
    let failed = |error: safetensors::SafeTensorError| Error::failed(format!("{FILE_NAME}: {error}"));
    let views = tensors.iter().map(|(name, shape, data)| {
        TensorView::new(Dtype::F64, shape.clone(), data).map(|view| (name.as_str(), view)).map_err(failed)
    });
    let bytes = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None).map_err(failed)?;
    let path = folder.join(FILE_NAME);
    std::fs::write(&path, &bytes).map_err(|error| Error::io("writing", &path, &error))?;
    Ok(FileRecord { file: FILE_NAME.into(), checksum: Digest::of(&bytes) })
}

fn matrix_bytes(matrix: &Matrix) -> Vec<u8> {
    let rows = (0..matrix.n_rows()).flat_map(|i| (0..matrix.n_columns()).map(move |j| matrix[(i, j)]));
    rows.flat_map(f64::to_le_bytes).collect()
}

/// Reads and checks the coefficients of the basis in `folder`, and says what they take of `budget`.
///
/// # Errors
/// Rejected: missing, damaged, shapes that disagree with the manifest, or too little memory. Failed: I/O. Interrupted.
pub(crate) fn read(folder: &Path, manifest: &Manifest, budget: &Budget) -> Result<(StoredCoefficients, Charge)> {
    let path = crate::checkpoint::resolve_inside(folder, &manifest.coefficients.file)?;
    let checksum = manifest.coefficients.checksum;
    let mut file = MatrixFile::open(&path, "coefficients", MAX_BYTES, Some(checksum), budget)?;
    let parsed = parse(&mut file, manifest).map_err(|error| match error.kind() {
        ErrorKind::Rejected if error.hint_text().is_none() => error.context(path.display()),
        // Names the file itself.
        _ => error,
    })?;
    Ok((parsed, file.finish()?))
}

fn parse(file: &mut MatrixFile<'_>, manifest: &Manifest) -> Result<StoredCoefficients> {
    let (n_tasks, n_atoms) = (manifest.tasks.len(), manifest.n_vectors());
    let name = &manifest.stored.name;
    let eigenvalues = find(file, &format!("eigenvalues.{name}"))?;
    let eigenvalues = values(file, &eigenvalues)?;
    let encode = matrix(file, &format!("encode.{name}"), n_tasks, n_atoms, true)?;
    let decode = matrix(file, &format!("decode.{name}"), n_atoms, n_tasks, false)?;
    let mix = match manifest.generated {
        Some(_) => matrix(file, &format!("mix.{name}"), n_atoms, n_atoms, false)?,
        None => Matrix::empty(),
    };
    let kept = match manifest.coded.as_ref().map_or(0, |coded| coded.n_kept) {
        0 => Matrix::empty(),
        n_kept => matrix(file, &format!("kept.{name}"), n_atoms, n_kept, false)?,
    };
    if !kept.is_finite() {
        return Err(Error::rejected(format!("tensor kept.{name}: finite numbers expected, others found")));
    }
    let recovered = match manifest.shared() {
        Some(_) => matrix(file, &format!("recovered.{name}"), n_tasks, n_tasks, false)?,
        None => Matrix::empty(),
    };
    if !recovered.is_finite() {
        return Err(Error::rejected(format!("tensor recovered.{name}: finite numbers expected, others found")));
    }
    let gram_errors = match manifest.estimates {
        Some(_) => Some(GramErrors {
            standard: matrix(file, &format!("gram_error.{name}"), n_tasks, n_tasks, false)?,
            bound: matrix(file, &format!("gram_bound.{name}"), n_tasks, n_tasks, false)?,
        }),
        None => None,
    };
    gram_errors.iter().try_for_each(GramErrors::check)?;
    let mut grams = Vec::new();
    if let Some(gram) = file.tensor("gram").cloned() {
        if !matches!(gram.shape[..], [_, rows, columns] if rows == n_tasks && columns == n_tasks) {
            return Err(Error::rejected(format!(
                "tensor gram: shape [n, {n_tasks}, {n_tasks}] expected, {:?} found",
                gram.shape
            )));
        }
        file.charge_values(gram.n_elements() as u64)?;
        let mut one = Vec::with_capacity(n_tasks * n_tasks);
        file.values(&gram, |value| {
            one.push(value);
            if one.len() == n_tasks * n_tasks {
                grams.push(Matrix::of_rows(n_tasks, n_tasks, &one));
                one.clear();
            }
        })?;
    }
    Ok(StoredCoefficients { grams, encode, decode, mix, kept, recovered, eigenvalues, gram_errors })
}

fn find(file: &MatrixFile<'_>, name: &str) -> Result<Tensor> {
    file.tensor(name).cloned().ok_or_else(|| Error::rejected(format!("tensor {name} expected, none found")))
}

fn values(file: &mut MatrixFile<'_>, tensor: &Tensor) -> Result<Vec<f64>> {
    file.charge_values(tensor.n_elements() as u64)?;
    let mut values = Vec::with_capacity(tensor.n_elements());
    file.values(tensor, |value| values.push(value))?;
    Ok(values)
}

fn matrix(file: &mut MatrixFile<'_>, name: &str, rows: usize, columns: usize, may_be_empty: bool) -> Result<Matrix> {
    let tensor = find(file, name)?;
    if may_be_empty && tensor.shape == [0, 0] {
        return Ok(Matrix::empty());
    }
    if tensor.shape != [rows, columns] {
        return Err(Error::rejected(format!(
            "tensor {name}: shape [{rows}, {columns}] expected, {:?} found",
            tensor.shape
        )));
    }
    let data = values(file, &tensor)?;
    Ok(Matrix::of_rows(rows, columns, &data))
}

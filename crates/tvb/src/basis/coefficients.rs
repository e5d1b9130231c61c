//! `coefficients.safetensors`: Gram, encode, decode and eigenvalues in f64, small enough to be read at once.

use super::gram_file::full_matrices;
use super::manifest::{FileRecord, Manifest, StoredTensors};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::Grams;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// The file's name inside a basis folder.
pub const FILE_NAME: &str = "coefficients.safetensors";
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
    /// Eigenvalues of the Gram matrix of everything, descending; empty where it is unknown.
    pub eigenvalues: Vec<f64>,
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
    /// Eigenvalues of the Gram matrix, descending; empty where it is unknown.
    pub eigenvalues: &'a [f64],
}

/// Writes the file into a basis folder that is being made.
///
/// # Errors
/// Failed: the system cannot write.
pub fn write(folder: &Path, grams: Option<&Grams>, solution: &Solution<'_>) -> Result<FileRecord> {
    const NAME: &str = StoredTensors::NAME;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    if let Some(grams) = grams {
        let n = grams.n_tasks();
        tensors.push(("gram".into(), vec![grams.n_slots(), n, n], full_matrices(&grams.triangles, n)));
    }
    let matrices = [("encode", Some(solution.encode)), ("decode", Some(solution.decode)), ("mix", solution.mix)];
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

/// Reads and checks the coefficients of the basis in `folder`.
///
/// # Errors
/// Rejected: missing, damaged, or shapes that disagree with the manifest. Failed: I/O.
pub fn read(folder: &Path, manifest: &Manifest) -> Result<StoredCoefficients> {
    let path = crate::checkpoint::resolve_inside(folder, &manifest.coefficients.file)?;
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let bytes = crate::checkpoint::read_capped(&path, "coefficients", MAX_BYTES)?;
    if Digest::of(&bytes) != manifest.coefficients.checksum {
        return Err(rejected("its checksum does not match: the file was damaged".into())
            .hint("make the basis again, or copy it again"));
    }
    parse(&bytes, manifest).map_err(rejected)
}

fn parse(bytes: &[u8], manifest: &Manifest) -> std::result::Result<StoredCoefficients, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let (n_tasks, n_atoms) = (manifest.tasks.len(), manifest.n_vectors());
    let values = |name: &str| -> std::result::Result<(Vec<usize>, Vec<f64>), String> {
        let view = file.tensor(name).map_err(|_| format!("tensor {name} expected, none found"))?;
        if view.dtype() != Dtype::F64 {
            return Err(format!("tensor {name}: F64 expected, {:?} found", view.dtype()));
        }
        let data = view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default()));
        let data: Vec<f64> = data.collect();
        if data.iter().any(|value| !value.is_finite()) {
            return Err(format!("tensor {name}: finite values expected, another found"));
        }
        Ok((view.shape().to_vec(), data))
    };
    let matrix = |name: String, rows: usize, columns: usize, may_be_empty: bool| {
        let (shape, data) = values(&name)?;
        if shape == [rows, columns] {
            Ok(Matrix::of_rows(rows, columns, &data))
        } else if may_be_empty && shape == [0, 0] {
            Ok(Matrix::empty())
        } else {
            Err(format!("tensor {name}: shape [{rows}, {columns}] expected, {shape:?} found"))
        }
    };
    let name = &manifest.stored.name;
    let (_, eigenvalues) = values(&format!("eigenvalues.{name}"))?;
    let encode = matrix(format!("encode.{name}"), n_tasks, n_atoms, true)?;
    let decode = matrix(format!("decode.{name}"), n_atoms, n_tasks, false)?;
    let mix = match manifest.generated {
        Some(_) => matrix(format!("mix.{name}"), n_atoms, n_atoms, false)?,
        None => Matrix::empty(),
    };
    let mut grams = Vec::new();
    if file.tensor("gram").is_ok() {
        let (shape, data) = values("gram")?;
        if !matches!(shape[..], [_, rows, columns] if rows == n_tasks && columns == n_tasks) {
            return Err(format!("tensor gram: shape [n, {n_tasks}, {n_tasks}] expected, {shape:?} found"));
        }
        let matrices = data.chunks_exact(n_tasks * n_tasks);
        grams = matrices.map(|m| Matrix::of_rows(n_tasks, n_tasks, m)).collect();
    }
    Ok(StoredCoefficients { grams, encode, decode, mix, eigenvalues })
}

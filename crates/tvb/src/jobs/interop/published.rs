//! The small files of a published basis folder: which method, which tasks, B and W, and what is odd about them.
//!
//! The reference code has quirks that are read here as they were meant, and told: the temperature τ that training ended
//! with is not saved (A and B give it back), and a W that was trained under a softmax is saved with the softmax taken or
//! without it, depending on which of two options asked for it.

use crate::checkpoint::torch::TorchFile;
use crate::checkpoint::{Budget, Dtype, Tensor};
use crate::columns::tasks::check_names;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tvb_kernels::MAX_TASKS;

/// Larger JSON files are not a basis' description.
const JSON_BYTES_MAX: u64 = 16 << 20;
/// Tasks, and atoms with the mean of the tasks: no matrix has more rows or columns.
const N_ATOMS_MAX: usize = MAX_TASKS + 1;

/// What a published folder says beside its atoms.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// The method's word in this program.
    pub method: &'static str,
    /// The tasks that it can recover, in saved order.
    pub tasks: Vec<String>,
    /// B [n_tasks, n_stored]; empty where the atoms are no mixtures of the tasks.
    pub encode: Matrix,
    /// W [n_stored, n_tasks].
    pub decode: Matrix,
    /// The file with the mean of the tasks, which is stored as the last atom.
    pub mean: Option<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// `method_info.json` as it is.
    pub info: Value,
}

/// Reads everything but the atoms.
///
/// # Errors
/// Rejected: not a published basis folder, or files that do not fit together. Failed: I/O.
pub(super) fn read(folder: &Path, budget: &Budget) -> Result<Published> {
    let info = read_json(&folder.join("method_info.json"), budget)?;
    match info.get("method").and_then(Value::as_str) {
        Some("AutoencoderBasisMethod") => autoencoder(folder, info, budget),
        Some("PCABasisMethod") => pca(folder, info, budget),
        Some("RandomBasisMethod") => random(folder, info, budget),
        Some("RandomSampleMethod") => random_sample(folder, info, budget),
        found => Err(Error::rejected(format!(
            "{}: \"method\": AutoencoderBasisMethod, PCABasisMethod, RandomBasisMethod or RandomSampleMethod expected, {} found",
            folder.join("method_info.json").display(),
            found
                .map_or_else(|| "none".to_owned(), |found| format!("{:?}", found.chars().take(60).collect::<String>()))
        ))),
    }
}

fn autoencoder(folder: &Path, info: Value, budget: &Budget) -> Result<Published> {
    let path = awb_path(folder)?;
    let file = TorchFile::open_within(&path, budget)?;
    let tasks = tasks_of(member(&info, "datasets"), &folder.join("method_info.json"))?;
    let encode = matrix(&file, "B")?;
    let mut decode = matrix(&file, "W")?;
    check_shape(&path, "B", &encode, tasks.len(), encode.n_columns())?;
    check_shape(&path, "W", &decode, encode.n_columns(), tasks.len())?;
    let is_linear = member(&info, "encoder").as_str() == Some("linear");
    let tau = match file.root().get("A") {
        Some(_) => {
            let initial = matrix(&file, "A")?;
            check_shape(&path, "A", &initial, tasks.len(), encode.n_columns())?;
            temperature(&initial, &encode, is_linear)
        }
        None => None,
    };
    let mut notes = vec![match tau {
        Some(tau) => format!("the final temperature was not saved: A and B give {tau:.4}; B is used as it was saved"),
        None => "the final temperature was not saved; B is used as it was saved".to_owned(),
    }];
    let asked =
        member(&info, "softmax_w").as_bool() == Some(true) || member(&info, "w_activation").as_str() == Some("softmax");
    if asked && is_softmaxed(&decode) {
        notes.push(
            "softmax_w: W was saved with its softmax taken and is used as it is; the reference's loader takes it again"
                .into(),
        );
    } else if asked {
        let tau = tau.ok_or_else(|| {
            Error::rejected(format!(
                "{}: W lacks its softmax, and its temperature is not known: A and B expected to give it",
                path.display()
            ))
        })?;
        decode = softmaxed(&decode, tau);
        notes.push(format!("w_activation: W was saved before its softmax; it was taken at the temperature {tau:.4}"));
    }
    Ok(Published { method: "ae", tasks, encode, decode, mean: None, notes, info })
}

/// `AWB.pt`, or the only file whose name begins so, as the reference looks for it.
fn awb_path(folder: &Path) -> Result<PathBuf> {
    let usual = folder.join("AWB.pt");
    if usual.is_file() {
        return Ok(usual);
    }
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("reading", folder, &error))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("AWB") && name.ends_with(".pt")
        })
        .collect();
    found.sort();
    found
        .into_iter()
        .next()
        .ok_or_else(|| Error::rejected(format!("{}: AWB.pt expected, none found", folder.display())))
}

fn pca(folder: &Path, info: Value, budget: &Budget) -> Result<Published> {
    let path = folder.join("pca_components.pt");
    let file = TorchFile::open_within(&path, budget)?;
    let tasks = saved_names(&file, &info, folder)?;
    let coefficients = matrix(&file, "coefficients")?;
    let n_components = coefficients.n_rows();
    let n_tasks = tasks.len();
    check_shape(&path, "coefficients", &coefficients, n_components, n_tasks)?;
    // The components are the centred tasks times these coefficients, the mean is every task in equal parts.
    let encode = Matrix::from_fn(n_tasks, n_components + 1, |t, m| {
        if m == n_components {
            return 1.0 / n_tasks as f64;
        }
        let mean = (0..n_tasks).map(|k| coefficients[(m, k)]).sum::<f64>() / n_tasks as f64;
        coefficients[(m, t)] - mean
    });
    let decode =
        Matrix::from_fn(n_components + 1, n_tasks, |m, t| if m < n_components { coefficients[(m, t)] } else { 1.0 });
    let notes = vec![format!(
        "pca stores {} vectors: {n_components} components and the mean, which the rule `sum` leaves out",
        n_components + 1
    )];
    Ok(Published { method: "pca", tasks, encode, decode, mean: Some(path), notes, info })
}

fn random(folder: &Path, info: Value, budget: &Budget) -> Result<Published> {
    let path = folder.join("random_basis.pt");
    let file = TorchFile::open_within(&path, budget)?;
    let tasks = saved_names(&file, &info, folder)?;
    let decode = matrix(&file, "projection_coefficients")?;
    check_shape(&path, "projection_coefficients", &decode, decode.n_rows(), tasks.len())?;
    let notes = vec![
        "random atoms are no mixtures of the tasks: there is no encode; they are stored as they were published"
            .to_owned(),
    ];
    Ok(Published { method: "random", tasks, encode: Matrix::empty(), decode, mean: None, notes, info })
}

fn random_sample(folder: &Path, info: Value, budget: &Budget) -> Result<Published> {
    let path = folder.join("random_selection.json");
    let selection = read_json(&path, budget)?;
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let all = tasks_of(member(&info, "datasets"), &folder.join("method_info.json"))?;
    let indices = member(&selection, "selected_indices")
        .as_array()
        .ok_or_else(|| rejected("selected_indices: a list expected".into()))?;
    if indices.len() > all.len() {
        return Err(rejected(format!("selected_indices: at most {} expected, {} found", all.len(), indices.len())));
    }
    let tasks: Vec<String> = indices
        .iter()
        .map(|index| {
            let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
            let task = index.and_then(|index| all.get(index));
            task.cloned().ok_or_else(|| rejected(format!("selected_indices: numbers below {} expected", all.len())))
        })
        .collect::<Result<_>>()?;
    // No name stands twice among all of them.
    let held: HashSet<&String> = tasks.iter().collect();
    if held.is_empty() || held.len() != tasks.len() {
        return Err(rejected("selected_indices: one index or more expected, none twice".into()));
    }
    let lost: Vec<&str> = all.iter().filter(|task| !held.contains(task)).map(String::as_str).collect();
    let mut notes = Vec::new();
    if !lost.is_empty() {
        notes.push(format!(
            "the basis holds {} of {} tasks and recovers those; lost are {}",
            tasks.len(),
            all.len(),
            lost.join(", ")
        ));
    }
    let identity = Matrix::identity(tasks.len());
    Ok(Published { method: "sample", tasks, encode: identity.clone(), decode: identity, mean: None, notes, info })
}

/// The tasks' names in the tensor file, or where it has none those of the description.
fn saved_names(file: &TorchFile, info: &Value, folder: &Path) -> Result<Vec<String>> {
    let Some(names) = file.root().get("dataset_names").and_then(|names| names.items()) else {
        return tasks_of(member(info, "datasets"), &folder.join("method_info.json"));
    };
    if names.len() > MAX_TASKS {
        return Err(too_many_tasks(names.len(), file.path()));
    }
    let names: Option<Vec<Value>> = names.map(|name| name.as_str().map(Value::from)).collect();
    tasks_of(&names.map_or(Value::Null, Value::from), file.path())
}

/// A member of a JSON object; null where there is none.
fn member<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

fn too_many_tasks(n_tasks: usize, path: &Path) -> Error {
    Error::rejected(format!("{}: at most {MAX_TASKS} datasets expected, {n_tasks} found", path.display()))
}

fn tasks_of(names: &Value, path: &Path) -> Result<Vec<String>> {
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    if let Some(names) = names.as_array().filter(|names| names.len() > MAX_TASKS) {
        return Err(too_many_tasks(names.len(), path));
    }
    let names: Option<Vec<String>> =
        names.as_array().and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
    let names =
        names.filter(|names| !names.is_empty()).ok_or_else(|| rejected("a list of dataset names expected".into()))?;
    check_names(names.iter().map(String::as_str)).map_err(rejected)?;
    Ok(names)
}

fn read_json(path: &Path, budget: &Budget) -> Result<Value> {
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    if !path.exists() && path.parent().is_some_and(Path::is_dir) {
        return Err(rejected("expected, none found".into())
            .hint("a published basis folder holds basis_vectors.pt, method_info.json and its coefficients"));
    }
    // What it says goes into the basis, so it may not come from elsewhere.
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        && path.is_symlink()
    {
        crate::checkpoint::resolve_inside(folder, name)?;
    }
    let (bytes, mut charge) = crate::checkpoint::read_capped_within(path, "JSON", JSON_BYTES_MAX, budget)?;
    charge.take(crate::checkpoint::json_cost(&bytes))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| rejected(format!("not JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(rejected("a JSON object expected".into())) }
}

/// A small matrix of a dict, in f64.
fn matrix(file: &TorchFile, key: &str) -> Result<Matrix> {
    let rejected = |what: String| Error::rejected(format!("{}: {key}: {what}", file.path().display()));
    let value = file.root().get(key).ok_or_else(|| rejected("a matrix expected, none found".into()))?;
    let tensor: Tensor = value.tensor(key)?;
    let (&[n_rows, n_columns], Some(_)) = (tensor.shape.as_slice(), tensor.dtype.float()) else {
        return Err(rejected(format!("a float matrix expected, {} {:?} found", tensor.dtype, tensor.shape)));
    };
    if ![n_rows, n_columns].iter().all(|n| (1..=N_ATOMS_MAX).contains(n)) {
        return Err(rejected(format!("1 to {N_ATOMS_MAX} rows and columns expected, shape {:?} found", tensor.shape)));
    }
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    file.read(&tensor, 0, &mut bytes)?;
    let values: Vec<f64> = match (tensor.dtype, tensor.dtype.float()) {
        (Dtype::F64, _) => {
            bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default())).collect()
        }
        (_, Some(dtype)) => tvb_kernels::decode(&bytes, dtype).into_iter().map(f64::from).collect(),
        (_, None) => Vec::new(),
    };
    if values.iter().any(|value| !value.is_finite()) {
        return Err(rejected("a value that is not finite".into()));
    }
    Ok(Matrix::of_rows(n_rows, n_columns, &values))
}

fn check_shape(path: &Path, key: &str, matrix: &Matrix, n_rows: usize, n_columns: usize) -> Result<()> {
    let found = (matrix.n_rows(), matrix.n_columns());
    if found == (n_rows, n_columns) {
        return Ok(());
    }
    Err(Error::rejected(format!(
        "{}: {key}: shape [{n_rows}, {n_columns}] expected, [{}, {}] found",
        path.display(),
        found.0,
        found.1
    )))
}

/// Whether every column is a distribution, to f32's precision.
fn is_softmaxed(matrix: &Matrix) -> bool {
    matrix
        .columns()
        .all(|column| column.iter().all(|&value| value >= 0.0) && (column.iter().sum::<f64>() - 1.0).abs() < 1e-4)
}

/// Softmax down the columns of `matrix`/τ.
fn softmaxed(matrix: &Matrix, tau: f64) -> Matrix {
    let mut out = Matrix::zeros(matrix.n_rows(), matrix.n_columns());
    for (j, column) in matrix.columns().enumerate() {
        let largest = column.iter().fold(f64::NEG_INFINITY, |largest, &value| largest.max(value / tau));
        let total: f64 = column.iter().map(|value| (value / tau - largest).exp()).sum();
        for (i, value) in column.iter().enumerate() {
            out[(i, j)] = (value / tau - largest).exp() / total;
        }
    }
    out
}

/// τ of B = softmax(A/τ) down columns, or of B = A/τ: the least squares slope of ln B (or B) against A.
fn temperature(initial: &Matrix, encode: &Matrix, is_linear: bool) -> Option<f64> {
    let (mut products, mut squares) = (0.0, 0.0);
    for (a, b) in initial.columns().zip(encode.columns()) {
        let pairs: Vec<(f64, f64)> = match is_linear {
            true => a.iter().zip(b.iter()).map(|(&a, &b)| (a, b)).collect(),
            // Where B has run out of f32's range its logarithm says nothing.
            false => a.iter().zip(b.iter()).filter(|(_, b)| **b > 1e-30).map(|(&a, &b)| (a, b.ln())).collect(),
        };
        let n = pairs.len().max(1) as f64;
        let centre = match is_linear {
            true => (0.0, 0.0),
            false => {
                (pairs.iter().map(|pair| pair.0).sum::<f64>() / n, pairs.iter().map(|pair| pair.1).sum::<f64>() / n)
            }
        };
        for (a, b) in pairs {
            products += (a - centre.0) * (b - centre.1);
            squares += (a - centre.0).powi(2);
        }
    }
    let tau = squares / products;
    (tau.is_finite() && tau > 0.0).then_some(tau)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temperature_comes_back_from_a_and_b() {
        let initial = Matrix::from_fn(5, 3, |i, j| ((i * 7 + j * 3) % 11) as f64 - 4.0);
        for tau in [0.1, 1.0, 5.0] {
            let found = temperature(&initial, &softmaxed(&initial, tau), false).unwrap();
            assert!((found - tau).abs() < 1e-9 * tau, "{found} for {tau}");
            let scaled = Matrix::from_fn(5, 3, |i, j| initial[(i, j)] / tau);
            assert!((temperature(&initial, &scaled, true).unwrap() - tau).abs() < 1e-9 * tau);
        }
        assert_eq!(temperature(&Matrix::zeros(2, 2), &Matrix::zeros(2, 2), true), None);
    }

    #[test]
    fn a_softmax_is_recognised() {
        let raw = Matrix::from_fn(4, 2, |i, j| i as f64 - j as f64);
        assert!(!is_softmaxed(&raw));
        assert!(is_softmaxed(&softmaxed(&raw, 2.0)));
    }
}

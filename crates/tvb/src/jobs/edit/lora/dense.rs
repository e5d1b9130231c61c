//! The few tensors that an adapter gives whole: biases, and modules that were trained beside the factors (`modules_to_save`),
//! with the values θ0 + Σ w·(θt − θ0).

use super::gather::{Gathered, Used};
use super::layout::PREFIX;
use super::names::module_of;
use crate::checkpoint::{Checkpoint, Dtype, SafetensorsWriter, Tensor, TensorSpec, shown, values_of};
use crate::columns::plan::Task;
use crate::digest::BLOCK_ROWS;
use crate::error::{Error, Result};
use crate::ops::reconstruct::Edits;
use std::collections::{BTreeSet, HashSet};

/// One tensor that is saved whole.
#[derive(Debug)]
pub(super) struct WholeTensor {
    /// Its name in the adapter.
    name: String,
    /// Its name in the base.
    pub own: String,
    /// Whether the edit changes it; otherwise it is the base's, saved with its module.
    is_edited: bool,
}

/// What is saved whole.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub tensors: Vec<WholeTensor>,
    /// Modules as PEFT calls them.
    pub modules: Vec<String>,
    /// Whether biases are among the tensors.
    pub has_biases: bool,
}

impl Whole {
    /// # Errors
    /// Rejected: no base, a tensor outside of any module, a module that is changed by factors as well.
    pub(super) fn of(gathered: &Gathered, edits: &Edits, base: Option<&Checkpoint>) -> Result<Whole> {
        if gathered.dense.is_empty() {
            return Ok(Whole::default());
        }
        let base = base.ok_or_else(|| {
            Error::rejected(format!(
                "{} tensors of the edit are whole: a base to add them to expected, none given",
                gathered.dense.len()
            ))
            .hint("--base PATH")
        })?;
        let targets: HashSet<&str> = gathered.changes.iter().map(|change| module_of(&change.tensor).0).collect();
        let edited: HashSet<&str> = edits.tensors.iter().map(String::as_str).collect();
        let whole_tensor =
            |name: String, own: &str| WholeTensor { name, own: own.to_owned(), is_edited: edited.contains(own) };
        let rule = &gathered.rule;
        let whole = |name: &str| module_of(name).1 != "bias";
        let saved: BTreeSet<&str> =
            gathered.dense.iter().filter(|name| whole(name)).map(|name| module_of(name).0).collect();
        let mut found = Whole { modules: saved.iter().map(|module| rule.apply(module)).collect(), ..Whole::default() };
        for tensor in base.tensors() {
            // PEFT wraps every module whose name ends with one of these, and expects all of its tensors.
            let wrapped = prefixes(&tensor.name)
                .map(|module| (module, rule.apply(module)))
                .find(|(_, name)| found.modules.iter().any(|saved| name.ends_with(saved.as_str())));
            if let Some((module, name)) = wrapped {
                if module.is_empty() || targets.contains(module_of(&tensor.name).0) {
                    return Err(Error::rejected(format!(
                        "tensor {}: saved whole by one adapter, and its module is changed by the factors of another",
                        shown(&tensor.name)
                    ))
                    .hint("-o OUT writes the edited checkpoint"));
                }
                let rest = tensor.name.get(module.len()..).unwrap_or_default();
                found.tensors.push(whole_tensor(format!("{PREFIX}{name}{rest}"), &tensor.name));
            } else if gathered.dense.contains(&tensor.name) {
                let module = module_of(&tensor.name).0;
                let layer = if targets.contains(module) { ".base_layer" } else { "" };
                let name = format!("{PREFIX}{}{layer}.bias", rule.apply(module));
                found.tensors.push(whole_tensor(name, &tensor.name));
                found.has_biases = true;
            }
        }
        Ok(found)
    }

    /// Names, types and shapes in the adapter.
    pub(super) fn specs(&self, base: Option<&Checkpoint>, dtype: Option<Dtype>) -> Vec<TensorSpec> {
        let spec = |WholeTensor { name, own, .. }: &WholeTensor| {
            let tensor = base?.get(own)?;
            let dtype = dtype.filter(|_| tensor.dtype.float().is_some()).unwrap_or(tensor.dtype);
            Some(TensorSpec { name: name.clone(), dtype, shape: tensor.shape.clone() })
        };
        self.tensors.iter().filter_map(spec).collect()
    }

    /// Writes them; the first is tensor number `first` of the file.
    ///
    /// # Errors
    /// Rejected: values that are not finite in the type that they are stored in. Failed: I/O.
    pub(super) fn write(
        &self,
        base: &Checkpoint,
        used: &Used<'_>,
        dtype: Option<tvb_kernels::Dtype>,
        first: usize,
        writer: &SafetensorsWriter,
    ) -> Result<()> {
        for (place, WholeTensor { own, is_edited, .. }) in self.tensors.iter().enumerate() {
            let missing = || Error::failed(format!("tensor {} is not in the base", shown(own)));
            let tensor = base.get(own).ok_or_else(missing)?;
            let columns: Vec<(&Task, f64)> = if *is_edited { used.weighted(own).collect() } else { Vec::new() };
            for row in (0..tensor.n_elements()).step_by(BLOCK_ROWS) {
                let n_rows = BLOCK_ROWS.min(tensor.n_elements() - row);
                let (size, bytes) = rows(base, tensor, &columns, used.origin.is_some(), dtype, row, n_rows)?;
                writer.write_at(first + place, (row * size) as u64, &bytes)?;
            }
        }
        Ok(())
    }
}

/// Elements `row..row + n_rows` of an edited tensor and the size of one, in the type that is asked for or the base's.
fn rows(
    base: &Checkpoint,
    tensor: &Tensor,
    columns: &[(&Task, f64)],
    of_checkpoints: bool,
    dtype: Option<tvb_kernels::Dtype>,
    row: usize,
    n_rows: usize,
) -> Result<(usize, Vec<u8>)> {
    let own = read(base, tensor, row, n_rows)?;
    let Some(float) = tensor.dtype.float() else { return Ok((tensor.dtype.size(), own)) };
    let origin = values_of(&own, float);
    let mut edited = origin.clone();
    for (task, weight) in columns.iter().filter(|(_, weight)| *weight != 0.0) {
        let column = task.checkpoint.get(&tensor.name).filter(|column| column.shape == tensor.shape);
        let (column, float) = column.and_then(|column| Some((column, column.dtype.float()?))).ok_or_else(|| {
            let (task, name, shape) = (shown(&task.name), shown(&tensor.name), &tensor.shape);
            Error::rejected(format!("task {task}, tensor {name}: floats of shape {shape:?} expected, others found"))
                .hint("-o OUT writes the edited checkpoint")
        })?;
        let values = values_of(&read(&task.checkpoint, column, row, n_rows)?, float);
        let is_whole = of_checkpoints && !column.is_delta();
        for ((edited, value), origin) in edited.iter_mut().zip(values).zip(&origin) {
            *edited += weight * if is_whole { value - origin } else { value };
        }
    }
    let dtype = dtype.unwrap_or(float);
    let exact: Vec<u8> = edited.iter().flat_map(|value| value.to_le_bytes()).collect();
    let stored = tvb_kernels::convert(&exact, tvb_kernels::Dtype::F64, dtype);
    if tvb_kernels::count_non_finite(&stored, dtype) > 0 {
        let name = shown(&tensor.name);
        return Err(Error::rejected(format!(
            "tensor {name}: finite values in {} expected, others found",
            Dtype::from(dtype)
        )));
    }
    Ok((dtype.size(), stored))
}

fn read(checkpoint: &Checkpoint, tensor: &Tensor, row: usize, n_rows: usize) -> Result<Vec<u8>> {
    let size = tensor.dtype.size();
    let mut bytes = vec![0; n_rows * size];
    checkpoint.read(tensor, (row * size) as u64, &mut bytes)?;
    Ok(bytes)
}

/// The modules that a tensor lies in, outermost first.
pub(super) fn prefixes(tensor: &str) -> impl Iterator<Item = &str> {
    tensor.match_indices('.').filter_map(|(dot, _)| tensor.get(..dot))
}

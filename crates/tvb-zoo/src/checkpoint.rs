//! Checkpoints as safetensors files: one file, or a Hugging Face folder with its single file or its shards.
//!
//! Reading checks every name, shape and dtype against the model, so that nothing later can fail on a strange file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::model::{Elements, POSITION_IDS, Tensor, TensorSpec, Tensors, layout};
use crate::{Error, Result};

/// Reads a checkpoint; f64, f32, f16 and bf16 tensors all become f32.
///
/// Tensors that the model does not have are passed over, as loading a state dict leniently would.
///
/// # Errors
/// Failed, where a file cannot be read; rejected, where it is not a checkpoint of this model. One line each.
pub fn read(path: &Path) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    let specs: BTreeMap<String, TensorSpec> = layout().into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    for file in files(path)? {
        let bytes = std::fs::read(&file).map_err(|error| Error::io("reading", &file, &error))?;
        let parsed = SafeTensors::deserialize(&bytes)
            .map_err(|error| Error::rejected(format!("{}: not a safetensors file: {error}", file.display())))?;
        for (name, view) in parsed.iter() {
            if let Some(spec) = specs.get(name) {
                let tensor = tensor_of(spec, &view).map_err(|error| error.context(file.display()))?;
                tensors.insert(name.to_owned(), tensor);
            }
        }
    }
    let missing: Vec<&str> = specs.keys().map(String::as_str).filter(|name| !tensors.contains_key(*name)).collect();
    match missing.as_slice() {
        [] => Ok(tensors),
        [first, rest @ ..] => {
            let others = if rest.is_empty() { String::new() } else { format!(" and {} others", rest.len()) };
            Err(Error::rejected(format!("{}: tensor {first}{others} missing from the checkpoint", path.display())))
        }
    }
}

/// Writes a checkpoint: f32 in the native order of the format, metadata `format: pt`. Complete or not at all.
///
/// # Errors
/// Failed, where the file cannot be written.
pub fn write(path: &Path, tensors: &Tensors) -> Result<()> {
    let mut packed: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (dtype, bytes) = match &tensor.elements {
            Elements::F32(values) => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Elements::I64(values) => (Dtype::I64, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        };
        packed.push((name.clone(), dtype, tensor.shape.clone(), bytes));
    }
    let unwritable =
        |error: safetensors::SafeTensorError| Error::failed(format!("{}: writing failed: {error}", path.display()));
    let views: Vec<(&str, TensorView<'_>)> = packed
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<_, _>>()
        .map_err(unwritable)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(unwritable)?;
    let unfinished = path.with_extension("safetensors.part");
    std::fs::write(&unfinished, bytes)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|error| Error::io("writing", path, &error))
}

/// The safetensors files behind a path: itself, or what a Hugging Face folder holds.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let single = path.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = path.join("model.safetensors.index.json");
    if !index.is_file() {
        return Err(Error::rejected(format!(
            "{}: the folder holds no model.safetensors and no index of shards",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(&index).map_err(|error| Error::io("reading", &index, &error))?;
    let unusable = |why: &str| Error::rejected(format!("{}: {why}", index.display()));
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| unusable(&format!("not JSON: {error}")))?;
    let map = json.get("weight_map").and_then(|map| map.as_object()).ok_or_else(|| unusable("no object weight_map"))?;
    let mut shards = Vec::new();
    for shard in map.values() {
        // A bare file name only: an index must not reach outside its folder.
        let name = shard.as_str().filter(|name| Path::new(name).file_name() == Some(name.as_ref()));
        let shard =
            path.join(name.ok_or_else(|| unusable("weight_map names something that is not a file in the folder"))?);
        if !shards.contains(&shard) {
            shards.push(shard);
        }
    }
    Ok(shards)
}

fn tensor_of(spec: &TensorSpec, view: &TensorView<'_>) -> Result<Tensor> {
    let (name, shape) = (&spec.name, spec.shape.as_slice());
    if view.shape() != shape {
        return Err(Error::rejected(format!("tensor {name}: expected shape {shape:?}, found {:?}", view.shape())));
    }
    let bytes = view.data();
    if name == POSITION_IDS {
        if view.dtype() != Dtype::I64 {
            return Err(Error::rejected(format!("tensor {name}: expected dtype I64, found {}", view.dtype())));
        }
        return Ok(Tensor { shape: shape.to_vec(), elements: Elements::I64(elements(bytes, i64::from_le_bytes)) });
    }
    let values: Vec<f32> = match view.dtype() {
        Dtype::F64 => elements(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::F32 => elements(bytes, f32::from_le_bytes),
        Dtype::F16 => elements(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => elements(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        found => {
            return Err(Error::rejected(format!("tensor {name}: expected dtype F32, F16, BF16 or F64, found {found}")));
        }
    };
    Ok(Tensor { shape: shape.to_vec(), elements: Elements::F32(values) })
}

fn elements<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| decode(*chunk)).collect()
}

//! Checkpoints whose numbers are not weights as arithmetic needs them: quantized ones, complex ones, adapters.
//!
//! Packed weights are integers, which are carried over from the base like any other. Such a file would pass for a model whose
//! norms alone were trained; so it is known by its types and names, and refused.

use crate::checkpoint::{Checkpoint, Config, Dtype, FLOATS_HINT, Layout, Tensor, names};
use crate::error::{Error, Result};
use crate::shown::{shown, shown_path};
use std::fmt;
use std::path::Path;

/// Why a checkpoint can be no column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The tensor that shows it, where it is one.
    pub tensor: Option<String>,
    /// What the weights are: "GPTQ or AWQ, integers packed into words".
    pub what: String,
    /// What its owner can do.
    pub hint: &'static str,
}

const COMPLEX_HINT: &str = "save the real and the imaginary part as tensors of their own: torch.view_as_real";
const MERGE_HINT: &str = "merge it into a whole model first: model.merge_and_unload(), then save_pretrained";
const ADAPTER_HINT: &str = "name the adapter's own folder, with its adapter_config.json, as a task; or merge it into a whole \
                            model: model.merge_and_unload()";

const ATOM_HINT: &str = "name the basis where a basis is expected; `tvb recover` writes its tasks as checkpoints";

const DELTA_HINT: &str = "write it onto the base: leave out --delta, or give --base to `tvb recover`";

/// Whether a file is part of a basis.
fn is_atom(path: &Path) -> bool {
    let is_named = path.file_name().and_then(|name| name.to_str()).is_some_and(names::is_atom);
    is_named && path.with_file_name(names::MANIFEST).is_file()
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tensor {
            Some(tensor) => write!(f, "tensor {}: {}", shown(tensor), self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Whether a checkpoint can be a column: a base, or a task that is a whole model.
///
/// # Errors
/// Rejected: it cannot, with the tensor that shows it; or a `config.json` that is none.
pub fn check(checkpoint: &Checkpoint) -> Result<()> {
    match unfit(checkpoint)? {
        Some(unfit) => Err(Error::rejected(format!("{}: {unfit}", shown_path(checkpoint.path()))).hint(unfit.hint)),
        None => Ok(()),
    }
}

/// Why a checkpoint can be no column; `None` where it can.
///
/// # Errors
/// As [`Checkpoint::config`].
pub fn unfit(checkpoint: &Checkpoint) -> Result<Option<Unfit>> {
    let (key, value) = names::DIFFERENCE;
    let difference = if !checkpoint.is_in_memory() && is_atom(checkpoint.path()) {
        Some(("an atom of a basis, which is a difference from a model", ATOM_HINT))
    } else if checkpoint.metadata().get(key).is_some_and(|found| found == value) {
        Some(("a bare edit or task vector, which is a difference from a model", DELTA_HINT))
    } else {
        None
    };
    if let Some((what, hint)) = difference {
        return Ok(Some(Unfit { tensor: None, what: what.to_owned(), hint }));
    }
    let by_tensor = checkpoint.in_key_order().find_map(|tensor| of_tensor(checkpoint, tensor));
    if by_tensor.is_some() {
        return Ok(by_tensor);
    }
    Ok(by_config(checkpoint)?.or_else(|| by_share(checkpoint)))
}

fn of_tensor(checkpoint: &Checkpoint, tensor: &Tensor) -> Option<Unfit> {
    let unfit = |what: String, hint| Some(Unfit { tensor: Some(tensor.name.clone()), what, hint });
    if is_adapter(&tensor.name) {
        let is_whole = checkpoint.tensors().iter().any(|tensor| tensor.name.contains(".base_layer."));
        return match is_whole {
            true => unfit("a part of an adapter that is not merged into its model".into(), MERGE_HINT),
            false => unfit("a part of an adapter (LoRA or the like), which is no model's tensor".into(), ADAPTER_HINT),
        };
    }
    match tensor.dtype {
        Dtype::Complex64 => return unfit("complex numbers, which take no part".into(), COMPLEX_HINT),
        Dtype::F8E4M3 | Dtype::F8E5M2 => {
            return unfit(format!("fp8 weights ({}), which take no part", tensor.dtype), FLOATS_HINT);
        }
        _ => {}
    }
    quantized(checkpoint, tensor).and_then(|what| unfit(format!("{what}, which take no part"), FLOATS_HINT))
}

/// Whether a name has a part that adapters have and models have not.
pub fn is_adapter(name: &str) -> bool {
    const PARTS: [&str; 13] = [
        "lora_a",
        "lora_b",
        "lora_down",
        "lora_up",
        "lora_embedding_a",
        "lora_embedding_b",
        "lora_magnitude_vector",
        "dora_scale",
        "lora_mid",
        "lora_linear_layer",
        "ia3_l",
        "vera_lambda_b",
        "vera_lambda_d",
    ];
    const STARTS: [&str; 3] = ["lokr_", "hada_", "boft_"];
    let name = name.to_lowercase();
    let is_part = |part: &str| PARTS.contains(&part) || STARTS.iter().any(|start| part.starts_with(start));
    // diffusers before 0.17 and its first converters: `to_q_lora.down.weight`, `processor.lora.up.weight`.
    name.split(['.', '/']).any(is_part) || ["lora.down.", "lora.up."].iter().any(|part| name.contains(part))
}

/// The format of a quantized model that a tensor is a part of, by its name and what stands beside it.
fn quantized(checkpoint: &Checkpoint, tensor: &Tensor) -> Option<&'static str> {
    let (module, last) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
    let is_packed = |name: &str| checkpoint.get(name).is_some_and(|found| found.dtype.float().is_none());
    let beside = |suffix: &str| is_packed(&format!("{module}.{suffix}"));
    match last {
        "qweight" | "qzeros" | "g_idx" if tensor.dtype.float().is_none() => {
            Some("GPTQ or AWQ weights (packed integers)")
        }
        "absmax" | "nested_absmax" | "quant_map" | "nested_quant_map" if tensor.name.contains("weight.") => {
            Some("bitsandbytes weights (4 or 8 bits)")
        }
        _ if last.starts_with("bitsandbytes__") || tensor.name.contains(".quant_state.") => {
            Some("bitsandbytes weights (4 bits)")
        }
        "SCB" | "weight_format" if beside("weight") => Some("bitsandbytes weights (8 bits)"),
        "weight_packed" if tensor.dtype.float().is_none() => Some("compressed-tensors weights (packed integers)"),
        "weight_scale" | "weight_scale_inv" | "weight_scales" if beside("weight") || beside("weight_packed") => {
            Some("scaled weights of fp8 or integers")
        }
        "W_q" if tensor.dtype.float().is_none() => Some("HQQ weights (packed integers)"),
        "_data" | "_packed" if module.ends_with(".weight") && tensor.dtype.float().is_none() => Some("quanto weights"),
        _ if last.ends_with("_blocks") && tensor.dtype == Dtype::U8 => Some("MXFP4 weights (packed in bytes)"),
        _ => None,
    }
}

/// What a `config.json` says. That of a file's folder need not be the file's.
fn by_config(checkpoint: &Checkpoint) -> Result<Option<Unfit>> {
    let of = |config: Option<Config>, place: &str| {
        let method = config.as_ref().and_then(Config::quantization)?;
        let what = format!("{place} says that the weights are quantized ({})", shown(method));
        Some(Unfit { tensor: None, what, hint: CONFIG_HINT })
    };
    match checkpoint.layout() {
        Layout::SafetensorsFile | Layout::TorchFile | Layout::InMemory => Ok(None),
        Layout::SafetensorsFolder { .. } | Layout::TorchFolder { .. } => Ok(of(checkpoint.config()?, "config.json")),
        Layout::Pipeline { components, .. } => {
            for component in components {
                let found = of(checkpoint.config_of(component)?, &format!("{}/config.json", component.name));
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        }
    }
}

const CONFIG_HINT: &str = "name the model that it was made from; or load it with transformers, model.dequantize() (or \
                           dequantize=True in its quantization config), and save_pretrained it in bfloat16; if the weights are floats, take quantization_config out";

/// Weights of formats that nobody here knows are packed integers too.
fn by_share(checkpoint: &Checkpoint) -> Option<Unfit> {
    let (mut n_floats, mut n_packed) = (0u64, 0u64);
    let mut largest: Option<&Tensor> = None;
    for tensor in checkpoint.in_key_order() {
        let n_elements = tensor.n_elements() as u64;
        if tensor.dtype.float().is_some() {
            n_floats = n_floats.saturating_add(n_elements);
        } else if may_be_packed(tensor) {
            n_packed = n_packed.saturating_add(n_elements);
            if largest.is_none_or(|largest| largest.n_elements() < tensor.n_elements()) {
                largest = Some(tensor);
            }
        }
    }
    let largest = largest.filter(|_| n_packed > n_floats)?;
    let share = 100.0 * n_floats as f64 / (n_floats as f64 + n_packed as f64);
    let what = format!("{}, as most of its weights: {share:.0} % of the elements are floats", largest.dtype);
    Some(Unfit { tensor: Some(largest.name.clone()), what, hint: FLOATS_HINT })
}

/// Integers that can be weights: not the masks and positions that models keep beside them.
fn may_be_packed(tensor: &Tensor) -> bool {
    let is_integer = matches!(
        tensor.dtype,
        Dtype::I8 | Dtype::U8 | Dtype::I16 | Dtype::U16 | Dtype::I32 | Dtype::U32 | Dtype::I64 | Dtype::U64
    );
    let last = tensor.name.rsplit(['.', '/']).next().unwrap_or_default();
    let is_buffer =
        last == "bias" || ["ids", "index", "mask", "indices", "positions"].iter().any(|end| last.ends_with(end));
    is_integer && tensor.shape.len() >= 2 && !is_buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::checkpoint::{SafetensorsLayout, SafetensorsWriter, TensorSpec};
    use std::path::Path;

    fn write(path: &Path, tensors: &[(&str, Dtype, &[usize])]) -> Checkpoint {
        let spec = |&(name, dtype, shape): &(&str, Dtype, &[usize])| TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.into(),
        };
        let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
        let layout = SafetensorsLayout::new(&specs, &Default::default()).unwrap();
        let _ = std::fs::remove_file(path);
        SafetensorsWriter::create(path, layout).unwrap().finish().unwrap();
        Checkpoint::open(path).unwrap()
    }

    #[test]
    fn packed_weights_and_adapters_are_refused_by_name() {
        use Dtype::{Bf16, Complex64, F8E4M3, F16, F32, I8, I32, I64, U8};
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("m.safetensors");
        let float = ("norm.weight", F32, &[64usize, 64][..]);
        let cases: [(&[(&str, Dtype, &[usize])], &str); 15] = [
            (&[("a.weight", F8E4M3, &[2, 2])], "tensor `a.weight`: fp8 weights (f8_e4m3)"),
            (&[("a.weight", Complex64, &[2])], "complex numbers"),
            (&[("a.qweight", I32, &[2, 2]), ("a.scales", F16, &[2])], "GPTQ or AWQ"),
            (&[("a.weight", U8, &[2]), ("a.weight.absmax", F32, &[2])], "bitsandbytes weights (4 or 8 bits)"),
            (&[("a.weight.quant_state.bitsandbytes__nf4", U8, &[9])], "bitsandbytes weights (4 bits)"),
            (&[("a.weight", I8, &[2]), ("a.SCB", F32, &[2])], "bitsandbytes weights (8 bits)"),
            (&[("a.weight_packed", I32, &[2])], "compressed-tensors"),
            (&[("a.weight", I8, &[2]), ("a.weight_scale", F32, &[2])], "scaled weights"),
            (&[("mlp.experts.down_proj_blocks", U8, &[2])], "MXFP4"),
            (&[("x.unknown", I32, &[64, 65])], "i32, as most of its weights: 50 %"),
            (&[("base_model.model.q.lora_A.weight", F32, &[2])], "a part of an adapter (LoRA"),
            (&[("lora_unet_q.lora_down.weight", F32, &[2])], "a part of an adapter"),
            (&[("unet.to_q.lora.up.weight", F32, &[2])], "a part of an adapter"),
            (&[("q.hada_w1_a", F32, &[2])], "a part of an adapter"),
            (
                &[("q.base_layer.weight", F32, &[2]), ("q.lora_A.default.weight", F32, &[2])],
                "not merged into its model",
            ),
        ];
        for (tensors, expected) in cases {
            let all: Vec<_> = tensors.iter().copied().chain([float]).collect();
            let error = check(&write(&path, &all)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
            assert!(error.message().contains(expected), "expected {expected:?} in: {error}");
            assert!(error.message().starts_with(&path.display().to_string()) && error.hint_text().is_some(), "{error}");
        }
        let fine: [&[(&str, Dtype, &[usize])]; 4] = [
            &[("h.0.attn.bias", U8, &[1, 1, 512, 512]), ("position_ids", I64, &[1, 9999])],
            &[("a.weight", Bf16, &[2]), ("a.weight_scale", F32, &[2])],
            &[("a.scales", F32, &[2]), ("relative_position_index", I64, &[100, 100])],
            &[("explorer.color_a", F32, &[2]), ("flora.down", F32, &[2])],
        ];
        for tensors in fine {
            let all: Vec<_> = tensors.iter().copied().chain([float]).collect();
            assert_eq!(unfit(&write(&path, &all)).unwrap(), None, "{tensors:?}");
        }
    }

    #[test]
    fn a_configuration_that_says_so_is_believed_of_its_folder_alone() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("model.safetensors");
        write(&file, &[("a.weight", Dtype::F32, &[2])]);
        std::fs::write(top.path().join("config.json"), r#"{"quantization_config": {"quant_method": "gptq"}}"#).unwrap();
        let error = check(&Checkpoint::open(top.path()).unwrap()).unwrap_err();
        assert!(error.message().contains("config.json says that the weights are quantized (`gptq`)"), "{error}");
        assert!(error.hint_text().unwrap().contains("take quantization_config out"));
        check(&Checkpoint::open(&file).unwrap()).unwrap();
    }
}

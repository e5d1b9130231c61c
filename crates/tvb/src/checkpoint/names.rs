//! Names of files that mean something in a folder: weights, what lies beside them, the parts of a basis.
//!
//! Two questions are answered from them. May a new file of this name be put into a folder that is read, or would the folder
//! mean something else then? And could this program have written everything in a folder that is to be replaced?

/// Safetensors weights, in the order they are looked for.
pub(crate) const SAFETENSORS: [&str; 3] =
    ["model.safetensors", "diffusion_pytorch_model.safetensors", "adapter_model.safetensors"];
/// PyTorch weights, looked for after those.
pub(crate) const TORCH: [&str; 3] = ["pytorch_model.bin", "diffusion_pytorch_model.bin", "adapter_model.bin"];
/// Weights under the names of other libraries, looked for after those and their variants: a folder of the hub can hold one
/// model under the names of several libraries, and is opened as transformers does.
pub(crate) const OTHERS: [&str; 4] =
    ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "consolidated.safetensors", PARALLEL];
/// The first part of a model for model parallelism, or all of it.
pub(crate) const PARALLEL: &str = "consolidated.00.pth";
/// The second part.
pub(crate) const PARALLEL_SECOND: &str = "consolidated.01.pth";
/// Endings of files of weights; the longest that fits comes first.
pub(crate) const WEIGHT_ENDINGS: [&str; 8] =
    [".pth.tar", ".pt.tar", ".ckpt.tar", ".safetensors", ".pt", ".pth", ".bin", ".ckpt"];
/// What training leaves beside the weights, in files that look like weights: how their names begin.
const LEFTOVERS: [&str; 9] = [
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "random_states",
    "training_args",
    "training_state",
    "trainer_state",
    "sampler",
];
/// The list of a diffusers pipeline's components.
pub(crate) const PIPELINE: &str = "model_index.json";
/// What follows the weights' name in the name of their index.
pub(crate) const INDEX_END: &str = ".index.json";
/// The model's configuration.
pub(crate) const CONFIG: &str = "config.json";
/// The configuration of a LoRA adapter in PEFT's layout.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The model card of an edited folder.
pub(crate) const CARD: &str = "README.md";
/// How every model card of this program begins.
pub(crate) const CARD_BEGINS: &str = "---\ntags:\n- merge\n- task-arithmetic\n";
/// What every model card of this program has in its title.
pub(crate) const CARD_WORDS: &str = ", edited by task arithmetic";
/// Files beside the weights that an edited copy of a folder needs as they are.
pub(crate) const SIDE_FILES: [&str; 21] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "open_clip_config.json",
    "params.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
];
/// The manifest of a basis.
pub(crate) const MANIFEST: &str = "basis.json";
/// The small matrices of a basis.
pub(crate) const COEFFICIENTS: &str = "coefficients.safetensors";
/// What the adapters of a basis share.
pub(crate) const SHARED: &str = "shared.safetensors";
/// The record of a part of a job.
pub(crate) const PART: &str = "part.safetensors";
/// The Gram file of a job, in its first part.
pub(crate) const PART_GRAM: &str = "gram.safetensors";
/// Ends the names of a basis' files in the part of a job that holds all of it.
pub(crate) const UNDIVIDED_END: &str = ".undivided";
/// The description of a published basis.
pub(crate) const PUBLISHED_INFO: &str = "method_info.json";
/// The data of a published basis.
pub(crate) const PUBLISHED: [&str; 5] =
    ["basis_vectors.pt", "AWB.pt", "pca_components.pt", "random_basis.pt", "random_selection.json"];

/// What the metadata of a file says that holds a bare edit: a difference from a model, not one.
pub(crate) const DIFFERENCE: (&str, &str) = ("tvb", "difference");

/// Whether a file of this name can hold weights.
pub(crate) fn is_weights(name: &str) -> bool {
    let name = name.to_lowercase();
    WEIGHT_ENDINGS.iter().any(|end| name.ends_with(end)) && !LEFTOVERS.iter().any(|start| name.starts_with(start))
}

/// `fp16` where an entry is the variant `model.fp16.safetensors` of `usual`, `model.safetensors`; and whether it is the index
/// of such a variant's shards.
pub(crate) fn variant_of<'a>(entry: &'a str, usual: &str) -> Option<(&'a str, bool)> {
    let is_variant = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let of_index = entry.strip_prefix(usual).and_then(|rest| rest.strip_prefix(".index.")?.strip_suffix(".json"));
    if let Some(variant) = of_index.filter(|variant| is_variant(variant)) {
        return Some((variant, true));
    }
    let (stem, extension) = usual.rsplit_once('.')?;
    let rest = entry.strip_prefix(stem)?.strip_prefix('.')?;
    let (rest, is_index) = rest.strip_suffix(INDEX_END).map_or((rest, false), |rest| (rest, true));
    let variant = rest.strip_suffix(extension)?.strip_suffix('.')?;
    is_variant(variant).then_some((variant, is_index))
}

/// N of `checkpoint-N`, `epoch_N`, `step_N`: what a training run calls the folders of its checkpoints.
pub(crate) fn step_of(name: &str) -> Option<u64> {
    let name = name.to_lowercase();
    let number = ["checkpoint", "ckpt", "global_step", "epoch", "step", "iter"]
        .iter()
        .find_map(|word| name.strip_prefix(word))?;
    number.strip_prefix(['-', '_', '=']).unwrap_or(number).parse().ok()
}

/// `ORG/NAME` of `models--ORG--NAME`, where it can be a name of the hub's.
pub(crate) fn hub_name(folder: &str) -> Option<String> {
    let name = folder.strip_prefix("models--")?;
    let parts: Vec<&str> = name.split("--").collect();
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    ((1..=2).contains(&parts.len()) && parts.iter().all(|part| is_part(part))).then(|| parts.join("/"))
}

/// Whether a file or folder of this name changes what a folder of weights or of a basis is, in any case of its letters,
/// since many file systems know no case.
pub(crate) fn has_meaning(name: &str) -> bool {
    let name = name.to_lowercase();
    let weights = name.strip_suffix(INDEX_END).unwrap_or(&name);
    let known = [CONFIG, ADAPTER_CONFIG, CARD, MANIFEST, COEFFICIENTS, SHARED, PUBLISHED_INFO, PIPELINE];
    let lists: [&[&str]; 6] = [&SAFETENSORS, &TORCH, &OTHERS, &SIDE_FILES, &PUBLISHED, &known];
    let usual = || SAFETENSORS.iter().chain(&TORCH);
    lists.iter().any(|list| list.iter().any(|known| weights == known.to_lowercase()))
        || usual().any(|usual| variant_of(&name, usual).is_some())
        || is_atom(&name)
        || (name.starts_with("awb") && name.ends_with(".pt"))
}

/// Whether a basis has files of this name.
pub(crate) fn is_of_basis(name: &str) -> bool {
    [MANIFEST, COEFFICIENTS, SHARED].contains(&name) || is_atom(name)
}

/// `atom-00.safetensors`, a shard of it, or the index of its shards.
pub(crate) fn is_atom(name: &str) -> bool {
    let stem = name.strip_suffix(INDEX_END).unwrap_or(name);
    let Some(numbers) = stem.strip_prefix("atom-").and_then(|rest| rest.strip_suffix(".safetensors")) else {
        return false;
    };
    let is_number = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    match numbers.split('-').collect::<Vec<_>>()[..] {
        [atom] => is_number(atom),
        [atom, shard, "of", n_shards] => stem.len() == name.len() && [atom, shard, n_shards].into_iter().all(is_number),
        _ => false,
    }
}

/// `atom-00.rows`: what a part of a job has of an atom.
pub(crate) fn is_rows(name: &str) -> bool {
    let number = name.strip_prefix("atom-").and_then(|rest| rest.strip_suffix(".rows"));
    number.is_some_and(|number| number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_and_their_shards_are_known() {
        for name in ["atom-00.safetensors", "atom-123.safetensors", "atom-00.safetensors.index.json"] {
            assert!(is_atom(name), "{name}");
        }
        assert!(is_atom("atom-00-00001-of-00002.safetensors"));
        for name in
            ["atom-0.safetensors", "atom-x.safetensors", "atom-00.pt", "atom-00-1.safetensors", "atom-.safetensors"]
        {
            assert!(!is_atom(name), "{name}");
        }
    }

    #[test]
    fn names_that_change_a_folder_are_known_in_any_case() {
        for name in ["model.safetensors", "Model.SafeTensors", "pytorch_model.bin.index.json", "CONFIG.json", "AWB.pt"]
        {
            assert!(has_meaning(name), "{name}");
        }
        for name in ["edited.safetensors", "report.html", "x.gram", "model.pt", "models"] {
            assert!(!has_meaning(name), "{name}");
        }
    }

    #[test]
    fn variants_leftovers_and_steps_are_known() {
        let cases = [
            ("model.fp16.safetensors", Some(("fp16", false))),
            ("model.safetensors.index.fp16.json", Some(("fp16", true))),
            ("model.fp16.safetensors.index.json", Some(("fp16", true))),
            ("model.non_ema.safetensors", Some(("non_ema", false))),
            ("model.safetensors", None),
            ("model.safetensors.index.json", None),
            ("model.fp16-00001-of-00002.safetensors", None),
            ("model..safetensors", None),
            ("models.fp16.safetensors", None),
        ];
        for (name, expected) in cases {
            assert_eq!(variant_of(name, "model.safetensors"), expected, "{name}");
        }
        for name in ["a.pt", "weights.pth.tar", "W.SafeTensors", "last.ckpt", "model.pt"] {
            assert!(is_weights(name), "{name}");
        }
        for name in ["optimizer.pt", "rng_state_0.pth", "training_args.bin", "scheduler.pt", "scaler.pt", "a.json", "a"]
        {
            assert!(!is_weights(name), "{name}");
        }
        let steps = [("checkpoint-500", Some(500)), ("epoch_3", Some(3)), ("step=7", Some(7)), ("checkpoint", None)];
        for (name, expected) in steps.into_iter().chain([("steps-1", None), ("run-1", None)]) {
            assert_eq!(step_of(name), expected, "{name}");
        }
    }
}

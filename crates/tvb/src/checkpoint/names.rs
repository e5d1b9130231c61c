//! Names of files that mean something in a folder: weights, what lies beside them, the parts of a basis.
//!
//! Two questions are answered from them. May a new file of this name be put into a folder that is read, or would the folder
//! mean something else then? And could this program have written everything in a folder that is to be replaced?

/// Safetensors weights, in the order they are looked for.
pub(crate) const SAFETENSORS: [&str; 3] =
    ["model.safetensors", "diffusion_pytorch_model.safetensors", "adapter_model.safetensors"];
/// PyTorch weights, looked for after those.
pub(crate) const TORCH: [&str; 3] = ["pytorch_model.bin", "diffusion_pytorch_model.bin", "adapter_model.bin"];
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
pub(crate) const SIDE_FILES: [&str; 14] = [
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
];
/// The manifest of a basis.
pub(crate) const MANIFEST: &str = "basis.json";
/// The small matrices of a basis.
pub(crate) const COEFFICIENTS: &str = "coefficients.safetensors";
/// The description of a published basis.
pub(crate) const PUBLISHED_INFO: &str = "method_info.json";
/// The data of a published basis.
pub(crate) const PUBLISHED: [&str; 5] =
    ["basis_vectors.pt", "AWB.pt", "pca_components.pt", "random_basis.pt", "random_selection.json"];

/// Whether a file or folder of this name changes what a folder of weights or of a basis is, in any case of its letters,
/// since many file systems know no case.
pub(crate) fn has_meaning(name: &str) -> bool {
    let name = name.to_lowercase();
    let weights = name.strip_suffix(INDEX_END).unwrap_or(&name);
    let known = [CONFIG, ADAPTER_CONFIG, CARD, MANIFEST, COEFFICIENTS, PUBLISHED_INFO];
    let lists: [&[&str]; 5] = [&SAFETENSORS, &TORCH, &SIDE_FILES, &PUBLISHED, &known];
    lists.iter().any(|list| list.iter().any(|known| weights == known.to_lowercase()))
        || is_atom(&name)
        || (name.starts_with("awb") && name.ends_with(".pt"))
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
}

//! What the name of a tensor says in an adapter's file: the module that it belongs to, and its part there.
//!
//! Four ways of writing them are known: PEFT's (`PATH.lora_A.weight`), kohya's (`lora_unet_PATH_WITH_UNDERSCORES.lora_down.weight`)
//! and two of diffusers (`PATH.lora.down.weight`, `PATH.processor.to_q_lora.down.weight`).

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A: \[r, in, …\].
    Down,
    /// B: \[out, r, …\].
    Up,
    /// A of an embedding: \[r, rows\].
    EmbeddingDown,
    /// B of an embedding: \[width, r\].
    EmbeddingUp,
    /// The core of a convolution in Tucker form: \[r, r, …\].
    Middle,
    /// The number that the scale is made of.
    Alpha,
    /// DoRA's lengths of the rows.
    Magnitude,
    /// The bias of B, added to the module's own.
    UpBias,
    /// A tensor that takes the place of the base's.
    Replacement,
    /// A copy of what the adapter was laid over.
    BaseCopy,
    /// A copy of what a replacement replaces.
    Ignored,
}

/// A name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The module's path; for a replacement the whole name of the tensor.
    pub(super) path: String,
    pub(super) role: Role,
    /// What the adapter calls itself inside the name: `default`.
    pub(super) adapter: Option<String>,
    /// The part of a pipeline that kohya's prefix names, by the prefix: the path has underscores for dots then.
    pub(super) prefix: Option<&'static str>,
}

/// kohya's prefixes, and the folders of a diffusers pipeline that they may stand for.
pub(super) const PREFIXES: [(&str, &[&str]); 5] = [
    ("lora_unet_", &["unet", "transformer"]),
    ("lora_te_", &["text_encoder"]),
    ("lora_te1_", &["text_encoder"]),
    ("lora_te2_", &["text_encoder_2"]),
    ("lora_te3_", &["text_encoder_3"]),
];

/// Words in names of adapters of other kinds, and what those are called.
const OTHER_KINDS: [(&str, &str); 14] = [
    ("hada_w", "LoHa"),
    ("lokr_w", "LoKr"),
    ("lokr_t", "LoKr"),
    ("oft_blocks", "OFT"),
    ("oft_diag", "OFT"),
    ("oft_R", "OFT"),
    ("boft_", "BOFT"),
    ("ia3_l", "IA3"),
    ("vera_lambda", "VeRA"),
    ("lora_E", "AdaLoRA"),
    ("prompt_embeddings", "prompt tuning"),
    ("trainable_tokens", "trainable tokens"),
    ("hra_u", "HRA"),
    ("lora_router", "a mixture of LoRAs"),
];

/// The kind of adapter that a tensor of this name belongs to, where it is one whose change is no product of two factors.
pub(super) fn other_kind(name: &str) -> Option<&'static str> {
    let begins = |word: &str| name.split('.').any(|part| part.starts_with(word));
    OTHER_KINDS.into_iter().find(|(word, _)| begins(word)).map(|(_, kind)| kind)
}

/// Whether only adapters have tensors of such names.
pub(super) fn is_adapters(name: &str) -> bool {
    let could_be = name.contains("lora") || name.ends_with(".dora_scale");
    let is = |role| !matches!(role, Role::Replacement | Role::BaseCopy | Role::Ignored | Role::Alpha);
    other_kind(name).is_some() || (could_be && read(name).is_some_and(|name| is(name.role)))
}

/// Takes a name apart; `None` where the tensor's part is unknown.
pub(super) fn read(name: &str) -> Option<Name> {
    if other_kind(name).is_some() {
        return None;
    }
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let words: Vec<&str> = name.split('.').collect();
    let (n_path, role, adapter) = role(&words)?;
    let mut path: Vec<&str> = words.get(..n_path)?.to_vec();
    if matches!(role, Role::Replacement | Role::BaseCopy | Role::Ignored) {
        return Some(Name { path: replacement(&path), role, adapter: None, prefix: None });
    }
    // Layers inside a wrapped one have its name in their path.
    path.retain(|word| *word != "base_layer");
    let mut path = path.join(".");
    if let Some((start, last)) = path.rsplit_once('.').filter(|(_, last)| last.ends_with("_lora")) {
        // The first form that diffusers had: processor.to_q_lora stands for to_q.
        let last = last.strip_suffix("_lora").unwrap_or(last);
        let last = if last == "to_out" { "to_out.0" } else { last };
        path = format!("{}.{last}", start.strip_suffix(".processor").unwrap_or(start));
    }
    let prefix = PREFIXES.into_iter().map(|(prefix, _)| prefix).find(|prefix| path.starts_with(prefix));
    if let Some(prefix) = prefix {
        path = path.strip_prefix(prefix).unwrap_or(&path).replace('.', "_");
    }
    (!path.is_empty()).then(|| Name { path, role, adapter: adapter.map(str::to_owned), prefix })
}

/// How many words come before those that say what it is, what it is, and the adapter's own name.
fn role<'a>(words: &[&'a str]) -> Option<(usize, Role, Option<&'a str>)> {
    let n = words.len();
    let found = |n_words: usize, role| Some((n.checked_sub(n_words)?, role, None));
    match *words {
        [.., "lora_A", "weight"] | [.., "lora_down", "weight"] => return found(2, Role::Down),
        [.., "lora_B", "weight"] | [.., "lora_up", "weight"] => return found(2, Role::Up),
        [.., "lora_mid", "weight"] => return found(2, Role::Middle),
        [.., "lora_B", "bias"] => return found(2, Role::UpBias),
        [.., "lora" | "lora_linear_layer", "down", "weight"] => return found(3, Role::Down),
        [.., "lora" | "lora_linear_layer", "up", "weight"] => return found(3, Role::Up),
        [.., of, "down", "weight"] if of.ends_with("_lora") => return found(2, Role::Down),
        [.., of, "up", "weight"] if of.ends_with("_lora") => return found(2, Role::Up),
        [.., of, "alpha"] if of.ends_with("_lora") => return found(1, Role::Alpha),
        [.., "lora_embedding_A"] => return found(1, Role::EmbeddingDown),
        [.., "lora_embedding_B"] => return found(1, Role::EmbeddingUp),
        [.., "lora_magnitude_vector", "weight"] => return found(2, Role::Magnitude),
        [.., "lora_magnitude_vector"] | [.., "dora_scale"] => return found(1, Role::Magnitude),
        [.., "alpha"] => return found(1, Role::Alpha),
        _ => {}
    }
    // The same with the adapter's own name in them, as a whole model's state dict has them.
    let named = |n_words: usize, role, adapter| Some((n.checked_sub(n_words)?, role, Some(adapter)));
    match *words {
        [.., "lora_A", adapter, "weight"] => named(3, Role::Down, adapter),
        [.., "lora_B", adapter, "weight"] => named(3, Role::Up, adapter),
        [.., "lora_B", adapter, "bias"] => named(3, Role::UpBias, adapter),
        [.., "lora_embedding_A", adapter] => named(2, Role::EmbeddingDown, adapter),
        [.., "lora_embedding_B", adapter] => named(2, Role::EmbeddingUp, adapter),
        [.., "lora_magnitude_vector", adapter] => named(2, Role::Magnitude, adapter),
        [.., "lora_magnitude_vector", adapter, "weight"] => named(3, Role::Magnitude, adapter),
        _ if words.iter().any(|word| word.starts_with("lora_") || *word == "token_adapter") => None,
        _ if words.contains(&"original_module") => found(0, Role::Ignored),
        [.., "base_layer", "weight"] => found(0, Role::BaseCopy),
        _ => found(0, Role::Replacement),
    }
}

/// The base's name of what a replacement replaces.
fn replacement(words: &[&str]) -> String {
    let mut kept: Vec<&str> = Vec::with_capacity(words.len());
    for word in words {
        let is_adapters_own = *word == "default" && kept.last() == Some(&"modules_to_save");
        if kept.last() == Some(&"modules_to_save") {
            kept.pop();
        }
        if !is_adapters_own && *word != "base_layer" {
            kept.push(word);
        }
    }
    kept.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let cases = [
            ("base_model.model.h.0.q.lora_A.weight", "h.0.q", Role::Down, None),
            ("base_model.model.h.0.q.lora_B.default.weight", "h.0.q", Role::Up, None),
            ("base_model.model.h.0.q.lora_B.bias", "h.0.q", Role::UpBias, None),
            ("base_model.model.wte.lora_embedding_A", "wte", Role::EmbeddingDown, None),
            ("base_model.model.wte.lora_embedding_B.default", "wte", Role::EmbeddingUp, None),
            ("base_model.model.q.lora_magnitude_vector", "q", Role::Magnitude, None),
            ("base_model.model.attn.base_layer.out_proj.lora_A.weight", "attn.out_proj", Role::Down, None),
            ("base_model.model.q.base_layer.bias", "q.bias", Role::Replacement, None),
            ("base_model.model.q.base_layer.weight", "q.weight", Role::BaseCopy, None),
            ("base_model.model.score.weight", "score.weight", Role::Replacement, None),
            ("base_model.model.score.modules_to_save.default.weight", "score.weight", Role::Replacement, None),
            ("base_model.model.score.modules_to_save.bias", "score.bias", Role::Replacement, None),
            ("base_model.model.score.original_module.bias", "score.original_module.bias", Role::Ignored, None),
            ("lora_unet_mid_block_0_proj.lora_up.weight", "mid_block_0_proj", Role::Up, Some("lora_unet_")),
            ("lora_te1_text_model_fc1.alpha", "text_model_fc1", Role::Alpha, Some("lora_te1_")),
            ("lora_unet_x.dora_scale", "x", Role::Magnitude, Some("lora_unet_")),
            ("unet.a.attn1.to_q.lora.down.weight", "unet.a.attn1.to_q", Role::Down, None),
            ("unet.a.attn1.processor.to_out_lora.up.weight", "unet.a.attn1.to_out.0", Role::Up, None),
            ("text_encoder.q_proj.lora_linear_layer.up.weight", "text_encoder.q_proj", Role::Up, None),
        ];
        for (name, path, role, prefix) in cases {
            let found = read(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((found.path.as_str(), found.role, found.prefix), (path, role, prefix), "{name}");
        }
        for unknown in ["x.lora_diag.weight", "x.hada_w1_a", "base_model.model.e.token_adapter.trainable_tokens_delta"]
        {
            assert_eq!(read(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn only_adapters_have_such_names() {
        for name in ["a.lora_A.weight", "lora_unet_a.lora_down.weight", "a.hada_w1_a", "a.lora_magnitude_vector"] {
            assert!(is_adapters(name), "{name}");
        }
        for name in ["a.weight", "a.alpha", "a.base_layer.weight", "down.weight"] {
            assert!(!is_adapters(name), "{name}");
        }
    }
}

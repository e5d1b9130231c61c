//! What a task is called that was given no name: what its path says about it.
//!
//! Libraries call a file `model.safetensors` and a folder `checkpoint-500` whatever is in them, so the name is that of the
//! first folder above which somebody chose.

use crate::checkpoint::names;
use std::ffi::OsStr;
use std::path::Path;

/// Whole names that say nothing.
const EMPTY_NAMES: [&str; 14] = [
    "adapter_model",
    "diffusion_pytorch_model",
    "open_clip_model",
    "open_clip_pytorch_model",
    "consolidated",
    "consolidated.00",
    "finetuned",
    "whole",
    "snapshots",
    "lightning_logs",
    "saved_model",
    "mp_rank_00_model_states",
    "pytorch_model_fsdp_0",
    "fine_tuned",
];
/// Words that say nothing, alone or together with numbers: `best_model`, `epoch=3-step=100`.
const EMPTY_WORDS: [&str; 24] = [
    "model",
    "pytorch",
    "weights",
    "last",
    "best",
    "final",
    "latest",
    "output",
    "outputs",
    "checkpoint",
    "checkpoints",
    "ckpt",
    "ckpts",
    "epoch",
    "step",
    "iter",
    "global",
    "state",
    "dict",
    "fp16",
    "bf16",
    "fp32",
    "version",
    "non",
];
/// Folders of a pipeline's components.
const COMPONENTS: [&str; 6] = ["unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"];

/// The names that the path has for a task, from its own end on: those that say something, and its own where none does.
pub(super) fn candidates(path: &Path) -> Vec<String> {
    // A relative path such as `.` or `model.safetensors` has its telling part in the current folder's path.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut parts = whole.ancestors().filter_map(Path::file_name).filter(|name| *name != ".").peekable();
    let own = parts.peek().map(|name| without_ending(name)).unwrap_or_default();
    let mut found = Vec::new();
    while let Some(part) = parts.next() {
        // The name of a revision in the hub's cache.
        if parts.peek().is_some_and(|above| *above == "snapshots") {
            continue;
        }
        let name = without_ending(part);
        match names::hub_name(&name) {
            Some(model) => found.push(model.rsplit('/').next().unwrap_or_default().to_owned()),
            None if is_empty(&name) || COMPONENTS.iter().any(|component| part == *component) => {}
            None => found.push(name),
        }
    }
    if found.is_empty() { vec![own] } else { found }
}

fn is_empty(name: &str) -> bool {
    let name = name.to_lowercase();
    // `diffusion_pytorch_model.fp16`.
    let usual =
        name.rsplit_once('.').filter(|(_, variant)| EMPTY_WORDS.contains(variant)).map_or(&*name, |(stem, _)| stem);
    if EMPTY_NAMES.contains(&usual) || EMPTY_NAMES.contains(&name.as_str()) || names::step_of(&name).is_some() {
        return true;
    }
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    let mut has_word = false;
    let are_empty = words.all(|word| {
        let is_word = EMPTY_WORDS.contains(&word) || names::step_of(word).is_some();
        has_word |= is_word;
        is_word || word.bytes().all(|byte| byte.is_ascii_digit())
    });
    are_empty && has_word && name.is_ascii()
}

/// `cars` of `cars.safetensors`; any other ending belongs to a folder's name: `vit-b.32`.
fn without_ending(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let lower = name.to_ascii_lowercase();
    let end = names::WEIGHT_ENDINGS.iter().find(|end| lower.ends_with(**end));
    let stem = end.and_then(|end| name.get(..name.len() - end.len()));
    stem.filter(|stem| !stem.is_empty()).unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_somebody_chose() {
        let cases = [
            ("runs/cars/checkpoint-500", "cars"),
            ("runs/cars/checkpoint-500/model.safetensors", "cars"),
            ("cars/epoch_3/pytorch_model.bin", "cars"),
            ("cars/checkpoints/epoch=3-step=100.ckpt", "cars"),
            ("cars/lightning_logs/version_0/checkpoints/last.ckpt", "cars"),
            ("cars/output/final", "cars"),
            ("cars/best_model.pt", "cars"),
            ("cars/model_best.pth.tar", "cars"),
            ("cars/global_step10", "cars"),
            ("cars/step_100/unet", "cars"),
            ("cars/unet/diffusion_pytorch_model.fp16.safetensors", "cars"),
            ("cars/model.fp16.safetensors", "cars"),
            ("cars/open_clip_pytorch_model.bin", "cars"),
            ("cars/consolidated.00.pth", "cars"),
            ("hub/models--org--vit-b/snapshots/0123abcd", "vit-b"),
            ("hub/models--org--vit-b/snapshots/0123abcd/model.safetensors", "vit-b"),
            ("hub/models--org--vit-b", "vit-b"),
            ("hub/models--org--vit-b/snapshots", "vit-b"),
            ("cars.pth.tar", "cars"),
            ("runs/7.safetensors", "7"),
            ("runs/clip.pt", "clip"),
            ("runs/unet.pt", "unet"),
            ("runs/vit-b.32", "vit-b.32"),
            ("runs/epochs-long", "epochs-long"),
            ("/model.pt", "model"),
        ];
        for (path, expected) in cases {
            assert_eq!(candidates(Path::new(path))[0], expected, "{path}");
        }
        assert_eq!(candidates(Path::new("/a/b/checkpoint-1/x.pt"))[..3], ["x", "b", "a"]);
    }
}

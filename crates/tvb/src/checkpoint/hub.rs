//! The Hugging Face hub's cache on the disk: `models--ORG--NAME`, with `refs/BRANCH` and `snapshots/REVISION`.

use super::Checkpoint;
use std::path::Path;

impl Checkpoint {
    /// The name on the Hugging Face hub, `ORG/NAME`, where the checkpoint lies in the hub's cache.
    pub fn hub_name(&self) -> Option<String> {
        let whole = std::path::absolute(self.path()).ok()?;
        let of_path = |path: &Path| path.ancestors().find_map(|above| name_of(above.file_name()?.to_str()?));
        of_path(&whole).or_else(|| of_path(&whole.canonicalize().ok()?))
    }
}

/// `ORG/NAME` of `models--ORG--NAME`, where it can be a name of the hub's.
pub(crate) fn name_of(folder: &str) -> Option<String> {
    let name = folder.strip_prefix("models--")?;
    let parts: Vec<&str> = name.split("--").collect();
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    ((1..=2).contains(&parts.len()) && parts.iter().all(|part| is_part(part))).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_cache_are_named_after_models() {
        let cases = [
            ("models--openai--clip-vit-base-patch32", Some("openai/clip-vit-base-patch32")),
            ("models--gpt2", Some("gpt2")),
            ("models--a--b--c", None),
            ("models--", None),
            ("models--a--..", None),
            ("models--a b", None),
            ("datasets--a--b", None),
            ("model", None),
        ];
        for (folder, expected) in cases {
            assert_eq!(name_of(folder).as_deref(), expected, "{folder}");
        }
    }
}

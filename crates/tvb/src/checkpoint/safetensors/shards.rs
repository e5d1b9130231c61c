//! Dealing tensors over several files the Hugging Face way, and the index that binds them.

use super::TensorSpec;
use crate::checkpoint::{Checkpoint, Layout, Place};
use crate::error::Result;
use std::collections::BTreeMap;

/// The largest shard, as the Hugging Face libraries write them by default.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// Which tensor goes into which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// (file name, numbers of its tensors), every tensor in exactly one file.
    pub files: Vec<(String, Vec<usize>)>,
    /// The index file's name, where there are several files or the original had an index.
    pub index: Option<String>,
}

impl ShardPlan {
    /// Fills files up in the tensors' order: `STEM.safetensors` where everything fits into `shard_bytes`, else
    /// `STEM-00001-of-000NN.safetensors` and an index. A tensor larger than that gets a file of its own.
    ///
    /// # Errors
    /// Rejected when a shape overflows.
    pub fn greedy(specs: &[TensorSpec], stem: &str, shard_bytes: u64) -> Result<ShardPlan> {
        let mut shards: Vec<Vec<usize>> = Vec::new();
        let (mut open, mut open_bytes) = (Vec::new(), 0);
        for (number, spec) in specs.iter().enumerate() {
            let n_bytes = spec.n_bytes()?;
            if n_bytes > shard_bytes {
                shards.push(vec![number]);
                continue;
            }
            if open_bytes + n_bytes > shard_bytes {
                shards.push(std::mem::take(&mut open));
                open_bytes = 0;
            }
            open.push(number);
            open_bytes += n_bytes;
        }
        if !open.is_empty() || shards.is_empty() {
            shards.push(open);
        }
        if shards.len() == 1 {
            let tensors = shards.remove(0);
            return Ok(ShardPlan { files: vec![(format!("{stem}.safetensors"), tensors)], index: None });
        }
        let n_shards = shards.len();
        let name = |number: usize| format!("{stem}-{:05}-of-{n_shards:05}.safetensors", number + 1);
        let files = shards.into_iter().enumerate().map(|(number, tensors)| (name(number), tensors)).collect();
        Ok(ShardPlan { files, index: Some(format!("{stem}.safetensors.index.json")) })
    }

    /// The files of a safetensors folder as they are, for an edited copy with the same tensors: numbers are positions
    /// in [`Checkpoint::tensors`]. `None` for any other layout, and where shards lie in folders of their
    /// own or have other names than shards have.
    pub fn like(checkpoint: &Checkpoint) -> Option<ShardPlan> {
        let Layout::SafetensorsFolder { shards, .. } = checkpoint.layout() else { return None };
        // A copy lies flat in its folder, beside a model card and a configuration.
        if shards.iter().any(|name| name.contains(['/', '\\']) || !name.ends_with(".safetensors")) {
            return None;
        }
        let mut files: Vec<(String, Vec<usize>)> = shards.iter().map(|name| (name.clone(), Vec::new())).collect();
        for (position, tensor) in checkpoint.tensors().iter().enumerate() {
            if let Place::Contiguous { file, .. } = tensor.place {
                files.get_mut(file)?.1.push(position);
            }
        }
        Some(ShardPlan { files, index: checkpoint.index_name().map(str::to_owned) })
    }
}

/// The text of an index: total bytes of all tensors, and the file of each; two spaces deep, keys sorted.
pub fn index_json<'a>(total_bytes: u64, homes: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let weight_map: BTreeMap<&str, &str> = homes.into_iter().collect();
    let index = serde_json::json!({ "metadata": { "total_size": total_bytes }, "weight_map": weight_map });
    format!("{index:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Dtype, ShardIndex};

    #[test]
    fn tensors_are_dealt_greedily() {
        type Row = (&'static [usize], &'static [&'static [usize]]);
        let cases: [Row; 6] = [
            (&[], &[&[]]),
            (&[4, 6], &[&[0, 1]]),
            (&[4, 7], &[&[0], &[1]]),
            (&[4, 11, 6], &[&[1], &[0, 2]]),
            (&[11], &[&[0]]),
            (&[10, 1, 0, 9, 1], &[&[0], &[1, 2, 3], &[4]]),
        ];
        for (sizes, expected) in cases {
            let specs: Vec<_> =
                sizes.iter().map(|&n| TensorSpec { name: format!("t{n}"), dtype: Dtype::U8, shape: vec![n] }).collect();
            let plan = ShardPlan::greedy(&specs, "model", 10).unwrap();
            let dealt: Vec<&[usize]> = plan.files.iter().map(|(_, tensors)| &tensors[..]).collect();
            assert_eq!(dealt, expected, "{sizes:?}");
            assert_eq!(plan.index.is_some(), expected.len() > 1);
        }
    }

    #[test]
    fn names_and_index_are_those_of_the_hub() {
        let specs: Vec<_> =
            ["b", "a"].map(|name| TensorSpec { name: name.into(), dtype: Dtype::F32, shape: vec![2] }).to_vec();
        let plan = ShardPlan::greedy(&specs, "model", 8).unwrap();
        assert_eq!(plan.files[1].0, "model-00002-of-00002.safetensors");
        assert_eq!(plan.index.as_deref(), Some("model.safetensors.index.json"));
        let text = index_json(16, [("b", "1"), ("a", "2")]);
        assert_eq!(
            text,
            "{\n  \"metadata\": {\n    \"total_size\": 16\n  },\n  \"weight_map\": {\n    \"a\": \"2\",\n    \"b\": \"1\"\n  }\n}\n"
        );
        assert_eq!(ShardIndex::parse(text.as_bytes()).unwrap().shards, ["1", "2"]);
    }
}

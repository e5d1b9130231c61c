//! The shard index of a Hugging Face folder: which file of the folder holds which tensor.
//!
//! `{"metadata": {…}, "weight_map": {TENSOR: FILE}}`. An index is written by others, so the files it names may not lie
//! outside the folder. Symbolic links out are refused too, with one exception that every user of the Hugging Face hub
//! has: its cache keeps `snapshots/REVISION/FILE` as links to `blobs/HASH` of the same model.

use super::capped::read_capped_within;
use super::json::{self, EntryValue, UniqueMap};
use super::limits::{INDEX_BYTES_MAX, N_SHARDS_MAX};
use super::shown::shown;
use super::{Budget, Charge, Tensor};
use crate::error::{Error, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

/// A checked shard index.
#[derive(Debug, Default)]
pub struct ShardIndex {
    /// (tensor, file) as the index lists them.
    pub weight_map: Vec<(String, String)>,
    /// Every file that is named, sorted, so that all checkpoints with the same shards have them in the same order.
    pub shards: Vec<String>,
}

enum Value {
    WeightMap(UniqueMap<String>),
    Other,
}

impl EntryValue for Value {
    fn read<'de, D: Deserializer<'de>>(key: &str, deserializer: D) -> Result<Self, D::Error> {
        match key {
            "weight_map" => UniqueMap::deserialize(deserializer).map(Value::WeightMap),
            _ => IgnoredAny::deserialize(deserializer).map(|_| Value::Other),
        }
    }
}

impl ShardIndex {
    /// Reads an index file.
    ///
    /// # Errors
    /// Rejected, naming the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<ShardIndex> {
        ShardIndex::read_within(path, &Budget::default()).map(|(index, _)| index)
    }

    /// [`read`](ShardIndex::read), and what the index takes of the budget.
    ///
    /// # Errors
    /// As [`read`](ShardIndex::read). Rejected: too little memory. Interrupted.
    pub(crate) fn read_within(path: &Path, budget: &Budget) -> Result<(ShardIndex, Charge)> {
        let (json, mut charge) = read_capped_within(path, "a shard index", INDEX_BYTES_MAX, budget)?;
        charge.take(json::cost(&json))?;
        let index = ShardIndex::parse(&json).map_err(|error| error.context(path.display()))?;
        Ok((index, charge))
    }

    /// Checks an index's JSON; touches no file.
    ///
    /// # Errors
    /// Rejected, naming the tensor and the file name.
    pub fn parse(json: &[u8]) -> Result<ShardIndex> {
        let rejected = |why: String| Error::rejected(format!("shard index: {why}"));
        let text = std::str::from_utf8(json)
            .map_err(|error| rejected(format!("not UTF-8 at its byte {}", error.valid_up_to())))?;
        let mut found = None;
        json::for_each_entry(text, |_, value| {
            if let Value::WeightMap(map) = value {
                found = Some(map.0);
            }
            Ok(())
        })
        .map_err(rejected)?;
        let weight_map = found.ok_or_else(|| rejected("expected a `weight_map`, found none".into()))?;

        let mut names = BTreeSet::new();
        for (tensor, file) in &weight_map {
            if !names.contains(file.as_str()) {
                check_inside(file).map_err(|why| rejected(format!("tensor {}: {why}", shown(tensor))))?;
                names.insert(file.as_str());
            }
        }
        if names.is_empty() {
            return Err(rejected("expected tensors in `weight_map`, found none".into()));
        }
        if names.len() > N_SHARDS_MAX {
            return Err(rejected(format!("names {} shards, expected at most {N_SHARDS_MAX}", names.len())));
        }
        let shards = names.into_iter().map(str::to_owned).collect();
        Ok(ShardIndex { weight_map, shards })
    }

    /// Checks that index and shards name the same tensors in the same files. `tensors` holds (shard number, tensor).
    ///
    /// # Errors
    /// Rejected, naming a tensor that is missing, stands in another file or is not listed.
    pub(crate) fn check_against<'a>(
        &self,
        folder: &Path,
        tensors: impl Iterator<Item = (usize, &'a Tensor)>,
    ) -> Result<()> {
        let rejected = |why: String| Err(Error::rejected(format!("{}: {why}", folder.display())));
        let mut listed: HashMap<&str, &str> =
            self.weight_map.iter().map(|(tensor, file)| (tensor.as_str(), file.as_str())).collect();
        for (shard, tensor) in tensors {
            let (name, file) = (shown(&tensor.name), self.shards.get(shard).map_or("", String::as_str));
            match listed.remove(tensor.name.as_str()) {
                Some(expected) if expected == file => {}
                Some(expected) => {
                    return rejected(format!(
                        "tensor {name}: expected in {}, found in {}",
                        shown(expected),
                        shown(file)
                    ));
                }
                None => return rejected(format!("tensor {name} stands in {} but not in the shard index", shown(file))),
            }
        }
        // The first missing one in the index's order, so that the message does not depend on hashing.
        match self.weight_map.iter().find(|(tensor, _)| listed.contains_key(tensor.as_str())) {
            Some((tensor, file)) => {
                rejected(format!("tensor {}: the shard index expects it in {}, found none", shown(tensor), shown(file)))
            }
            None => Ok(()),
        }
    }
}

/// Whether a file name of an index stays inside the folder, judged by its words alone, the same on every system.
fn check_inside(file: &str) -> Result<(), String> {
    let plain = !file.is_empty()
        && !file.contains(['\\', ':', '\0'])
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if plain { Ok(()) } else { Err(format!("the file name {} leaves the folder", shown(file))) }
}

/// The path of a file that an index or a manifest names, when it exists and does not leave `folder` by way of a symbolic link.
///
/// # Errors
/// Rejected when it is missing or leaves the folder.
pub(crate) fn resolve(folder: &Path, name: &str) -> Result<PathBuf> {
    real_place(folder, name).map(|_| folder.join(name))
}

/// As [`resolve`], with every link followed.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn real_place(folder: &Path, name: &str) -> Result<PathBuf> {
    check_inside(name).map_err(|why| Error::rejected(format!("{}: {why}", folder.display())))?;
    let path = folder.join(name);
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::rejected(format!("{}: the file {} is missing", folder.display(), shown(name)))
                .hint("copy or download the folder again; every file that it names is needed"));
        }
        Err(error) => return Err(Error::io("opening", &path, &error)),
    };
    let home = folder.canonicalize().map_err(|error| Error::io("opening", folder, &error))?;
    if real.starts_with(&home) || hub_blobs(&home).is_some_and(|blobs| real.parent() == Some(&blobs)) {
        return Ok(real);
    }
    Err(Error::rejected(format!("{}: the file {} is a symbolic link out of the folder", folder.display(), shown(name)))
        .hint("copy the file into the folder, or name the folder it lies in"))
}

/// `MODEL/blobs` where `folder` is `MODEL/snapshots/REVISION` or a folder below it.
fn hub_blobs(folder: &Path) -> Option<PathBuf> {
    let snapshots =
        folder.ancestors().skip(1).find(|above| above.file_name().is_some_and(|name| name == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_indexes_are_refused() {
        let map = |file: &str| format!(r#"{{"weight_map": {{"w": {}}}}}"#, serde_json::to_string(file).unwrap());
        let cases = [
            ("".to_owned(), "EOF"),
            ("[]".into(), "expected a JSON object"),
            ("{}".into(), "expected a `weight_map`"),
            (r#"{"weight_map": {}}"#.into(), "expected tensors"),
            (r#"{"weight_map": {"w": 3}}"#.into(), "`w`: invalid type"),
            (r#"{"weight_map": {"w": "a", "w": "b"}}"#.into(), "`w` stands twice"),
            (r#"{"weight_map": {"w": "a"}, "weight_map": {}}"#.into(), "`weight_map` stands twice"),
            (r#"{"weight_map": {"w": "a"}} x"#.into(), "trailing"),
            (map(""), "leaves the folder"),
            (map("../model.safetensors"), "leaves the folder"),
            (map("a/../../b"), "leaves the folder"),
            (map("/etc/passwd"), "leaves the folder"),
            (map("C:\\x"), "leaves the folder"),
            (map("..\\x"), "leaves the folder"),
            (map("a\0b"), "leaves the folder"),
            ("[".repeat(100_000), "expected a JSON object"),
            (format!(r#"{{"weight_map": {}"#, "{\"a\":".repeat(100_000)), "invalid type"),
        ];
        for (json, expected) in cases {
            let error = ShardIndex::parse(json.as_bytes()).unwrap_err();
            assert!(error.message().contains(expected), "expected {expected:?} in: {error}");
            assert!(error.message().len() < 700);
        }
        assert!(ShardIndex::parse(b"{\"weight_map\": {\"\xff\": \"a\"}}").is_err());
    }

    #[test]
    fn shards_are_sorted_and_other_keys_are_ignored() {
        let json = br#"{"metadata": {"total_size": 8, "x": [1, {}]}, "weight_map": {"b": "2", "a": "1", "c": "2"}}"#;
        let index = ShardIndex::parse(json).unwrap();
        assert_eq!(index.shards, ["1", "2"]);
        assert_eq!(index.weight_map[0], ("b".into(), "2".into()));
    }

    #[cfg(unix)]
    #[test]
    fn links_may_lead_to_the_hub_cache_only() {
        use std::os::unix::fs::symlink;
        let top = tempfile::tempdir().unwrap();
        let snapshot = top.path().join("models--x/snapshots/0123");
        let blobs = top.path().join("models--x/blobs");
        std::fs::create_dir_all(snapshot.join("sub")).unwrap();
        std::fs::create_dir_all(blobs.join("deep")).unwrap();
        for file in [blobs.join("abc"), blobs.join("deep/abc"), top.path().join("secret"), snapshot.join("plain")] {
            std::fs::write(file, "x").unwrap();
        }
        symlink("../../blobs/abc", snapshot.join("blob")).unwrap();
        symlink("../../../blobs/abc", snapshot.join("sub/blob")).unwrap();
        symlink("../../blobs/deep/abc", snapshot.join("deep")).unwrap();
        symlink("../../../secret", snapshot.join("out")).unwrap();
        symlink("plain", snapshot.join("inside")).unwrap();
        symlink("nowhere", snapshot.join("dangling")).unwrap();
        let cases = [
            ("plain", None),
            ("blob", None),
            ("sub/blob", None),
            ("inside", None),
            ("deep", Some("symbolic link out")),
            ("out", Some("symbolic link out")),
            ("dangling", Some("is missing")),
            ("none", Some("is missing")),
        ];
        for (name, expected) in cases {
            match (resolve(&snapshot, name), expected) {
                (Ok(path), None) => assert_eq!(path, snapshot.join(name)),
                (Err(error), Some(expected)) => assert!(error.message().contains(expected), "{error}"),
                (result, _) => panic!("{name}: {result:?}"),
            }
        }
    }
}

//! Which folders may be replaced: those whose whole content this program could have written.
//!
//! It writes four kinds of folders: a basis, a part of one, a published basis, and a checkpoint with what lies beside its weights. Names
//! alone do not tell a user's checkpoint from an edited one, but every edited copy of a folder has a model card of ours.

use crate::checkpoint::capped::read_capped;
use crate::checkpoint::index::ShardIndex;
use crate::checkpoint::regular::open_regular;
use crate::checkpoint::{names, side_files};
use crate::error::{Error, Result};
use std::path::Path;

/// A model card is shorter.
const CARD_BYTES_MAX: u64 = 4 << 20;
/// What stands early in a manifest.
const MANIFEST_START: &str = "\"format\": \"tvb-basis\"";

/// What stands early in the record of a part.
const PART_START: &str = "\"format\":\"tvb-part\"";

/// Guards against `-o ~ --overwrite`.
///
/// # Errors
/// Rejected, naming what stands in the way. Failed: the system cannot read the folder.
pub(super) fn check_replaceable(folder: &Path) -> Result<()> {
    let rejected = |why: String| {
        Err(Error::rejected(format!("{}: will not be replaced: {why}", folder.display()))
            .hint("choose another output, or remove the folder yourself"))
    };
    if std::env::current_dir().is_ok_and(|here| here.starts_with(folder)) {
        return rejected("it holds the current folder".into());
    }
    match first_stranger(folder)? {
        Some(why) => rejected(why),
        None => Ok(()),
    }
}

/// The first thing in a folder that this program did not write; `None` where it could have written everything.
fn first_stranger(folder: &Path) -> Result<Option<String>> {
    let io = |error: std::io::Error| Error::io("reading", folder, &error);
    let mut entries: Vec<(String, bool)> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let is_file = entry.file_type().map_err(io)?.is_file();
        match entry.file_name().into_string() {
            Ok(name) => entries.push((name, is_file)),
            Err(name) => return Ok(Some(not_ours(&name.to_string_lossy()))),
        }
    }
    entries.sort();
    let is_pipeline = entries.iter().any(|(name, is_file)| *is_file && name == names::PIPELINE);
    if is_pipeline {
        return pipeline_stranger(folder, &entries);
    }
    if let Some((name, _)) = entries.iter().find(|(_, is_file)| !is_file) {
        return Ok(Some(not_ours(name)));
    }
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    Ok(if names.contains(&names::MANIFEST) {
        basis_stranger(folder, &names)
    } else if names.contains(&names::PART) {
        part_stranger(folder, &names)
    } else if names.contains(&names::PUBLISHED_INFO) {
        let is_ours = |name: &&&str| **name != names::PUBLISHED_INFO && !names::PUBLISHED.contains(name);
        names.iter().find(is_ours).map(|name| not_ours(name))
    } else {
        checkpoint_stranger(folder, &names)
    })
}

fn not_ours(name: &str) -> String {
    format!("{} in it was not written by this program", crate::checkpoint::shown::shown(name))
}

fn basis_stranger(folder: &Path, names: &[&str]) -> Option<String> {
    if let Some(name) = names.iter().find(|name| !names::is_of_basis(name)) {
        return Some(not_ours(name));
    }
    let start = first_bytes(&folder.join(names::MANIFEST), 4096);
    (!String::from_utf8_lossy(&start).contains(MANIFEST_START)).then(|| not_ours(names::MANIFEST))
}

/// A part of a job: its record, rows, and in the first the Gram file, or the files of a basis that is not divided.
fn part_stranger(folder: &Path, names: &[&str]) -> Option<String> {
    let is_ours = |name: &str| {
        [names::PART, names::PART_GRAM].contains(&name)
            || names::is_rows(name)
            || name.strip_suffix(names::UNDIVIDED_END).is_some_and(names::is_of_basis)
    };
    if let Some(name) = names.iter().find(|name| !is_ours(name)) {
        return Some(not_ours(name));
    }
    let start = first_bytes(&folder.join(names::PART), 4096);
    (!String::from_utf8_lossy(&start).contains(PART_START)).then(|| not_ours(names::PART))
}

/// An edited pipeline: our model card, the list of components, and folders of nothing but weights and text files.
fn pipeline_stranger(folder: &Path, entries: &[(String, bool)]) -> Result<Option<String>> {
    if !entries.iter().any(|(name, is_file)| *is_file && name == names::CARD) || !is_our_card(&folder.join(names::CARD))
    {
        return Ok(Some(not_ours(names::PIPELINE)));
    }
    for (name, is_file) in entries {
        if *is_file {
            if name != names::CARD && name != names::PIPELINE {
                return Ok(Some(not_ours(name)));
            }
            continue;
        }
        let component = folder.join(name);
        let io = |error: std::io::Error| Error::io("reading", &component, &error);
        if !std::fs::symlink_metadata(&component).map_err(io)?.is_dir() {
            return Ok(Some(not_ours(name)));
        }
        for entry in std::fs::read_dir(&component).map_err(io)? {
            let entry = entry.map_err(io)?;
            let inner = entry.file_name().to_string_lossy().into_owned();
            let is_ours = side_files::is_text(&inner) || inner.ends_with(".safetensors");
            if !is_ours || !entry.file_type().map_err(io)?.is_file() {
                return Ok(Some(not_ours(&format!("{name}/{inner}"))));
            }
        }
    }
    Ok(None)
}

fn checkpoint_stranger(folder: &Path, names: &[&str]) -> Option<String> {
    let is_side =
        |name: &str| [names::CONFIG, names::ADAPTER_CONFIG].contains(&name) || names::SIDE_FILES.contains(&name);
    let index = names
        .iter()
        .find(|name| name.strip_suffix(names::INDEX_END).is_some_and(|weights| weights.ends_with(".safetensors")));
    let has_card = names.contains(&names::CARD);
    let has_our_card = has_card && is_our_card(&folder.join(names::CARD));
    let shards = match index {
        Some(index) => match ShardIndex::read(&folder.join(index)) {
            Ok(read) if read.shards.iter().all(|shard| shard.ends_with(".safetensors")) => read.shards,
            Ok(_) => return Some(not_ours(index)),
            Err(_) => return Some(not_ours(index)),
        },
        None => names::SAFETENSORS
            .iter()
            .find(|name| names.contains(*name))
            // An edited copy keeps the name of its base's only file.
            .or_else(|| names.iter().find(|name| has_our_card && name.ends_with(".safetensors")))
            .map(|name| (*name).to_owned())
            .into_iter()
            .collect(),
    };
    let is_ours = |name: &&&str| {
        **name == names::CARD || is_side(name) || index == Some(*name) || shards.iter().any(|shard| shard == **name)
    };
    if let Some(name) = names.iter().find(|name| !is_ours(name)) {
        return Some(not_ours(name));
    }
    if has_card && !has_our_card {
        return Some(not_ours(names::CARD));
    }
    // With the side files of a base goes a model card.
    names.iter().find(|name| is_side(name) && !has_card).map(|name| not_ours(name))
}

/// Whether a model card is one that this program wrote.
fn is_our_card(path: &Path) -> bool {
    let Ok(text) = read_capped(path, "a model card", CARD_BYTES_MAX) else { return false };
    let text = String::from_utf8_lossy(&text);
    // Those of the first version began with the base.
    let begins = [names::CARD_BEGINS, "---\nbase_model: "].iter().any(|begin| text.starts_with(begin));
    begins && text.contains(names::CARD_WORDS)
}

fn first_bytes(path: &Path, n_bytes: u64) -> Vec<u8> {
    use std::io::Read;
    let mut start = Vec::new();
    if let Ok((file, _)) = open_regular(path) {
        let _ = file.take(n_bytes).read_to_end(&mut start);
    }
    start
}

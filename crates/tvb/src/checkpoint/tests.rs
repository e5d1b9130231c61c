//! Whole checkpoints on a real file system: written, read back, damaged.

use super::*;
use crate::ErrorKind;
use std::collections::BTreeMap;
use std::path::Path;

/// A small model of every dtype class: floats, integers, a scalar, an empty tensor, awkward names.
fn specs() -> Vec<TensorSpec> {
    let rows: [(&str, Dtype, &[usize]); 8] = [
        ("emb.weight", Dtype::F32, &[7, 3]),
        ("h.0.attn", Dtype::Bf16, &[2, 5]),
        ("h.0.bias", Dtype::F16, &[3]),
        ("h.1 \"odd\"\n.ü", Dtype::F64, &[2]),
        ("position_ids", Dtype::I64, &[1, 4]),
        ("scale", Dtype::F32, &[]),
        ("none", Dtype::F32, &[0, 9]),
        ("mask", Dtype::Bool, &[5]),
    ];
    rows.map(|(name, dtype, shape)| TensorSpec { name: name.into(), dtype, shape: shape.into() }).to_vec()
}

/// The bytes of tensor number `tensor` in every file that these tests write.
fn bytes_of(tensor: usize, n_bytes: u64) -> Vec<u8> {
    (0..n_bytes).map(|i| (i * 7 + tensor as u64 * 31) as u8).collect()
}

fn write_file(path: &Path) {
    let layout = SafetensorsLayout::new(&specs(), &BTreeMap::new()).unwrap();
    let writer = SafetensorsWriter::create(path, layout.clone()).unwrap();
    for tensor in (0..layout.n_tensors()).rev() {
        writer.write_at(tensor, 0, &bytes_of(tensor, layout.n_bytes(tensor))).unwrap();
    }
    assert!(writer.write_at(0, layout.n_bytes(0) - 3, &[0; 4]).is_err(), "a write must stay in its tensor");
    writer.finish().unwrap();
}

fn write_folder(folder: &Path, shard_bytes: u64) -> ShardPlan {
    let plan = ShardPlan::greedy(&specs(), "model", shard_bytes).unwrap();
    let metadata = BTreeMap::from([("note".to_owned(), "x".to_owned())]);
    let writer = ShardedWriter::create(folder, &plan, &specs(), &metadata).unwrap();
    for (tensor, spec) in specs().iter().enumerate() {
        writer.write_at(tensor, 0, &bytes_of(tensor, spec.n_bytes().unwrap())).unwrap();
    }
    writer.finish().unwrap();
    plan
}

/// Reads every tensor, whole and in pieces, and compares it with what was written.
fn check_contents(checkpoint: &Checkpoint) {
    let specs = specs();
    assert_eq!(checkpoint.tensors().len(), specs.len());
    for (number, spec) in specs.iter().enumerate() {
        let tensor = checkpoint.get(&spec.name).unwrap();
        assert_eq!(TensorSpec::from(tensor), *spec);
        let expected = bytes_of(number, tensor.n_bytes());
        let mut whole = vec![0; expected.len()];
        checkpoint.read(tensor, 0, &mut whole).unwrap();
        assert_eq!(whole, expected, "{}", spec.name);
        let half = expected.len() / 2;
        let mut end = vec![0; expected.len() - half];
        checkpoint.read(tensor, half as u64, &mut end).unwrap();
        assert_eq!(end, expected[half..]);
        assert!(checkpoint.read(tensor, 1, &mut whole).is_err() || whole.is_empty());
    }
    let keys: Vec<_> = checkpoint.tensors().iter().map(|tensor| tensor.place.sort_key()).collect();
    assert!(keys.is_sorted());
    checkpoint.check_unchanged().unwrap();
}

#[test]
fn a_file_comes_back() {
    let top = tempfile::tempdir().unwrap();
    // The content decides, whatever the name says.
    for name in ["model.safetensors", "model.bin", "model"] {
        let path = top.path().join(name);
        write_file(&path);
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(*checkpoint.layout(), Layout::SafetensorsFile);
        assert_eq!(checkpoint.metadata()["format"], "pt");
        let order: Vec<_> = checkpoint.in_key_order().map(TensorSpec::from).collect();
        assert_eq!(order, specs());
        check_contents(&checkpoint);
    }
}

#[test]
fn a_folder_comes_back_with_and_without_shards() {
    for (shard_bytes, n_files) in [(1 << 20, 1), (64, 3), (8, 7)] {
        let top = tempfile::tempdir().unwrap();
        let plan = write_folder(top.path(), shard_bytes);
        assert_eq!(plan.files.len(), n_files);
        let checkpoint = Checkpoint::open(top.path()).unwrap();
        let shards = plan.files.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(*checkpoint.layout(), Layout::SafetensorsFolder { shards, indexed: n_files > 1 });
        assert_eq!(checkpoint.metadata()["note"], "x");
        assert_eq!(checkpoint.files().len(), n_files);
        check_contents(&checkpoint);

        // An edited copy keeps the files.
        let like = ShardPlan::like(&checkpoint).unwrap();
        assert_eq!(like.index, plan.index);
        for ((name, tensors), (expected, _)) in like.files.iter().zip(&plan.files) {
            assert_eq!(name, expected);
            assert!(!tensors.is_empty());
        }
    }
}

#[test]
fn an_interrupted_file_is_taken_up_only_when_it_is_the_same() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("atom.safetensors");
    write_file(&path);
    let layout = |specs: &[TensorSpec]| SafetensorsLayout::new(specs, &BTreeMap::new()).unwrap();
    let writer = SafetensorsWriter::reopen(&path, layout(&specs())).unwrap().unwrap();
    let mut back = [0; 4];
    writer.read_at(0, 4, &mut back).unwrap();
    assert_eq!(back, bytes_of(0, 8)[4..]);
    let mut other = specs();
    other[0].name = "emb.weighx".into();
    assert!(SafetensorsWriter::reopen(&path, layout(&other)).unwrap().is_none());
    assert!(SafetensorsWriter::reopen(&path, layout(&other[1..])).unwrap().is_none());
}

#[test]
fn damaged_folders_are_refused_with_the_facts() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 6] = [
        ("the file `model-00002-of-00003.safetensors` is missing", |top| {
            std::fs::remove_file(top.join("model-00002-of-00003.safetensors")).unwrap();
        }),
        ("truncated: expected", |top| {
            let file = std::fs::File::options().write(true).open(top.join("model-00001-of-00003.safetensors")).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        (
            "tensor `scale`: expected in `model-00002-of-00003.safetensors`, found in `model-00003-of-00003.safetensors`",
            |top| {
                edit_index(top, "\"scale\": \"model-00003", "\"scale\": \"model-00002");
            },
        ),
        ("tensor `emb.weight` stands in `model-00001-of-00003.safetensors` but not in the shard index", |top| {
            edit_index(top, "emb.weight", "emb.weighx");
        }),
        ("tensor `extra`: the shard index expects it in `model-00003-of-00003.safetensors`, found none", |top| {
            edit_index(top, "\"scale\"", "\"extra\": \"model-00003-of-00003.safetensors\", \"scale\"");
        }),
        ("leaves the folder", |top| edit_index(top, "model-00001", "../model-00001")),
    ];
    for (expected, damage) in cases {
        let top = tempfile::tempdir().unwrap();
        write_folder(top.path(), 64);
        damage(top.path());
        let error = Checkpoint::open(top.path()).unwrap_err();
        assert!(error.message().contains(expected), "expected {expected:?} in: {error}");
        assert_eq!(error.kind(), ErrorKind::Rejected);
    }
}

fn edit_index(folder: &Path, from: &str, to: &str) {
    let path = folder.join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn paths_that_hold_no_checkpoint_say_what_would_help() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path();
    let files: [(&str, &[u8]); 5] = [
        ("empty.safetensors", b""),
        ("text.safetensors", b"no safetensors file at all"),
        ("notes.txt", b"dear diary, this is not a model"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n"),
        ("short.safetensors", b"\x40\0\0\0\0\0\0\0{}"),
    ];
    for (name, contents) in files {
        std::fs::write(path.join(name), contents).unwrap();
    }
    std::fs::create_dir(path.join("bare")).unwrap();
    let cases = [
        ("empty.safetensors", "expected a safetensors file of at least 8 bytes, found 0 bytes", None),
        ("text.safetensors", "its header claims", None),
        ("notes.txt", "found neither in its first bytes", None),
        ("pointer.safetensors", "is a Git LFS pointer", Some("git lfs pull")),
        ("short.safetensors", "truncated: expected a header of 64 bytes after the first 8, found 2", Some("download")),
        ("bare", "expected model.safetensors or pytorch_model.bin", Some("name a checkpoint")),
        (".", "expected model.safetensors or pytorch_model.bin", Some("empty.safetensors")),
        ("none", "opening failed", Some("check the path")),
    ];
    for (name, expected, hint) in cases {
        let error = Checkpoint::open(&path.join(name)).unwrap_err();
        assert!(error.message().contains(expected), "{name}: expected {expected:?} in: {error}");
        let found = error.hint_text().unwrap_or("");
        assert!(found.contains(hint.unwrap_or("")), "{name}: expected {hint:?} in: {found}");
    }
}

/// Random damage to a valid file: it is refused, or read as a consistent checkpoint, and nothing panics.
#[test]
fn mutated_files_never_panic() {
    use rand::{RngExt, SeedableRng};
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("model.safetensors");
    write_file(&path);
    let valid = std::fs::read(&path).unwrap();
    let header_bytes = valid.len() - specs().iter().map(|spec| spec.n_bytes().unwrap()).sum::<u64>() as usize;
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut n_read = 0;
    for _ in 0..n_mutations() {
        let mut bytes = valid.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..header_bytes);
            match random.random_range(0..4) {
                0 => bytes[at] ^= 1 << random.random_range(0..8),
                1 => bytes[at] = b"0123456789{}[],:\""[random.random_range(0..17)],
                2 => bytes.truncate(random.random_range(0..valid.len())),
                _ => bytes.splice(at..at, valid[at..(at + 20).min(valid.len())].to_vec()).for_each(drop),
            }
            bytes.resize(bytes.len().max(header_bytes), 0);
        }
        // A new file each time: some file systems flush a file that is truncated and written again.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            n_read += 1;
            for tensor in checkpoint.tensors() {
                assert!(tensor.n_bytes() <= bytes.len() as u64);
                checkpoint.read(tensor, 0, &mut vec![0; tensor.n_bytes() as usize]).unwrap();
            }
        }
    }
    assert!(n_read > 0, "some damage only changes a name");
}

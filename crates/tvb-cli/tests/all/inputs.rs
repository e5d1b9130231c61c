//! A diffusers pipeline from end to end: compressed, edited, recovered, and written as a pipeline again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tvb::checkpoint::Checkpoint;
use tvb_tests::small_models::contents;

/// Runs `tvb` and checks its exit code; answers what it says.
#[track_caller]
fn tvb(folder: &Path, words: &[&str], exit_code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(words).args(["--device", "cpu"]).current_dir(folder).stdin(Stdio::null());
    command.env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG");
    let output = command.output().expect("tvb runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).join("\n");
    assert_eq!(output.status.code(), Some(exit_code), "tvb {words:?}: {said}");
    said
}

/// A copy of the pipeline in which these components have moved by `step` times the number of the element modulo 5.
fn tune(to: &Path, from: &Path, components: &[&str], step: f32) {
    for (name, mut bytes) in contents(from) {
        let path = to.join(&name);
        let moves = name.extension().is_some_and(|end| end == "safetensors")
            && components.iter().any(|component| component.is_empty() || name.starts_with(component));
        if moves {
            let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
            for (number, value) in bytes[8 + header..].chunks_exact_mut(4).enumerate() {
                let moved = f32::from_le_bytes(value.try_into().expect("4 bytes")) + step * (number % 5) as f32;
                value.copy_from_slice(&moved.to_le_bytes());
            }
        }
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
}

fn values(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let checkpoint = Checkpoint::open(path).expect("opens");
    let values = |tensor: &tvb::checkpoint::Tensor| {
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        checkpoint.read(tensor, 0, &mut bytes).expect("reads");
        bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("4 bytes"))).collect()
    };
    checkpoint.tensors().iter().map(|tensor| (tensor.name.clone(), values(tensor))).collect()
}

fn setup() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let base = folder.path().join("base");
    tune(&base, &tvb_tests::fixture("inputs").join("pipeline"), &[], 0.0);
    (folder, base)
}

#[test]
fn a_pipeline_is_edited_and_is_one_again() {
    let (folder, base) = setup();
    let here = folder.path();
    tune(&here.join("a"), &base, &["unet", "text_encoder"], 0.01);
    tune(&here.join("run/unet"), &base.join("unet"), &[""], 0.02);
    let said = tvb(here, &["check", "--base", "base", "a", "run/unet"], 0);
    assert!(said.contains("taken as unet of the pipeline; its other components do not move"), "{said}");
    tvb(here, &["compress", "--base", "base", "a", "run/unet", "-m", "2", "-o", "basis"], 0);
    tvb(here, &["apply", "basis", "a + run", "--base", "base", "-o", "edited"], 0);
    let (start, edited) = (values(&base), values(&here.join("edited")));
    let moved = |name: &str| match name.split('/').next() {
        Some("unet") => 0.03,
        Some("text_encoder") => 0.01,
        _ => 0.0,
    };
    // Each file is counted from its start, so that every tensor's first move is known from the tune.
    let tuned = values(&here.join("a"));
    for (name, before) in &start {
        for ((&from, &to), &a) in before.iter().zip(&edited[name]).zip(&tuned[name]) {
            let scale = if name.starts_with("unet/") { 3.0 } else { 1.0 };
            let expected = from + scale * (a - from);
            assert!((to - expected).abs() < 2e-6, "{name}: {to} {expected}");
            assert!((to - from).abs() <= moved(name) * 4.0 + 1e-5, "{name}");
        }
    }
    // The same files as the base has, and a card.
    let names = |path: &Path| contents(path).into_keys().collect::<Vec<_>>();
    let mut expected = names(&base);
    expected.push("README.md".into());
    expected.sort();
    assert_eq!(names(&here.join("edited")), expected);
    for (name, bytes) in contents(&base).iter().filter(|(name, _)| name.extension().is_some_and(|end| end == "json")) {
        assert!(contents(&here.join("edited"))[name] == *bytes, "{}", name.display());
    }

    // It may be replaced, and a pipeline that is not ours may not.
    tvb(here, &["apply", "basis", "a", "--base", "base", "-o", "edited", "--overwrite"], 0);
    tvb(here, &["apply", "basis", "run", "--base", "base", "-o", "a", "--overwrite"], 3);
    std::fs::write(here.join("edited/unet/notes.md"), "mine").expect("written");
    tvb(here, &["apply", "basis", "a", "--base", "base", "-o", "edited", "--overwrite"], 3);
    tvb(here, &["apply", "basis", "a", "--base", "base", "-o", "base/unet", "--overwrite"], 3);

    tvb(here, &["recover", "basis", "--base", "base", "-o", "back"], 0);
    let back = values(&here.join("back/a"));
    assert!(back.iter().all(|(name, found)| found.iter().zip(&tuned[name]).all(|(a, b)| (a - b).abs() < 2e-6)));
    let said = tvb(here, &["apply", "basis", "a", "--base", "base", "-o", "edited.safetensors"], 2);
    assert!(said.contains("a folder expected, since the base is a pipeline"), "{said}");
    tvb(here, &["export", "base", "-o", "base.pt"], 0);
    assert_eq!(values(&here.join("base.pt")), start);
    let said = tvb(here, &["inspect", "base"], 0);
    assert!(said.contains("unet/conv_in.weight"), "{said}");
}

#[test]
fn what_a_file_is_is_said_by_inspect_and_refused_elsewhere() {
    let folder = TempDir::new().expect("a folder");
    let inputs = tvb_tests::fixture("inputs");
    let path = |name: &str| inputs.join(name).display().to_string();
    let said = tvb(folder.path(), &["inspect", &path("fp8.pt")], 0);
    assert!(said.contains("no base and no whole task: tensor `0.weight`: fp8 weights"), "{said}");
    let said = tvb(folder.path(), &["check", "--base", &path("fp8.pt"), &path("fp8.pt")], 3);
    assert!(said.contains("base: ") && said.contains("fp8 weights") && said.contains("hint: "), "{said}");
    let said = tvb(folder.path(), &["check", "--base", &path("tied.pt"), &path("complex.pt")], 3);
    assert!(said.contains("task complex: ") && said.contains("complex numbers"), "{said}");
    let said = tvb(folder.path(), &["inspect", &format!("{}::state_dict_ema", path("ema.pth.tar"))], 0);
    assert!(said.contains("1 tensors"), "{said}");
    let said = tvb(folder.path(), &["inspect", &path("ema.pth.tar")], 0);
    let note = "`state_dict` is taken, `state_dict_ema` holds another: ";
    assert!(said.contains(note) && said.contains("ema.pth.tar::state_dict_ema"), "{said}");
}

#[test]
fn a_key_that_was_given_is_recorded() {
    let folder = TempDir::new().expect("a folder");
    let here = folder.path();
    let fixture = tvb_tests::fixture("inputs").join("ema.pth.tar");
    for name in ["base.pth.tar", "a.pth.tar"] {
        std::fs::copy(&fixture, here.join(name)).expect("copied");
    }
    let inputs = ["--base", "base.pth.tar::state_dict", "a=a.pth.tar::state_dict_ema"];
    let with = |first: &str, last: &[&str]| {
        let words: Vec<&str> = [first].iter().chain(&inputs).chain(last).copied().collect();
        tvb(here, &words, 0)
    };
    with("gram", &["-o", "g.gram"]);
    let said = tvb(here, &["inspect", "g.gram"], 0);
    assert!(said.contains("base.pth.tar::state_dict") && said.contains("a.pth.tar::state_dict_ema"), "{said}");
    with("compress", &["-o", "basis"]);
    let said = tvb(here, &["inspect", "basis"], 0);
    assert!(said.contains("base.pth.tar::state_dict") && said.contains("a.pth.tar::state_dict_ema"), "{said}");
    // Where a base is opened again it is by its key, and no output replaces what a record names.
    tvb(here, &["add", "basis", "--base", "base.pth.tar::state_dict", "-o", "out.safetensors"], 0);
    let said = tvb(here, &["add", "basis", "--base", "base.pth.tar", "-o", "out.safetensors", "--overwrite"], 0);
    assert!(said.contains("base: ") && said.contains(note_of_two()), "{said}");
    let other = ["add", "basis", "--base", "base.pth.tar::state_dict_ema", "-o", "other.safetensors"];
    assert!(tvb(here, &other, 3).contains("another base expected"));
    tvb(here, &["export", "basis", "-o", "reference"], 0);
    assert!(tvb(here, &["export", "basis", "-o", "a.pth.tar", "--overwrite"], 3).contains("a.pth.tar"));
}

fn note_of_two() -> &'static str {
    "`state_dict` is taken, `state_dict_ema` holds another"
}

#[test]
fn runs_are_named_by_their_folders() {
    let (folder, base) = setup();
    let here = folder.path();
    for run in ["runA", "runB"] {
        tune(&here.join(run).join("checkpoint-500"), &base.join("vae"), &[""], 0.01);
    }
    let said = tvb(here, &["check", "--base", "base/vae", "runA/checkpoint-500", "runB/checkpoint-500"], 0);
    assert!(said.contains("runA ") && said.contains("runB "), "{said}");
    let said = tvb(here, &["check", "--base", "base/vae", "runA"], 3);
    assert!(said.contains("a training run without weights") && said.contains("runA/checkpoint-500"), "{said}");
}

/// A difference from a model is no model, whatever its names are.
#[test]
fn bases_atoms_and_bare_edits_are_no_tasks() {
    let (folder, base) = setup();
    let here = folder.path();
    for name in ["a", "b"] {
        tune(&here.join(name), &base.join("vae"), &[""], 0.01);
    }
    tvb(here, &["compress", "--base", "base/vae", "a", "b", "-m", "1", "-o", "basis"], 0);
    tvb(here, &["apply", "basis", "a + b", "--delta", "-o", "edit.safetensors"], 0);
    tvb(here, &["recover", "basis", "a", "-o", "vectors"], 0);
    let cases = [
        ("basis", "a basis found"),
        ("basis/atom-00.safetensors", "an atom of a basis"),
        ("edit.safetensors", "a bare edit"),
        ("vectors/a.safetensors", "a bare edit"),
    ];
    for (task, expected) in cases {
        let said = tvb(here, &["check", "--base", "base/vae", task], 3);
        assert!(said.contains(expected) && said.contains("hint: "), "{task}: {said}");
    }
}

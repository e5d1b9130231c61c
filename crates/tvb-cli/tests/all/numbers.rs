//! Weights, formats and memory caps at their ends, as a user meets them: exit codes and words.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tvb_tests::small_models::{Random, Stored, shapes, values, write_model};

fn tvb(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(args).current_dir(folder).env_remove("TVB_DEVICE").env_remove("TVB_LOG").stdin(Stdio::null());
    command.output().expect("tvb runs")
}

/// Runs a command; answers its stdout as JSON where it is, and stderr.
#[track_caller]
fn run(folder: &Path, exit_code: i32, args: &[&str]) -> (Value, String) {
    let Output { status, stdout, stderr } = tvb(folder, args);
    let err = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(exit_code), "tvb {args:?}\n{err}");
    (serde_json::from_slice(&stdout).unwrap_or_default(), err)
}

/// A base and two fine-tunes of one f32 tensor, and a basis of them with one atom.
fn models(folder: &Path) {
    let shapes = shapes(&[&[300, 100]]);
    let (base, tasks) = values(&shapes, 2, &mut Random(3));
    assert!(shapes.iter().all(|shape| shape.stored == Stored::F32));
    write_model(folder, "base", &shapes, &base, 1);
    for (name, values) in ["a", "b"].iter().zip(&tasks) {
        write_model(folder, name, &shapes, values, 1);
    }
    run(
        folder,
        0,
        &["compress", "--base", "base.safetensors", "a.safetensors", "b.safetensors", "-m", "1", "-o", "basis"],
    );
}

const FROM: [&str; 5] = ["--base", "base.safetensors", "--from-checkpoints", "a.safetensors", "b.safetensors"];

#[test]
fn weights_beyond_f32_are_wrong_usage() {
    let top = tempfile::tempdir().expect("a folder");
    models(top.path());
    let base = ["--base", "base.safetensors", "-o", "out.safetensors"];
    let cases: [(&[&str], &str); 6] = [
        (&["add", "basis", "--scale", "1e300"], "basis, task a:"),
        (&["add", "basis", "--task", "b:1e39"], "basis, task b:"),
        (&["apply", "basis", "1e39*a"], "basis, task a:"),
        (&["apply", "basis", "1e-50*b"], "basis, task b:"),
        (&["apply", "basis", "1e200*1e200*b"], "task b:"),
        (&["negate", "basis", "b", "--scale", "1e60"], "basis, task b:"),
    ];
    for (args, expected) in cases {
        for more in [&[][..], &["--dry-run"]] {
            let (_, err) = run(top.path(), 2, &[args, &base, more].concat());
            assert!(err.contains(expected) && err.contains("found"), "{args:?}: {err}");
        }
    }
    let (_, err) = run(top.path(), 2, &[&["apply", "2e38*3*b", "-o", "out.safetensors"][..], &FROM].concat());
    assert!(err.contains("b.safetensors, task b:"), "{err}");
    assert!(!top.path().join("out.safetensors").exists());
}

#[test]
fn overflow_is_refused_or_clipped_where_that_is_asked_for() {
    let top = tempfile::tempdir().expect("a folder");
    models(top.path());
    let args = [&["add", "--scale", "1e7", "--dtype", "f16", "-o", "out.safetensors", "--json"][..], &FROM].concat();
    let (_, err) = run(top.path(), 3, &args);
    assert!(err.contains("out.safetensors, tensor t0: finite values expected,") && err.contains("--clip"), "{err}");
    let (answer, err) = run(top.path(), 0, &[&args[..], &["--clip"]].concat());
    assert!(answer["clipped"]["n_values"].as_u64().is_some_and(|n| n > 1000), "{answer:#}");
    assert_eq!(answer["clipped"]["n_tensors"], 1);
    assert!(err.contains("clipped"), "{err}");
}

#[test]
fn memory_that_is_too_little_is_refused_with_what_is_needed() {
    let top = tempfile::tempdir().expect("a folder");
    models(top.path());
    let inputs = ["--base", "base.safetensors", "a.safetensors", "b.safetensors"];
    let base = ["--base", "base.safetensors"];
    std::fs::write(
        top.path().join("jobs.toml"),
        "[[job]]\nname = 'j'\nbase = 'base.safetensors'\ntasks = ['a.safetensors', 'b.safetensors']\noutput = 'out'\n",
    )
    .expect("written");
    let cases: [Vec<&str>; 10] = [
        [&["gram", "-o", "g"][..], &inputs].concat(),
        [&["compress", "-m", "1", "-o", "o"][..], &inputs].concat(),
        [&["compress", "-m", "1", "-o", "o", "--dry-run"][..], &inputs].concat(),
        [&["add", "basis", "-o", "o.safetensors"][..], &base].concat(),
        [&["apply", "basis", "a - b", "-o", "o.safetensors"][..], &base].concat(),
        [&["add", "-o", "o.safetensors"][..], &FROM].concat(),
        [&["recover", "basis", "-o", "r"][..], &base].concat(),
        vec!["verify", "basis"],
        [&["verify", "basis"][..], &inputs].concat(),
        vec!["export", "basis", "-o", "published"],
    ];
    for args in cases {
        for cap in ["1", "50K"] {
            let (_, err) = run(top.path(), 2, &[&args[..], &["--memory", cap]].concat());
            let least = err.split("hint: --memory ").nth(1).and_then(|hint| hint.split(' ').next());
            let least: u64 = least.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{args:?}: {err}"));
            assert!((64 << 10..1 << 20).contains(&least), "{args:?}: {err}");
        }
    }
    let left: Vec<_> =
        ["g", "o", "o.safetensors", "published"].into_iter().filter(|name| top.path().join(name).exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(std::fs::read_dir(top.path().join("r")).map_or(true, |mut left| left.next().is_none()));
    // In a batch it fails the job.
    let (answer, _) = run(top.path(), 1, &["batch", "jobs.toml", "--memory", "1", "--json"]);
    assert!(answer.to_string().contains("--memory") || answer.to_string().contains("memory cap"), "{answer:#}");
    // What `check` says is enough.
    let (answer, _) = run(top.path(), 0, &[&["check", "--json"][..], &inputs].concat());
    let said = answer["memory_bytes"].as_u64().expect("a number").to_string();
    run(top.path(), 0, &[&["compress", "-m", "2", "-o", "o", "--memory", &said][..], &inputs].concat());
}

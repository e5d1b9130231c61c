//! What training leaves behind: a head that is the embedding, and a Trainer's run folder. The files are in
//! `tests/fixtures/wrapped`, written by the libraries themselves.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tvb_tests::fixture;

/// Runs `tvb` in the folder of the files with its output elsewhere; answers exit code, stdout, stderr.
fn run(line: &str, out: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    let words = line.split_whitespace().map(|word| word.replace("OUT", out.to_str().expect("UTF-8")));
    command.args(words).current_dir(fixture("wrapped")).stdin(Stdio::null());
    command.env_remove("TVB_DEVICE").env_remove("TVB_LOG");
    let Output { status, stdout, stderr } = command.output().expect("tvb runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("a code"), text(stdout), text(stderr))
}

#[test]
fn a_head_that_is_the_embedding_counts_once() {
    let top = tempfile::tempdir().expect("a folder");
    let out = top.path().join("basis");
    let (code, text, err) = run("compress --base tied/base tied/tune.pt -o OUT --json", &out);
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&text).expect("one object");
    assert_eq!(answer["tasks"].as_array().map(Vec::len), Some(1));
    let out = top.path().join("edited");
    let (code, _, err) = run("add --base tied/base -o OUT --from-checkpoints tied/tune.pt", &out);
    assert_eq!(code, 0, "{err}");
    // The output has the base's tensors, which has no head of its own.
    let (_, text, _) = run("inspect OUT --json", &out);
    assert!(text.contains("transformer.wte.weight") && !text.contains("lm_head.weight"), "{text}");
}

#[test]
fn a_trainers_run_names_its_checkpoints_and_its_task() {
    let top = tempfile::tempdir().expect("a folder");
    let out = top.path().join("basis");
    let (code, _, err) = run("compress --base runs/base runs/cars -o OUT", &out);
    assert!(code == 3 && err.contains("checkpoint-1") && err.contains("checkpoint-2"), "{err}");
    let (code, text, err) = run("compress --base runs/base runs/cars/checkpoint-2 -o OUT --json", &out);
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&text).expect("one object");
    assert_eq!(answer["tasks"][0]["name"], "cars");
    let (code, _, err) = run("check --base runs/base runs/cars/checkpoint-2/optimizer.pt", &out);
    assert!(code == 3 && err.contains("optimizer.pt"), "{err}");
}

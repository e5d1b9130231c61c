//! What goes to stdout and what to stderr: no line to both, warnings where an edit is far from what was asked for, and hints
//! where a checkpoint stands in a basis' place.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tvb_tests::small_models::write_run;

const SHAPES: &[&[usize]] = &[&[200, 300], &[40, 70], &[5]];

/// Runs a line of words; answers exit code, stdout and stderr, which have no line in common.
#[track_caller]
fn run(folder: &Path, line: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(line.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    command.env_remove("TVB_DEVICE").env_remove("TVB_LOG");
    let Output { status, stdout, stderr } = command.output().expect("tvb runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(stdout), text(stderr));
    // Whatever stands before what a line says.
    let said = |text: &str| -> BTreeSet<String> {
        let labels = ["warning: ", "error: ", "hint: "];
        let bare =
            |line: &str| labels.iter().fold(line.trim(), |line, label| line.trim_start_matches(label)).to_owned();
        text.lines().map(bare).filter(|line| !line.is_empty()).collect()
    };
    let both: Vec<String> = said(&out).intersection(&said(&err)).cloned().collect();
    assert!(both.is_empty(), "tvb {line}: on both streams: {both:?}");
    (status.code().expect("a code"), out, err)
}

#[test]
fn no_line_appears_on_both_streams_and_far_edits_are_warned_of() {
    let top = tempfile::tempdir().expect("a folder");
    let folder = top.path();
    write_run(folder, SHAPES, 6, 1);
    let tasks: String = (0..6).map(|index| format!("task{index}.safetensors ")).collect();
    assert_eq!(run(folder, &format!("compress --base base.safetensors {tasks} -m 2 -o mixed")).0, 0);
    assert_eq!(run(folder, &format!("compress --base base.safetensors {tasks} --bits 4 -o coded")).0, 0);
    let edits = ["negate BASIS task0", "apply BASIS task0-task3", "add BASIS --task task1", "recover BASIS task2"];
    for edit in edits {
        for (basis, is_far) in [("mixed", true), ("coded", false)] {
            let out = format!("{}-{basis}", edit.split(' ').next().expect("a word"));
            let line = format!("{} --base base.safetensors -o {out}", edit.replace("BASIS", basis));
            let (code, stdout, stderr) = run(folder, &line);
            assert_eq!((code, stderr.contains("warning: mixed: ")), (0, is_far), "{line}\n{stderr}");
            assert!(!stdout.contains("warning"), "{stdout}");
            let (code, stdout, _) = run(folder, &format!("{line} --overwrite --json -qq"));
            let answer: Value = serde_json::from_str(&stdout).expect("one object");
            assert_eq!(
                (code, answer["warnings"].as_array().map(Vec::len)),
                (0, Some(usize::from(is_far))),
                "{answer:#}"
            );
        }
    }
    let (code, stdout, stderr) = run(folder, "add coded --base base.safetensors -o sum.safetensors");
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("cosine 0.9"), "{stdout}");
    let (code, _, stderr) = run(folder, "add mixed --task task0 --delta --bits 2 -o patch --dry-run");
    assert!(code == 0 && stderr.contains("warning: mixed: predicted cosine"), "{stderr}");
    for line in ["verify mixed", "inspect mixed", "report mixed -o page.html", "gram --help"] {
        assert_eq!(run(folder, line).0, 0);
    }
}

#[test]
fn what_jobs_fail_of_is_said_once() {
    let top = tempfile::tempdir().expect("a folder");
    write_run(top.path(), SHAPES, 1, 1);
    std::fs::create_dir(top.path().join("other")).expect("a folder");
    write_run(&top.path().join("other"), &[&[200, 301], &[41, 70], &[5]], 1, 2);
    let jobs = r#"
        [defaults]
        base = "base.safetensors"
        tasks = ["a=task0.safetensors", "b=other/task0.safetensors"]
        output = "out/{job}-{method}-m{m}"
        [[job]]
        name = "one"
        method = ["anchored", "pca"]
        m = 1
        [[job]]
        name = "two"
        m = 1
    "#;
    std::fs::write(top.path().join("jobs.toml"), jobs).expect("written");
    for line in ["batch jobs.toml", "batch jobs.toml --dry-run"] {
        let (_, stdout, stderr) = run(top.path(), line);
        let both = stdout + &stderr;
        assert_eq!(both.matches("2 mismatches").count(), 1, "{both}");
        assert_eq!(both.matches("shape [200, 300] expected").count(), 1, "{both}");
        // Every mismatch has its own line.
        assert!(both.lines().filter(|line| line.trim().starts_with("task b, tensor")).count() == 2, "{both}");
    }
}

#[test]
fn a_checkpoint_in_a_basis_place_is_explained() {
    let top = tempfile::tempdir().expect("a folder");
    write_run(top.path(), SHAPES, 3, 1);
    std::fs::create_dir(top.path().join("model")).expect("a folder");
    std::fs::copy(top.path().join("task0.safetensors"), top.path().join("model/model.safetensors")).expect("copied");
    let edits = [
        ("add task0.safetensors", 3),
        ("add model", 3),
        ("add task0.safetensors task1.safetensors", 2),
        ("negate task0.safetensors task0", 3),
        ("apply task0.safetensors task1.safetensors a+b", 2),
        ("analogy task0.safetensors task1.safetensors task2.safetensors", 2),
        ("sweep add model --metric a -- true {checkpoint}", 3),
    ];
    for (words, code) in edits {
        let more = "--base base.safetensors -o out";
        let line = match words.split_once(" -- ") {
            Some((words, command)) => format!("{words} {more} -- {command}"),
            None => format!("{words} {more}"),
        };
        let (found, out, err) = run(top.path(), &line);
        assert_eq!((found, out.as_str()), (code, ""), "{line}\n{err}");
        assert!(err.contains("hint: ") && err.contains("--from-checkpoints"), "{line}\n{err}");
        assert!(!top.path().join("out").exists());
    }
    for line in ["verify model", "recover task0.safetensors -o out", "report model -o out.html"] {
        let (code, _, err) = run(top.path(), line);
        assert!(code == 3 && err.contains("tvb compress"), "{line}\n{err}");
    }
    let (code, _, err) = run(top.path(), "add nowhere --base base.safetensors -o out");
    assert!(code == 3 && !err.contains("--from-checkpoints"), "{err}");
}

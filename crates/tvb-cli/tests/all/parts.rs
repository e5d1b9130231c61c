//! A job in parts from the command line: every fault of the parts is one line that names them, and nothing is written.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tvb_tests::small_models::{Run, contents, write_run};

const SHAPES: &[&[usize]] = &[&[300, 500], &[7], &[1100, 1000], &[0, 3], &[257, 300], &[]];

fn tvb(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(args).env_remove("TVB_DEVICE").env_remove("TVB_LOG").stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("tvb runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("a code"), text(stdout), text(stderr))
}

fn words(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| path.to_str().expect("UTF-8")).collect()
}

/// `tvb gram` over a run, as one or as a part.
fn gram(run: &Run, output: &Path, more: &[&str]) -> (i32, String, String) {
    let base = run.base.to_str().expect("UTF-8");
    let tasks: Vec<&str> = run.tasks.iter().map(|task| task.to_str().expect("UTF-8")).collect();
    let output = output.to_str().expect("UTF-8");
    tvb(&[&["gram", "--base", base], &tasks[..], &["-o", output], more].concat())
}

#[track_caller]
fn made((code, out, err): (i32, String, String)) -> String {
    assert_eq!(code, 0, "{err}");
    out
}

fn make_parts(run: &Run, folder: &Path, n_parts: usize, more: &[&str]) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).expect("a folder");
    let part = |number: usize| {
        let path = folder.join(format!("part-{number}"));
        let word = format!("{number}/{n_parts}");
        made(gram(run, &path, &[&["--part", &word], more].concat()));
        path
    };
    (1..=n_parts).map(part).collect()
}

#[test]
fn parts_of_a_gram_pass_join_to_the_file_of_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 3, 1);
    let one = top.path().join("one.gram");
    made(gram(&run, &one, &[]));
    let mut parts = make_parts(&run, &top.path().join("parts"), 2, &["-j", "1"]);
    parts.reverse();
    let output = top.path().join("joined.gram");
    let line = [&["join", "-o", output.to_str().expect("UTF-8"), "--json"], &words(&parts)[..]].concat();
    let dry: Value = serde_json::from_str(&made(tvb(&[&line[..], &["--dry-run"]].concat()))).expect("one object");
    assert_eq!((&dry["n_parts"], &dry["kind"]), (&2.into(), &"gram".into()));
    assert!(!output.exists());
    let answer: Value = serde_json::from_str(&made(tvb(&line))).expect("one object");
    assert_eq!((&answer["n_parts"], &answer["n_tasks"]), (&2.into(), &3.into()));
    assert_eq!(std::fs::read(&output).expect("a file"), std::fs::read(&one).expect("a file"));
    // A basis is made from it as from any other.
    let (code, _, err) = tvb(&["inspect", output.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{err}");
    let answer = made(gram(&run, &top.path().join("none"), &["--part", "1/2", "--dry-run", "--json"]));
    let answer: Value = serde_json::from_str(&answer).expect("one object");
    let all = answer["n_parameters"].as_u64().expect("a count");
    let own = answer["part"]["n_parameters"].as_u64().expect("a count");
    assert!(0 < own && own < all, "{own} of {all}");
}

/// What joining says, with its exit code; the folder is as it was before.
#[track_caller]
fn refused(folder: &Path, parts: &[PathBuf], more: &[&str]) -> (i32, String) {
    let before = contents(folder);
    let output = folder.join("refused.gram");
    let line = [&["join", "-o", output.to_str().expect("UTF-8")], &words(parts)[..], more].concat();
    let (code, out, err) = tvb(&line);
    assert!(out.is_empty() && contents(folder) == before, "something was written: {out}");
    let lines: Vec<&str> = err.lines().collect();
    assert!(matches!(lines[..], [error, hint] if error.starts_with("error: ") && hint.starts_with("hint: ")), "{err}");
    (code, err)
}

#[test]
fn every_fault_of_the_parts_is_said_in_one_line() {
    let top = tempfile::tempdir().expect("a folder");
    let top = top.path();
    let run = write_run(top, SHAPES, 3, 1);
    let parts = make_parts(&run, &top.join("parts"), 3, &[]);
    let check = |parts: &[PathBuf], more: &[&str], expected: &[&str]| {
        let (code, err) = refused(top, parts, more);
        assert!(code == 3 && expected.iter().all(|expected| err.contains(expected)), "{err}");
    };
    let with = |third: &Path| [parts[1].clone(), third.to_owned(), parts[0].clone()];

    check(&[parts[2].clone(), parts[1].clone(), parts[2].clone()], &[], &["part 3/3 is there twice", "part-3 and "]);
    check(&parts[1..2], &[], &["parts 1, 3 of 3 are missing"]);
    check(&parts[..2], &[], &["part 3 of 3 is missing"]);

    // Of another job.
    let others = make_parts(&run, &top.join("others"), 4, &[]);
    check(&with(&others[2]), &[], &["others/part-3", "one of 3 parts expected", "of 4 found"]);
    let fewer = Run { base: run.base.clone(), tasks: run.tasks[..2].to_vec() };
    let others = make_parts(&fewer, &top.join("fewer"), 3, &[]);
    check(&with(&others[2]), &[], &["fewer/part-3", "3 tasks expected, 2 found"]);
    let others = make_parts(&run, &top.join("excluded"), 3, &["--exclude", "1$"]);
    check(&with(&others[2]), &[], &["excluded/part-3", "tensors expected"]);
    check(&with(&run.base), &[], &["a part of a job expected"]);

    // The same names and sizes, other values; then the same values at another place and time.
    let copied = |seed: u64, name: &str| {
        let folder = top.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let copy = write_run(&folder, SHAPES, 3, seed);
        (make_parts(&copy, &folder.join("parts"), 3, &[]), copy)
    };
    let (others, _) = copied(2, "values");
    check(&with(&others[2]), &["--copies"], &["values/parts/part-3", "holds other values"]);
    let (copies, _) = copied(1, "copies");
    check(&with(&copies[2]), &[], &["copies/parts/part-3", "at another time", "--copies"]);
    let output = top.join("of-copies.gram");
    let mixed = with(&copies[2]);
    let line = ["join", "--copies", "-o", output.to_str().expect("UTF-8")];
    made(tvb(&[&line[..], &words(&mixed)].concat()));
    // It says what part 1 has read.
    let one = top.join("one.gram");
    made(gram(&run, &one, &[]));
    assert!(std::fs::read(&output).expect("a file") == std::fs::read(&one).expect("a file"));

    // Damaged anywhere, cut short, half written.
    let bytes = std::fs::read(&parts[2]).expect("a part");
    let damaged = top.join("broken");
    for at in [3, 60, bytes.len() / 2, bytes.len() - 5] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        std::fs::write(&damaged, &bytes).expect("written");
        check(&with(&damaged), &[], &["broken", "hint: "]);
        std::fs::write(&damaged, &bytes[..at]).expect("written");
        check(&with(&damaged), &[], &["broken", "hint: "]);
    }

    // An output that is there, or is one of the parts.
    let before = contents(top);
    let line = [&["join", "-o", one.to_str().expect("UTF-8")], &words(&parts)[..]].concat();
    let (code, _, err) = tvb(&line);
    assert!(code == 3 && err.contains("one.gram"), "{err}");
    let line = [&["join", "--overwrite", "-o"], &words(&parts)[..1], &words(&parts)[..]].concat();
    let (code, _, err) = tvb(&line);
    assert!(code == 3 && err.contains("part-1"), "{err}");
    assert!(contents(top) == before);
}

#[test]
fn wrong_words_are_wrong_usage() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[20, 10]], 2, 1);
    for word in ["0/3", "4/3", "3", "1/0", "a/b", "1/70000"] {
        let output = top.path().join("part");
        let (code, _, err) = gram(&run, &output, &["--part", word]);
        assert!(code == 2 && err.contains("--part") && !output.exists(), "{err}");
    }
    let (code, _, err) = tvb(&["join", "-o", "x"]);
    assert!(code == 2 && err.contains("PART"), "{err}");
}

#[test]
fn a_part_says_what_it_is_a_part_of() {
    let top = tempfile::tempdir().expect("a folder");
    let top = top.path();
    let run = write_run(top, SHAPES, 3, 1);
    let folder = top.join("codes");
    let mut args = vec!["compress", "--part", "1/2", "-o", folder.to_str().expect("a path"), "--base"];
    args.push(run.base.to_str().expect("a path"));
    args.extend(words(&run.tasks));
    made(tvb(&args));
    let parts = make_parts(&run, &top.join("parts"), 2, &[]);
    for (path, part, kind) in [(&parts[1], "2/2", "gram"), (&folder, "1/2", "codes")] {
        let path = path.to_str().expect("a path");
        let found: Value = serde_json::from_str(&made(tvb(&["inspect", path, "--json"]))).expect("JSON");
        assert_eq!((&found["part"], &found["of"]), (&part.into(), &kind.into()));
        assert_eq!(found["tasks"].as_array().map(Vec::len), Some(3));
        assert!(made(tvb(&["inspect", path])).contains("tvb join"));
    }
    let (code, _, err) = tvb(&["verify", folder.to_str().expect("a path")]);
    assert!(code == 3 && err.contains("this is a part"), "{err}");
}

//! `tvb gram --extend`: what it says, what it refuses, and that a refusal leaves the file as it was.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use tvb_tests::small_models::{Run, contents, write_run};

/// Exit code, stdout, stderr.
fn gram(run: &Run, tasks: &[usize], words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(["gram", "--device", "cpu", "--base"]).arg(&run.base).args(tasks.iter().map(|task| &run.tasks[*task]));
    command.args(words).current_dir(run.base.parent().expect("a folder"));
    command.env_remove("TVB_DEVICE").env_remove("TVB_LOG").stdin(Stdio::null());
    let output = command.output().expect("tvb runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn made(run: &Run, tasks: &[usize], words: &[&str]) -> String {
    let (code, text, err) = gram(run, tasks, words);
    assert_eq!(code, 0, "{words:?}: {err}");
    text
}

#[test]
fn a_gram_file_is_extended_in_its_place_or_beside_it() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[300, 50], &[7]], 4, 2);
    let read = |name: &str| std::fs::read(top.path().join(name)).expect("a Gram file");
    made(&run, &[0, 1], &["-o", "g"]);
    made(&run, &[0, 1, 2, 3], &["-o", "all"]);

    let dry: Value =
        serde_json::from_str(&made(&run, &[0, 1, 2, 3], &["--extend", "g", "-o", "g", "--dry-run", "--json"]))
            .expect("one object");
    assert_eq!(dry["n_new"], 2);
    let text = made(&run, &[0, 1, 2, 3], &["--extend", "g", "-o", "beside"]);
    assert!(text.contains("Gram of 4 tasks (2 new)"), "{text}");
    assert!(read("beside") == read("all"));
    let text = made(&run, &[0, 1, 2], &["--extend", "g", "-o", "g", "--overwrite", "--json"]);
    let answer: Value = serde_json::from_str(&text).expect("one object");
    assert_eq!((&answer["n_tasks"], &answer["n_new"]), (&3.into(), &1.into()));
    made(&run, &[0, 1, 2, 3], &["--extend", "g", "-o", "g", "--overwrite"]);
    assert!(read("g") == read("all"));
}

#[test]
fn what_cannot_be_extended_stays_as_it_was() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[40, 30], &[7]], 4, 2);
    let read = |name: &str| std::fs::read(top.path().join(name)).expect("read");
    made(&run, &[0, 1], &["-o", "g"]);
    let mut damaged = read("g");
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(top.path().join("damaged"), &damaged).expect("written");
    let before = contents(top.path());
    let refused = |tasks: &[usize], words: &[&str], code: i32, expected: &str| {
        let (found, _, err) = gram(&run, tasks, words);
        assert!(found == code && err.contains(expected), "{tasks:?} {words:?}: {found}, {err}");
        assert!(contents(top.path()) == before, "{tasks:?} {words:?}: something has changed");
    };
    let over = ["--extend", "g", "-o", "g", "--overwrite"];
    refused(&[0, 1], &over, 2, "no new task");
    refused(&[1, 0, 2], &over, 3, "task `task0` expected, task `task1` found");
    refused(&[0, 2], &over, 3, "in its order (`task0`, `task1`)");
    refused(&[0, 1, 2], &["--extend", "g", "-o", "g"], 3, "exists");
    refused(&[0, 1, 2], &["--extend", "g", "-o", "h", "--exclude", "t1"], 3, "without `t1`");
    refused(&[0, 1, 2], &["--extend", "damaged", "-o", "h"], 3, "checksum");
    refused(&[0, 1, 2], &["--extend", "nothing", "-o", "h"], 1, "nothing: opening failed");
    refused(&[0, 1, 2], &["--extend", "g", "-o", "h", "--part", "1/2"], 2, "--part");
    // A task that has been trained on since, and a base.
    for (path, name) in [(&run.tasks[1], "task task1"), (&run.base, "base")] {
        let whole = std::fs::read(path).expect("read");
        let mut other = whole.clone();
        let last = other.len() - 2;
        other[last] ^= 1;
        std::fs::write(path, other).expect("written");
        let (code, _, err) = gram(&run, &[0, 1, 2], &over);
        assert!(code == 3 && err.contains(name) && err.contains("its data is not what it was"), "{err}");
        std::fs::write(path, whole).expect("written");
        assert!(contents(top.path()) == before);
    }
    // Who solves from a file that lacks a task is told what adds it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(["compress", "-m", "1", "--gram", "g", "-o", "basis", "--base"]).arg(&run.base).args(&run.tasks);
    let output = command.current_dir(top.path()).stdin(Stdio::null()).output().expect("tvb runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("2 tasks expected, 4 found") && err.contains("tvb gram --extend"), "{err}");
    assert!(!Path::new(&top.path().join("basis")).exists());
}

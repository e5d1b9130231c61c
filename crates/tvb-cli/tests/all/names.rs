//! Names that somebody else chose: in files, in folders, and bytes that are no text at all. Whatever they hold, they are
//! shown on one line, and paths of any bytes are read and written.
#![cfg(unix)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb::shown::is_control;
use tvb_tests::small_models::{Random, Shape, Stored, shapes, values, write_model};

/// Clears a screen, forges a line, turns the text around and is a formula.
const HOSTILE: &str = "=cmd()\u{1b}[2J\r\nerror: forged\u{9b}31m\u{202e}|`<b>";

fn run(folder: &Path, words: &[&OsStr]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(words).args(["--device", "cpu"]).current_dir(folder).stdin(Stdio::null());
    command.env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG");
    command.output().expect("tvb runs")
}

/// Runs `tvb` on these words and checks the exit code and that nothing it says drives a terminal or forges a line.
#[track_caller]
fn check(folder: &Path, words: &[impl AsRef<OsStr>], exit_code: i32) -> String {
    let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
    let output = run(folder, &words);
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).join("\n");
    assert_eq!(output.status.code(), Some(exit_code), "tvb {words:?}: {said}");
    assert!(!said.contains(|c| c != '\n' && is_control(c)), "tvb {words:?}: {said:?}");
    assert!(!said.lines().any(|line| line.starts_with("error: forged")), "tvb {words:?}: {said}");
    said
}

#[test]
fn names_out_of_files_reach_nobody_as_they_are() {
    let folder = TempDir::new().expect("a folder");
    let here = folder.path();
    let named = |name: &str| Shape { name: name.to_owned(), shape: vec![4], stored: Stored::F32 };
    let model = |tensors: &[&str], name: &str| {
        let shapes: Vec<Shape> = tensors.iter().map(|tensor| named(tensor)).collect();
        let (base, _) = values(&shapes, 0, &mut Random(name.len() as u64));
        write_model(here, name, &shapes, &base, 1)
    };
    model(&[HOSTILE, "w"], "base");
    model(&[HOSTILE, "w"], "task");
    model(&["w"], "less");
    check(here, &["inspect", "base.safetensors"], 0);
    check(here, &["check", "--base", "base.safetensors", "task.safetensors"], 0);
    check(here, &["check", "--base", "base.safetensors", "less.safetensors"], 3);
    check(here, &["check", "--base", "base.safetensors", "less.safetensors", "--skip-mismatched"], 0);
    check(here, &["compress", "--base", "base.safetensors", "task.safetensors", "-m", "1", "-o", "basis", "-v"], 0);
    check(here, &["report", "basis", "-o", "report.html"], 0);
    let page = std::fs::read_to_string(here.join("report.html")).expect("a page");
    assert!(!page.contains(|c| c != '\n' && is_control(c)) && !page.contains("<b>"));
    // The command stands in the card of what it made, in a fence that it does not end.
    let odd = "edited\n```\n# forged\u{1b}";
    check(here, &["add", "basis", "--base", "base.safetensors", "-o", odd], 0);
    let card = std::fs::read_to_string(here.join(odd).join("README.md")).expect("a card");
    assert!(card.contains("````sh\ntvb add") && card.contains("\n````\n") && !card.contains('\u{1b}'), "{card}");
    // The name itself is what programs get.
    let told = check(here, &["inspect", "base.safetensors", "--json"], 0);
    let json: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(json["tensors"][0]["name"], HOSTILE);
    // A shell's `*` types the names of files.
    check(here, &[HOSTILE], 2);
    check(here, &["check", "--base", HOSTILE, "task.safetensors"], 1);
    check(here, &["apply", "basis", HOSTILE, "--base", "base.safetensors", "-o", "edited.safetensors"], 3);
}

#[test]
fn paths_of_any_bytes_are_read_and_written() {
    let folder = TempDir::new().expect("a folder");
    let here = folder.path();
    let odd = |name: &str| -> OsString {
        let (stem, extension) = name.split_once('.').map_or((name, ""), |(stem, extension)| (stem, extension));
        let dot = if extension.is_empty() { "" } else { "." };
        OsStr::from_bytes(&[stem.as_bytes(), b"\xff\xfe", dot.as_bytes(), extension.as_bytes()].concat()).to_owned()
    };
    let shapes = shapes(&[&[4, 3], &[5]]);
    let (base, tasks) = values(&shapes, 2, &mut Random(5));
    for (name, values) in [("base", &base), ("a", &tasks[0]), ("b", &tasks[1])] {
        let path = write_model(here, name, &shapes, values, 1);
        std::fs::rename(path, here.join(odd(&format!("{name}.safetensors")))).expect("renamed");
    }
    std::fs::write(here.join(odd("jobs.toml")), "[[job]]\nname = 'j'\nfrom = 'nowhere'\nm = 1\noutput = 'o'\n")
        .expect("written");
    let task = |name: &str| {
        let mut word = OsString::from(format!("{name}="));
        word.push(odd(&format!("{name}.safetensors")));
        word
    };
    let (base, basis) = (odd("base.safetensors"), odd("basis"));
    let inputs = [OsString::from("--base"), base.clone(), task("a"), task("b")];
    let script = "test -f \"$1\" && echo '{\"acc\": 0.5}'";
    // {x} is the path `x` with bytes that are no UTF-8.
    let lines: &[(&str, i32)] = &[
        ("gram INPUTS -o {g}", 0),
        ("compress INPUTS -m 1 -o {basis} --dry-run", 0),
        ("compress INPUTS -m 1 -o {basis} --gram {g}", 0),
        ("check INPUTS", 0),
        ("inspect {basis}", 0),
        ("plan --gram {g} --plot {plot.svg}", 0),
        ("add {basis} --base {base.safetensors} -o {add.safetensors}", 0),
        ("add {basis} --base {base.safetensors} -o {add}", 0),
        ("inspect {add.safetensors}", 0),
        ("negate {basis} a --base {base.safetensors} -o {n.safetensors}", 0),
        ("analogy {basis} a b a --base {base.safetensors} -o {y.safetensors}", 0),
        ("apply {basis} a-b --base {base.safetensors} -o {p.safetensors}", 0),
        ("recover {basis} --base {base.safetensors} -o {r}", 0),
        ("verify {basis}", 0),
        ("verify {basis} INPUTS", 0),
        ("report {basis} -o {page.html}", 0),
        ("export {basis} -o {e}", 0),
        ("export {a.safetensors} -o {e.pt}", 0),
        ("inspect {e.pt}", 0),
        (
            "sweep add {basis} --base {base.safetensors} -o {s} --scales 0.5 --metric acc -- sh -c SCRIPT sh {checkpoint}",
            0,
        ),
        ("batch {jobs.toml} --dry-run", 3),
        ("batch {jobs.toml} --log {log}", 1),
        ("inspect {nowhere}", 1),
        ("import {nowhere} -o {i}", 1),
    ];
    for &(line, exit_code) in lines {
        for is_json in [false, true] {
            let mut words: Vec<OsString> = Vec::new();
            for word in line.split(' ') {
                match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
                    Some("checkpoint") => words.push(word.into()),
                    Some(name) => words.push(odd(name)),
                    None if word == "INPUTS" => words.extend(inputs.clone()),
                    None if word == "SCRIPT" => words.push(script.into()),
                    None => words.push(word.into()),
                }
            }
            if is_json {
                words.insert(1, "--json".into());
            }
            if line.contains(" -o {") && !line.starts_with("sweep") || line.contains("--plot") {
                words.push("--overwrite".into());
            }
            // The evaluator's words come last.
            let said = check(here, &words, exit_code);
            assert!(!is_json || said.starts_with('{'), "{said}");
        }
    }
    let mut names: Vec<_> =
        std::fs::read_dir(here).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    names.retain(|name| !name.as_bytes().contains(&0xff));
    assert!(names.is_empty(), "written under another name: {names:?}");
    assert!(basis.as_bytes().ends_with(b"\xff\xfe") && here.join(&basis).is_dir());
}

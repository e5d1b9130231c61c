//! `tvb plan`: codes beside methods, expressions, and what `compress` takes for a budget, from a Gram file alone.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb_tests::small_models::{Random, shapes, values, write_model};

fn tvb(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(args).env_remove("TVB_DEVICE").env_remove("TVB_LOG").stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("tvb runs")
}

/// A Gram file of four tasks.
fn gram(folder: &Path) -> PathBuf {
    let shapes = shapes(&[&[64, 64], &[64]]);
    let (base, tasks) = values(&shapes, 4, &mut Random(3));
    let base = write_model(folder, "base", &shapes, &base, 1);
    let gram = folder.join("z.gram");
    let mut command = tvb(&["gram", "-q", "--base"]);
    command.arg(base);
    for (name, values) in ["a", "b", "c", "d-e"].iter().zip(&tasks) {
        command.arg(write_model(folder, name, &shapes, values, 1));
    }
    assert!(output(command.arg("-o").arg(&gram)).status.success());
    gram
}

fn plan(gram: &Path, words: &[&str]) -> Command {
    let mut command = tvb(&["plan", "--gram"]);
    command.arg(gram).args(words);
    command
}

#[track_caller]
fn told(gram: &Path, words: &[&str]) -> String {
    let output = output(&mut plan(gram, words));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn json(gram: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&told(gram, &[words, &["--json"]].concat())).expect("one JSON object")
}

#[test]
fn codes_stand_beside_methods() {
    let folder = TempDir::new().expect("a folder");
    let gram = gram(folder.path());
    let words = ["-m", "2", "--method", "exact,identity", "--bits", "2,6", "--expression", "a - 0.5*'d-e'"];
    let text = told(&gram, &words);
    let is_wide = |line: &&str| line.chars().count() > 120 && !line.starts_with("note");
    assert_eq!(text.lines().find(is_wide), None);
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<[&str; 3]> = rows.iter().take(14).map(|row| [row[0], row[1], row[2]]).collect();
    let expected = [
        ["identity", "4", "0.25+4"],
        ["identity", "4", "0.5+4"],
        ["identity", "4", "1+3"],
        ["identity", "4", "1+4"],
        ["identity", "4", "1.6+3"],
        ["identity", "4", "2+3"],
        ["identity", "4", "3+2"],
        ["identity", "4", "4+1"],
        ["identity", "4", "6+3"],
        ["identity", "4", "8+off"],
        ["exact", "2", "f32"],
        ["exact", "2", "2+3"],
        ["exact", "2", "6+3"],
        ["identity", "4", "f32"],
    ];
    assert_eq!(names, expected);
    assert!(text.contains("\na - 0.5*'d-e'\n") && text.contains("note: identity: 0.25+4 bits: below 1 bit"));

    let found = json(&gram, &words);
    let rows = found["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 14);
    let row = |method: &str, storage: &str| -> &Value {
        rows.iter().find(|row| row["method"] == method && row["storage"] == storage).expect("a row")
    };
    let coded = row("identity", "2+3");
    // 16 blocks of 66 bytes, the vector in bf16, and the shared column's 16 of 98.
    assert_eq!(coded["bytes"], 4 * (16 * 66 + 128) + 16 * 98);
    assert_eq!(coded["bits"], serde_json::json!({ "own": "2", "kept": "3" }));
    assert_eq!(row("exact", "f32")["bytes"], 2 * 4 * 4160);
    assert_eq!(row("exact", "f32")["share"], 0.5);
    for at in [coded, row("exact", "6+3"), row("identity", "f32")] {
        assert_eq!(at["gains"].as_array().map(Vec::len), Some(4));
        let (noise, expression) = (&at["noise"], &at["expressions"][0]);
        assert!(noise["worst"].as_f64() >= noise["mean"].as_f64());
        let (gain, noise) = (expression["gain"].as_f64().expect("gain"), expression["noise"].as_f64().expect("noise"));
        let cosine = gain / (gain * gain + noise).sqrt();
        assert!((expression["cosine"].as_f64().expect("cosine") - cosine).abs() < 1e-9);
    }
    assert!(coded["gain"]["worst"].as_f64() > Some(0.999) && coded["noise"]["worst"].as_f64() < Some(0.14));

    let csv = told(&gram, &[&words[..], &["--format", "csv"]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 15);
    let columns = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{csv}");
    assert!(lines[0].ends_with("noise a - 0.5*'d-e',cos a - 0.5*'d-e'"), "{}", lines[0]);

    // Without a word of codes they are there all the same, for some of the tasks too.
    let some = json(&gram, &["--tasks", "b,a", "--keep-sum", "off", "--bits", "1", "--method", "sample", "-m", "1"]);
    let storages: Vec<&str> =
        some["rows"].as_array().expect("rows").iter().filter_map(|r| r["storage"].as_str()).collect();
    assert_eq!(
        storages,
        ["0.25+4", "0.5+4", "1+off", "1+3", "1+4", "1.6+3", "2+3", "3+2", "4+1", "8+off", "f32", "1+off"]
    );
    assert_eq!(some["tasks"], serde_json::json!(["b", "a"]));
}

#[test]
fn a_budget_says_what_compress_takes() {
    let folder = TempDir::new().expect("a folder");
    let gram = gram(folder.path());
    let last = |words: &[&str]| told(&gram, words).lines().last().expect("a line").to_owned();
    assert_eq!(last(&["--max-bytes", "7.5%"]), "compress --max-bytes 7.5% takes 1+4 (4.77 kB, 7.2%)");
    assert!(last(&["--max-error", "0.2"]).starts_with("compress --max-error 0.2 takes 1.6+3 ("));
    let refused = last(&["--max-bytes", "100"]);
    assert!(refused.starts_with("compress --max-bytes 100 takes nothing: at most 100 bytes asked for, "), "{refused}");
    let mixed = last(&["--method", "exact", "--max-error", "mean:0.02"]);
    assert!(mixed.starts_with("compress --method exact --max-error mean:0.02 takes M = 4 in 4+1 ("), "{mixed}");
    let both = json(&gram, &["--max-bytes", "9k", "--max-error", "1e-9", "-m", "1"]);
    assert_eq!(both["chosen"][0]["storage"], "3+2");
    assert!(both["chosen"][1]["refused"].as_str().is_some_and(|why| why.contains("8+off bits have 4.1e-5")));
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let gram = gram(folder.path());
    let plot = folder.path().join("plot.svg");
    let plot = plot.to_str().expect("a name");
    for (words, exit_code, part) in [
        (&["--bits", "7"][..], 2, "0.25, 0.5, 1, 1.6, 2"),
        (&["--bits", "2", "--keep-sum", "some"], 2, "some"),
        (&["--keep-sum", "3"], 2, "--bits"),
        (&["--max-bytes", "0%"], 2, "0%"),
        (&["--max-error", "most:1"], 2, "mean or worst"),
        (&["--expression", "a - nobody", "--plot", plot], 3, "unknown task"),
        (&["--expression", "a +"], 3, "character"),
        (&["--tasks", "a", "--expression", "b"], 3, "unknown task"),
        (&["--weight", "nobody:2"], 3, "unknown task"),
    ] {
        let output = output(&mut plan(&gram, words));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit_code), "{words:?}: {stderr}");
        assert!(stderr.contains(part) && output.stdout.is_empty(), "{words:?}: {stderr}");
    }
    assert!(!Path::new(plot).exists());
    told(&gram, &["--bits", "1.6", "--plot", plot]);
    let svg = std::fs::read_to_string(plot).expect("a plot");
    for part in ["tasks, coded", "exact, 1.6+3 bits", "gain", "noise"] {
        assert!(svg.contains(part), "{part}");
    }
}

/// Whether the software adapter is there.
fn has_llvmpipe() -> bool {
    let listed = output(tvb(&["devices", "--json", "--backend", "vulkan"]).env_remove("WGPU_BACKEND"));
    let there = String::from_utf8_lossy(&listed.stdout).contains("llvmpipe");
    assert!(there || std::env::var("TVB_REQUIRE_GPU").map_or(true, |value| value != "1"), "no llvmpipe");
    there
}

/// Fails unless two answers are the same but for the last digits of numbers.
#[track_caller]
fn assert_alike(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().expect("a number"), expected.as_f64().expect("a number"));
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{at}: {found} {expected}");
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{at}");
            found.iter().zip(expected).enumerate().for_each(|(i, (a, b))| assert_alike(a, b, &format!("{at}[{i}]")));
        }
        (Value::Object(found), Value::Object(expected)) => {
            assert!(found.keys().eq(expected.keys()), "{at}");
            found.iter().for_each(|(key, value)| assert_alike(value, &expected[key], &format!("{at}.{key}")));
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}

#[test]
fn subsets_and_tensors_have_spectra_whatever_the_device() {
    let folder = TempDir::new().expect("a folder");
    let gram = gram(folder.path());
    let words = [
        "-m",
        "1,3",
        "--method",
        "anchored,exact,pca,cluster",
        "--subset",
        "a,b,c",
        "--subset",
        "d-e,a",
        "--max-error",
        "0.5",
    ];
    let found = json(&gram, &words);
    let subsets = found["subsets"].as_array().expect("a list");
    assert_eq!((subsets.len(), &subsets[0]["n_tasks"], &subsets[1]["n_tasks"]), (2, &3.into(), &2.into()));
    let values: Vec<f64> =
        subsets[0]["eigenvalues"].as_array().expect("values").iter().filter_map(Value::as_f64).collect();
    assert!(values.len() == 3 && values.is_sorted_by(|a, b| a >= b) && values[2] > 0.0, "{values:?}");
    let bounds = subsets[0]["relative_bounds"].as_array().expect("values");
    let total: f64 = values.iter().sum();
    assert!((bounds[0].as_f64().expect("a number") - (values[1] + values[2]) / total).abs() < 1e-12);
    let text = told(&gram, &words);
    assert!(text.contains("effective rank") && text.contains("d-e,a"), "{text}");
    let unknown = output(&mut plan(&gram, &["--subset", "a,nobody"]));
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("nobody"));

    let inspect = |words: &[&str]| -> Value {
        let mut command = tvb(&["inspect", "--json"]);
        let output = output(command.arg(&gram).args(words));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    };
    let inspected = inspect(&[]);
    let tensors = inspected["tensor_spectra"]["tensors"].as_array().expect("a list");
    assert_eq!((tensors.len(), &inspected["tensor_spectra"]["n_decomposed"]), (2, &2.into()));
    assert!(
        tensors.iter().all(|tensor| tensor["effective_rank"].as_f64().is_some_and(|rank| rank > 1.0 && rank <= 4.0))
    );
    let said = told_by(&mut tvb(&["inspect"]), &gram);
    assert!(said.contains("share of the change") && said.contains("in one direction"), "{said}");
    if !has_llvmpipe() {
        eprintln!("skipped on the GPU: no llvmpipe (install mesa-vulkan-drivers for a software adapter)");
        return;
    }
    assert_alike(&json(&gram, &[&words[..], &["--device", "llvmpipe"]].concat()), &found, "plan");
    assert_alike(&inspect(&["--device", "llvmpipe"]), &inspected, "inspect");
}

#[track_caller]
fn told_by(command: &mut Command, gram: &Path) -> String {
    let output = output(command.arg(gram));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

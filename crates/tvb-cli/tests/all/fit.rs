//! Fits as a user runs them: a tiny evaluator in `sh`, checkpoints of a few numbers, and what is left on the disk.
#![cfg(unix)]

use crate::sweep::{Bench, names};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use tvb::checkpoint::{Checkpoint, Dtype, SafetensorsLayout, SafetensorsWriter, TensorSpec};

/// Answers each path with `acc`, 1 at 0.3·a + 0.6·b of the bench's tasks, and `far`, 1 less that; counts the paths in `runs`.
const SERVER: &str = r#"
    while read -r path; do
        echo run >> runs
        tail -c 16 "$path" | od -An -tf4 -w16 |
            awk '{ far = ($1 - 1.3) ^ 2 + ($2 - 2) ^ 2 + ($3 - 4.2) ^ 2 + ($4 - 4.3) ^ 2
                   printf "{\"acc\": %.9f, \"far\": %.9f}\n", 1 - far, far }'
    done
"#;

/// The flags of most fits here.
const FLAGS: [&str; 6] = ["--metric", "acc", "--serve", "--evaluations", "100", "-q"];

trait Fits {
    fn fit_of(&self, source: &[&str], out: &str, flags: &[&str], script: &str, exit_code: i32, stderr: &str) -> Value;
    fn fit(&self, out: &str, flags: &[&str], exit_code: i32, stderr: &str) -> Value;
    fn points(&self, out: &str) -> Vec<Value>;
    fn json(&self, path: &str) -> Value;
}

impl Fits for Bench {
    /// `tvb fit SOURCE …` with this script as the evaluator; answers with results.json.
    #[track_caller]
    fn fit_of(&self, source: &[&str], out: &str, flags: &[&str], script: &str, exit_code: i32, stderr: &str) -> Value {
        let words = [&["fit"], source, &["--base", "base.safetensors", "-o", out], flags, &["--", "sh", "-c", script]];
        let output = Command::new(env!("CARGO_BIN_EXE_tvb"))
            .args(words.concat())
            .current_dir(self.folder.path())
            .env("TVB_DEVICE", "cpu")
            .env_remove("TVB_LOG")
            .output()
            .expect("tvb runs");
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit_code), "{flags:?}: {shown}");
        assert!(shown.contains(stderr), "{stderr:?} in {shown}");
        assert!(!self.path(out).join("candidates").exists(), "candidates are left");
        self.json(&format!("{out}/results.json"))
    }

    #[track_caller]
    fn fit(&self, out: &str, flags: &[&str], exit_code: i32, stderr: &str) -> Value {
        self.fit_of(&["basis"], out, flags, SERVER, exit_code, stderr)
    }

    fn points(&self, out: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(out).join("points.jsonl")).expect("a log");
        text.lines().skip(1).map(|line| serde_json::from_str(line).expect("a point")).collect()
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(path)).unwrap_or_default()).unwrap_or(Value::Null)
    }
}

/// What a point is, without how long it took, in the order of their numbers.
fn untimed(mut points: Vec<Value>) -> Vec<Value> {
    points.sort_by_key(|point| point["number"].as_u64().unwrap_or(u64::MAX));
    for point in &mut points {
        for key in ["seconds", "elapsed"] {
            point.as_object_mut().expect("a point").remove(key);
        }
    }
    points
}

#[test]
fn the_coefficients_are_found_and_kept() {
    let bench = Bench::new();
    let results = bench.fit("out", &FLAGS, 0, "");
    assert!(results["best"]["metrics"]["acc"].as_f64() > Some(0.998), "{}", results["best"]);
    let values: Vec<f64> = serde_json::from_value(results["best"]["values"][0].clone()).unwrap();
    assert!((values[0] - 0.3).abs() < 0.05 && (values[1] - 0.6).abs() < 0.05, "{values:?}");
    assert_eq!(results["points"].as_array().map(Vec::len), Some(100));
    assert_eq!(bench.n_runs(), 100);
    let left = names(&bench.path("out"));
    let expected = ["best.safetensors", "coefficients.json", "plot.svg", "points.jsonl", "results.csv", "results.json"];
    assert_eq!(left, expected);
    let csv = std::fs::read_to_string(bench.path("out/results.csv")).unwrap();
    assert!(csv.starts_with("number,from,objective,seconds,acc,far,a,b\n0,start: zero,"), "{csv}");
    assert_eq!(csv.lines().count(), 101);
    // The starts: the base, sums, every task alone.
    let starts: Vec<Value> = bench.points("out").iter().take(7).map(|point| point["values"][0].clone()).collect();
    let sums = [0.1, 0.2, 0.4, 1.0].map(|scale| json!([scale, scale]));
    assert_eq!(starts, [vec![json!([0.0, 0.0])], sums.to_vec(), vec![json!([1.0, 0.0]), json!([0.0, 1.0])]].concat());

    // The file says the same edit, to every command.
    let file = bench.json("out/coefficients.json");
    assert_eq!(file["values"], results["best"]["values"][0]);
    let out = ["--base", "base.safetensors", "-o", "again.safetensors"];
    bench.check(&[&["apply", "basis", "--coefficients", "out/coefficients.json"], &out[..]].concat(), 0, "");
    assert_eq!(bench.read("again.safetensors"), bench.read("out/best.safetensors"));
}

#[test]
fn what_comes_out_does_not_depend_on_how_many_evaluate_at_once() {
    let bench = Bench::new();
    bench.fit("one", &FLAGS, 0, "");
    bench.fit("three", &[&FLAGS[..], &["--jobs", "3"]].concat(), 0, "");
    assert_eq!(untimed(bench.points("one")), untimed(bench.points("three")));
    assert_eq!(bench.read("one/best.safetensors"), bench.read("three/best.safetensors"));
    let plain = std::fs::read(bench.path("one/coefficients.json")).unwrap();
    assert_eq!(plain, std::fs::read(bench.path("three/coefficients.json")).unwrap());
}

#[test]
fn a_stopped_fit_goes_on_where_it_was_and_a_larger_budget_goes_further() {
    let bench = Bench::new();
    bench.fit("whole", &FLAGS, 0, "");
    // Stopped in the middle of a line.
    std::fs::create_dir(bench.path("cut")).unwrap();
    let log = std::fs::read_to_string(bench.path("whole/points.jsonl")).unwrap();
    let end = log.match_indices('\n').nth(40).unwrap().0;
    std::fs::write(bench.path("cut/points.jsonl"), &log[..end + 20]).unwrap();
    let before = bench.n_runs();
    bench.fit("cut", &FLAGS, 0, "");
    assert_eq!(bench.n_runs() - before, 60);
    assert_eq!(untimed(bench.points("cut")), untimed(bench.points("whole")));
    // Nothing is left to do; then more is.
    bench.fit("cut", &FLAGS, 0, "");
    assert_eq!(bench.n_runs() - before, 60);
    let more = ["--metric", "acc", "--serve", "--evaluations", "120", "-q"];
    bench.fit("cut", &more, 0, "");
    bench.fit("more", &more, 0, "");
    let numbered =
        |points: Vec<Value>| untimed(points).into_iter().filter(|point| !point["number"].is_null()).collect::<Vec<_>>();
    assert_eq!(numbered(bench.points("cut")), numbered(bench.points("more")));
    // Another fit is refused, and replaces it where that is said.
    let other = [&FLAGS[..], &["--seed", "1"]].concat();
    bench.fit("cut", &other, 3, "another fit was made here; it differs in: seed");
    bench.fit("cut", &[&other[..], &["--overwrite"]].concat(), 0, "");
    bench.fit("basis", &FLAGS, 3, "a new folder or a fit's own expected");
}

#[test]
fn penalties_time_and_given_coefficients_count() {
    let bench = Bench::new();
    let free = bench.fit("free", &FLAGS, 0, "");
    let held = bench.fit("held", &[&FLAGS[..], &["--l2", "1"]].concat(), 0, "");
    let size = |results: &Value| {
        results["best"]["values"][0].as_array().unwrap().iter().map(|c| c.as_f64().unwrap().powi(2)).sum::<f64>()
    };
    assert!(size(&held) < 0.8 * size(&free), "{} {}", held["best"], free["best"]);
    let least = bench.fit("least", &["--metric", "far", "--minimize", "--serve", "-q", "--l1", "0.001"], 0, "");
    assert!(least["best"]["metrics"]["far"].as_f64() < Some(2e-3), "{}", least["best"]);

    // Nothing but the given coefficients and the base is needed.
    let init = ["--init", "free/coefficients.json", "--evaluations", "2", "--metric", "acc", "--serve", "-q"];
    let given = bench.fit("given", &[&init[..], &["--save", "saved.json"]].concat(), 0, "2 evaluations are not enough");
    assert_eq!(given["best"]["values"], free["best"]["values"]);
    assert_eq!(bench.json("saved.json"), bench.json("free/coefficients.json"));
    bench.fit("other", &[&init[..], &["--save", "saved.json"]].concat(), 3, "saved.json");
    bench.fit("given", &[&init[..], &["--save", "saved.json"]].concat(), 0, "");

    let late = bench.fit("late", &[&FLAGS[..], &["--time", "1ms"]].concat(), 0, "");
    assert_eq!(late["points"].as_array().map(Vec::len), Some(1), "{late}");
}

#[test]
fn originals_and_atoms_are_fitted_too() {
    let bench = Bench::new();
    let originals = ["--from-checkpoints", "a.safetensors", "b.safetensors"];
    let found = bench.fit_of(&[], "originals", &[&FLAGS[..], &originals].concat(), SERVER, 0, "");
    assert!(found["best"]["metrics"]["acc"].as_f64() > Some(0.998), "{}", found["best"]);
    let atoms = bench.fit("atoms", &[&FLAGS[..], &["--over", "atoms"]].concat(), 0, "");
    assert!(atoms["best"]["metrics"]["acc"].as_f64() > Some(0.998), "{}", atoms["best"]);
    assert_eq!(bench.json("atoms/coefficients.json")["atoms"], json!(["atom-00", "atom-01"]));
    let out = ["--base", "base.safetensors", "-o", "again.safetensors"];
    bench.check(&[&["apply", "basis", "--coefficients", "atoms/coefficients.json"], &out[..]].concat(), 0, "");
    assert_eq!(bench.read("again.safetensors"), bench.read("atoms/best.safetensors"));
    let one = bench.fit("one", &[&FLAGS[..], &["--over", "b"]].concat(), 0, "");
    assert_eq!(one["names"], json!(["b"]));

    let refused =
        |flags: &[&str], code: i32, words: &str| bench.fit("refused", &[&FLAGS[..], flags].concat(), code, words);
    refused(&["--over", "c"], 3, "unknown task \"c\"");
    refused(&["--over", "a,a"], 2, "`a` is there twice");
    let many = ["--metric", "acc", "--serve", "--evaluations", "1000000"];
    bench.fit("refused", &many, 2, "at most 16186 of 2 coefficients expected");
    refused(&["--blocks", "2"], 2, "1 to 1 expected");
    refused(&["--l1=-1"], 2, "0 or more expected");
    refused(&["--init", "atoms/coefficients.json"], 3, "coefficients over tasks expected, over atoms found");
    let atoms = [&FLAGS[..], &originals, &["--over", "atoms"]].concat();
    bench.fit_of(&[], "refused", &atoms, SERVER, 2, "originals have no atoms");
    assert!(!bench.path("refused").exists());
}

#[test]
fn evaluators_that_fail_say_so_and_finished_points_stay() {
    let bench = Bench::new();
    let error = ["--metric", "ac", "--serve", "-q"];
    bench.fit("out", &error, 1, "did you mean \"acc\"?");
    let dies = "read -r path; echo '{\"acc\": 1}'; read -r path; echo broken >&2; exit 3";
    bench.fit_of(&["basis"], "dies", &FLAGS, dies, 1, "broken");
    assert_eq!(bench.points("dies").len(), 1);
    let marked = "while read -r path; do echo '{\"acc\": 1}'; done; : {checkpoint}";
    bench.fit_of(&["basis"], "marked", &FLAGS, marked, 2, "without {checkpoint} expected with --serve");
}

/// Writes a checkpoint of two layers of 300 numbers each, and a head.
fn write_layers(path: &Path, value: impl Fn(usize) -> f32) {
    let names = ["layers.0.w", "layers.1.w", "head.w"];
    let specs = names.map(|name| TensorSpec { name: name.into(), dtype: Dtype::F32, shape: vec![15, 20] });
    let layout = SafetensorsLayout::new(&specs, &BTreeMap::new()).expect("a layout");
    // The bench has files of these names already.
    let _ = std::fs::remove_file(path);
    let writer = SafetensorsWriter::create(path, layout).expect("a file");
    for tensor in 0..3 {
        let bytes: Vec<u8> = (0..300).flat_map(|row| value(300 * tensor + row).to_le_bytes()).collect();
        writer.write_at(tensor, 0, &bytes).expect("written");
    }
    writer.finish().expect("written");
}

fn tensor(path: &Path, name: &str) -> Vec<u8> {
    let checkpoint = Checkpoint::open(path).expect("a checkpoint");
    let tensor = checkpoint.get(name).expect("a tensor");
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).expect("readable");
    bytes
}

/// Coefficients by blocks give in each block the bytes that the same coefficients give everywhere.
#[test]
fn every_kind_of_source_is_edited_by_blocks() {
    let bench = Bench::new();
    let noise = |seed: usize| move |row: usize| ((row * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5;
    write_layers(&bench.path("base.safetensors"), noise(1));
    for (index, name) in ["a", "b", "c"].iter().enumerate() {
        let (base, own) = (noise(1), noise(index + 2));
        write_layers(&bench.path(&format!("{name}.safetensors")), move |row| base(row) + 0.1 * own(row));
    }
    let tasks = ["a.safetensors", "b.safetensors", "c.safetensors"];
    let kinds: [(&str, &[&str]); 4] = [
        ("coded", &[]),
        ("anchored", &["-m", "2", "--method", "anchored"]),
        ("mixed", &["-m", "2", "--bits", "3"]),
        ("random", &["-m", "2", "--method", "random"]),
    ];
    for (name, flags) in kinds {
        let words = [&["compress", "--base", "base.safetensors", "-o", name], flags, &tasks].concat();
        bench.check(&words, 0, "");
    }
    let blocks =
        json!([{"name": "block0", "tensors": ["layers.0.w"]}, {"name": "rest", "tensors": ["head.w", "layers.1.w"]}]);
    let file = |name: &str, over: &str, names: Value, blocks: Value, values: Value| {
        let text = json!({"format": "tvb-coefficients", "version": 1, over: names, "blocks": blocks, "values": values});
        std::fs::write(bench.path(name), text.to_string()).unwrap();
    };
    let both = [("tasks", json!(["c", "a"])), ("atoms", json!(["atom-01", "atom-00"]))];
    for (over, names) in both {
        file("blocks.json", over, names.clone(), blocks.clone(), json!([[0.5, -0.25], [0.0, 1.5]]));
        file("row0.json", over, names.clone(), Value::Null, json!([0.5, -0.25]));
        file("row1.json", over, names.clone(), Value::Null, json!([0.0, 1.5]));
        let kinds = ["coded", "anchored", "mixed", "random", "originals"];
        for kind in kinds.into_iter().filter(|kind| over == "tasks" || *kind != "originals") {
            for delta in [false, true] {
                for which in ["blocks", "row0", "row1"] {
                    let (coefficients, out) = (format!("{which}.json"), format!("{which}.safetensors"));
                    let mut words = vec!["apply", "--coefficients", &coefficients, "--base", "base.safetensors"];
                    words.extend(["-o", &out, "--overwrite", "--scale", "0.5"]);
                    words.extend(delta.then_some("--delta"));
                    match kind {
                        "originals" => words.extend(["--from-checkpoints", tasks[0], tasks[1], tasks[2]]),
                        kind => words.insert(1, kind),
                    }
                    bench.check(&words, 0, "");
                }
                for (name, row) in [("layers.0.w", "row0"), ("layers.1.w", "row1"), ("head.w", "row1")] {
                    let own = tensor(&bench.path("blocks.safetensors"), name);
                    let expected = tensor(&bench.path(&format!("{row}.safetensors")), name);
                    assert!(own == expected, "{kind} over {over}, delta {delta}: {name}");
                    let other = if row == "row0" { "row1" } else { "row0" };
                    assert!(own != tensor(&bench.path(&format!("{other}.safetensors")), name), "{kind} {name}");
                }
            }
        }
    }
    let apply = |code: i32, words: &str| {
        let out = ["--base", "base.safetensors", "-o", "refused.safetensors"];
        bench.check(&[&["apply", "coded", "--coefficients", "bad.json"], &out[..]].concat(), code, words);
        assert!(!bench.path("refused.safetensors").exists());
    };
    let one = json!([{"name": "x", "tensors": ["layers.0.w"]}]);
    file("bad.json", "tasks", json!(["a"]), one, json!([[1]]));
    apply(3, "it is in no block");
    let unknown = json!([{"name": "x", "tensors": ["layers.0.w", "layers.1.w", "head.v"]}]);
    file("bad.json", "tasks", json!(["a"]), unknown, json!([[1]]));
    apply(3, "did you mean `head.w`?");
    file("bad.json", "tasks", json!(["d"]), Value::Null, json!([1]));
    apply(3, "unknown task");
    file("bad.json", "atoms", json!(["atom-07"]), Value::Null, json!([1]));
    apply(3, "unknown atom `atom-07`");
    file("bad.json", "tasks", json!(["a"]), Value::Null, json!([1e300]));
    apply(2, "expected");

    // Each layer has an optimum of its own: 2·a in the first, −2·a in the second.
    let order = |name: &str| {
        let checkpoint = Checkpoint::open(&bench.path("base.safetensors")).unwrap();
        let place = checkpoint.tensors().iter().position(|tensor| tensor.name == name).unwrap();
        (1 + 300 * place, 300 * place)
    };
    let wanted = |name: &str, weight: f32| {
        let row = order(name).1;
        noise(1)(row) + weight * 0.1 * noise(2)(row)
    };
    let server = format!(
        r#"
        while read -r path; do
            tail -c 3600 "$path" | od -An -v -tf4 -w4 | awk '
                NR == {} {{ far += ($1 - ({})) ^ 2 }} NR == {} {{ far += ($1 - ({})) ^ 2 }}
                END {{ printf "{{\"far\": %.12f}}\n", far }}'
        done"#,
        order("layers.0.w").0,
        wanted("layers.0.w", 2.0),
        order("layers.1.w").0,
        wanted("layers.1.w", -2.0)
    );
    let flags =
        ["--metric", "far", "--minimize", "--serve", "-q", "--over", "a", "--from-checkpoints", tasks[0], tasks[1]];
    let uniform = bench.fit_of(&[], "uniform", &flags, &server, 0, "");
    let blocks = bench.fit_of(&[], "by-block", &[&["--blocks", "2"], &flags[..]].concat(), &server, 0, "");
    let far = |results: &Value| results["best"]["metrics"]["far"].as_f64().unwrap();
    let values = blocks["best"]["values"].as_array().unwrap();
    assert!(far(&blocks) < 0.01 * far(&uniform), "{} {} {values:?}", far(&blocks), far(&uniform));
    assert_eq!(values.len(), 2);
}

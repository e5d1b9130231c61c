//! Sweeps as a user runs them: a tiny evaluator in `sh`, checkpoints of a few numbers, and what is left on the disk.
#![cfg(unix)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb::checkpoint::{Checkpoint, Dtype, SafetensorsLayout, SafetensorsWriter, TensorSpec};

/// Counts its runs in `runs` beside the sweep and prints metrics of the scale: `acc` has its top at 0.5, `kept` falls from
/// 1, `digits` rises from 0.
const EVALUATOR: &str = r#"
    echo run >> runs
    awk -v s="$2" 'BEGIN { printf "{\"acc\": %.6f, \"kept\": %.6f, \"digits\": %.6f}\n", 1 - (s - 0.5) ^ 2, 1 - s / 4, s / 2 }'
"#;

/// A folder with a base, two fine-tunes and a basis of them.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let bench = Bench { folder: TempDir::new().expect("a temporary folder") };
        bench.write("base.safetensors", [1.0, 2.0, 3.0, 4.0]);
        bench.write("a.safetensors", [2.0, 2.0, 3.0, 4.0]);
        bench.write("b.safetensors", [1.0, 2.0, 5.0, 4.5]);
        bench.check(
            &["compress", "--base", "base.safetensors", "a.safetensors", "b.safetensors", "-m", "2", "-o", "basis"],
            0,
            "",
        );
        bench
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, values: [f32; 4]) {
        let specs = [TensorSpec { name: "w".into(), dtype: Dtype::F32, shape: vec![4] }];
        let layout = SafetensorsLayout::new(&specs, &BTreeMap::new()).expect("a layout");
        let writer = SafetensorsWriter::create(&self.path(name), layout).expect("a file");
        writer.write_at(0, 0, &values.map(f32::to_le_bytes).concat()).expect("written");
        writer.finish().expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> [f32; 4] {
        let checkpoint = Checkpoint::open(&self.path(name)).expect("a checkpoint");
        let mut bytes = [0; 16];
        checkpoint.read(&checkpoint.tensors()[0], 0, &mut bytes).expect("readable");
        std::array::from_fn(|index| f32::from_le_bytes(std::array::from_fn(|byte| bytes[index * 4 + byte])))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
        command.args(words).args(["--device", "cpu", "-q"]).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG");
        command
    }

    /// Runs `tvb WORDS`; checks the exit code and a part of stderr.
    #[track_caller]
    pub(crate) fn check(&self, words: &[&str], exit_code: i32, stderr: &str) -> Output {
        let output = self.command(words).output().expect("tvb runs");
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit_code), "tvb {words:?}: {shown}");
        assert!(shown.contains(stderr), "{stderr:?} in {shown}");
        output
    }

    /// `tvb sweep add basis … -o OUT` with `flags` and this script as the evaluator; answers with results.json.
    #[track_caller]
    fn sweep(&self, out: &str, flags: &[&str], script: &str, exit_code: i32, stderr: &str) -> Value {
        let mut words = vec!["sweep", "add", "basis", "--base", "base.safetensors", "-o", out];
        words.extend(flags);
        words.extend(["-q", "--", "sh", "-c", script, "evaluator", "{checkpoint}", "{scale}"]);
        let output = Command::new(env!("CARGO_BIN_EXE_tvb"))
            .args(&words)
            .current_dir(self.folder.path())
            .env("TVB_DEVICE", "cpu")
            .env_remove("TVB_LOG")
            .stdin(Stdio::null())
            .output()
            .expect("tvb runs");
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit_code), "tvb {words:?}: {shown}");
        assert!(shown.contains(stderr), "{stderr:?} in {shown}");
        let results = std::fs::read(self.path(out).join("results.json")).unwrap_or_default();
        serde_json::from_slice(&results).unwrap_or(Value::Null)
    }

    pub(crate) fn n_runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const GRID: [&str; 2] = ["--scales", "0:1:0.25"];

#[test]
fn the_best_candidate_is_kept() {
    let bench = Bench::new();
    let results = bench.sweep("out", &[&GRID[..], &["--metric", "acc"]].concat(), EVALUATOR, 0, "");
    assert_eq!(results["best"]["scale"], 0.5);
    assert_eq!(results["points"].as_array().map(Vec::len), Some(5));
    assert_eq!(bench.read("out/best.safetensors"), [1.5, 2.0, 4.0, 4.25]);
    let left = names(&bench.path("out"));
    assert_eq!(left, ["best.safetensors", "plot.svg", "points.jsonl", "results.csv", "results.json"]);
    let csv = std::fs::read_to_string(bench.path("out/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 6);
    assert!(csv.starts_with("scale,eligible,seconds,acc,digits,kept\n0,true,"), "{csv}");

    let flags = [&GRID[..], &["--metric", "acc", "--minimize", "--keep-all"]].concat();
    let results = bench.sweep("low", &flags, EVALUATOR, 0, "");
    assert_eq!(results["best"]["scale"], 0.0, "0 and 1 are equal: the smaller edit");
    assert_eq!(names(&bench.path("low/candidates")).len(), 5);
    assert_eq!(bench.read("low/candidates/scale-0.25.safetensors"), [1.25, 2.0, 3.5, 4.125]);
}

#[test]
fn an_edit_from_the_originals_is_the_same() {
    let bench = Bench::new();
    let words =
        ["sweep", "negate", "b", "--base", "base.safetensors", "-o", "out", "--scales", "0.5", "--metric", "acc"];
    let originals = ["--from-checkpoints", "a.safetensors", "b.safetensors"];
    let script = ["--", "sh", "-c", EVALUATOR, "evaluator", "{checkpoint}", "{scale}"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args([&words[..], &originals, &script].concat()).current_dir(bench.folder.path()).env("TVB_DEVICE", "cpu");
    let output = command.output().expect("tvb runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(bench.read("out/best.safetensors"), [1.0, 2.0, 2.0, 3.75]);
    bench.check(
        &[
            "add",
            "--base",
            "base.safetensors",
            "-o",
            "delta.safetensors",
            "--delta",
            originals[0],
            originals[1],
            originals[2],
        ],
        0,
        "",
    );
    assert_eq!(bench.read("delta.safetensors"), [1.0, 0.0, 2.0, 0.5]);
}

#[test]
fn the_control_must_be_kept() {
    let bench = Bench::new();
    let flags = |keep: &'static str| [&GRID[..], &["--metric", "digits", "--control", "kept", "--keep", keep]].concat();
    let results = bench.sweep("out", &flags("0.9"), EVALUATOR, 0, "");
    assert_eq!(results["best"]["scale"], 0.25);
    assert_eq!(results["zero_shot"]["kept"], 1.0);
    let eligible: Vec<bool> = results["points"].as_array().unwrap().iter().map(|p| p["eligible"] == true).collect();
    assert_eq!(eligible, [true, true, false, false, false]);

    // Another choice needs no new evaluation.
    assert_eq!(bench.n_runs(), 5);
    let results = bench.sweep("out", &flags("1.1"), EVALUATOR, 1, "none of 5 scales keeps kept at 1.100000");
    assert_eq!((bench.n_runs(), &results["best"]), (5, &Value::Null));
    assert!(!bench.path("out/best.safetensors").exists());

    std::fs::write(bench.path("zeroshot.json"), r#"{"kept": 0.5}"#).unwrap();
    let results = bench.sweep("out", &[flags("1"), vec!["--reference", "zeroshot.json"]].concat(), EVALUATOR, 0, "");
    assert_eq!(results["best"]["scale"], 1.0);
}

#[test]
fn normalised_metrics_may_decide() {
    let bench = Bench::new();
    std::fs::write(bench.path("tuned.json"), r#"{"digits": 0.5, "kept": 0.5, "unknown": 1}"#).unwrap();
    let flags = ["--scales", "0.5,1", "--metric", "normalized", "--normalize-by", "tuned.json", "--eval-zero-shot"];
    let results = bench.sweep("out", &flags, EVALUATOR, 0, "");
    assert_eq!(results["points"][1]["metrics"]["normalized"], (0.5 / 0.5 + 0.75 / 0.5) / 2.0);
    assert_eq!(results["points"][1]["metrics"]["normalized.digits"], 1.0);
    assert_eq!(results["zero_shot"]["normalized"], 1.0);
    assert_eq!(results["points"].as_array().map(Vec::len), Some(2), "the base is no point of the grid");
}

#[test]
fn a_stopped_sweep_goes_on_where_it_was() {
    let bench = Bench::new();
    let flags = [&GRID[..], &["--metric", "acc"]].concat();
    let failing =
        format!("{EVALUATOR}\n if [ -e broken ] && [ \"$2\" = 0.5 ]; then echo out of memory >&2; exit 7; fi");
    std::fs::write(bench.path("broken"), "").unwrap();
    bench.sweep("out", &flags, &failing, 1, "out of memory");
    assert_eq!(bench.n_runs(), 3);
    assert_eq!(names(&bench.path("out")), ["points.jsonl"]);
    std::fs::remove_file(bench.path("broken")).unwrap();
    let log = std::fs::OpenOptions::new().append(true).open(bench.path("out/points.jsonl")).unwrap();
    std::io::Write::write_all(&mut &log, b"{\"scale\": 0.5, \"met").unwrap();
    let resumed = bench.sweep("out", &flags, &failing, 0, "");
    assert_eq!(bench.n_runs(), 6, "three points were left");
    let whole = bench.sweep("whole", &flags, &failing, 0, "");
    for (a, b) in resumed["points"].as_array().unwrap().iter().zip(whole["points"].as_array().unwrap()) {
        assert_eq!((&a["scale"], &a["metrics"]), (&b["scale"], &b["metrics"]));
    }

    bench.sweep("out", &flags, EVALUATOR, 3, "it differs in: evaluator");
    bench.sweep("out", &[&flags[..], &["--task", "a"]].concat(), &failing, 3, "it differs in: alpha");
    bench.sweep("out", &[&flags[..], &["--overwrite"]].concat(), EVALUATOR, 0, "");
    bench.sweep("basis", &flags, EVALUATOR, 3, "a sweep's own expected");
}

#[test]
fn several_at_once_find_the_same() {
    let bench = Bench::new();
    let flags = |jobs: &'static str| ["--scales", "0:1:0.1", "--metric", "acc", "--jobs", jobs];
    let one = bench.sweep("one", &flags("1"), EVALUATOR, 0, "");
    let two = bench.sweep("two", &flags("2"), EVALUATOR, 0, "");
    assert_eq!(one["fingerprint"], two["fingerprint"]);
    assert_eq!(one["best"]["scale"], two["best"]["scale"]);
    let metrics = |results: &Value| -> Vec<Value> {
        results["points"].as_array().unwrap().iter().map(|point| point["metrics"].clone()).collect()
    };
    assert_eq!((metrics(&one), metrics(&one).len()), (metrics(&two), 11));
    assert_eq!(bench.read("one/best.safetensors"), bench.read("two/best.safetensors"));
}

#[test]
fn evaluators_that_fail_say_so() {
    let bench = Bench::new();
    let check = |out: &str, flags: &[&str], script: &str, exit_code: i32, stderr: &str| {
        bench.sweep(out, &[&GRID[..], flags].concat(), script, exit_code, stderr);
    };
    check("1", &["--metric", "acc"], "kill -9 $$", 1, "signal: 9");
    check(
        "2",
        &["--metric", "acc"],
        "echo fine",
        1,
        "a JSON object of metrics on the last line of its stdout expected",
    );
    check("3", &["--metric", "acc", "--timeout", "200ms"], "sleep 60 & sleep 60", 1, "took more than 0.2 s");
    check(
        "4",
        &["--metric", "ac"],
        EVALUATOR,
        1,
        "no metric \"ac\" among those printed: acc, digits, kept\nhint: did you mean \"acc\"?",
    );
    check("4", &["--metric", "acc", "--control", "keep"], EVALUATOR, 1, "did you mean \"kept\"?");
    check("5", &["--metric", "acc", "--task", "c"], EVALUATOR, 3, "unknown task \"c\"");
    check("5", &["--metric", "acc", "--scales", "1:0:1"], EVALUATOR, 2, "");
    check("5", &["--metric", "acc", "--normalize-by", "runs"], EVALUATOR, 3, "a JSON object of metrics");
    assert!(!bench.path("5").exists());
    assert!(!bench.path("3/candidates").exists());
    bench.check(&["sweep", "add", "basis", "--base", "base.safetensors", "-o", "6", "--metric", "acc"], 2, "CMD");
}

#[test]
fn an_interrupted_sweep_keeps_its_points() {
    let bench = Bench::new();
    let script = "echo run >> runs; [ $2 = 0 ] || sleep 60; echo '{\"acc\": 1}'";
    let words = ["sweep", "add", "basis", "--base", "base.safetensors", "-o", "out", "--metric", "acc"];
    let child = bench
        .command(&words)
        .args(["--", "sh", "-c", script, "evaluator", "{checkpoint}", "{scale}"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("tvb runs");
    while bench.n_runs() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(asked.success());
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("1 finished points are kept"), "{stderr}");
    assert_eq!(std::fs::read_to_string(bench.path("out/points.jsonl")).unwrap().lines().count(), 2);
}

#[test]
fn a_signal_for_the_evaluator_too_is_an_interruption() {
    let bench = Bench::new();
    // The evaluator dies of the signal first, and says so in three ways; then it reaches tvb.
    for (number, end) in ["kill -TERM $$", "kill -INT $$", "exit 143"].iter().enumerate() {
        let script = format!("(sleep 0.1; kill -TERM $PPID) & {end}");
        let output = format!("out{number}");
        let words = ["sweep", "add", "basis", "--base", "base.safetensors", "-o", &output, "--metric", "acc"];
        let ended = bench
            .command(&words)
            .args(["--", "sh", "-c", &script, "evaluator", "{checkpoint}"])
            .output()
            .expect("tvb runs");
        assert_eq!(ended.status.code(), Some(130), "{end}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

/// Answers each path on its stdin with metrics of the scale in the path's name, where the candidate is there.
const SERVING: &str = r#"
    echo start >> runs
    while IFS= read -r path; do
        test -f "$path" || exit 7
        echo looking at it
        s=${path##*scale-}
        awk -v s="${s%.safetensors}" 'BEGIN { printf "{\"acc\": %.6f}\n", 1 - (s - 0.5) ^ 2 }'
    done
"#;

#[test]
fn one_evaluator_serves_all_candidates() {
    let bench = Bench::new();
    let words = |script: &'static str, flags: &[&'static str]| {
        let words = ["sweep", "add", "basis", "--base", "base.safetensors", "-o", "a folder/out", "--metric", "acc"];
        [&words[..], &GRID, &["--serve"], flags, &["--", "sh", "-c", script]].concat()
    };
    let run = |words: &[&str]| {
        let at = words.iter().position(|word| *word == "--").expect("an evaluator");
        let (before, evaluator) = words.split_at(at);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
        command.args(before).args(["--device", "cpu", "-q"]).args(evaluator).current_dir(bench.folder.path());
        let output = command.stdin(Stdio::null()).output().expect("tvb runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // One that dies midway leaves what was finished, and no candidate.
    let dying = "for i in 1 2; do read -r path; echo '{\"acc\": 1}'; done; read -r path; echo boom >&2; exit 3";
    let (code, stderr) = run(&words(dying, &[]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("scale-0.5.safetensors expected, it ended instead (exit status: 3)"), "{stderr}");
    assert!(stderr.contains("boom"), "{stderr}");
    assert_eq!(names(&bench.path("a folder/out")), ["points.jsonl"]);
    let points = std::fs::read_to_string(bench.path("a folder/out/points.jsonl")).unwrap();
    assert_eq!(points.lines().count(), 3);

    let (code, stderr) = run(&words(SERVING, &["--overwrite"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(bench.n_runs(), 1, "started once");
    assert_eq!(bench.read("a folder/out/best.safetensors"), [1.5, 2.0, 4.0, 4.25]);
    let left = names(&bench.path("a folder/out"));
    assert_eq!(left, ["best.safetensors", "plot.svg", "points.jsonl", "results.csv", "results.json"]);

    let (code, stderr) = run(&words(SERVING, &["--overwrite", "--jobs", "2"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!((2..=3).contains(&bench.n_runs()), "at most once for each job");
    let (code, stderr) = run(&words("cat {checkpoint}", &["--overwrite"]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("without {checkpoint} expected with --serve"), "{stderr}");
}

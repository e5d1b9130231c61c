//! Coded bases as a user meets them: the flags, exit codes, the decoder in docs/format.md, batch, sweep.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tvb_tests::small_models::{Random, Stored, contents, shapes, values, write_model, write_run};

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

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const SHAPES: &[&[usize]] =
    &[&[257, 67], &[300], &[3, 5, 7, 11], &[], &[0, 4], &[1, 256], &[130, 257], &[3, 3], &[64, 64]];
const INPUTS: [&str; 6] =
    ["--base", "base.safetensors", "task0.safetensors", "task1.safetensors", "task2.safetensors", "task3.safetensors"];

/// A Python that has numpy: the one that is named, the one of `cargo xtask interop`, the system's.
fn python() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interop-venv/bin/python");
    let named = std::env::var_os("TVB_PYTHON").map(PathBuf::from);
    let candidates = named.into_iter().chain([own, "python3".into(), "python".into()]);
    let has_numpy = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "import numpy"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    candidates.into_iter().find(has_numpy)
}

/// The Python blocks of the document that make the decoder: the table of levels, and what follows it.
fn documented_decoder() -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    let text = std::fs::read_to_string(document).expect("docs/format.md");
    let blocks: Vec<&str> = text.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let block =
        |holds: &str| *blocks.iter().find(|block| block.contains(holds)).unwrap_or_else(|| panic!("no {holds}"));
    format!("{}\n{}", block("LEVELS = {"), block("def decode("))
}

/// Compares what `decode` answers with what `tvb recover` wrote; its own reader of f32, since the decoder needs none.
const COMPARE: &str = r#"
import sys
def recovered(path):
    data = open(path, "rb").read()
    start = 8 + int.from_bytes(data[:8], "little")
    entries = {name: entry for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"}
    assert all(entry["dtype"] == "F32" for entry in entries.values()), entries
    return {name: np.frombuffer(data[start:][slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
            for name, entry in entries.items()}
for bits in sys.argv[1:]:
    decode_weights = load(f"basis-{bits}/coefficients.safetensors")["decode.model"]
    for task in range(decode_weights.shape[1]):
        found, expected = decode(f"basis-{bits}", decode_weights[:, task]), recovered(f"tasks-{bits}/task{task}.safetensors")
        assert set(found) == set(expected) and len(found) > 5, (list(found), list(expected))
        for name, value in expected.items():
            off = abs(found[name] - value).max()
            assert found[name].shape == value.shape and off <= 1e-6 * abs(value).max(), (bits, task, name, off)
print("the same")
"#;

#[test]
fn the_decoder_in_the_document_decodes() {
    let Some(python) = python() else {
        assert!(std::env::var_os("TVB_PYTHON").is_none(), "TVB_PYTHON: a Python with numpy expected");
        println!("no Python with numpy here: the document's decoder was not run");
        return;
    };
    let top = tempfile::tempdir().expect("a folder");
    let mut shapes = shapes(SHAPES);
    shapes.iter_mut().for_each(|shape| shape.stored = Stored::Bf16);
    let (base, mut tasks) = values(&shapes, 4, &mut Random(3));
    // Frozen ones in the middle and at the end.
    for task in &mut tasks {
        task[2].clone_from(&base[2]);
        task[8].clone_from(&base[8]);
    }
    write_model(top.path(), "base", &shapes, &base, 1);
    for (index, values) in tasks.iter().enumerate() {
        write_model(top.path(), &format!("task{index}"), &shapes, values, 1);
    }
    let all = ["0.25", "0.5", "1", "1.6", "2", "3", "4", "5", "6", "8"];
    for (index, bits) in all.iter().enumerate() {
        let (basis, folder) = (format!("basis-{bits}"), format!("tasks-{bits}"));
        let kept = all[(index + 3) % all.len()];
        let args = [
            "compress",
            "--bits",
            bits,
            "--keep-sum",
            kept,
            "--keep",
            "task0 + task1",
            "--seed",
            "18446744073709551557",
            "-o",
            &basis,
        ];
        run(top.path(), 0, &[&args[..], &INPUTS].concat());
        run(top.path(), 0, &["recover", &basis, "-o", &folder]);
    }
    std::fs::write(top.path().join("decoder.py"), documented_decoder() + COMPARE).expect("written");
    let output =
        Command::new(python).arg("decoder.py").args(all).current_dir(top.path()).output().expect("Python runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim() == "the same", "{out}{err}");
}

#[test]
fn flags_that_make_no_sense_are_refused_and_nothing_is_left() {
    let top = tempfile::tempdir().expect("a folder");
    write_run(top.path(), &[&[40, 70], &[9]], 4, 2);
    let before = names(top.path());
    let cases: [(&[&str], i32, &str); 19] = [
        (&["--bits", "7"], 2, "one of 0.25, 0.5, 1, 1.6, 2, 3, 4, 5, 6, 8 expected, \"7\" found"),
        (&["--bits", "two"], 2, "\"two\" found"),
        (&["--keep-sum", "7"], 2, "\"7\" found"),
        (&["--keep-sum", "no"], 2, "\"no\" found"),
        (&["--keep", "task0 + nobody"], 3, "nobody"),
        (&["--keep", "task0:7"], 2, "\"7\" found"),
        (&["--keep", "task0:2", "--keep", "task1:3"], 2, "the same bits for all that is kept expected, 2 and 3 found"),
        (&["--keep-sum", "2", "--keep", "task1:3"], 2, "the same bits"),
        (
            &["--keep", "task0", "--keep", "task1", "--keep", "task2", "--keep", "task3"],
            2,
            "at most 4 kept edits expected, 5 found",
        ),
        (&["--dtype", "bf16"], 2, "--dtype without a method"),
        (&["--bits", "2", "--dtype", "bf16"], 2, "cannot be used with"),
        (&["--bits", "2", "--max-bytes", "50%"], 2, "--bits and a budget"),
        (&["--bits", "2", "--max-error", "0.1"], 2, "--bits and a budget"),
        (&["-m", "2", "--keep-sum", "3"], 2, "--keep-sum and --keep are about codes"),
        (&["--method", "pca", "-m", "1", "--keep", "task0"], 2, "--keep-sum and --keep are about codes"),
        (&["--method", "random", "-m", "2", "--bits", "2"], 2, "method 'random'"),
        (&["--max-bytes", "10"], 3, "needed for the smallest codes (0.25+4 bits)"),
        (&["--max-error", "1e-9"], 3, "no code reaches an error of 0.000000001: 8+off bits have"),
        (&["--weight", "nobody:2"], 3, "nobody"),
    ];
    for (flags, exit_code, expected) in cases {
        let (_, err) = run(top.path(), exit_code, &[&["compress", "-o", "basis"], flags, &INPUTS].concat());
        assert!(err.contains(expected), "{flags:?}: {expected:?} expected in {err}");
        assert!(exit_code == 2 || err.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{err}");
        assert_eq!(names(top.path()), before, "{flags:?}");
    }
    // What the smallest needs is enough, and a byte less is not.
    let (_, err) = run(top.path(), 3, &[&["compress", "-o", "basis", "--max-bytes", "10"][..], &INPUTS].concat());
    let needed: u64 =
        err.split("asked for, ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a number");
    run(top.path(), 3, &[&["compress", "-o", "basis", "--max-bytes", &(needed - 1).to_string()][..], &INPUTS].concat());
    run(top.path(), 0, &[&["compress", "-o", "basis", "--max-bytes", &needed.to_string()][..], &INPUTS].concat());
}

#[test]
fn a_damaged_code_ends_an_edit_and_verify_names_the_file() {
    let top = tempfile::tempdir().expect("a folder");
    write_run(top.path(), &[&[140, 270], &[9]], 4, 2);
    run(top.path(), 0, &[&["compress", "-o", "basis", "--bits", "1"][..], &INPUTS].concat());
    run(top.path(), 0, &["verify", "basis"]);
    let atom = top.path().join("basis/atom-02.safetensors");
    let mut bytes = std::fs::read(&atom).expect("read");
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(&atom, &bytes).expect("written");
    let before = names(top.path());
    for args in [
        &["add", "basis", "--base", "base.safetensors", "-o", "out.safetensors"][..],
        &["add", "basis", "--delta", "-o", "out.safetensors"],
        &["apply", "basis", "task1 - task2", "--base", "base.safetensors", "-o", "out.safetensors"],
        &["recover", "basis", "-o", "tasks"],
        &["export", "basis", "-o", "published"],
    ] {
        let (_, err) = run(top.path(), 3, args);
        assert!(err.contains("atom-02.safetensors: its checksum does not match"), "{args:?}: {err}");
        assert_eq!(names(top.path()), before, "{args:?}");
    }
    // What does not need the column does not read it.
    run(top.path(), 0, &["recover", "basis", "task0", "-o", "one"]);
    let Output { status, stdout, stderr } = tvb(top.path(), &["verify", "basis"]);
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(!status.success() && text.contains("atom-02.safetensors"), "{text}");
}

const JOBS: &str = r#"
[defaults]
base = "base.safetensors"
tasks = ["task0.safetensors", "task1.safetensors", "task2.safetensors"]

[[job]]
name = "plain"
output = "out/{job}-{method}-{bits}"
[[job.after]]
add = { scale = 0.3, output = "out/{job}-add.safetensors" }
[[job.after]]
apply = { expression = "task0 - task1", output = "out/{job}-apply.safetensors", delta = true }

[[job]]
name = "rates"
bits = [1, 1.6, "4"]
keep_sum = 4
keep = "task0 + task1"
output = "out/{job}-{bits}"

[[job]]
name = "mixed"
method = ["anchored", "pca"]
m = 2
bits = [2, 8]
output = "out/{job}-{method}-{m}-{bits}"
"#;

fn outcomes(answer: &Value) -> Vec<&str> {
    let records = answer["records"].as_array().unwrap_or_else(|| panic!("no records in {answer:#}"));
    records.iter().map(|record| record["outcome"].as_str().expect("a word")).collect()
}

#[test]
fn a_batch_codes_as_compress_does_and_makes_nothing_twice() {
    let top = tempfile::tempdir().expect("a folder");
    write_run(top.path(), &[&[200, 300], &[20, 20], &[5]], 3, 1);
    let put = |text: &str| std::fs::write(top.path().join("jobs.toml"), text).expect("written");
    let batch = |exit_code: i32| run(top.path(), exit_code, &["batch", "jobs.toml", "--json", "-q"]).0;
    put(JOBS);
    let (dry, _) = run(top.path(), 0, &["batch", "jobs.toml", "--dry-run", "--json"]);
    assert_eq!((&dry["problems"], &dry["n_gram_passes"]), (&serde_json::json!([]), &1.into()), "{dry:#}");
    let answer = batch(0);
    assert_eq!(outcomes(&answer), vec!["made"; 3 + 3 + 4], "{answer:#}");
    let made = contents(&top.path().join("out"));
    let written: u64 = made
        .iter()
        .filter(|(name, _)| name.to_string_lossy().contains("atom-"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert!(dry["write_bytes"].as_u64().is_some_and(|most| most + 20_000 > written), "{dry:#}, {written}");
    assert_eq!(outcomes(&batch(0)), vec!["current"; 10]);
    assert!(contents(&top.path().join("out")) == made);

    // What compress makes, by itself.
    let inputs = &INPUTS[..5];
    run(top.path(), 0, &[&["compress", "-o", "default"], inputs].concat());
    let keep = ["--keep-sum", "4", "--keep", "task0 + task1"];
    run(top.path(), 0, &[&["compress", "-o", "three", "--bits", "1.6"], &keep[..], inputs].concat());
    run(top.path(), 0, &[&["compress", "-o", "mixed", "--method", "pca", "-m", "2", "--bits", "8"], inputs].concat());
    for (single, output) in [("default", "plain-identity-2"), ("three", "rates-1.6"), ("mixed", "mixed-pca-2-8")] {
        let output = top.path().join("out").join(output);
        // The manifests differ in where the inputs were, which a batch says in full.
        let files = |folder: &Path| {
            let mut files = contents(folder);
            files.remove(Path::new("basis.json"));
            files
        };
        assert!(files(&top.path().join(single)) == files(&output), "{single}");
    }

    // Every word about codes makes it another basis.
    for (from, to, n_other) in [
        ("keep_sum = 4", "keep_sum = 3", 3),
        ("keep = \"task0 + task1\"", "keep = \"task0 + task2\"", 3),
        ("keep = \"task0 + task1\"", "keep = \"task0 + task1\"\nseed = 3", 3),
        ("keep = \"task0 + task1\"", "keep = \"task0 + task1\"\nweights = { task1 = 2 }", 3),
        ("bits = [1, 1.6, \"4\"]", "dtype = \"f16\"\nmethod = \"identity\"", 1),
    ] {
        let mut text = JOBS.replace(from, to);
        if n_other == 1 {
            text = text
                .replace("keep_sum = 4\nkeep = \"task0 + task1\"\n", "")
                .replace("out/{job}-{bits}", "out/{job}-1.6");
        }
        put(&text);
        let answer = batch(1);
        let n_failed = outcomes(&answer).iter().filter(|word| **word == "failed").count();
        assert_eq!(n_failed, n_other, "{to}: {answer:#}");
    }
    put(&JOBS.replace("keep_sum = 4", "keep_sum = 3\noverwrite = true"));
    let answer = batch(0);
    assert_eq!(outcomes(&answer)[3..6], ["made"; 3], "{answer:#}");

    // A flipped bit that no time shows.
    put(JOBS.replace("keep_sum = 4", "keep_sum = 3").as_str());
    let atom = top.path().join("out/rates-4/atom-01.safetensors");
    let mut bytes = std::fs::read(&atom).expect("read");
    let at = bytes.len() - 9;
    bytes[at] ^= 1;
    std::fs::write(&atom, bytes).expect("written");
    let answer = batch(1);
    assert_eq!(outcomes(&answer)[5], "failed", "{answer:#}");
    assert!(
        answer["records"][5]["error"]["message"].as_str().is_some_and(|text| text.contains("atom-01")),
        "{answer:#}"
    );
}

#[cfg(unix)]
#[test]
fn a_sweep_forms_its_candidates_from_codes() {
    let top = tempfile::tempdir().expect("a folder");
    write_run(top.path(), &[&[90, 300], &[5]], 4, 3);
    run(top.path(), 0, &[&["compress", "-o", "basis", "--bits", "4"][..], &INPUTS].concat());
    let script = "printf '{\"acc\": %s}\\n' $(awk \"BEGIN { print 1 - ($2 - 0.5) * ($2 - 0.5) }\")";
    let words = [
        "sweep",
        "add",
        "basis",
        "--base",
        "base.safetensors",
        "-o",
        "out",
        "--scales",
        "0:1:0.25",
        "--metric",
        "acc",
        "-q",
    ];
    run(top.path(), 0, &[&words[..], &["--", "sh", "-c", script, "evaluator", "{checkpoint}", "{scale}"]].concat());
    let results: Value =
        serde_json::from_slice(&std::fs::read(top.path().join("out/results.json")).expect("read")).expect("JSON");
    assert_eq!((&results["best"]["scale"], results["points"].as_array().map(Vec::len)), (&0.5.into(), Some(5)));
    // The best one is what add makes, to the rounding of its steps.
    run(top.path(), 0, &["add", "basis", "--base", "base.safetensors", "--scale", "0.5", "-o", "added.safetensors"]);
    let read = |name: &str| {
        let bytes = std::fs::read(top.path().join(name)).expect("read");
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
        let values = bytes[start..].as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw));
        values.collect::<Vec<f32>>()
    };
    let (best, added) = (read("out/best.safetensors"), read("added.safetensors"));
    assert!(best.len() == added.len() && best.len() == 90 * 300 + 5);
    assert!(best.iter().zip(&added).all(|(best, added)| (best - added).abs() < 1e-5));
}

//! Weights that differ between tensors, on the zoo's models: what comes out is plain arithmetic, from the originals, from mixtures and
//! from codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb::checkpoint::Checkpoint;

fn zoo(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tvb-zoo/checkpoints");
    folder.join(format!("{name}.safetensors")).to_string_lossy().into_owned()
}

fn tvb(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(words).args(["--device", "cpu", "-q"]).stdin(Stdio::null());
    command.env_remove("TVB_DEVICE").env_remove("TVB_LOG").output().expect("tvb runs")
}

#[track_caller]
fn check(words: &[&str], exit_code: i32, stderr: &str) {
    let output = tvb(words);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit_code), "tvb {words:?}: {shown}");
    assert!(shown.contains(stderr), "{stderr:?} in {shown}");
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f64> {
    let tensor = checkpoint.get(name).expect("a tensor");
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).expect("read");
    let exact = tvb_kernels::convert(&bytes, tensor.dtype.float().expect("a float"), tvb_kernels::Dtype::F64);
    exact.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect()
}

const RULES: [&str; 6] = ["--lines", "0.25:0.5", "--weight-for", "digits:conv1=0", "--weight-for", "norm=2"];

/// What the rules say of digits and of letters.
fn factors(name: &str) -> [f64; 2] {
    let depth = if name.contains("blocks.1.") { 0.75 } else { 0.25 };
    let norm = if name.contains("norm") { 2.0 } else { 1.0 };
    [if name.contains("conv1") { 0.0 } else { depth * norm }, depth * norm]
}

/// Bare edits of every task alone, and the edit with the rules: the latter is the sum of the former by the factors.
#[track_caller]
fn is_plain_arithmetic(folder: &Path, source: &[&str]) {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let write = |name: &str, words: &[&str]| {
        let out = path(name);
        check(
            &[&["add"], source, &["--base", &zoo("base"), "--delta", "--overwrite", "-o", &out], words].concat(),
            0,
            "",
        );
        Checkpoint::open(&PathBuf::from(out)).expect("an edit")
    };
    let alone = ["digits", "letters"].map(|task| write(&format!("{task}.safetensors"), &["--task", task]));
    let tasks = ["--task", "digits:0.5", "--task", "letters:-1"];
    let whole = write("whole.safetensors", &[&tasks[..], &RULES].concat());
    let mut n_tensors = 0;
    for tensor in whole.tensors().iter().filter(|tensor| tensor.dtype.float().is_some()) {
        let [digits, letters] = factors(&tensor.name);
        let [a, b] = [0, 1].map(|task| values(&alone[task], &tensor.name));
        let largest = a.iter().chain(&b).fold(1e-6, |most: f64, value| most.max(value.abs()));
        for ((found, a), b) in values(&whole, &tensor.name).iter().zip(&a).zip(&b) {
            let expected = 0.5 * digits * a - letters * b;
            assert!((found - expected).abs() < 1e-5 * largest, "{}: {found} {expected}", tensor.name);
        }
        n_tensors += 1;
    }
    assert!(n_tensors > 15, "{n_tensors}");
}

#[test]
fn edits_with_weights_by_tensor_are_plain_arithmetic() {
    let top = TempDir::new().expect("a folder");
    let tasks = ["digits", "letters", "waves"].map(zoo);
    let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
    is_plain_arithmetic(top.path(), &[&["--from-checkpoints"], tasks.as_slice()].concat());
    for flags in [&["-m", "2"][..], &["--bits", "2"]] {
        let basis = top.path().join(flags[0]).to_string_lossy().into_owned();
        check(&[&["compress", "--base", &zoo("base"), "-o", &basis], flags, tasks.as_slice()].concat(), 0, "");
        is_plain_arithmetic(top.path(), &[&basis]);
    }
}

#[test]
fn rules_that_find_nothing_or_are_none_are_refused() {
    let top = TempDir::new().expect("a folder");
    let out = top.path().join("out.safetensors").to_string_lossy().into_owned();
    let (base, digits) = (zoo("base"), zoo("digits"));
    let words = ["add", "--base", &base, "-o", &out, "--from-checkpoints", &digits];
    let cases = [
        ("--weight-for=nrm=2", 3, "no tensor has a name that it finds"),
        ("--weight-for=digit:norm=2", 3, "did you mean the task `digits`?"),
        ("--weight-for=norm", 2, "REGEX=W or TASK:REGEX=W"),
        ("--weight-for=norm=inf", 2, "REGEX=W or TASK:REGEX=W"),
        ("--weight-for=(=1", 2, "not a regular expression"),
        ("--lines=0.5", 2, "ALPHA:BETA"),
    ];
    for (flag, exit_code, stderr) in cases {
        check(&[&words[..], &[flag]].concat(), exit_code, stderr);
        assert!(!Path::new(&out).exists(), "{flag}");
    }
}

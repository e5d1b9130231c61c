//! The scripts of docs/cluster.md, run as plain processes: the schedulers' variables are set, and there is no scheduler.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use tvb_tests::small_models::{contents, write_run};

const N_PARTS: usize = 4;
/// Several spans, so that the parts have something to do.
const SHAPES: &[&[usize]] = &[&[1500, 1000], &[7], &[1100, 1000], &[257, 300], &[16, 16]];

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cluster.md")).expect("the page")
}

/// The code blocks in a language, below a heading.
fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let below = page.split_once(&format!("\n## {heading}\n")).expect("the heading").1;
    let section = below.split("\n## ").next().unwrap_or(below);
    let fence = format!("```{language}\n");
    let blocks = section.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or(rest).to_owned()).collect()
}

/// A shell that finds this `tvb` first, in a folder with the models that the page names.
fn shell(folder: &Path, script: &str) -> Command {
    let own = Path::new(env!("CARGO_BIN_EXE_tvb")).parent().expect("a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(own.to_owned()).chain(std::env::split_paths(&path))).expect("a path");
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(folder).env("PATH", path);
    command.env_remove("TVB_DEVICE").env_remove("TVB_LOG").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[track_caller]
fn done(child: Child) {
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a script for every part at once, some of them again, joins, and compares with one run.
fn check(part: impl Fn(&Path, usize) -> Command, join: &str) {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 2, 3);
    let folder = top.path().join("models");
    std::fs::create_dir(&folder).expect("a folder");
    for (from, to) in [(&run.base, "base"), (&run.tasks[0], "cars"), (&run.tasks[1], "mnist")] {
        std::fs::rename(from, folder.join(format!("{to}.safetensors"))).expect("renamed");
    }
    let start = |number| part(&folder, number).stderr(Stdio::piped()).spawn().expect("a shell");
    let children: Vec<Child> = (0..N_PARTS).map(start).collect();
    children.into_iter().for_each(done);
    done(start(2));
    done(shell(&folder, join).stderr(Stdio::piped()).spawn().expect("a shell"));
    let one = "tvb compress --base base.safetensors cars.safetensors mnist.safetensors -o one";
    done(shell(&folder, one).stderr(Stdio::piped()).spawn().expect("a shell"));
    let (found, expected) = (contents(&folder.join("basis")), contents(&folder.join("one")));
    assert!(!expected.is_empty() && found == expected, "{:?}, {:?}", found.keys(), expected.keys());
}

#[test]
fn the_slurm_script_makes_the_basis_of_one_run() {
    let page = page();
    let [script, join]: [String; 2] = blocks(&page, "Slurm", "bash").try_into().expect("two scripts");
    assert!(script.lines().count() <= 5, "the page promises a short script");
    assert!(script.contains(&format!("--array=1-{N_PARTS} ")));
    let part = |folder: &Path, number: usize| {
        let mut command = shell(folder, &script);
        command.env("SLURM_ARRAY_TASK_ID", (number + 1).to_string());
        command.env("SLURM_ARRAY_TASK_COUNT", N_PARTS.to_string());
        command
    };
    check(part, &join);
}

#[test]
fn the_kubernetes_job_makes_the_basis_of_one_run() {
    let page = page();
    let [job]: [String; 1] = blocks(&page, "Kubernetes", "yaml").try_into().expect("one job");
    let script = job.split('\'').nth(1).expect("the command");
    assert!(job.contains(&format!("completions: {N_PARTS},")) && job.contains("completionMode: Indexed"));
    let part = |folder: &Path, number: usize| {
        let mut command = shell(folder, script);
        command.env("JOB_COMPLETION_INDEX", number.to_string());
        command
    };
    check(part, "tvb join parts/* -o basis");
}

#[test]
fn the_lines_by_hand_make_the_basis_of_one_run() {
    let page = page();
    let [lines]: [String; 1] = blocks(&page, "By hand", "sh").try_into().expect("one block");
    let (parts, join) = lines.split_once("tvb join").expect("a join");
    let mut parts = parts.lines();
    let (first, second) = (parts.next().expect("a part"), parts.next().expect("a part"));
    let nothing = "true";
    let part = |folder: &Path, number: usize| {
        let script = match number {
            0 => first.to_owned(),
            1 => second.to_owned(),
            _ => nothing.to_owned(),
        };
        shell(folder, &script)
    };
    check(part, &format!("tvb join{join}"));
}

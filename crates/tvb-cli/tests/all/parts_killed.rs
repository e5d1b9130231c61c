//! Parts of a basis on the command line: killed and run again, at once on one folder of rows, and what is said of mistakes.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tvb_tests::number;
use tvb_tests::small_models::{Random, Run, contents, write_run};

/// Several spans, so that there are parts.
const SHAPES: &[&[usize]] = &[&[300, 500], &[7], &[1_200_000], &[0, 3], &[1100, 1000], &[]];

fn tvb(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.env_remove("TVB_DEVICE").env_remove("TVB_LOG").arg("-q").args(arguments).stdin(Stdio::null());
    command
}

fn compress(run: &Run, output: &Path, more: &[&str]) -> Command {
    let mut command = tvb(&["compress", "--device", "cpu", "-j", "1", "--base"]);
    command.arg(&run.base).args(&run.tasks).arg("-o").arg(output).args(more);
    command
}

#[track_caller]
fn run(command: &mut Command, code: i32) -> String {
    let Output { status, stderr, .. } =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).output().expect("tvb runs");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(code), "{command:?}\n{said}");
    said
}

#[test]
fn parts_killed_anywhere_and_run_again_are_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let inputs = write_run(top.path(), SHAPES, 3, 1);
    let one = top.path().join("one");
    run(&mut compress(&inputs, &one, &[]), 0);
    let mut random = Random(number("TVB_KILL_SEED", 11));
    for round in 0..number("TVB_KILLS", 12_u64).div_ceil(4) {
        let work = top.path().join(format!("work-{round}"));
        std::fs::create_dir(&work).expect("a folder");
        let rows = work.join("rows");
        let into: Vec<&str> = if round % 2 == 1 { vec!["--into", rows.to_str().expect("text")] } else { Vec::new() };
        let part = |number: usize| {
            let which = format!("{number}/3");
            let more: Vec<&str> = ["--part", &which].into_iter().chain(into.iter().copied()).collect();
            compress(&inputs, &work.join(format!("part-{number}")), &more)
        };
        for number in 1..=3 {
            let mut child = part(number).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("starts");
            std::thread::sleep(Duration::from_micros(random.below(150_000) as u64));
            let _ = child.kill();
            child.wait().expect("ends");
        }
        let parts: Vec<String> =
            (1..=3).map(|number| work.join(format!("part-{number}")).display().to_string()).collect();
        // One that was done before it was killed is there already.
        (1..=3).filter(|number| !work.join(format!("part-{number}")).exists()).for_each(|number| {
            run(&mut part(number), 0);
        });
        let mut join = tvb(&["join", "-o"]);
        run(join.arg(work.join("joined")).args(parts.iter().rev()), 0);
        assert!(contents(&work.join("joined")) == contents(&one), "round {round}: other bytes");
        let n_left = std::fs::read_dir(&work).expect("a folder").count();
        assert_eq!(n_left, 4, "round {round}: something is left behind");
    }
}

#[test]
fn parts_at_once_on_one_folder_of_rows_are_one_run() {
    let top = tempfile::tempdir().expect("a folder");
    let inputs = write_run(top.path(), SHAPES, 3, 2);
    let at = |name: &str| top.path().join(name);
    let method = ["-m", "2", "--method", "pca", "--dtype", "bf16"];
    run(&mut compress(&inputs, &at("one"), &method), 0);
    for number in 1..=2 {
        let mut gram = tvb(&["gram", "--device", "cpu", "--part", &format!("{number}/2"), "--base"]);
        run(gram.arg(&inputs.base).args(&inputs.tasks).arg("-o").arg(at(&format!("gram-{number}"))), 0);
    }
    run(tvb(&["join", "-o"]).arg(at("all.gram")).arg(at("gram-2")).arg(at("gram-1")), 0);
    let rows = at("rows");
    let gram = at("all.gram");
    let children: Vec<_> = (1..=4)
        .map(|number| {
            let which = format!("{number}/4");
            let mut command = compress(&inputs, &at(&format!("part-{number}")), &method);
            command.args(["--part", &which, "--into"]).arg(&rows).arg("--gram").arg(&gram);
            command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("starts")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
    let parts: Vec<_> = (1..=4).map(|number| at(&format!("part-{number}"))).collect();
    let said = run(tvb(&["join", "-o"]).arg(at("joined")).args(&parts[1..]), 3);
    assert!(said.contains("part 1 of 4 is missing") && said.lines().count() == 2, "{said}");
    run(tvb(&["join", "-o"]).arg(at("joined")).args(&parts), 0);
    assert!(contents(&at("joined")) == contents(&at("one")) && !rows.exists());
}

#[test]
fn mistakes_with_parts_are_usage_errors_with_a_way_out() {
    let top = tempfile::tempdir().expect("a folder");
    let inputs = write_run(top.path(), &[&[30, 50]], 2, 3);
    let output = top.path().join("part");
    for (more, expected) in [
        (&["--part", "1/2", "-m", "1"][..], "tvb gram --part K/N"),
        (&["--part", "3/2"], "3/2"),
        (&["--part", "x"], "K/N"),
        (&["--into", "rows"], "--part"),
    ] {
        let said = run(&mut compress(&inputs, &output, more), 2);
        assert!(said.contains(expected), "{said}");
        assert!(!output.exists());
    }
    run(&mut compress(&inputs, &output, &["--part", "1/2", "--dry-run"]), 0);
    assert!(!output.exists());
}

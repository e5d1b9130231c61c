//! The binary as a user meets it: exit codes, what goes to stdout and what to stderr.

use std::process::{Command, Output, Stdio};

/// Runs `tvb` with these arguments and no environment of its own.
fn tvb(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(args).env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8 output")
}

/// Exit code, a part of stdout (`""`: stdout is empty), a part of stderr (`""`: stderr is empty).
#[track_caller]
fn check(args: &[&str], exit_code: i32, stdout: &str, stderr: &str) {
    let Output { status, stdout: out, stderr: err } = tvb(args).output().expect("tvb runs");
    let (out, err) = (text(&out), text(&err));
    let shown = format!("tvb {args:?}\nstdout: {out}\nstderr: {err}");
    assert_eq!(status.code(), Some(exit_code), "{shown}");
    for (found, expected) in [(out, stdout), (err, stderr)] {
        assert!(
            if expected.is_empty() { found.is_empty() } else { found.contains(expected) },
            "{expected:?} in {shown}"
        );
    }
}

#[test]
fn exit_codes_and_streams() {
    check(&["--version"], 0, concat!("tvb ", env!("CARGO_PKG_VERSION")), "");
    check(&["--help"], 0, "Exit codes:", "");
    check(&[], 2, "", "Usage: tvb");
    check(&["no-such-command"], 2, "", "unrecognized subcommand");
    check(&["completions", "bash", "--memory", "5Q"], 2, "", "unknown unit");
    check(&["completions", "bash", "-q", "-v"], 2, "", "cannot be used with");
    check(&["completions", "bash", "-j", "0"], 2, "", "--threads");
    check(&["completions", "bash"], 0, "_tvb()", "");
}

#[test]
fn json_is_one_object() {
    let output = tvb(&["completions", "zsh", "--json"]).output().expect("tvb runs");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(answer["shell"], "zsh");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child =
        tvb(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

//! `tvb bench` as a user meets it, on very little data: what is in its JSON and its tables. No time is asserted.

use serde_json::Value;
use std::process::{Command, Output, Stdio};

fn tvb(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(args).env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG").stdin(Stdio::null());
    command.output().expect("tvb runs")
}

/// Measures `device` on little data and looks at everything that does not depend on the clock.
fn check(device: &str, n_moves: usize) {
    let output =
        tvb(&["bench", "--quick", "--device", device, "--size", "300K", "--tasks", "3,20", "--json", "-j", "2"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{}\n{stderr}", String::from_utf8_lossy(&output.stdout));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&answer["quick"], &answer["tool"]), (&true.into(), &tvb::TOOL.into()));
    assert_eq!(answer["date"].as_str().map(str::len), Some("2026-01-31".len()));
    let devices = answer["devices"].as_array().expect("a list");
    assert_eq!((devices.len(), &devices[0]["error"]), (1, &Value::Null));
    let rows = devices[0]["results"].as_array().expect("a list");
    // Two formats by two numbers of tasks; the eigendecomposition once for each number.
    assert_eq!(rows.len(), n_moves + 2 * 2 * 9 + 2, "{answer:#}");
    for row in rows {
        let stage = row["stage"].as_str().expect("a name");
        assert_eq!((&row["status"], &row["problem"]), (&"right".into(), &Value::Null), "{row:#}");
        assert!(row["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{row:#}");
        let is_move = ["copy", "upload"].contains(&stage);
        assert_eq!(row["same_bits_twice"], if is_move { Value::Null } else { true.into() }, "{row:#}");
        assert_eq!(row["hash"].is_string(), !is_move, "{row:#}");
        assert_eq!(row["gb_per_s"].is_number(), stage != "eigh", "{row:#}");
        assert_eq!(row["share_of_copy"].is_number(), stage != "eigh", "{row:#}");
        assert_eq!(row["dtype"].is_string(), !is_move && stage != "eigh", "{row:#}");
        let is_of_codes = ["code", "decode"].contains(&stage);
        assert_eq!(row["bits"].is_number(), is_of_codes || stage == "end-to-end-coded", "{row:#}");
        assert_eq!(row["g_elements_per_s_per_core"].is_number(), is_of_codes && device == "cpu", "{row:#}");
    }
    assert_eq!((&rows[0]["stage"], &rows[0]["share_of_copy"]), (&"copy".into(), &1.0.into()));
}

#[test]
fn the_cpu_engine_is_measured() {
    check("cpu", 1);
}

#[test]
fn an_adapter_is_measured() {
    let listed = tvb(&["devices", "--json", "--backend", "vulkan"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("one JSON object");
    let is_there = listed["devices"].as_array().is_some_and(|devices| {
        devices.iter().any(|device| device["name"].as_str().is_some_and(|name| name.contains("llvmpipe")))
    });
    if is_there {
        check("llvmpipe", 2);
        return;
    }
    assert!(std::env::var("TVB_REQUIRE_GPU").map_or(true, |value| value != "1"), "TVB_REQUIRE_GPU=1, but no llvmpipe");
    eprintln!("skipped: no llvmpipe (install mesa-vulkan-drivers for it)");
}

#[test]
fn tables_and_wrong_usage() {
    let measured = |more: &[&str]| {
        let args = ["bench", "--quick", "--device", "cpu", "--size", "100K", "--tasks", "2", "--dtype", "f16"];
        let output = tvb(&[&args, more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let (text, markdown) = (measured(&[]), measured(&["--markdown"]));
    for stage in ["copy", "gram", "eigh", "project", "reconstruct", "code", "decode", "end-to-end", "end-to-end-coded"]
    {
        assert!(text.lines().any(|line| line.starts_with(stage)), "{stage} in\n{text}");
        assert!(markdown.lines().any(|line| line.starts_with(&format!("| {stage} |"))), "{stage} in\n{markdown}");
    }
    let cases: [(&[&str], &str); 4] = [
        (&["--tasks", "1"], "2 to 1024 tasks expected"),
        (&["--dtype", "f8"], "possible values"),
        (&["--size", "x"], "size"),
        (&["--markdown", "--json"], "cannot be used with"),
    ];
    for (args, message) in cases {
        let output = tvb(&[&["bench"], args].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
    let output = tvb(&["bench", "--quick", "--device", "no such device"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint:"));
}

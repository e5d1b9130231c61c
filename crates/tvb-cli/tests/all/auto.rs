//! `--device auto` with a software adapter passed off as a card: what a saved file says decides, and results are right on either.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the command as on a machine with a card, with this cache folder.
fn tvb(cache: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(words).args(["--backend", "vulkan"]).env("TVB_CACHE_DIR", cache).env("TVB_SOFTWARE_AS_CARD", "1");
    command.env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG").stdin(Stdio::null());
    command.output().expect("tvb runs")
}

fn answer(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The adapter and the CPU engine as `tvb devices` lists them; `None` where the adapter is not there.
fn devices(cache: &Path) -> Option<(Value, Value)> {
    let listed = answer(&tvb(cache, &["devices", "--json"]));
    let all = listed["devices"].as_array().expect("a list");
    let is_llvmpipe = |device: &&Value| device["name"].as_str().is_some_and(|name| name.contains("llvmpipe"));
    let found = all.iter().find(is_llvmpipe).zip(all.iter().find(|device| device["index"] == "cpu"));
    if found.is_none() {
        let required = std::env::var("TVB_REQUIRE_GPU").is_ok_and(|value| value == "1");
        assert!(!required, "TVB_REQUIRE_GPU=1, but no llvmpipe");
        eprintln!("skipped: no llvmpipe (install mesa-vulkan-drivers for it)");
    }
    found.map(|(adapter, cpu)| (adapter.clone(), cpu.clone()))
}

/// An entry of the saved file: a device that takes this long to begin any pass.
fn entry(device: &Value, name: &str, driver: &str, begin_s: f64) -> Value {
    let rates: Vec<Value> = ["gram", "project", "reconstruct", "code", "decode"]
        .iter()
        .map(|stage| {
            json!({
                "stage": stage, "dtype": "f32", "n_columns": 8, "begin_s": begin_s, "from_files": 10.0, "kept": null, "out": 1.0
            })
        })
        .collect();
    json!({
        "name": device[name], "driver": device[driver], "backend": device["backend"], "kind": device["kind"],
        "n_threads": 2, "date": "2026-11-27", "open_s": 0.0, "rates": rates,
    })
}

fn write_saved(cache: &Path, (adapter, cpu): (&Value, &Value), seconds: (f64, f64)) {
    let saved = json!({
        "version": 1,
        "tool": tvb::TOOL,
        "devices": [
            entry(adapter, "name", "driver", seconds.0),
            entry(cpu, "processor", "instruction_set", seconds.1),
        ],
    });
    std::fs::write(cache.join("bench.json"), saved.to_string()).expect("written");
}

#[test]
fn what_was_saved_decides_and_results_are_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path();
    let Some((adapter, cpu)) = devices(cache) else { return };
    let model = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../tvb-zoo/checkpoints/{name}.safetensors"))
            .display()
            .to_string()
    };
    let inputs = ["--base".to_owned(), model("base"), model("digits"), model("arrows"), model("dice")];
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let out = |name: &str| cache.join(name).display().to_string();

    let mut errors: Vec<Vec<f64>> = Vec::new();
    for (seconds, expected) in [((0.5, 50.0), "llvmpipe"), ((50.0, 0.5), "cpu")] {
        write_saved(cache, (&adapter, &cpu), seconds);
        let basis = out(&format!("basis-{expected}"));
        let words = [&["compress", "-m", "2", "--json", "-o", &basis], &inputs[..]].concat();
        let ran = tvb(cache, &words);
        let made = answer(&ran);
        let device = made["device"].as_str().expect("a name");
        assert!(device.contains(expected), "{device}, {expected} expected");
        let taken = &made["device_choice"]["taken"];
        assert_eq!((&taken["device"], &taken["rates"]), (&device.into(), &"saved 2026-11-27".into()));
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(stderr.lines().filter(|line| line.starts_with("device: ")).count(), 1, "{stderr}");
        let tasks = made["tasks"].as_array().expect("a list");
        errors.push(tasks.iter().map(|task| task["relative_error"].as_f64().expect("a number")).collect());

        let dry =
            answer(&tvb(cache, &[&["compress", "-m", "2", "--json", "--dry-run", "-o", "x"], &inputs[..]].concat()));
        assert_eq!(dry["device_choice"]["taken"]["device"], device);
        for command in ["gram", "add"] {
            let file = out(&format!("{command}-{expected}.safetensors"));
            let base = model("base");
            let words = match command {
                "gram" => [&["gram", "--json", "-o", &file], &inputs[..]].concat(),
                _ => vec!["add", &basis, "--base", &base, "--json", "-o", &file],
            };
            let found = answer(&tvb(cache, &words));
            assert_eq!(found["device"], device, "{command}");
        }
        let quiet =
            tvb(cache, &[&["gram", "-q", "--overwrite", "-o", &out("quiet.safetensors")], &inputs[..]].concat());
        assert!(quiet.stderr.is_empty(), "{}", String::from_utf8_lossy(&quiet.stderr));
    }
    assert_eq!(errors[0].len(), 3);
    for (on_adapter, on_cpu) in errors[0].iter().zip(&errors[1]) {
        assert!((on_adapter - on_cpu).abs() < 1e-4, "{on_adapter} and {on_cpu}");
    }
}

#[test]
fn a_damaged_or_stale_file_is_passed_over_with_one_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path();
    let Some((mut adapter, cpu)) = devices(cache) else { return };
    let warnings = || answer(&tvb(cache, &["devices", "--json"]))["warnings"].clone();
    assert_eq!(warnings(), json!([]), "nothing was saved yet");
    adapter["driver"] = "another driver".into();
    write_saved(cache, (&adapter, &cpu), (0.5, 50.0));
    let stale = warnings();
    assert!(stale[0].as_str().is_some_and(|word| word.contains("another driver")), "{stale}");
    for bytes in [&b"\xff\xfe"[..], b"{", b"null", br#"{"version": 1, "tool": "tvb 99"}"#, &[b'['; 2 << 20]] {
        std::fs::write(cache.join("bench.json"), bytes).expect("written");
        let found = warnings();
        let all = found.as_array().expect("a list");
        assert!(all.len() == 1 && all[0].as_str().is_some_and(|word| word.contains("passed over")), "{found}");
    }
}

#[test]
fn what_is_measured_is_saved_and_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path();
    let saved = answer(&tvb(cache, &["bench", "--save", "--quick", "--device", "cpu", "--json"]));
    assert_eq!(saved["devices"].as_array().map(Vec::len), Some(1), "{saved}");
    let listed = answer(&tvb(cache, &["devices", "--json"]));
    let cpu = listed["devices"].as_array().and_then(|all| all.last()).expect("the CPU engine");
    assert!(cpu["believed"]["from"].as_str().is_some_and(|from| from.starts_with("saved 2")), "{cpu:#}");
    let rates = cpu["believed"]["rates"].as_array().expect("a list");
    assert_eq!(rates.len(), 5 * 2 * 3, "five stages, two widths, three numbers of tasks");
    for rate in rates {
        assert!(rate["gb_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{rate}");
    }
}

//! The evaluator as a sweep sees it: one JSON object on stdout, one clear line on stderr, an exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

type Raw = (String, Dtype, Vec<usize>, Vec<u8>);

fn zoo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tvb-zoo")).args(arguments).output().unwrap()
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/base.safetensors")
}

fn raw() -> Vec<Raw> {
    let bytes = std::fs::read(base()).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    parsed
        .iter()
        .map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect()
}

fn save(path: &Path, tensors: &[Raw]) {
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn narrowed(tensors: Vec<Raw>, narrow: fn(f32) -> [u8; 2], dtype: Dtype) -> Vec<Raw> {
    let convert = |(name, old, shape, bytes): Raw| {
        if old != Dtype::F32 {
            return (name, old, shape, bytes);
        }
        let values = bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
        (name, dtype, shape, values.flat_map(narrow).collect())
    };
    tensors.into_iter().map(convert).collect()
}

/// The JSON object on the last line of stdout.
fn metrics(output: &Output) -> serde_json::Map<String, serde_json::Value> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn eval_prints_flat_metrics() {
    let base = base();
    let all = metrics(&zoo(&["eval", base.to_str().unwrap()]));
    assert_eq!(all.len(), 22);
    assert!(all.values().all(|value| value.as_f64().is_some_and(|value| (0.0..=1.0).contains(&value))));
    let eight = metrics(&zoo(&["eval", base.to_str().unwrap(), "--scenario", "8"]));
    assert_eq!(eight.len(), 10);
    let named = metrics(&zoo(&["eval", base.to_str().unwrap(), "--tasks", "dice,waves"]));
    assert_eq!(named.keys().collect::<Vec<_>>(), ["mean", "dice", "waves"]);
    assert_eq!(named["dice"], all["dice"]);
    let test = metrics(&zoo(&["eval", base.to_str().unwrap(), "--tasks", "digits,control", "--split", "test"]));
    assert_eq!(test["mean"], test["digits"]);
    assert!(test.contains_key("control"));
}

#[test]
fn narrow_checkpoints_and_folders_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let expected = metrics(&zoo(&["eval", base().to_str().unwrap(), "--tasks", "digits"]))["digits"].as_f64().unwrap();
    let check = |what: &str| {
        let found = metrics(&zoo(&["eval", folder.path().to_str().unwrap(), "--tasks", "digits"]));
        assert!((found["digits"].as_f64().unwrap() - expected).abs() < 0.03, "{what}");
    };

    let single = folder.path().join("model.safetensors");
    save(&single, &narrowed(raw(), |value| half::bf16::from_f32(value).to_le_bytes(), Dtype::BF16));
    check("bf16 folder");
    save(&single, &narrowed(raw(), |value| half::f16::from_f32(value).to_le_bytes(), Dtype::F16));
    check("f16 folder");

    std::fs::remove_file(&single).unwrap();
    let tensors = raw();
    let (first, second) = tensors.split_at(5);
    save(&folder.path().join("model-00001-of-00002.safetensors"), first);
    save(&folder.path().join("model-00002-of-00002.safetensors"), second);
    let shard_of = |index: usize| format!("model-0000{}-of-00002.safetensors", if index < 5 { 1 } else { 2 });
    let map: serde_json::Map<String, serde_json::Value> =
        tensors.iter().enumerate().map(|(index, tensor)| (tensor.0.clone(), shard_of(index).into())).collect();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    check("shards");
}

#[test]
fn bad_input_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("garbage.safetensors"), b"not a checkpoint at all").unwrap();
    save(Path::new(&at("short.safetensors")), &raw()[..4]);
    let mut misshapen = raw();
    let (_, _, shape, _) = misshapen.iter_mut().find(|tensor| tensor.0 == "visual.proj.weight").unwrap();
    shape.reverse();
    save(Path::new(&at("misshapen.safetensors")), &misshapen);
    let mut whole = raw();
    whole.iter_mut().find(|tensor| tensor.0 == "visual.conv1.bias").unwrap().1 = Dtype::I32;
    save(Path::new(&at("whole.safetensors")), &whole);
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::create_dir(at("escape")).unwrap();
    let index = at("escape/model.safetensors.index.json");
    std::fs::write(index, r#"{"weight_map": {"logit_scale": "../short.safetensors"}}"#).unwrap();
    let base = base().to_str().unwrap().to_owned();

    let table: &[(&[&str], i32, &str)] = &[
        (&["eval", &at("absent.safetensors")], 1, "reading failed"),
        (&["eval", &at("garbage.safetensors")], 3, "not a safetensors file"),
        (&["eval", &at("short.safetensors")], 3, "missing from the checkpoint"),
        (&["eval", &at("misshapen.safetensors")], 3, "visual.proj.weight: expected shape [64, 512], found [512, 64]"),
        (&["eval", &at("whole.safetensors")], 3, "visual.conv1.bias: expected dtype F32, F16, BF16 or F64, found I32"),
        (&["eval", &at("empty")], 3, "no model.safetensors"),
        (&["eval", &at("escape")], 3, "not a file in the folder"),
        (&["eval", &base, "--tasks", "nothing"], 2, "no task is called \"nothing\""),
        (&["eval", &base, "--scenario", "9"], 2, "no scenario has 9 tasks"),
    ];
    for (arguments, code, part) in table {
        let output = zoo(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[cfg(not(feature = "train"))]
#[test]
fn training_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("zoo");
    let output = zoo(&["train", "--out", out.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--features train") && stderr.trim_end().lines().count() == 1, "{stderr}");
    assert!(!out.exists());
}

#[test]
fn a_model_of_nan_is_simply_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nan.safetensors");
    let mut tensors = raw();
    let bytes = &mut tensors.iter_mut().find(|tensor| tensor.0 == "visual.conv1.bias").unwrap().3;
    bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    save(&path, &tensors);
    let found = metrics(&zoo(&["eval", path.to_str().unwrap(), "--tasks", "digits"]));
    assert_eq!(found["digits"], 0.0);
}

#[test]
fn tasks_are_listed_in_scenario_order_and_drawn() {
    let output = zoo(&["tasks"]);
    let names = String::from_utf8(output.stdout).unwrap();
    assert_eq!(names.lines().count(), 20);
    assert_eq!(names.lines().next(), Some("digits"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sheet.svg");
    assert!(zoo(&["images", "--out", path.to_str().unwrap()]).status.success());
    let svg = std::fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert_eq!(svg.matches("data:image/png;base64,").count(), 20);
}

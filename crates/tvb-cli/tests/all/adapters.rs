//! Bases of adapters: the factors as they are, edits from them, and what is damaged.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb::Checkpoint;
use tvb::checkpoint::{Dtype, SafetensorsLayout, SafetensorsWriter, TensorSpec};
use tvb_tests::small_models::Random;

const BASE: [(&str, &[usize]); 5] = [
    ("q.weight", &[96, 64]),
    ("c_attn.weight", &[64, 160]),
    ("norm.weight", &[64]),
    ("head.weight", &[7, 64]),
    ("head.bias", &[7]),
];

/// Values that bf16 holds where `narrow`.
fn write(path: &Path, tensors: &[(&str, &[usize])], narrow: bool, random: &mut Random) {
    let spec = |(name, shape): &(&str, &[usize])| TensorSpec {
        name: (*name).to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(path, SafetensorsLayout::new(&specs, &Default::default()).unwrap()).unwrap();
    for (number, (_, shape)) in tensors.iter().enumerate() {
        let value = |_: usize| {
            let bits = random.value().to_bits();
            f32::from_bits(if narrow { bits & 0xffff_0000 } else { bits }).to_le_bytes()
        };
        let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(value).collect();
        writer.write_at(number, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn write_adapter(folder: &Path, rank: usize, with_head: bool, narrow: bool, random: &mut Random) {
    std::fs::create_dir(folder).unwrap();
    let all: [(&str, &[usize]); 6] = [
        ("base_model.model.q.lora_A.weight", &[rank, 64]),
        ("base_model.model.q.lora_B.weight", &[96, rank]),
        ("base_model.model.c_attn.lora_A.weight", &[rank, 64]),
        ("base_model.model.c_attn.lora_B.weight", &[160, rank]),
        ("base_model.model.head.weight", &[7, 64]),
        ("base_model.model.head.bias", &[7]),
    ];
    let n = if with_head { 6 } else { 4 };
    write(&folder.join("adapter_model.safetensors"), &all[..n], narrow, random);
    let config = json!({
        "peft_type": "LORA", "r": rank, "lora_alpha": 16, "base_model_name_or_path": "org/model",
        "target_modules": ["q", "c_attn"], "fan_in_fan_out": false,
        "modules_to_save": if with_head { json!(["head"]) } else { Value::Null },
    });
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

fn models() -> TempDir {
    let folder = TempDir::new().unwrap();
    let random = &mut Random(7);
    write(&folder.path().join("base.safetensors"), &BASE, false, random);
    write_adapter(&folder.path().join("a"), 1, false, true, random);
    write_adapter(&folder.path().join("b"), 3, true, false, random);
    write_adapter(&folder.path().join("c"), 2, false, false, random);
    folder
}

#[track_caller]
fn run(folder: &Path, words: &[&str], exit_code: i32) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(words).current_dir(folder).stdin(Stdio::null());
    command.env("TVB_DEVICE", "cpu").env_remove("WGPU_BACKEND").env_remove("TVB_LOG");
    let output = command.output().expect("tvb runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit_code), "{words:?}: {said}");
    (output, said)
}

fn values(path: &Path, name: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let tensor = checkpoint.get(name).unwrap();
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).unwrap();
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

const COMPRESS: [&str; 8] = ["compress", "--base", "base.safetensors", "-o", "basis", "a", "b", "c"];

#[test]
fn a_basis_of_adapters_keeps_their_factors_and_gives_the_same_edits() {
    let models = models();
    let here = models.path();
    let (_, said) = run(here, &COMPRESS, 0);
    assert!(said.contains("their factors are kept as they are"), "{said}");
    let manifest: Value = serde_json::from_slice(&std::fs::read(here.join("basis/basis.json")).unwrap()).unwrap();
    assert_eq!((&manifest["version"], &manifest["base"]["fingerprint"]), (&json!(3), &Value::Null));
    assert_eq!(manifest["frozen"], json!(["norm.weight"]));
    for task in 0..3 {
        assert!(manifest["tasks"][task]["relative_error"].as_f64().unwrap() < 1e-12);
    }
    // Each as narrow as it is without a loss; the head of b as a whole.
    let atom = |n: usize| Checkpoint::open(&here.join(format!("basis/atom-0{n}.safetensors"))).unwrap();
    assert_eq!(atom(0).get("q.weight.lora_B").unwrap().dtype, Dtype::Bf16);
    assert_eq!(atom(1).get("q.weight.lora_B").unwrap().dtype, Dtype::F32);
    assert!(atom(1).get("head.weight").is_some() && atom(0).get("head.weight").is_none());

    let expression = ["--", "a - 0.5*b + 0.25*c"];
    let apply = ["apply", "--base", "base.safetensors"];
    run(here, &[&apply[..], &["-o", "ours.safetensors", "basis"], &expression].concat(), 0);
    let direct = ["-o", "direct.safetensors", "--from-checkpoints", "a", "b", "c"];
    run(here, &[&apply[..], &direct, &expression].concat(), 0);
    for (name, _) in BASE {
        let [ours, direct] = ["ours", "direct"].map(|file| values(&here.join(format!("{file}.safetensors")), name));
        for (ours, direct) in ours.iter().zip(&direct) {
            assert!((ours - direct).abs() < 1e-5, "{name}: {ours} and {direct}");
        }
    }
    // The same as one adapter.
    let adapter = ["--lora-out", "sum", "basis"];
    run(here, &[&apply[..], &adapter, &expression].concat(), 0);
    run(here, &[&apply[..], &["-o", "through.safetensors", "--from-checkpoints", "sum", "--", "sum"]].concat(), 0);
    let [ours, through] = ["ours", "through"].map(|file| values(&here.join(format!("{file}.safetensors")), "q.weight"));
    assert!(ours.iter().zip(&through).all(|(ours, through)| (ours - through).abs() < 1e-4));
    run(here, &["verify", "basis"], 0);
    let originals = ["verify", "basis", "--base", "base.safetensors", "a", "b", "c"];
    run(here, &originals, 0);
    run(here, &["inspect", "basis"], 0);
    run(here, &["recover", "basis", "--base", "base.safetensors", "-o", "back"], 0);
}

/// What a column is, and what is read of it, are said of its files; the rows that are formed of it are in none.
#[test]
fn an_adapter_column_is_said_to_be_one() {
    let models = models();
    let here = models.path();
    let (output, _) = run(here, &["check", "--base", "base.safetensors", "a", "b", "--json"], 0);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let adapter = |task: usize| said["tasks"][task]["adapter"].clone();
    assert_eq!(adapter(0), json!({ "writer": "PEFT", "modules": 2, "ranks": [1], "dora": 0, "replaced": 0 }));
    assert_eq!(adapter(1), json!({ "writer": "PEFT", "modules": 2, "ranks": [3], "dora": 0, "replaced": 2 }));
    assert!(said["base"].get("adapter").is_none());
    let (_, text) = run(here, &["check", "--base", "base.safetensors", "a", "b"], 0);
    assert!(text.contains("LoRA (PEFT), 2 modules of rank 1 "), "{text}");
    assert!(text.contains("LoRA (PEFT), 2 modules of rank 3, 2 whole tensors"), "{text}");

    let len = |path: &str| std::fs::metadata(here.join(path)).unwrap().len();
    let base_bytes: usize = BASE.iter().map(|(_, shape)| 4 * shape.iter().product::<usize>()).sum();
    let stored = len("a/adapter_model.safetensors") + len("b/adapter_model.safetensors");
    let expected = base_bytes as u64 + stored;
    assert_eq!(said["read_bytes"], expected);
    let gram = ["gram", "--base", "base.safetensors", "a", "b", "-o", "g.gram", "--json"];
    let (output, _) = run(here, &gram, 0);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["read_bytes"], expected);
    // Coded, all of the base and of the adapters' files is read once; the few tensors that are not coded once more.
    let coded = ["compress", "--base", "base.safetensors", "a", "b", "-o", "coded", "--bits", "4", "--json"];
    let (output, _) = run(here, &coded, 0);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let again = 2 * 4 * (7 * 64 + 7) + 4 * 64;
    assert_eq!((&said["read_bytes"], &said["input_bytes"]), (&json!(expected + again), &json!(stored)));
}

#[test]
fn what_is_damaged_is_refused() {
    let models = models();
    let here = models.path();
    run(here, &COMPRESS, 0);
    let edit = ["apply", "--base", "base.safetensors", "-o", "e.safetensors", "basis", "--", "a + b"];
    let path = here.join("basis/atom-01.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 900;
    flipped[last] ^= 1;
    let cases = [
        ("cut", whole[..whole.len() - 8].to_vec(), "atom-01"),
        ("one bit", flipped, "checksum"),
        ("another task's", std::fs::read(here.join("basis/atom-02.safetensors")).unwrap(), "checksum"),
    ];
    for (what, bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        let (_, said) = run(here, &edit, 3);
        assert!(said.contains(expected), "{what}: {said}");
        assert!(!here.join("e.safetensors").exists(), "{what}");
        let (_, said) = run(here, &["verify", "basis"], 3);
        assert!(said.contains("atom-01"), "{what}: {said}");
    }
    // Factors of another matrix.
    std::fs::remove_file(&path).unwrap();
    write(
        &path,
        &[("scales", &[1]), ("q.weight.lora_B", &[64, 2]), ("q.weight.lora_A", &[2, 64])],
        false,
        &mut Random(1),
    );
    run(here, &edit, 3);
    std::fs::write(&path, &whole).unwrap();
    run(here, &edit, 0);
}

#[test]
fn an_adapter_joins_a_basis_of_adapters() {
    let models = models();
    let here = models.path();
    run(here, &COMPRESS, 0);
    run(here, &["compress", "--base", "base.safetensors", "-o", "grown", "a", "b"], 0);
    let old = std::fs::read(here.join("grown/atom-01.safetensors")).unwrap();
    let (_, said) = run(here, &["extend", "grown", "c", "--base", "base.safetensors"], 0);
    assert!(said.contains("new, measured") && !said.contains("estimates"), "{said}");
    assert_eq!(std::fs::read(here.join("grown/atom-01.safetensors")).unwrap(), old);
    let manifest = |folder: &str| -> Value {
        serde_json::from_slice(&std::fs::read(here.join(folder).join("basis.json")).unwrap()).unwrap()
    };
    let (whole, grown) = (manifest("basis"), manifest("grown"));
    assert_eq!(grown["version"], json!(4));
    assert_eq!(grown["atoms"][2], whole["atoms"][2], "the same file as in a basis of all three");
    for task in 0..3 {
        assert_eq!(grown["tasks"][task]["fingerprint"], whole["tasks"][task]["fingerprint"]);
        let [a, b] = [&grown, &whole].map(|manifest| manifest["tasks"][task]["norm"].as_f64().unwrap());
        assert!((a / b - 1.0).abs() < 1e-6, "{a} and {b}");
    }
    let cosine = |manifest: &Value| manifest["diagnostics"]["cosines"][0][2].as_f64().unwrap();
    assert!((cosine(&grown) - cosine(&whole)).abs() < 1e-6);
    run(here, &["verify", "grown", "--base", "base.safetensors", "a", "b", "c"], 0);
    run(here, &["inspect", "grown"], 0);
    // A whole checkpoint has no factors.
    let before = std::fs::read(here.join("grown/basis.json")).unwrap();
    run(here, &["apply", "--base", "base.safetensors", "-o", "whole.safetensors", "grown", "--", "a + c"], 0);
    let (_, said) = run(here, &["extend", "grown", "whole.safetensors", "--base", "base.safetensors"], 3);
    assert!(said.contains("an adapter expected"), "{said}");
    assert_eq!(std::fs::read(here.join("grown/basis.json")).unwrap(), before);
}

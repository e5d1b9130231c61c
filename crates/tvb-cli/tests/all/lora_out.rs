//! `--lora-out`: an edit of adapters as one adapter, which says the same as the edit itself when it is read back.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb::Checkpoint;
use tvb::checkpoint::{Dtype, SafetensorsLayout, SafetensorsWriter, TensorSpec};
use tvb_tests::small_models::{Random, contents};

/// A linear layer with a bias, GPT-2's transposed one, an embedding, a convolution and a head.
const BASE: [(&str, &[usize]); 7] = [
    ("model.q.weight", &[8, 6]),
    ("model.q.bias", &[8]),
    ("model.c_attn.weight", &[6, 9]),
    ("model.embed.weight", &[10, 6]),
    ("model.conv.weight", &[4, 3, 2, 2]),
    ("head.weight", &[3, 6]),
    ("head.bias", &[3]),
];
const EXPRESSION: &str = "a - 0.5*b";

fn write(path: &Path, tensors: &[(&str, &[usize])], random: &mut Random) {
    let spec = |(name, shape): &(&str, &[usize])| TensorSpec {
        name: (*name).to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let layout = SafetensorsLayout::new(&specs, &Default::default()).unwrap();
    let writer = SafetensorsWriter::create(path, layout).unwrap();
    for (number, (_, shape)) in tensors.iter().enumerate() {
        let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(|_: usize| random.value().to_le_bytes()).collect();
        writer.write_at(number, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// An adapter of rank `rank` at scale 2 in PEFT's layout.
fn write_adapter(folder: &Path, rank: usize, with_head: bool, task_type: &str, random: &mut Random) {
    std::fs::create_dir(folder).unwrap();
    let all: [(&str, &[usize]); 8] = [
        ("base_model.model.model.q.lora_A.weight", &[rank, 6]),
        ("base_model.model.model.q.lora_B.weight", &[8, rank]),
        ("base_model.model.model.c_attn.lora_A.weight", &[rank, 6]),
        ("base_model.model.model.c_attn.lora_B.weight", &[9, rank]),
        ("base_model.model.model.embed.lora_embedding_A", &[rank, 10]),
        ("base_model.model.model.embed.lora_embedding_B", &[6, rank]),
        ("base_model.model.model.conv.lora_A.weight", &[rank, 3, 2, 2]),
        ("base_model.model.model.conv.lora_B.weight", &[4, rank, 1, 1]),
    ];
    let head: [(&str, &[usize]); 2] = [("base_model.model.head.weight", &[3, 6]), ("base_model.model.head.bias", &[3])];
    let tensors: Vec<_> = all.into_iter().chain(head.into_iter().filter(|_| with_head)).collect();
    write(&folder.join("adapter_model.safetensors"), &tensors, random);
    let config = json!({
        "peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "task_type": task_type,
        "base_model_name_or_path": "org/model", "target_modules": ["q", "c_attn", "embed", "conv"],
        "modules_to_save": if with_head { json!(["head"]) } else { Value::Null },
    });
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}

/// A base and two adapters of ranks 2 and 3.
fn models(with_head: bool) -> TempDir {
    let folder = TempDir::new().unwrap();
    let random = &mut Random(7);
    write(&folder.path().join("base.safetensors"), &BASE, random);
    write_adapter(&folder.path().join("a"), 2, false, "CAUSAL_LM", random);
    write_adapter(&folder.path().join("b"), 3, with_head, "CAUSAL_LM", random);
    folder
}

fn run(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(["--device", "cpu"]).args(words).current_dir(folder).stdin(Stdio::null());
    command.env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG");
    command.output().expect("tvb runs")
}

/// `tvb apply` of adapters; its JSON.
#[track_caller]
fn apply(folder: &Path, to: &[&str], tasks: &[&str], expression: &str, exit_code: i32) -> (Value, String) {
    let words =
        [&["apply", "--json", "--base", "base.safetensors"], to, &["--from-checkpoints"], tasks, &["--", expression]];
    let output = run(folder, &words.concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit_code), "{to:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.get(name).unwrap();
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).unwrap();
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_adapter_of_an_edit_says_what_the_edit_says() {
    for with_head in [false, true] {
        let models = models(with_head);
        let here = models.path();
        apply(here, &["-o", "direct.safetensors"], &["a", "b"], EXPRESSION, 0);
        let (told, _) = apply(here, &["--lora-out", "sum"], &["a", "b"], EXPRESSION, 0);
        apply(here, &["-o", "through.safetensors"], &["sum"], "sum", 0);
        let [direct, through] =
            ["direct", "through"].map(|name| Checkpoint::open(&here.join(format!("{name}.safetensors"))).unwrap());
        for (name, _) in BASE {
            for (a, b) in values(&direct, name).into_iter().zip(values(&through, name)) {
                assert!((a - b).abs() < 2e-5, "{name}: {a} and {b}");
            }
        }
        let adapter = &told["adapter"];
        assert_eq!((&adapter["error"], adapter["modules"].as_array().unwrap().len()), (&json!(0.0), 4), "{told:#}");
        assert!(adapter["rounding"].as_f64().unwrap() < 1e-6);

        let config = read_json(&here.join("sum/adapter_config.json"));
        for (key, expected) in [
            ("peft_type", json!("LORA")),
            ("r", json!(5)),
            ("lora_alpha", json!(5)),
            // The convolution has four rows.
            ("rank_pattern", json!({ "model.conv": 4 })),
            ("alpha_pattern", json!({ "model.conv": 4 })),
            ("target_modules", json!(["model.q", "model.c_attn", "model.embed", "model.conv"])),
            ("fan_in_fan_out", json!(true)),
            ("task_type", json!("CAUSAL_LM")),
            ("base_model_name_or_path", json!("org/model")),
            ("inference_mode", json!(true)),
            ("bias", json!("none")),
            ("modules_to_save", if with_head { json!(["head"]) } else { Value::Null }),
        ] {
            assert_eq!(config[key], expected, "{key}");
        }
        let file = Checkpoint::open(&here.join("sum/adapter_model.safetensors")).unwrap();
        let shape = |name: &str| file.get(&format!("base_model.model.{name}")).map(|tensor| tensor.shape.clone());
        assert_eq!(shape("model.c_attn.lora_A.weight"), Some(vec![5, 6]));
        assert_eq!(shape("model.c_attn.lora_B.weight"), Some(vec![9, 5]));
        assert_eq!(shape("model.embed.lora_embedding_A"), Some(vec![5, 10]));
        assert_eq!(shape("model.conv.lora_A.weight"), Some(vec![4, 3, 2, 2]));
        assert_eq!(shape("model.conv.lora_B.weight"), Some(vec![4, 4, 1, 1]));
        assert_eq!(shape("head.bias").is_some(), with_head);
        let card = std::fs::read_to_string(here.join("sum/README.md")).unwrap();
        for part in
            ["library_name: \"peft\"", "base_model: \"org/model\"", "base_model_relation: adapter", "| `b` | -0.5 |"]
        {
            assert!(card.contains(part), "{part}: {card}");
        }
    }
}

/// A basis that keeps the factors keeps whose they are as well, and one that codes rows has none.
#[test]
fn a_basis_of_adapters_is_as_good_as_the_adapters() {
    // Large enough that factors take less than codes: a square `Conv1D`, whose shape does not say which way it lies, too.
    let models = TempDir::new().unwrap();
    let here = models.path();
    let random = &mut Random(3);
    write(
        &here.join("base.safetensors"),
        &[("h.0.c_attn.weight", &[192, 384]), ("h.0.c_proj.weight", &[192, 192])],
        random,
    );
    for (task, rank) in [("a", 1), ("b", 2)] {
        std::fs::create_dir(here.join(task)).unwrap();
        let tensors: [(&str, &[usize]); 4] = [
            ("base_model.model.transformer.h.0.c_attn.lora_A.weight", &[rank, 192]),
            ("base_model.model.transformer.h.0.c_attn.lora_B.weight", &[384, rank]),
            ("base_model.model.transformer.h.0.c_proj.lora_A.weight", &[rank, 192]),
            ("base_model.model.transformer.h.0.c_proj.lora_B.weight", &[192, rank]),
        ];
        write(&here.join(task).join("adapter_model.safetensors"), &tensors, random);
        let config = json!({ "peft_type": "LORA", "r": rank, "lora_alpha": 2, "fan_in_fan_out": true });
        std::fs::write(here.join(task).join("adapter_config.json"), config.to_string()).unwrap();
    }
    apply(here, &["--lora-out", "direct"], &["a", "b"], EXPRESSION, 0);
    let ok = |words: &[&str], exit_code: i32| {
        let output = run(here, words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit_code), "{words:?}: {said}");
        said
    };
    ok(&["compress", "--base", "base.safetensors", "a", "b", "-o", "basis"], 0);
    let from_basis = |basis: &'static str, out: &'static str| {
        ["apply", basis, EXPRESSION, "--base", "base.safetensors", "--lora-out", out]
    };
    ok(&from_basis("basis", "through"), 0);
    let [direct, through] =
        ["direct", "through"].map(|folder| read_json(&here.join(folder).join("adapter_config.json")));
    for key in ["target_modules", "modules_to_save", "rank_pattern", "fan_in_fan_out"] {
        assert_eq!(direct[key], through[key], "{key}");
    }
    assert_eq!(direct["target_modules"], json!(["transformer.h.0.c_attn", "transformer.h.0.c_proj"]));
    assert_eq!(direct["fan_in_fan_out"], true);
    let open = |folder: &str| Checkpoint::open(&here.join(folder).join("adapter_model.safetensors")).unwrap();
    let [direct, through] = ["direct", "through"].map(open);
    assert_eq!(direct.tensors().len(), through.tensors().len());
    for tensor in direct.tensors() {
        let pairs = values(&direct, &tensor.name).into_iter().zip(values(&through, &tensor.name));
        pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{}: {a} and {b}", tensor.name));
    }
    ok(&["compress", "--base", "base.safetensors", "a", "b", "-o", "mixed", "-m", "1"], 0);
    let said = ok(&from_basis("mixed", "none"), 3);
    assert!(said.contains("a LoRA adapter expected") && !here.join("none").exists(), "{said}");
}

#[test]
fn a_cut_says_what_it_loses() {
    let models = models(false);
    let here = models.path();
    let (told, _) = apply(here, &["--lora-out", "cut", "--rank", "1"], &["a", "b"], EXPRESSION, 0);
    let (_, said) = apply(here, &["--lora-out", "cut", "--rank", "1", "--overwrite"], &["a", "b"], EXPRESSION, 0);
    assert!(said.contains("the cut loses"), "{said}");
    let adapter = &told["adapter"];
    let number = |key: &str| adapter[key].as_f64().unwrap();
    assert!((number("error").powi(2) + number("kept_energy") - 1.0).abs() < 1e-12, "{told:#}");
    assert!(adapter["modules"].as_array().unwrap().iter().all(|module| module["rank"] == 1));
    // What is said is what is lost: the rest of the edit, read back.
    let whole = apply(here, &["--lora-out", "rest"], &["a", "b", "cut"], "a - 0.5*b - cut", 0).0;
    let lost = whole["adapter"]["norm"].as_f64().unwrap() / number("norm");
    assert!((lost - number("error")).abs() < 1e-6, "{lost} and {}", number("error"));

    let (told, _) =
        apply(here, &["--lora-out", "most", "--energy", "0.9", "--dtype", "bf16"], &["a", "b"], EXPRESSION, 0);
    let adapter = &told["adapter"];
    assert!((0.9..1.0).contains(&adapter["kept_energy"].as_f64().unwrap()), "{told:#}");
    assert!((1e-4..1e-2).contains(&adapter["rounding"].as_f64().unwrap()), "{told:#}");
    let file = Checkpoint::open(&here.join("most/adapter_model.safetensors")).unwrap();
    assert!(file.tensors().iter().all(|tensor| tensor.dtype == Dtype::Bf16));
}

#[test]
fn what_cannot_be_an_adapter_is_refused_and_leaves_nothing() {
    let models = models(false);
    let here = models.path();
    apply(here, &["-o", "whole.safetensors"], &["a"], "a", 0);
    let before = contents(here);
    for (to, tasks, expression, exit_code, words) in [
        (&["--lora-out", "x"][..], &["a", "full=whole.safetensors"][..], "a + full", 3, "whole tensors found"),
        (&["--lora-out", "x"], &["a", "again=a"], "a - again", 3, "changes something expected"),
        (&["--lora-out", "x", "--rank", "0"], &["a"], "a", 2, "rank of 1 or more"),
        (&["--lora-out", "x", "--energy", "1.5"], &["a"], "a", 2, "at most 1 expected"),
        (&["--lora-out", "a"], &["b"], "b", 3, "exists already"),
    ] {
        let (told, _) = apply(here, to, tasks, expression, exit_code);
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{to:?}: {message}");
        assert_eq!(contents(here), before, "{to:?}");
    }
    for words in [&["--lora-out", "x", "-o", "y"][..], &["--rank", "2", "-o", "y"], &["--lora-out", "x", "--delta"]] {
        let all = [&["apply", "--base", "base.safetensors"], words, &["--from-checkpoints", "a", "--", "a"]].concat();
        assert_eq!(run(here, &all).status.code(), Some(2), "{words:?}");
    }
}

/// An adapter that somebody else wrote is not replaced; one of ours is.
#[test]
fn only_what_this_program_wrote_is_replaced() {
    let models = models(false);
    let here = models.path();
    let (told, _) = apply(here, &["--lora-out", "a", "--overwrite"], &["b"], "b", 3);
    assert!(told["error"]["message"].as_str().unwrap().contains("will not be replaced"), "{told:#}");
    apply(here, &["--lora-out", "ours"], &["b"], "b", 0);
    apply(here, &["--lora-out", "ours", "--overwrite"], &["a"], "-a", 0);
}

//! Bases of adapters in shared spaces: what is said of them, edits from them, and what is damaged.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tvb::Checkpoint;
use tvb::checkpoint::{Dtype, SafetensorsLayout, SafetensorsWriter, TensorSpec};
use tvb_tests::small_models::Random;

const N_TASKS: usize = 6;
const RANK: usize = 4;
const SIDE: usize = 96;

fn write(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    let spec = |(name, shape, _): &(&str, Vec<usize>, Vec<f32>)| TensorSpec {
        name: (*name).to_owned(),
        dtype: Dtype::F32,
        shape: shape.clone(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(path, SafetensorsLayout::new(&specs, &Default::default()).unwrap()).unwrap();
    for (number, (.., values)) in tensors.iter().enumerate() {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write_at(number, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn numbers(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| random.value()).collect()
}

/// \[n, k\]·\[k, m\] and a tenth of noise.
fn around(a: &[f32], b: &[f32], k: usize, random: &mut Random) -> Vec<f32> {
    let m = b.len() / k;
    let entry = |at: usize| (0..k).map(|l| a[at / m * k + l] * b[l * m + at % m]).sum::<f32>();
    (0..a.len() / k * m).map(|at| entry(at) + 0.1 * random.value()).collect()
}

/// A base and adapters of one matrix around a few directions that they share, one of them ten times as large; the last replaces
/// a head, too.
fn models() -> TempDir {
    let folder = TempDir::new().unwrap();
    let random = &mut Random(11);
    let head = ["head.weight", "norm.weight"];
    write(
        &folder.path().join("base.safetensors"),
        &[
            ("q.weight", vec![SIDE, SIDE], numbers(SIDE * SIDE, random)),
            (head[0], vec![7, SIDE], numbers(7 * SIDE, random)),
            (head[1], vec![SIDE], numbers(SIDE, random)),
        ],
    );
    let (columns, rows) = (numbers(SIDE * 5, random), numbers(5 * SIDE, random));
    for task in 0..N_TASKS {
        let own = folder.path().join(format!("t{task}"));
        std::fs::create_dir(&own).unwrap();
        let inner = numbers(5 * RANK, random);
        let mut b = around(&columns, &inner, 5, random);
        if task == 0 {
            b.iter_mut().for_each(|value| *value *= 10.0);
        }
        let inner = numbers(RANK * 5, random);
        let a = around(&inner, &rows, 5, random);
        let mut tensors = vec![
            ("base_model.model.q.lora_A.weight", vec![RANK, SIDE], a),
            ("base_model.model.q.lora_B.weight", vec![SIDE, RANK], b),
        ];
        let with_head = task + 1 == N_TASKS;
        if with_head {
            tensors.push(("base_model.model.head.weight", vec![7, SIDE], numbers(7 * SIDE, random)));
        }
        write(&own.join("adapter_model.safetensors"), &tensors);
        let config = json!({
            "peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q"], "fan_in_fan_out": false,
            "modules_to_save": if with_head { json!(["head"]) } else { Value::Null },
        });
        std::fs::write(own.join("adapter_config.json"), config.to_string()).unwrap();
    }
    folder
}

#[track_caller]
fn run(folder: &Path, words: &[&str], exit_code: i32) -> (Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(words).current_dir(folder).stdin(Stdio::null());
    command.env("TVB_DEVICE", "cpu").env_remove("WGPU_BACKEND").env_remove("TVB_LOG");
    let output = command.output().expect("tvb runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit_code), "{words:?}: {said}");
    (serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
}

fn values(path: &Path, name: &str) -> Vec<f64> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let tensor = checkpoint.get(name).unwrap();
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).unwrap();
    bytes.chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))).collect()
}

const INPUTS: [&str; 8] = ["--base", "base.safetensors", "t0", "t1", "t2", "t3", "t4", "t5"];

fn compress(folder: &Path, more: &[&str], exit_code: i32) -> (Value, String) {
    run(folder, &[&["compress", "-o", "basis"], more, &INPUTS].concat(), exit_code)
}

#[test]
fn edits_from_shared_spaces_are_as_true_as_was_said() {
    let models = models();
    let here = models.path();
    let (forecast, _) = compress(here, &["--shared-rank", "6", "--dry-run", "--json"], 0);
    assert!(!here.join("basis").exists());
    let (_, said) = compress(here, &["--shared-rank", "6"], 0);
    assert!(said.contains("shared spaces of rank 6 for 1 of 2 tensors"), "{said}");
    let manifest: Value = serde_json::from_slice(&std::fs::read(here.join("basis/basis.json")).unwrap()).unwrap();
    assert_eq!((&manifest["version"], &manifest["factors"]["shared"]["rank"]), (&json!(3), &json!(6)));
    let size = |name: &str| std::fs::metadata(here.join("basis").join(name)).unwrap().len();
    let n_bytes: u64 = (0..N_TASKS).map(|task| size(&format!("atom-0{task}.safetensors"))).sum();
    assert_eq!(forecast["write_bytes"], json!(n_bytes + size("shared.safetensors")));

    // Against dense arithmetic, task by task: the error is the one that was said, and no large task took the spaces.
    let apply = ["apply", "--base", "base.safetensors", "-o"];
    let base = here.join("base.safetensors");
    for task in 0..N_TASKS {
        let name = format!("t{task}");
        run(here, &[&apply[..], &["ours.safetensors", "basis", "--overwrite", "--", &name]].concat(), 0);
        let direct =
            ["true.safetensors", "--overwrite", "--from-checkpoints", "t0", "t1", "t2", "t3", "t4", "t5", "--"];
        run(here, &[&apply[..], &direct, &[&name]].concat(), 0);
        let (mut error, mut norm, mut inner) = (0.0, 0.0, 0.0);
        for name in ["q.weight", "head.weight", "norm.weight"] {
            let base = values(&base, name);
            let [ours, exact] = ["ours", "true"].map(|file| values(&here.join(format!("{file}.safetensors")), name));
            for ((ours, exact), base) in ours.iter().zip(&exact).zip(&base) {
                error += (ours - exact).powi(2);
                norm += (exact - base).powi(2);
                inner += (exact - base) * (ours - base);
            }
        }
        let said = |what: &str| manifest["tasks"][task][what].as_f64().unwrap();
        assert!(
            (error / norm - said("relative_error")).abs() < 1e-5,
            "{name}: {} and {error} / {norm}",
            said("relative_error")
        );
        assert!((inner / norm - said("gain")).abs() < 1e-5);
        assert!((1e-4..0.5).contains(&said("relative_error")), "{name}");
        let foretold = forecast["tasks"][task]["relative_error"].as_f64().unwrap();
        assert!((foretold - said("relative_error")).abs() < 1e-12);
    }
    // The head comes back as it was.
    let [ours, exact] = ["ours", "true"].map(|file| values(&here.join(format!("{file}.safetensors")), "head.weight"));
    assert!(ours.iter().zip(&exact).all(|(ours, exact)| (ours - exact).abs() < 1e-6));

    // An edit, its predicted cosine, and the same as an adapter.
    let expression = ["--", "t1 - 0.5*t2 + t5"];
    let (json, _) = run(here, &[&apply[..], &["sum.safetensors", "--json", "basis"], &expression].concat(), 0);
    let direct = ["direct.safetensors", "--from-checkpoints", "t0", "t1", "t2", "t3", "t4", "t5"];
    run(here, &[&apply[..], &direct, &expression].concat(), 0);
    let (mut squares, mut inner) = ([0.0; 2], 0.0);
    for name in ["q.weight", "head.weight"] {
        let base = values(&base, name);
        let [ours, exact] = ["sum", "direct"].map(|file| values(&here.join(format!("{file}.safetensors")), name));
        for ((ours, exact), base) in ours.iter().zip(&exact).zip(&base) {
            inner += (ours - base) * (exact - base);
            squares[0] += (ours - base).powi(2);
            squares[1] += (exact - base).powi(2);
        }
    }
    let cosine = inner / (squares[0] * squares[1]).sqrt();
    let predicted = json["predicted"]["cosine"].as_f64().unwrap_or_else(|| panic!("{json}"));
    assert!((predicted - cosine).abs() < 1e-5 && cosine < 0.99999, "{predicted} and {cosine}");
    let adapter = ["apply", "--base", "base.safetensors", "--lora-out", "lora", "basis", "--", "t1 - 0.5*t2"];
    run(here, &adapter, 0);
    // One product of the summed cores, the same as through the basis.
    let through = ["apply", "--base", "base.safetensors", "-o", "through.safetensors", "--from-checkpoints", "lora"];
    run(here, &[&through[..], &["--", "lora"]].concat(), 0);
    run(here, &[&apply[..], &["ours2.safetensors", "basis", "--", "t1 - 0.5*t2"]].concat(), 0);
    let [ours, through] =
        ["ours2", "through"].map(|file| values(&here.join(format!("{file}.safetensors")), "q.weight"));
    assert!(ours.iter().zip(&through).all(|(ours, through)| (ours - through).abs() < 1e-4));

    run(here, &["inspect", "basis"], 0);
    run(here, &["verify", "basis"], 0);
    run(here, &[&["verify", "basis"], &INPUTS[..]].concat(), 0);
    run(here, &["recover", "basis", "--base", "base.safetensors", "-o", "back"], 0);
    run(here, &["report", "basis", "-o", "page.html"], 0);
}

#[test]
fn half_as_wide_numbers_take_half_and_what_does_not_pay_is_kept_exact() {
    let models = models();
    let here = models.path();
    compress(here, &["--shared-rank", "6"], 0);
    let wide = std::fs::metadata(here.join("basis/shared.safetensors")).unwrap().len();
    let (json, _) = compress(here, &["--shared-rank", "6", "--dtype", "bf16", "--overwrite", "--json"], 0);
    let narrow = std::fs::metadata(here.join("basis/shared.safetensors")).unwrap().len();
    assert!(narrow < wide * 6 / 10, "{narrow} of {wide}");
    run(here, &[&["verify", "basis"], &INPUTS[..]].concat(), 0);
    assert!(json["tasks"][0]["relative_error"].as_f64().unwrap() < 0.5);
    let (_, said) = compress(here, &["--shared-rank", "64", "--overwrite"], 0);
    assert!(
        said.contains("the factors of all are kept as they are") && !here.join("basis/shared.safetensors").exists(),
        "{said}"
    );
    run(here, &[&["verify", "basis"], &INPUTS[..]].concat(), 0);
}

#[test]
fn what_cannot_be_shared_is_refused_with_what_to_do() {
    let models = models();
    let here = models.path();
    std::fs::copy(here.join("base.safetensors"), here.join("full.safetensors")).unwrap();
    let all = ["compress", "-o", "basis", "--shared-rank", "6", "--base", "base.safetensors", "t1", "full.safetensors"];
    let (_, said) = run(here, &all, 2);
    assert!(said.contains("full is none") && said.contains("leave out --shared-rank"), "{said}");
    for more in [&["--bits", "2"][..], &["-m", "2"], &["--method", "pca"], &["--max-error", "0.1"]] {
        let (_, said) = compress(here, &[&["--shared-rank", "6"], more].concat(), 2);
        assert!(said.contains("--shared-rank P alone"), "{said}");
    }
    compress(here, &["--shared-rank", "0"], 2);
}

#[test]
fn damage_is_refused() {
    let models = models();
    let here = models.path();
    compress(here, &["--shared-rank", "6"], 0);
    let edit = ["apply", "--base", "base.safetensors", "-o", "e.safetensors", "basis", "--", "t1 + t2"];
    for (file, other) in [("shared.safetensors", "atom-02.safetensors"), ("atom-01.safetensors", "atom-02.safetensors")]
    {
        let path = here.join("basis").join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let last = flipped.len() - 9;
        flipped[last] ^= 1;
        let other = std::fs::read(here.join("basis").join(other)).unwrap();
        for bytes in [whole[..whole.len() - 4].to_vec(), flipped, other] {
            std::fs::write(&path, bytes).unwrap();
            let (_, said) = run(here, &edit, 3);
            assert!(said.contains(file.trim_end_matches(".safetensors")), "{said}");
            assert!(!here.join("e.safetensors").exists());
            run(here, &["verify", "basis"], 3);
        }
        std::fs::remove_file(&path).unwrap();
        run(here, &edit, 3);
        std::fs::write(&path, whole).unwrap();
    }
    // Sides of another size, and tensors that do not belong.
    let path = here.join("basis/shared.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let u = ("q.weight.lora_U", vec![SIDE, 6], vec![0.1; SIDE * 6]);
    let v = |rank: usize| ("q.weight.lora_V", vec![rank, SIDE], vec![0.1; SIDE * rank]);
    let infinite = ("q.weight.lora_V", vec![6, SIDE], vec![f32::INFINITY; SIDE * 6]);
    for tensors in [
        vec![u.clone()],
        vec![u.clone(), v(5)],
        vec![u.clone(), v(6), ("x", vec![1], vec![0.0])],
        vec![u.clone(), infinite],
        vec![u, v(6)],
    ] {
        std::fs::remove_file(&path).unwrap();
        write(&path, &tensors);
        let (_, said) = run(here, &edit, 3);
        assert!(said.contains("shared.safetensors"), "{said}");
    }
    std::fs::write(&path, whole).unwrap();
    run(here, &edit, 0);
}

#[test]
fn a_batch_makes_shared_spaces_and_knows_them_again() {
    let models = models();
    let here = models.path();
    let jobs = "[[job]]\nname = 's'\nbase = 'base.safetensors'\ntasks = ['t0', 't1', 't2', 't3', 't4', 't5']\n";
    let job = |keys: &str| std::fs::write(here.join("jobs.toml"), format!("{jobs}output = 'basis'\n{keys}\n")).unwrap();
    job("shared_rank = 6");
    let (_, said) = run(here, &["batch", "jobs.toml"], 0);
    assert!(said.contains("1 made") && here.join("basis/shared.safetensors").exists(), "{said}");
    let made = std::fs::read(here.join("basis/basis.json")).unwrap();
    let (_, said) = run(here, &["batch", "jobs.toml"], 0);
    assert!(said.contains("1 current"), "{said}");
    assert_eq!(std::fs::read(here.join("basis/basis.json")).unwrap(), made);
    // Another rank is another basis.
    job("shared_rank = 5\noverwrite = true");
    run(here, &["batch", "jobs.toml"], 0);
    assert_ne!(std::fs::read(here.join("basis/basis.json")).unwrap(), made);
    // So is one of the factors, which is known again as well.
    job("overwrite = true");
    run(here, &["batch", "jobs.toml"], 0);
    assert!(!here.join("basis/shared.safetensors").exists());
    let (_, said) = run(here, &["batch", "jobs.toml"], 0);
    assert!(said.contains("1 current"), "{said}");
}

//! Files whose tensors go by other names than the base's, as a user meets them: what is matched is said, and gives the model
//! that plain names give.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb_tests::small_models::{Random, Shape, Stored, Values, values, write_model};

/// What a command answered.
struct Said {
    json: Value,
    err: String,
}

#[track_caller]
fn run(folder: &Path, exit_code: i32, line: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(line.split_whitespace()).args(["--json", "--device", "cpu"]).current_dir(folder).stdin(Stdio::null());
    command.env_remove("TVB_DEVICE").env_remove("WGPU_BACKEND").env_remove("TVB_LOG");
    let Output { status, stdout, stderr } = command.output().expect("tvb runs");
    let err = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(exit_code), "tvb {line}\n{err}");
    Said { json: serde_json::from_slice(&stdout).unwrap_or_default(), err }
}

fn named(tensors: &[(&str, &[usize])]) -> Vec<Shape> {
    let shape = |(name, shape): &(&str, &[usize])| Shape {
        name: (*name).to_owned(),
        shape: shape.to_vec(),
        stored: Stored::F32,
    };
    tensors.iter().map(shape).collect()
}

/// The same tensors under other names.
fn renamed(shapes: &[Shape], name: impl Fn(&str) -> String) -> Vec<Shape> {
    shapes.iter().map(|shape| Shape { name: name(&shape.name), ..shape.clone() }).collect()
}

/// A small encoder: embeddings, two layers, a norm.
fn encoder() -> Vec<Shape> {
    named(&[
        ("embeddings.word.weight", &[40, 24]),
        ("encoder.layer.0.dense.weight", &[24, 24]),
        ("encoder.layer.0.dense.bias", &[24]),
        ("encoder.layer.1.dense.weight", &[24, 24]),
        ("encoder.layer.1.dense.bias", &[24]),
        ("norm.weight", &[24]),
    ])
}

fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let file = tvb::Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensor = |tensor: &tvb::checkpoint::Tensor| {
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        file.read(tensor, 0, &mut bytes).expect("read");
        (tensor.name.clone(), (tensor.shape.clone(), bytes))
    };
    file.tensors().iter().map(tensor).collect()
}

/// A base and tasks `a` and `b` under the base's names, and what adding both gives: `plain.safetensors`.
fn plain_run(folder: &Path, shapes: &[Shape]) -> (Values, Vec<Values>) {
    let (base, tasks) = values(shapes, 2, &mut Random(5));
    write_model(folder, "base", shapes, &base, 1);
    write_model(folder, "a", shapes, &tasks[0], 1);
    write_model(folder, "b", shapes, &tasks[1], 1);
    run(folder, 0, "add --base base.safetensors -o plain.safetensors --from-checkpoints a.safetensors b.safetensors");
    run(folder, 0, "compress --base base.safetensors a.safetensors b.safetensors -o plain-basis");
    run(folder, 0, "add plain-basis --base base.safetensors -o plain-coded.safetensors");
    (base, tasks)
}

#[test]
fn wrapped_names_give_the_model_that_plain_names_give() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let shapes = encoder();
    let (base, tasks) = plain_run(here, &shapes);
    let wrappers: [(&str, &dyn Fn(&str) -> String, &str); 6] = [
        ("ddp", &|name| format!("module.{name}"), "`module.` taken off 6 names"),
        ("compiled", &|name| format!("module._orig_mod.{name}"), "`module._orig_mod.` taken off 6 names"),
        ("lightning", &|name| format!("model.{name}"), "`model.` taken off 6 names"),
        ("peft", &|name| format!("base_model.model.{name}"), "`base_model.model.` taken off 6 names"),
        ("head", &|name| format!("bert.{name}"), "`bert.` taken off 6 names"),
        ("inner", &|name| name.replace("layer.", "layer._orig_mod."), "`_orig_mod.` taken off 4 names"),
    ];
    for (kind, wrap, note) in wrappers {
        let wrapped = renamed(&shapes, wrap);
        write_model(here, kind, &wrapped, &tasks[1], 1);
        let inputs = format!("a.safetensors b={kind}.safetensors");
        let said = run(here, 0, &format!("check --base base.safetensors {inputs}"));
        assert_eq!(said.json["notes"], serde_json::json!([format!("task b: {note}")]));
        assert!(said.err.contains(note), "{}", said.err);
        run(here, 0, &format!("add --base base.safetensors -o {kind}-added.safetensors --from-checkpoints {inputs}"));
        assert_eq!(tensors(&here.join(format!("{kind}-added.safetensors"))), tensors(&here.join("plain.safetensors")));
        run(here, 0, &format!("compress --base base.safetensors {inputs} -o {kind}-basis"));
        run(here, 0, &format!("add {kind}-basis --base base.safetensors -o {kind}-coded.safetensors"));
        let coded = tensors(&here.join("plain-coded.safetensors"));
        assert_eq!(tensors(&here.join(format!("{kind}-coded.safetensors"))), coded);
        run(here, 0, &format!("verify {kind}-basis --base base.safetensors {inputs}"));

        // The other way round the output keeps the base's own names.
        write_model(here, &format!("{kind}-base"), &wrapped, &base, 1);
        let line = format!("add --base {kind}-base.safetensors -o own.safetensors --overwrite --from-checkpoints");
        run(here, 0, &format!("{line} a.safetensors b.safetensors"));
        let own = tensors(&here.join("own.safetensors"));
        for (name, tensor) in tensors(&here.join("plain.safetensors")) {
            assert_eq!(own[&wrap(&name)], tensor, "{kind}: {name}");
        }
    }
}

#[test]
fn names_that_match_in_two_ways_are_refused_until_renamed() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let shapes = encoder();
    let (_, tasks) = plain_run(here, &shapes);
    let student = renamed(&shapes, |name| format!("student.{name}"));
    let teacher = renamed(&shapes, |name| format!("teacher.{name}"));
    let both = [tasks[1].clone(), tasks[0].clone()].concat();
    write_model(here, "both", &[student, teacher].concat(), &both, 1);
    let from =
        "--base base.safetensors -o out.safetensors --overwrite --from-checkpoints a.safetensors b=both.safetensors";
    let said = run(here, 3, &format!("add {from}"));
    assert!(said.err.contains("match the base's in two ways") && said.err.contains("--rename"), "{}", said.err);
    run(here, 3, &format!("add {from} --rename b:s/^student\\.//"));
    run(here, 0, &format!("add {from} --rename b:s/^student\\.// --exclude ^teacher"));
    assert_eq!(tensors(&here.join("out.safetensors")), tensors(&here.join("plain.safetensors")));
    let said = run(here, 3, &format!("add {from} --rename s/^(student|teacher)\\.//"));
    assert!(said.err.contains("one name"), "{}", said.err);
    run(here, 2, &format!("add {from} --rename c:s/x/y/"));
    run(here, 2, &format!("add {from} --rename s/x"));
}

#[test]
fn a_batch_renames_too() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let shapes = encoder();
    let (_, tasks) = plain_run(here, &shapes);
    write_model(here, "other", &renamed(&shapes, |name| name.replace("layer", "block")), &tasks[1], 1);
    let jobs = "[[job]]\nname = 'j'\nbase = 'base.safetensors'\ntasks = ['a.safetensors', 'b=other.safetensors']\noutput = 'made'\n";
    std::fs::write(here.join("jobs.toml"), jobs).expect("written");
    run(here, 1, "batch jobs.toml");
    std::fs::write(here.join("jobs.toml"), format!("{jobs}rename = 's/block/layer/'\n")).expect("written");
    let said = run(here, 0, "batch jobs.toml");
    assert!(said.err.contains("task b: `block.` read as `layer.` in 4 names"), "{}", said.err);
    run(here, 0, "add made --base base.safetensors -o made.safetensors");
    assert_eq!(tensors(&here.join("made.safetensors")), tensors(&here.join("plain-coded.safetensors")));
}

/// What is left out is said by every command, with its share, and warned of where it is much.
#[test]
fn what_is_left_out_is_said_with_its_share() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let shapes = encoder();
    let (base, tasks) = plain_run(here, &shapes);
    // Another vocabulary: 960 of 2,184 parameters.
    let mut other = shapes.clone();
    other[0].shape = vec![41, 24];
    let mut values = tasks[1].clone();
    values[0].extend([0.5; 24]);
    write_model(here, "other", &other, &values, 1);
    let inputs = "--base base.safetensors a.safetensors b=other.safetensors --skip-mismatched";
    let line = "left out: 1 tensor, 44.0 % of the base's parameters (`embeddings.word.weight`: task b: shape [40, 24] \
                expected, [41, 24] found)";
    let share = |said: &Said| said.json["left_out"]["base"]["share"].as_f64();
    let from = "--base base.safetensors --skip-mismatched -o o.safetensors --overwrite --from-checkpoints a.safetensors \
                b=other.safetensors";
    for command in [
        format!("check {inputs}"),
        format!("gram {inputs} -o g.gram"),
        "plan --gram g.gram".to_owned(),
        format!("compress {inputs} -o made"),
        format!("add {from}"),
        "add made --base base.safetensors -o o.safetensors --overwrite".to_owned(),
        "recover made --base base.safetensors -o recovered".to_owned(),
        format!("verify made {inputs}"),
        "verify made".to_owned(),
    ] {
        let said = run(here, 0, &command);
        assert!(said.err.contains(line) && said.err.to_lowercase().contains("warn"), "{command}: {}", said.err);
        if !["plan", "recover", "verify"].iter().any(|word| command.starts_with(word)) {
            assert!(
                share(&said).is_some_and(|share| (share - 960.0 / 2184.0).abs() < 1e-9),
                "{command}: {}",
                said.json
            );
        }
        let quiet = run(
            here,
            0,
            &format!(
                "{} -q",
                command
                    .replace(" made", " made")
                    .replace("-o made", "-o made2")
                    .replace("-o g.gram", "-o g2.gram")
                    .replace("-o recovered", "-o recovered2")
            ),
        );
        assert!(quiet.err.contains(line), "{command} -q: {}", quiet.err);
    }
    assert!(tensors(&here.join("o.safetensors"))["embeddings.word.weight"].1 == bytes(&base[0]));

    // A norm of 24 parameters is little of the base, and no warning.
    let said = run(
        here,
        0,
        "check --base base.safetensors a.safetensors b.safetensors --exclude ^encoder.layer.0.dense.bias$",
    );
    assert!(said.err.contains("1 tensor, 1.1 % of"), "{}", said.err);
    // A head that the base lacks.
    let mut headed = shapes.clone();
    headed.push(Shape { name: "classifier.weight".into(), shape: vec![3, 24], stored: Stored::F32 });
    let mut values = tasks[1].clone();
    values.push(vec![0.25; 72]);
    write_model(here, "headed", &headed, &values, 1);
    run(here, 3, "check --base base.safetensors a.safetensors headed.safetensors");
    let said = run(here, 0, "check --base base.safetensors a.safetensors headed.safetensors --skip-mismatched");
    assert!(
        said.err.contains("1 tensor, 3.2 % of the parameters of task `headed` (no place in the base)"),
        "{}",
        said.err
    );
    assert_eq!(said.json["left_out"]["task"]["n_parameters"], 72);
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A decoder whose head is its embedding; `head` says whether it is stored twice.
fn decoder(head: bool) -> Vec<Shape> {
    let mut tensors: Vec<(&str, &[usize])> = vec![
        ("model.embed_tokens.weight", &[48, 24]),
        ("model.layers.0.up.weight", &[32, 24]),
        ("model.layers.0.down.weight", &[24, 32]),
        ("model.norm.weight", &[24]),
    ];
    if head {
        tensors.push(("lm_head.weight", &[48, 24]));
    }
    named(&tensors)
}

/// Writes a folder with weights and a configuration.
fn write_folder(folder: &Path, name: &str, shapes: &[Shape], values: &Values, config: Option<&str>) {
    let path = folder.join(name);
    std::fs::create_dir_all(&path).expect("a folder");
    write_model(&path, "model", shapes, values, 1);
    if let Some(config) = config {
        std::fs::write(path.join("config.json"), config).expect("written");
    }
}

/// The values with the embedding's once more at the end.
fn doubled(values: &Values) -> Values {
    let mut values = values.clone();
    values.push(values[0].clone());
    values
}

const TIED: &str = r#"{"model_type": "llama", "tie_word_embeddings": true}"#;
const EMBEDDING: &str = "model.embed_tokens.weight";

#[test]
fn a_tied_head_is_the_embedding_however_it_is_stored() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let (once, twice) = (decoder(false), decoder(true));
    let (base, tasks) = plain_run(here, &once);
    let plain = tensors(&here.join("plain.safetensors"));
    let n_parameters = run(here, 0, "check --base base.safetensors a.safetensors").json["n_parameters"].clone();
    let lone = renamed(&once, |name| name.replace(EMBEDDING, "lm_head.weight"));
    // Each way to store the base, and the tasks otherwise.
    for (kind, shapes, base_values, config) in [
        ("once", &once, base.clone(), Some(TIED)),
        ("twice", &twice, doubled(&base), Some(TIED)),
        ("unsaid", &twice, doubled(&base), None),
    ] {
        write_folder(here, kind, shapes, &base_values, config);
        write_folder(here, "ta", &twice, &doubled(&tasks[0]), None);
        write_folder(here, "tb", &once, &tasks[1], None);
        let mut inputs = vec!["a=ta b=tb"];
        if config.is_some() {
            write_folder(here, "tl", &lone, &tasks[1], None);
            inputs.push("a=ta b=tl");
        }
        for (number, inputs) in inputs.into_iter().enumerate() {
            let said = run(here, 0, &format!("check --base {kind} {inputs}"));
            assert_eq!(said.json["n_parameters"], n_parameters, "{kind}: {}", said.err);
            assert!(said.err.contains("`lm_head.weight` is `model.embed_tokens.weight`: one tensor"), "{}", said.err);
            let out = format!("{kind}-{number}");
            run(here, 0, &format!("add --base {kind} -o {out}-added --from-checkpoints {inputs}"));
            run(here, 0, &format!("compress --base {kind} {inputs} -o {out}-basis"));
            run(here, 0, &format!("add {out}-basis --base {kind} -o {out}-coded"));
            run(here, 0, &format!("compress --base {kind} {inputs} -m 2 -o {out}-floats"));
            run(here, 0, &format!("add {out}-floats --base {kind} -o {out}-plain"));
            run(here, 0, &format!("recover {out}-basis a --base {kind} -o {out}-recovered"));
            run(here, 0, &format!("verify {out}-basis --base {kind} {inputs}"));
            for made in ["added", "coded", "plain", "recovered/a"] {
                let made = tensors(&here.join(format!("{out}-{made}/model.safetensors")));
                assert_eq!(made.len(), shapes.len(), "{kind}: the base's own names");
                if shapes.len() > once.len() {
                    assert_eq!(made["lm_head.weight"], made[EMBEDDING], "{kind}");
                }
                assert_ne!(made[EMBEDDING].1, bytes(&base[0]), "{kind}");
            }
            let added = tensors(&here.join(format!("{out}-added/model.safetensors")));
            assert_eq!(added[EMBEDDING], plain[EMBEDDING], "{kind}");
            // Onto a copy of the base that stores it otherwise.
            for other in ["once", "twice"].into_iter().filter(|other| here.join(other).exists()) {
                run(here, 0, &format!("add {out}-basis --base {other} -o other --overwrite"));
                let made = tensors(&here.join("other/model.safetensors"));
                let coded = tensors(&here.join(format!("{out}-coded/model.safetensors")));
                assert!(
                    made.iter()
                        .all(|(name, tensor)| coded[name.replace("lm_head", "model.embed_tokens").as_str()] == *tensor)
                );
            }
        }
    }
    let manifest = std::fs::read_to_string(here.join("once-0-basis/basis.json")).expect("a manifest");
    assert!(manifest.contains("\"version\": 3") && manifest.contains("\"twins\""), "{manifest}");
}

#[test]
fn a_task_that_unties_what_the_base_ties_is_refused() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let (once, twice) = (decoder(false), decoder(true));
    let (base, tasks) = plain_run(here, &once);
    write_folder(here, "tied", &twice, &doubled(&base), Some(TIED));
    write_folder(here, "unsaid", &twice, &doubled(&base), None);
    let mut untied = doubled(&tasks[1]);
    untied[4][7] += 1.0;
    write_folder(here, "untied", &twice, &untied, None);
    let from = "-o out --overwrite --from-checkpoints b=untied";
    let said = run(here, 3, &format!("add --base tied {from}"));
    for word in ["task b", "lm_head.weight", EMBEDDING, "config.json", "--exclude"] {
        assert!(said.err.contains(word), "{word}: {}", said.err);
    }
    let both = "--exclude ^(lm_head|model.embed_tokens).weight$";
    run(here, 0, &format!("add --base tied {from} {both}"));
    let made = tensors(&here.join("out/model.safetensors"));
    assert_eq!((&made["lm_head.weight"], &made[EMBEDDING].1), (&made[EMBEDDING], &bytes(&base[0])));
    // Where nothing ties them, they are two.
    let said = run(here, 0, &format!("add --base unsaid {from}"));
    assert!(!said.err.contains("one tensor"), "{}", said.err);
    let made = tensors(&here.join("out/model.safetensors"));
    assert_ne!(made["lm_head.weight"], made[EMBEDDING]);
    // Leaving out one of two that are one leaves out both.
    write_folder(here, "b", &twice, &doubled(&tasks[1]), None);
    run(here, 0, "add --base tied -o out --overwrite --from-checkpoints b --exclude ^lm_head");
    let made = tensors(&here.join("out/model.safetensors"));
    assert_eq!((&made["lm_head.weight"], &made[EMBEDDING].1), (&made[EMBEDDING], &bytes(&base[0])));
}

#[test]
fn one_storage_of_a_pytorch_file_is_one_tensor() {
    use tvb::checkpoint::Dtype;
    use tvb::checkpoint::torch::{SaveStorage, SaveTensor, SaveValue, TorchWriter};
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let (_, tasks) = plain_run(here, &decoder(false));
    let base = tensors(&here.join("base.safetensors"));
    // The embedding first, and under its second name once more.
    let mut entries: Vec<(&str, usize, &[usize])> = Vec::new();
    for (storage, (name, (shape, _))) in base.iter().enumerate() {
        entries.push((name, storage, shape));
        if name == EMBEDDING {
            entries.push(("odd.name", storage, shape));
        }
    }
    let entries = entries.into_iter().map(|(name, storage, shape)| {
        let tensor = SaveTensor::contiguous(storage, 0, Dtype::F32, shape);
        (SaveValue::Str(name.into()), SaveValue::Tensor(tensor))
    });
    let value = SaveValue::OrderedDict(entries.collect());
    let storages: Vec<SaveStorage> =
        base.values().map(|(_, bytes)| SaveStorage { dtype: Dtype::F32, n_elements: bytes.len() as u64 / 4 }).collect();
    let writer = TorchWriter::create(&here.join("tied.pt"), "tied", &value, &storages).expect("a file");
    for (storage, (_, bytes)) in base.values().enumerate() {
        writer.write_at(storage, 0, bytes).expect("written");
    }
    writer.finish().expect("a file");
    run(here, 0, "compress --base tied.pt a.safetensors b.safetensors -o basis");
    run(here, 0, "add basis --base tied.pt -o made.safetensors");
    let (made, coded) = (tensors(&here.join("made.safetensors")), tensors(&here.join("plain-coded.safetensors")));
    assert_eq!(made["odd.name"], made[EMBEDDING]);
    assert!(coded.iter().all(|(name, tensor)| made[name] == *tensor));
    // A task in which they differ.
    let mut shapes = decoder(false);
    shapes.push(Shape { name: "odd.name".into(), ..shapes[0].clone() });
    let mut values = doubled(&tasks[0]);
    values[4][0] += 1.0;
    write_model(here, "untied", &shapes, &values, 1);
    let said = run(here, 3, "check --base tied.pt untied.safetensors");
    assert!(said.err.contains("`odd.name`") && said.err.contains("one place"), "{}", said.err);
}

/// `values` with as many rows of the embedding and of the head more (or fewer).
fn resized(values: &Values, shapes: &[Shape], n_rows: usize) -> (Vec<Shape>, Values) {
    let (mut shapes, mut values) = (shapes.to_vec(), values.clone());
    for (shape, values) in shapes.iter_mut().zip(&mut values) {
        if shape.shape[0] == 48 {
            shape.shape[0] = n_rows;
            values.resize(shape.shape.iter().product(), 0.75);
        }
    }
    (shapes, values)
}

#[test]
fn another_vocabulary_takes_part_in_its_common_rows() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    // An untied head with a bias, so that three tensors have the vocabulary's size; and a class head, which has not.
    let mut shapes = decoder(true);
    shapes.extend(named(&[("lm_head.bias", &[48]), ("score.weight", &[3, 24])]));
    let (base, tasks) = values(&shapes, 2, &mut Random(9));
    write_model(here, "base", &shapes, &base, 1);
    write_model(here, "a", &shapes, &tasks[0], 1);
    let (wider, wider_values) = resized(&tasks[1], &shapes, 52);
    write_model(here, "wider", &wider, &wider_values, 1);
    let (narrow, narrow_values) = resized(&tasks[1], &shapes, 45);
    write_model(here, "narrow", &narrow, &narrow_values, 1);
    let said = run(here, 3, "check --base base.safetensors a.safetensors b=wider.safetensors");
    assert!(said.err.contains("--vocab common"), "{}", said.err);

    for (kind, n_rows) in [("wider", 48), ("narrow", 45)] {
        let inputs = format!("a.safetensors b={kind}.safetensors");
        let said = run(here, 0, &format!("check --base base.safetensors {inputs} --vocab common"));
        let note = format!("the first {n_rows} rows of ");
        assert!(said.err.contains(&note), "{}", said.err);
        let left_out = &said.json["left_out"];
        assert_eq!(left_out["base"]["n_parameters"], (48 - n_rows) * (24 + 24 + 1), "{left_out}");
        if kind == "wider" {
            assert_eq!(
                (left_out["task"]["name"].as_str(), &left_out["task"]["n_parameters"]),
                (Some("b"), &(4 * 49).into())
            );
        }
        let from = format!("--vocab common --from-checkpoints {inputs}");
        run(here, 0, &format!("add --base base.safetensors -o {kind}-added.safetensors {from}"));
        run(here, 0, &format!("compress --base base.safetensors {inputs} --vocab common -o {kind}-coded"));
        run(here, 0, &format!("compress --base base.safetensors {inputs} --vocab common -m 2 -o {kind}-floats"));
        run(here, 0, &format!("gram --base base.safetensors {inputs} --vocab common -o {kind}.gram"));
        run(
            here,
            0,
            &format!(
                "compress --base base.safetensors {inputs} --vocab common --method random -m 1 --gram {kind}.gram -o {kind}-random"
            ),
        );
        for basis in ["coded", "floats", "random"] {
            run(here, 0, &format!("add {kind}-{basis} --base base.safetensors -o {kind}-{basis}.safetensors"));
            run(here, 0, &format!("recover {kind}-{basis} b --base base.safetensors -o {kind}-{basis}-recovered"));
            let said = run(here, 0, &format!("verify {kind}-{basis} --base base.safetensors {inputs}"));
            let error = said.json["errors"][0]["measured"].as_f64();
            assert!(
                error.is_some_and(|error| error < if basis == "floats" { 1e-6 } else { 1.1 }),
                "{basis}: {}",
                said.json
            );
        }
        let made = |name: &str| tensors(&here.join(name));
        let added = made(&format!("{kind}-added.safetensors"));
        for (index, shape) in shapes.iter().enumerate() {
            let is_vocabulary = shape.shape[0] == 48;
            let of_row = shape.shape.iter().skip(1).product::<usize>();
            let n_common = if is_vocabulary { n_rows * of_row } else { base[index].len() };
            let sum: Vec<f32> = (0..base[index].len())
                .map(|at| {
                    let base = base[index][at];
                    if at >= n_common {
                        base
                    } else {
                        base + (tasks[0][index][at] - base) + (tasks[1][index][at] - base)
                    }
                })
                .collect();
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect()
            };
            let close = |found: &[f32], most: f32| found.iter().zip(&sum).all(|(a, b)| (a - b).abs() <= most);
            assert!(close(&floats(&added[&shape.name].1), 1e-6), "{kind}: {}", shape.name);
            for (basis, most) in [("coded", 0.5), ("floats", 1e-5)] {
                let found = floats(&made(&format!("{kind}-{basis}.safetensors"))[&shape.name].1);
                assert_eq!(found.len(), sum.len());
                assert!(close(&found, most), "{kind}-{basis}: {}", shape.name);
                assert_eq!(found[n_common..], base[index][n_common..], "{kind}-{basis}: the base's own rows");
            }
        }
    }
    // A class head of other classes is no vocabulary.
    let mut classes = shapes.clone();
    classes[6].shape[0] = 4;
    let mut class_values = tasks[1].clone();
    class_values[6].resize(96, 0.5);
    let (classes, class_values) = resized(&class_values, &classes, 52);
    write_model(here, "classes", &classes, &class_values, 1);
    let said = run(here, 3, "check --base base.safetensors classes.safetensors --vocab common");
    assert!(said.err.contains("1 mismatch") && said.err.contains("score.weight"), "{}", said.err);
    // In a batch.
    let jobs = "[[job]]\nname = 'j'\nbase = 'base.safetensors'\ntasks = ['a.safetensors', 'b=wider.safetensors']\noutput = 'made'\nvocab = 'common'\n";
    std::fs::write(here.join("jobs.toml"), jobs).expect("written");
    run(here, 0, "batch jobs.toml");
    run(here, 0, "add made --base base.safetensors -o batch.safetensors");
    assert_eq!(tensors(&here.join("batch.safetensors")), tensors(&here.join("wider-coded.safetensors")));
}

#[test]
fn an_output_may_carry_a_task_s_own_head() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let mut shapes = encoder();
    shapes.push(named(&[("classifier.weight", &[2, 24])]).remove(0));
    let (base, tasks) = values(&shapes, 2, &mut Random(21));
    let config = r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "problem_type": "regression"}"#;
    write_folder(here, "base", &shapes, &base, Some(config));
    write_folder(here, "a", &shapes, &tasks[0], None);
    // Five classes, a bias that the base lacks, and a wrapper around both.
    let mut own = shapes.clone();
    own[6].shape = vec![5, 24];
    own.push(named(&[("classifier.bias", &[5])]).remove(0));
    let mut own_values = tasks[1].clone();
    own_values[6].resize(120, 0.25);
    own_values.push(vec![1.0, 2.0, 3.0, 4.0, 5.0]);
    let of_task = r#"{"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x", "4": "y"}}"#;
    write_folder(here, "b", &renamed(&own, |name| format!("module.{name}")), &own_values, Some(of_task));

    let check = |out: &str, said: &Said| {
        let made = tensors(&here.join(format!("{out}/model.safetensors")));
        assert_eq!(made.len(), 8);
        assert_eq!(made["classifier.weight"], (vec![5, 24], bytes(&own_values[6])));
        assert_eq!(made["classifier.bias"], (vec![5], bytes(&own_values[7])));
        assert_ne!(made["norm.weight"].1, bytes(&base[5]));
        let config = std::fs::read_to_string(here.join(out).join("config.json")).expect("a configuration");
        let config: Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config["architectures"][0], "BertForSequenceClassification");
        assert_eq!((&config["id2label"]["4"], &config["model_type"]), (&"y".into(), &"bert".into()));
        assert!(config.get("problem_type").is_none());
        let card = std::fs::read_to_string(here.join(out).join("README.md")).expect("a card");
        assert!(card.contains("2 tensors are task `b`'s own: `classifier."), "{card}");
        let mut head: Vec<&str> =
            said.json["head"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
        head.sort_unstable();
        assert_eq!(head, ["classifier.bias", "classifier.weight"]);
    };
    let from = "--base base --from-checkpoints a b";
    run(here, 3, &format!("add -o out {from}"));
    let said = run(here, 0, &format!("add -o out --head-from b ^classifier\\. {from}"));
    check("out", &said);
    // From a basis the task's checkpoint is named.
    run(here, 0, "compress --base base a b --exclude ^classifier -o basis");
    run(here, 2, "add basis --base base -o coded --head-from b ^classifier");
    let said = run(here, 0, "apply basis a+0.5*b --base base -o coded --head-from b=b ^classifier");
    check("coded", &said);
    let said = run(here, 0, "negate basis b --base base -o half --dtype bf16 --head-from b=b ^classifier");
    assert_eq!(said.json["head"].as_array().map(Vec::len), Some(2));
    let half = tvb::Checkpoint::open(&here.join("half")).expect("a checkpoint");
    assert!(half.tensors().iter().all(|tensor| tensor.dtype == tvb::checkpoint::Dtype::Bf16));

    run(here, 3, &format!("add -o none --head-from b ^nothing {from} --exclude ^classifier"));
    run(here, 2, "add basis -o none --delta --base base --head-from b=b ^classifier");
    run(here, 2, "add basis -o none --base base --head-from b=b (");
    assert!(!here.join("none").exists());
}

#[test]
fn one_of_two_tied_tensors_is_nobody_s_own() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let twice = decoder(true);
    let (base, tasks) = values(&decoder(false), 2, &mut Random(2));
    write_folder(here, "base", &twice, &doubled(&base), Some(TIED));
    write_folder(here, "a", &twice, &doubled(&tasks[0]), None);
    write_folder(here, "b", &twice, &doubled(&tasks[1]), None);
    let from = "--base base --from-checkpoints a b";
    let said = run(here, 3, &format!("add -o out --head-from a ^lm_head {from}"));
    assert!(said.err.contains("are one in the base"), "{}", said.err);
    run(here, 0, &format!("add -o out --head-from a ^(lm_head|model.embed_tokens) {from}"));
    let made = tensors(&here.join("out/model.safetensors"));
    assert_eq!((&made["lm_head.weight"], &made[EMBEDDING].1), (&made[EMBEDDING], &bytes(&tasks[0][0])));
}

//! Files whose tensors go by other names than the base's, as a user meets them: what is matched is said, and gives the model
//! that plain names give.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tvb_tests::small_models::{Random, Shape, Stored, Values, values, write_model};

mod base;
mod head;
mod headless;
mod tied;
mod vocabulary;

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

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
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, (view.shape().to_vec(), view.data().to_vec()))
    };
    file.tensors().into_iter().map(tensor).collect()
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
        run(here, 0, &format!("verify {kind}-basis --base base.safetensors --originals {inputs}"));

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
    run(here, 3, "batch jobs.toml");
    std::fs::write(here.join("jobs.toml"), format!("{jobs}rename = 's/block/layer/'\n")).expect("written");
    let said = run(here, 0, "batch jobs.toml");
    assert!(said.err.contains("task b: `block.` read as `layer.` in 4 names"), "{}", said.err);
    run(here, 0, "add made --base base.safetensors -o made.safetensors");
    assert_eq!(tensors(&here.join("made.safetensors")), tensors(&here.join("plain-coded.safetensors")));
}

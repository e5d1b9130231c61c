//! What training leaves behind, written by the libraries themselves: read as its owner means it, or refused by its name.

use std::path::{Path, PathBuf};
use tvb::ErrorKind;
use tvb::checkpoint::{Checkpoint, Layout, OpenOptions};
use tvb::columns::open::{open_base, open_columns};
use tvb::columns::tasks::TaskSource;

fn fixture(name: &str) -> PathBuf {
    tvb_tests::fixture("inputs").join(name)
}

fn first_value(checkpoint: &Checkpoint, name: &str) -> f32 {
    let mut bytes = [0; 4];
    checkpoint.read(checkpoint.get(name).unwrap(), 0, &mut bytes).unwrap();
    f32::from_le_bytes(bytes)
}

#[test]
fn tied_parameters_of_torch_are_one() {
    let checkpoint = Checkpoint::open(&fixture("tied.pt")).unwrap();
    let names: Vec<Vec<&str>> = checkpoint
        .tied()
        .iter()
        .map(|group| group.iter().map(|&position| checkpoint.tensors()[position].name.as_str()).collect())
        .collect();
    assert_eq!(names, [["0.weight", "1.weight"]]);
    assert!(Checkpoint::open(&fixture("fp8.pt")).unwrap().tied().is_empty());
}

#[test]
fn what_arithmetic_cannot_take_is_refused_by_name() {
    for (name, expected) in [
        ("fp8.pt", "tensor `0.weight`: fp8 weights (f8_e4m3)"),
        ("complex.pt", "tensor `0.weight`: complex numbers"),
        ("dcp", "a distributed checkpoint (DCP)"),
        ("dcp/__0_0.distcp", "a part of a distributed checkpoint"),
    ] {
        let error = open_base(&fixture(name), &OpenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().starts_with("base: ") && error.message().contains(expected), "{name}: {error}");
        assert!(error.hint_text().is_some(), "{name}");
    }
}

/// `state_dict_ema` is in the tune alone, so `--key` for all would not do.
#[test]
fn a_path_has_a_key_of_its_own() {
    let top = tempfile::tempdir().unwrap();
    let base = top.path().join("base.pth.tar");
    std::fs::copy(fixture("ema.pth.tar"), &base).unwrap();
    let tune = fixture("ema.pth.tar");
    let text = |key: &str| format!("{}{key}", tune.display());
    let open = |base: &Path, texts: &[String]| {
        let sources = TaskSource::parse_all(texts)?;
        open_columns(base, &sources, &OpenOptions::default())
    };
    let (base_opened, tasks) = open(&base, &[format!("plain={}", text("")), text("::state_dict_ema")]).unwrap();
    assert_eq!([tasks[0].name.as_str(), tasks[1].name.as_str()], ["plain", "ema"]);
    let plain = first_value(&base_opened, "0.weight");
    assert_eq!(first_value(&tasks[0].checkpoint, "0.weight"), plain);
    assert_eq!(first_value(&tasks[1].checkpoint, "0.weight"), 0.5 * plain);

    let mut with_key = base.clone().into_os_string();
    with_key.push("::state_dict_ema");
    assert_eq!(
        first_value(&open_base(Path::new(&with_key), &OpenOptions::default()).unwrap(), "0.weight"),
        0.5 * plain
    );
    let error = open(&base, &[text("::ema")]).unwrap_err();
    assert!(error.message().contains("no key `ema` in it"), "{error}");
    assert!(error.hint_text().unwrap().contains("it has `epoch`, `state_dict`, `state_dict_ema`"), "{error}");
    let safetensors = fixture("pipeline/vae/diffusion_pytorch_model.safetensors");
    let error = open(&safetensors, &[format!("{}::vae", safetensors.display())]).unwrap_err();
    assert!(error.message().contains("only PyTorch files have keys"), "{error}");
}

#[test]
fn a_pipeline_is_one_checkpoint() {
    let checkpoint = Checkpoint::open(&fixture("pipeline")).unwrap();
    let Layout::Pipeline { components, others } = checkpoint.layout() else { panic!("{:?}", checkpoint.layout()) };
    let names: Vec<&str> = components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(
        (names, others.as_slice()),
        (vec!["text_encoder", "unet", "vae"], ["scheduler", "tokenizer"].map(String::from).as_slice())
    );
    assert!(checkpoint.get("unet/conv_in.weight").is_some() && checkpoint.get("vae/encoder.conv_in.weight").is_some());
    let n_parts: usize = names_of_parts().iter().map(|part| Checkpoint::open(part).unwrap().tensors().len()).sum();
    assert_eq!(checkpoint.tensors().len(), n_parts);
    let config = checkpoint.config_of(&components[0]).unwrap().unwrap();
    assert_eq!(config.get("model_type").and_then(|value| value.as_str()), Some("clip_text_model"));
}

fn names_of_parts() -> [PathBuf; 3] {
    ["text_encoder", "unet", "vae"].map(|part| fixture("pipeline").join(part))
}

fn copy_folder(from: &Path, to: &Path) {
    for (name, bytes) in tvb_tests::small_models::contents(from) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn hostile_lists_of_components_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let pipeline = top.path().join("pipeline");
    copy_folder(&fixture("pipeline"), &pipeline);
    let many: String = (0..65).map(|n| format!("\"c{n}\": [\"a\", \"B\"],")).collect();
    let cases = [
        ("[]".to_owned(), "expected a JSON object"),
        ("{".into(), "not JSON"),
        ("{}".into(), "a pipeline without weights"),
        (r#"{"unet": [null, null], "_class_name": ["a", "b"], "flag": true}"#.into(), "a pipeline without weights"),
        (r#"{"../vae": ["diffusers", "X"]}"#.into(), "component `../vae`: expected a folder's name"),
        (r#"{"vae": ["diffusers", "X"], "prior": ["diffusers", "Y"]}"#.into(), "the file `prior` is missing"),
        (format!("{{{many} \"d\": [\"a\", \"B\"]}}"), "66 components"),
        (format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20)), "at most 1048576 bytes expected"),
    ];
    for (text, expected) in cases {
        std::fs::write(pipeline.join("model_index.json"), text).unwrap();
        let error = Checkpoint::open(&pipeline).unwrap_err();
        assert!(error.message().contains(expected), "expected {expected:?} in: {error}");
        assert_eq!(error.kind(), ErrorKind::Rejected);
    }
    #[cfg(unix)]
    {
        std::fs::write(pipeline.join("model_index.json"), r#"{"other": ["diffusers", "X"]}"#).unwrap();
        std::os::unix::fs::symlink(fixture("pipeline/vae"), pipeline.join("other")).unwrap();
        let error = Checkpoint::open(&pipeline).unwrap_err();
        assert!(error.message().contains("is a symbolic link out of the folder"), "{error}");
    }
}

#[test]
fn one_component_is_a_task_of_its_pipeline() {
    let top = tempfile::tempdir().unwrap();
    copy_folder(&fixture("pipeline/unet"), &top.path().join("run/unet"));
    copy_folder(&fixture("pipeline/vae"), &top.path().join("renamed"));
    let texts = ["run/unet", "renamed"].map(|name| top.path().join(name));
    let sources = TaskSource::parse_all(&texts).unwrap();
    assert_eq!(sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["run", "renamed"]);
    let (base, tasks) = open_columns(&fixture("pipeline"), &sources, &OpenOptions::default()).unwrap();
    for (task, part) in tasks.iter().zip(["unet/", "vae/"]) {
        let checkpoint = &task.checkpoint;
        assert_eq!(checkpoint.tensors().len(), base.tensors().len());
        for tensor in base.tensors() {
            let found = checkpoint.get(&tensor.name).unwrap();
            assert_eq!((&found.shape, found.is_delta()), (&tensor.shape, !tensor.name.starts_with(part)));
        }
        assert!(
            checkpoint.notes().iter().any(|note| note.contains(part.trim_end_matches('/'))),
            "{:?}",
            checkpoint.notes()
        );
    }
    // A whole model that is no component, and a pipeline against a component.
    let sources = TaskSource::parse_all(&[fixture("tied.pt")]).unwrap();
    let error = open_columns(&fixture("pipeline"), &sources, &OpenOptions::default()).unwrap_err();
    assert!(error.message().contains("a component of the pipeline"), "{error}");
    let sources = TaskSource::parse_all(&[fixture("pipeline")]).unwrap();
    let error = open_columns(&fixture("pipeline/unet"), &sources, &OpenOptions::default()).unwrap_err();
    assert!(error.message().contains("a pipeline, and the base") && error.hint_text().is_some(), "{error}");
}

#[test]
fn folders_are_opened_by_the_names_that_libraries_give() {
    let weights = std::fs::read(fixture("pipeline/vae/diffusion_pytorch_model.safetensors")).unwrap();
    let torch = std::fs::read(fixture("tied.pt")).unwrap();
    // The first is the one that is taken; of none, what the error says.
    let cases: [(&[&str], Result<bool, &str>); 13] = [
        (&["model.fp16.safetensors", "optimizer.pt"], Ok(true)),
        (&["model.safetensors", "model.fp16.safetensors"], Ok(false)),
        (&["pytorch_model.bin", "open_clip_pytorch_model.bin"], Ok(false)),
        (&["open_clip_model.safetensors", "open_clip_pytorch_model.bin"], Ok(false)),
        (&["open_clip_pytorch_model.bin"], Ok(false)),
        (&["consolidated.safetensors", "params.json"], Ok(false)),
        (&["consolidated.00.pth", "params.json"], Ok(false)),
        (&["weights.pth.tar", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"], Ok(true)),
        (&["last.ckpt"], Ok(true)),
        (&["best.pt", "last.pt"], Err("found 2 other files of weights")),
        (&["model.fp16.safetensors", "model.bf16.safetensors"], Err("found 2 other files of weights")),
        (&["optimizer.pt"], Err("found none")),
        (&["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"], Err("a training run")),
    ];
    for (files, expected) in cases {
        let top = tempfile::tempdir().unwrap();
        for file in files {
            let path = top.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, if file.ends_with(".safetensors") { &weights } else { &torch }).unwrap();
        }
        match (Checkpoint::open(top.path()), expected) {
            (Ok(checkpoint), Ok(is_said)) => {
                assert_eq!(checkpoint.files()[0].path, top.path().join(files[0]), "{files:?}");
                assert_eq!(!checkpoint.notes().is_empty(), is_said, "{files:?}: {:?}", checkpoint.notes());
            }
            (Err(error), Err(expected)) => {
                assert!(error.message().contains(expected), "{files:?}: {error}");
                assert!(error.hint_text().is_some() && error.kind() == ErrorKind::Rejected, "{files:?}: {error}");
                if files[0].starts_with("checkpoint") {
                    assert!(error.message().ends_with("\n  checkpoint-500\n  checkpoint-1000"), "{error}");
                    assert!(error.hint_text().unwrap().ends_with("checkpoint-1000"), "{error}");
                }
            }
            (found, _) => panic!("{files:?}: {found:?}"),
        }
    }
}

//! PyTorch files that the method's published code really wrote, read without PyTorch: the same tensors as in
//! safetensors, and the inner products of the task vectors that the code computed.

use serde_json::Value as Json;
use std::path::PathBuf;
use tvb::ErrorKind;
use tvb::checkpoint::torch::TorchFile;
use tvb::checkpoint::{Checkpoint, Dtype, Layout, OpenOptions, Place, Tensor};
use tvb::columns::plan::{Plan, Selection, Task};

fn fixture(name: &str) -> PathBuf {
    tvb_tests::fixture("reference").join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn expected() -> Json {
    serde_json::from_str(&std::fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
}

/// The keys in the reference's order.
fn expected_keys(expected: &Json) -> Vec<&str> {
    expected["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect()
}

fn bytes(checkpoint: &Checkpoint, tensor: &Tensor) -> Vec<u8> {
    let mut out = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut out).unwrap();
    out
}

fn keys(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.in_key_order().map(|tensor| tensor.name.as_str()).collect()
}

/// All tensors one after another.
fn flat(checkpoint: &Checkpoint, keys: &[&str]) -> Vec<f64> {
    let mut out = Vec::new();
    for key in keys {
        let tensor = checkpoint.get(key).unwrap();
        assert_eq!(tensor.dtype, Dtype::F32);
        let bytes = bytes(checkpoint, tensor);
        out.extend(bytes.chunks_exact(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))));
    }
    out
}

#[test]
fn every_container_holds_the_tensors_of_the_safetensors_file() {
    let reference = open("state_dicts/zeroshot.safetensors");
    let expected = expected();
    let order = expected_keys(&expected);
    let files = [
        "state_dicts/zeroshot.pt",
        "state_dicts/zeroshot.nested.pt",
        "state_dicts/zeroshot.legacy.pt",
        "ViT-tiny/zeroshot.pt",
    ];
    for name in files {
        let checkpoint = open(name);
        assert_eq!(*checkpoint.layout(), Layout::TorchFile);
        assert_eq!(keys(&checkpoint), order, "{name}");
        assert_eq!(checkpoint.tensors().len(), reference.tensors().len(), "{name}");
        for tensor in checkpoint.tensors() {
            let same = reference.get(&tensor.name).unwrap();
            assert_eq!((tensor.dtype, &tensor.shape), (same.dtype, &same.shape), "{name}: {}", tensor.name);
            assert_eq!(bytes(&checkpoint, tensor), bytes(&reference, same), "{name}: {}", tensor.name);
        }
        checkpoint.check_unchanged().unwrap();
    }
}

#[test]
fn whole_modules_have_the_gram_that_the_reference_computed() {
    let expected = expected();
    let order = expected_keys(&expected);
    let base = flat(&open("ViT-tiny/zeroshot.pt"), &order);
    assert_eq!(base.len() as u64, expected["d"].as_u64().unwrap());
    let tasks = expected["tasks"].as_array().unwrap();
    let deltas: Vec<Vec<f64>> = tasks
        .iter()
        .map(|task| {
            let checkpoint = open(&format!("ViT-tiny/{}Val/finetuned.pt", task.as_str().unwrap()));
            flat(&checkpoint, &order).iter().zip(&base).map(|(tuned, base)| tuned - base).collect()
        })
        .collect();
    for (i, row) in expected["gram"].as_array().unwrap().iter().enumerate() {
        for (j, expected) in row.as_array().unwrap().iter().enumerate() {
            let found: f64 = deltas[i].iter().zip(&deltas[j]).map(|(a, b)| a * b).sum();
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "gram[{i}][{j}]: {found}, expected {expected}");
        }
    }
}

#[test]
fn buffers_that_a_module_does_not_save_are_left_out() {
    // The causal mask is there as a storage and not in the state dict.
    let checkpoint = open("ViT-tiny/zeroshot.pt");
    assert!(keys(&checkpoint).iter().all(|key| !key.contains("attn_mask")));
    assert!(checkpoint.not_tensors().is_empty());
}

#[test]
fn a_key_chooses_the_state_dict() {
    let path = fixture("state_dicts/zeroshot.nested.pt");
    let with =
        |key: &str| Checkpoint::open_with(&path, &OpenOptions { key: Some(key.into()), ..OpenOptions::default() });
    assert_eq!(keys(&with("state_dict").unwrap()), keys(&open("state_dicts/zeroshot.pt")));
    let error = with("ema").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.message().contains("no key `ema`"), "{error}");
    assert!(error.hint_text().unwrap().contains("`state_dict`"), "{error:?}");
}

#[test]
fn published_bases_are_values_that_can_be_looked_into() {
    let path = fixture("published/ViT-tiny_PCA_M4_8task/basis_vectors.pt");
    // Not a checkpoint, and the message says what it is instead.
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(error.message().contains("expected a state dict or a module, found a dict of"), "{error}");

    let file = TorchFile::open(&path).unwrap();
    let atoms = file.root().get("basis_vectors").unwrap();
    assert_eq!(atoms.items().unwrap().len(), 4);
    assert_eq!(file.root().get("num_basis").unwrap().as_i64(), Some(4));
    let expected = expected();
    for atom in atoms.items().unwrap() {
        let names: Vec<&str> = atom.entries().unwrap().map(|(key, _)| key.as_str().unwrap()).collect();
        assert_eq!(names, expected_keys(&expected));
    }

    // Coefficients lie transposed in the file: (M, T) with strides (1, M).
    let file = TorchFile::open(&fixture("published/ViT-tiny_PCA_M4_8task/pca_components.pt")).unwrap();
    let coefficients = file.root().get("coefficients").unwrap().tensor("coefficients").unwrap();
    assert_eq!(coefficients.shape, [4, 8]);
    assert!(matches!(&coefficients.place, Place::Strided { strides, .. } if strides[..] == [1, 4]), "{coefficients:?}");
    let mut row_major = vec![0; coefficients.n_bytes() as usize];
    file.read(&coefficients, 0, &mut row_major).unwrap();
    let mut one = [0; 4];
    file.read(&coefficients, 4 * (8 + 2), &mut one).unwrap();
    assert_eq!(one, row_major[40..44]);
    assert!(file.root().get("total_dim").unwrap().as_i64().unwrap() > 0);
    let shapes = file.root().get("param_shapes").unwrap();
    assert!(shapes.items().is_some() || shapes.entries().is_some(), "{}", shapes.describe());

    let file = TorchFile::open(&fixture("published/ViT-tiny_AE_M4_8task/AWB.pt")).unwrap();
    for (name, shape) in [("A", [8, 4]), ("W", [4, 8]), ("B", [8, 4])] {
        assert_eq!(file.root().get(name).unwrap().tensor(name).unwrap().shape, shape);
    }
    let metadata = file.root().get("metadata").unwrap();
    assert_eq!(metadata.get("M").unwrap().as_i64(), Some(4));
    assert!(metadata.get("lr").unwrap().as_f64().unwrap() > 0.0);
}

fn torch_fixture(name: &str) -> PathBuf {
    tvb_tests::fixture("torch").join(name)
}

#[test]
fn files_of_todays_pytorch_hold_the_tensors_of_the_safetensors_file() {
    let cases = [
        ("module.pt", "module"),
        ("module_protocol5.pt", "module"),
        ("training.pt", "module"),
        ("linear_legacy.pt", "linear"),
        ("views.pt", "views"),
        ("views_legacy.pt", "views"),
        ("views_compressed.pt", "views"),
        ("dtypes.pt", "dtypes"),
        ("attributes.pt", "attributes"),
    ];
    for (name, reference) in cases {
        let checkpoint = Checkpoint::open(&torch_fixture(name)).unwrap_or_else(|error| panic!("{error}"));
        let reference = Checkpoint::open(&torch_fixture(&format!("{reference}.safetensors"))).unwrap();
        let order: Vec<&str> = reference.metadata()["order"].split('\n').collect();
        assert_eq!(keys(&checkpoint), order, "{name}");
        for key in order {
            let (tensor, same) = (checkpoint.get(key).unwrap(), reference.get(key).unwrap());
            assert_eq!((tensor.dtype, &tensor.shape), (same.dtype, &same.shape), "{name}: {key}");
            assert_eq!(bytes(&checkpoint, tensor), bytes(&reference, same), "{name}: {key}");
        }
    }
}

#[test]
fn views_are_read_in_pieces_like_any_tensor() {
    for name in ["views.pt", "views_compressed.pt"] {
        let checkpoint = Checkpoint::open(&torch_fixture(name)).unwrap();
        for tensor in checkpoint.tensors() {
            let whole = bytes(&checkpoint, tensor);
            for begin in 0..whole.len() {
                let mut piece = vec![0; (whole.len() - begin).min(24)];
                checkpoint.read(tensor, begin as u64, &mut piece).unwrap();
                assert_eq!(piece, whole[begin..begin + piece.len()], "{name}: {} from {begin}", tensor.name);
            }
        }
    }
}

#[test]
fn a_wrapper_for_several_devices_leaves_its_prefix() {
    let checkpoint = Checkpoint::open(&torch_fixture("linear_parallel.pt")).unwrap();
    let base = Checkpoint::open(&torch_fixture("linear.safetensors")).unwrap();
    assert_eq!(keys(&checkpoint), ["module.weight", "module.bias"]);
    let task = |checkpoint: &Checkpoint| vec![Task { name: "parallel".into(), checkpoint: checkpoint.clone() }];
    let plan = Plan::new(base.clone(), task(&checkpoint), &Selection::default()).unwrap();
    for planned in &plan.tensors {
        let (own, wrapped) = (plan.column_tensor(planned, 0), plan.column_tensor(planned, 1));
        assert_eq!(wrapped.name, own.name);
        assert_eq!(bytes(&checkpoint, wrapped), bytes(&base, own));
    }
    assert_eq!(plan.tensors.len(), 2);
    assert_eq!(plan.notes, ["task parallel: `module.` taken off 2 names"]);
    assert_eq!(Plan::new(checkpoint.clone(), task(&checkpoint), &Selection::default()).unwrap().tensors.len(), 2);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let cases = [
        ("no_sparse.pt", "tensor `w`: a tensor made by `_rebuild_sparse_tensor`, which is not supported", ""),
        ("no_complex128.pt", "tensor `w`: a tensor in `ComplexDoubleStorage`, which is not supported", ""),
        ("no_conjugated.pt", "tensor `w`: a conjugated or negated view, which is not supported", ""),
        ("no_meta.pt", "tensor `w`: a tensor made by `_rebuild_meta_tensor_no_storage`, which is not supported", ""),
        ("no_bare.pt", "expected a state dict or a module, found a tensor", "save the state dict"),
        ("no_usual_key.pt", "expected a state dict or a module, found a dict of 2", "--key: `a`"),
        ("no_torchscript.pt", "a TorchScript archive, which is not supported", "state dict"),
        ("no_container.pt", "a plain pickle, expected a file that torch.save wrote", "torch.save"),
    ];
    for (name, expected, hint) in cases {
        let error = Checkpoint::open(&torch_fixture(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().ends_with(&format!("{name}: {expected}")), "{error}");
        assert!(error.hint_text().unwrap_or("").contains(hint), "{error:?}");
    }
}

#[test]
fn torch_folders_are_read_with_and_without_an_index() {
    let top = tempfile::tempdir().unwrap();
    std::fs::copy(torch_fixture("dtypes.pt"), top.path().join("pytorch_model.bin")).unwrap();
    let checkpoint = Checkpoint::open(top.path()).unwrap();
    let shards = vec!["pytorch_model.bin".to_owned()];
    assert_eq!(*checkpoint.layout(), Layout::TorchFolder { shards, indexed: false });
    assert_eq!(checkpoint.index_name(), None);
    let first = keys(&checkpoint).join(" ");

    let top = tempfile::tempdir().unwrap();
    let mut weight_map = serde_json::Map::new();
    for (shard, name) in [("pytorch_model-00001-of-00002.bin", "dtypes"), ("pytorch_model-00002-of-00002.bin", "views")]
    {
        let source = torch_fixture(&format!("{name}.pt"));
        std::fs::copy(&source, top.path().join(shard)).unwrap();
        for key in keys(&Checkpoint::open(&source).unwrap()) {
            weight_map.insert(key.to_owned(), shard.into());
        }
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": weight_map });
    std::fs::write(top.path().join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    let checkpoint = Checkpoint::open(top.path()).unwrap();
    assert!(matches!(checkpoint.layout(), Layout::TorchFolder { shards, indexed: true } if shards.len() == 2));
    assert_eq!(checkpoint.index_name(), Some("pytorch_model.bin.index.json"));
    assert!(keys(&checkpoint).join(" ").starts_with(&first));
    for reference in ["dtypes", "views"] {
        let reference = Checkpoint::open(&torch_fixture(&format!("{reference}.safetensors"))).unwrap();
        for tensor in reference.tensors() {
            let same = checkpoint.get(&tensor.name).unwrap();
            assert_eq!(bytes(&checkpoint, same), bytes(&reference, tensor), "{}", tensor.name);
        }
    }
}

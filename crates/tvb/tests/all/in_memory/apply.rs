//! Edits added to a model in memory: which model, and which bits.

use super::{adapters, applied, bases, formed, lent, loaded, odd, refused, values, values_in};
use crate::coded::models::{ODD, coded, plan, runtime, words, write, write_models};
use crate::numbers::{edit, wave};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Dtype, Lent, LentTensor};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{EditJob, EditOutput, Source};
use tvb::jobs::in_memory::{InMemoryOptions, apply_in_place, edit_tensors};
use tvb::progress::Silent;
use tvb_kernels::{Dtype as Float, Rate};

#[test]
fn an_edit_in_place_has_the_bits_of_one_in_a_file() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 3, 14));
    let (base, adapters) = adapters(top.path());
    let of_plan = bases(&plan, top.path()).into_iter().map(|basis| (&plan.base, basis));
    for (base, (name, basis)) in of_plan.chain(adapters.into_iter().map(|basis| (&base, basis))) {
        let target = top.path().join(format!("{name} edited.safetensors"));
        let mut alpha = vec![0.0; basis.n_tasks()];
        (alpha[0], alpha[1]) = (1.0, -0.25);
        let edit = edit(&alpha, 0.5);
        let output = EditOutput::new(&target);
        EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(base), output: &output }
            .write(&runtime(), &Silent)
            .expect("an edited checkpoint");
        for n_threads in [1, 2] {
            let model = loaded(base);
            let n_tensors = applied(&basis, &edit, &model, n_threads).expect("applied");
            assert_eq!(n_tensors, basis.stored_tensors().len(), "{name}");
            assert!(values(&model) == values_in(&target), "{name}, {n_threads} threads");
        }
    }
}

/// Names with something before them, tensors of others beside them, and no frozen ones.
#[test]
fn a_wrapped_model_is_the_same_model() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 2, 15));
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, None, &[])).basis;
    let edit = edit(&[1.0, 1.0], 0.4);
    let plain = loaded(&plan.base);
    applied(&basis, &edit, &plain, 2).expect("applied");
    let mut wrapped = loaded(&plan.base);
    wrapped.iter_mut().for_each(|tensor| tensor.name = format!("module.{}", tensor.name));
    applied(&basis, &edit, &wrapped, 2).expect("applied");
    let unwrapped = values(&wrapped).into_iter().map(|(name, bytes)| (name.replace("module.", ""), bytes));
    assert!(unwrapped.collect::<BTreeMap<_, _>>() == values(&plain));
    let mut other = loaded(&plan.base);
    other.retain(|tensor| tensor.name != "frozen");
    other.push(lent("steps", Dtype::I64, &[], &[1; 8]));
    applied(&basis, &edit, &other, 2).expect("applied");
    let (other, plain) = (values(&other), values(&plain));
    assert!(other["steps"] == [1; 8] && plain.iter().all(|(name, bytes)| name == "frozen" || other[name] == *bytes));
}

/// A model with an embedding that is its head, and tasks of other vocabularies.
fn tied_basis(top: &Path) -> (Basis, Vec<LentTensor>) {
    let file = |name: &str, n_rows: usize, seed: usize, is_base: bool| {
        let path = top.join(format!("{name}.safetensors"));
        let mut values = wave(n_rows * 40, 1);
        let moved: Vec<f64> = wave(n_rows * 40, seed);
        if !is_base {
            values.iter_mut().zip(&moved).for_each(|(value, moved)| *value += 0.1 * moved);
        }
        let names = ["wte.weight", "lm_head.weight"];
        let tensor = |name: &str| (name.to_owned(), Float::F32, vec![n_rows, 40], values.clone());
        let mut tensors = vec![tensor(names[0]), tensor(names[1])];
        tensors.push(("w".into(), Float::F32, vec![20, 20], wave(400, seed + 5)));
        write(&path, &tensors);
        path
    };
    let base = file("base", 110, 2, true);
    let tasks = [file("a", 100, 3, false), file("b", 105, 4, false)];
    let open = |path: &Path| Checkpoint::open(path).expect("a checkpoint");
    let task = |(name, path): (&str, &PathBuf)| Task { name: name.into(), checkpoint: open(path) };
    let tasks = ["a", "b"].into_iter().zip(&tasks).map(task).collect();
    let plan = Plan::new(open(&base), tasks, &Selection::default().common_vocab(true)).expect("a plan");
    assert!(plan.fit.twins.len() == 1 && plan.fit.common_rows[0].n_rows == 100, "{:?}", plan.fit);
    let basis = compress(&plan, &CompressOptions::new(top.join("basis")), &runtime(), &Silent).expect("a basis").basis;
    (basis, loaded(&plan.base))
}

#[test]
fn a_tied_tensor_is_edited_once() {
    let top = tempfile::tempdir().expect("a folder");
    let (basis, apart) = tied_basis(top.path());
    let edit = edit(&[1.0, 1.0], 0.4);
    let target = top.path().join("edited.safetensors");
    let base = Checkpoint::open(&top.path().join("base.safetensors")).expect("a base");
    let output = EditOutput::new(&target);
    EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(&base), output: &output }
        .write(&runtime(), &Silent)
        .expect("an edited checkpoint");
    // Two copies of the tensor, and one under two names.
    let mut tied = loaded(&base);
    let at = |name: &str, model: &[LentTensor]| model.iter().position(|tensor| tensor.name == name).expect("there");
    let (first, second) = (at("wte.weight", &tied), at("lm_head.weight", &tied));
    tied[second].bytes = tied[first].bytes.clone();
    let differs = loaded(&base);
    for model in [&apart, &tied] {
        assert_eq!(applied(&basis, &edit, model, 2).expect("applied"), 2);
        assert!(values(model) == values_in(&target));
    }
    // The head alone.
    let mut alone = loaded(&base);
    alone.remove(first);
    applied(&basis, &edit, &alone, 2).expect("applied");
    assert!(values(&alone).iter().all(|(name, bytes)| values_in(&target)[name] == *bytes));
    // One of the two was trained on its own.
    let mut bytes = differs[second].bytes.to_vec();
    bytes[3] ^= 1;
    let differs: Vec<LentTensor> = differs
        .into_iter()
        .map(
            |tensor| if tensor.name == "lm_head.weight" { LentTensor { bytes: odd(&bytes), ..tensor } } else { tensor },
        )
        .collect();
    let message = refused(&basis, &edit, &differs);
    assert!(message.contains("tensor lm_head.weight: one tensor with wte.weight in the basis, and they differ here"));
    // Either name is formed alike.
    let tensors = edit_tensors(&basis).expect("its tensors");
    assert_eq!(tensors.iter().map(|(_, shape)| shape.clone()).collect::<Vec<_>>(), [vec![20, 20], vec![100, 40]]);
    let both: Vec<LentTensor> =
        ["wte.weight", "lm_head.weight"].iter().map(|name| lent(name, Dtype::F32, &[100, 40], &[0; 16_000])).collect();
    formed(&basis, &edit, &both, 2).expect("formed");
    assert!(both[0].bytes.to_vec() == both[1].bytes.to_vec() && both[0].bytes.to_vec() != [0; 16_000]);
}

#[test]
fn a_model_that_does_not_fit_is_left_as_it_was() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 2, 16));
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, None, &[])).basis;
    let edit = edit(&[1.0, 1.0], 1.0);
    let mut model = loaded(&plan.base);
    model.retain(|tensor| tensor.name != "bias");
    let at = |name: &str, model: &[LentTensor]| model.iter().position(|tensor| tensor.name == name).expect("there");
    let (embed, conv, head) = (at("embed", &model), at("conv", &model), at("head", &model));
    model[embed].shape = vec![67, 257];
    model[conv].dtype = Dtype::I32;
    let bytes: Arc<Vec<u8>> = Arc::new(model[head].bytes.to_vec());
    // SAFETY: the vector is the owner, and nobody writes to it.
    model[head].bytes = unsafe { Lent::new(bytes.as_ptr(), bytes.len(), bytes.clone()) };
    let message = refused(&basis, &edit, &model);
    assert!(message.starts_with("the model: 4 mismatches with "), "{message}");
    for expected in [
        "tensor bias: missing",
        "tensor embed: shape [257, 67] expected, [67, 257] found",
        "tensor conv: a float type expected, i32 found",
        "tensor head: memory that can be written expected",
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let mut model = loaded(&plan.base);
    let owner: Arc<Vec<AtomicU8>> = Arc::new((0..5000).map(|_| AtomicU8::new(0)).collect());
    let first = owner.as_ptr().cast::<u8>().cast_mut();
    // SAFETY: both lie in the vector, which is the owner, and may change there.
    let [one, other] =
        unsafe { [Lent::writable(first, 4620, owner.clone()), Lent::writable(first.add(4600), 36, owner)] };
    let (conv, tiny) = (at("conv", &model), at("tiny", &model));
    (model[conv].bytes, model[tiny].bytes) = (one, other);
    let message = refused(&basis, &edit, &model);
    assert!(message.contains("tensor tiny: has memory in common with conv, and an edit of its own"), "{message}");
    // A file is not edited in place.
    let options = InMemoryOptions::default();
    let error = apply_in_place(&basis, &edit, &plan.base, &options, &runtime(), &Silent).expect_err("refused");
    assert!(error.message().contains("a tensor in memory expected, another found"), "{error}");
}

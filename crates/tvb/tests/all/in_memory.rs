//! State dicts in memory are checkpoints like any other, and edits formed or added in memory have the bits of those in files.

use crate::coded::models::{ODD, coded, options, plan, runtime, words, write, write_models};
use crate::numbers::{edit, wave};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Dtype, Lent, LentTensor, OpenOptions, Tensor};
use tvb::columns::open::{open_columns, take_base, take_task};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::columns::tasks::TaskSource;
use tvb::jobs::compress::{CodingOptions, CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::in_memory::{InMemoryOptions, apply_in_place, edit_tensors, form};
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::ops::survey::survey;
use tvb::pass::Runtime;
use tvb::progress::{Progress, Silent};
use tvb::solve::Method;
use tvb::{Error, ErrorKind, Existing};
use tvb_kernels::{Dtype as Float, Rate};
use tvb_tests::fixture;
use tvb_tests::small_models::contents;

/// Bytes at an odd address.
fn odd(bytes: &[u8]) -> Lent {
    let owner: Arc<Vec<AtomicU8>> = Arc::new([0; 2].iter().chain(bytes).map(|byte| AtomicU8::new(*byte)).collect());
    let skipped = 1 + owner.as_ptr().addr() % 2;
    // SAFETY: what is skipped and the bytes are in the vector, which is the owner, and may change there.
    unsafe {
        let first = owner.as_ptr().cast::<u8>().cast_mut().add(skipped);
        std::ptr::copy(owner.as_ptr().cast::<u8>().add(2), first, bytes.len());
        Lent::writable(first, bytes.len(), owner)
    }
}

fn lent(name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> LentTensor {
    LentTensor { name: name.into(), dtype, shape: shape.to_vec(), bytes: odd(bytes) }
}

fn bytes_of(checkpoint: &Checkpoint, tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).expect("read");
    bytes
}

/// The tensors of a checkpoint, each loaded to an odd address.
fn loaded(checkpoint: &Checkpoint) -> Vec<LentTensor> {
    let load = |tensor: &Tensor| lent(&tensor.name, tensor.dtype, &tensor.shape, &bytes_of(checkpoint, tensor));
    checkpoint.tensors().iter().map(load).collect()
}

fn in_memory(checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint::in_memory("state dict in memory", loaded(checkpoint)).expect("a checkpoint")
}

/// The same plan, all of it loaded.
fn plan_in_memory(plan: &Plan) -> Plan {
    let base = take_base(in_memory(&plan.base)).expect("a base");
    let task = |task: &Task| take_task(&task.name, in_memory(&task.checkpoint), &base).expect("a task");
    Plan::new(base.clone(), plan.tasks.iter().map(task).collect(), &Selection::default()).expect("a plan")
}

/// Everything in a state dict.
fn values(tensors: &[LentTensor]) -> BTreeMap<String, Vec<u8>> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.bytes.to_vec())).collect()
}

/// Everything in a file.
fn values_in(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = Checkpoint::open(path).expect("a checkpoint");
    checkpoint.tensors().iter().map(|tensor| (tensor.name.clone(), bytes_of(&checkpoint, tensor))).collect()
}

fn zoo() -> Plan {
    let path = |name: &str| PathBuf::from(format!("../tvb-zoo/checkpoints/{name}.safetensors"));
    Plan::open(path("base"), ["digits", "letters", "mazes"].map(path)).expect("a plan")
}

/// Bases of every kind, made of one plan.
fn bases(plan: &Plan, top: &Path) -> Vec<(&'static str, Basis)> {
    let make = |name: &'static str, options: CompressOptions| {
        (name, compress(plan, &options, &runtime(), &Silent).expect("a basis").basis)
    };
    let mixtures = |name: &str| CompressOptions::mixtures(top.join(name)).atoms(2);
    vec![
        make("coded", options(plan, &top.join("coded"), &words(Rate::Three, Some(Rate::Eight), &["t0-t1"]))),
        make("coded mixtures", mixtures("cm").method(Method::Pca).coding(Some(CodingOptions::default()))),
        make("plain", mixtures("plain").method(Method::Pca)),
        make("bf16", mixtures("bf16").method(Method::Identity).atoms(3).dtype(Float::Bf16)),
        make("random", mixtures("random").method(Method::Random { seed: 7 })),
    ]
}

/// Adapters over the model of a fixture: two that differ in their scale, kept as they are or in shared spaces.
fn adapters(top: &Path) -> (Checkpoint, Vec<(&'static str, Basis)>) {
    let case = fixture("lora").join("gpt2");
    let source = |name: &str| TaskSource { name: name.into(), path: case.join("adapter"), key: None };
    let open = OpenOptions::default();
    let (base, tasks) =
        open_columns(&case.join("base.safetensors"), &[source("a"), source("b")], &open).expect("adapters");
    let plan = Plan::new(base, tasks, &Selection::all()).expect("a plan");
    let make = |name: &'static str, options: CompressOptions| {
        (name, compress(&plan, &options, &runtime(), &Silent).expect("a basis").basis)
    };
    let factors = make("factors", CompressOptions::new(top.join("factors")));
    let shared = make("shared", CompressOptions::new(top.join("shared")).shared_rank(Some(2)));
    (plan.base, vec![factors, shared])
}

fn targets(basis: &Basis, dtype: Dtype) -> Vec<LentTensor> {
    let tensors = edit_tensors(basis).expect("its tensors");
    let target = |(name, shape): &(String, Vec<usize>)| {
        lent(name, dtype, shape, &vec![0xff; dtype.size() * shape.iter().product::<usize>()])
    };
    tensors.iter().map(target).collect()
}

fn formed(basis: &Basis, edit: &Edit, targets: &[LentTensor], n_threads: usize) -> Result<bool, Error> {
    let runtime = Runtime::on_cpu(n_threads, 64 << 20);
    form(basis, edit, targets, &InMemoryOptions::default(), &runtime, &Silent).map(|formed| formed.is_checked)
}

fn applied(basis: &Basis, edit: &Edit, model: &[LentTensor], n_threads: usize) -> Result<usize, Error> {
    let model = Checkpoint::in_memory("the model", model.to_vec())?;
    let runtime = Runtime::on_cpu(n_threads, 64 << 20);
    apply_in_place(basis, edit, &model, &InMemoryOptions::default(), &runtime, &Silent).map(|applied| applied.n_tensors)
}

/// What an error says, with the model left as it was.
fn refused(basis: &Basis, edit: &Edit, model: &[LentTensor]) -> String {
    let before = values(model);
    let error = applied(basis, edit, model, 2).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(values(model) == before, "nothing was written: {error}");
    unquoted(&error)
}

/// A message without the quotes around names.
fn unquoted(error: &Error) -> String {
    error.message().replace('`', "")
}

#[test]
fn a_basis_of_state_dicts_is_that_of_the_files() {
    let top = tempfile::tempdir().expect("a folder");
    let (files, memory) = (zoo(), plan_in_memory(&zoo()));
    for (name, options) in [
        ("coded", CompressOptions::new as fn(PathBuf) -> CompressOptions),
        ("mixtures", |path| CompressOptions::mixtures(path).atoms(2)),
    ] {
        let made = [(&files, "files"), (&memory, "memory")].map(|(plan, from)| {
            let output = top.path().join(format!("{name}-{from}"));
            let basis = compress(plan, &options(output.clone()), &runtime(), &Silent).expect("a basis").basis;
            assert!(
                verify_files(&basis, &runtime(), &Silent).expect("checked").iter().all(|file| file.damage.is_none())
            );
            let errors = verify_errors(&basis, plan, &runtime(), &Silent).expect("errors");
            let mut contents = contents(&output);
            let manifest = contents.remove(Path::new("basis.json")).expect("a manifest");
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
            (contents, errors, manifest)
        });
        let [(files, file_errors, _), (memory, memory_errors, manifest)] = made;
        assert!(files == memory && file_errors == memory_errors, "{name}");
        assert_eq!(manifest["base"]["source"], "state dict in memory");
    }
    let gram = |plan: &Plan, name: &str| {
        make_gram_file(plan, &top.path().join(name), Existing::Refuse, &runtime(), &Silent).expect("a Gram file")
    };
    let (files, memory) = (gram(&files, "files"), gram(&memory, "memory"));
    assert!(files.triangles == memory.triangles);
}

/// Nothing lies beside a state dict, whatever lies where its name would be a path.
#[test]
fn edits_of_a_base_in_memory_are_those_of_its_file() {
    let top = tempfile::tempdir().expect("a folder");
    let paths = write_models(top.path(), ODD, 2, 5);
    let plan = plan(&paths);
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, None, &[])).basis;
    let decoy = top.path().join("decoy");
    std::fs::create_dir(&decoy).expect("a folder");
    std::fs::write(decoy.join("config.json"), r#"{"_name_or_path": "a/b"}"#).expect("written");
    let base = Checkpoint::in_memory(decoy.to_str().expect("a path"), loaded(&plan.base)).expect("a base");
    let edit = edit(&[1.0, -0.5], 1.0);
    let mut made = Vec::new();
    for (base, from) in [(&plan.base, "file"), (&base, "memory")] {
        for target in [format!("{from}.safetensors"), format!("{from} folder")] {
            let target = top.path().join(target);
            let output = EditOutput::new(&target);
            EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(base), output: &output }
                .write(&runtime(), &Silent)
                .expect("an edited checkpoint");
            made.push(values_in(&target));
            assert!(!target.join("config.json").exists());
        }
    }
    assert!(made.iter().all(|other| *other == made[0]));
    assert!(base.config().expect("none").is_none() && base.hub_name().is_none());
}

#[test]
fn a_formed_edit_has_the_bits_of_one_in_a_file() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 3, 11));
    let (_, adapters) = adapters(top.path());
    for (name, basis) in bases(&plan, top.path()).into_iter().chain(adapters) {
        for (dtype, float) in [(Dtype::F32, Float::F32), (Dtype::Bf16, Float::Bf16), (Dtype::F16, Float::F16)] {
            let folder = top.path().join(format!("{name} in {dtype}"));
            let options = RecoverOptions::new(vec![1], &folder).dtype(Some(float));
            let written = recover(&basis, None, &options, &runtime(), &Silent).expect("a task vector").written;
            let mut alpha = vec![0.0; basis.n_tasks()];
            alpha[1] = 1.0;
            for n_threads in [1, 2] {
                let targets = targets(&basis, dtype);
                assert!(formed(&basis, &edit(&alpha, 1.0), &targets, n_threads).expect("formed"), "{name}");
                assert!(values(&targets) == values_in(&written[0]), "{name} in {dtype}");
            }
        }
    }
}

#[test]
fn some_tensors_are_formed_each_in_its_type() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 3, 12));
    let edit = edit(&[1.0, 0.0, -2.0], 0.5);
    for (name, basis) in bases(&plan, top.path()) {
        let all = [Dtype::F32, Dtype::F16].map(|dtype| targets(&basis, dtype));
        for targets in &all {
            assert!(formed(&basis, &edit, targets, 2).expect("formed"));
        }
        let [in_f32, in_f16] = all.each_ref().map(|targets| values(targets));
        // Coded ones, others, one element; one that no task has moved, and one without elements.
        let frozen = lent("frozen", Dtype::Bf16, &[40, 40], &[0xff; 3200]);
        let empty = lent("empty", Dtype::F32, &[0, 4], &[]);
        let again = |in_type: usize, name: &str| {
            let found = all[in_type].iter().find(|tensor| tensor.name == name).expect("a tensor");
            lent(name, found.dtype, &found.shape, &vec![0xff; found.bytes.len()])
        };
        let chosen = [(0, "embed"), (0, "scale"), (0, "tiny"), (1, "conv"), (1, "bias")];
        let some: Vec<LentTensor> = chosen.iter().map(|(t, name)| again(*t, name)).chain([frozen, empty]).collect();
        let runtime = runtime();
        let found = form(&basis, &edit, &some, &InMemoryOptions::default(), &runtime, &Silent).expect("formed");
        assert_eq!((found.is_checked, found.frozen), (false, vec!["frozen".to_owned(), "empty".to_owned()]), "{name}");
        for (tensor, bytes) in values(&some) {
            match tensor.as_str() {
                "frozen" | "empty" => assert!(bytes.iter().all(|byte| *byte == 0)),
                "conv" | "bias" => assert!(in_f16[&tensor] == bytes, "{name}: {tensor}"),
                _ => assert!(in_f32[&tensor] == bytes, "{name}: {tensor}"),
            }
        }
        // Together they are all of it.
        let mixed: Vec<LentTensor> = (0..all[0].len()).map(|at| all[at % 2][at].clone()).collect();
        assert!(formed(&basis, &edit, &mixed, 1).expect("formed"), "{name}");
    }
}

#[test]
fn targets_that_do_not_fit_are_refused_by_name() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 2, 13));
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, None, &[])).basis;
    let read_only = {
        let bytes: Arc<Vec<u8>> = Arc::new(vec![0; 1200]);
        // SAFETY: the vector is the owner, and nobody writes to it.
        unsafe { Lent::new(bytes.as_ptr(), 1200, bytes.clone()) }
    };
    let bias = |dtype, shape: &[usize], n_bytes| lent("bias", dtype, shape, &vec![0; n_bytes]);
    let cases: [(Vec<LentTensor>, &str); 7] = [
        (vec![bias(Dtype::F32, &[301], 1204)], "target bias: shape [300] expected, [301] found"),
        (vec![bias(Dtype::F64, &[300], 2400)], "target bias: f32, bf16 or f16 expected, f64 found"),
        (vec![bias(Dtype::F32, &[300], 1199)], "target bias: 1199 bytes are not [300] of f32"),
        (vec![bias(Dtype::F32, &[usize::MAX, 2], 8)], "target bias: 8 bytes are not"),
        (vec![bias(Dtype::F32, &[300], 1200); 2], "target bias: given twice"),
        (vec![lent("biass", Dtype::F32, &[300], &[0; 1200])], "target biass: the basis has no such tensor"),
        (vec![LentTensor { bytes: read_only, ..bias(Dtype::F32, &[300], 1200) }], "target bias: memory that can be"),
    ];
    for (targets, expected) in cases {
        let error = formed(&basis, &edit(&[1.0, 1.0], 1.0), &targets, 1).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(unquoted(&error).contains(expected), "{error}");
    }
    assert!(formed(&basis, &edit(&[1.0, 1.0], 1.0), &[], 1).is_ok_and(|is_checked| !is_checked));
}

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

#[test]
fn values_beyond_their_type_leave_a_model_as_it_was() {
    let top = tempfile::tempdir().expect("a folder");
    let n = 20_000;
    let mut moved = wave(n, 1);
    (moved[3], moved[17_000]) = (30_000.0, -30_000.0);
    let file = |name: &str, values: &[f64]| {
        let path = top.path().join(format!("{name}.safetensors"));
        write(&path, &[("w".into(), Float::F16, vec![n / 2, 2], values.to_vec())]);
        path
    };
    let (base, tuned) = (file("base", &vec![-1.0; n]), file("tuned", &moved));
    let plan = Plan::open(&base, [&tuned]).expect("a plan");
    let basis = compress(
        &plan,
        &CompressOptions::mixtures(top.path().join("basis")).method(Method::Identity),
        &runtime(),
        &Silent,
    )
    .expect("a basis")
    .basis;
    // What a bound cannot exclude is formed, and found to fit.
    let model = loaded(&plan.base);
    applied(&basis, &edit(&[1.0], 1.5), &model, 2).expect("it fits");
    let model = loaded(&plan.base);
    let message = refused(&basis, &edit(&[1.0], 3.0), &model);
    assert!(message.starts_with("the model, tensor w: finite values expected, 2 beyond f16 found"), "{message}");
    let clip = InMemoryOptions::default().clip(true);
    let checkpoint = Checkpoint::in_memory("the model", model.clone()).expect("a checkpoint");
    let applied = apply_in_place(&basis, &edit(&[1.0], 3.0), &checkpoint, &clip, &runtime(), &Silent).expect("clipped");
    assert_eq!(applied.clipped.n_values, 2);
    let at = |row: usize| {
        let bytes = model[0].bytes.to_vec();
        tvb_kernels::decode(&bytes[2 * row..][..2], Float::F16)[0]
    };
    assert_eq!([at(3), at(17_000)], [65_504.0, -65_504.0]);
    let targets = targets(&basis, Dtype::F16);
    let error = formed(&basis, &edit(&[1.0], 3.0), &targets, 2).expect_err("beyond f16");
    assert!(error.message().contains("tensor w: finite values expected, 2 beyond f16"), "{error}");
}

#[test]
fn a_damaged_basis_leaves_a_model_as_it_was() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 2, 17));
    let edit = edit(&[1.0, 1.0], 1.0);
    let coded = CompressOptions::new(top.path().join("coded"));
    let plain = CompressOptions::mixtures(top.path().join("plain")).atoms(1);
    for options in [coded, plain] {
        let basis = compress(&plan, &options, &runtime(), &Silent).expect("a basis").basis;
        let path = options.output.join(&basis.manifest.atoms[0].file);
        let mut bytes = std::fs::read(&path).expect("read");
        let at = bytes.len() * 3 / 4;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let message = refused(&basis, &edit, &loaded(&plan.base));
        assert!(message.contains("its checksum does not match: the atom was damaged"), "{message}");
        let error = formed(&basis, &edit, &targets(&basis, Dtype::F32), 2).expect_err("damaged");
        assert!(error.message().contains("its checksum does not match"), "{error}");
    }
}

/// What an edit in place relies on where it is not formed twice.
#[test]
fn no_value_of_an_edit_is_beyond_its_bound() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 3, 19));
    let mut bases = bases(&plan, top.path());
    for rate in Rate::ALL {
        let output = top.path().join(rate.name());
        bases.push((rate.name(), coded(&plan, &output, &words(rate, Some(Rate::Signs), &[])).basis));
    }
    for (name, basis) in bases.into_iter().filter(|(name, _)| *name != "random") {
        for alpha in [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-3.0, 0.5, 100.0]] {
            let (edit, targets) = (edit(&alpha, 1.0), targets(&basis, Dtype::F32));
            formed(&basis, &edit, &targets, 2).expect("formed");
            let values = targets.iter().flat_map(|target| tvb_kernels::decode(&target.bytes.to_vec(), Float::F32));
            let largest = values.fold(0.0, |largest: f64, value| largest.max(f64::from(value.abs())));
            let edits = edit.edits(Source::Basis(&basis)).expect("an edit");
            let found = survey(&plan.base, &edits, &runtime(), &Silent).expect("looked at");
            let bound = found.largest_edit();
            assert!(found.fits() && largest <= bound && bound <= 100.0 * largest, "{name}: {largest} {bound}");
        }
    }
}

/// Something happens when a stage of this name begins.
struct When<'a> {
    stage: &'static str,
    happens: &'a (dyn Fn() + Sync),
    is_cancelled: AtomicBool,
}

impl Progress for When<'_> {
    fn begin(&self, stage: &'static str, _total_bytes: u64) {
        if stage == self.stage {
            (self.happens)();
            self.is_cancelled.store(true, Ordering::Relaxed);
        }
    }
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}
    fn note(&self, _line: &str) {}
    fn cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

fn apply_when(
    basis: &Basis,
    model: &[LentTensor],
    stage: &'static str,
    happens: &(dyn Fn() + Sync),
) -> Result<(), Error> {
    let checkpoint = Checkpoint::in_memory("the model", model.to_vec()).expect("a checkpoint");
    let progress = When { stage, happens, is_cancelled: AtomicBool::new(false) };
    let options = InMemoryOptions::default();
    apply_in_place(basis, &edit(&[1.0, 1.0], 1.0), &checkpoint, &options, &runtime(), &progress).map(drop)
}

#[test]
fn whoever_stops_leaves_a_model_whole() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 2, 18));
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, None, &[])).basis;
    let edited = loaded(&plan.base);
    applied(&basis, &edit(&[1.0, 1.0], 1.0), &edited, 2).expect("applied");
    let model = loaded(&plan.base);
    let error = apply_when(&basis, &model, "check", &|| ()).expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(values(&model) == values(&loaded(&plan.base)));
    apply_when(&basis, &model, "reconstruct", &|| ()).expect("too late to stop");
    assert!(values(&model) == values(&edited));
}

#[test]
fn a_basis_that_changes_meanwhile_is_said_with_what_to_do() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(&write_models(top.path(), ODD, 2, 20));
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, None, &[])).basis;
    let atom = basis.folder.join(&basis.manifest.atoms[0].file);
    let touch = || {
        let file = std::fs::File::options().write(true).open(&atom).expect("an atom");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touched");
    };
    let error = apply_when(&basis, &loaded(&plan.base), "reconstruct", &touch).expect_err("changed");
    assert!(error.message().starts_with("the model: edited in part: "), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.starts_with("load the model again")));
}

//! State dicts in memory are checkpoints like any other, and edits formed or added in memory have the bits of those in files.

mod apply;
mod apply_safely;
mod compress;
mod form;

use crate::coded::models::{options, runtime, words};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Dtype, Lent, LentTensor, OpenOptions, Tensor};
use tvb::columns::open::open_columns;
use tvb::columns::plan::{Plan, Selection};
use tvb::columns::tasks::TaskSource;
use tvb::jobs::compress::{CodingOptions, CompressOptions, compress};
use tvb::jobs::edit::Edit;
use tvb::jobs::in_memory::{InMemoryOptions, apply_in_place, edit_tensors, form};
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb::solve::Method;
use tvb::{Error, ErrorKind};
use tvb_kernels::{Dtype as Float, Rate};
use tvb_tests::fixture;

/// Bytes at an odd address.
pub(super) fn odd(bytes: &[u8]) -> Lent {
    let owner: Arc<Vec<AtomicU8>> = Arc::new([0; 2].iter().chain(bytes).map(|byte| AtomicU8::new(*byte)).collect());
    let skipped = 1 + owner.as_ptr().addr() % 2;
    // SAFETY: what is skipped and the bytes are in the vector, which is the owner, and may change there.
    unsafe {
        let first = owner.as_ptr().cast::<u8>().cast_mut().add(skipped);
        std::ptr::copy(owner.as_ptr().cast::<u8>().add(2), first, bytes.len());
        Lent::writable(first, bytes.len(), owner)
    }
}

pub(super) fn lent(name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> LentTensor {
    LentTensor { name: name.into(), dtype, shape: shape.to_vec(), bytes: odd(bytes) }
}

pub(super) fn bytes_of(checkpoint: &Checkpoint, tensor: &Tensor) -> Vec<u8> {
    let mut bytes = vec![0; tensor.n_bytes() as usize];
    checkpoint.read(tensor, 0, &mut bytes).expect("read");
    bytes
}

/// The tensors of a checkpoint, each loaded to an odd address.
pub(super) fn loaded(checkpoint: &Checkpoint) -> Vec<LentTensor> {
    let load = |tensor: &Tensor| lent(&tensor.name, tensor.dtype, &tensor.shape, &bytes_of(checkpoint, tensor));
    checkpoint.tensors().iter().map(load).collect()
}

/// Everything in a state dict.
pub(super) fn values(tensors: &[LentTensor]) -> BTreeMap<String, Vec<u8>> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.bytes.to_vec())).collect()
}

/// Everything in a file.
pub(super) fn values_in(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = Checkpoint::open(path).expect("a checkpoint");
    checkpoint.tensors().iter().map(|tensor| (tensor.name.clone(), bytes_of(&checkpoint, tensor))).collect()
}

/// Bases of every kind, made of one plan.
pub(super) fn bases(plan: &Plan, top: &Path) -> Vec<(&'static str, Basis)> {
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
pub(super) fn adapters(top: &Path) -> (Checkpoint, Vec<(&'static str, Basis)>) {
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

pub(super) fn targets(basis: &Basis, dtype: Dtype) -> Vec<LentTensor> {
    let tensors = edit_tensors(basis).expect("its tensors");
    let target = |(name, shape): &(String, Vec<usize>)| {
        lent(name, dtype, shape, &vec![0xff; dtype.size() * shape.iter().product::<usize>()])
    };
    tensors.iter().map(target).collect()
}

pub(super) fn formed(basis: &Basis, edit: &Edit, targets: &[LentTensor], n_threads: usize) -> Result<bool, Error> {
    let runtime = Runtime::on_cpu(n_threads, 64 << 20);
    form(basis, edit, targets, &InMemoryOptions::default(), &runtime, &Silent).map(|formed| formed.is_checked)
}

pub(super) fn applied(basis: &Basis, edit: &Edit, model: &[LentTensor], n_threads: usize) -> Result<usize, Error> {
    let model = Checkpoint::in_memory("the model", model.to_vec())?;
    let runtime = Runtime::on_cpu(n_threads, 64 << 20);
    apply_in_place(basis, edit, &model, &InMemoryOptions::default(), &runtime, &Silent).map(|applied| applied.n_tensors)
}

/// What an error says, with the model left as it was.
pub(super) fn refused(basis: &Basis, edit: &Edit, model: &[LentTensor]) -> String {
    let before = values(model);
    let error = applied(basis, edit, model, 2).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(values(model) == before, "nothing was written: {error}");
    unquoted(&error)
}

/// A message without the quotes around names.
pub(super) fn unquoted(error: &Error) -> String {
    error.message().replace('`', "")
}

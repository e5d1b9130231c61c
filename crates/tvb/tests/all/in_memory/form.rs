//! Edits formed into lent arrays.

use super::{adapters, bases, formed, lent, targets, unquoted, values, values_in};
use crate::coded::models::{ODD, coded, plan, runtime, words, write_models};
use crate::numbers::edit;
use std::sync::Arc;
use tvb::ErrorKind;
use tvb::checkpoint::{Dtype, Lent, LentTensor};
use tvb::jobs::in_memory::{InMemoryOptions, form};
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::progress::Silent;
use tvb_kernels::{Dtype as Float, Rate};

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

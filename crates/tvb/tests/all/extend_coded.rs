//! Tasks join bases of coded tasks: in mixed formats, while others change the basis, and while somebody stops it.

use crate::coded::models::{self, Kind, kind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tvb::basis::Basis;
use tvb::columns::plan::Plan;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::drop::{DropOptions, drop_tasks};
use tvb::jobs::extend::{ExtendOptions, extend};
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::progress::{Progress, Silent};
use tvb::{ErrorKind, Result, Runtime};
use tvb_kernels::Dtype;
use tvb_tests::small_models::contents;

const KINDS: &[Kind] = &[
    kind("embed", &[257, 67], Dtype::Bf16, 0.1),
    kind("bias", &[300], Dtype::F32, 0.1),
    kind("frozen", &[40, 40], Dtype::Bf16, 0.0),
    kind("empty", &[0, 4], Dtype::F32, 0.1),
    kind("head", &[130, 257], Dtype::F64, 0.1),
    kind("half", &[64, 64], Dtype::F16, 0.1),
];

fn runtime() -> Runtime {
    Runtime::on_cpu(2, 256 << 20)
}

fn plan(paths: &[PathBuf], tasks: std::ops::Range<usize>) -> Plan {
    Plan::open(&paths[0], paths[1..][tasks].iter()).expect("models")
}

fn made(paths: &[PathBuf], n_tasks: usize, folder: &Path) -> Basis {
    compress(&plan(paths, 0..n_tasks), &CompressOptions::new(folder), &runtime(), &Silent).expect("compressed").basis
}

/// Bytes of each task's own column, in order.
fn own_columns(basis: &Basis) -> Vec<Vec<u8>> {
    let atoms = basis.manifest.atoms.iter().take(basis.n_atoms());
    atoms.map(|atom| std::fs::read(basis.folder.join(&atom.file)).expect("a column")).collect()
}

/// Does something once, in the middle of a run.
struct Meanwhile<F: Fn() + Sync> {
    is_done: AtomicBool,
    act: F,
    is_stopped: AtomicBool,
}

impl<F: Fn() + Sync> Meanwhile<F> {
    fn new(act: F) -> Meanwhile<F> {
        Meanwhile { is_done: AtomicBool::new(false), act, is_stopped: AtomicBool::new(false) }
    }
}

impl<F: Fn() + Sync> Progress for Meanwhile<F> {
    fn begin(&self, _: &'static str, _: u64) {
        if !self.is_done.swap(true, Ordering::Relaxed) {
            (self.act)();
        }
    }
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
    fn note(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

#[test]
fn newcomers_are_coded_as_a_basis_of_all_codes_them_whatever_the_formats() {
    let top = tempfile::tempdir().expect("a folder");
    let paths = models::write_models(top.path(), KINDS, 6, 11);
    let basis = made(&paths, 3, &top.path().join("basis"));
    let one = extend(&basis, &plan(&paths, 3..4), &ExtendOptions::default(), &runtime(), &Silent).expect("extended");
    let both = extend(&one.basis, &plan(&paths, 4..6), &ExtendOptions::default(), &runtime(), &Silent).expect("again");
    // The same again, to the last byte.
    let twice = made(&paths, 3, &top.path().join("twice"));
    let twice = extend(&twice, &plan(&paths, 3..4), &ExtendOptions::default(), &runtime(), &Silent).expect("extended");
    extend(&twice.basis, &plan(&paths, 4..6), &ExtendOptions::default(), &runtime(), &Silent).expect("again");
    assert_eq!(contents(&top.path().join("twice")), contents(&top.path().join("basis")));
    let fresh = made(&paths, 6, &top.path().join("fresh"));
    assert_eq!(own_columns(&both.basis), own_columns(&fresh));
    let records = |basis: &Basis| -> Vec<_> {
        let tasks = basis.manifest.tasks.iter();
        tasks.map(|task| (task.name.clone(), task.fingerprint, task.source.clone())).collect()
    };
    assert_eq!(records(&both.basis), records(&fresh));
    assert!(verify_files(&both.basis, &runtime(), &Silent).expect("read").iter().all(|file| file.damage.is_none()));
    let (grown, exact) = (both.basis.total_gram().expect("known"), fresh.total_gram().expect("known"));
    let errors = both.basis.coefficients.gram_errors.clone().expect("estimates");
    // Three old ones with one newcomer, then four with two.
    assert_eq!(errors.n_pairs(), 3 + 4 * 2);
    for i in 0..6 {
        for j in 0..6 {
            let off = (grown[(i, j)] - exact[(i, j)]).abs();
            let length = (exact[(i, i)] * exact[(j, j)]).sqrt();
            match errors.is_estimate(i, j) {
                true => assert!(off < 5.0 * errors.standard[(i, j)] && off < errors.bound[(i, j)], "{i} {j}: {off}"),
                false => assert!(off < 1e-6 * length, "{i} {j}: {off}"),
            }
        }
    }
    let found = verify_errors(&both.basis, &plan(&paths, 0..6), &runtime(), &Silent).expect("measured");
    for (found, record) in found.iter().zip(&both.basis.manifest.tasks) {
        let (said, bound) = (record.relative_error.expect("said"), record.error_bound.expect("bounded"));
        assert!((found.measured - said).abs() < 0.1 * said, "{}: {} {said}", found.task, found.measured);
        assert!(found.measured < bound * bound, "{}: {} {bound}", found.task, found.measured);
    }
    assert_eq!(both.basis.manifest.history.len(), 3);
}

#[test]
fn a_basis_that_changes_meanwhile_or_is_being_changed_is_left_alone() {
    let top = tempfile::tempdir().expect("a folder");
    let paths = models::write_models(top.path(), KINDS, 4, 12);
    let folder = top.path().join("basis");
    let basis = made(&paths, 2, &folder);
    let (third, fourth) = (plan(&paths, 2..3), plan(&paths, 3..4));
    // Another run on the same basis, in the middle of this one.
    let seen = std::sync::Mutex::new(None);
    let second = Meanwhile::new(|| {
        let other = extend(&basis, &fourth, &ExtendOptions::default(), &runtime(), &Silent);
        *seen.lock().expect("one thread") = Some(other.map(drop));
    });
    let grown = extend(&basis, &third, &ExtendOptions::default(), &runtime(), &second).expect("the first one is done");
    let other: Option<Result<()>> = seen.lock().expect("one thread").take();
    assert_eq!(other.expect("it ran").expect_err("two at once").kind(), ErrorKind::Failed);
    // What was opened before is not what lies there now.
    let before = contents(&folder);
    let error = extend(&basis, &fourth, &ExtendOptions::default(), &runtime(), &Silent).expect_err("an old basis");
    assert!(error.kind() == ErrorKind::Rejected || error.kind() == ErrorKind::Failed, "{error}");
    let error = drop_tasks(&basis, &[basis.task_names().remove(0)], None, &DropOptions::default(), &runtime(), &Silent);
    assert!(error.is_err());
    assert_eq!(contents(&folder), before);
    // Stopped in the middle.
    let stopped = Meanwhile::new(|| {});
    stopped.is_stopped.store(true, Ordering::Relaxed);
    let error = extend(&grown.basis, &fourth, &ExtendOptions::default(), &runtime(), &stopped).expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(contents(&folder), before);
    assert_eq!(std::fs::read_dir(top.path()).expect("listed").count(), paths.len() + 1);
}

#[test]
fn a_newcomer_that_moves_what_was_frozen_is_refused_by_name() {
    let top = tempfile::tempdir().expect("a folder");
    let paths = models::write_models(top.path(), KINDS, 2, 13);
    let basis = made(&paths, 2, &top.path().join("basis"));
    let moving: Vec<Kind> = (KINDS.iter())
        .map(|of| match of.name {
            "frozen" => kind("frozen", &[40, 40], Dtype::Bf16, 0.1),
            name => kind(name, of.shape, of.dtype, 0.1),
        })
        .collect();
    let other = top.path().join("other");
    std::fs::create_dir(&other).expect("made");
    let others = models::write_models(&other, &moving, 1, 13);
    let newcomer = Plan::open(&paths[0], [format!("new={}", others[1].display())]).expect("models");
    let before = contents(&basis.folder);
    let error = extend(&basis, &newcomer, &ExtendOptions::default(), &runtime(), &Silent).expect_err("no room");
    assert!(error.message().contains("frozen") && error.message().contains("no room"), "{error}");
    assert_eq!(contents(&basis.folder), before);
}

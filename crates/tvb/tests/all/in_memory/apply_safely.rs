//! What goes wrong while an edit is added to a model leaves the model as it was, or is said.

use super::{applied, bases, formed, loaded, refused, targets, values};
use crate::coded::models::{ODD, coded, plan, runtime, words, write, write_models};
use crate::numbers::{edit, wave};
use std::sync::atomic::{AtomicBool, Ordering};
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Dtype, LentTensor};
use tvb::columns::plan::Plan;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::Source;
use tvb::jobs::in_memory::{InMemoryOptions, apply_in_place};
use tvb::ops::survey::survey;
use tvb::progress::{Progress, Silent};
use tvb::solve::Method;
use tvb::{Error, ErrorKind};
use tvb_kernels::{Dtype as Float, Rate};

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

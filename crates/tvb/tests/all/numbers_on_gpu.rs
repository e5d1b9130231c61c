//! Values beyond their type in what a GPU forms.

use crate::gpu_device::test_gpu;
use crate::numbers::{edit, read, run_of_deltas, runtime, wave};
use tvb::ErrorKind;
use tvb::checkpoint::Checkpoint;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{EditJob, EditOutput, Source};
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb::solve::Method;
use tvb_kernels::{DeviceSetup, Dtype, Engine};

/// What a GPU forms is looked at as well: edits and atoms.
#[test]
fn what_a_gpu_forms_beyond_its_type_is_counted_too() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let top = tempfile::tempdir().expect("a folder");
    let mut deltas = vec![wave(20_000, 1), wave(20_000, 2)];
    (deltas[0][5], deltas[0][19_998]) = (50_000.0, -40_000.0);
    let plan = run_of_deltas(top.path(), &deltas);
    let target = top.path().join("edited.safetensors");
    let edit = edit(&[2.0, 0.0], 1.0);
    let messages = [runtime(), Runtime::on(Engine::Gpu(engine.clone())).with_threads(2)].map(|runtime| {
        let write = |output: EditOutput| {
            let source = Source::Checkpoints(&plan);
            EditJob { source, edit: &edit, base: Some(&plan.base), output: &output }.write(&runtime, &Silent)
        };
        let error = write(EditOutput::new(&target).dtype(Some(Dtype::F16))).expect_err("two values beyond f16");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains("2 beyond f16"), "{error}");
        let options = CompressOptions::mixtures(top.path().join("basis")).method(Method::Identity).dtype(Dtype::F16);
        compress(&plan, &options, &runtime, &Silent).expect("atoms within f16");
        std::fs::remove_dir_all(top.path().join("basis")).expect("removed");
        let clipped = write(EditOutput::new(&target).dtype(Some(Dtype::F16)).clip(true)).expect("clipped");
        assert!(!clipped.is_none());
        let rows = read(&Checkpoint::open(&target).expect("a checkpoint"), "w");
        assert_eq!((rows[5], rows[19_998]), (65_504.0, -65_504.0));
        std::fs::remove_file(&target).expect("removed");
        error.message().to_owned()
    });
    assert_eq!(messages[0], messages[1]);
}

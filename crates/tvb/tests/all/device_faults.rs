//! Devices that fail in the middle of a pass: the pass goes on where it was, on the reopened device or on the CPU, and its
//! result is the one of an undisturbed run.

use crate::gpu_device::{Notes, test_gpu};
use std::path::Path;
use tvb::columns::plan::Plan;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::ops::Grams;
use tvb::ops::gram::gram;
use tvb::pass::Runtime;
use tvb::solve::Method;
use tvb_kernels::{DeviceSetup, Engine, GpuEngine, InjectedFault};
use tvb_tests::small_models::{Random, Shape, Stored, contents, values};

/// Three chunks of a device, of the base and three tasks.
const N_TASKS: usize = 3;
const N_ROWS: usize = 2_500_000;

fn write_plan(folder: &Path) -> Plan {
    let shape = |name: &str, n_rows: usize| Shape { name: name.into(), shape: vec![n_rows], stored: Stored::F32 };
    let shapes = [shape("large", N_ROWS), shape("small", 7)];
    let (base, tasks) = values(&shapes, N_TASKS, &mut Random(11));
    crate::gpu_device::write_plan(folder, &shapes, &base, &tasks)
}

fn runtime(engine: &GpuEngine) -> Runtime {
    Runtime::on(Engine::Gpu(engine.clone())).with_threads(2).with_memory(256 << 20).with_device_memory(0)
}

/// Fails unless two Grams agree to 1e-6 of the norms, and in every digest.
#[track_caller]
fn assert_close(found: &Grams, expected: &Grams) {
    assert_eq!(found.digests, expected.digests);
    let (found, expected) = (found.total(), expected.total());
    for i in 0..N_TASKS {
        for j in 0..N_TASKS {
            let norms = (expected[(i, i)] * expected[(j, j)]).sqrt();
            assert!((found[(i, j)] - expected[(i, j)]).abs() <= 1e-6 * norms, "({i}, {j})");
        }
    }
}

#[test]
fn a_pass_survives_its_device() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let top = tempfile::tempdir().expect("a folder");
    let plan = write_plan(top.path());
    let (runtime, notes) = (runtime(&engine), Notes::default());
    let options = |name: &str| CompressOptions::mixtures(top.path().join(name)).method(Method::Pca).atoms(1);
    let undisturbed = gram(&plan, &runtime, &notes).expect("a Gram matrix");
    compress(&plan, &options("undisturbed"), &runtime, &notes).expect("a basis");
    assert_eq!(notes.take(), Vec::<String>::new());

    // Lost at the first chunk, in the middle and at the last one.
    for n_submits in [1, 2, 3] {
        engine.inject_fault(n_submits, InjectedFault::Lost);
        let found = gram(&plan, &runtime, &notes).expect("a Gram matrix");
        assert_eq!(found.digests, undisturbed.digests);
        assert!(found.triangles == undisturbed.triangles, "lost after {n_submits} submits: other bits");
        let said = notes.take();
        assert!(said.len() == 1 && said[0].contains("was reopened"), "{said:?}");
        assert_eq!(engine.check(), Ok(()), "the reopened device");
    }

    // One that hangs is given up and reopened too.
    engine.inject_fault(2, InjectedFault::Hang);
    let found = gram(&plan, &runtime, &notes).expect("a Gram matrix");
    assert!(found.triangles == undisturbed.triangles, "other bits after a hang");
    let said = notes.take();
    assert!(said.len() == 1 && said[0].contains("hangs") && said[0].contains("was reopened"), "{said:?}");

    // Lost while atoms are formed: the same files.
    engine.inject_fault(3 + 2, InjectedFault::Lost);
    compress(&plan, &options("lost"), &runtime, &notes).expect("a basis");
    assert!(notes.take().iter().any(|line| line.contains("was reopened")));
    assert!(contents(&top.path().join("lost")) == contents(&top.path().join("undisturbed")), "other bytes");

    // A kernel that the driver gets wrong: its first use says so, and the CPU does the pass.
    engine.miscompile("run.n_rows", "(run.n_rows - 1u)");
    let found = gram(&plan, &runtime, &notes).expect("a Gram matrix");
    assert_close(&found, &undisturbed);
    let said = notes.take();
    assert!(
        said.len() == 1 && said[0].contains("fails the self-test of `gram`") && said[0].contains("3 of 3 chunks"),
        "{said:?}"
    );
    engine.miscompile("", "");

    // Out of memory: the CPU does the rest, and all of the next pass, as the device is not trusted again.
    engine.inject_fault(2, InjectedFault::OutOfMemory);
    for n_left in ["of 3 chunks", "3 of 3 chunks"] {
        let found = gram(&plan, &runtime, &notes).expect("a Gram matrix");
        assert_close(&found, &undisturbed);
        let said = notes.take();
        assert!(
            said.len() == 1 && said[0].contains("out of memory") && said[0].contains("the CPU goes on"),
            "{said:?}"
        );
        assert!(said[0].contains(n_left), "{said:?}");
    }
}

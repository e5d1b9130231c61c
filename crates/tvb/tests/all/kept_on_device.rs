//! What stays in the memory of a GPU between the passes is neither read nor uploaded again, and the basis is the same.

use crate::gpu_device::{Notes, test_gpu};
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use tvb::columns::plan::Plan;
use tvb::digest::Digest;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::pass::Runtime;
use tvb::pass::kept::{DeviceChunk, Keep, KeptOnDevice};
use tvb::progress::Silent;
use tvb::solve::Method;
use tvb_kernels::{ChunkLayout, DeviceSetup, Dtype, Engine, GpuEngine, Gram, InjectedFault, Segment, Slice};
use tvb_tests::small_models::{Random, Shape, Stored, contents, values};

const N_TASKS: usize = 3;

/// The test device as a card with memory of its own would be, to which chunks are copied.
fn card() -> Option<(GpuEngine, MutexGuard<'static, ()>)> {
    test_gpu(DeviceSetup { copies: true, ..DeviceSetup::default() })
}

fn runtime(engine: &GpuEngine, device_memory_bytes: u64) -> Runtime {
    Runtime::on(Engine::Gpu(engine.clone()))
        .with_threads(2)
        .with_memory(256 << 20)
        .with_device_memory(device_memory_bytes)
}

/// Three chunks of a device; the second tensor and the fourth are the same in every fine-tune, so that every chunk of the
/// Gram pass holds rows that the next pass leaves out.
fn write_plan(folder: &Path, stored: Stored) -> Plan {
    let shape = |name: &str, n_rows: usize| Shape { name: name.into(), shape: vec![n_rows], stored };
    let shapes = [shape("a", 700_000), shape("b", 500_000), shape("c", 1_300_000), shape("d", 9), shape("e", 77)];
    let (base, mut tasks) = values(&shapes, N_TASKS, &mut Random(11));
    for task in &mut tasks {
        for frozen in [1, 3] {
            task[frozen] = base[frozen].clone();
        }
    }
    crate::gpu_device::write_plan(folder, &shapes, &base, &tasks)
}

fn options(output: PathBuf, keep: Keep) -> CompressOptions {
    CompressOptions::mixtures(output).method(Method::Pca).atoms(2).keep(keep)
}

#[test]
fn what_is_kept_makes_the_same_basis_and_is_not_read_again() {
    let Some((engine, _turn)) = card() else { return };
    for stored in [Stored::F32, Stored::Bf16] {
        let top = tempfile::tempdir().expect("a folder");
        let plan = write_plan(top.path(), stored);
        let make = |name: &str, device_memory_bytes: u64, keep: Keep| {
            let output = top.path().join(name);
            let runtime = runtime(&engine, device_memory_bytes);
            let made = compress(&plan, &options(output.clone(), keep), &runtime, &Silent).expect("a basis");
            (made.read_bytes, contents(&output))
        };
        let (all, moved) = (plan.n_bytes(), plan.only(|index| index != 1 && index != 3).n_bytes());
        let nothing = make("nothing", 0, Keep::Auto);
        assert_eq!(nothing.0, all + moved, "read twice, the second time without what no task has moved");
        let never = make("never", 1 << 30, Keep::Never);
        let whole = make("whole", 1 << 30, Keep::Auto);
        assert_eq!((never.0, whole.0), (all, all), "what the host keeps is another matter");
        // Room for some of the chunks.
        let some = make("some", all / 2, Keep::Auto);
        assert!(some.0 > all && some.0 < all + moved, "{} of {all} and {moved}", some.0);
        // The host keeps the others.
        let both = make("both", all / 2, Keep::Always);
        assert_eq!(both.0, all);
        for (name, other) in [("never", never.1), ("whole", whole.1), ("some", some.1), ("both", both.1)] {
            assert!(other == nothing.1, "{name}: other bytes");
        }
    }
}

#[test]
fn a_device_that_is_lost_has_kept_nothing() {
    let Some((engine, _turn)) = card() else { return };
    let top = tempfile::tempdir().expect("a folder");
    let plan = write_plan(top.path(), Stored::F32);
    let runtime = runtime(&engine, 1 << 30);
    let (expected, output) = (top.path().join("expected"), top.path().join("lost"));
    compress(&plan, &options(expected.clone(), Keep::Auto), &runtime, &Silent).expect("a basis");
    let notes = Notes::default();
    // In the second pass, which has read nothing until then.
    engine.inject_fault(n_chunks(&plan, &runtime) + 1, InjectedFault::Lost);
    let made = compress(&plan, &options(output.clone(), Keep::Auto), &runtime, &notes).expect("a basis");
    let said = notes.take();
    assert!(said.iter().any(|line| line.contains("was reopened")), "{said:?}");
    assert!(contents(&output) == contents(&expected), "other bytes");
    assert!(made.read_bytes > plan.n_bytes(), "chunks that were lost with the device are read again");
}

#[test]
fn a_full_device_gives_up_its_last_chunks() {
    let Some((engine, _turn)) = card() else { return };
    let layout = |n_rows: usize| ChunkLayout {
        n_columns: 2,
        segments: vec![Segment::new(n_rows), Segment::new(n_rows)],
        slices: (0..4).map(|at| Slice::new(at * n_rows * 4, Dtype::F32)).collect(),
        n_bytes: 4 * n_rows * 4,
        ..ChunkLayout::default()
    };
    let kept = KeptOnDevice::new(2500);
    let mut stream = engine.stream(&Gram::ALL, 2000, 2).expect("a stream");
    for number in 0..3u32 {
        let layout = layout(50);
        assert!(kept.has_room(layout.n_bytes));
        let mut slot = stream.acquire().expect("a slot");
        slot.write(0, &vec![0; layout.n_bytes]).expect("a slot large enough");
        let chunk = stream.submit_keeping(slot, &layout).expect("a sound chunk").expect("memory of its own");
        let keys = vec![(number, 0), (number, 50)];
        kept.keep(DeviceChunk { chunk, keys, staged: layout.clone(), layout, digests: vec![Digest::default(); 4] });
    }
    assert!(!kept.has_room(800));
    // Both blocks, one of them, and what no one chunk has.
    let part = kept.find(&[(1, 50)]).expect("kept");
    assert_eq!((part.staged.slices.len(), part.staged.slices[0].offset, part.read_bytes()), (2, 400, 400));
    assert_eq!(kept.find(&[(1, 0), (1, 50)]).expect("kept").staged, layout(50));
    for missing in [&[(1, 50), (1, 0)][..], &[(1, 50), (2, 0)], &[(7, 0)], &[]] {
        assert!(kept.find(missing).is_none(), "{missing:?}");
    }
    // One block of a chunk is worked on alone.
    stream.submit_kept(&part.chunk, &part.staged).expect("a kept chunk");
    kept.set_full(801);
    let left = [0, 1, 2].map(|number| kept.find(&[(number, 0)]).is_some());
    assert_eq!(left, [true, false, false], "chunks of 800 bytes");
    assert!(!kept.has_room(1));
    for _ in 0..4 {
        assert!(stream.next().expect("a result").is_some());
    }
}

fn n_chunks(plan: &Plan, runtime: &Runtime) -> u32 {
    let rows = plan.tensors.iter().map(|tensor| tensor.n_rows);
    let grid = tvb::pass::Grid::new(rows, runtime.chunk_size(plan));
    u32::try_from(grid.n_chunks()).expect("a few chunks")
}

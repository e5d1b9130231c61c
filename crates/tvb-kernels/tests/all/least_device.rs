//! The paths that this machine's adapter would not take by itself: a device with the least limits there are (wgpu refuses
//! what goes beyond them), to which chunks are copied instead of bound.

use crate::common::device::{device, turn};
use crate::common::{Case, Formats, Made, make};
use tvb_kernels::{
    Base, Columns, CpuEngine, DeviceSetup, Dtype, GpuEngine, Gram, KernelError, Project, Reconstruct, Triangles, Work,
    staged_layout,
};

const MIB: u64 = 1 << 20;

/// Does `$body` with every kind of work on `$n_tasks` columns.
macro_rules! each_work {
    ($n_tasks:expr, |$work:ident| $body:block) => {{
        {
            let $work = &Gram::ALL;
            $body
        }
        for $work in &projections($n_tasks) $body
        for $work in &reconstructions($n_tasks) $body
    }};
}

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|at| ((at * 29) % 17) as f32 / 8.0 - 1.06).collect()
}

fn projections(n_tasks: usize) -> [Project; 2] {
    [
        Project { encode: weights(n_tasks * 5), n_atoms: 5, dtype: Dtype::F32 },
        Project { encode: weights(n_tasks), n_atoms: 1, dtype: Dtype::Bf16 },
    ]
}

fn reconstructions(n_tasks: usize) -> [Reconstruct; 2] {
    let reconstruct =
        |columns, base, dtype| Reconstruct { weights: weights(n_tasks * 2), n_outputs: 2, columns, base, dtype };
    [
        reconstruct(Columns::Deltas, Base::Added, Some(Dtype::F16)),
        reconstruct(Columns::Checkpoints, Base::Left, Some(Dtype::F32)),
    ]
}

/// Work whose results two engines may find in different orders of additions.
trait Judged: Work {
    /// Fails unless rows agree to a few roundings of their format and Grams to 1e-6 of the largest entry.
    fn assert_close(&self, found: &Self::Output, expected: &Self::Output);
}

impl Judged for Gram {
    fn assert_close(&self, found: &Triangles, expected: &Triangles) {
        assert_eq!(found.values.len(), expected.values.len());
        let largest = expected.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        for (f, e) in found.values.iter().zip(&expected.values) {
            assert!((f - e).abs() <= 1e-6 * largest, "{f} against {e}");
        }
    }
}

impl Judged for Project {
    fn assert_close(&self, found: &Vec<u8>, expected: &Vec<u8>) {
        assert_rows_close(found, expected, self.dtype);
    }
}

impl Judged for Reconstruct {
    fn assert_close(&self, found: &Vec<u8>, expected: &Vec<u8>) {
        assert_rows_close(found, expected, self.dtype.expect("one that this test has chosen"));
    }
}

fn assert_rows_close(found: &[u8], expected: &[u8], dtype: Dtype) {
    assert_eq!(found.len(), expected.len());
    let (found, expected) = (tvb_kernels::decode(found, dtype), tvb_kernels::decode(expected, dtype));
    for (at, (f, e)) in found.iter().zip(&expected).enumerate() {
        let tolerance = 4.0 * dtype.unit_roundoff() as f32 * e.abs() + 2e-5;
        assert!((f - e).abs() <= tolerance, "{dtype}, row {at}: {f} against {e}");
    }
}

/// What the CPU engine makes of a chunk.
fn on_cpu<W: Work>(work: &W, made: &Made) -> W::Output {
    let cpu = CpuEngine::new();
    let mut out = W::Output::default();
    cpu.run(work, made.chunk(), &mut cpu.scratch(), &mut out).expect("a sound chunk");
    out
}

fn check_all(engine: &GpuEngine) {
    let cases = [(1, vec![5]), (3, vec![2500, 0, 777]), (9, vec![1, 1025]), (33, vec![700]), (130, vec![300, 300])];
    for (seed, (n_tasks, segments)) in cases.into_iter().enumerate() {
        let case = Case { n_tasks, segments, formats: Formats::Mixed, misaligned: true, seed: seed as u64 };
        let made = make(&case);
        each_work!(n_tasks, |work| {
            let found = engine.run(work, made.chunk()).expect("a sound chunk");
            work.assert_close(&found, &on_cpu(work, &made));
        });
    }
    assert_eq!(engine.check(), Ok(()));
}

#[test]
fn chunks_are_copied_where_they_cannot_be_bound() {
    let _turn = turn();
    for copies in [true, false] {
        let Some(engine) = device(DeviceSetup { copies, ..DeviceSetup::default() }) else { return };
        if copies {
            assert!(!engine.is_direct());
        }
        check_all(&engine);
        // Slots are used again and again, by chunks of other lengths.
        let case = |seed: usize| Case {
            n_tasks: 4,
            segments: vec![100 + 531 * (seed % 4)],
            formats: Formats::All([Dtype::F32, Dtype::Bf16][seed % 2]),
            misaligned: false,
            seed: seed as u64,
        };
        let chunks: Vec<_> = (0..10).map(|seed| make(&case(seed))).collect();
        let mut stream = engine.stream(&Gram::ALL, 64 << 10, 2).expect("a stream");
        let mut found = Vec::new();
        for made in &chunks {
            let staged = staged_layout(&made.layout).expect("sound");
            let mut slot = stream.acquire().expect("a slot");
            slot.pack(made.chunk(), &staged).expect("a slot large enough");
            stream.submit(slot, &staged).expect("a sound chunk");
        }
        while let Some(output) = stream.next().expect("a sound chunk") {
            found.push(output);
        }
        for (found, made) in found.iter().zip(&chunks) {
            Gram::ALL.assert_close(found, &on_cpu(&Gram::ALL, made));
        }
        assert_eq!(found.len(), chunks.len());
    }
}

/// Each format has kernels of its own, in blocks of either size; where a chunk's slices start must not show in its bits.
#[test]
fn every_format_in_small_blocks_and_large() {
    let _turn = turn();
    for small_blocks in [true, false] {
        let Some(engine) = device(DeviceSetup { small_blocks, ..DeviceSetup::default() }) else { return };
        for format in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for (n_tasks, n_rows) in [(1, 1), (20, 999), (40, 513)] {
                let case = Case {
                    n_tasks,
                    segments: vec![n_rows, n_rows / 2],
                    formats: Formats::All(format),
                    misaligned: true,
                    seed: n_rows as u64,
                };
                let made = make(&case);
                each_work!(n_tasks, |work| {
                    // Packed, every slice starts on a word.
                    let packed = engine.run(work, made.chunk()).expect("a sound chunk");
                    work.assert_close(&packed, &on_cpu(work, &made));
                    let mut stream = engine.stream(work, made.layout.n_bytes, 1).expect("a stream");
                    let mut slot = stream.acquire().expect("a slot");
                    slot.write(0, &made.bytes[..made.layout.n_bytes]).expect("a slot large enough");
                    stream.submit(slot, &made.layout).expect("a sound chunk");
                    let as_it_lies = stream.next().expect("a result").expect("one chunk is in flight");
                    assert_eq!(packed, as_it_lies, "{format:?}, {case:?}, {work:?}");
                });
            }
        }
        assert_eq!(engine.check(), Ok(()));
    }
}

#[test]
fn the_least_limits_suffice() {
    let _turn = turn();
    let Some(engine) = device(DeviceSetup { copies: true, least_limits: true, ..DeviceSetup::default() }) else {
        return;
    };
    let facts = engine.facts();
    assert_eq!((facts.max_binding_bytes, facts.max_buffer_bytes), (128 * MIB, 256 * MIB));
    assert_eq!((facts.max_storage_buffers, facts.max_workgroups), (8, 65_535));
    check_all(&engine);
    // More segments than workgroups of one dimension.
    let tiny =
        Case { n_tasks: 2, segments: vec![1; 66_000], formats: Formats::All(Dtype::F32), misaligned: false, seed: 9 };
    let made = make(&tiny);
    each_work!(2, |work| {
        work.assert_close(&engine.run(work, made.chunk()).expect("a sound chunk"), &on_cpu(work, &made));
    });
    // Beyond a binding: refused in words, before wgpu has to.
    let too_large = engine.stream(&Gram::ALL, 129 << 20, 1).err();
    assert!(matches!(too_large, Some(KernelError::Limit { most, .. }) if most == 128 * MIB), "{too_large:?}");
    // A small chunk whose result is too large is not taken: 600,000 rows of 64 outputs are 154 MB.
    let wide = Case { n_tasks: 1, segments: vec![600_000], ..tiny };
    let made = make(&wide);
    let project = Project { encode: vec![1.0; 64], n_atoms: 64, dtype: Dtype::F32 };
    let mut stream = engine.stream(&project, made.layout.n_bytes, 1).expect("a stream");
    assert!(!stream.takes(&made.layout));
    let staged = staged_layout(&made.layout).expect("sound");
    let mut slot = stream.acquire().expect("a slot");
    slot.pack(made.chunk(), &staged).expect("a slot large enough");
    assert!(matches!(stream.submit(slot, &staged), Err(KernelError::Limit { .. })));
    assert_eq!(engine.check(), Ok(()));
}

#[test]
fn data_that_stays_on_the_device() {
    let _turn = turn();
    for setup in [DeviceSetup { copies: true, least_limits: true, ..DeviceSetup::default() }, DeviceSetup::default()] {
        let Some(engine) = device(setup) else { return };
        for n_tasks in [3, 40] {
            let case =
                Case { n_tasks, segments: vec![1024], formats: Formats::All(Dtype::F32), misaligned: false, seed: 3 };
            let made = make(&case);
            each_work!(n_tasks, |work| {
                let resident = engine.resident(work, made.chunk()).expect("a sound chunk");
                resident.run(2).expect("two runs");
                work.assert_close(&resident.result().expect("a result"), &on_cpu(work, &made));
                assert_eq!(resident.result(), resident.result(), "the same bits twice");
            });
        }
        let misaligned =
            make(&Case { n_tasks: 1, segments: vec![7], formats: Formats::All(Dtype::F64), misaligned: true, seed: 4 });
        assert_eq!(engine.resident(&Gram::ALL, misaligned.chunk()).err(), Some(KernelError::NotOnGpu));
        let copy = engine.device_copy(1000).expect("two buffers");
        copy.run(3).expect("three copies");
        assert_eq!((copy.n_bytes(), copy.copied().expect("bytes")), (1008, vec![0x5a; 1008]));
        assert!(matches!(engine.device_copy(1 << 50), Err(KernelError::Limit { .. })));
    }
}

//! Chunks streamed through the GPU: slots in several hands, results in order, batches beyond one dispatch's limits.

use crate::common::device::{device, gpu, turn};
use crate::common::{Case, Formats, Made, make, reference_gram};
use tvb_kernels::{
    ChunkLayout, CpuEngine, DeviceSetup, Dtype, GpuEngine, Gram, InjectedFault, KernelError, Project, Triangles, Work,
    staged_layout,
};

fn case(n_tasks: usize, segments: Vec<usize>, seed: u64) -> Case {
    Case { n_tasks, segments, formats: Formats::Mixed, misaligned: true, seed }
}

#[test]
fn results_come_in_the_order_of_submits() {
    let Some((engine, _turn)) = gpu() else { return };
    // More chunks than slots, of different sizes, an empty one among them.
    let chunks: Vec<_> = (0..9).map(|at| make(&case(3, vec![at * 700 % 3000, at], at as u64))).collect();
    in_order(&engine, &Gram::ALL, &chunks);
    in_order(&engine, &Project { encode: vec![0.5; 6], n_atoms: 2, dtype: Dtype::Bf16 }, &chunks);
}

fn in_order<W: Work>(engine: &GpuEngine, work: &W, chunks: &[Made]) {
    let staged: Vec<ChunkLayout> = chunks.iter().map(|made| staged_layout(&made.layout).expect("sound")).collect();
    let slot_bytes = staged.iter().map(|layout| layout.n_bytes).max().unwrap_or(0);
    let expected: Vec<W::Output> = chunks.iter().map(|made| engine.run(work, made.chunk()).expect("sound")).collect();
    let mut stream = engine.stream(work, slot_bytes, 3).expect("a stream");
    assert_eq!(stream.next(), Ok(None));
    let mut found = Vec::new();
    for (made, staged) in chunks.iter().zip(&staged) {
        assert!(stream.takes(&made.layout));
        let slot = stream.acquire().expect("a slot");
        // A reader thread fills it.
        let slot = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut slot = slot;
                slot.pack(made.chunk(), staged).expect("a slot large enough");
                slot
            });
            reader.join().expect("the reader")
        });
        stream.submit(slot, staged).expect("a sound chunk");
    }
    assert_eq!(stream.in_flight(), chunks.len());
    while let Some(output) = stream.next().expect("a sound chunk") {
        found.push(output);
    }
    assert_eq!(found, expected);
    assert_eq!(stream.in_flight(), 0);
}

#[test]
fn slots_and_layouts_that_do_not_fit_are_refused() {
    let Some((engine, _turn)) = gpu() else { return };
    let made = make(&case(2, vec![100], 1));
    let staged = staged_layout(&made.layout).expect("sound");
    let mut stream = engine.stream(&Gram::ALL, 400, 1).expect("a stream");
    let mut slot = stream.acquire().expect("a slot");
    assert_eq!(slot.capacity(), 400);
    assert_eq!(stream.acquire().err(), Some(KernelError::NoFreeSlot));
    slot.write(0, &[0; 400]).expect("it fits");
    for (offset, n_bytes) in [(1, 400), (401, 0), (usize::MAX, 2)] {
        assert!(matches!(slot.write(offset, &vec![0; n_bytes]), Err(KernelError::Limit { most: 400, .. })));
    }
    assert!(!stream.takes(&made.layout));
    assert!(matches!(slot.pack(made.chunk(), &staged), Err(KernelError::Limit { .. })));
    assert!(matches!(stream.submit(slot, &staged), Err(KernelError::Limit { .. })));
    // The slot is free again after a refusal, and after a release.
    let slot = stream.acquire().expect("a slot");
    stream.release(slot);
    let slot = stream.acquire().expect("a slot");
    let f64_layout = make(&Case { formats: Formats::All(Dtype::F64), ..case(1, vec![2], 1) }).layout;
    assert!(stream.takes(&f64_layout), "it is staged as f32");
    assert_eq!(stream.submit(slot, &f64_layout), Err(KernelError::NotOnGpu));
    let too_large = engine.stream(&Gram::ALL, 1 << 40, 1).err();
    assert!(matches!(too_large, Some(KernelError::Limit { .. })), "{too_large:?}");
}

/// Results are taken out by other threads, out of order, while the device goes on with the same slots.
#[test]
fn results_leave_on_other_threads() {
    let Some((engine, _turn)) = gpu() else { return };
    let work = Project { encode: vec![0.5; 6], n_atoms: 2, dtype: Dtype::F16 };
    let chunks: Vec<_> = (0..7).map(|at| make(&case(3, vec![at * 700 % 3000, at], at as u64))).collect();
    let expected: Vec<Vec<u8>> = chunks.iter().map(|made| engine.run(&work, made.chunk()).expect("sound")).collect();
    let slot_bytes = chunks.iter().map(|made| staged_layout(&made.layout).expect("sound").n_bytes).max().unwrap_or(0);
    let mut stream = engine.stream(&work, slot_bytes, 2).expect("a stream");
    let mut waiting = Vec::new();
    let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
    for (at, made) in chunks.iter().enumerate() {
        let staged = staged_layout(&made.layout).expect("sound");
        let mut slot = stream.acquire().expect("a slot");
        slot.pack(made.chunk(), &staged).expect("a slot large enough");
        stream.submit(slot, &staged).expect("a sound chunk");
        waiting.push((at, stream.next_finished().expect("a sound chunk").expect("one chunk is in flight")));
        if waiting.len() == 3 {
            // The last one first, into a buffer that holds something else.
            let taken = std::thread::scope(|scope| {
                let threads: Vec<_> = waiting
                    .drain(..)
                    .rev()
                    .map(|(at, finished)| {
                        scope.spawn(move || {
                            let mut rows = vec![7; 5];
                            finished.collect(&mut rows).expect("room");
                            (at, rows, finished)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().expect("a reader")).collect::<Vec<_>>()
            });
            for (at, rows, finished) in taken {
                found.push((at, rows));
                stream.take_back(finished).expect("a result of this stream");
            }
        }
    }
    for (at, finished) in waiting {
        let mut rows = Vec::new();
        finished.collect(&mut rows).expect("room");
        found.push((at, rows));
        // The buffer may as well be dropped.
    }
    found.sort();
    assert!(found.into_iter().map(|(_, rows)| rows).eq(expected));
}

/// Each cause has an error of its own.
#[test]
fn what_belongs_to_another_stream_is_refused() {
    let _turn = turn();
    let Some(engine) = device(DeviceSetup { copies: true, ..DeviceSetup::default() }) else { return };
    let made = make(&Case { formats: Formats::All(Dtype::F32), ..case(2, vec![100], 1) });
    let staged = staged_layout(&made.layout).expect("sound");
    let mut streams = [(); 2].map(|()| engine.stream(&Gram::ALL, staged.n_bytes, 1).expect("a stream"));
    let mut slot = streams[0].acquire().expect("a slot");
    slot.pack(made.chunk(), &staged).expect("a slot large enough");
    let kept = streams[0].submit_keeping(slot, &staged).expect("a sound chunk").expect("memory of its own");
    let finished = streams[0].next_finished().expect("a sound chunk").expect("one chunk is in flight");
    assert_eq!(streams[1].take_back(finished), Err(KernelError::ForeignSlot));
    let slot = streams[0].acquire().expect("a slot");
    assert_eq!(streams[1].submit(slot, &staged), Err(KernelError::ForeignSlot));
    engine.rebuild().expect("the adapter is still there");
    let mut reopened = engine.stream(&Gram::ALL, staged.n_bytes, 1).expect("a stream");
    assert_eq!(reopened.submit_kept(&kept, &staged), Err(KernelError::KeptElsewhere));
}

/// A device that hangs is given up, and its work is not waited for again.
#[test]
fn a_device_that_hangs_is_given_up() {
    let _turn = turn();
    let Some(engine) = device(DeviceSetup::default()) else { return };
    let made = make(&case(20, vec![9000], 1));
    let expected = engine.run(&Gram::ALL, made.chunk()).expect("a sound chunk");
    engine.inject_fault(1, InjectedFault::Hang);
    let found = engine.run(&Gram::ALL, made.chunk());
    assert!(matches!(&found, Err(KernelError::DeviceTimeout { seconds }) if *seconds >= 60), "{found:?}");
    let error = found.expect_err("a fault");
    assert!(error.is_device_fault() && error.hint().is_some() && error.to_string().contains("hangs"), "{error}");
    assert_eq!(engine.check(), Err(error));
    engine.rebuild().expect("the adapter is still there");
    assert_eq!(engine.run(&Gram::ALL, made.chunk()), Ok(expected));
}

#[test]
fn more_runs_than_one_dispatch_takes() {
    let Some((engine, _turn)) = gpu() else { return };
    let cpu = CpuEngine::new();
    // 66,000 segments of one row: beyond 65,535 workgroups.
    let tiny = make(&Case { formats: Formats::All(Dtype::Bf16), ..case(1, vec![1; 66_000], 5) });
    assert_grams_agree(&engine, &tiny);
    let project = Project { encode: vec![1.0], n_atoms: 1, dtype: Dtype::F32 };
    let mut expected = Vec::new();
    cpu.run(&project, tiny.chunk(), &mut cpu.scratch(), &mut expected).expect("a sound chunk");
    assert_eq!(engine.run(&project, tiny.chunk()).expect("a sound chunk"), expected);
    // 260 partial Grams of 300 tasks: beyond the memory of one dispatch.
    assert_grams_agree(&engine, &make(&case(300, (0..260).map(|at| 1 + at % 2).collect(), 6)));
}

fn assert_grams_agree(engine: &GpuEngine, made: &Made) {
    let cpu = CpuEngine::new();
    let mut expected = Triangles::default();
    cpu.run(&Gram::ALL, made.chunk(), &mut cpu.scratch(), &mut expected).expect("a sound chunk");
    let found = engine.run(&Gram::ALL, made.chunk()).expect("a sound chunk");
    assert_eq!(found.values.len(), expected.values.len());
    for (at, (f, e)) in found.values.iter().zip(&expected.values).enumerate() {
        // Entries are at most n_rows · 0.06² · a few rows.
        assert!((f - e).abs() <= 1e-7, "{} tasks, value {at}: {f} against {e}", made.layout.n_tasks());
    }
}

#[test]
fn long_runs_stay_accurate() {
    let Some((engine, _turn)) = gpu() else { return };
    for n_tasks in [2, 12, 20, 32, 48, 64, 65] {
        let n_rows = 200_000 / n_tasks;
        let made = make(&Case { formats: Formats::All(Dtype::F32), ..case(n_tasks, vec![n_rows], 7) });
        let expected = reference_gram(&made);
        let gram = engine.run(&Gram::ALL, made.chunk()).expect("sound");
        let norm = expected.iter().fold(0.0f64, |most, value| most.max(*value));
        let worst = gram.values.iter().zip(&expected).map(|(f, e)| (f - e).abs() / norm).fold(0.0f64, f64::max);
        assert!(worst <= 5e-7, "{n_tasks} tasks: {worst:e}");
    }
}

/// `gram` has no checks of bounds on slices of one format: what would lead it out of them is refused before anything is dispatched.
#[test]
fn layouts_that_lead_out_of_the_chunk_never_reach_the_device() {
    let Some((engine, _turn)) = gpu() else { return };
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let case = Case { formats: Formats::All(dtype), misaligned: false, ..case(20, vec![70, 1030], 5) };
        let made = make(&case);
        let staged = staged_layout(&made.layout).expect("sound");
        assert!(staged.slices.iter().all(|slice| slice.offset.is_multiple_of(16)));
        let mut stream = engine.stream(&Gram::ALL, staged.n_bytes, 1).expect("a stream");
        let last = staged.slices.len() - 1;
        type Break<'a> = &'a dyn Fn(&mut ChunkLayout);
        let breaks: [Break<'_>; 11] = [
            &|layout| layout.slices[last].offset += 16,
            &|layout| layout.slices[0].offset = layout.n_bytes.next_multiple_of(16),
            &|layout| layout.slices[3].offset = usize::MAX / 16 * 16,
            &|layout| layout.slices[3].offset = 1 << 32,
            &|layout| layout.slices[3].offset += 1,
            &|layout| layout.segments[1].n_rows += 16,
            &|layout| layout.segments[0].n_rows = usize::MAX,
            &|layout| layout.segments.push(layout.segments[0]),
            &|layout| layout.n_columns += 1,
            &|layout| layout.n_bytes -= 16,
            // The layout agrees with itself, but not with the buffer.
            &|layout| {
                layout.n_bytes += 1 << 20;
                layout.slices[last].offset += 1 << 20;
            },
        ];
        for (at, break_it) in breaks.iter().enumerate() {
            let mut layout = staged.clone();
            break_it(&mut layout);
            let slot = stream.acquire().expect("a slot");
            let refused = stream.submit(slot, &layout);
            assert!(refused.is_err(), "{dtype}: {at} was taken");
            assert_eq!((stream.in_flight(), engine.check()), (0, Ok(())), "{dtype}: {at}");
        }
        let mut slot = stream.acquire().expect("a slot");
        slot.pack(made.chunk(), &staged).expect("a slot large enough");
        stream.submit(slot, &staged).expect("a sound chunk");
        assert_eq!(stream.next(), Ok(Some(engine.run(&Gram::ALL, made.chunk()).expect("a sound chunk"))));
    }
}

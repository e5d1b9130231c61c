//! However the work is divided, over parts, threads, chunks or runs, the sums are the same bits.

use crate::gpu_device::{Notes, test_gpu, write_plan};
use tvb::columns::plan::Plan;
use tvb::ops::gram::gram;
use tvb::ops::gram_part::{GramJoin, GramShape, factored, gram_of_part};
use tvb::pass::{ChunkSize, Done, Folded, Grid, Operation, Part, Pass, Reads, Runtime, SPAN_ROWS, SpanSums};
use tvb::progress::Silent;
use tvb_kernels::{DeviceSetup, Engine, Gram, Triangles, triangle_len};
use tvb_tests::small_models::{Random, Shape, Stored, values};

const N_TASKS: usize = 3;

/// Three spans of one tensor, two of another, small tensors between and behind them, formats mixed.
fn plan(folder: &std::path::Path) -> Plan {
    let shape = |name: &str, n_rows: usize, stored| Shape { name: name.into(), shape: vec![n_rows], stored };
    let shapes = [
        shape("a", 2 * SPAN_ROWS + 12_345, Stored::Bf16),
        shape("b", 7, Stored::F32),
        shape("c", 0, Stored::F32),
        shape("d", SPAN_ROWS + 1, Stored::F16),
        shape("e", 40_000, Stored::F32),
    ];
    let (base, tasks) = values(&shapes, N_TASKS, &mut Random(5));
    write_plan(folder, &shapes, &base, &tasks)
}

/// The triangles of every division of the work, and of every number of threads, are those of one run.
#[track_caller]
fn check(plan: &Plan, runtime: impl Fn(usize) -> Runtime, what: &str) {
    let notes = Notes::default();
    let expected = gram(plan, &runtime(1), &notes).expect("a Gram matrix");
    for n_threads in [2, 8] {
        let found = gram(plan, &runtime(n_threads), &notes).expect("a Gram matrix");
        assert!(found.triangles == expected.triangles, "{what}, {n_threads} threads: other bits");
    }
    for n_parts in [1, 2, 5, 16] {
        let factored = factored(plan);
        let mut joined = GramJoin::new(plan, &factored);
        let mut n_own = Vec::new();
        for part in Part::all(n_parts).expect("parts") {
            let found = gram_of_part(plan, part, &runtime(2), &notes).expect("a part");
            n_own
                .push(GramShape::new(plan, &factored, part).pieces.iter().map(|piece| piece.rows.len()).sum::<usize>());
            joined.add(part, found).expect("the next part");
        }
        assert!(n_parts == 1 || n_own.iter().filter(|&&n| n > 0).count() > 1, "one part did all: {n_own:?}");
        let found = joined.finish().expect("all parts");
        assert!(found.triangles == expected.triangles, "{what}, {n_parts} parts: other bits");
        assert!(found.digests == expected.digests, "{what}, {n_parts} parts: other digests");
    }
    // Against f64 sums the way the numbers were made is not known; a plain sum of other parts would differ in the last bit.
    assert!(expected.triangles.iter().any(|value| *value != 0.0));
}

#[test]
fn any_division_of_the_work_gives_the_same_gram_on_the_cpu() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(top.path());
    for engine in tvb_kernels::CpuEngine::each() {
        check(&plan, |n_threads| Runtime::on(Engine::Cpu(engine)).with_threads(n_threads), engine.instruction_set());
    }
}

#[test]
fn any_division_of_the_work_gives_the_same_gram_on_a_gpu() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(top.path());
    check(&plan, |n_threads| Runtime::on(Engine::Gpu(engine.clone())).with_threads(n_threads), "the GPU");
}

/// The Gram matrix of every block, as it comes.
struct OfBlocks;

impl Operation for OfBlocks {
    type Work = Gram;
    type Part = Vec<f64>;

    fn work(&self) -> &Gram {
        &Gram::ALL
    }

    fn finish(&self, _: Done<'_>, output: &mut Triangles) -> tvb::Result<Vec<f64>> {
        Ok(output.values.clone())
    }
}

/// How many rows a device gets at once is a matter of its kind, and shows in no bit: neither in a block's sums nor in a span's.
#[test]
fn chunks_of_any_size_give_the_same_bits_on_a_gpu() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let runtime = Runtime::on(Engine::Gpu(engine)).with_threads(2);
    // Runs are added up on the host, and on the device.
    for n_tasks in [3, 40] {
        let top = tempfile::tempdir().expect("a folder");
        let shape = |name: &str, n_rows: usize, stored| Shape { name: name.into(), shape: vec![n_rows], stored };
        let shapes = [shape("a", 150_001, Stored::Bf16), shape("b", 7, Stored::F32), shape("c", 70_000, Stored::F32)];
        let (base, tasks) = values(&shapes, n_tasks, &mut Random(6));
        let plan = write_plan(top.path(), &shapes, &base, &tasks);
        let n_values = triangle_len(n_tasks);
        let sums = |size: ChunkSize| {
            let grid = Grid::new(plan.tensors.iter().map(|tensor| tensor.n_rows), size);
            let (n_chunks, reads) = (grid.n_chunks(), Reads::new());
            let (mut blocks, mut spans, mut of_spans) = (Vec::new(), SpanSums::new(n_values), Vec::new());
            let fold = |done: Folded<'_, Vec<f64>>| {
                for (block, values) in done.blocks.iter().zip(done.part.chunks_exact(n_values)) {
                    spans.add(block, values, |_, sums| of_spans.extend_from_slice(sums));
                }
                blocks.extend(done.part);
                Ok(())
            };
            Pass { plan: &plan, grid, reads: &reads }.run(&OfBlocks, &runtime, &Silent, fold).expect("a pass");
            spans.close(|_, sums| of_spans.extend_from_slice(sums));
            (n_chunks, blocks, of_spans)
        };
        let (n_chunks, blocks, spans) = sums(runtime.chunk_size(&plan));
        for n_rows in [1, 50_000, 100_000, usize::MAX] {
            let (n_other, other_blocks, other_spans) = sums(ChunkSize { n_rows, n_blocks: usize::MAX });
            assert!(n_other != n_chunks || n_rows > 1, "the same chunks prove nothing");
            assert!(other_blocks == blocks && other_spans == spans, "{n_tasks} tasks, chunks of {n_rows} rows");
        }
    }
}

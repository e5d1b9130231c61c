//! Each stage of the CPU engine on a chunk that lies in the cache, as the stream leaves it: bytes per second of input.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tvb_kernels::{
    Base, Chunk, ChunkLayout, Code, CodeSlice, Codes, Columns, CpuEngine, Decode, Dtype, Gram, Project, Rate,
    Reconstruct, Segment, Slice, Work, n_blocks,
};

/// Rows of one chunk: what the stream reads at a time.
const N_ROWS: usize = 16_384;

/// A chunk of `n_columns` columns of one format; values are small and differ everywhere.
fn chunk(n_columns: usize, dtype: Dtype) -> (ChunkLayout, Vec<u8>) {
    let column_bytes = N_ROWS * dtype.size();
    let slices = (0..n_columns).map(|column| Slice::new(column * column_bytes, dtype));
    let layout = ChunkLayout {
        n_columns,
        segments: vec![Segment::new(N_ROWS)],
        slices: slices.collect(),
        n_bytes: n_columns * column_bytes,
        ..ChunkLayout::default()
    };
    let value = |index: usize| ((index.wrapping_mul(2_654_435_761) >> 8) % 2001) as f32 / 1e5 - 0.01;
    let rows: Vec<u8> = (0..n_columns * N_ROWS).flat_map(|index| value(index).to_le_bytes()).collect();
    (layout, tvb_kernels::convert(&rows, Dtype::F32, dtype))
}

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|index| (index % 7) as f32 * 0.1 - 0.35).collect()
}

fn stages(criterion: &mut Criterion) {
    stage(criterion, "gram", |_| Gram::ALL);
    stage(criterion, "code", code);
    stage(criterion, "project", |n_tasks| {
        let n_atoms = n_tasks.div_ceil(2);
        Project { encode: weights(n_tasks * n_atoms), n_atoms, dtype: Dtype::F32 }
    });
    stage(criterion, "reconstruct", |n_tasks| Reconstruct {
        weights: weights(n_tasks),
        n_outputs: 1,
        columns: Columns::Deltas,
        base: Base::Added,
        dtype: None,
    });
}

/// Signs, and one shared column of 16 levels.
fn code(n_tasks: usize) -> Code {
    let kept = vec![1.0 / (n_tasks as f32).sqrt(); n_tasks];
    Code { rate: Rate::Signs, kept_rate: Rate::Sixteen, kept, n_kept: 1, n_carried: 0, seed: 1 }
}

/// All tasks added up from their codes, by number of tasks; bytes of the codes, the base and the result.
fn decode(criterion: &mut Criterion) {
    let engine = CpuEngine::new();
    let mut group = criterion.benchmark_group("decode");
    for n_tasks in [8, 20, 64] {
        let (layout, bytes) = chunk(n_tasks + 1, Dtype::F32);
        let (code, mut codes) = (code(n_tasks), Codes::default());
        let chunk = Chunk { layout: &layout, bytes: &bytes };
        engine.run(&code, chunk, &mut engine.scratch(), &mut codes).expect("the chunk fits the work");
        let base_bytes = N_ROWS * 4;
        let mut bytes = bytes[..base_bytes].to_vec();
        bytes.extend(codes.words.iter().flat_map(|word| word.to_le_bytes()));
        let scales = bytes.len();
        bytes.extend(codes.scales.iter().flat_map(|scale| scale.to_le_bytes()));
        let column_words = 4 * code.rate.words() * n_blocks(N_ROWS);
        let slice = |column: usize| CodeSlice {
            words: base_bytes + column * column_words,
            scales: scales + column * 2 * n_blocks(N_ROWS),
        };
        let layout = ChunkLayout {
            n_columns: 1,
            segments: layout.segments,
            slices: vec![Slice::new(0, Dtype::F32)],
            codes: (0..=n_tasks).map(slice).collect(),
            factors: Vec::new(),
            n_bytes: bytes.len(),
        };
        let mut rates = vec![code.rate; n_tasks];
        rates.push(code.kept_rate);
        let weights = vec![0.3; n_tasks + 1];
        let work = Decode { rates, weights, n_outputs: 1, base: Base::Added, dtype: None, seed: code.seed };
        let (mut scratch, mut rows) = (engine.scratch(), Vec::new());
        group.throughput(Throughput::Bytes((bytes.len() + base_bytes) as u64));
        group.bench_function(BenchmarkId::from_parameter(n_tasks), |bencher| {
            bencher.iter(|| {
                let chunk = Chunk { layout: &layout, bytes: &bytes };
                engine.run(&work, chunk, &mut scratch, &mut rows).expect("the chunk fits the work")
            });
        });
    }
    group.finish();
}

/// One stage, by number of tasks and format.
fn stage<W: Work>(criterion: &mut Criterion, name: &str, work: impl Fn(usize) -> W) {
    let engine = CpuEngine::new();
    let mut group = criterion.benchmark_group(name);
    for n_tasks in [8, 20, 64] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let (layout, bytes) = chunk(n_tasks + 1, dtype);
            let (work, mut scratch, mut output) = (work(n_tasks), engine.scratch(), W::Output::default());
            group.throughput(Throughput::Bytes(layout.n_bytes as u64));
            group.bench_function(BenchmarkId::new(dtype.name().to_lowercase(), n_tasks), |bencher| {
                bencher.iter(|| {
                    let chunk = Chunk { layout: &layout, bytes: &bytes };
                    engine.run(&work, chunk, &mut scratch, &mut output).expect("the chunk fits the work")
                });
            });
        }
    }
    group.finish();
}

/// Symmetric matrices of T tasks.
fn eigh(criterion: &mut Criterion) {
    let engine = CpuEngine::new();
    let mut group = criterion.benchmark_group("eigh");
    for n in [8, 20, 64] {
        let matrix: Vec<f64> = (0..n * n).map(|at| 1.0 / (1 + at / n + at % n) as f64).collect();
        group.bench_function(BenchmarkId::from_parameter(n), |bencher| {
            bencher.iter(|| engine.eigh(&matrix, n, 1).expect("a symmetric matrix"));
        });
    }
    group.finish();
}

criterion_group!(benches, stages, decode, eigh);
criterion_main!(benches);

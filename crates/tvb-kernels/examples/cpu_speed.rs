//! How fast the CPU kernels go over a chunk that lies in the core's cache, beside a plain read of the same bytes.
//!
//! `cargo run --release -p tvb-kernels --example cpu_speed`: GB/s of input on one core, best of several passes.

use std::hint::black_box;
use std::time::Instant;
use tvb_kernels::{Chunk, ChunkLayout, CpuEngine, Dtype, Gram, Project, Segment, Slice, Work};

/// Bytes of a chunk, about: within a core's second-level cache.
const CHUNK_BYTES: usize = 640 << 10;

fn main() {
    let engine = CpuEngine::new();
    println!("{}, one thread, chunks of about {} KiB", engine.instruction_set(), CHUNK_BYTES >> 10);
    println!("dtype     T    read    gram  GFLOP/s  project M=T/2  GFLOP/s");
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for n_tasks in [1, 2, 4, 8, 20, 32, 64, 256] {
            one_row(&engine, dtype, n_tasks);
        }
    }
}

fn one_row(engine: &CpuEngine, dtype: Dtype, n_tasks: usize) {
    let n_columns = n_tasks + 1;
    let n_rows = (CHUNK_BYTES / dtype.size() / n_columns).next_multiple_of(64).min(16 << 10);
    let column_bytes = n_rows * dtype.size();
    let layout = ChunkLayout {
        n_columns,
        segments: vec![Segment::new(n_rows)],
        slices: (0..n_columns).map(|at| Slice::new(at * column_bytes, dtype)).collect(),
        n_bytes: n_columns * column_bytes,
        ..ChunkLayout::default()
    };
    // Small values of every exponent near 2^-6: no subnormals, no infinities in any format.
    let bytes: Vec<u8> =
        (0..layout.n_bytes).map(|at| if at % dtype.size() == dtype.size() - 1 { 0x3c } else { at as u8 }).collect();
    let chunk = Chunk { layout: &layout, bytes: &bytes };
    let n_atoms = (n_tasks / 2).max(1);
    let project = Project { encode: vec![0.1; n_tasks * n_atoms], n_atoms, dtype };

    let read = seconds(|| {
        let (blocks, _) = bytes.as_chunks::<64>();
        let mut sums = [0u64; 8];
        for block in blocks {
            for (sum, word) in sums.iter_mut().zip(block.as_chunks::<8>().0) {
                *sum ^= u64::from_le_bytes(*word);
            }
        }
        black_box(sums);
    });
    let (gram, project) = (time_of(engine, &Gram::ALL, chunk), time_of(engine, &project, chunk));
    let speed = |seconds: f64| layout.n_bytes as f64 / seconds / 1e9;
    let flops = |per_row: usize, seconds: f64| (n_rows * per_row) as f64 / seconds / 1e9;
    println!(
        "{dtype:5} {n_tasks:5} {:7.1} {:7.1} {:8.1} {:14.1} {:8.1}",
        speed(read),
        speed(gram),
        flops(n_tasks * (n_tasks + 1), gram),
        speed(project),
        flops(2 * n_tasks * n_atoms, project),
    );
}

/// How long the engine takes for one chunk.
fn time_of<W: Work>(engine: &CpuEngine, work: &W, chunk: Chunk<'_>) -> f64 {
    let (mut scratch, mut out) = (engine.scratch(), W::Output::default());
    seconds(|| engine.run(work, black_box(chunk), &mut scratch, &mut out).expect("a sound chunk"))
}

/// The best time of one pass.
fn seconds(mut pass: impl FnMut()) -> f64 {
    pass();
    let mut best = f64::INFINITY;
    let started = Instant::now();
    while started.elapsed().as_millis() < 150 {
        let start = Instant::now();
        pass();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

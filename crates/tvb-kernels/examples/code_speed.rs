//! How fast the CPU codes and decodes a chunk that lies in the core's cache.
//!
//! `cargo run --release -p tvb-kernels --example code_speed`: 10⁹ elements of task vectors a second on one core, best of several
//! passes; for every instruction set, with one shared column at 3 bits.

use std::hint::black_box;
use std::time::Instant;
use tvb_kernels::{
    Base, Chunk, ChunkLayout, Code, CodeSlice, Codes, CpuEngine, Decode, Dtype, Rate, Scratch, Segment, Slice, Work,
    n_blocks,
};

const ROWS: usize = 16 << 10;

fn main() {
    for engine in CpuEngine::each() {
        println!("{}, one thread, G elements/s", engine.instruction_set());
        println!("bits      T   code  decode one  decode all (of θ0 + Σ)");
        for n_tasks in [1, 8, 20] {
            for rate in [
                Rate::Half,
                Rate::Signs,
                Rate::Three,
                Rate::Four,
                Rate::Eight,
                Rate::Sixteen,
                Rate::SixtyFour,
                Rate::TwoFiveSix,
            ] {
                one_row(&engine, rate, n_tasks);
            }
        }
    }
}

fn one_row(engine: &CpuEngine, rate: Rate, n_tasks: usize) {
    let column_bytes = ROWS * 4;
    let layout = ChunkLayout {
        n_columns: n_tasks + 1,
        segments: vec![Segment::new(ROWS)],
        slices: (0..=n_tasks).map(|at| Slice::new(at * column_bytes, Dtype::F32)).collect(),
        n_bytes: (n_tasks + 1) * column_bytes,
        ..ChunkLayout::default()
    };
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let bytes: Vec<u8> = (0..layout.n_bytes / 4).flat_map(|_| (next() * 1e-2).to_le_bytes()).collect();
    let q = 1.0 / (n_tasks as f32).sqrt();
    let code = Code { rate, kept_rate: Rate::Eight, kept: vec![q; n_tasks], n_kept: 1, n_carried: 0, seed: 1 };
    let mut codes = Codes::default();
    let coding = best(engine, &code, Chunk { layout: &layout, bytes: &bytes }, &mut codes);

    let mut stored = bytes[..column_bytes].to_vec();
    stored.extend(codes.words.iter().flat_map(|word| word.to_le_bytes()));
    let scales_at = stored.len();
    stored.extend(codes.scales.iter().flat_map(|scale| scale.to_le_bytes()));
    let blocks = n_blocks(ROWS);
    let code_slice = |column: usize| CodeSlice {
        words: column_bytes + 4 * column * rate.words() * blocks,
        scales: scales_at + 2 * column * blocks,
    };
    let mut times = Vec::new();
    for n_columns in [1, n_tasks] {
        let layout = ChunkLayout {
            n_columns: 1,
            segments: vec![Segment::new(ROWS)],
            slices: vec![Slice::new(0, Dtype::F32)],
            codes: (0..n_columns).chain([n_tasks]).map(code_slice).collect(),
            factors: Vec::new(),
            n_bytes: stored.len(),
        };
        let mut rates = vec![rate; n_columns];
        rates.push(Rate::Eight);
        let weights = vec![0.3; rates.len()];
        let decode = Decode { rates, weights, n_outputs: 1, base: Base::Added, dtype: None, seed: 1 };
        times.push(best(engine, &decode, Chunk { layout: &layout, bytes: &stored }, &mut Vec::new()));
    }
    let speed = |n_columns: usize, seconds: f64| (n_columns * ROWS) as f64 / seconds / 1e9;
    println!(
        "{:4} {n_tasks:6} {:6.2} {:11.2} {:11.2}",
        rate.name(),
        speed(n_tasks, coding),
        speed(1, times[0]),
        speed(n_tasks, times[1])
    );
}

fn best<W: Work>(engine: &CpuEngine, work: &W, chunk: Chunk<'_>, out: &mut W::Output) -> f64 {
    let mut scratch = Scratch::default();
    let mut best = f64::INFINITY;
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < 0.15 {
        let start = Instant::now();
        engine.run(work, chunk, &mut scratch, out).expect("a chunk that fits");
        best = best.min(start.elapsed().as_secs_f64());
        black_box(&*out);
    }
    best
}

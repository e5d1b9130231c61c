//! How fast a device does each kernel on a chunk that stays in its memory: weighted sums by their numbers of columns and outputs,
//! codes by their bits.
//!
//! `cargo run --release -p tvb-kernels --example gpu_speed -- llvmpipe 16 "T=8"`: the device's name, the MiB of a chunk, and part of
//! the names of the rows that are wanted, where not all are. The best of
//! several passes; GB/s are bytes of the columns that are read once and of the results. Beside it, where the system tells
//! (Linux), what a pass took of the processors: what a software adapter is compared by while others use the machine.

use std::time::{Duration, Instant};
use tvb_kernels::{
    Backend, Base, Chunk, ChunkLayout, Code, CodeSlice, Columns, Decode, DeviceChoice, DeviceSetup, Dtype, Engine,
    GpuEngine, Project, Rate, Reconstruct, Segment, Slice, Work, n_blocks, open_as, scale_bits,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let name = args.next().ok_or("the name of a device is expected")?;
    let mib: usize = args.next().unwrap_or("16".to_owned()).parse()?;
    let opened = open_as(&DeviceChoice::Name(name), Some(Backend::Vulkan), DeviceSetup::default())?;
    let Engine::Gpu(engine) = opened.engine else { return Err("that is no GPU".into()) };
    let speed = Speed { engine, n_bytes: mib << 20, wanted: args.next().unwrap_or_default() };
    println!("what                                          time   GB/s   processors");
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for (n_tasks, n_outputs) in [(8, 4), (20, 10), (20, 20), (64, 32), (100, 50), (256, 128)] {
            speed.sums(dtype, n_tasks, n_outputs)?;
        }
    }
    for rate in [Rate::Half, Rate::Signs, Rate::Three, Rate::Four, Rate::Sixteen, Rate::SixtyFour] {
        speed.codes(rate, 8)?;
    }
    Ok(())
}

struct Speed {
    engine: GpuEngine,
    /// Of a chunk.
    n_bytes: usize,
    /// Part of the names of the rows that are measured.
    wanted: String,
}

/// Rows that are much the same in every column; their values do not matter.
fn columns(n_columns: usize, n_rows: usize, dtype: Dtype) -> (ChunkLayout, Vec<u8>) {
    let column_bytes = n_rows * dtype.size();
    let layout = ChunkLayout {
        n_columns,
        segments: vec![Segment::new(n_rows)],
        slices: (0..n_columns).map(|at| Slice::new(at * column_bytes, dtype)).collect(),
        n_bytes: n_columns * column_bytes,
        ..ChunkLayout::default()
    };
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 1e-2
    };
    let bytes =
        (0..layout.n_bytes / dtype.size()).flat_map(|_| next().to_le_bytes().into_iter().skip(4 - dtype.size()));
    (layout.clone(), bytes.collect())
}

impl Speed {
    fn sums(&self, dtype: Dtype, n_tasks: usize, n_outputs: usize) -> Outcome {
        // Whole panels.
        let n_rows = self.n_bytes / ((n_tasks + 1) * dtype.size()) / 4096 * 4096;
        let (layout, bytes) = columns(n_tasks + 1, n_rows, dtype);
        let chunk = Chunk { layout: &layout, bytes: &bytes };
        let weights = |n: usize| (0..n_tasks * n).map(|at| ((at * 29) % 17) as f32 / 8.0 - 1.06).collect::<Vec<f32>>();
        let project = Project { encode: weights(n_outputs), n_atoms: n_outputs, dtype };
        self.row(
            &format!("project {dtype} T={n_tasks} M={n_outputs}"),
            &project,
            chunk,
            n_outputs * n_rows * dtype.size(),
        )?;
        let edit = Reconstruct {
            weights: weights(1),
            n_outputs: 1,
            columns: Columns::Checkpoints,
            base: Base::Added,
            dtype: Some(dtype),
        };
        self.row(&format!("reconstruct {dtype} T={n_tasks}"), &edit, chunk, n_rows * dtype.size())
    }

    fn codes(&self, rate: Rate, n_tasks: usize) -> Outcome {
        let n_rows = self.n_bytes / ((n_tasks + 1) * 4) / 4096 * 4096;
        let (layout, bytes) = columns(n_tasks + 1, n_rows, Dtype::F32);
        let chunk = Chunk { layout: &layout, bytes: &bytes };
        let n_code_bytes = n_blocks(n_rows) * (4 * rate.words() + 2);
        for n_kept in [0, 1] {
            let work =
                Code { rate, kept_rate: Rate::Eight, kept: vec![0.3; n_tasks * n_kept], n_kept, n_carried: 0, seed: 1 };
            self.row(
                &format!("code {} bits T={n_tasks}, {n_kept} shared", rate.name()),
                &work,
                chunk,
                n_tasks * n_code_bytes,
            )?;
        }
        // The base, then codes.
        let (mut layout, mut bytes) = columns(1, n_rows, Dtype::F32);
        for _ in 0..n_tasks {
            let words = bytes.len();
            bytes.extend(
                (0..rate.words() * n_blocks(n_rows)).flat_map(|at| (at as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()),
            );
            let scales = bytes.len();
            bytes.extend((0..n_blocks(n_rows)).flat_map(|_| scale_bits(0.01).to_le_bytes()));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            layout.codes.push(CodeSlice { words, scales });
        }
        layout.n_bytes = bytes.len();
        let (rates, weights) = (vec![rate; n_tasks], vec![0.3; n_tasks]);
        let edit = Decode { rates, weights, n_outputs: 1, base: Base::Added, dtype: None, seed: 1 };
        self.row(
            &format!("decode {} bits T={n_tasks}", rate.name()),
            &edit,
            Chunk { layout: &layout, bytes: &bytes },
            4 * n_rows,
        )
    }

    fn row<W: Work>(&self, what: &str, work: &W, chunk: Chunk<'_>, n_out_bytes: usize) -> Outcome {
        if !what.contains(&self.wanted) {
            return Ok(());
        }
        let resident = self.engine.resident(work, chunk)?;
        resident.run(1)?;
        let mut best = Duration::MAX;
        let mut processors = Duration::MAX;
        // Ticks of a processor's clock are long.
        let start = Instant::now();
        resident.run(1)?;
        let n_times = (Duration::from_millis(200).as_nanos() / start.elapsed().as_nanos().max(1)).clamp(1, 100) as u32;
        for _ in 0..5 {
            let (start, before) = (Instant::now(), processor_time());
            resident.run(n_times)?;
            best = best.min(start.elapsed() / n_times);
            processors = processors.min(processor_time().saturating_sub(before) / n_times);
        }
        let gb = (chunk.layout.n_bytes + n_out_bytes) as f64 / best.as_secs_f64() / 1e9;
        println!("{what:40} {:>9.1?} {gb:>6.2} {:>9.1?}", best, processors);
        Ok(())
    }
}

/// What this process has used of the processors, in user code; zero where the system does not tell.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(11)?.parse().ok());
    Duration::from_millis(10 * ticks.unwrap_or(0u64))
}

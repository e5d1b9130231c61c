//! A segment's triangle is its own: its bits depend on its rows, their formats and T, never on what else is in the chunk.

use crate::common::device::{device, turn};
use crate::common::{Formats, Made, Random, store};
use tvb_kernels::{
    ChunkLayout, CpuEngine, DeviceSetup, Dtype, GpuEngine, Gram, Segment, Slice, Triangles, triangle_len,
};

/// One segment, the same bytes in whichever chunk.
#[derive(Clone, Copy, Debug)]
struct Part {
    n_rows: usize,
    formats: Formats,
    seed: u64,
}

impl Part {
    fn dtype(self, column: usize) -> Dtype {
        match self.formats {
            Formats::All(dtype) => dtype,
            Formats::Mixed => [Dtype::F32, Dtype::Bf16, Dtype::F16][(column + self.seed as usize) % 3],
        }
    }

    fn bytes(self, column: usize) -> Vec<u8> {
        // One base for all columns, and each column's own few hundredths.
        let (mut base, mut random) = (Random(self.seed), Random(self.seed ^ ((column as u64 + 1) << 32)));
        let value = |_| base.signed() + if column == 0 { 0.0 } else { 0.03 * random.signed() };
        (0..self.n_rows).map(value).flat_map(|value| store(value, self.dtype(column)).0).collect()
    }
}

/// A chunk of these segments, `gap` bytes or a few more between slices.
fn chunk(parts: &[Part], n_tasks: usize, gap: usize) -> Made {
    let n_columns = n_tasks + 1;
    let mut slices = vec![Slice::new(0, Dtype::F32); parts.len() * n_columns];
    let mut bytes = Vec::new();
    for column in 0..n_columns {
        for (at, part) in parts.iter().enumerate() {
            let dtype = part.dtype(column);
            bytes.resize((bytes.len() + gap).next_multiple_of(dtype.size()), 0xff);
            slices[at * n_columns + column] = Slice::new(bytes.len(), dtype);
            bytes.extend(part.bytes(column));
        }
    }
    let segments = parts.iter().map(|part| Segment::new(part.n_rows)).collect();
    Made {
        layout: ChunkLayout { n_columns, segments, slices, n_bytes: bytes.len(), ..ChunkLayout::default() },
        bytes,
        values: Vec::new(),
    }
}

/// Places for `part` in a chunk: the segments before it, those after it, and the gap between slices.
fn places(n_tasks: usize, part: Part) -> Vec<(Vec<Part>, Vec<Part>, usize)> {
    let like = |n_rows, seed| Part { n_rows, seed, ..part };
    let other = |n_rows, seed, formats| Part { n_rows, seed, formats };
    let bf16 = Formats::All(Dtype::Bf16);
    // Of many tasks a dispatch takes few runs: as many short ones before as put its end within this segment.
    let n_before = [(1000, 14), (300, 184)].into_iter().find(|(least, _)| n_tasks >= *least).map_or(5, |(_, n)| n);
    let many = (0..n_before).map(|at| like(1, 100 + at)).collect();
    vec![
        (vec![], vec![like(30, 2)], 0),
        (vec![like(257, 3), like(7, 4)], vec![], 0),
        (vec![other(33, 5, Formats::Mixed), like(1, 6)], vec![other(65, 7, bf16), other(0, 8, bf16)], 0),
        (vec![other(5, 9, bf16)], vec![like(5, 10), other(3, 11, Formats::Mixed)], 3),
        (many, vec![like(2, 12)], 0),
    ]
}

/// Fails unless `gram` finds the same bits for `part` wherever it lies.
fn check(name: &str, n_tasks: usize, part: Part, gram: &dyn Fn(&Made) -> Triangles) {
    let bits = |parts: &[Part], at: usize, gap: usize| -> Vec<u64> {
        let found = gram(&chunk(parts, n_tasks, gap)).values;
        let n_values = triangle_len(n_tasks);
        assert_eq!(found.len(), parts.len() * n_values);
        found[at * n_values..][..n_values].iter().map(|value| value.to_bits()).collect()
    };
    let alone = bits(&[part], 0, 0);
    assert!(alone.iter().any(|bits| *bits != 0), "{name}, {n_tasks} tasks, {part:?}: nothing but zeros");
    for (before, after, gap) in places(n_tasks, part) {
        let parts = [&before[..], &[part], &after[..]].concat();
        let same = bits(&parts, before.len(), gap) == alone;
        assert!(same, "{name}, {n_tasks} tasks: {part:?} between {before:?} and {after:?}, gaps of {gap} bytes");
    }
}

/// Every T of interest, with rows enough for several runs, and for several folds of them where that is affordable.
fn cases() -> Vec<(usize, Part)> {
    let (f32, bf16, mixed) = (Formats::All(Dtype::F32), Formats::All(Dtype::Bf16), Formats::Mixed);
    let table = [
        (1, 2500, f32),
        (8, 2500, bf16),
        (8, 2500, mixed),
        (20, 1300, f32),
        (20, 1300, mixed),
        (33, 17_000, bf16),
        (33, 600, mixed),
        (70, 600, f32),
        (70, 600, bf16),
        (300, 600, mixed),
        (1024, 300, f32),
    ];
    table.into_iter().map(|(n_tasks, n_rows, formats)| (n_tasks, Part { n_rows, formats, seed: 1 })).collect()
}

#[test]
fn on_the_cpu_neighbours_do_not_show() {
    for engine in CpuEngine::each() {
        for (n_tasks, part) in cases() {
            check(engine.instruction_set(), n_tasks, part, &|made| {
                let mut out = Triangles::default();
                engine.run(&Gram::ALL, made.chunk(), &mut engine.scratch(), &mut out).expect("a sound chunk");
                out
            });
        }
    }
}

#[test]
fn on_a_gpu_neighbours_do_not_show() {
    let _turn = turn();
    for small_blocks in [false, true] {
        let Some(engine) = device(DeviceSetup { small_blocks, ..DeviceSetup::default() }) else { return };
        for (n_tasks, part) in cases() {
            let name = if small_blocks { "small blocks" } else { "large blocks" };
            check(name, n_tasks, part, &|made| on_gpu(&engine, made));
        }
        assert_eq!(engine.check(), Ok(()));
    }
}

/// The chunk's Gram, of its bytes as they lie.
fn on_gpu(engine: &GpuEngine, made: &Made) -> Triangles {
    let mut stream = engine.stream(&Gram::ALL, made.layout.n_bytes, 1).expect("a stream");
    let mut slot = stream.acquire().expect("a slot");
    slot.write(0, &made.bytes).expect("a slot large enough");
    stream.submit(slot, &made.layout).expect("a sound chunk");
    stream.next().expect("a sound chunk").expect("one chunk is in flight")
}

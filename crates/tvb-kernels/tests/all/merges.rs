//! merge on every engine, on chunks of all formats: rules, edges, chances and places. The CPU's own arithmetic is tested beside it, and
//! against plain versions of whole mergers by the library.

use crate::common::device::gpu;
use crate::common::{Case, Formats, load, make};
use tvb_kernels::{Consensus, CpuEngine, Dtype, Edge, Keep, Merge, MergeTask, Place};

const N_TASKS: usize = 5;

fn work(consensus: Consensus, dtype: Option<Dtype>, turn: usize) -> Merge {
    let edge = |value: f32, ties: std::ops::Range<u64>| Edge { bits: value.to_bits(), ties };
    let keeps = [
        Keep::All,
        Keep::Band { low: edge(0.02, 0..u64::MAX), high: None },
        Keep::Band { low: edge(0.0, 0..u64::MAX), high: Some(edge(0.0625, 0..700)) },
        Keep::Random { key: 99, chance: 3 << 30 },
    ];
    let task = |task: usize| MergeTask {
        factor: 1.0 + 0.25 * task as f32,
        weight: 1.0 + 0.5 * task as f32,
        keep: keeps[(task + turn) % keeps.len()].clone(),
    };
    let variance = (turn % 3 == 1).then(|| edge(0.0005, 0..9));
    Merge { tasks: (0..N_TASKS).map(task).collect(), variance, consensus, base: 1.0, lambda: 0.75, dtype }
}

/// A decision hangs on bits, so engines differ by rounding alone; where a sum is all but zero, rarely by its sign.
#[test]
fn engines_merge_alike() {
    let rules = [
        Consensus::Sum,
        Consensus::Elected { divides: true },
        Consensus::Elected { divides: false },
        Consensus::Erased { floor: 1e-6 },
        Consensus::Needed { k: 3, lambda: 0.4 },
        Consensus::NeededBy { task: 4, lambda: 0.4 },
        Consensus::Largest,
        Consensus::LargestFor { task: 0 },
    ];
    let Some((engine, _turn)) = gpu() else { return };
    let cpu = CpuEngine::new();
    let formats = [Dtype::F32, Dtype::F16, Dtype::Bf16].map(Formats::All).into_iter().chain([Formats::Mixed]);
    for (turn, formats) in formats.enumerate() {
        for misaligned in [false, true] {
            let case = Case { n_tasks: N_TASKS, segments: vec![1, 1000, 0, 513], formats, misaligned, seed: 6 };
            let mut made = make(&case);
            for (segment, first_row) in made.layout.segments.iter_mut().zip([3, 600, 0, 1 << 31]) {
                segment.place = Place { tensor: 0, first_row };
            }
            for (at, consensus) in rules.into_iter().enumerate() {
                for dtype in [Some(Dtype::F32), Some(Dtype::Bf16)] {
                    let work = work(consensus, dtype, turn + at);
                    let mut expected = Vec::new();
                    cpu.run(&work, made.chunk(), &mut cpu.scratch(), &mut expected).expect("merged");
                    let found = engine.run(&work, made.chunk()).expect("merged");
                    let dtype = dtype.unwrap_or(Dtype::F32);
                    let (found, expected) = (load(&found, dtype), load(&expected, dtype));
                    assert_eq!(found.len(), expected.len());
                    let tolerance = 4.0 * dtype.unit_roundoff();
                    let far = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > tolerance).count();
                    assert!(far <= 3, "{consensus:?} {formats:?} {dtype}: {far} of {} rows differ", found.len());
                }
            }
        }
    }
}

/// What a GPU cannot do is the CPU's: f64, and places beyond a word.
#[test]
fn f64_and_far_places_are_done_all_the_same() {
    let Some((engine, _turn)) = gpu() else { return };
    let cpu = CpuEngine::new();
    let wide =
        Case { n_tasks: N_TASKS, segments: vec![70], formats: Formats::All(Dtype::F64), misaligned: false, seed: 1 };
    let far = Case { formats: Formats::All(Dtype::F32), ..wide.clone() };
    for (case, first_row) in [(wide, 0), (far, u64::from(u32::MAX))] {
        let mut made = make(&case);
        made.layout.segments[0].place = Place { tensor: 0, first_row };
        let work = work(Consensus::Sum, None, 3);
        let mut expected = Vec::new();
        cpu.run(&work, made.chunk(), &mut cpu.scratch(), &mut expected).expect("merged");
        assert_eq!(engine.run(&work, made.chunk()).expect("merged"), expected);
    }
}

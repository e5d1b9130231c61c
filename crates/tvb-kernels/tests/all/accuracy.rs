//! What holds for chunks of any shape: random layouts, long columns, and finding what is not finite.

use crate::common::{Case, Formats, Made, Random, make, reference_gram};
use proptest::prelude::*;
use tvb_kernels::{
    ChunkLayout, CpuEngine, Dtype, Gram, Project, Segment, Slice, Work, locate_non_finite, triangle_len,
};

fn run<W: Work>(engine: CpuEngine, work: &W, made: &Made) -> W::Output {
    let mut out = W::Output::default();
    engine.run(work, made.chunk(), &mut engine.scratch(), &mut out).expect("a sound chunk");
    out
}

/// A million rows with a common offset, so that the sums are long and of one sign: the hardest case for f32.
#[test]
fn long_columns_stay_within_1e_7() {
    let n_rows = 1 << 20;
    let columns = [0.0f32, 0.1, 0.1, -0.3];
    let mut random = Random(3);
    let values: Vec<Vec<f32>> =
        columns.iter().map(|mean| (0..n_rows).map(|_| mean + 0.01 * random.signed() as f32 * mean).collect()).collect();
    let bytes: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let slices = (0..4).map(|at| Slice::new(at * n_rows * 4, Dtype::F32)).collect();
    let layout = ChunkLayout {
        n_columns: 4,
        segments: vec![Segment::new(n_rows)],
        slices,
        n_bytes: bytes.len(),
        ..ChunkLayout::default()
    };
    let made = Made { layout, bytes, values: Vec::new() };
    for engine in CpuEngine::each() {
        let gram = run(engine, &Gram::ALL, &made);
        for i in 0..3 {
            for j in 0..=i {
                let product = |(a, b): (&f32, &f32)| f64::from(a - 0.0) * f64::from(b - 0.0);
                let expected: f64 = values[i + 1].iter().zip(&values[j + 1]).map(product).sum();
                let error = ((gram.values[triangle_len(i) + j] - expected) / expected).abs();
                assert!(error <= 1e-7, "{}: ({i}, {j}): {error:e}", engine.instruction_set());
            }
        }
    }
}

#[test]
fn the_first_non_finite_delta_is_found() {
    let nan = f32::NAN.to_le_bytes();
    let infinity = f32::INFINITY.to_le_bytes();
    let large = f32::MAX.to_le_bytes();
    let less = f32::MIN.to_le_bytes();
    // (segment, row, column) written, what is written, and what is found.
    type At = (usize, usize, usize);
    let cases: [(&[(At, [u8; 4])], Option<At>); 6] = [
        (&[], None),
        (&[((1, 1030, 2), nan)], Some((1, 1030, 2))),
        (&[((1, 1030, 2), nan), ((1, 1030, 1), infinity)], Some((1, 1030, 1))),
        (&[((1, 7, 3), nan), ((0, 299, 3), infinity)], Some((0, 299, 3))),
        (&[((1, 5, 0), infinity)], Some((1, 5, 0))),
        // Both are finite, their difference is not.
        (&[((0, 3, 0), large), ((0, 3, 2), less)], Some((0, 3, 2))),
    ];
    for (writes, expected) in cases {
        let mut made = make(&Case {
            n_tasks: 3,
            segments: vec![300, 1100],
            formats: Formats::All(Dtype::F32),
            misaligned: false,
            seed: 4,
        });
        for ((segment, row, column), value) in writes {
            let at = made.layout.slice(*segment, *column).offset + row * 4;
            made.bytes[at..at + 4].copy_from_slice(value);
        }
        assert_eq!(locate_non_finite(made.chunk()), expected, "{writes:?}");
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let segments = prop::collection::vec(0usize..1500, 0..5);
    let formats = prop_oneof![
        Just(Formats::Mixed),
        Just(Formats::All(Dtype::F32)),
        Just(Formats::All(Dtype::Bf16)),
        Just(Formats::All(Dtype::F16)),
        Just(Formats::All(Dtype::F64)),
    ];
    (1usize..12, segments, formats, any::<bool>(), any::<u64>()).prop_map(
        |(n_tasks, segments, formats, misaligned, seed)| Case { n_tasks, segments, formats, misaligned, seed },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grams_of_random_layouts(case in any_case()) {
        let made = make(&case);
        let expected = reference_gram(&made);
        for engine in CpuEngine::each() {
            let gram = run(engine, &Gram::ALL, &made);
            prop_assert_eq!(gram.values.len(), expected.len());
            for (found, expected) in gram.values.iter().zip(&expected) {
                // A row adds at most 0.06² to an entry.
                prop_assert!((found - expected).abs() <= 1e-6 * 0.0036 * made.layout.n_rows() as f64);
            }
        }
    }

    /// However a chunk's rows are cut, the atoms are the same bits.
    #[test]
    fn projections_do_not_depend_on_the_cut(case in any_case(), n_atoms in 1usize..7, cut in 0usize..1500) {
        let made = make(&case);
        let mut random = Random(case.seed);
        let encode = random.weights(case.n_tasks * n_atoms);
        let work = Project { encode, n_atoms, dtype: Dtype::F32 };
        let engine = CpuEngine::new();
        let whole = run(engine, &work, &made);
        // Each segment as two: rows before the cut and rows from there.
        let n_columns = made.layout.n_columns;
        let mut layout = ChunkLayout { segments: Vec::new(), slices: Vec::new(), ..made.layout.clone() };
        for (segment, slices) in made.layout.segments.iter().zip(made.layout.slices.chunks_exact(n_columns)) {
            let first = cut.min(segment.n_rows);
            for (n_rows, start) in [(first, 0), (segment.n_rows - first, first)] {
                layout.segments.push(Segment::new(n_rows));
                layout.slices.extend(slices.iter().map(|slice| Slice {
                    offset: slice.offset + start * slice.dtype.size(),
                    ..*slice
                }));
            }
        }
        let cut = Made { layout, bytes: made.bytes, values: Vec::new() };
        let pieces = run(engine, &work, &cut);
        prop_assert_eq!(whole, pieces);
    }
}

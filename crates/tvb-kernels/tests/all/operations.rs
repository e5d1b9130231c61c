//! Every operation of every engine against a plain f64 loop, over a table of shapes, formats and tails.

use crate::common::device::gpu;
use crate::common::{Case, Formats, Made, Random, load, make, reference_gram, reference_rows};
use std::sync::MutexGuard;
use tvb_kernels::{
    Base, Chunk, Columns, CpuEngine, Dtype, GpuEngine, Gram, KernelError, MAX_TASKS, Project, Reconstruct, Triangles,
    Work, triangle_len,
};

/// Something that does one chunk's work.
struct Runner {
    name: &'static str,
    on: On,
}

enum On {
    Cpu(CpuEngine),
    /// Each slice on a word, f64 as f32.
    Gpu(GpuEngine),
    /// Bytes as they are, where the device takes them so.
    GpuAsTheyAre(GpuEngine),
}

impl Runner {
    fn run<W: Work<Output: Leftover>>(&self, work: &W, chunk: Chunk<'_>) -> Result<W::Output, KernelError> {
        match &self.on {
            On::Cpu(engine) => {
                // Leftovers in reused buffers must not show.
                let mut out = W::Output::leftover();
                engine.run(work, chunk, &mut engine.scratch(), &mut out)?;
                Ok(out)
            }
            On::Gpu(engine) => engine.run(work, chunk),
            On::GpuAsTheyAre(engine) => {
                let mut stream = engine.stream(work, chunk.layout.n_bytes, 1)?;
                let has_f64 = chunk.layout.slices.iter().any(|slice| slice.dtype == Dtype::F64);
                let is_short = chunk.bytes.len() < chunk.layout.n_bytes;
                if has_f64 || is_short || !stream.takes(chunk.layout) {
                    return engine.run(work, chunk);
                }
                let mut slot = stream.acquire()?;
                slot.write(0, &chunk.bytes[..chunk.layout.n_bytes])?;
                stream.submit(slot, chunk.layout)?;
                Ok(stream.next()?.expect("one chunk is in flight"))
            }
        }
    }
}

/// A result that holds what an earlier chunk left there.
trait Leftover {
    fn leftover() -> Self;
}

impl Leftover for Triangles {
    fn leftover() -> Self {
        Triangles { values: vec![f64::NAN; 1000] }
    }
}

impl Leftover for Vec<u8> {
    fn leftover() -> Self {
        vec![0xff; 1000]
    }
}

/// Every instruction set of the CPU engine, both ways into the GPU, and the GPU's turn where there is one.
fn runners() -> (Vec<Runner>, Option<MutexGuard<'static, ()>>) {
    let cpu = |engine: CpuEngine| Runner { name: engine.instruction_set(), on: On::Cpu(engine) };
    let mut runners: Vec<Runner> = CpuEngine::each().into_iter().map(cpu).collect();
    let Some((engine, turn)) = gpu() else { return (runners, None) };
    runners.push(Runner { name: "gpu", on: On::Gpu(engine.clone()) });
    runners.push(Runner { name: "gpu, bytes as they are", on: On::GpuAsTheyAre(engine) });
    (runners, Some(turn))
}

/// T, rows of each segment, formats, misaligned: the shapes every operation is checked on.
fn cases() -> Vec<Case> {
    let all = Formats::All;
    let one = |n_rows| vec![n_rows];
    let table = [
        (1, one(1), all(Dtype::F32), false),
        (1, one(1023), all(Dtype::Bf16), false),
        (2, one(1024), all(Dtype::F16), false),
        (3, one(1025), all(Dtype::F32), true),
        (3, one(2049), all(Dtype::F64), false),
        (7, vec![5, 1024, 1, 0, 333], Formats::Mixed, true),
        (8, one(1023), all(Dtype::Bf16), true),
        (8, vec![1025, 64, 65, 7], all(Dtype::F32), false),
        (8, vec![3, 5, 7, 9, 11], all(Dtype::F16), false),
        (16, vec![700, 1100], Formats::Mixed, true),
        (20, vec![1, 1500], Formats::Mixed, false),
        (31, one(129), all(Dtype::F32), false),
        (32, one(1030), all(Dtype::F16), true),
        (33, vec![513, 31], all(Dtype::Bf16), true),
        (64, vec![300, 257], Formats::Mixed, true),
        (65, one(400), all(Dtype::F32), false),
        (100, vec![130, 1], all(Dtype::Bf16), false),
        (257, vec![70, 3], Formats::Mixed, true),
        (1024, one(17), all(Dtype::F32), false),
        // Every tile of gram, where 16 bits do not go into it evenly among them.
        (12, one(1030), all(Dtype::Bf16), false),
        (20, one(300), all(Dtype::F16), false),
        (23, one(700), all(Dtype::F32), false),
        (40, one(300), all(Dtype::Bf16), false),
        (47, one(260), all(Dtype::F32), false),
        (56, one(130), all(Dtype::F16), false),
        (64, one(1100), all(Dtype::Bf16), false),
        (4, vec![], all(Dtype::F32), false),
        (4, vec![0], all(Dtype::F32), false),
    ];
    let case = |(seed, (n_tasks, segments, formats, misaligned)): (usize, _)| Case {
        n_tasks,
        segments,
        formats,
        misaligned,
        seed: seed as u64,
    };
    table.into_iter().enumerate().map(case).collect()
}

fn check<W: Work<Output: Leftover>>(runner: &Runner, case: &Case, made: &Made, work: &W, judge: impl Fn(&W::Output)) {
    let run = || runner.run(work, made.chunk()).unwrap_or_else(|error| panic!("{}: {case:?}: {error}", runner.name));
    let first = run();
    assert_eq!(first, run(), "{}: {case:?}: two runs differ", runner.name);
    judge(&first);
}

#[test]
fn gram_is_the_inner_products_of_deltas() {
    let (runners, _turn) = runners();
    for case in cases() {
        let made = make(&case);
        let expected = reference_gram(&made);
        for runner in &runners {
            check(runner, &case, &made, &Gram::ALL, |gram| {
                assert_eq!(gram.values.len(), expected.len());
                let n_values = triangle_len(case.n_tasks);
                for (found, expected) in gram.values.chunks_exact(n_values).zip(expected.chunks_exact(n_values)) {
                    for i in 0..case.n_tasks {
                        for j in 0..=i {
                            let norm = |k| expected[triangle_len(k + 1) - 1].sqrt();
                            let (found, expected) = (found[triangle_len(i) + j], expected[triangle_len(i) + j]);
                            let error = (found - expected).abs();
                            assert!(
                                error <= 1e-6 * norm(i) * norm(j),
                                "{}: {case:?}: ({i}, {j}): {found} against {expected}",
                                runner.name
                            );
                        }
                    }
                }
            });
        }
    }
}

/// Rows that are asked for alone have the bits they have among all; where a library's product makes those of all, they are close.
#[test]
fn gram_of_new_rows_is_rows_of_the_gram() {
    let (runners, _turn) = runners();
    for case in cases() {
        let made = make(&case);
        let (n, n_values) = (case.n_tasks, triangle_len(case.n_tasks));
        for runner in &runners {
            let all = runner.run(&Gram::ALL, made.chunk()).expect("a sound chunk");
            for first in [0, 1, 2, 3, 4, 5, n / 2, n.saturating_sub(2), n - 1].into_iter().filter(|first| *first < n) {
                check(runner, &case, &made, &Gram { first }, |rows| {
                    assert_eq!(rows.values.len(), all.values.len());
                    for (found, all) in rows.values.chunks_exact(n_values).zip(all.values.chunks_exact(n_values)) {
                        let norm = |k| all[triangle_len(k + 1) - 1].sqrt();
                        for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                            let (found, expected) = (found[triangle_len(i) + j], all[triangle_len(i) + j]);
                            let same =
                                found == expected || n > 32 && (found - expected).abs() <= 1e-6 * norm(i) * norm(j);
                            assert!(
                                same || i < first && j < i,
                                "{}: {case:?} from {first}: ({i}, {j}): {found}, {expected}",
                                runner.name
                            );
                        }
                    }
                });
            }
            let none = Gram { first: n };
            assert!(runner.run(&none, made.chunk()).is_err(), "{}: {case:?}: no row", runner.name);
        }
    }
}

#[test]
fn project_is_deltas_times_encode() {
    let dtypes = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64];
    let (runners, _turn) = runners();
    for (at, case) in cases().into_iter().enumerate() {
        let made = make(&case);
        let mut random = Random(at as u64);
        let n_atoms = if case.n_tasks > 100 { 5 } else { 1 + random.below(case.n_tasks) };
        let mut encode = random.weights(case.n_tasks * n_atoms);
        encode.iter_mut().step_by(7).for_each(|weight| *weight = 0.0);
        for dtype in [dtypes[at % 4], dtypes[(at / 4 + at + 1) % 4]] {
            let work = Project { encode: encode.clone(), n_atoms, dtype };
            let same = Reconstruct {
                weights: encode.clone(),
                n_outputs: n_atoms,
                columns: Columns::Checkpoints,
                base: Base::Left,
                dtype: Some(dtype),
            };
            for runner in &runners {
                check(runner, &case, &made, &work, |output| judge_rows(runner, &case, &made, &same, output, false));
            }
        }
    }
}

#[test]
fn reconstruct_is_base_plus_columns_times_weights() {
    let dtypes = [None, Some(Dtype::F32), Some(Dtype::Bf16), Some(Dtype::F16), Some(Dtype::F64)];
    let (runners, _turn) = runners();
    for (at, case) in cases().into_iter().enumerate() {
        let made = make(&case);
        let mut random = Random(at as u64);
        let n_outputs = [1, 2, 4, 5][at % 4];
        let mut weights = random.weights(case.n_tasks * n_outputs);
        weights.iter_mut().step_by(5).for_each(|weight| *weight = 0.0);
        let dtype = dtypes[at % dtypes.len()];
        for (columns, base) in [
            (Columns::Checkpoints, Base::Added),
            (Columns::Checkpoints, Base::Left),
            (Columns::Deltas, Base::Added),
            (Columns::Deltas, Base::Left),
        ] {
            let work = Reconstruct { weights: weights.clone(), n_outputs, columns, base, dtype };
            for runner in &runners {
                check(runner, &case, &made, &work, |output| {
                    judge_rows(runner, &case, &made, &work, output, true);
                });
            }
        }
    }
}

/// Rows against the f64 loop: within f32's rounding of their terms (f64's where the work is done in f64), then rounded
/// once to the output's format.
fn judge_rows(runner: &Runner, case: &Case, made: &Made, work: &Reconstruct, bytes: &[u8], f64_allowed: bool) {
    let mut at = 0;
    for output in 0..work.n_outputs {
        for (segment, &n_rows) in case.segments.iter().enumerate() {
            let base_dtype = made.layout.slice(segment, 0).dtype;
            let dtype = work.dtype.unwrap_or(base_dtype);
            let in_f64 = f64_allowed && (dtype == Dtype::F64 || base_dtype == Dtype::F64);
            let unit = if in_f64 { Dtype::F64 } else { Dtype::F32 }.unit_roundoff() * (case.n_tasks + 3) as f64;
            let found = load(&bytes[at..][..n_rows * dtype.size()], dtype);
            at += n_rows * dtype.size();
            for (row, (found, (expected, magnitude))) in
                found.iter().zip(reference_rows(made, work, segment, output)).enumerate()
            {
                let smallest = if dtype == Dtype::F16 { 2f64.powi(-25) } else { 0.0 };
                let bound = unit * magnitude * 1.01 + dtype.unit_roundoff() * expected.abs() * 1.01 + smallest;
                assert!(
                    (found - expected).abs() <= bound,
                    "{}: {case:?}: output {output}, segment {segment}, row {row}: {found} against {expected} ± {bound:e}",
                    runner.name
                );
            }
        }
    }
    assert_eq!(at, bytes.len(), "{}: {case:?}: bytes of the rows", runner.name);
}

/// f32 columns of the given rows, base first.
fn plain_f32(columns: &[&[f32]]) -> (tvb_kernels::ChunkLayout, Vec<u8>) {
    let n_rows = columns[0].len();
    let layout = tvb_kernels::ChunkLayout {
        n_columns: columns.len(),
        segments: vec![tvb_kernels::Segment::new(n_rows)],
        slices: (0..columns.len()).map(|at| tvb_kernels::Slice::new(at * n_rows * 4, Dtype::F32)).collect(),
        n_bytes: columns.len() * n_rows * 4,
        ..tvb_kernels::ChunkLayout::default()
    };
    (layout, columns.iter().flat_map(|column| column.iter().flat_map(|x| x.to_le_bytes())).collect())
}

#[test]
fn a_column_of_weight_zero_cannot_poison() {
    let (layout, bytes) = plain_f32(&[&[1.0, 2.0], &[f32::INFINITY, f32::NAN], &[4.0, 8.0]]);
    let work = Reconstruct {
        weights: vec![0.0, 1.0, 0.5, 0.5],
        n_outputs: 2,
        columns: Columns::Deltas,
        base: Base::Added,
        dtype: Some(Dtype::F32),
    };
    let (runners, _turn) = runners();
    for runner in &runners {
        let rows = runner.run(&work, Chunk { layout: &layout, bytes: &bytes }).unwrap();
        let rows = load(&rows, Dtype::F32);
        assert_eq!(rows[..2], [3.0, 6.0], "{}", runner.name);
        assert!(rows[2] == f64::INFINITY && rows[3].is_nan(), "{}: {rows:?}", runner.name);
    }
}

#[test]
fn rows_beyond_a_formats_range_become_infinite() {
    let (layout, bytes) = plain_f32(&[&[0.0, 0.0, 0.0, 0.0], &[65519.0, 65520.0, -1e6, 6e-8]]);
    let work = Project { encode: vec![1.0], n_atoms: 1, dtype: Dtype::F16 };
    let (runners, _turn) = runners();
    for runner in &runners {
        let rows = runner.run(&work, Chunk { layout: &layout, bytes: &bytes }).unwrap();
        let expected = [65504.0, f64::INFINITY, f64::NEG_INFINITY, 2f64.powi(-24)];
        assert_eq!(load(&rows, Dtype::F16), expected, "{}", runner.name);
    }
}

#[test]
fn malformed_layouts_are_refused() {
    let good =
        make(&Case { n_tasks: 2, segments: vec![4, 4], formats: Formats::All(Dtype::F32), misaligned: false, seed: 1 });
    type Break = Box<dyn Fn(&mut Made)>;
    let broken: Vec<(&str, Break)> = vec![
        ("3 slices", Box::new(|made| made.layout.slices.truncate(3))),
        ("do not lie within", Box::new(|made| made.layout.slices[4].offset = usize::MAX - 3)),
        ("do not lie within", Box::new(|made| made.layout.segments[1].n_rows = usize::MAX)),
        ("4 F32 rows at byte 80 do not lie within", Box::new(|made| made.layout.n_bytes -= 1)),
        ("not a multiple of 4", Box::new(|made| made.layout.slices[1].offset = 2)),
        ("its layout needs 96", Box::new(|made| made.bytes.truncate(95))),
        ("expected the base", Box::new(|made| made.layout.n_columns = 0)),
        ("expected the base", Box::new(|made| made.layout.n_columns = MAX_TASKS + 2)),
        (
            "expected the base",
            Box::new(|made| {
                made.layout.n_columns = 1;
                made.layout.slices.truncate(2);
            }),
        ),
    ];
    let project = |encode: Vec<f32>, n_atoms| Project { encode, n_atoms, dtype: Dtype::F32 };
    let works = [
        ("expected 4", project(vec![0.0; 3], 2)),
        ("no output", project(vec![], 0)),
        ("column 1 for output 0", project(vec![1.0, 1.0, f32::NAN, 1.0], 2)),
    ];
    let (runners, _turn) = runners();
    for runner in &runners {
        let refused = |expected: &str, result: Result<(), KernelError>| {
            let message = result.expect_err(expected).to_string();
            assert!(message.contains(expected), "{}: {message:?} does not say {expected:?}", runner.name);
        };
        for (expected, break_it) in &broken {
            let mut made = Made { layout: good.layout.clone(), bytes: good.bytes.clone(), values: Vec::new() };
            break_it(&mut made);
            refused(expected, runner.run(&Gram::ALL, made.chunk()).map(drop));
        }
        for (expected, work) in &works {
            refused(expected, runner.run(work, good.chunk()).map(drop));
        }
    }
}

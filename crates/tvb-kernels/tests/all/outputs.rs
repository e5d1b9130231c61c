//! Every number of outputs of project and reconstruct, on either side of what is formed together, against a plain f64 loop.

use crate::common::device::gpu;
use crate::common::{Case, Formats, Made, Random, load, make, reference_rows, store};
use tvb_kernels::{Base, Columns, Dtype, GpuEngine, Project, Reconstruct};

/// More than twice as many as are formed together at most, and a few.
const MOST: usize = 70;
const N_TASKS: usize = 5;
/// More than a workgroup's rows, a single one, none, an even number.
const SEGMENTS: [usize; 4] = [131, 1, 0, 6];

/// Fails unless every row is within f32's rounding of its terms, then rounded once.
fn judge(name: &str, made: &Made, work: &Reconstruct, dtype: Dtype, bytes: &[u8]) {
    let unit = Dtype::F32.unit_roundoff() * (N_TASKS + 3) as f64;
    let smallest = if dtype == Dtype::F16 { 2f64.powi(-25) } else { 0.0 };
    let mut at = 0;
    for output in 0..work.n_outputs {
        for (segment, n_rows) in SEGMENTS.into_iter().enumerate() {
            let found = load(&bytes[at..][..n_rows * dtype.size()], dtype);
            at += n_rows * dtype.size();
            for (row, (found, (expected, magnitude))) in
                found.iter().zip(reference_rows(made, work, segment, output)).enumerate()
            {
                let bound = 1.01 * (unit * magnitude + dtype.unit_roundoff() * expected.abs()) + smallest;
                assert!(
                    (found - expected).abs() <= bound,
                    "{name}: output {output}, segment {segment}, row {row}: {found} against {expected} ± {bound:e}"
                );
            }
        }
    }
    assert_eq!(at, bytes.len(), "{name}: bytes of the rows");
}

fn check(engine: &GpuEngine, made: &Made, formats: Formats, n_outputs: usize, has_zeros: bool) {
    let mut weights = Random(n_outputs as u64).weights(N_TASKS * n_outputs);
    if has_zeros {
        weights.iter_mut().step_by(3).for_each(|weight| *weight = 0.0);
    }
    let dtype = [Dtype::F32, Dtype::Bf16, Dtype::F16][n_outputs % 3];
    let name = format!("{formats:?}, {n_outputs} outputs in {dtype}, zeros: {has_zeros}");
    let project = Project { encode: weights.clone(), n_atoms: n_outputs, dtype };
    let mut edit =
        Reconstruct { weights, n_outputs, columns: Columns::Checkpoints, base: Base::Left, dtype: Some(dtype) };
    let found = engine.run(&project, made.chunk()).expect("a sound chunk");
    judge(&format!("project, {name}"), made, &edit, dtype, &found);
    edit.base = Base::Added;
    edit.columns = if n_outputs.is_multiple_of(2) { Columns::Deltas } else { Columns::Checkpoints };
    let found = engine.run(&edit, made.chunk()).expect("a sound chunk");
    judge(&format!("reconstruct, {name}"), made, &edit, dtype, &found);
}

#[test]
fn any_number_of_outputs() {
    let Some((engine, _turn)) = gpu() else { return };
    let all = [Dtype::F32, Dtype::F16, Dtype::Bf16].map(Formats::All);
    for formats in all.into_iter().chain([Formats::Mixed]) {
        let case = Case { n_tasks: N_TASKS, segments: SEGMENTS.to_vec(), formats, misaligned: false, seed: 21 };
        let made = make(&case);
        for n_outputs in 1..=MOST {
            for has_zeros in [false, true] {
                check(&engine, &made, formats, n_outputs, has_zeros);
            }
        }
    }
    assert_eq!(engine.check(), Ok(()));
}

/// What is not finite reaches the outputs that have a weight for it, and no other of those formed together.
#[test]
fn infinities_stay_where_they_have_weights() {
    let Some((engine, _turn)) = gpu() else { return };
    let case = Case {
        n_tasks: N_TASKS,
        segments: SEGMENTS.to_vec(),
        formats: Formats::All(Dtype::F32),
        misaligned: false,
        seed: 22,
    };
    let mut made = make(&case);
    let (segment, task, row) = (0, 3, 129);
    let at = made.layout.slice(segment, task + 1).offset + row * 4;
    made.bytes[at..at + 4].copy_from_slice(&store(f64::INFINITY, Dtype::F32).0);
    let n_rows: usize = SEGMENTS.iter().sum();
    let bad_row = SEGMENTS[..segment].iter().sum::<usize>() + row;
    for n_outputs in [1, 4, 17, 32, 33, 70] {
        let mut encode = Random(1).weights(N_TASKS * n_outputs);
        let is_reached = |output: usize| output % 5 == 2;
        for (output, weight) in encode[task * n_outputs..][..n_outputs].iter_mut().enumerate() {
            *weight = if is_reached(output) { 0.5 } else { 0.0 };
        }
        let project = Project { encode, n_atoms: n_outputs, dtype: Dtype::F32 };
        let found = load(&engine.run(&project, made.chunk()).expect("a sound chunk"), Dtype::F32);
        for (at, value) in found.iter().enumerate() {
            let (output, row) = (at / n_rows, at % n_rows);
            let is_finite = !(row == bad_row && is_reached(output));
            assert_eq!(value.is_finite(), is_finite, "{n_outputs} outputs: output {output}, row {row}: {value}");
        }
    }
}

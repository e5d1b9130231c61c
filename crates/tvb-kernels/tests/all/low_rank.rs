//! Columns that are formed from factors in the chunk, against the same rows formed beforehand: every operation, every engine.

use crate::common::device::gpu;
use crate::common::{Case, Formats, Made, Random, load, make};
use tvb_kernels::{
    Base, Code, Columns, CpuEngine, Dtype, FactorSlice, Factors, Gram, KernelError, Project, Rate, Reconstruct, Slice,
    Work, form_low_rank,
};

/// Segments of a chunk: a run within a matrix, one that begins and ends within rows, a single element, none.
const SEGMENTS: [usize; 5] = [2 * 2048 + 12, 300, 1, 0, 257];
/// Where each begins in its matrix, its row length and rank.
const SHAPES: [(usize, usize, usize); 5] = [(0, 64, 4), (13, 37, 3), (5, 7, 1), (0, 1, 2), (0, 257, 16)];

/// Two chunks of three tasks: in the first, task 1 and part of task 2 are factors, in the second their rows.
fn chunks(formats: Formats) -> [Made; 2] {
    let case = Case { n_tasks: 3, segments: SEGMENTS.to_vec(), formats, misaligned: false, seed: 5 };
    let [mut factored, mut formed] = [make(&case), make(&case)];
    let mut random = Random(11);
    let n_columns = factored.layout.n_columns;
    factored.layout.factors = vec![None; SEGMENTS.len() * n_columns];
    for (at, (&n_rows, &(first, n_row, rank))) in SEGMENTS.iter().zip(&SHAPES).enumerate() {
        for column in [1, 2].into_iter().take(1 + at % 2) {
            let n_left = (first + n_rows).div_ceil(n_row) * rank;
            let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| 0.2 * random.signed() as f32).collect() };
            let (left, right) = (values(n_left), values(rank * n_row));
            let mut rows = vec![0.0f32; n_rows];
            let scale = 0.75;
            form_low_rank(Factors { left: &left, right: &right, rank, n_columns: n_row, scale }, first, &mut rows);
            let put = |made: &mut Made, floats: &[f32]| {
                made.bytes.resize(made.bytes.len().next_multiple_of(4), 0);
                let at = made.bytes.len();
                made.bytes.extend(floats.iter().flat_map(|value| value.to_le_bytes()));
                made.layout.n_bytes = made.bytes.len();
                at
            };
            let entry = at * n_columns + column;
            let (left, right) = (put(&mut factored, &left), put(&mut factored, &right));
            factored.layout.slices[entry] = Slice::of_delta(0);
            factored.layout.factors[entry] = Some(FactorSlice { left, right, rank, n_columns: n_row, first, scale });
            formed.layout.slices[entry] = Slice::of_delta(put(&mut formed, &rows));
        }
    }
    [factored, formed]
}

fn close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(1e-30f64, |largest, value| largest.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * largest, "{name}: {at}: {found} against {expected}");
    }
}

#[test]
fn factors_in_a_chunk_are_the_rows_that_they_form() {
    let cpu = CpuEngine::new();
    let gpu = gpu();
    let weights: Vec<f32> = Random(2).weights(6);
    let project = Project { encode: weights.clone(), n_atoms: 2, dtype: Dtype::F32 };
    // More than are formed together.
    let many = Project { encode: Random(4).weights(3 * 35), n_atoms: 35, dtype: Dtype::F32 };
    let edit = Reconstruct {
        weights,
        n_outputs: 2,
        columns: Columns::Checkpoints,
        base: Base::Added,
        dtype: Some(Dtype::F32),
    };
    let code = Code { rate: Rate::Four, kept_rate: Rate::Eight, kept: vec![1.0; 3], n_kept: 1, n_carried: 0, seed: 9 };
    for formats in [Formats::All(Dtype::F32), Formats::All(Dtype::Bf16), Formats::All(Dtype::F64), Formats::Mixed] {
        let [factored, formed] = chunks(formats);
        fn on_cpu<W: Work>(engine: &CpuEngine, work: &W, made: &Made) -> W::Output {
            let mut out = W::Output::default();
            engine.run(work, made.chunk(), &mut engine.scratch(), &mut out).unwrap();
            out
        }
        let gram = on_cpu(&cpu, &Gram::ALL, &formed).values;
        let atoms = on_cpu(&cpu, &project, &formed);
        let edits = on_cpu(&cpu, &edit, &formed);
        let codes = on_cpu(&cpu, &code, &formed);
        // The CPU forms the same bits, whoever asks.
        assert_eq!(on_cpu(&cpu, &Gram::ALL, &factored).values, gram);
        assert_eq!(on_cpu(&cpu, &project, &factored), atoms);
        assert_eq!(on_cpu(&cpu, &edit, &factored), edits);
        let found = on_cpu(&cpu, &code, &factored);
        assert_eq!((&found.words, &found.scales), (&codes.words, &codes.scales));
        let Some((engine, _turn)) = &gpu else { continue };
        let name = format!("{formats:?}");
        close(&name, &engine.run(&Gram::ALL, factored.chunk()).unwrap().values, &gram, 1e-5);
        let found = engine.run(&project, factored.chunk()).unwrap();
        close(&name, &load(&found, Dtype::F32), &load(&atoms, Dtype::F32), 1e-6);
        let found = engine.run(&many, factored.chunk()).unwrap();
        close(&name, &load(&found, Dtype::F32), &load(&on_cpu(&cpu, &many, &formed), Dtype::F32), 1e-6);
        close(&name, &load(&engine.run(&edit, factored.chunk()).unwrap(), Dtype::F32), &load(&edits, Dtype::F32), 1e-6);
        let found = engine.run(&code, factored.chunk()).unwrap();
        // Rounded otherwise in the last bit, a value beside a border falls into the other cell: few do.
        let n_other: u32 = found.words.iter().zip(&codes.words).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!(n_other <= 8, "{name}: {n_other} bits of the codes differ");
    }
}

#[test]
fn factors_outside_their_chunk_are_refused() {
    let cpu = CpuEngine::new();
    let breaks: [fn(&mut FactorSlice); 7] = [
        |factors| factors.left = usize::MAX - 3,
        |factors| factors.right += 4,
        |factors| factors.left += 2,
        |factors| factors.rank = 0,
        |factors| factors.rank = usize::MAX / 2,
        |factors| factors.n_columns = 0,
        |factors| factors.first = usize::MAX,
    ];
    for break_it in breaks {
        let [mut made, _] = chunks(Formats::All(Dtype::F32));
        // The right factor of the last column with any is the end of the chunk.
        let last = made.layout.factors.iter_mut().flatten().last().unwrap();
        break_it(last);
        let mut out = <Gram as Work>::Output::default();
        let refused = cpu.run(&Gram::ALL, made.chunk(), &mut cpu.scratch(), &mut out);
        assert!(matches!(refused, Err(KernelError::FactorsOutside { .. })), "{refused:?}");
        if let Some((engine, _turn)) = gpu() {
            assert!(matches!(engine.run(&Gram::ALL, made.chunk()), Err(KernelError::FactorsOutside { .. })));
        }
    }
    let [mut made, _] = chunks(Formats::All(Dtype::F32));
    made.layout.factors.pop();
    let mut out = <Gram as Work>::Output::default();
    assert!(cpu.run(&Gram::ALL, made.chunk(), &mut cpu.scratch(), &mut out).is_err());
}

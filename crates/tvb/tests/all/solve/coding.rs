//! What coding is predicted to add, against the coder itself: tasks, the kept sum, subsets and random expressions of data of
//! several kinds, coded by the engine and decoded again.

use super::cases::{Rng, gaussian, gram_of, own, scaled, sharing};
use faer::Mat;
use tvb::matrix::Matrix;
use tvb::solve::{
    Coding, LADDER, Method, Parts, Rule, Rung, SolveOptions, assess, coded_edit_fidelity, edit_fidelity, solve,
};
use tvb_kernels::{
    Base, Chunk, ChunkLayout, Code, CodeSlice, Codes, CpuEngine, Decode, Dtype, Place, Rate, Segment, Slice, n_blocks,
};

/// Blocks enough for every figure to be within a percent of its expectation.
const D: usize = 40 * 4096;

/// Columns of one segment, in f32.
fn laid_out(columns: &[Vec<f32>]) -> (ChunkLayout, Vec<u8>) {
    let n_rows = columns[0].len();
    let segment = Segment { n_rows, place: Place { tensor: 3, first_row: 0 } };
    let slice = |column: usize| Slice { offset: column * n_rows * 4, dtype: Dtype::F32 };
    let bytes: Vec<u8> = columns.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let layout = ChunkLayout {
        n_columns: columns.len(),
        segments: vec![segment],
        slices: (0..columns.len()).map(slice).collect(),
        n_bytes: bytes.len(),
        ..ChunkLayout::default()
    };
    (layout, bytes)
}

/// The atoms V·B as they come back from their codes with each of `edits` over atoms, in f32.
fn coded(v: &Mat<f64>, encode: &Matrix, coding: &Coding, edits: &[Vec<f64>]) -> Vec<Vec<f32>> {
    let (n_atoms, n_kept) = (encode.n_columns(), coding.n_kept());
    let atom = |m: usize, x: usize| (0..v.ncols()).map(|t| v[(x, t)] * encode[(t, m)]).sum::<f64>() as f32;
    let mut columns = vec![vec![0.0; v.nrows()]];
    columns.extend((0..n_atoms).map(|m| (0..v.nrows()).map(|x| atom(m, x)).collect::<Vec<f32>>()));
    let (layout, bytes) = laid_out(&columns);
    let kept = (0..n_atoms).flat_map(|m| (0..n_kept).map(move |k| (m, k))).map(|at| coding.kept[at] as f32).collect();
    let code = Code { rate: coding.rate, kept_rate: coding.kept_rate, kept, n_kept, seed: coding.seed };
    let (engine, mut codes) = (CpuEngine::new(), Codes::default());
    engine.run(&code, Chunk { layout: &layout, bytes: &bytes }, &mut engine.scratch(), &mut codes).expect("coded");

    // The base alone is a float column now; the codes lie behind it.
    let n_blocks = n_blocks(v.nrows());
    let (mut layout, mut bytes) = laid_out(&columns[..1]);
    let words_at = bytes.len();
    bytes.extend(codes.words.iter().flat_map(|word| word.to_le_bytes()));
    let mut at = (words_at, bytes.len());
    bytes.extend(codes.scales.iter().flat_map(|scale| scale.to_le_bytes()));
    let rates: Vec<Rate> =
        std::iter::repeat_n(coding.rate, n_atoms).chain(std::iter::repeat_n(coding.kept_rate, n_kept)).collect();
    for rate in &rates {
        layout.codes.push(CodeSlice { words: at.0, scales: at.1 });
        at = (at.0 + n_blocks * rate.words() * 4, at.1 + n_blocks * 2);
    }
    layout.n_bytes = bytes.len();
    let weights = edits.iter().flat_map(|edit| coding.column_weights(edit)).map(|weight| weight as f32).collect();
    let decode = Decode {
        rates,
        weights,
        n_outputs: edits.len(),
        base: Base::Omit,
        dtype: Some(Dtype::F32),
        seed: coding.seed,
    };
    let mut out = Vec::new();
    engine.run(&decode, Chunk { layout: &layout, bytes: &bytes }, &mut engine.scratch(), &mut out).expect("decoded");
    let values: Vec<f32> = out.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    values.chunks_exact(v.nrows()).map(<[f32]>::to_vec).collect()
}

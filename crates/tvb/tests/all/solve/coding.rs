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
const D: usize = 24 * 4096;

/// Columns of one segment, in f32.
fn laid_out(columns: &[Vec<f32>]) -> (ChunkLayout, Vec<u8>) {
    let n_rows = columns[0].len();
    let segment = Segment { n_rows, place: Place { tensor: 3, first_row: 0 } };
    let slice = |column: usize| Slice::new(column * n_rows * 4, Dtype::F32);
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
    let code = Code { rate: coding.rate, kept_rate: coding.kept_rate, kept, n_kept, n_carried: 0, seed: coding.seed };
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
    let of_columns: Vec<Vec<f64>> = edits.iter().map(|edit| coding.column_weights(edit)).collect();
    let weights = (0..rates.len()).flat_map(|column| of_columns.iter().map(move |edit| edit[column] as f32)).collect();
    let decode =
        Decode { rates, weights, n_outputs: edits.len(), base: Base::Left, dtype: Some(Dtype::F32), seed: coding.seed };
    let mut out = Vec::new();
    engine.run(&decode, Chunk { layout: &layout, bytes: &bytes }, &mut engine.scratch(), &mut out).expect("decoded");
    let values: Vec<f32> = out.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    values.chunks_exact(v.nrows()).map(<[f32]>::to_vec).collect()
}

/// Gain and noise of what came back against what was meant, V·α.
fn measured(v: &Mat<f64>, alpha: &[f64], back: &[f32]) -> (f64, f64) {
    let (mut energy, mut product, mut decoded) = (0.0, 0.0, 0.0);
    for (x, back) in back.iter().enumerate() {
        let meant: f64 = alpha.iter().enumerate().map(|(t, weight)| weight * v[(x, t)]).sum();
        energy += meant * meant;
        product += meant * f64::from(*back);
        decoded += f64::from(*back).powi(2);
    }
    let gain = product / energy;
    (gain, (decoded / energy - gain * gain).max(0.0))
}

fn one(n: usize, t: usize) -> Vec<f64> {
    (0..n).map(|i| f64::from(u8::from(i == t))).collect()
}

/// Every task, the sum, a pair, a difference and twenty random expressions.
fn expressions(n_tasks: usize) -> Vec<(String, Vec<f64>)> {
    let mut rng = Rng(9);
    let tasks = (0..n_tasks).map(|t| (format!("task {t}"), one(n_tasks, t)));
    let plus = |sign: f64| one(n_tasks, 0).iter().zip(one(n_tasks, 1)).map(|(a, b)| a + sign * b).collect();
    let named =
        [("sum".to_owned(), vec![1.0; n_tasks]), ("pair".to_owned(), plus(1.0)), ("difference".to_owned(), plus(-1.0))];
    let mut random = (0..20).map(|i| (format!("random {i}"), (0..n_tasks).map(|_| rng.normal()).collect()));
    tasks.chain(named).chain(random.by_ref()).collect()
}

fn rung(text: &str) -> Rung {
    text.parse().expect("a rung")
}

/// Gain within half a percent, noise within 3 %, and what so few blocks leave to chance.
fn check(name: &str, v: &Mat<f64>, method: &str, n_atoms: usize, rung: Rung) {
    let n_tasks = v.ncols();
    let gram = gram_of(v);
    let parts = Parts { coded: gram.matrix().clone(), raw: Matrix::zeros(n_tasks, n_tasks) };
    let method = Method::parse(method).expect("known");
    let basis = solve(&gram, &method, &SolveOptions::atoms(n_atoms), &|_| true).expect("a basis");
    let (coding, sizes) = (rung.coding(&basis, &[vec![1.0; n_tasks]], 7), parts.sizes(&basis));
    assert_eq!(coding.n_kept(), usize::from(rung.kept_rate.is_some() && n_atoms > 1));
    let assessed = assess(&gram, &basis).expect("errors").coded(&gram, &basis, &coding, &sizes).expect("coded errors");
    let expressions = expressions(n_tasks);
    let weights: Vec<Vec<f64>> = expressions.iter().map(|(_, alpha)| basis.weights(alpha, Rule::Projected)).collect();
    let back = coded(v, &basis.encode, &coding, &weights);
    for (at, ((what, alpha), back)) in expressions.iter().zip(&back).enumerate() {
        let found = coded_edit_fidelity(&gram, &basis, &coding, &sizes, alpha, Rule::Projected).expect("predicted");
        let (gain, noise) = measured(v, alpha, back);
        let case = format!("{name}, {} {n_atoms} at {rung}, {what}", method.name());
        // What is kept has hardly any noise left, and what that is depends on how alike the errors of single atoms are.
        let most = if what == "sum" { 0.15 } else { 0.035 };
        let by_chance = 4.0 * (found.noise() / D as f64).sqrt();
        assert!((gain - found.gain()).abs() < 0.005 + by_chance, "{case}: gain {gain}, predicted {}", found.gain());
        assert!((noise / found.noise() - 1.0).abs() < most, "{case}: noise {noise}, predicted {}", found.noise());
        if at < n_tasks {
            assert!((assessed.gains[at] - found.gain()).abs() < 1e-9, "{case}");
            assert!((assessed.noises[at] - found.noise()).abs() < 1e-9, "{case}");
            let error = (1.0 - found.gain()).powi(2) + found.noise();
            assert!((assessed.relative_errors[at] - error).abs() < 1e-9, "{case}");
            assert!((assessed.recovered_norms[at] / assessed.norms[at] - found.norm_ratio).abs() < 1e-9, "{case}");
        }
    }
    assert!(assessed.rounding.is_empty());
}

#[test]
fn what_is_predicted_is_what_comes_back() {
    let mut spread = scaled(gaussian(D, 8, 21), |t| 1.0 + t as f64);
    // Heavy tails: the rotation makes them all alike.
    let mut rng = Rng(4);
    for x in 0..D {
        spread[(x, 2)] = rng.normal() * 3.0 * (0.5 * rng.normal()).exp();
    }
    let alike = sharing(D, 8, 0.25, |_| 1.0, 22);
    for rung in LADDER.into_iter().filter(|rung| rung.warning().is_none()) {
        check("spread", &spread, "identity", 8, rung);
    }
    check("alike", &alike, "identity", 8, rung("1+4"));
    check("alike", &alike, "identity", 8, rung("2+3"));
    // Their errors have a fifth in common at 1 bit.
    let twins = sharing(D, 4, 4.0, |_| 1.0, 23);
    check("twins", &twins, "identity", 4, Rung::new(Rate::Signs, None));
    check("twins", &twins, "identity", 4, Rung::new(Rate::Three, None));
    check("parts", &scaled(gaussian(D, 5, 31), |t| 1.0 + t as f64), "identity", 5, rung("0.5+4"));
    check("one", &gaussian(D, 1, 23), "identity", 1, rung("1+4"));
    let nothing_kept = Rung::new(Rate::Signs, None);
    check("none kept", &gaussian(D, 3, 23), "identity", 3, nothing_kept);
}

#[test]
fn mixtures_have_their_own_bias_and_the_noise_of_their_atoms() {
    let v = scaled(sharing(D, 6, 0.2, |_| 1.0, 24), |t| 1.0 + 0.2 * t as f64);
    check("mixtures", &v, "sample", 3, rung("2+3"));
    check("mixtures", &v, "exact", 2, rung("4+1"));
    check("mixtures", &v, "sample", 4, rung("1+4"));
}

#[test]
fn without_a_code_gain_and_noise_make_up_the_error() {
    for (name, v) in super::cases::collections() {
        let gram = gram_of(&v);
        for method in ["exact", "pca", "cluster", "identity"] {
            let method = Method::parse(method).expect("known");
            let n_atoms = method.fixed_atoms(gram.n_tasks()).unwrap_or(gram.n_tasks().div_ceil(2));
            let basis = solve(&gram, &method, &SolveOptions::atoms(n_atoms), &|_| true).expect("a basis");
            let assessed = assess(&gram, &basis).expect("errors");
            for t in 0..gram.n_tasks() {
                let (gain, noise) = (assessed.gains[t], assessed.noises[t]);
                let error = (1.0 - gain).powi(2) + noise;
                assert!((error - assessed.relative_errors[t]).abs() < 1e-9, "{name} {} {t}", method.name());
                let alone = edit_fidelity(&gram, &basis, &one(gram.n_tasks(), t), Rule::Projected).expect("an edit");
                // Of a task a millionth as long as its atoms, rounding leaves less.
                let slack = if name == "norms over 1e6" { 1e-3 } else { 1e-7 };
                if assessed.norms[t] > 0.0 {
                    assert!((alone.gain() - gain).abs() < slack, "{name} {} {t}", method.name());
                    assert!((alone.noise() - noise).abs() < slack, "{name} {} {t}", method.name());
                } else {
                    assert_eq!(gain, 1.0, "{name} {} {t}", method.name());
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let gram = gram_of(&gaussian(50, 4, 1));
    let parts = Parts { coded: gram.matrix().clone(), raw: own(&Mat::zeros(4, 4)) };
    let basis = |m: usize| solve(&gram, &Method::Pca, &SolveOptions::atoms(m), &|_| true).expect("a basis");
    let (two, three) = (basis(1), basis(2));
    let coding = Rung::DEFAULT.coding(&two, &[vec![1.0; 4]], 0);
    let assessed = assess(&gram, &three).expect("errors");
    assert!(assessed.clone().coded(&gram, &three, &coding, &parts.sizes(&three)).is_err());
    assert!(assessed.coded(&gram, &three, &Rung::DEFAULT.coding(&three, &[], 0), &parts.sizes(&two)).is_err());
    assert!(parts.subset(&[4]).is_err());
    assert_eq!(parts.subset(&[2, 0]).expect("two").coded[(0, 1)], gram.matrix()[(2, 0)]);
}

//! The eigendecomposition of both engines: its identities, and that they agree to 1e-9 of λ1.

use crate::common::Random;
use crate::common::device::gpu;
use tvb_kernels::{CpuEngine, Eigh, KernelError};

/// Column-major symmetric matrices of order n, each with a name.
fn matrices(n: usize) -> Vec<(&'static str, Vec<f64>)> {
    let mut random = Random(n as u64);
    let mut of = |entry: &mut dyn FnMut(usize, usize, &mut Random) -> f64| {
        let mut matrix = vec![0.0; n * n];
        for j in 0..n {
            for i in j..n {
                let value = entry(i, j, &mut random);
                (matrix[j * n + i], matrix[i * n + j]) = (value, value);
            }
        }
        matrix
    };
    let vectors: Vec<Vec<f64>> = {
        let mut random = Random(99 + n as u64);
        (0..n).map(|_| (0..3 * n + 5).map(|_| random.signed()).collect()).collect()
    };
    let gram = |rank: usize, i: usize, j: usize| -> f64 {
        vectors[i][..rank].iter().zip(&vectors[j][..rank]).map(|(a, b)| a * b).sum()
    };
    vec![
        ("zero", of(&mut |_, _, _| 0.0)),
        ("identity", of(&mut |i, j, _| f64::from(u8::from(i == j)))),
        ("indefinite", of(&mut |_, _, random| random.signed())),
        ("Gram", of(&mut |i, j, _| gram(3 * n + 5, i, j))),
        ("Gram of rank 3", of(&mut |i, j, _| gram(3, i, j))),
        ("Gram times 1e-12", of(&mut |i, j, _| 1e-12 * gram(2 * n, i, j))),
        ("Gram times 1e200", of(&mut |i, j, _| 1e200 * gram(2 * n, i, j))),
        ("all ones", of(&mut |_, _, _| 1.0)),
        ("two clusters", of(&mut |i, j, _| if i == j { 1.0 + 3.0 * f64::from(u8::from(i % 3 == 0)) } else { 0.0 })),
        ("a cluster 1e-8 wide", of(&mut |i, j, random| f64::from(u8::from(i == j)) + 1e-8 * random.signed())),
        ("a cluster 1e-13 wide", of(&mut |i, j, random| f64::from(u8::from(i == j)) + 1e-13 * random.signed())),
        ("close tasks", of(&mut |i, j, random| 0.99 + f64::from(u8::from(i == j)) * 0.01 + 1e-4 * random.signed())),
        ("graded", of(&mut |i, j, random| 10f64.powi(-((i + j) as i32)) * (1.5 + random.signed()))),
    ]
}

/// ‖GU − UΛ‖, ‖UᵀU − I‖, order and signs.
fn check(name: &str, matrix: &[f64], n: usize, found: &Eigh) {
    let scale = matrix.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
    assert_eq!((found.values.len(), found.vectors.len()), (n, n * n), "{name}");
    assert!(found.values.is_sorted_by(|a, b| a >= b), "{name}: not descending: {:?}", found.values);
    let vector = |k: usize| &found.vectors[k * n..][..n];
    for k in 0..n {
        for i in 0..n {
            let row: f64 = (0..n).map(|j| matrix[j * n + i] / scale.max(f64::MIN_POSITIVE) * vector(k)[j]).sum();
            let residual = (row - found.values[k] / scale.max(f64::MIN_POSITIVE) * vector(k)[i]).abs();
            assert!(residual <= 1e-10 * n as f64, "{name}: residual {residual:e} of vector {k}, entry {i}");
        }
        for l in 0..=k {
            let product: f64 = vector(k).iter().zip(vector(l)).map(|(a, b)| a * b).sum();
            let expected = f64::from(u8::from(k == l));
            assert!((product - expected).abs() <= 1e-10, "{name}: vectors {k} and {l}: {product}");
        }
        let largest = vector(k).iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
        let first = vector(k).iter().find(|entry| entry.abs() >= largest * (1.0 - 1e-6));
        assert!(first.is_some_and(|entry| *entry > 0.0), "{name}: sign of vector {k}");
    }
}

#[test]
fn both_engines_decompose_and_agree() {
    let cpu = CpuEngine::new();
    let gpu = gpu();
    for n in [1, 2, 3, 7, 8, 20, 33, 64] {
        let (names, batch): (Vec<_>, Vec<_>) = matrices(n).into_iter().unzip();
        let flat = batch.concat();
        let expected = cpu.eigh(&flat, n, batch.len()).expect("finite matrices");
        for ((name, matrix), found) in names.iter().zip(&batch).zip(&expected) {
            check(&format!("cpu, n = {n}, {name}"), matrix, n, found);
        }
        let Some((gpu, _turn)) = &gpu else { continue };
        let found = gpu.eigh(&flat, n, batch.len()).expect("finite matrices");
        assert_eq!(found, gpu.eigh(&flat, n, batch.len()).expect("finite matrices"), "two runs differ");
        for (((name, matrix), found), expected) in names.iter().zip(&batch).zip(&found).zip(&expected) {
            check(&format!("gpu, n = {n}, {name}"), matrix, n, found);
            let first = expected.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            for (k, (found, expected)) in found.values.iter().zip(&expected.values).enumerate() {
                let difference = (found - expected).abs();
                assert!(difference <= 1e-9 * first, "n = {n}, {name}: λ{k} differs by {difference:e} of {first:e}");
            }
        }
    }
}

#[test]
fn malformed_matrices_are_refused() {
    let cpu = CpuEngine::new();
    let gpu = gpu();
    let mut runners: Vec<Box<dyn Fn(&[f64], usize, usize) -> Result<Vec<Eigh>, KernelError>>> =
        vec![Box::new(move |matrices, n, n_matrices| cpu.eigh(matrices, n, n_matrices))];
    if let Some((gpu, _)) = &gpu {
        let gpu = gpu.clone();
        runners.push(Box::new(move |matrices, n, n_matrices| gpu.eigh(matrices, n, n_matrices)));
    }
    for run in runners {
        assert_eq!(run(&[], 0, 0), Ok(Vec::new()));
        assert_eq!(run(&[], 3, 0), Ok(Vec::new()));
        assert_eq!(run(&[1.0; 8], 3, 1), Err(KernelError::MatrixSize { expected: 9, found: 8 }));
        assert_eq!(run(&[1.0; 8], usize::MAX, 2), Err(KernelError::TooLarge { what: "matrices" }));
        let mut two = vec![1.0; 8];
        two[6] = f64::NAN;
        assert_eq!(run(&two, 2, 2), Err(KernelError::MatrixNotFinite { matrix: 1 }));
    }
}

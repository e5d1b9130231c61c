//! The eigendecomposition of both engines: its identities, that they agree to 1e-9 of λ1, and what the device makes of a matrix
//! before the host refines it. Refining mends far more than f32 leaves to be mended, so a kernel is seen to work in its raw
//! vectors and in no matrix falling back to the host.

use crate::common::Random;
use crate::common::device::{device, gpu, turn};
use tvb_kernels::{CpuEngine, DeviceSetup, Eigh, GpuEngine, InjectedFault, KernelError};

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
        let on_host = gpu.n_eigh_on_host();
        let found = gpu.eigh(&flat, n, batch.len()).expect("finite matrices");
        assert_eq!(found, gpu.eigh(&flat, n, batch.len()).expect("finite matrices"), "two runs differ");
        assert_eq!(gpu.n_eigh_on_host(), on_host, "n = {n}: done on the host");
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

/// What the raw vectors of a device are off by, at most.
const RAW: f64 = 1e-4;

/// Orders at the ends of every kernel, odd and even.
const ORDERS: [usize; 9] = [1, 2, 3, 20, 32, 33, 64, 65, 256];

/// Matrices of order n in an orthonormal basis that is nowhere near the axes, each with its eigenvalues.
fn hard(n: usize) -> Vec<(&'static str, Vec<f64>)> {
    let mut random = Random(7 * n as u64);
    let turned: Vec<f64> = (0..n * n).map(|_| random.signed()).collect();
    let basis = CpuEngine::new().eigh(&turned, n, 1).expect("finite").remove(0).vectors;
    let last = (n - 1).max(1) as f64;
    let spectra: [(&str, &dyn Fn(usize) -> f64); 8] = [
        ("apart", &|k| 1.0 + k as f64),
        ("of both signs", &|k| (k as f64 - last / 2.0) / last),
        ("two clusters", &|k| if k % 3 == 0 { 4.0 } else { 1.0 }),
        ("a cluster 1e-8 wide", &|k| if k == 0 { 3.0 } else { 1.0 + 1e-8 * k as f64 / last }),
        ("rank 1", &|k| f64::from(u8::from(k == 0))),
        ("rank 3", &|k| if k < 3 { 1.0 / (1.0 + k as f64) } else { 0.0 }),
        ("spread 1e8", &|k| 10f64.powf(-8.0 * k as f64 / last)),
        ("spread 1e8, half tiny", &|k| if k % 2 == 0 { 1.0 } else { 1e-8 }),
    ];
    let mut made: Vec<(&str, Vec<f64>)> = spectra
        .into_iter()
        .map(|(name, value)| {
            let entry =
                |i: usize, j: usize| -> f64 { (0..n).map(|k| value(k) * basis[k * n + i] * basis[k * n + j]).sum() };
            // Exactly symmetric.
            (name, (0..n * n).map(|at| entry((at % n).max(at / n), (at % n).min(at / n))).collect())
        })
        .collect();
    // Task vectors whose lengths differ by 1e4, so that squares differ by 1e8; and near copies of one.
    let length = |i: usize| 10f64.powf(-4.0 * i as f64 / last);
    let apart = made[0].1.clone();
    let scaled = (0..n * n).map(|at| length(at % n) * length(at / n) * apart[at]).collect();
    made.push(("lengths 1e4 apart", scaled));
    made.push(("near copies", (0..n * n).map(|at| 1.0 + 1e-3 * apart[at]).collect()));
    made
}

/// All of them, or of large orders those that take most: a software adapter needs seconds for each.
fn batch_of(n: usize) -> (Vec<&'static str>, Vec<Vec<f64>>) {
    let is_dear = |name: &str| n > 100 && !["apart", "two clusters", "rank 3"].contains(&name);
    hard(n).into_iter().filter(|(name, _)| !is_dear(name)).unzip()
}

/// The residual ‖GV − VΛ‖ over ‖G‖, with the best Λ for V, and ‖VᵀV − I‖ over ‖I‖.
fn raw_errors(matrix: &[f64], vectors: &[f32], n: usize) -> [f64; 2] {
    let column = |k: usize| -> Vec<f64> { vectors[k * n..][..n].iter().map(|x| f64::from(*x)).collect() };
    let dot = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(a, b)| a * b).sum() };
    let columns: Vec<Vec<f64>> = (0..n).map(column).collect();
    let (mut residual, mut unorthogonal) = (0.0, 0.0);
    for (k, v) in columns.iter().enumerate() {
        let gv: Vec<f64> = (0..n).map(|i| dot(&matrix[i * n..][..n], v)).collect();
        let value = dot(v, &gv) / dot(v, v);
        residual += gv.iter().zip(v).map(|(gv, v)| (gv - value * v).powi(2)).sum::<f64>();
        for (l, other) in columns.iter().enumerate() {
            unorthogonal += (dot(v, other) - f64::from(u8::from(k == l))).powi(2);
        }
    }
    let norm = dot(matrix, matrix).sqrt();
    [residual.sqrt() / norm.max(f64::MIN_POSITIVE), unorthogonal.sqrt() / (n as f64).sqrt()]
}

/// Neither error is above the limit, nor a NaN.
fn is_right([residual, unorthogonal]: [f64; 2]) -> bool {
    residual <= RAW && unorthogonal <= RAW
}

#[test]
fn the_devices_own_vectors_are_eigenvectors() {
    let Some((gpu, _turn)) = gpu() else { return };
    check_raw(&gpu, &ORDERS);
}

#[test]
fn the_least_device_finds_them_too() {
    let _turn = turn();
    let Some(gpu) = device(DeviceSetup { least_limits: true, ..DeviceSetup::default() }) else { return };
    check_raw(&gpu, &[2, 33, 64, 66]);
}

fn check_raw(gpu: &GpuEngine, orders: &[usize]) {
    for &n in orders {
        let (names, batch) = batch_of(n);
        let flat = batch.concat();
        let on_host = gpu.n_eigh_on_host();
        let started = std::time::Instant::now();
        let raw = gpu.raw_eigh(&flat, n, batch.len()).expect("a device that does it");
        let took = started.elapsed();
        for (at, (name, matrix)) in names.iter().zip(&batch).enumerate() {
            let errors = raw_errors(matrix, &raw.vectors[at * n * n..][..n * n], n);
            let n_sweeps = raw.n_sweeps[at];
            eprintln!(
                "n = {n:3}, {name:22} residual {:.1e}, unorthogonal {:.1e}, {n_sweeps} sweeps",
                errors[0], errors[1]
            );
            assert!(is_right(errors), "n = {n}, {name}: {errors:?}");
            assert!(n_sweeps < 14, "n = {n}, {name}: {n_sweeps} sweeps and not settled");
        }
        eprintln!("n = {n:3}, {} matrices: {took:.1?}", batch.len());
        let (names, batch, flat) = match n > 100 {
            true => (&names[..1], &batch[..1], batch[0].clone()),
            false => (&names[..], &batch[..], flat),
        };
        let expected = CpuEngine::new().eigh(&flat, n, batch.len()).expect("finite");
        let found = gpu.eigh(&flat, n, batch.len()).expect("a device that does it");
        assert_eq!(gpu.n_eigh_on_host(), on_host, "n = {n}: done on the host");
        for ((name, found), expected) in names.iter().zip(&found).zip(&expected) {
            let first = expected.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            for (k, (found, expected)) in found.values.iter().zip(&expected.values).enumerate() {
                assert!((found - expected).abs() <= 1e-10 * first, "n = {n}, {name}: λ{k}: {found} {expected}");
            }
        }
        // What is beside a matrix in a batch does not show in it.
        let last = batch.len() - 1;
        let alone = gpu.raw_eigh(&batch[last], n, 1).expect("a device that does it");
        assert!(alone.vectors == raw.vectors[last * n * n..][..n * n], "n = {n}: neighbours show");
    }
}

/// The checks above are of the rotations: with every one replaced by the identity no matrix passes, though V is as orthonormal as
/// can be, and the device is not used.
#[test]
fn vectors_that_nothing_has_turned_do_not_pass() {
    let _turn = turn();
    let Some(gpu) = device(DeviceSetup::default()) else { return };
    gpu.miscompile(
        "Rotation(players.x, players.y, c - c * longer, s - s * longer, t, apq)",
        "Rotation(players.x, players.y, 1.0, 0.0, 0.0, 0.0)",
    );
    for n in ORDERS.into_iter().filter(|&n| n > 1) {
        let (names, mut batch) = batch_of(n);
        batch.truncate(if n > 100 { 1 } else { batch.len() });
        let raw = gpu.raw_eigh(&batch.concat(), n, batch.len()).expect("a device that does something");
        for (at, (name, matrix)) in names.iter().zip(&batch).enumerate() {
            if *name == "lengths 1e4 apart" {
                // All that is large is on its diagonal.
                continue;
            }
            let errors = raw_errors(matrix, &raw.vectors[at * n * n..][..n * n], n);
            assert!(!is_right(errors), "n = {n}, {name}: passes without a rotation: {errors:?}");
        }
        let refused = gpu.eigh(&batch[0], n, 1).expect_err("a device that fails its test");
        assert!(matches!(refused, KernelError::SelfTest { .. }), "n = {n}: {refused}");
    }
}

#[test]
fn a_device_that_fails_says_so() {
    let _turn = turn();
    let Some(gpu) = device(DeviceSetup::default()) else { return };
    let matrix = &hard(5)[0].1;
    gpu.inject_fault(1, InjectedFault::OutOfMemory);
    let error = gpu.eigh(matrix, 5, 1).expect_err("a fault");
    assert!(error.is_device_fault(), "{error}");
    assert!(gpu.eigh(matrix, 5, 1).is_err(), "a device that failed is used again");
    gpu.rebuild().expect("the same device");
    assert_eq!(gpu.eigh(matrix, 5, 1).map(|found| found.len()), Ok(1));
}
